import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Config } from './config.ts';
import { formatIssues, judge } from './issue.ts';
import { planReload } from './reload.ts';
import { createConfigSchema } from './schema.ts';

const API = { name: 'api', listen: '127.0.0.1:8443', to: '127.0.0.1:8080', allow: ['spiffe://example.org/web'] };
const PAY = { name: 'pay', listen: '127.0.0.1:8444', to: '127.0.0.1:8081', allow: ['spiffe://example.org/till'] };
const DB = { name: 'db', listen: '127.0.0.1:5432', to: 'db.internal:5432', expect: ['spiffe://example.org/db'] };

function config(value: object): Config {
  const raw = {
    value: { workloadApi: { endpoint: 'unix:///agent.sock' }, ...value },
    locate: () => ({ source: 'test', line: undefined, column: undefined }),
  };
  const judged = judge(createConfigSchema({ groupId: () => undefined }), raw);
  if (!judged.ok) throw new Error(formatIssues(judged.error));
  return judged.value;
}

test('a configuration that says the same changes nothing', () => {
  const plan = planReload(config({ inbound: [API], outbound: [DB] }), config({ inbound: [API], outbound: [DB] }));

  assert.deepEqual([plan.differences, plan.needRestart], [[], []]);
});

test('another deny list takes effect after a restart, and nothing is let in meanwhile', () => {
  const revocations = { file: '/etc/scute/revoked.yaml' };
  for (const wanted of [{}, { revocations: { file: '/etc/scute/other.yaml' } }]) {
    const plan = planReload(config({ inbound: [API], revocations }), config({ inbound: [API], ...wanted }));

    assert.deepEqual([plan.differences, plan.needRestart, plan.next.revocations], [[], ['revocations'], revocations]);
  }
});

test('what becomes of open connections changes while running, but what depends on a protocol stays with it', () => {
  const old = config({ inbound: [API], outbound: [DB] });
  const keys = { onPolicyChange: 'drain', onAuthorityRemoved: 'unsafeKeep', onPeerExpiry: 'close', onOwnExpiry: 'drain' };

  const plan = planReload(old, config({ inbound: [{ ...API, ...keys }], outbound: [{ ...DB, onOwnExpiry: 'close' }] }));
  const [api] = plan.next.inbound;
  assert.deepEqual(plan.needRestart, []);
  assert.deepEqual(plan.differences, [
    'inbound api: onPolicyChange close to drain',
    'inbound api: onAuthorityRemoved close to unsafeKeep',
    'inbound api: onPeerExpiry keep to close',
    'inbound api: onOwnExpiry keep to drain',
    'outbound db: onOwnExpiry keep to close',
  ]);
  assert.deepEqual([api?.onPolicyChange, api?.onAuthorityRemoved, api?.onPeerExpiry, api?.onOwnExpiry], Object.values(keys));

  const other = planReload(old, config({ inbound: [{ ...API, protocol: 'http', onPolicyChange: 'drain' }], outbound: [DB] }));
  assert.deepEqual(other.differences, ['inbound api: onPolicyChange close to drain']);
  assert.equal(other.next.inbound[0]?.onPeerExpiry, 'keep');
});

test('allow lists, limits, log level and drain time change while running', () => {
  const old = config({ inbound: [API], outbound: [DB] });
  const wanted = config({
    inbound: [{ ...API, allow: ['spiffe://example.org/ops'], limits: { idleTimeout: 'off' } }],
    outbound: [{ ...DB, expect: ['spiffe://example.org/db', 'spiffe://example.org/db2'] }],
    log: { level: 'debug' },
    drainTimeout: '5s',
  });

  const { next, differences, needRestart } = planReload(old, wanted);

  assert.deepEqual(JSON.stringify(next), JSON.stringify(wanted));
  assert.equal(next.inbound[0]?.policy, wanted.inbound[0]?.policy);
  assert.deepEqual(needRestart, []);
  assert.deepEqual(differences, [
    'inbound api: allow + spiffe://example.org/ops',
    'inbound api: allow - spiffe://example.org/web',
    'inbound api: limits.idleTimeout 1h to off',
    'outbound db: expect + spiffe://example.org/db2',
    'log.level: info to debug',
    'drainTimeout: 30s to 5s',
  ]);
});

test('what needs a restart stays as it was and is named', () => {
  const old = config({ inbound: [API], outbound: [DB], metrics: { listen: '127.0.0.1:9090' } });
  const wanted = config({
    workloadApi: { endpoint: 'unix:///other.sock' },
    inbound: [{ ...API, name: 'web', alpn: ['h2'] }],
    outbound: [{ ...DB, serverName: 'db.example.org' }],
    metrics: { listen: '127.0.0.1:9091' },
    admin: { listen: 'unix:///admin.sock' },
    log: { format: 'json' },
  });

  const { next, differences, needRestart } = planReload(old, wanted);

  assert.deepEqual(next, old);
  assert.deepEqual(differences, []);
  assert.deepEqual(needRestart, [
    'inbound api: name, alpn',
    'outbound db: serverName',
    'workloadApi.endpoint',
    'log.format',
    'metrics',
    'admin',
  ]);
});

test('a listener that moved keeps its old allow list, and the new one waits for the restart', () => {
  const { next, needRestart } = planReload(config({ inbound: [API] }), config({ inbound: [{ ...API, to: '127.0.0.1:9999', allow: [] }] }));

  assert.deepEqual(next.inbound[0]?.policy.entries, API.allow);
  assert.deepEqual(needRestart, [
    'inbound api: 127.0.0.1:8443 to 127.0.0.1:8080 is gone, or changed its addresses',
    'inbound api: 127.0.0.1:8443 to 127.0.0.1:9999 is new',
  ]);
});

test('the allow list of one application never goes to another, even when names or places are swapped', () => {
  const { next } = planReload(
    config({ inbound: [API, PAY] }),
    config({
      inbound: [
        { ...PAY, name: 'api', allow: [] },
        { ...API, name: 'pay' },
      ],
    }),
  );

  const lists = next.inbound.map(({ to, policy }) => [to.kind === 'tcp' && to.port, policy.entries]);
  assert.deepEqual(lists, [
    [8080, ['spiffe://example.org/web']],
    [8081, []],
  ]);
});

test('listeners that leave their ports to the system are told apart by name', () => {
  const listeners = ['a', 'b'].map((name) => ({ ...API, name, listen: '127.0.0.1:0' }));

  const { next } = planReload(config({ inbound: listeners }), config({ inbound: [listeners[0], { ...listeners[1], allow: [] }] }));

  assert.deepEqual(
    next.inbound.map(({ policy }) => policy.entries.length),
    [1, 0],
  );
});

test('what a reload gives is frozen', () => {
  const { next } = planReload(config({ inbound: [API] }), config({ inbound: [{ ...API, allow: [] }] }));

  for (const value of [next, next.inbound, next.inbound[0], next.log]) assert.ok(Object.isFrozen(value));
});

test('matchers of SDS change while running; the rest of it needs a restart', () => {
  const sds = { listen: 'unix:///run/sds.sock', matchers: [{ secret: 'ROOTCA', allow: ['spiffe://example.org/web'] }] };
  const old = config({ inbound: [API], sds });

  const live = planReload(old, config({ inbound: [API], sds: { ...sds, matchers: [{ secret: 'ALL', listener: 'api' }] } }));
  assert.deepEqual([live.differences, live.needRestart], [['sds: matchers of ALL'], []]);
  assert.deepEqual(
    live.next.sds?.matchers.map(({ secret, listener }) => [secret, listener]),
    [['ALL', 'api']],
  );

  for (const changed of [{ ...sds, crls: true }, undefined]) {
    const { next, needRestart } = planReload(old, config({ inbound: [API], ...(changed && { sds: changed }) }));
    assert.deepEqual(needRestart, ['sds']);
    assert.equal(next.sds, old.sds);
  }
});

test('matchers of SDS follow a listener by its addresses: names that are swapped give no list to another', () => {
  const matchers = (listener: string) => ({ listen: 'unix:///run/sds.sock', matchers: [{ secret: 'ROOTCA', listener }] });
  const old = config({ inbound: [API, PAY], sds: matchers('api') });
  const swapped = [
    { ...API, name: 'pay' },
    { ...PAY, name: 'api' },
  ];

  const same = planReload(old, config({ inbound: swapped, sds: matchers('pay') }));
  assert.equal(same.next.sds?.matchers[0]?.listener, 'api');
  assert.equal(
    same.differences.find((line) => line.startsWith('sds')),
    undefined,
  );
  const other = planReload(old, config({ inbound: swapped, sds: matchers('api') }));
  assert.equal(other.next.sds?.matchers[0]?.listener, 'pay');
});

test('matchers of SDS for a listener that is new have its list at once', () => {
  const sds = { listen: 'unix:///run/sds.sock' };
  const moved = { ...API, listen: '127.0.0.1:9', allow: ['spiffe://example.org/ops'] };
  const old = config({ inbound: [API], sds: { ...sds, matchers: [{ secret: 'ROOTCA', listener: 'api' }] } });

  const { next } = planReload(old, config({ inbound: [moved], sds: { ...sds, matchers: [{ secret: 'ROOTCA', listener: 'api' }] } }));

  assert.deepEqual(next.sds?.matchers[0]?.policy?.entries, moved.allow);
  assert.equal(next.sds?.matchers[0]?.listener, undefined);
});

test('relations to other trust domains and our own bundle endpoint need a restart', () => {
  const relation = { trustDomain: 'partner.test', url: 'https://partner.test/', profile: 'https_web' };
  const bundleEndpoint = { listen: '0.0.0.0:8543', profile: 'https_spiffe' };
  const old = config({ inbound: [API], federation: [relation], bundleEndpoint });
  const { next, needRestart } = planReload(old, config({ inbound: [API], federation: [{ ...relation, caFile: 'x' }] }));

  assert.deepEqual(needRestart, ['federation', 'bundleEndpoint']);
  assert.deepEqual([next.federation, next.bundleEndpoint], [old.federation, old.bundleEndpoint]);
  assert.deepEqual(planReload(old, config({ inbound: [API], federation: [relation], bundleEndpoint })).needRestart, []);
});

test('rules that changed are told one by one, and a policy that says the same stays the same object', () => {
  const web = { peer: 'spiffe://example.org/web', methods: ['GET'], notAfter: '2027-01-31T00:00:00Z' };
  const http = { ...API, protocol: 'http', allow: [web, 'spiffe://example.org/ops'], deny: ['spiffe://example.org/old'] };
  const old = config({ inbound: [http] });

  const same = planReload(old, config({ inbound: [{ ...http, policyMode: 'enforce' }] }));
  assert.deepEqual(same.differences, []);
  assert.equal(same.next.inbound[0]?.policy, old.inbound[0]?.policy);

  const allow = ['spiffe://example.org/ops', { ...web, methods: ['GET', 'HEAD'] }];
  const deny = [{ peer: 'spiffe://example.org/old', mode: 'audit' }];
  const { differences } = planReload(old, config({ inbound: [{ ...http, allow, deny, policyMode: 'audit' }] }));
  assert.deepEqual(differences, [
    'inbound api: allow + spiffe://example.org/web GET,HEAD until 2027-01-31T00:00:00.000Z',
    'inbound api: allow - spiffe://example.org/web GET until 2027-01-31T00:00:00.000Z',
    'inbound api: deny + spiffe://example.org/old (audit)',
    'inbound api: deny - spiffe://example.org/old',
    'inbound api: policyMode: enforce to audit',
  ]);
});

test('a listener that still forwards bytes does not get rules for requests, which would hold for all of them', () => {
  for (const [allow, deny] of [
    [[{ peer: 'spiffe://example.org/web', paths: ['/public/**'] }], []],
    [['spiffe://example.org/web'], [{ peer: 'spiffe://example.org/web', methods: ['DELETE'] }]],
    [['spiffe://example.org/web'], [{ peer: 'spiffe://example.org/web', hosts: ['admin'] }]],
  ]) {
    const old = config({ inbound: [API] });
    const { next, differences, needRestart } = planReload(old, config({ inbound: [{ ...API, protocol: 'http', allow, deny }] }));

    assert.equal(next.inbound[0]?.policy, old.inbound[0]?.policy);
    assert.deepEqual(differences, []);
    assert.deepEqual(needRestart, [
      'inbound api: protocol, http, alpn',
      'inbound api: its rules for requests, and with them all that changed in its policy',
    ]);
  }
});
