/** A check is answered as a listener of ours answers the same peer and request. */
import assert from 'node:assert/strict';
import { hash } from 'node:crypto';
import { test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { fromBinary } from '@bufbuild/protobuf';
import { Draws } from '../../test/fuzz/random.ts';
import { denyListOf } from '../../test/support/policy/deny-file.ts';
import { asEnvoySays, checkOf, encodeCheck } from '../../test/support/ext-authz.ts';
import { createTestAuthority, type CertificateOptions, type TestAuthority } from '../../test/support/pki/pki.ts';
import { drawDate, drawPolicy, drawQuestion, HOSTS, METHODS, PATHS, policyFrom } from '../../test/support/policy/policies.ts';
import { heldSnapshot, svidOf } from '../../test/support/pki/snapshots.ts';
import { pathTargets } from '../../test/support/policy/spellings.ts';
import { CheckResponseSchema } from '../gen/ext_authz_pb.ts';
import { Http2Head } from '../http2/head.ts';
import { systemClock } from '../lib/clock.ts';
import { Authorisation } from '../policy/judge.ts';
import { UNKNOWN_SUBJECT } from '../policy/request.ts';
import type { Policy } from '../policy/policy.ts';
import type { Verdict } from '../policy/verdict.ts';
import type { CheckAnswer } from '../telemetry/log/ext-authz-records.ts';
import { createPeerJudge } from '../tls/peer.ts';
import type { SecureConnection } from '../transport/connection.ts';
import { createCheckService } from './service.ts';

const VALID = { notBefore: Date.UTC(2025, 0), notAfter: Date.UTC(2028, 0) };
const OVER = { notBefore: Date.UTC(2025, 0), notAfter: Date.UTC(2026, 0) };
const authority = (trustDomain: string): TestAuthority => createTestAuthority({ trustDomain, subject: 'root', ...VALID });
const [one, two] = [authority('one.test'), authority('two.test')];
const [below, revoked] = [one, one].map((issuer) => issuer.intermediate({ subject: 'intermediate', ...VALID }));
assert.ok(below !== undefined && revoked !== undefined);
const issue = (by: TestAuthority, id: string, options: CertificateOptions = {}): readonly Buffer[] =>
  by.issue({ id: `spiffe://${id}`, ...VALID, ...options }).chain;

/** Leaf first, as a peer sends them. Most are whom policies name. */
const lower = issue(below, 'one.test/a');
const sound = [lower, ...['a', 'b', 'a/b', 'a/a/b'].flatMap((path) => [issue(one, `one.test/${path}`), issue(two, `two.test/${path}`)])];
const denied = issue(one, 'one.test/b');
const odd = [
  lower.slice(0, 1),
  issue(revoked, 'one.test/a'),
  denied,
  issue(two, 'one.test/a'),
  issue(one, 'one.test/a', OVER),
  issue(one, 'one.test'),
  issue(authority('three.test'), 'three.test/a'),
  one.issue({ ...VALID, uriSans: ['spiffe://one.test/a', 'spiffe://two.test/a'] }).chain,
  one.issue({ ...VALID, uriSans: [], subject: 'spiffe://one.test/a' }).chain,
];
const denyList = denyListOf({ certificates: [denied[0], revoked.der].map((der) => hash('sha256', der ?? '')) });
const snapshot = heldSnapshot([svidOf(one, 'spiffe://one.test/api', VALID)], [one, two]);
const spellings = pathTargets();
const shown = new Map([...sound, ...odd].map((chain) => [chain, { 'x-forwarded-client-cert': `Hash=0;Chain="${asEnvoySays(...chain)}"` }]));

interface Asked {
  readonly method: string;
  readonly target: string;
  readonly host: string;
}

/** Of HTTP/2, as Envoy has it whatever the caller speaks. */
function draw(draws: Draws, dateMs: number): Asked {
  const { request } = drawQuestion(draws, dateMs);
  const method = draws.once(12) ? draws.of(['get', 'CONNECT', 'TRACE', 'QUERY', '']) : (request?.method ?? draws.of(METHODS));
  const path = request?.path ?? draws.of(PATHS);
  const target = draws.once(4)
    ? draws.of([...spellings, '*', '', '*?x', 'a', '/a\xffb', '/a#/b', '/a!b'])
    : `${path}${draws.of(['', '', '?/b'])}`;
  const host = request?.host ?? draws.of(HOSTS);
  const spelled =
    draws.once(4) && !host.startsWith('[') ? `${host.toUpperCase()}${draws.of(['', '.', ':443', '.:1', '@x', ' ', '%61'])}` : host;
  return { method, target, host: spelled };
}

const REFUSED = { allowed: false, reason: 'bad_request', rule: undefined } as const;
type Said =
  | Pick<Verdict & { readonly allowed: true }, 'allowed' | 'rule' | 'audited'>
  | { readonly allowed: false; readonly reason: string; readonly rule?: string | undefined };

function said(verdict: Verdict | CheckAnswer): Said {
  if (!verdict.allowed) return { allowed: false, reason: verdict.reason, rule: verdict.rule };
  return { allowed: true, rule: verdict.rule, audited: verdict.audited };
}

const judge = createPeerJudge(() => denyList);

/** What a listener of ours says of a request; undefined if it does not let the peer connect. */
function listenerSays(chain: readonly Buffer[], { method, target, host }: Asked, policy: Policy, nowMs: number): Said | undefined {
  const evidence = {
    // What OpenSSL says where an issuer is missing, and leaves to our own walk.
    libraryProblem: odd.includes(chain) ? 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY' : undefined,
    leafDer: chain[0],
    counted: { certificates: chain.length, bytes: Buffer.concat(chain).length },
    sentBytes: 0,
    chainDer: () => chain,
  };
  const connection = { readPeerEvidence: () => evidence } as unknown as SecureConnection;
  const peer = judge.authenticate(connection, 'client', snapshot, nowMs);
  if (!peer.ok) return { allowed: false, reason: peer.error.problem, rule: undefined };
  const authorisation = new Authorisation(
    peer.value.authenticated.id,
    () => policy,
    () => nowMs,
  );
  if (!authorisation.connection().allowed) return undefined;
  const head = new Http2Head({ maxHeadBytes: 65_536, maxFields: 100 });
  if (head.read([':method', method, ':scheme', 'https', ':authority', host, ':path', target], false) !== undefined) return REFUSED;
  // Nobody has looked for a token.
  const judged = authorisation.request(head.method, head.target, head.host, UNKNOWN_SUBJECT);
  return judged.ok ? said(judged.value) : REFUSED;
}

const CASES = 1500;
const QUESTIONS = 8;
test(`a check is answered as a listener would answer the same peer and request (${CASES * QUESTIONS} checks)`, () => {
  let nowMs = 0;
  let policy = policyFrom({ allow: [] });
  let answer: CheckAnswer | undefined;
  const service = createCheckService({
    limits: { maxConcurrentChecks: 1, maxConcurrentChecksPerConnection: 1, maxRequestBytes: 100_000, requestTimeoutMs: 1 },
    listener: () => ({ policy, notReady: () => undefined }),
    identity: { current: () => snapshot, subscribe: () => () => undefined },
    denyList: () => denyList,
    events: {
      opened: () => undefined,
      ended: () => undefined,
      checked: (record) => (answer = record.answer),
      refused: () => undefined,
    },
    refusals: { record: () => undefined },
    clock: { ...systemClock, now: () => nowMs },
  });
  const seen = new Map<string, number>();

  for (let number = 0; number < CASES; number++) {
    const draws = new Draws(number);
    const dateMs = drawDate(draws);
    policy = policyFrom(drawPolicy(draws, dateMs));
    for (let question = 0; question < QUESTIONS; question++) {
      ({ nowMs } = drawQuestion(draws, dateMs));
      const chain = draws.once(8) ? draws.of(odd) : draws.of(sound);
      const asked = draw(draws, dateMs);
      const { method, target: path, host } = asked;
      // Envoy shows the leaf alone, and the chain in a field of its own.
      const raw = { ...shown.get(chain), ':path': path };
      const bytes = service.answer(encodeCheck(checkOf({ leaf: chain[0], listener: 'api', http: { method, path, host, raw } })), undefined);
      assert.ok(bytes.ok && answer !== undefined);
      const { status, httpResponse } = fromBinary(CheckResponseSchema, bytes.value);
      assert.deepEqual([status?.code === 0, httpResponse.case === 'okResponse'], [answer.allowed, answer.allowed]);

      const [ours, theirs] = [listenerSays(chain, asked, policy, nowMs), said(answer)];
      // A name that no rule asks for is Envoy's to refuse.
      const isOfHost = ours === REFUSED && listenerSays(chain, { ...asked, host: 'x' }, policy, nowMs) !== REFUSED;
      const isAlike = ours === undefined ? !theirs.allowed : isDeepStrictEqual(theirs, ours) || (isOfHost && !policy.asksForHost);
      if (!isAlike) assert.fail(JSON.stringify({ number, question, asked, policy, ours, theirs }));
      const key = ours === undefined ? 'not connected' : ours.allowed ? `allowed ${ours.audited ?? ''}` : ours.reason;
      seen.set(key, (seen.get(key) ?? 0) + 1);
    }
  }

  const kinds = [
    'allowed ',
    'allowed denied',
    'allowed not_allowed',
    'denied',
    'not_allowed',
    'bad_request',
    'not connected',
    'not_an_svid',
    'expired',
    'revoked',
  ];
  for (const kind of [...kinds, 'untrusted_chain', 'unknown_trust_domain'])
    assert.ok((seen.get(kind) ?? 0) > 10, `${kind}: ${seen.get(kind)}`);
});
