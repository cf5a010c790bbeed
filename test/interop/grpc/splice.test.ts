import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { test, type TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { DevDomain } from '../../../src/devdomain/dev-domain.ts';
import { startDevDomain } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { needs } from '../parts.ts';
import { type Peer, runGrpc, runPython, type Said, startGrpc, startPython } from '../peers.ts';
import { issueFiles, type RunningSide, startInbound, startOutbound } from '../stage.ts';
import { EVERY_KIND } from './every-kind.ts';

const API = 'spiffe://example.org/api';
const APP = 'spiffe://example.org/app';
/** The C core of gRPC wants a DNS name in the server's SVID. */
const SERVER_NAME = 'api.example';
const TEST_SERVICE = '/grpc.testing.TestService';
const ALLOWED = [`${TEST_SERVICE}/EmptyCall`, `${TEST_SERVICE}/FullDuplexCall`];
const DENIED = /^PermissionDenied: scute: /;
const INTEROP_CASES = [
  'empty_unary',
  'large_unary',
  'client_streaming',
  'server_streaming',
  'ping_pong',
  'empty_stream',
  'timeout_on_sleeping_server',
  'cancel_after_begin',
  'cancel_after_first_response',
  'custom_metadata',
  'status_code_and_message',
  'special_status_message',
  'unimplemented_method',
  'unimplemented_service',
];
const LARGE_BYTES = 100_000_000;
const LOAD_MS = 10_000;

/** A server of gRPC, and before it a listener that passes frames. */
async function start(t: TestContext, { server, rules = [APP] }: { readonly server: Peer; readonly rules?: readonly unknown[] }) {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { api: [{ id: API, dnsNames: [SERVER_NAME] }], app: [APP] } });
  const inbound = await startInbound(t, {
    endpoint: spiffe.endpoint('api'),
    to: String((await server.first('listening'))['listening']),
    allow: rules as string[],
    alpn: ['h2'],
    listener: { protocol: 'http', http: { application: 'h2c' } },
  });
  const files = await issueFiles(t, spiffe, APP);
  const identity = ['-chain', files.chain, '-key', files.key, '-authorities', files.authorities, '-id', API];
  return {
    spiffe,
    inbound,
    /** Flags of `grpc-peer`. */
    flags: ['-address', inbound.address, ...identity],
    /** Arguments of `grpc_peer.py`. */
    arguments: [inbound.address, files.chain, files.key, files.authorities, SERVER_NAME],
  };
}

/** Sends a command, and gives the answer to it. */
async function ask(peer: Peer, command: string, field: string): Promise<Said> {
  peer.child.write(`${command}\n`);
  return peer.next(field);
}

/** How many connections so many calls came over. */
function connectionsOf({ scute }: RunningSide, calls: number): Promise<number> {
  return eventually(() => {
    const lines = scute.log().filter(({ message }) => message === 'request finished');
    assert.equal(lines.length, calls);
    return new Set(lines.map(({ connection }) => connection)).size;
  });
}

test('every case by which gRPC is tested passes before a server of grpc-go', needs('grpc-go'), async (t) => {
  const { flags } = await start(t, { server: await startGrpc(t, 'serve') });

  assert.deepEqual(await runGrpc('cases', ...flags), { passed: INTEROP_CASES });
});

test('every case passes from a client in plain text, by an outbound listener and an inbound one', needs('grpc-go'), async (t) => {
  const { spiffe, inbound } = await start(t, { server: await startGrpc(t, 'serve') });
  const to = inbound.address;
  const outbound = await startOutbound(t, { endpoint: spiffe.endpoint('app'), to, expect: [API], alpn: ['h2'] });

  assert.deepEqual(await runGrpc('cases', '-address', outbound.address), { passed: INTEROP_CASES });
});

test('messages of 100 MB pass each way', needs('grpc-go'), async (t) => {
  const { flags } = await start(t, { server: await startGrpc(t, 'serve') });

  assert.deepEqual(await runGrpc('large', '-bytes', String(LARGE_BYTES), ...flags), { answered: LARGE_BYTES });
});

test('calls of every kind of the C core of gRPC pass, and one that the policy denies is told so', needs('python'), async (t) => {
  const server = await startPython(t, 'grpc_peer', ['serve']);
  const open = await start(t, { server });
  const denying = await start(t, { server, rules: [{ peer: APP, paths: ['/scute.interop.Words/Upper', '/scute.interop.Words/Repeat'] }] });

  const said = await runPython('grpc_peer', 'call', ...open.arguments);
  const denied = await runPython('grpc_peer', 'call', ...denying.arguments);

  assert.deepEqual(said, EVERY_KIND);
  assert.equal(denied['error'], 'PERMISSION_DENIED');
  assert.match(String(denied['details']), /^scute: /);
});

test('a client that asks ten times a second whether we live keeps its silent stream', needs('python'), async (t) => {
  const { arguments: where } = await start(t, { server: await startPython(t, 'grpc_peer', ['serve']) });

  // The server itself would end the connection for it: PINGs are each side's own.
  assert.deepEqual(await runPython('grpc_peer', 'pings', '4', ...where), { answers: ['BEFORE', 'AFTER'] });
});

test('the server is told who calls, once, whatever the client says', needs('grpc-go'), async (t) => {
  const { flags } = await start(t, { server: await startGrpc(t, 'serve') });
  const client = await startGrpc(t, 'talk', ...flags);

  const { identities } = await ask(client, 'call EmptyCall', 'said');

  assert.match(String(identities), new RegExp(`^By=${API};Hash=[0-9a-f]{64};URI=${APP}$`));
  assert.equal((identities as string[]).length, 1);
});

test('a server that restarts as gRPC servers do ends no stream, and new calls go to the next', needs('grpc-go'), async (t) => {
  const server = await startGrpc(t, 'serve');
  const { flags, inbound } = await start(t, { server });
  const client = await startGrpc(t, 'talk', ...flags);
  let calls = 0;
  const answer = async (command: string): Promise<readonly unknown[]> => {
    if (/^(?:open|call)/.test(command)) calls += 1;
    const { code, server: number } = await ask(client, command, 'said');
    return [code, number];
  };

  assert.deepEqual(await answer('open old'), ['OK', '1']);
  assert.equal((await ask(server, 'restart', 'restarted'))['restarted'], 2);
  // Its GOAWAY may not have come yet: then it answers this itself.
  await eventually(async () => assert.deepEqual(await answer('call EmptyCall'), ['OK', '2']));
  assert.deepEqual(await answer('open new'), ['OK', '2']);
  assert.deepEqual(await answer('say old'), ['OK', '1']);
  assert.deepEqual(await answer('close old'), ['OK', '']);
  assert.equal((await server.next('ended'))['ended'], 1);
  assert.deepEqual(await answer('say new'), ['OK', '2']);
  assert.deepEqual(await answer('close new'), ['OK', '']);
  assert.equal(await connectionsOf(inbound, calls), 1, 'the client notices nothing');
});

test('a server that is lost ends its streams, and the next call on the same connection goes to the next', needs('grpc-go'), async (t) => {
  const server = await startGrpc(t, 'serve');
  const { flags, inbound } = await start(t, { server });
  const client = await startGrpc(t, 'talk', ...flags);
  await ask(client, 'open a', 'said');

  await ask(server, 'crash', 'restarted');
  const lost = await ask(client, 'say a', 'said');
  const next = await ask(client, 'call EmptyCall', 'said');

  assert.notEqual(lost['code'], 'OK');
  assert.deepEqual([next['code'], next['server']], ['OK', '2']);
  assert.equal(await connectionsOf(inbound, 2), 1);
});

test('calls that are allowed and calls that are denied go on beside each other on each connection', needs('grpc-go'), async (t) => {
  const server = await startGrpc(t, 'serve');
  const { flags } = await start(t, { server, rules: [{ peer: APP, paths: ALLOWED }] });
  const client = await startGrpc(t, 'mix', '-connections', '4', '-streams', '16', ...flags);
  await client.next('started');

  await eventually(async () => {
    const { calls } = await ask(server, 'calls', 'calls');
    assert.ok(ALLOWED.every((method) => ((calls as Record<string, number>)[method] ?? 0) >= 500));
  });
  assertJudged(await ask(client, 'stop', 'ended'), await ask(server, 'calls', 'calls'));
});

test(
  'a rotation and another policy each second fail no call that is allowed, and let none through that is denied',
  needs('grpc-go'),
  async (t) => {
    const server = await startGrpc(t, 'serve');
    const { flags, inbound, spiffe } = await start(t, { server, rules: [{ peer: APP, paths: ALLOWED }] });
    const { scute } = inbound;
    const { configFile } = scute;
    assert.ok(configFile !== undefined);
    const client = await startGrpc(t, 'mix', '-connections', '16', '-streams', '16', '-pause', '20ms', ...flags);
    await client.next('started');

    await changeEachSecond(inbound, spiffe, APP, async (rules) =>
      writeFile(configFile, JSON.stringify(reconfigured(inbound, spiffe.endpoint('api'), await addressOf(server), rules))),
    );

    const ended = await ask(client, 'stop', 'ended');
    assertJudged(ended, await ask(server, 'calls', 'calls'));
    assert.equal(await connectionsOf(inbound, callsIn(ended)), 16, 'and no connection is lost');
  },
);

test(
  'outbound, a rotation and another policy each second fail no call that is allowed, and send none that is denied',
  needs('grpc-go'),
  async (t) => {
    const server = await startGrpc(t, 'serve');
    const { inbound, spiffe } = await start(t, { server });
    const to = inbound.address;
    const listener = { protocol: 'http', http: { application: 'h2c' } };
    const expect = [{ peer: API, paths: ALLOWED }] as unknown as readonly string[];
    const outbound = await startOutbound(t, { endpoint: spiffe.endpoint('app'), to, expect, alpn: ['h2'], listener });
    const { configFile } = outbound.scute;
    assert.ok(configFile !== undefined);
    const client = await startGrpc(t, 'mix', '-connections', '16', '-streams', '16', '-pause', '20ms', '-address', outbound.address);
    await client.next('started');

    await changeEachSecond(outbound, spiffe, API, (rules) => {
      const again = { name: 'outbound', listen: outbound.address, to, expect: rules, alpn: ['h2'], ...listener };
      const config = { workloadApi: { endpoint: spiffe.endpoint('app') }, outbound: [again], drainTimeout: '3s' };
      return writeFile(configFile, JSON.stringify(config));
    });

    const ended = await ask(client, 'stop', 'ended');
    assertJudged(ended, await ask(server, 'calls', 'calls'));
    assert.equal(await connectionsOf(outbound, callsIn(ended)), 16, 'and no connection is lost');
    const denied = outbound.scute.log().filter(({ result }) => result === 'upstream_denied').length;
    assert.ok(denied > 100, String(denied));
    assert.equal(
      inbound.scute.log().every(({ result }) => result === undefined || result === 'forwarded'),
      true,
      'nothing else has come there',
    );
  },
);

/** For a while: rules that mean the same are written, and everybody has another SVID. */
async function changeEachSecond(
  { scute }: RunningSide,
  spiffe: DevDomain,
  peer: string,
  write: (rules: readonly unknown[]) => Promise<void>,
): Promise<void> {
  const until = performance.now() + LOAD_MS;
  for (let reloads = 1; performance.now() < until; reloads++) {
    await delay(1000);
    // What is added is in no call.
    await write([...ALLOWED.map((path) => ({ peer, paths: [path] })), { peer, paths: [`/never/${reloads}`] }]);
    scute.child.signal('SIGHUP');
    await spiffe.rotate('example.org');
    await eventually(() => {
      const done = scute.log().filter(({ message }) => message === 'configuration reloaded').length;
      assert.equal(done, reloads, JSON.stringify(scute.log().filter(({ message }) => message.includes('reloaded'))));
    });
  }
}

function callsIn({ ended }: Said): number {
  const counts = Object.values(ended as object).flatMap((outcomes) => Object.values(outcomes as object) as number[]);
  return counts.reduce((sum, count) => sum + count, 0);
}

async function addressOf(server: Peer): Promise<string> {
  return String((await server.first('listening'))['listening']);
}

function reconfigured({ address }: RunningSide, endpoint: string, to: string, allow: readonly unknown[]): object {
  const listener = { name: 'inbound', listen: address, to, allow, alpn: ['h2'], protocol: 'http', http: { application: 'h2c' } };
  return { workloadApi: { endpoint }, inbound: [listener], drainTimeout: '3s' };
}

/** Every call of an allowed method ended well, and no other reached the server. */
function assertJudged({ ended }: Said, { calls }: Said): void {
  const outcomes = ended as Readonly<Record<string, Readonly<Record<string, number>>>>;
  for (const method of ['EmptyCall', 'FullDuplexCall'])
    assert.deepEqual(Object.keys(outcomes[method] ?? {}), ['ok'], JSON.stringify(ended));
  for (const method of ['UnaryCall', 'StreamingOutputCall']) {
    const texts = Object.keys(outcomes[method] ?? {});
    assert.ok(texts.length > 0 && texts.every((text) => DENIED.test(text)), JSON.stringify(ended));
  }
  assert.deepEqual(Object.keys(calls as object).toSorted(), ALLOWED);
}
