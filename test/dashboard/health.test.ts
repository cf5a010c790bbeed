import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Certificate, Listener, Overview, ReadinessCheck, SdsStream, Token, TrustDomain } from '../../src/admin/api-types.ts';
import { attention, headline, type Facts } from '../../src/dashboard/health.ts';

const NOW = Date.parse('2026-06-01T12:00:00.000Z');
const MINUTE = 60_000;
const DAY = 1440 * MINUTE;
const iso = (ms: number): string => new Date(ms).toISOString();
const ID = 'spiffe://example.org/api';

const overview = (identity: Partial<Overview['identity']> = {}, more: Partial<Overview> = {}): Overview => ({
  version: '1',
  node: '26',
  openssl: '3',
  startedAt: iso(NOW - 60 * MINUTE),
  now: iso(NOW),
  ready: true,
  failing: [],
  warnings: [],
  identity: {
    state: 'held',
    reason: null,
    spiffeId: ID,
    certificate: 'svid:1',
    generation: 1,
    receivedAt: iso(NOW),
    firstExpiry: iso(NOW),
    ...identity,
  },
  certificates: { svid: 1, intermediate: 0, authority: 1, peer: 0, peer_intermediate: 0, refused: 0 },
  trustDomains: 1,
  connections: 0,
  listeners: 1,
  sdsStreams: 0,
  refusals: 0,
  application: null,
  lastReload: null,
  ...more,
});

const certificate = (more: Partial<Certificate>): Certificate => ({
  id: 'svid:1',
  kind: 'svid',
  spiffeId: ID,
  trustDomain: 'example.org',
  hint: '',
  subject: 'CN=api',
  issuerName: 'CN=root',
  issuer: 'authority:example.org:1',
  serial: '01',
  sha256: '1',
  subjectKeyId: null,
  issuerKeyId: null,
  keyType: 'ec prime256v1',
  signatureAlgorithm: 'ecdsa-with-SHA256',
  notBefore: iso(NOW - 10 * MINUTE),
  notAfter: iso(NOW + 50 * MINUTE),
  validity: 'valid',
  remainingShare: 0.8,
  receivedAt: iso(NOW),
  generation: 1,
  source: 'workload_api',
  listeners: [{ name: 'in', direction: 'inbound' }],
  sds: [],
  sdsSubscribers: 0,
  files: [],
  rotations: 0,
  issued: null,
  peer: null,
  findings: [],
  ...more,
});

const domain = (more: Partial<TrustDomain>): TrustDomain => ({
  trustDomain: 'example.org',
  isOwn: true,
  source: 'workload_api',
  authorities: 1,
  firstExpiry: iso(NOW + 300 * DAY),
  lastBegin: iso(NOW - 65 * DAY),
  lastExpiry: iso(NOW + 300 * DAY),
  revocationLists: 0,
  jwtAuthorities: null,
  jwtKeyIds: [],
  notes: [],
  endpoint: null,
  ...more,
});

const facts = (more: Partial<Facts>): Facts => ({
  nowMs: NOW,
  overview: overview(),
  readiness: undefined,
  svids: [certificate({})],
  domains: undefined,
  sds: undefined,
  tokens: undefined,
  listeners: undefined,
  rotations: undefined,
  ...more,
});

const said = (more: Partial<Facts>): readonly string[] => attention(facts(more)).map(({ level, what }) => `${level}: ${what}`);
const svidThatLives = (sinceMinutes: number, leftMinutes: number): Partial<Facts> => ({
  svids: [certificate({ notBefore: iso(NOW - sinceMinutes * MINUTE), notAfter: iso(NOW + leftMinutes * MINUTE) })],
});

test('nothing is coloured while an SVID is before two thirds of its life, amber after, red in its last sixth and when it is over', () => {
  assert.deepEqual(said(svidThatLives(39, 21)), []);
  assert.deepEqual(said(svidThatLives(41, 19)), [`amber: The SVID of ${ID} expires in 19 min, and its renewal is late.`]);
  assert.deepEqual(said(svidThatLives(51, 9)), [`red: The SVID of ${ID} expires in 9 min, and its renewal is late.`]);
  assert.deepEqual(said(svidThatLives(65, -5)), [`red: The SVID of ${ID} has expired, 5 min ago.`]);
});

test('each thing says what, why and what to do', () => {
  const [first] = attention(facts(svidThatLives(65, -5)));

  assert.ok(first);
  assert.equal(first.why, 'The listener in presents it. Peers refuse it, and Scute opens no connections with it.');
  assert.match(first.todo, /^Check that the SPIFFE agent runs/);
  assert.equal(first.link?.to, '#/certificates/svid%3A1');
});

test('an identity that was withdrawn is red, and what checks say of identity is not said twice', () => {
  const checks: ReadinessCheck[] = [{ name: 'identity', ok: false, detail: 'in: no SVID', blocks: true }];
  const readiness = { ready: false, checks };

  assert.deepEqual(said({ overview: overview({ state: 'none', reason: 'no identity issued' }), readiness, svids: [] }), [
    'red: The Workload API gives this workload no identity.',
  ]);
  assert.deepEqual(said({ readiness }), ['red: A listener has no SVID to present.']);
});

test('waiting for the first SVID is no fault for half a minute, and red after it', () => {
  const waiting = (seconds: number): Partial<Facts> => ({
    overview: overview({ state: 'waiting' }, { startedAt: iso(NOW - seconds * 1000) }),
    svids: [],
  });

  assert.deepEqual(said(waiting(29)), []);
  assert.equal(headline(facts(waiting(29)), []).sentence, 'Waiting for the first SVID.');
  assert.deepEqual(said(waiting(90)), ['red: No SVID has arrived for 1 min 30 s.']);
});

test('an authority whose beginning is not known is judged as one that lives long', () => {
  const ends = (leftDays: number): Partial<Facts> => ({ domains: [domain({ lastBegin: null, lastExpiry: iso(NOW + leftDays * DAY) })] });

  assert.deepEqual(said(ends(15)), []);
  assert.deepEqual(said(ends(13)), ['amber: The authority of example.org expires in 13 days, and no newer one has been announced.']);
  assert.deepEqual(said(ends(-3)), ['red: The authority of example.org has expired, 3 days ago.']);
});

test('an authority without a successor is amber in its last quarter, or the last two weeks, and red at the very end', () => {
  const authority = (lifeDays: number, leftDays: number): Partial<Facts> => ({
    domains: [domain({ lastBegin: iso(NOW - (lifeDays - leftDays) * DAY), lastExpiry: iso(NOW + leftDays * DAY) })],
  });

  // As SPIRE has them: a day, and a new one after half of it.
  assert.deepEqual(said(authority(1, 0.4)), []);
  assert.deepEqual(said(authority(1, 0.2)), [
    'amber: The authority of example.org expires in 4 h 48 min, and no newer one has been announced.',
  ]);
  assert.deepEqual(said(authority(1, 0.05)), [
    'red: The authority of example.org expires in 1 h 12 min, and no newer one has been announced.',
  ]);
  assert.deepEqual(said(authority(3650, 15)), []);
  assert.deepEqual(said(authority(3650, 6.5)), [
    'amber: The authority of example.org expires in 6 days, and no newer one has been announced.',
  ]);
  assert.deepEqual(said(authority(3650, -1)), ['red: The authority of example.org has expired, 24 h ago.']);
});

test('a domain without a bundle is red if it is ours', () => {
  assert.deepEqual(said({ domains: [domain({ source: null, authorities: 0, lastExpiry: null })] }), [
    'red: There is no authority of example.org.',
  ]);
  assert.deepEqual(
    said({ domains: [domain({ trustDomain: 'partner.example', isOwn: false, source: null, authorities: 0, lastExpiry: null })] }),
    ['amber: There is no authority of partner.example.'],
  );
});

test('warnings are amber, blocking checks are red and come first, and checks that nobody here knows are told by name', () => {
  const checks: ReadinessCheck[] = [
    { name: 'policy_enforced', ok: false, detail: 'in: in audit', blocks: false },
    { name: 'constructor', ok: false, detail: null, blocks: false },
    { name: 'listeners', ok: false, detail: 'in: not bound', blocks: true },
    { name: 'self_test', ok: true, detail: null, blocks: true },
  ];

  assert.deepEqual(said({ readiness: { ready: false, checks } }), [
    'red: A listener is not bound.',
    'amber: Audit admits callers that the policy would deny.',
    'amber: The readiness check constructor fails.',
  ]);
});

test('an application that ended badly or waits for long is red, with what is known of it', () => {
  const detail = './application ended by itself: exit code 7';
  const checks = [
    { name: 'policy_enforced', ok: false, detail: 'in: in audit', blocks: false },
    { name: 'application', ok: false, detail, blocks: false },
  ];
  const [first] = attention(facts({ readiness: { ready: true, checks } }));
  assert.deepEqual([first?.key, first?.level, first?.what], ['application', 'red', 'The application does not run.']);
  assert.match(first?.why ?? '', /exit code 7/);
});

const held = (more: Partial<Token>): Token => ({
  source: 'partner',
  kind: 'access_token',
  audience: null,
  spiffeId: null,
  listeners: [{ name: 'out', direction: 'outbound' }],
  files: [],
  expiresAt: iso(NOW + 40 * MINUTE),
  nextFetchAt: iso(NOW + 10 * MINUTE),
  problem: null,
  ...more,
});

test('a token that is not there is red, one that is not renewed is amber, and both say why', () => {
  const problem = { reason: 'refused', detail: 'the token endpoint answered 401: invalid_client' };
  assert.deepEqual(said({ tokens: [held({})] }), []);
  assert.deepEqual(said({ tokens: [held({ problem }), held({ source: 'other', expiresAt: null, problem })] }), [
    'red: There is no valid token other.',
    'amber: The token partner expires in 40 min, and is not renewed.',
  ]);
  assert.deepEqual(said({ tokens: [held({ problem, expiresAt: iso(NOW - 1) })] }), ['red: There is no valid token partner.']);
  assert.equal(
    attention(
      facts({
        tokens: [
          held({
            problem,
            expiresAt: null,
            listeners: [
              { name: 'a', direction: 'outbound' },
              { name: 'b', direction: 'outbound' },
            ],
          }),
        ],
      }),
    )[0]?.why,
    'The requests of a and b are answered with a 503. The token endpoint answered 401: invalid_client. (refused)',
  );
});

test('of a token in files it is told which of them stay as they were', () => {
  const problem = { reason: 'agent_unavailable', detail: 'no connection' };
  const [first] = attention(facts({ tokens: [held({ listeners: [], files: ['aws'], expiresAt: null, problem })] }));
  assert.equal(first?.why, 'The files of aws stay as they were, with a token that is of no use. No connection. (agent_unavailable)');
});

test('the first token that is under way is nothing to look at, and the check on tokens is told only while nothing is known of them', () => {
  const problem = { reason: 'identity_not_ready', detail: 'no identity has come yet' };
  assert.deepEqual(said({ tokens: [held({ expiresAt: null, nextFetchAt: null, problem })] }), []);
  assert.equal(said({ tokens: [held({ expiresAt: null, problem })] }).length, 1);
  const readiness = { ready: true, checks: [{ name: 'tokens', ok: false, detail: 'partner: refused', blocks: false }] };
  assert.deepEqual(said({ readiness }), ['amber: There is no valid token for an outbound listener, or for a set of files.']);
  assert.deepEqual(said({ readiness, tokens: [held({ expiresAt: null, problem: { reason: 'refused', detail: 'no' } })] }), [
    'red: There is no valid token partner.',
  ]);
});

test('a trust domain whose JWT bundle has no key that counts is told if it is ours, or if there are some that do not count', () => {
  const partner = { trustDomain: 'partner.example', isOwn: false, jwtAuthorities: 0 };
  assert.deepEqual(said({ domains: [domain({ jwtAuthorities: 1 }), domain(partner)] }), []);
  assert.deepEqual(said({ domains: [domain({ jwtAuthorities: 0 }), domain({ ...partner, notes: ['the key x is too short'] })] }), [
    'red: There is no key for tokens of example.org.',
    'amber: There is no key for tokens of partner.example.',
  ]);
});

test('tokens that are refused are told by reason, for five minutes after the last one', () => {
  const listener = (tokens: Listener['tokens']): Listener => ({
    name: 'in',
    direction: 'inbound',
    address: '127.0.0.1:1',
    to: '127.0.0.1:2',
    presents: ID,
    certificate: 'svid:1',
    exposedAt: [],
    connections: { opened: 0, open: 0, waiting: 0, handshaking: 0 },
    bytes: { downstreamRead: 0, downstreamWritten: 0, upstreamRead: 0, upstreamWritten: 0 },
    tokens,
  });
  const refused = [
    { reason: 'token_unknown_key', count: 1200 },
    { reason: 'token_expired', count: 3 },
  ];
  const since = (minutes: number): Partial<Facts> => ({
    listeners: [listener({ accepted: 7, refused, lastRefusedAt: iso(NOW - minutes * MINUTE) }), listener(null)],
  });
  assert.deepEqual(said({ listeners: [listener({ accepted: 7, refused: [], lastRefusedAt: null })] }), []);
  assert.deepEqual(said(since(2)), ['amber: Requests to in are refused for their tokens.']);
  assert.equal(
    attention(facts(since(2)))[0]?.why,
    'Since the start: 1,200 × token_unknown_key and 3 × token_expired. The last one 2 min ago.',
  );
  assert.deepEqual(said(since(6)), []);
});

test('a secret that was rejected is told with the words of the client', () => {
  const subscription = { name: 'ROOTCA', version: 'v', detail: 'bad <b>', missing: null, current: true } as const;
  const stream = {
    stream: 1,
    connection: 1,
    protocol: 'sotw',
    aggregated: false,
    node: 'gateway',
    userAgent: '',
    validation: null,
  } as const;
  const sds = (status: 'accepted' | 'rejected'): SdsStream[] => [
    {
      ...stream,
      openedAt: iso(NOW),
      responses: 1,
      everything: false,
      subscriptions: [{ ...subscription, status }],
      subscriptionsOmitted: 0,
    },
  ];

  assert.deepEqual(said({ sds: sds('accepted') }), []);
  assert.deepEqual(said({ sds: sds('rejected') }), ['amber: 1 secret was rejected over SDS.']);
  assert.match(attention(facts({ sds: sds('rejected') }))[0]?.why ?? '', /gateway says of ROOTCA: bad <b>$/);
});

test('the headline counts, says what comes next, and stays the same while time passes', () => {
  const due = [
    { at: iso(NOW + 20 * MINUTE), what: 'svid_renewal', spiffeId: ID, trustDomain: 'example.org', certificate: 'svid:1' },
  ] as const;
  const past = [
    {
      at: iso(NOW - 9 * MINUTE),
      generation: 2,
      change: 'svid_rotated',
      spiffeId: ID,
      trustDomain: 'example.org',
      certificate: 'svid:1',
      replaced: 'svid:0',
      notAfter: null,
    },
  ] as const;
  const well = facts({ rotations: { past, due } });

  assert.deepEqual(headline(well, attention(well)), {
    level: 'well',
    sentence: 'All is well: every certificate is fresh.',
    next: 'Next rotation in about 20 min. Last one 9 min ago.',
  });
  assert.equal(headline({ ...well, nowMs: NOW + MINUTE }, []).sentence, headline(well, []).sentence);
  const late = facts(svidThatLives(41, 19));
  assert.equal(headline(late, attention(late)).sentence, 'Every certificate works. One thing to look at.');
  const over = facts(svidThatLives(65, -5));
  assert.equal(headline(over, attention(over)).sentence, 'Act now: one thing is broken.');
});
