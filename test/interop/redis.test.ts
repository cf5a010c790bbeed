import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { type Finished, runChild, startChild } from '../support/child.ts';
import { startDevDomain } from '../support/dev-domain.ts';
import { needs, part } from './parts.ts';
import { freePort, refusal, startInbound, startOutbound, temporaryFolder } from './stage.ts';

const REDIS = 'spiffe://example.org/redis';
const APP = 'spiffe://example.org/app';
const OTHER = 'spiffe://example.org/other';

/** An unmodified Redis, that hears nothing but loopback. */
async function startRedis(t: TestContext): Promise<string> {
  const port = await freePort();
  const folder = await temporaryFolder(t);
  const options = ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--dir', folder, '--appendonly', 'no'];
  const redis = await startChild([part('redis-server'), ...options]);
  t.after(() => redis.stop().then(() => undefined));
  await redis.line(/Ready to accept connections/);
  return `127.0.0.1:${port}`;
}

/** Redis behind Scute, and Scute beside its client: the port that the client connects to. */
async function startPair(t: TestContext, client: 'app' | 'other') {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { redis: [REDIS], app: [APP], other: [OTHER] } });
  const to = await startRedis(t);
  const inbound = await startInbound(t, { endpoint: spiffe.endpoint('redis'), to, allow: [APP] });
  const outbound = await startOutbound(t, { endpoint: spiffe.endpoint(client), to: inbound.address, expect: [REDIS] });
  return { spiffe, inbound, outbound };
}

const cli = (port: number, ...args: readonly string[]): Promise<Finished> =>
  runChild([part('redis-cli'), '-h', '127.0.0.1', '-p', String(port), ...args], { env: {}, withinMs: 90_000 });

test('redis-cli works through two sidecars', needs('redis-server', 'redis-cli'), async (t) => {
  const { outbound } = await startPair(t, 'app');

  const set = await cli(outbound.port, 'set', 'greeting', 'hello');
  const get = await cli(outbound.port, 'get', 'greeting');
  const large = await cli(outbound.port, 'eval', "return string.rep('x', 3000000)", '0');

  assert.deepEqual([set.stdout, get.stdout, large.stdout.length], ['OK\n', 'hello\n', 3_000_001]);
});

test('redis-benchmark works through two sidecars while SVIDs rotate', needs('redis-server', 'redis-benchmark'), async (t) => {
  const { spiffe, outbound } = await startPair(t, 'app');
  const options = ['-n', '8000', '-c', '20', '-P', '4', '-t', 'set,get,lrange_100', '--csv'];

  const running = runChild([part('redis-benchmark'), '-h', '127.0.0.1', '-p', String(outbound.port), ...options], { env: {} });
  for (let rotation = 0; rotation < 3; rotation += 1) await spiffe.rotate();
  const { code, stdout, stderr } = await running;

  assert.equal(code, 0, stderr);
  assert.match(stdout, /"SET"[^]*"GET"[^]*"LRANGE_100/);
  assert.doesNotMatch(stdout + stderr, /error/i);
});

test('redis-cli of another workload gets nothing', needs('redis-server', 'redis-cli'), async (t) => {
  const { inbound, outbound } = await startPair(t, 'other');

  const { code, stdout } = await cli(outbound.port, 'ping');

  assert.notEqual(code, 0);
  assert.doesNotMatch(stdout, /PONG/);
  await refusal(inbound.scute, 'not_allowed');
});
