import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Certificate, TrustDomain } from '../admin/api-types.ts';
import { problemsOf, type Status } from './status-problems.ts';

const NOW_MS = Date.UTC(2027, 0, 31, 12);
const DAY_MS = 86_400_000;

function inMs(ms: number): string {
  return new Date(NOW_MS + ms).toISOString();
}

const SVID: Certificate = {
  id: 'svid:1',
  kind: 'svid',
  spiffeId: 'spiffe://example.org/api',
  trustDomain: 'example.org',
  hint: '',
  subject: '',
  issuerName: '',
  issuer: null,
  serial: '1',
  sha256: '1',
  subjectKeyId: null,
  issuerKeyId: null,
  keyType: 'ec prime256v1',
  signatureAlgorithm: 'ecdsa-with-SHA256',
  notBefore: inMs(-1_800_000),
  notAfter: inMs(1_800_000),
  validity: 'valid',
  remainingShare: 0.5,
  receivedAt: inMs(-1_800_000),
  generation: 1,
  source: 'workload_api',
  listeners: [],
  sds: [],
  sdsSubscribers: 0,
  files: [],
  rotations: 0,
  issued: null,
  peer: null,
  findings: [{ verdict: 'tolerated', clause: 'X509-SVID 4.4', problem: 'there is no extended key usage' }],
};
const DOMAIN: TrustDomain = {
  trustDomain: 'example.org',
  isOwn: true,
  source: 'workload_api',
  authorities: 1,
  firstExpiry: inMs(30 * DAY_MS),
  lastBegin: inMs(-335 * DAY_MS),
  lastExpiry: inMs(30 * DAY_MS),
  revocationLists: 0,
  jwtAuthorities: null,
  jwtKeyIds: [],
  notes: [],
  endpoint: null,
};
const WELL: Status = {
  overview: {
    version: '1',
    node: '26',
    openssl: '3',
    startedAt: inMs(-DAY_MS),
    now: inMs(0),
    ready: true,
    failing: [],
    warnings: [],
    identity: {
      state: 'held',
      reason: null,
      spiffeId: SVID.spiffeId,
      certificate: SVID.id,
      generation: 1,
      receivedAt: SVID.receivedAt,
      firstExpiry: SVID.notAfter,
    },
    certificates: { svid: 1, intermediate: 0, authority: 1, peer: 0, peer_intermediate: 0, refused: 0 },
    trustDomains: 1,
    connections: 0,
    listeners: 1,
    sdsStreams: 0,
    application: null,
    refusals: 3,
    lastReload: { at: inMs(0), ok: true, differences: ['limits'], needRestart: [], problems: [] },
  },
  readiness: { ready: true, checks: [{ name: 'identity', ok: true, detail: null, blocks: true }] },
  listeners: [],
  svids: [SVID],
  trustDomains: [DOMAIN],
  issuers: [],
  authorities: [],
  connections: [],
  refusals: [],
  sds: [],
  rotations: { past: [], due: [] },
};

/** What is wrong, in short. */
function told(status: Partial<Status>): readonly string[] {
  return problemsOf({ ...WELL, ...status }, NOW_MS).map(({ severity, what }) => `${severity}: ${what}`);
}

test('nothing is wrong with an SVID at half of its life, a rule that only advises, a refused stranger or a good reload', () => {
  assert.deepEqual(told({}), []);
});

test('what must be done now comes before what should be looked at, each with the reason and the remedy', () => {
  const checks = [
    { name: 'federation', ok: false, detail: 'a', blocks: false },
    { name: 'identity', ok: false, detail: 'b', blocks: true },
    { name: 'of_a_newer_version', ok: false, detail: null, blocks: true },
    { name: 'constructor', ok: false, detail: null, blocks: false },
  ];

  assert.deepEqual(told({ readiness: { ready: false, checks } }), [
    'act: Not ready: identity: b',
    'act: Not ready: of_a_newer_version',
    'look: A warning: federation: a',
    'look: A warning: constructor',
  ]);
  for (const { why, todo } of problemsOf({ ...WELL, readiness: { ready: false, checks } }, NOW_MS)) {
    assert.match(why, /^[A-Z].*\.$/);
    assert.match(todo, /^[a-z].*[^.]$/);
  }
});

test('an SVID is told of when a third of its life is left, and when peers refuse it for its form', () => {
  const late = { ...SVID, remainingShare: 0.33, notAfter: inMs(600_000) };
  assert.deepEqual(told({ svids: [late] }), ['look: Our SVID spiffe://example.org/api ends in 10 min, and no newer one came']);
  assert.deepEqual(told({ svids: [{ ...late, remainingShare: 0.34 }] }), []);
  const wrong = { ...SVID, findings: [{ verdict: 'refused', clause: 'X509-SVID 4.1', problem: 'the leaf is a CA' } as const] };
  assert.deepEqual(told({ svids: [wrong] }), ['act: Our SVID spiffe://example.org/api: the leaf is a CA (X509-SVID 4.1)']);
});

test('a trust domain is told of when its last authority ends within a week, unless that has most of its life before it', () => {
  const ending = { ...DOMAIN, lastExpiry: inMs(6 * DAY_MS) };
  const authority = { ...SVID, kind: 'authority', trustDomain: 'example.org' } as const;

  assert.deepEqual(told({ trustDomains: [ending], authorities: [{ ...authority, remainingShare: 0.1 }] }), [
    'look: The last authority of example.org expires in 6 days, and no newer one has been announced',
  ]);
  assert.deepEqual(told({ trustDomains: [ending], authorities: [authority] }), [], 'a life of days');
  assert.equal(told({ trustDomains: [ending], authorities: [{ ...authority, trustDomain: 'other.example' }] }).length, 1);
  assert.deepEqual(told({ trustDomains: [{ ...DOMAIN, lastExpiry: inMs(8 * DAY_MS) }] }), []);
  assert.deepEqual(told({ trustDomains: [{ ...DOMAIN, lastExpiry: inMs(-1) }] }), ['act: All authorities of example.org have expired']);
  for (const nobody of [
    { ...DOMAIN, source: null },
    { ...DOMAIN, authorities: 0 },
  ])
    assert.deepEqual(told({ trustDomains: [nobody] }), ['look: There is no authority of example.org']);
});

test('an application that does not run is a thing to act on, though it blocks nothing', () => {
  const detail = './application ended by itself: exit code 7';
  const checks = [{ name: 'application', ok: false, detail, blocks: false }];
  const [problem] = problemsOf({ ...WELL, readiness: { ready: true, checks } }, NOW_MS);
  assert.deepEqual([problem?.severity, problem?.what], ['act', `A warning: application: ${detail}`]);
});

test('a rejected secret is told of', () => {
  const stream = {
    stream: 1,
    connection: 1,
    protocol: 'sotw',
    aggregated: false,
    node: 'gateway',
    userAgent: 'envoy',
    validation: null,
    openedAt: null,
    responses: 1,
    everything: false,
    subscriptions: [
      { name: 'default', version: '1', status: 'accepted', detail: null, missing: null, current: true },
      { name: 'ROOTCA', version: '1', status: 'rejected', detail: 'no', missing: null, current: true },
    ],
    subscriptionsOmitted: 0,
  } as const;
  assert.deepEqual(told({ sds: [stream] }), ['look: The SDS client "gateway" rejects "ROOTCA": no']);
});
