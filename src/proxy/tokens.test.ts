import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { denyListOf } from '../../test/support/policy/deny-file.ts';
import { AUDIENCE, jwk, jwks, testKey, token } from '../../test/support/tokens/tokens.ts';
import type { Bearer } from '../forward/bearer.ts';
import { EMPTY_DENY_LIST, type DenyList } from '../policy/deny-list.ts';
import { parseJwtBundle, type JwtBundles } from '../spiffe/jwt-bundle.ts';
import type { TrustDomain } from '../spiffe/trust-domain.ts';
import type { TokenResult } from '../telemetry/log/jwt-records.ts';
import { TokenConnection, Tokens } from './tokens.ts';

const key = testKey('one');

function stage() {
  const clock = new FakeClock();
  const seen: TokenResult[] = [];
  let jwtBundles: JwtBundles | undefined = bundleOf();
  let denyList: DenyList = EMPTY_DENY_LIST;
  const tokens = new Tokens({
    config: { audiences: [AUDIENCE], header: 'Authorization', isRequired: true, subjectHeader: 'X-Subject', forwardsToken: false },
    identity: { current: () => ({ kind: 'none', generation: 1, receivedAtMs: 0, reason: '', bundles: new Map(), jwtBundles }) },
    denyList: () => denyList,
    clock,
    checked: (result) => seen.push(result),
  });
  return {
    clock,
    seen,
    tokens,
    setBundles: (bundles: JwtBundles | undefined) => (jwtBundles = bundles),
    deny: (...ids: string[]) => (denyList = denyListOf({ ids })),
  };
}

function bundleOf(...keys: ReturnType<typeof testKey>[]): JwtBundles {
  const bundle = parseJwtBundle('example.org' as TrustDomain, Buffer.from(jwks(...[key, ...keys].map((each) => jwk(each)))));
  assert.ok(bundle.ok);
  return new Map([[bundle.value.trustDomain, bundle.value]]);
}

const fresh = (nowMs: number, jti: string): string => `Bearer ${token({ key, nowMs, claims: { jti } })}`;
const kindOf = (bearer: Bearer): string => (bearer.kind === 'refused' ? bearer.reason : bearer.kind);

test("a connection with many tokens holds up nobody else's: one of its signatures is verified at a time", async () => {
  const { tokens, clock } = stage();
  const [many, one] = [new TokenConnection(), new TokenConnection()];
  const done: string[] = [];
  const flood = Array.from({ length: 200 }, async (_, at) => {
    await tokens.read([fresh(clock.now(), `many ${at}`)], many);
    done.push('many');
  });
  const other = (async (): Promise<void> => {
    assert.equal(kindOf(await tokens.read([fresh(clock.now(), 'one')], one)), 'token');
    done.push('one');
  })();
  await Promise.all([...flood, other]);
  assert.ok(done.indexOf('one') < 20, `it came at ${done.indexOf('one')}`);
});

test('of a token that many connections bring at once, one signature is verified', async () => {
  const { tokens, clock, seen } = stage();
  const value = fresh(clock.now(), 'same');
  const all = await Promise.all(Array.from({ length: 20 }, async () => tokens.read([value], new TokenConnection())));
  assert.ok(all.every(({ kind }) => kind === 'token'));
  assert.deepEqual([seen.filter((result) => result === 'verified').length, seen.filter((result) => result === 'known').length], [1, 19]);
});

test('a token that is refused is remembered by nobody, and counted each time', async () => {
  const { tokens, clock, seen } = stage();
  const value = `Bearer ${token({ key: testKey('one'), nowMs: clock.now() })}`;
  for (let at = 0; at < 3; at++) assert.equal(kindOf(await tokens.read([value], new TokenConnection())), 'token_signature');
  assert.deepEqual(seen, ['token_signature', 'token_signature', 'token_signature']);
});

test('what it brought is asked again: time, key, bundle and deny list', async () => {
  const { tokens, clock, setBundles, deny } = stage();
  const bearer = await tokens.read([fresh(clock.now(), 'again')], new TokenConnection());
  assert.equal(tokens.problemOf(bearer), undefined);
  setBundles(bundleOf(testKey('two')));
  assert.equal(tokens.problemOf(bearer), undefined);
  setBundles(new Map());
  assert.equal(tokens.problemOf(bearer)?.reason, 'token_unknown_key');
  setBundles(undefined);
  assert.equal(tokens.problemOf(bearer)?.reason, 'token_unknown_key');
  setBundles(bundleOf());
  assert.equal(tokens.problemOf(bearer), undefined);
  deny('spiffe://example.org/web');
  assert.equal(tokens.problemOf(bearer)?.reason, 'token_revoked');
  deny();
  clock.advance(300_000);
  assert.equal(tokens.problemOf(bearer)?.reason, 'token_expired');
});

test('one that came within the leeway admits until that is over, and what came before its exp ends with it', async () => {
  const { tokens, clock } = stage();
  const exp = Math.floor(clock.now() / 1000) + 10;
  const value = `Bearer ${token({ key, nowMs: clock.now(), claims: { exp } })}`;
  const early = await tokens.read([value], new TokenConnection());
  clock.advance(exp * 1000 - clock.now() + 1);
  const late = await tokens.read([value], new TokenConnection());
  assert.deepEqual([tokens.problemOf(early)?.reason, tokens.problemOf(late)?.reason], ['token_expired', undefined]);
  clock.advance(30_000);
  assert.equal(tokens.problemOf(late)?.reason, 'token_expired');
  assert.equal(kindOf(await tokens.read([value], new TokenConnection())), 'token_expired');
});

test('what is remembered of tokens has a bound: the oldest are verified once more', async () => {
  const { tokens, clock, seen } = stage();
  const connection = new TokenConnection();
  const first = fresh(clock.now(), 'first');
  await tokens.read([first], connection);
  await tokens.read([first], connection);
  assert.deepEqual(seen, ['verified', 'known']);
  // A subject takes room, too: of long ones, fewer are remembered.
  const long = `spiffe://example.org/${'a'.repeat(2000)}`;
  for (let at = 0; at < 3600; at++)
    await tokens.read([`Bearer ${token({ key, nowMs: clock.now(), claims: { sub: long, jti: `${at}` } })}`], connection);
  seen.length = 0;
  await tokens.read([first], connection);
  assert.deepEqual(seen, ['verified']);
});

test('a token that a connection brought before is asked again as any other, and no other value is taken for it', async () => {
  const { tokens, clock, seen, setBundles, deny } = stage();
  const connection = new TokenConnection();
  const value = fresh(clock.now(), 'mine');
  for (let at = 0; at < 3; at++) assert.equal(kindOf(await tokens.read([value], connection)), 'token');
  assert.deepEqual(seen, ['verified', 'known', 'known']);
  const [start, rest] = [value.slice(0, -20), value.slice(-20)];
  const changed = `${start}${rest.startsWith('A') ? 'B' : 'A'}${rest.slice(1)}`;
  for (const other of [value.replace('Bearer', 'bearer'), changed, `${value} `]) await tokens.read([other], connection);
  assert.deepEqual(seen.slice(3), ['known', 'token_signature', 'token_malformed']);
  assert.equal(kindOf(await tokens.read([value, value], connection)), 'token_repeated');
  deny('spiffe://example.org/web');
  assert.equal(kindOf(await tokens.read([value], connection)), 'token_revoked');
  deny();
  setBundles(undefined);
  assert.equal(kindOf(await tokens.read([value], connection)), 'token_unverifiable');
  setBundles(bundleOf(testKey('two')));
  assert.equal(kindOf(await tokens.read([value], connection)), 'token');
  // What was forgotten is verified once more.
  const long = `spiffe://example.org/${'a'.repeat(2000)}`;
  const others = new TokenConnection();
  for (let at = 0; at < 3600; at++)
    await tokens.read([`Bearer ${token({ key, nowMs: clock.now(), claims: { sub: long, jti: `${at}` } })}`], others);
  seen.length = 0;
  assert.equal(kindOf(await tokens.read([value], connection)), 'token');
  assert.deepEqual(seen, ['verified']);
  clock.advance(331_000);
  assert.equal(kindOf(await tokens.read([value], connection)), 'token_expired');
});

test('of a connection with more tokens waiting than can be open, each further one is refused and counted', () => {
  const { tokens, seen } = stage();
  assert.equal(kindOf(tokens.overflow()), 'token_unverifiable');
  assert.deepEqual([seen, tokens.counts.refused.get('token_unverifiable')], [['token_unverifiable'], 1]);
});
