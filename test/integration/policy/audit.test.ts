import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test, type TestContext } from 'node:test';
import { API, presented, startExampleDomain, startInbound, WEB } from '../../support/data-path.ts';
import { startDevDomain } from '../../support/dev-domain.ts';
import { ask } from '../../support/http/http.ts';
import { HTTP2_KINDS } from '../../support/http/http2-kinds.ts';
import { connectClient, request } from '../../support/http/http2-stage.ts';
import { wire } from '../../support/http/http-stage.ts';
import type { LogLine, Sidecar } from '../../support/sidecar.ts';
import { closed, startEcho } from '../../support/tcp.ts';
import { outcome, tlsClient, type Presented } from '../../support/tls-peer.ts';

const OTHER = 'spiffe://example.org/other';

async function verbose({ app }: Sidecar): Promise<string> {
  const metrics = app.addresses().get('metrics');
  assert.ok(metrics !== undefined);
  const { status, body } = await ask(metrics, '/readyz?verbose');
  assert.equal(status, 200, 'an audit is no reason not to be ready');
  return body.split('\n').find((line) => line.includes('policy_enforced')) ?? '';
}

function warnings(sidecar: Sidecar): readonly LogLine[] {
  return sidecar.log().filter(({ message }) => message.startsWith('a policy is in audit'));
}

function passed(sidecar: Sidecar, kind: string, reason: string): Promise<number> {
  return sidecar.metric('scute_audit_passed_total', { listener: 'in', kind, reason });
}

/** A byte to the application and back. */
async function echo(t: TestContext, address: string, who: Presented) {
  const socket = tlsClient(t, address, who);
  socket.write('!');
  await once(socket, 'data');
  return socket;
}

test('a policy in audit lets in whom it would refuse, and says so everywhere; enforced, it closes them', async (t) => {
  const application = await startEcho(t);
  const listener = { allow: [WEB], deny: [API], policyMode: 'audit' };
  const { spiffe, sidecar, address, web, with: settings } = await startInbound(t, application.address, { listener });
  const [other, api] = [presented(await spiffe.issue(OTHER)), presented(await spiffe.issue(API))];

  const [allowed, unlisted, denied] = [await echo(t, address, web), await echo(t, address, other), await echo(t, address, api)];

  assert.deepEqual(
    warnings(sidecar).map(({ level, listener: name, audit }) => [level, name, audit]),
    [['warn', 'in', ['the whole policy: it denies nobody']]],
  );
  assert.equal(await verbose(sidecar), '[!]policy_enforced warning: in: in audit: the whole policy: it denies nobody');
  assert.equal(await sidecar.metric('scute_audit_rules', { listener: 'in' }), 1);
  assert.deepEqual(await Promise.all(['not_allowed', 'denied'].map((reason) => passed(sidecar, 'connection', reason))), [1, 1]);
  assert.equal(await sidecar.metric('scute_authorization_total', { decision: 'allow', mode: 'audit' }), 2);
  assert.equal(await sidecar.metric('scute_authorization_total', { decision: 'allow', mode: 'enforce' }), 1);
  assert.equal(await sidecar.metric('scute_authorization_total', { decision: 'deny' }), 0);

  await sidecar.reload(settings({ limits: { maxConnections: 100 } }));
  assert.equal(warnings(sidecar).length, 2, 'and once more at each reload');
  await sidecar.reload(settings({ policyMode: 'enforce' }));

  for (const socket of [unlisted, denied]) assert.equal(await closed(socket), 'ECONNRESET');
  allowed.write('!');
  await once(allowed, 'data');
  for (const [peer, audit] of [
    [OTHER, 'not_allowed'],
    [API, 'denied'],
  ]) {
    const line = await sidecar.connection(({ peer_id }) => peer_id === peer);
    assert.deepEqual([line['verdict'], line['audit'], line['close_reason']], ['allow', audit, 'policy']);
  }
  assert.equal(await sidecar.metric('scute_audit_rules', { listener: 'in' }), 0);
  assert.equal(await verbose(sidecar), '[+]policy_enforced ok');
  assert.equal(warnings(sidecar).length, 2);
  allowed.end();
  assert.equal((await sidecar.connection(({ peer_id }) => peer_id === WEB))['audit'], undefined);
});

test('an audit never lets in who has no certificate, or one of nobody that we know, or an SVID that has expired', async (t) => {
  const application = await startEcho(t);
  const { spiffe, sidecar, address } = await startInbound(t, application.address, { listener: { allow: [], policyMode: 'audit' } });
  const stranger = presented(await (await startExampleDomain(t)).issue(WEB));
  const foreign = await startDevDomain(t, { name: 'other.example', workloads: { web: ['spiffe://other.example/web'] } });
  const unknown = presented(await foreign.issue('spiffe://other.example/web'));
  const expired = presented(await spiffe.issue(WEB, { lifeMs: -1000 }));

  for (const who of [undefined, stranger, unknown, expired]) assert.equal((await outcome(tlsClient(t, address, who))).text, '');

  assert.equal(application.connections.size, 0);
  assert.deepEqual(
    sidecar
      .log()
      .filter(({ message }) => message === 'connection closed')
      .map(({ verdict, audit }) => [verdict, audit]),
    Array.from({ length: 4 }, () => ['deny', undefined]),
  );
  assert.equal(await sidecar.metric('scute_audit_passed_total'), 0);
});

for (const kind of HTTP2_KINDS)
  test(`rules in audit are told for each request: what is denied passes, and what only they allow, before ${kind.application}`, async (t) => {
    const seen: string[] = [];
    const application = await kind.startHttpApplication(t, ({ method, url }, response) => {
      seen.push(`${method} ${url}`);
      response.end('ok');
    });
    const stage = await kind.startInbound(t, application.address, {
      listener: {
        allow: [
          { peer: WEB, methods: ['GET'] },
          { peer: WEB, methods: ['POST'], mode: 'audit' },
        ],
        deny: [
          { peer: WEB, paths: ['/admin'], mode: 'audit' },
          { peer: WEB, paths: ['/keys'] },
        ],
      },
    });
    const overHttp1 = async (method: string, path: string): Promise<number> => {
      const line = wire(await stage.connect());
      line.socket.write(`${method} ${path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`);
      return Number((await line.over()).text.split(' ')[1]);
    };
    const client = await connectClient(t, stage.address, stage.web);
    const overHttp2 = async (method: string, path: string): Promise<number> =>
      (await request(client, { ':method': method, ':path': path, ':authority': 'a' })).status;

    // Who speaks HTTP/1.1 is not served before h2c.
    const askers = kind.speaks === 'h2c' ? [overHttp2] : [overHttp1, overHttp2];
    for (const asking of askers) {
      assert.equal(await asking('GET', '/'), 200);
      assert.equal(await asking('GET', '/admin/'), 200);
      assert.equal(await asking('POST', '/'), 200);
      assert.equal(await asking('PUT', '/'), 403);
      assert.equal(await asking('GET', '/keys'), 403);
      // It is in audit what the policy says, and not what a path is.
      assert.equal(await asking('GET', '/%61dmin'), 400);
    }

    assert.equal(seen.length, 3 * askers.length);
    const told = stage.sidecar.log().filter(({ message }) => message === 'request finished');
    assert.deepEqual(
      told.slice(0, 5).map(({ verdict, rule, reason, audit }) => [verdict, rule, reason, audit]),
      [
        ['allow', `${WEB} GET`, undefined, undefined],
        ['allow', `${WEB} GET`, undefined, 'denied'],
        ['allow', `${WEB} POST (audit)`, undefined, 'not_allowed'],
        ['deny', undefined, 'not_allowed', undefined],
        ['deny', `deny ${WEB} /keys`, 'denied', undefined],
      ],
    );
    assert.deepEqual(await Promise.all(['not_allowed', 'denied'].map((reason) => passed(stage.sidecar, 'request', reason))), [
      askers.length,
      askers.length,
    ]);
    assert.equal(await passed(stage.sidecar, 'connection', 'not_allowed'), 0);
    assert.deepEqual(
      warnings(stage.sidecar).map(({ audit, count }) => [audit, count]),
      [[[`allow ${WEB} POST (audit)`, `deny ${WEB} /admin (audit)`], 2]],
    );
    assert.equal(await verbose(stage.sidecar), `[!]policy_enforced warning: in: in audit: allow ${WEB} POST (audit) and 1 more`);
    assert.equal(await stage.sidecar.metric('scute_audit_rules', { listener: 'in' }), 2);
  });
