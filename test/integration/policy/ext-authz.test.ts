import assert from 'node:assert/strict';
import { hash } from 'node:crypto';
import { connect as connectHttp2 } from 'node:http2';
import { connect } from 'node:net';
import { test, type TestContext } from 'node:test';
import { parseCertificate } from '../../../src/spiffe/x509/certificate.ts';
import { buildTrustBundle, withIntermediates } from '../../../src/spiffe/trust-bundle.ts';
import type { CheckedListener } from '../../../src/ext-authz/check.ts';
import { EMPTY_DENY_LIST, type DenyList } from '../../../src/policy/deny-list.ts';
import type { Policy } from '../../../src/policy/policy.ts';
import { denyListOf } from '../../support/policy/deny-file.ts';
import { eventually } from '../../support/eventually.ts';
import { ask, asEnvoySays, callCheck, checkOf, encodeCheck, sayChecked, type Asked } from '../../support/ext-authz.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { createTestAuthority, keyIdOf, type TestCertificate } from '../../support/pki/pki.ts';
import { policyFrom, policyOf } from '../../support/policy/policies.ts';
import { openRaw, openSotw, sdsClient, startSds, type TestSdsOptions } from '../../support/sds.ts';
import { bundleOf, heldSnapshot, svidOf } from '../../support/pki/snapshots.ts';

const WEB = 'spiffe://example.org/web';
const BATCH = 'spiffe://partner.example/batch';
const own = createTestAuthority({ trustDomain: 'example.org', subject: 'own' });
const partner = createTestAuthority({ trustDomain: 'partner.example', subject: 'partner' });
const web = own.issue({ id: WEB });

const CHECK = '/envoy.service.auth.v3.Authorization/Check';
const HOUR_MS = 3_600_000;

interface Stage {
  readonly ask: (asked: Asked, metadata?: Readonly<Record<string, string>>) => Promise<string>;
  readonly sds: Awaited<ReturnType<typeof startSds>>;
  readonly client: ReturnType<typeof sdsClient>;
}

/** One listener, `api`, with a policy; and a client. */
async function startStage(
  t: TestContext,
  policy: Policy | (() => Policy),
  { listener = {}, ...options }: TestSdsOptions & { readonly listener?: Partial<CheckedListener> } = {},
): Promise<Stage> {
  const api: CheckedListener = {
    get policy() {
      return typeof policy === 'function' ? policy() : policy;
    },
    notReady: () => undefined,
    ...listener,
  };
  const sds = await startSds(t, { listeners: new Map([['api', api]]), ...options });
  sds.publish(heldSnapshot([svidOf(own, 'spiffe://example.org/api')], [own, partner]));
  const client = sdsClient(t, sds.target);
  return { sds, client, ask: (asked, metadata) => ask(client, { listener: 'api', ...asked }, metadata) };
}

/** A certificate for a check, with an ordinary request. */
const by = ({ der }: TestCertificate, http: Asked['http'] = {}): Asked => ({ leaf: der, http });

test('a peer that the policy allows is let pass, and one that it does not is told 403', async (t) => {
  const { ask } = await startStage(t, policyOf(WEB));

  assert.equal(await ask(by(web)), 'OK');
  const other = own.issue({ id: 'spiffe://example.org/other' });
  assert.equal(await ask(by(other)), '7 403 scute: not_allowed: spiffe://example.org/other may not do this');
});

test('a peer that cannot be who it says is denied with the reason, whatever the principal is', async (t) => {
  const { ask, client } = await startStage(t, policyOf('spiffe://example.org/**', 'spiffe://partner.example/**'));
  const impostor = createTestAuthority({ trustDomain: 'example.org', subject: 'own' });
  const stranger = createTestAuthority({ trustDomain: 'example.org', subject: 'stranger' });
  const now = Date.now();
  const cases: readonly (readonly [string, Uint8Array | undefined])[] = [
    ['no_certificate', undefined],
    ['not_an_svid', own.issue({ uriSans: [], subject: WEB, dnsSans: ['spiffe://example.org/web'] }).der],
    ['not_an_svid', own.issue({ uriSans: [WEB, BATCH] }).der],
    ['not_an_svid', own.issue({ id: 'spiffe://example.org' }).der],
    ['not_an_svid', own.issue({ id: WEB, isCa: true }).der],
    ['expired', own.issue({ id: WEB, notBefore: now - 2 * HOUR_MS, notAfter: now - HOUR_MS }).der],
    ['not_yet_valid', own.issue({ id: WEB, notBefore: now + HOUR_MS, notAfter: now + 2 * HOUR_MS }).der],
    ['unknown_trust_domain', createTestAuthority({ trustDomain: 'other.example' }).issue({ id: 'spiffe://other.example/web' }).der],
    ['untrusted_chain', partner.issue({ id: WEB }).der],
    ['untrusted_chain', impostor.issue({ id: WEB }).der],
    ['untrusted_chain', stranger.issue({ id: WEB }).der],
    ['untrusted_chain', own.issue({ id: WEB, badSignature: true }).der],
    ['bad_certificate', Buffer.from('not a certificate')],
  ];

  for (const [reason, leaf] of cases)
    assert.equal(await ask({ leaf, http: {} }), `7 403 scute: ${reason}: the peer may not do this`, reason);

  for (const certificate of [
    '%',
    '%E0%A4%A',
    'x',
    asEnvoySays(web.der, web.der),
    `${asEnvoySays(web.der).slice(0, 60)}-----END%20CERTIFICATE-----`,
    'A'.repeat(100_000),
  ]) {
    const asked = encodeCheck({ attributes: { source: { certificate }, contextExtensions: { listener: 'api' } } });
    assert.equal(
      sayChecked(await callCheck(client, asked)),
      '7 403 scute: bad_certificate: the peer may not do this',
      certificate.slice(0, 99),
    );
  }
});

test('the principal of a check, and a SPIFFE ID in a field, count for nothing', async (t) => {
  const { client } = await startStage(t, policyOf(WEB));
  const nobody = checkOf({ listener: 'api', http: { headers: { 'x-forwarded-client-cert': `URI=${WEB};Subject="${WEB}"` } } });
  // attributes { source { principal: WEB } }, which our own definition does not have.
  const principal = Buffer.concat([Buffer.from([0x22, WEB.length]), Buffer.from(WEB)]);
  const source = Buffer.concat([Buffer.from([0x0a, principal.length]), principal]);
  const attributes = Buffer.concat([Buffer.from([0x0a, source.length]), source]);

  const checked = await callCheck(client, Buffer.concat([encodeCheck(nobody), attributes]));

  assert.equal(sayChecked(checked), '7 403 scute: no_certificate: the peer may not do this');
});

test('a check without a listener, or with one that there is not, is denied and told once', async (t) => {
  const { ask, sds } = await startStage(t, policyOf(WEB));

  assert.equal(await ask({ ...by(web), listener: undefined }), '7 403 scute: no_listener: the peer may not do this');
  for (const listener of ['nobody', '__proto__', 'toString', 'x'.repeat(10_000)])
    assert.equal(await ask({ ...by(web), listener }), '7 403 scute: unknown_listener: the peer may not do this');
  assert.equal(await ask({ ...by(web), listener: '' }), '7 403 scute: no_listener: the peer may not do this');

  const lines = sds.log().filter(({ message }) => message === 'checks of Envoy denied, whoever asks');
  assert.deepEqual(
    lines.map(({ reason, level }) => [reason, level]),
    [
      ['no_listener', 'warn'],
      ['unknown_listener', 'warn'],
    ],
  );
  assert.ok(JSON.stringify(lines).length < 5000);
});

test('nobody is let pass while the listener has no identity, or before there is any', async (t) => {
  let why: string | undefined = 'we do not hold spiffe://example.org/api';
  const { ask, sds } = await startStage(t, policyOf(WEB), { listener: { notReady: () => why } });
  assert.equal(await ask(by(web)), '7 403 scute: identity_not_ready: the peer may not do this');
  why = undefined;
  assert.equal(await ask(by(web)), 'OK');
  sds.publish({ kind: 'none', reason: 'withdrawn', generation: 9, receivedAtMs: 0, bundles: new Map() });
  assert.match(await ask(by(web)), /unknown_trust_domain/);

  const early = await startSds(t, { listeners: new Map([['api', { policy: policyOf(WEB), notReady: () => undefined }]]) });
  const client = sdsClient(t, early.target);
  assert.equal(
    sayChecked(await callCheck(client, encodeCheck(checkOf({ ...by(web), listener: 'api' })))),
    '7 403 scute: identity_not_ready: the peer may not do this',
  );
});

test('a leaf that an intermediate issued needs that intermediate: from Envoy, who shows the chain, or our own SVID', async (t) => {
  const intermediate = own.intermediate({ subject: 'intermediate' });
  const below = intermediate.issue({ id: WEB });
  const { ask, sds } = await startStage(t, policyOf(WEB));
  const withChain = (...ders: readonly Uint8Array[]): Asked =>
    by(below, { headers: { 'x-forwarded-client-cert': `By=x;Hash=00;Chain="${asEnvoySays(...ders)}";URI=${WEB}` } });

  assert.match(await ask(by(below)), /untrusted_chain/);
  assert.equal(await ask(withChain(...below.chain)), 'OK');
  assert.match(await ask(withChain(below.der)), /untrusted_chain/);
  const appended = { 'x-forwarded-client-cert': `Chain="x",By=x;Chain="${asEnvoySays(...below.chain)}"` };
  assert.equal(await ask(by(below, { headers: appended })), 'OK');
  assert.match(await ask(withChain(below.der, Buffer.from('nothing'))), /bad_certificate/);
  assert.match(await ask(withChain(...Array.from({ length: 9 }, () => intermediate.der))), /bad_certificate/);
  assert.match(await ask(withChain(below.der, partner.intermediate().der)), /untrusted_chain/);

  const issued = bundleOf(own);
  const known = buildTrustBundle(issued.trustDomain, own.der);
  assert.ok(known.ok);
  const ours = heldSnapshot([svidOf(own, 'spiffe://example.org/api')], [own]);
  const parsed = parseCertificate(intermediate.der);
  assert.ok(parsed.ok);
  sds.publish({ ...ours, bundles: new Map([[issued.trustDomain, withIntermediates(known.value, [parsed.value])]]) });
  assert.equal(await ask(by(below)), 'OK');
});

test('the deny list hits a peer by its SPIFFE ID, and by any certificate of the path, at the next check', async (t) => {
  const sha256 = ({ der }: { readonly der: Uint8Array }): string => hash('sha256', der);
  let list: DenyList = EMPTY_DENY_LIST;
  const { ask, sds } = await startStage(t, policyOf(WEB), { denyList: () => list });
  const intermediate = own.intermediate({ subject: 'intermediate' });
  const below = intermediate.issue({ id: WEB });
  const shown = by(below, { headers: { 'x-forwarded-client-cert': `Chain="${asEnvoySays(...below.chain)}"` } });
  const revoked = '7 403 scute: revoked: the peer may not do this';
  const keyId = keyIdOf(own.keys.publicKey).toString('hex');
  for (const [entries, asked] of [
    [{ ids: [WEB] }, by(web)],
    [{ certificates: [sha256(web)] }, by(web)],
    [{ certificates: [sha256(own)] }, by(web)],
    [{ serials: [`${web.serial}@${keyId}`] }, by(web)],
    [{ certificates: [sha256(intermediate)] }, shown],
  ] as const) {
    list = EMPTY_DENY_LIST;
    assert.equal(await ask(asked), 'OK');
    list = denyListOf(entries);
    assert.equal(await ask(asked), revoked, JSON.stringify(entries));
  }

  list = EMPTY_DENY_LIST;
  assert.equal(await ask(by(web)), 'OK');
  const ofOwn = buildTrustBundle(bundleOf(own).trustDomain, own.der, [own.crl({ revoked: [web.serial] })]);
  assert.ok(ofOwn.ok);
  sds.publish({
    ...heldSnapshot([svidOf(own, 'spiffe://example.org/api')], []),
    bundles: new Map([[ofOwn.value.trustDomain, ofOwn.value]]),
  });
  assert.equal(await ask(by(web)), revoked);
});

test('a peer that was let pass before is judged anew: by a policy, a rule’s time, its own dates and a bundle', async (t) => {
  const clock = new FakeClock();
  let policy = policyOf(WEB);
  const { ask, sds } = await startStage(t, () => policy, { clock });
  const short = own.issue({ id: WEB, notAfter: clock.now() + HOUR_MS / 2 });
  const denied = `7 403 scute: not_allowed: ${WEB} may not do this`;

  assert.equal(await ask(by(web)), 'OK');
  assert.equal(await ask(by(short)), 'OK');
  policy = policyOf(BATCH);
  assert.equal(await ask(by(web)), denied);
  policy = policyFrom({ allow: [{ peer: WEB, notAfterMs: clock.now() + 60_000 }] });
  assert.equal(await ask(by(web)), 'OK');
  clock.advance(60_000);
  assert.equal(await ask(by(web)), denied);
  policy = policyOf(WEB);
  clock.advance(HOUR_MS / 2);
  assert.match(await ask(by(short)), /expired/);
  assert.equal(await ask(by(web)), 'OK');
  sds.publish(heldSnapshot([svidOf(partner, BATCH)], [partner]));
  assert.match(await ask(by(web)), /unknown_trust_domain/);
});

test('a request is judged by method, path and host as a listener of ours judges it', async (t) => {
  const { ask } = await startStage(
    t,
    policyFrom({
      allow: [{ peer: WEB, methods: ['GET'], paths: ['/items/**'], hosts: ['app.example'] }],
      deny: [{ peer: WEB, paths: ['/items/secret/**'] }],
    }),
  );
  const of = (path: string, method = 'GET', host = 'app.example'): Asked => by(web, { path, method, host });
  const no = (reason: string): string => `7 403 scute: ${reason}: ${WEB} may not do this`;

  assert.equal(await ask(of('/items/1?x=/items/secret/2')), 'OK');
  assert.equal(await ask(of('/items/1', 'GET', 'APP.example.:443')), 'OK');
  assert.equal(await ask(of('/items/1', 'POST')), no('not_allowed'));
  assert.equal(await ask(of('/items/1', 'HEAD')), no('not_allowed'));
  assert.equal(await ask(of('/other')), no('not_allowed'));
  assert.equal(await ask(of('/items/1', 'GET', 'other.example')), no('not_allowed'));
  assert.equal(await ask(of('/items/secret/1')), no('denied'));
  for (const path of [
    '/items/%73ecret/1',
    '/items/./1',
    '/items//1',
    '/items/..%2f1',
    '/items/1;x',
    '/items/\u00e9',
    '/items/%zz',
    '\\',
    '',
    'http://app.example/items/1',
  ])
    assert.match(await ask(of(path)), /^3 400 scute: the path /, path);
  for (const host of ['', 'a b', 'app.example@x'])
    assert.match(await ask(of('/items/1', 'GET', host)), /^3 400 scute: the (request names no )?host/, host);
  for (const method of ['get', 'CONNECT', 'TRACE', '', 'GET\r\n'])
    assert.match(await ask(of('/items/1', method)), /^3 400 scute: the method/, method);
});

test('a target that is no path is refused, whatever the rules look at', async (t) => {
  let policy = policyFrom({ allow: [{ peer: WEB, hosts: ['app.example'] }] });
  const { ask } = await startStage(t, () => policy);
  const of = (path: string, method = 'GET'): Asked => by(web, { path, method, host: 'app.example' });
  const ofPaths = policyFrom({ allow: [WEB], deny: [{ peer: WEB, paths: ['/**'] }] });

  assert.equal(await ask(of('*', 'OPTIONS')), 'OK');
  for (policy of [policy, ofPaths, policyOf(WEB)]) {
    // An application takes the host of an absolute form for the one that it is asked for, whatever Host says.
    for (const path of ['http://admin.example/x', 'admin.example/x', '', '?x', '*'])
      assert.equal(await ask(of(path)), '3 400 scute: the path is not one that is forwarded', path);
    assert.match(await ask(of('*?x', 'OPTIONS')), /^3 400 scute: /);
  }
});

test('the bytes of a path are judged, not what Envoy makes of those that are no text', async (t) => {
  const { ask } = await startStage(t, policyFrom({ allow: [WEB], deny: [{ peer: WEB, paths: ['/secret'] }] }));
  const asked = (path: string, raw?: string): Promise<string> =>
    ask(by(web, { path, ...(raw !== undefined && { raw: { ':path': raw } }) }));

  // Envoy writes "!" for each byte that is no UTF-8.
  assert.equal(await asked('/secr!et', '/secr\xffet'), '3 400 scute: the path is not one that is forwarded');
  assert.match(await asked('/secr!et'), /^3 400 scute: the path has a "!"/);
  assert.equal(await asked('/secr!et', '/secr!et'), 'OK');
  assert.equal(await asked('/other?x=!'), 'OK');
  assert.equal(await asked('/other', '/secret'), `7 403 scute: denied: ${WEB} may not do this`);
});

test('fields that say another request than was judged are removed where rules look at requests, however they are spelled', async (t) => {
  let policy = policyFrom({ allow: [{ peer: WEB, paths: ['/**'] }] });
  const { client } = await startStage(t, () => policy);
  const removed = async (headers: Record<string, string>): Promise<readonly string[]> => {
    const { response } = await callCheck(client, encodeCheck(checkOf({ ...by(web, { headers }), listener: 'api' })));
    assert.equal(response?.httpResponse.case, 'okResponse');
    return response.httpResponse.value.headersToRemove.toSorted();
  };
  const all = ['x-http-method', 'x-http-method-override', 'x-method-override', 'x-original-url', 'x-rewrite-url'];

  assert.deepEqual(await removed({}), all);
  assert.deepEqual(
    await removed({ x_original_url: '/admin', 'x-http_method-override': 'PUT', 'x-other': '1' }),
    [...all, 'x-http_method-override', 'x_original_url'].toSorted(),
  );
  policy = policyOf(WEB);
  assert.deepEqual(await removed({ x_original_url: '/admin' }), []);
});

test('fields that only read like those that say who the peer is are removed, whatever the rules look at', async (t) => {
  const { client } = await startStage(t, policyOf(WEB), { listener: { spiffeIdHeader: 'X-Peer-Id' } });
  const raw = {
    'x-forwarded-client-cert': 'Hash=0',
    'x_forwarded_client-cert': `URI=${WEB}`,
    'x.forwarded.client.cert': `URI=${WEB}`,
    'x-peer-id': WEB,
    'x~peer_id': BATCH,
    'x-peer-ids': '1',
  };

  const { response } = await callCheck(client, encodeCheck(checkOf({ ...by(web, { raw }), listener: 'api' })));

  assert.equal(response?.httpResponse.case, 'okResponse');
  assert.deepEqual(response.httpResponse.value.headersToRemove.toSorted(), [
    'x.forwarded.client.cert',
    'x_forwarded_client-cert',
    'x~peer_id',
  ]);
});

test('a check of a connection is let pass only where every request would be', async (t) => {
  let policy = policyOf(WEB);
  const { ask, sds } = await startStage(t, () => policy);
  const asked: Asked = { leaf: web.der };
  const elsewhere = { 'scute-listener': 'api' };
  const inexpressible = '7 403 scute: inexpressible: spiffe://example.org/web may not do this';

  assert.equal(await ask({ ...asked, listener: undefined }, elsewhere), 'OK');
  assert.equal(await ask({ ...asked, listener: 'nobody' }, elsewhere), '7 403 scute: unknown_listener: the peer may not do this');
  policy = policyFrom({ allow: [{ peer: WEB, methods: ['GET'] }] });
  assert.equal(await ask(asked), inexpressible);
  policy = policyFrom({ allow: [WEB], deny: [{ peer: WEB, paths: ['/admin'] }] });
  assert.equal(await ask(asked), inexpressible);
  policy = policyFrom({ allow: [WEB, { peer: WEB, methods: ['GET'] }] });
  assert.equal(await ask(asked), 'OK');
  policy = policyFrom({ allow: [BATCH] });
  assert.equal(await ask(asked), `7 403 scute: not_allowed: ${WEB} may not do this`);
  policy = policyFrom({ allow: [WEB], deny: [{ peer: WEB, paths: ['/admin'], mode: 'audit' }] });
  assert.equal(await ask(asked), 'OK');
  await eventually(() => assert.equal(sds.log().at(-1)?.['audit'], 'denied'));
});

test('each check is counted and one line: the rule that decided, what audit let pass, and which rule nearly matched', async (t) => {
  const { ask, sds } = await startStage(
    t,
    policyFrom({
      allow: [
        { peer: WEB, methods: ['GET'] },
        { peer: BATCH, mode: 'audit' },
      ],
    }),
  );

  await ask(by(web, { path: '/items?token=secret' }));
  await ask(by(web, { method: 'POST', host: 'h'.repeat(1000), path: `/${'p'.repeat(3000)}` }));
  await ask(by(partner.issue({ id: BATCH })));
  await ask(by(own.issue({ uriSans: [] })));

  const lines = sds.log().filter(({ message }) => message === 'check answered');
  const shown = lines.map(({ listener, peer_id, method, path, verdict, reason, rule, audit, near }) => ({
    listener,
    peer_id,
    method,
    path,
    verdict,
    reason,
    rule,
    audit,
    near,
  }));
  const rest = { listener: 'api', method: 'GET', path: '/', reason: undefined, rule: undefined, audit: undefined, near: undefined };
  assert.deepEqual(shown, [
    { ...rest, peer_id: WEB, path: '/items', verdict: 'allow', rule: `${WEB} GET` },
    {
      ...rest,
      peer_id: WEB,
      method: 'POST',
      path: `/${'p'.repeat(1023)}`,
      verdict: 'deny',
      reason: 'not_allowed',
      near: `${WEB} GET: matched but for the method`,
    },
    { ...rest, peer_id: BATCH, verdict: 'allow', rule: `${BATCH} (audit)`, audit: 'not_allowed' },
    { ...rest, peer_id: undefined, verdict: 'deny', reason: 'not_an_svid' },
  ]);
  const { body } = await sds.metrics.render();
  for (const line of [
    `scute_ext_authz_checks_total{listener="api",decision="allow",mode="enforce",rule="${WEB} GET"} 1`,
    `scute_ext_authz_checks_total{listener="api",decision="allow",mode="audit",rule="${BATCH} (audit)"} 1`,
    'scute_ext_authz_checks_total{listener="api",decision="deny",mode="enforce",rule=""} 2',
    'scute_ext_authz_denied_total{listener="api",reason="not_allowed"} 1',
    'scute_ext_authz_denied_total{listener="api",reason="not_an_svid"} 1',
    'scute_ext_authz_audit_passed_total{listener="api",reason="not_allowed"} 1',
    'scute_ext_authz_check_duration_seconds_count 4',
  ])
    assert.ok(body.includes(line), line);
  await eventually(() => assert.equal(sds.metrics.checks.open, 0));
});

test('whatever a check says, its line is one that people can read, and has no key in it', async (t) => {
  const { ask, sds } = await startStage(t, policyOf(WEB));

  await ask(by(web, { path: '/\u202egnp\u2028', host: '\u0085\r\n{"level":"error"}', method: '-----BEGIN PRIVATE KEY-----' }));
  await ask(by(web, { path: '/?x=-----BEGIN PRIVATE KEY-----' }));

  await eventually(() => assert.equal(sds.log().filter(({ message }) => message === 'check answered').length, 2));
  assert.doesNotMatch(sds.written(), /[\u0085\u2028\u202e]|BEGIN/);
});

test('what is no check ends with a status, is counted and told once, and the next check is answered', async (t) => {
  const { client, ask, sds } = await startStage(t, policyOf(WEB), { sds: { authorization: { maxRequestBytes: 4096 } } });

  for (const bytes of [Buffer.from([0xff]), Buffer.from([0x0a, 0x05, 1]), Buffer.from('\x0a\x04\x52\x02\x0a\xff', 'latin1')])
    assert.equal(sayChecked(await callCheck(client, bytes)), 'gRPC 3', bytes.toString('hex'));
  assert.equal(sayChecked(await callCheck(client, Buffer.alloc(0))), '7 403 scute: no_listener: the peer may not do this');
  assert.equal(await ask(by(web, { headers: { padding: 'x'.repeat(5000) } })), 'gRPC 8');
  assert.equal(await ask(by(web)), 'OK');

  assert.deepEqual([sds.metrics.checks.refused.bad_check, sds.metrics.checks.refused.check_size], [3, 1]);
  const lines = sds.log().filter(({ message }) => message === 'check of Envoy refused');
  assert.deepEqual(
    lines.map(({ reason }) => reason),
    ['bad_check', 'check_size'],
  );
});

test('a call with no check in it, or with two, is refused as what is no check', async (t) => {
  const { client, ask, sds } = await startStage(t, policyOf(WEB));
  const check = encodeCheck(checkOf({ ...by(web), listener: 'api' }));
  for (const checks of [[], [check, check]]) {
    const call = openRaw(client, CHECK);
    const ended = new Promise<{ readonly code: number }>((resolve) => call.on('status', resolve));
    call.on('error', () => undefined);
    for (const each of checks) call.write(each);
    call.end();
    assert.equal((await ended).code, 3);
  }

  assert.equal(await ask(by(web)), 'OK');
  assert.equal(sds.metrics.checks.refused.bad_check, 2);
  assert.equal(sds.log().filter(({ message }) => message === 'check answered').length, 1);
  await eventually(() => assert.equal(sds.metrics.checks.open, 0));
});

test('a fault while a check is judged lets nobody pass, is told, and ends nothing', async (t) => {
  let fault: Error | undefined = new Error('out of order');
  const notReady = (): undefined => {
    if (fault !== undefined) throw fault;
  };
  const { ask, sds } = await startStage(t, policyOf(WEB), { listener: { notReady } });

  assert.equal(await ask(by(web)), 'gRPC 13');
  assert.equal(sds.metrics.checks.refused.internal_error, 1);
  assert.equal(sds.log().at(-1)?.['detail'], 'the check could not be judged: out of order');
  fault = undefined;
  assert.equal(await ask(by(web)), 'OK');
});

test('one check too many is refused at once, of a connection and of all; the limits of secrets do not count checks', async (t) => {
  const { client, ask, sds } = await startStage(t, policyOf(WEB), {
    sds: {
      limits: { maxStreams: 1, maxStreamsPerConnection: 1, maxRequestRate: 1 },
      authorization: { maxConcurrentChecks: 3, maxConcurrentChecksPerConnection: 2 },
    },
  });
  const hold = (of = client): ReturnType<typeof openRaw> => {
    const call = openRaw(of, CHECK);
    call.on('error', () => undefined);
    return call;
  };
  const open = (count: number): Promise<void> => eventually(() => assert.equal(sds.metrics.checks.open, count));
  for (let round = 0; round < 40; round += 1) assert.equal(await ask(by(web)), 'OK');

  const first = hold();
  hold();
  await open(2);
  assert.equal(await ask(by(web)), 'gRPC 8');
  const other = sdsClient(t, sds.target);
  hold(other);
  await open(3);
  assert.equal(sayChecked(await callCheck(other, encodeCheck(checkOf({ ...by(web), listener: 'api' })))), 'gRPC 8');
  assert.deepEqual([sds.metrics.checks.refused.connection_check_limit, sds.metrics.checks.refused.check_limit], [1, 1]);
  first.cancel();
  await open(2);
  assert.equal(await ask(by(web)), 'OK');
});

test('a check that never comes whole ends with DEADLINE_EXCEEDED and gives its place back', async (t) => {
  const clock = new FakeClock();
  const { client, ask, sds } = await startStage(t, policyOf(WEB), { clock, sds: { authorization: { requestTimeout: '5s' } } });
  const call = openRaw(client, CHECK);
  const ended = new Promise<{ readonly code: number }>((resolve) => call.on('status', resolve));
  call.on('error', () => undefined);
  await eventually(() => assert.equal(sds.metrics.checks.open, 1));

  clock.advance(4999);
  assert.equal(await ask(by(web)), 'OK');
  clock.advance(1);

  assert.equal((await ended).code, 4);
  await eventually(() => assert.equal(sds.metrics.checks.open, 0));
  assert.equal(sds.metrics.checks.refused.check_timeout, 1);
});

test('a client that takes no answers is cut, and the places of its checks are free again', async (t) => {
  const clock = new FakeClock();
  const { ask, sds } = await startStage(t, policyOf(WEB), {
    clock,
    sds: { authorization: { maxConcurrentChecks: 3, requestTimeout: '5s' } },
  });
  const session = connectHttp2('http://localhost', { createConnection: () => connect(sds.path), settings: { initialWindowSize: 0 } });
  t.after(() => session.destroy());
  session.on('error', () => undefined);
  const body = encodeCheck(checkOf({ ...by(web), listener: 'api' }));
  const head = Buffer.alloc(5);
  head.writeUInt32BE(body.length, 1);
  for (let each = 0; each < 3; each += 1) {
    const stream = session.request({ ':method': 'POST', ':path': CHECK, 'content-type': 'application/grpc', te: 'trailers' });
    stream.on('error', () => undefined);
    stream.end(Buffer.concat([head, body]));
  }
  await eventually(() => assert.equal(sds.log().filter(({ message }) => message === 'check answered').length, 3));
  assert.equal(sds.metrics.checks.open, 3);
  assert.equal(await ask(by(web)), 'gRPC 8');

  clock.advance(5000);

  await eventually(() => assert.ok(session.destroyed));
  await eventually(() => assert.equal(sds.metrics.checks.open, 0));
  assert.equal(await ask(by(web)), 'OK');
});

test('a connection with a check under way is not the one that makes room, and one without is', async (t) => {
  const { client, sds } = await startStage(t, policyOf(WEB), { sds: { limits: { maxConnections: 1 } } });
  const asked = (): Promise<string> => ask(sdsClient(t, sds.target), { ...by(web), listener: 'api' });
  const held = openRaw(client, CHECK);
  held.on('error', () => undefined);
  await eventually(() => assert.equal(sds.metrics.checks.open, 1));

  assert.equal(await asked(), 'gRPC 14');
  held.end(encodeCheck(checkOf({ ...by(web), listener: 'api' })));
  await eventually(() => assert.equal(sds.metrics.checks.open, 0));
  assert.equal(await asked(), 'OK');
});

test('without `authorization` no check is answered', async (t) => {
  const sds = await startSds(t);
  const client = sdsClient(t, sds.target);

  assert.equal(sayChecked(await callCheck(client, encodeCheck(checkOf(by(web))))), 'gRPC 12');
});

test('64 checks at a time do not delay what a rotation pushes by more than a second', async (t) => {
  const { ask, client, sds } = await startStage(t, policyFrom({ allow: [{ peer: WEB, methods: ['GET'], paths: ['/items/**'] }] }));
  const stream = openSotw(sdsClient(t, sds.target));
  stream.send({ resourceNames: ['default'], node: { id: 'envoy' } });
  let last = await stream.next();
  const over = new AbortController();
  let answered = 0;
  const asking = Array.from({ length: 64 }, async () => {
    while (!over.signal.aborted) {
      assert.equal(await ask(by(web, { path: '/items/1' })), 'OK');
      answered += 1;
    }
  });
  // Peers that nobody has seen cost the most.
  const strangers = Array.from({ length: 8 }, async () => {
    while (!over.signal.aborted) {
      const bytes = encodeCheck(checkOf({ ...by(own.issue({ id: WEB })), listener: 'api' }));
      await callCheck(client, bytes);
    }
  });

  const delays: number[] = [];
  for (let rotation = 0; rotation < 5; rotation += 1) {
    const seen = answered;
    await eventually(() => assert.ok(answered > seen + 200));
    stream.send({ resourceNames: ['default'], responseNonce: last.nonce, versionInfo: last.versionInfo });
    // Not of the clock: others may have the machine. The clients are in this process, too.
    const before = process.cpuUsage();
    sds.publish(heldSnapshot([svidOf(own, 'spiffe://example.org/api')], [own, partner]));
    last = await stream.next();
    const { user, system } = process.cpuUsage(before);
    delays.push((user + system) / 1000);
  }
  over.abort();
  await Promise.all([...asking, ...strangers]);

  t.diagnostic(`pushed after ${delays.map((ms) => ms.toFixed(0)).join(', ')} ms of CPU; ${answered} checks answered`);
  assert.ok(Math.max(...delays) < 1000, delays.join());
  assert.equal(sds.metrics.checks.refused.check_limit + sds.metrics.checks.refused.connection_check_limit, 0);
});
