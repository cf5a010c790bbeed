import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Draws } from '../../test/fuzz/random.ts';
import { createTestAuthority } from '../../test/support/pki/pki.ts';
import { policyFrom } from '../../test/support/policy/policies.ts';
import { PLAIN_OPTIONS, readSecret, type ReadSecret } from '../../test/support/secrets.ts';
import { heldSnapshot, svidOf } from '../../test/support/pki/snapshots.ts';
import type { Policy, PolicySpec } from '../policy/policy.ts';
import type { RuleSpec } from '../policy/rule.ts';
import { parseSpiffeId, trustDomainOf } from '../spiffe/spiffe-id.ts';
import { buildCatalogue } from './secrets.ts';

const CASES = 4000;
const TEXTS_A_CASE = 60;
const NAMES = ['ROOTCA', 'ALL', 'spiffe://example.org', 'spiffe://partner.example'];
const FORMS = ['spiffe', 'root_ca'] as const;

const [own, partner] = ['example.org', 'partner.example'].map((trustDomain) => createTestAuthority({ trustDomain }));
assert.ok(own !== undefined && partner !== undefined);
const snapshot = heldSnapshot([svidOf(own, 'spiffe://example.org/scute')], [own, partner]);

// Few and alike, so that they often match, or nearly.
const DOMAINS = ['example.org', 'example.org', 'partner.example'];
const SEGMENTS = ['a', 'b', 'a.b', '...', '*', '*', '**'];
const SPELLINGS = ['a', 'b', 'A', 'a.b', 'aXb', '.', '..', '...', '.a', '', 'a\n', '\n', 'a\0', 'é', '\u2028', '%61', '*', '**', 'a b'];
const AUTHORITIES = [...DOMAINS, 'Example.org', 'exampleXorg', 'example.org.', 'example.org:1', 'x@example.org', 'partner.example', ''];
const SCHEMES = ['spiffe://', 'spiffe://', 'spiffe://', 'spiffe://', 'SPIFFE://', 'spiffe:/', ' spiffe://', 'spiffe://spiffe://', ''];
const DAY_MS = 86_400_000;
const TIMES = [0, 1, 2, 3, 4, 5, 6, 60_000, 119_999, 120_000, DAY_MS + 60_000];

function drawPeer(draws: Draws): string {
  const segments = Array.from({ length: 1 + draws.below(3) }, () => draws.of(SEGMENTS));
  return `spiffe://${draws.of(DOMAINS)}/${segments.map((segment, index) => (segment === '**' && index < segments.length - 1 ? '*' : segment)).join('/')}`;
}

function drawRule(draws: Draws, peer: string): RuleSpec {
  return {
    peer,
    ...(draws.once(2) ? { notBeforeMs: draws.below(3) } : {}),
    ...(draws.once(2) ? { notAfterMs: 3 + draws.below(3) } : {}),
    ...(draws.once(4)
      ? { windows: [{ from: '00:01', to: '00:02', timeZone: 'UTC', ...(draws.once(2) ? { days: ['thu'] as const } : {}) }] }
      : {}),
    ...(draws.once(20) ? { methods: ['GET'] } : {}),
    ...(draws.once(20) ? { paths: ['/a'] } : {}),
    ...(draws.once(20) ? { hosts: ['a'] } : {}),
    ...(draws.once(20) ? { mode: 'audit' } : {}),
  };
}

function drawPolicy(draws: Draws): PolicySpec {
  const rules = (most: number): PolicySpec['allow'] =>
    Array.from({ length: draws.below(most) }, () => {
      const peer = drawPeer(draws);
      return draws.once(3) ? peer : drawRule(draws, peer);
    });
  return { allow: rules(5), deny: draws.once(8) ? rules(3) : [], mode: draws.once(20) ? 'audit' : 'enforce' };
}

/** The text of a URI in a certificate, which may be anything. */
function drawText(draws: Draws): string {
  const path = Array.from({ length: draws.below(5) }, () => `/${draws.of(SPELLINGS)}`).join('');
  return `${draws.of(SCHEMES)}${draws.of(AUTHORITIES)}${path}${draws.once(10) ? draws.of(['/', '?a', '#a', '\n', ' ']) : ''}`;
}

/** One like an entry: its wildcards filled in. */
function drawLike(draws: Draws, { spec }: Policy): string {
  const entry = draws.of(spec.allow);
  const peer = typeof entry === 'string' ? entry : (entry.peer ?? '');
  return peer.replaceAll(/\*\*?/g, () => draws.of(['a', 'b', '...', 'a/b', '', 'c\n']));
}

/** Whether Envoy admits who has this URI, by matchers alone: RE2 matches a whole text, and `$` is its end alone. */
function matches(text: string, matchers: readonly string[]): boolean {
  return matchers.some((matcher) => {
    const [, kind, pattern = ''] = /^(exact|regex) (.*)$/s.exec(matcher) ?? [];
    if (kind === 'exact') return text === pattern;
    if (kind === 'regex') return new RegExp(`^(?:${pattern})$`, 'u').test(text);
    throw new Error(`${matcher} is of another kind, or not of URIs`);
  });
}

/** The trust domains whose authorities Envoy takes beside the matchers. */
function domainsOf({ spiffe, trustedCa }: ReadSecret): readonly string[] {
  if (spiffe !== undefined) return Object.keys(spiffe);
  return [own, partner]
    .filter((authority) => trustedCa?.includes(authority?.pem ?? '-') === true)
    .map((authority) => authority?.trustDomain ?? '');
}

test('whatever the policy, Envoy admits by a secret whom the policy allows at the time, and of its trust domain all of them', () => {
  const counted = { served: 0, withheld: 0, nobody: 0, admitted: 0, refused: 0, byTime: 0 };
  for (let seed = 1; seed <= CASES; seed += 1) {
    const draws = new Draws(seed);
    const policy = policyFrom(drawPolicy(draws));
    const [name, form, nowMs] = [draws.of(NAMES), draws.of(FORMS), draws.of(TIMES)];
    const looked = buildCatalogue(snapshot, { ...PLAIN_OPTIONS, policies: new Map([[name, policy]]) }, nowMs).lookup(name, form);
    if (!looked.found) {
      counted.withheld += 1;
      continue;
    }
    counted.served += 1;
    const secret = readSecret(looked.secret.encode());
    const { matchers } = secret;
    assert.ok(matchers !== undefined && matchers.length > 0, 'no matchers are everybody');
    // Each authority may issue what it likes, so beside a list there is only that of whom the list is.
    const [domain, ...others] = domainsOf(secret);
    assert.ok(domain !== undefined && others.length === 0);
    let isNobody = true;
    for (let count = 0; count < TEXTS_A_CASE; count += 1) {
      const text = draws.once(2) ? drawText(draws) : drawLike(draws, policy);
      const id = parseSpiffeId(text);
      const decided = (atMs: number): boolean =>
        id.ok && trustDomainOf(id.value) === domain && policy.forPeer(id.value).judgeConnection(atMs).allowed;
      const isAllowed = decided(nowMs);
      assert.equal(matches(text, matchers), isAllowed, `seed ${seed}: ${JSON.stringify(text)} at ${nowMs} by ${matchers.join(', ')}`);
      if (isAllowed) isNobody = false;
      counted[isAllowed ? 'admitted' : 'refused'] += 1;
      if (TIMES.some((atMs) => decided(atMs) !== isAllowed)) counted.byTime += 1;
    }
    if (isNobody) counted.nobody += 1;
  }
  for (const [what, count] of Object.entries(counted)) assert.ok(count > CASES / 20, `${what}: ${count} ${JSON.stringify(counted)}`);
});

test('what matchers cannot say is served at no time, and what they can at all times', () => {
  let unsaid = 0;
  for (let seed = 1; seed <= CASES; seed += 1) {
    const draws = new Draws(seed);
    const policy = policyFrom(drawPolicy(draws));
    const name = draws.of(NAMES);
    const found = TIMES.map((nowMs) => {
      const { found: isServed } = buildCatalogue(snapshot, { ...PLAIN_OPTIONS, policies: new Map([[name, policy]]) }, nowMs).lookup(
        name,
        'spiffe',
      );
      return isServed;
    });
    assert.equal(new Set(found).size, 1, `seed ${seed}`);
    const { deny = [], allow, mode } = policy.spec;
    const asks = allow.some((rule) => typeof rule !== 'string' && (rule.methods ?? rule.paths ?? rule.hosts ?? rule.mode) !== undefined);
    if (deny.length === 0 && mode === 'enforce' && !asks) continue;
    unsaid += 1;
    assert.ok(!found.includes(true), `seed ${seed}`);
  }
  assert.ok(unsaid > CASES / 10, String(unsaid));
});
