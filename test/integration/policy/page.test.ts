import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test, type TestContext } from 'node:test';
import { parse } from 'yaml';
import { policyPageSchema, type ListenerPage, type RefusalLine } from '../../../src/config/policy/policy-page.ts';
import { API, presented, startExampleDomain, startInbound, startOutboundToApi, WEB } from '../../support/data-path.ts';
import { startDevDomain } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { ask } from '../../support/http/http.ts';
import { startHttpApplication, startHttpInbound, wire } from '../../support/http/http-stage.ts';
import type { Sidecar } from '../../support/sidecar.ts';
import { closed, dial, startEcho } from '../../support/tcp.ts';
import { outcome, tlsClient, type Presented } from '../../support/tls-peer.ts';

const OTHER = 'spiffe://example.org/other';
const ADMIN = { admin: { listen: '127.0.0.1:0' } };

async function get(sidecar: Sidecar, query = ''): Promise<{ readonly status: number; readonly body: string }> {
  const admin = sidecar.app.addresses().get('admin');
  assert.ok(admin !== undefined);
  return ask(admin, `/policy${query}`);
}

/** What the page says of a listener, which is the first if it is not named. */
async function listed(sidecar: Sidecar, query = ''): Promise<ListenerPage> {
  const { status, body } = await get(sidecar, query);
  assert.equal(status, 200, body);
  const [listener] = policyPageSchema.strict().parse(JSON.parse(body)).listeners;
  assert.ok(listener !== undefined);
  return listener;
}

function brief({ peer, method, path, host, reason, passed, refused }: RefusalLine): readonly unknown[] {
  return [peer, method, path, host, reason, passed, refused];
}

/** An HTTP listener in part in audit, and a way to ask it as a peer. */
async function startAudited(t: TestContext, listener: object) {
  const application = await startHttpApplication(t, (_, response) => void response.end('ok'));
  const stage = await startHttpInbound(t, application.address, { listener, file: ADMIN });
  const request = async (who: Presented, line: string, host = 'api.example'): Promise<number> => {
    const socket = wire(tlsClient(t, stage.address, who));
    socket.socket.write(`${line} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
    return Number((await socket.over()).text.split(' ')[1]);
  };
  const finished = (count: number): Promise<void> =>
    eventually(() => {
      assert.equal(stage.sidecar.log().filter(({ message }) => message === 'request finished').length, count);
      return Promise.resolve();
    });
  return { ...stage, request, finished };
}

/** A connection of which a byte went to the application and back. */
async function echoed(t: TestContext, address: string, who: Presented) {
  const socket = tlsClient(t, address, who);
  socket.write('!');
  await once(socket, 'data');
  return socket;
}

test('who would be denied what is listed with how often, and the rules to copy stop exactly that', async (t) => {
  const listener = {
    allow: [
      { peer: WEB, methods: ['GET'], paths: ['/items/**'] },
      { peer: WEB, methods: ['PUT'], paths: ['/tried'], mode: 'audit' },
    ],
    deny: [{ peer: WEB, paths: ['/admin'], mode: 'audit' }],
    policyMode: 'audit',
  };
  const { spiffe, sidecar, web, request, finished, with: settings } = await startAudited(t, listener);
  const other = presented(await spiffe.issue(OTHER));
  for (const [who, line] of [
    [web, 'GET /items/1'],
    [web, 'POST /items/1?secret=hunter2'],
    [web, 'POST /items/1?secret=other'],
    [web, 'POST /items/2'],
    [web, 'GET /admin/'],
    [web, 'PUT /tried'],
    [other, 'GET /items/1'],
  ] as const)
    assert.equal(await request(who, line), 200, line);
  await finished(7);

  const page = await listed(sidecar);

  assert.deepEqual([page.name, page.mode, page.audit_rules], ['in', 'audit', 3]);
  assert.deepEqual(page.would_deny.map(brief), [
    [OTHER, 'GET', '/items/1', null, 'not_allowed', 1, 0],
    [WEB, 'PUT', '/tried', null, 'not_allowed', 1, 0],
    [WEB, 'GET', '/admin/', null, 'denied', 1, 0],
    [WEB, 'POST', '/items/2', null, 'not_allowed', 1, 0],
    [WEB, 'POST', '/items/1', null, 'not_allowed', 2, 0],
  ]);
  assert.deepEqual(page.denied, []);
  const [ofOther, tried, admin, , post] = page.would_deny;
  assert.equal(ofOther?.rule_to_allow, `{ peer: ${OTHER}, methods: [GET], paths: [/items/1] }`);
  assert.equal(tried?.passes_by?.text, `${WEB} PUT /tried (audit)`);
  assert.deepEqual(admin?.rule, { effect: 'deny', index: 0, text: `deny ${WEB} /admin (audit)` });
  assert.deepEqual([admin.rule_to_allow, admin.no_rule], [null, 'a rule denies it, and deny wins']);
  assert.deepEqual([post?.near?.rule.index, post?.near?.text], [0, 'matched but for the method']);
  assert.doesNotMatch(JSON.stringify(page), /hunter2/);
  assert.deepEqual(
    page.rules.map(({ effect, index, mode }) => [effect, index, mode]),
    [
      ['allow', 0, 'enforce'],
      ['allow', 1, 'audit'],
      ['deny', 0, 'audit'],
    ],
  );
  assert.deepEqual(page.rules_to_copy, [
    `{ peer: ${OTHER}, methods: [GET], paths: [/items/1] }`,
    `{ peer: ${WEB}, methods: [PUT], paths: [/tried] }`,
    `{ peer: ${WEB}, methods: [POST], paths: [/items/1, /items/2] }`,
  ]);

  const copied = parse(`[${page.rules_to_copy.join(', ')}]`) as readonly object[];
  await sidecar.reload(settings({ allow: [...listener.allow, ...copied] }));
  assert.deepEqual((await listed(sidecar)).would_deny.map(brief), [[WEB, 'GET', '/admin/', null, 'denied', 1, 0]]);
  await sidecar.reload(settings({ allow: [...listener.allow, ...copied], deny: [] }));
  assert.equal((await listed(sidecar)).would_deny.length, 1, 'no rule allows it either');
});

test('what is refused is listed beside what only audit lets pass, and a stranger nowhere', async (t) => {
  const { spiffe, sidecar, web, address, request, finished } = await startAudited(t, {
    allow: [{ peer: WEB, methods: ['GET'], hosts: ['api.example'] }],
    deny: [{ peer: WEB, paths: ['/keys'], mode: 'audit' }, { peer: OTHER }],
  });
  const stranger = presented(await (await startExampleDomain(t)).issue(WEB));
  const foreign = await startDevDomain(t, { name: 'other.example', workloads: { web: ['spiffe://other.example/web'] } });
  for (const who of [undefined, stranger, presented(await foreign.issue('spiffe://other.example/web'))])
    assert.equal((await outcome(tlsClient(t, address, who))).text, '');
  const other = presented(await spiffe.issue(OTHER));
  for (const [who, line, host, status] of [
    [web, 'GET /keys', 'api.example', 200],
    [web, 'GET /', 'B.example:80', 403],
    [other, 'GET /keys', 'api.example', 403],
    // It has no path that a rule could judge, so there is no verdict.
    [web, 'GET /a;b', 'api.example', 400],
  ] as const)
    assert.equal(await request(who, line, host), status, line);
  await finished(4);

  const page = await listed(sidecar);

  assert.deepEqual(page.would_deny.map(brief), [[WEB, 'GET', '/keys', 'api.example', 'denied', 1, 0]]);
  assert.deepEqual(page.denied.map(brief), [
    [OTHER, 'GET', '/keys', 'api.example', 'denied', 0, 1],
    [WEB, 'GET', '/', 'b.example', 'not_allowed', 0, 1],
  ]);
  assert.equal(page.denied[1]?.rule_to_allow, `{ peer: ${WEB}, methods: [GET], paths: [/], hosts: [b.example] }`);
  assert.deepEqual(page.rules_to_copy, []);
  assert.doesNotMatch(JSON.stringify(page), /other\.example/);
});

test('connections are listed where nobody sees requests, and servers that were refused under the listener on the way out', async (t) => {
  const application = await startEcho(t);
  const inbound = await startInbound(t, application.address, { listener: { allow: [], policyMode: 'audit' }, file: ADMIN });
  const socket = await inbound.connect();
  const page = await listed(inbound.sidecar);
  assert.deepEqual(page.would_deny.map(brief), [[WEB, null, null, null, 'not_allowed', 1, 0]]);
  assert.deepEqual(page.rules_to_copy, [WEB]);
  assert.deepEqual([page.rules, page.in_audit], [[], ['the whole policy: it denies nobody']]);
  socket.destroy();

  const { sidecar, address } = await startOutboundToApi(t, () => undefined, { listener: { expect: [OTHER] }, file: ADMIN });
  await closed(await dial(t, address));
  assert.deepEqual((await listed(sidecar, '?listener=out')).denied.map(brief), [[API, null, null, null, 'not_allowed', 0, 1]]);
});

test('a request that is over when a newer policy allows it is not listed', async (t) => {
  let answer: (() => void) | undefined;
  const application = await startHttpApplication(t, (_, response) => (answer = () => void response.end('ok')));
  const allow = [{ peer: WEB, methods: ['GET'] }];
  const {
    sidecar,
    connect,
    with: settings,
  } = await startHttpInbound(t, application.address, {
    listener: { allow, policyMode: 'audit' },
    file: ADMIN,
  });
  const line = wire(await connect());
  line.socket.write('PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
  await eventually(() => {
    assert.ok(answer !== undefined);
    return Promise.resolve();
  });
  await sidecar.reload(settings({ allow: [{ peer: WEB, methods: ['GET', 'PUT'] }] }));
  answer?.();
  assert.match((await line.over()).text, /200 OK/);
  await eventually(async () => assert.equal(await sidecar.metric('scute_audit_passed_total', { kind: 'request' }), 1));

  assert.deepEqual((await listed(sidecar)).would_deny, []);
  await sidecar.reload(settings({ allow }));
  assert.equal((await listed(sidecar)).would_deny.length, 1, 'it is known all the same');
});

test('an answer has at most as many rules and refusals as were asked for, says what it left out, and refuses what it does not know', async (t) => {
  const application = await startEcho(t);
  const peers = ['a', 'b', 'c'].map((name) => `spiffe://example.org/${name}`);
  const { spiffe, sidecar, address } = await startInbound(t, application.address, {
    listener: { allow: [API, OTHER], deny: [WEB], policyMode: 'audit' },
    file: ADMIN,
  });
  for (const peer of peers) (await echoed(t, address, presented(await spiffe.issue(peer)))).destroy();

  const whole = await listed(sidecar, '?listener=in');
  assert.deepEqual(
    [whole.rules.length, whole.rules_omitted, whole.would_deny.map(({ peer }) => peer), whole.omitted],
    [3, 0, peers.toReversed(), 0],
  );
  for (const [query, rules, refusals] of [
    ['?limit=0', 0, 0],
    ['?limit=1', 1, 1],
    ['?limit=2&listener=in', 2, 2],
  ] as const) {
    const part = await listed(sidecar, query);
    assert.deepEqual(
      [part.rules, part.would_deny, part.rules_omitted, part.omitted, part.rules_to_copy.length],
      [whole.rules.slice(0, rules), whole.would_deny.slice(0, refusals), 3 - rules, 3 - refusals, refusals],
    );
  }
  for (const query of ['?limit=1001', '?limit=-1', '?limit=1e1', '?limit=']) assert.equal((await get(sidecar, query)).status, 400, query);
  assert.equal((await get(sidecar, '?listener=no')).status, 404);
});

test('rules are listed with the connections that they decided about', async (t) => {
  const application = await startEcho(t);
  const { spiffe, sidecar, address, web } = await startInbound(t, application.address, {
    listener: { allow: [WEB, { peer: API, mode: 'audit' }], deny: [OTHER] },
    file: ADMIN,
  });
  for (const who of [web, web, presented(await spiffe.issue(API))]) (await echoed(t, address, who)).destroy();
  await outcome(tlsClient(t, address, presented(await spiffe.issue(OTHER))));

  const page = await listed(sidecar);

  assert.deepEqual(
    page.rules.map(({ text, connections }) => [text, connections]),
    [
      [WEB, 2],
      [`${API} (audit)`, 1],
      [`deny ${OTHER}`, 1],
    ],
  );
  assert.deepEqual(page.would_deny.map(brief), [[API, null, null, null, 'not_allowed', 1, 0]]);
  assert.deepEqual(page.denied.map(brief), [[OTHER, null, null, null, 'denied', 0, 1]]);
});

test('what a rule that is over refused is told as of then, and what would pass at this moment is marked', async (t) => {
  const application = await startEcho(t);
  const {
    spiffe,
    sidecar,
    address,
    with: settings,
  } = await startInbound(t, application.address, {
    listener: { allow: [], policyMode: 'audit' },
    file: ADMIN,
  });
  for (const peer of [API, OTHER]) (await echoed(t, address, presented(await spiffe.issue(peer)))).destroy();
  const { last_at } = await listed(sidecar).then(({ would_deny: [line] }) => ({ last_at: line?.last_at }));
  assert.ok(typeof last_at === 'string');
  const afterwards = new Date(Date.parse(last_at) + 1).toISOString();
  await eventually(() => {
    assert.ok(Date.now() > Date.parse(afterwards));
    return Promise.resolve();
  });

  await sidecar.reload(
    settings({
      allow: [
        { peer: API, notBefore: afterwards },
        { peer: OTHER, notAfter: '2001-01-01T00:00:00Z' },
      ],
    }),
  );

  assert.deepEqual(
    (await listed(sidecar)).would_deny.map(({ peer, allowed_now, near }) => [peer, allowed_now, near?.rule.index]),
    [
      [OTHER, false, 1],
      [API, true, 0],
    ],
  );
});
