import assert from 'node:assert/strict';
import { test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { scuteIn } from '../../support/command.ts';
import { startDevDomain } from '../../support/dev-domain.ts';
import { AUDIENCE, jwk, jwks, SUBJECT, testKey, token } from '../../support/tokens/tokens.ts';
import { FakeWorkloadApi } from '../../support/workload-api.ts';

const BATCH = 'spiffe://example.org/batch';

test('scute jwt fetch prints a token, and scute jwt validate says whose it is', async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { web: [SUBJECT, { id: BATCH, hint: 'night' }] } });
  const env = { SPIFFE_ENDPOINT_SOCKET: spiffe.endpoint('web') };

  const fetched = await scuteIn({ env }, 'jwt', 'fetch', '--audience', 'a', '--audience', 'b');
  assert.deepEqual([fetched.code, fetched.stderr], [0, '']);
  assert.match(fetched.stdout, /^[\w-]+\.[\w-]+\.[\w-]+\n$/);
  const valid = await scuteIn({ env, input: fetched.stdout }, 'jwt', 'validate', '--audience', 'b');
  assert.deepEqual([valid.code, valid.stderr], [0, '']);
  assert.match(valid.stdout, new RegExp(`^valid     ${SUBJECT}\naudience  a b\nexpires   \\S+Z\nkey       \\S+ \\(ES256\\)\n$`));

  const other = await scuteIn({ env, input: fetched.stdout }, 'jwt', 'validate', '--audience', 'c');
  assert.deepEqual([other.code, other.stderr], [1, '']);
  assert.match(other.stdout, /^refused  token_audience: /);
});

test('with --json both say all that is known, and one of several identities is chosen by ID or hint', async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { web: [SUBJECT, { id: BATCH, hint: 'night' }] } });
  const env = { SPIFFE_ENDPOINT_SOCKET: spiffe.endpoint('web') };

  for (const chosen of [
    ['--spiffe-id', BATCH],
    ['--hint', 'night'],
  ]) {
    const fetched = await scuteIn({ env }, 'jwt', 'fetch', '--audience', 'a', '--json', ...chosen);
    const report = JSON.parse(fetched.stdout) as Record<string, string>;
    assert.deepEqual(Object.keys(report), ['spiffeId', 'hint', 'audience', 'issuedAt', 'expiresAt', 'token']);
    assert.deepEqual([report['spiffeId'], report['hint'], report['audience']], [BATCH, 'night', ['a']]);
    const valid = await scuteIn({ env, input: report['token'] ?? '' }, 'jwt', 'validate', '--audience', 'a', '--json');
    const said = JSON.parse(valid.stdout) as Record<string, unknown>;
    assert.deepEqual([said['valid'], said['spiffeId'], said['expiresAt'], said['algorithm']], [true, BATCH, report['expiresAt'], 'ES256']);
  }
  const refused = await scuteIn({ env, input: 'a.b' }, 'jwt', 'validate', '--audience', 'a', '--json');
  assert.equal(refused.code, 1);
  assert.equal((JSON.parse(refused.stdout) as Record<string, unknown>)['reason'], 'token_malformed');
});

test('a token is judged as it is, to the line end that a shell puts behind it, and is not quoted', async (t) => {
  const key = testKey('one');
  await using api = await FakeWorkloadApi.start();
  api.setJwtBundles({ 'example.org': jwks(jwk(key)) });
  const env = { SPIFFE_ENDPOINT_SOCKET: api.endpoint };
  const good = token({ key });
  const judge = (input: string) => scuteIn({ env, input }, 'jwt', 'validate', '--audience', AUDIENCE);

  for (const input of [good, `${good}\n`, `${good}\r\n`]) assert.equal((await judge(input)).code, 0);
  for (const input of ['', '\n', ` ${good}`, `${good}\n\n`, `Bearer ${good}`, `${good}é`, `${good}${good}`]) {
    const { code, stdout, stderr } = await judge(input);
    assert.deepEqual([code, stderr], [1, ''], JSON.stringify(input));
    assert.ok(!stdout.includes(good.slice(0, 50)));
  }
  assert.equal(api.callsOf('FetchJWTBundles').length, 10);
  assert.ok(t.name);
});

test('wrong usage is 64, and an agent that gives nothing is 69, with why', async () => {
  await using api = await FakeWorkloadApi.start();
  const env = { SPIFFE_ENDPOINT_SOCKET: api.endpoint };
  for (const [args, message] of [
    [['jwt', 'fetch'], /required option '--audience/],
    [['jwt', 'fetch', '--audience', ''], /--audience is empty/],
    [['jwt', 'fetch', '--audience', 'a', '--spiffe-id', 'web'], /--spiffe-id "web" is no SPIFFE ID/],
    [['jwt', 'fetch', '--audience', 'a', '--timeout', 'soon'], /--timeout/],
    [['jwt', 'validate', '--audience', 'a', 'a.b.c'], /too many arguments/],
    [['jwt', 'validate', '--audience', 'a', '--workload-api', 'nowhere'], /nowhere/],
  ] as const) {
    const { code, stdout, stderr } = await scuteIn({ env, input: 'a.b.c' }, ...args);
    assert.deepEqual([code, stdout], [64, ''], args.join(' '));
    assert.match(stderr, message);
  }
  const nowhere = await scuteIn({ input: 'a.b.c' }, 'jwt', 'validate', '--audience', 'a');
  assert.equal(nowhere.code, 64);

  const silent = await scuteIn({ env, input: 'a.b.c' }, 'jwt', 'validate', '--audience', 'a', '--timeout', '50ms');
  assert.deepEqual([silent.code, silent.stdout], [69, '']);
  assert.match(silent.stderr, /gave no JWT bundles within 50 ms/);
  api.failWith('FetchJWTBundles', status.PERMISSION_DENIED);
  const denied = await scuteIn({ env }, 'jwt', 'fetch', '--audience', 'a');
  assert.deepEqual([denied.code, denied.stdout], [69, '']);
  assert.match(denied.stderr, /there is no JWT-SVID: .*PERMISSION_DENIED/);
});
