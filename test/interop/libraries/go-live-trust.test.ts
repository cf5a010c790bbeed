// With go-spiffe on the other side: what becomes of connections, open and new, when what admitted them is no longer so.
import assert from 'node:assert/strict';
import { rename, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { Socket } from 'node:net';
import { test, type TestContext } from 'node:test';
import type { DevDomain } from '../../../src/devdomain/dev-domain.ts';
import { startDevDomain } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { type ScuteProcess, useScute } from '../../support/scute-process.ts';
import { dial } from '../../support/tcp.ts';
import { needs } from '../parts.ts';
import { type Peer, runGo, type Said, startGo } from '../peers.ts';
import { exchange, forge, given, listen, present, refusal, startEcho } from '../stage.ts';

const API = 'spiffe://example.org/api';
const WEB = 'spiffe://example.org/web';
const OTHER = 'spiffe://example.org/other';
const FAR = 'spiffe://far.example/peer';
/** The promise is a second, which the figures that are printed show. That it took longer on a machine that is busy says nothing. */
const CLOSED_WITHIN_MS = 10_000;

type Protocol = 'tcp' | 'http1' | 'h2';

function startDomains(t: TestContext): Promise<DevDomain> {
  return startDevDomain(
    t,
    { name: 'example.org', federatesWith: ['far.example'], workloads: { api: [API], web: [WEB], other: [OTHER], outsider: [WEB] } },
    { name: 'far.example', federatesWith: ['example.org'], workloads: { far: [FAR] } },
  );
}

/** `scute` before an application of each kind, as `spiffe://example.org/api`. */
async function startServing(t: TestContext, spiffe: DevDomain, allow: readonly unknown[]) {
  const echo = await startEcho(t);
  const web = await listen(
    t,
    createServer((_, response) => response.end('ok')),
  );
  const configWith = (rules: readonly unknown[]): object => ({
    workloadApi: { endpoint: spiffe.endpoint('api') },
    inbound: [
      { name: 'tcp', listen: '127.0.0.1:0', to: echo.address, allow: rules },
      { name: 'http', protocol: 'http', listen: '127.0.0.1:0', to: web, allow: rules },
    ],
  });
  const peers: Peer[] = [];
  // Before `scute`, which would wait for them.
  t.after(() => Promise.all(peers.map(({ child }) => child.stop())));
  const scute = await useScute(t, { config: configWith(allow) });
  await scute.ready('tcp', 'http');
  const addressOf = (protocol: Protocol): Promise<string> => scute.address(protocol === 'tcp' ? 'tcp' : 'http');
  const flags = async (workload: string, protocol: Protocol): Promise<readonly string[]> => {
    const address = await addressOf(protocol);
    return ['-socket', spiffe.endpoint(workload), '-address', address, '-peer', API, '-protocol', protocol];
  };
  return {
    scute,
    reload: async (rules: readonly unknown[]): Promise<void> => {
      const file = scute.configFile ?? '';
      await writeFile(`${file}.new`, JSON.stringify(configWith(rules)));
      await rename(`${file}.new`, file);
      scute.child.signal('SIGHUP');
      await scute.logged(({ message }) => message === 'configuration reloaded');
    },
    /** A connection of `workload` that is open, and on which something is asked every `interval`. */
    hold: async (workload: string, protocol: Protocol, interval = '0s'): Promise<Peer> => {
      const peer = await startGo(t, 'hold', ...(await flags(workload, protocol)), '-interval', interval, '-timeout', '10m');
      peers.push(peer);
      await peer.first('opened');
      return peer;
    },
    /** What comes of a new one. */
    ask: async (workload: string, protocol: Protocol): Promise<Said> =>
      runGo('client', ...(await flags(workload, protocol)), '-timeout', '60s'),
  };
}

/** `scute` for an application, as `spiffe://example.org/web`, that expects `expect` of a go-spiffe server with the SVIDs of `workload`. */
async function startAsking(t: TestContext, spiffe: DevDomain, workload: string, expect: string) {
  const sockets: Socket[] = [];
  // Before `scute`, which would wait for them.
  t.after(() => sockets.forEach((socket) => socket.destroy()));
  const server = await startGo(t, 'server', '-socket', spiffe.endpoint(workload), '-peer', WEB, '-timeout', '10m');
  const to = String((await server.first('listening'))['listening']);
  const scute = await useScute(t, {
    config: {
      workloadApi: { endpoint: spiffe.endpoint('web') },
      outbound: [{ name: 'out', listen: '127.0.0.1:0', to, expect: [expect] }],
    },
  });
  await scute.ready('out');
  const port = await scute.port('out');
  return {
    scute,
    hold: async (): Promise<Socket> => {
      const socket = await dial(t, `127.0.0.1:${port}`);
      sockets.push(socket);
      await answers(socket);
      return socket;
    },
    ask: (): Promise<string> => exchange(port, 'hello'),
  };
}

async function answers(socket: Socket): Promise<void> {
  const answered = new Promise<void>((resolve, reject) => {
    socket.once('data', () => resolve());
    socket.once('close', () => reject(new Error('closed without an answer')));
  });
  socket.write('hello');
  await answered;
}

/** Waits until an application's connection is over, and says when that was, in milliseconds since 1970. */
function untilOver(socket: Socket): () => Promise<number> {
  let atMs: number | undefined;
  socket.resume().once('close', () => (atMs = Date.now()));
  return () => eventually(() => atMs ?? assert.fail('the connection is still open'));
}

/** That `scute` closed so many connections for this reason. */
async function closedFor(scute: ScuteProcess, reason: string, count: number): Promise<void> {
  await eventually(() => {
    const lines = scute.log().filter((line) => line.message === 'connection closed' && line['close_reason'] === reason);
    assert.equal(lines.length, count);
  });
}

function isOpen(peer: Peer): boolean {
  return peer.said().every((line) => !('closed' in line) && !('error' in line));
}

/** Waits until what a connection of go-spiffe says is its end, and checks how long after `sinceMs` that was. */
async function closed(t: TestContext, peer: Peer, what: string, sinceMs: number): Promise<Said> {
  const said = await peer.first('closed');
  checkLateness(t, what, Number(said['atMs']) - sinceMs);
  return said;
}

function checkLateness(t: TestContext, what: string, lateMs: number): void {
  t.diagnostic(`${what}: closed after ${lateMs} ms`);
  assert.ok(lateMs >= 0 && lateMs <= CLOSED_WITHIN_MS, `${what}: ${lateMs} ms`);
}

/** The serial number of the SVID that `workload` presents. */
async function serialOf(spiffe: DevDomain, workload: string): Promise<Buffer> {
  const { x509 } = (await runGo('fetch', '-socket', spiffe.endpoint(workload))) as { readonly x509?: { svids: { serial: string }[] } };
  return Buffer.from(x509?.svids[0]?.serial ?? '', 'hex');
}

test(
  'a rule that is over at a chosen second closes the connections of go-spiffe that it admitted, busy or idle',
  needs('go-spiffe'),
  async (t) => {
    const spiffe = await startDomains(t);
    const { scute, reload, hold, ask } = await startServing(t, spiffe, [WEB, OTHER]);
    const kinds = (['tcp', 'http1', 'h2'] as const).flatMap((protocol) => [
      { protocol, interval: '0s', what: `${protocol}, idle` },
      { protocol, interval: '10ms', what: `${protocol}, busy` },
    ]);
    const held = await Promise.all(kinds.map(({ protocol, interval }) => hold('web', protocol, interval)));
    const staying = await hold('other', 'tcp', '10ms');

    const secondMs = Math.ceil(Date.now() / 1000 + 3) * 1000;
    await reload([{ peer: WEB, notAfter: new Date(secondMs).toISOString() }, OTHER]);
    // A rule that comes too late is over when it comes.
    const sinceMs = Math.max(secondMs, Date.now());
    const said = await Promise.all(held.map((peer, index) => closed(t, peer, kinds[index]?.what ?? '', sinceMs)));

    for (const [index, { interval, protocol }] of kinds.entries()) {
      if (interval === '0s') continue;
      assert.ok(Number(said[index]?.['replies']) > 1);
      // Between requests, or in the middle of one.
      if (protocol !== 'tcp') assert.ok([0, 403].includes(Number(said[index]?.['status'])), JSON.stringify(said[index]));
    }
    await closedFor(scute, 'policy', held.length);
    assert.notEqual((await ask('web', 'tcp'))['error'], undefined);
    await refusal(scute, 'not_allowed');
    for (const protocol of ['http1', 'h2'] as const) assert.equal((await ask('web', protocol))['error'], 'status 403');
    assert.ok(isOpen(staying));
  },
);

test(
  'a serial number on a list of the Workload API closes the connections of that go-spiffe client, and refuses it',
  needs('go-spiffe'),
  async (t) => {
    const spiffe = await startDomains(t);
    const { scute, hold, ask } = await startServing(t, spiffe, ['spiffe://example.org/**']);
    const serial = await serialOf(spiffe, 'web');
    const kinds = (['tcp', 'http1', 'h2'] as const).flatMap((protocol) => ['0s', '10ms'].map((interval) => ({ protocol, interval })));
    const held = await Promise.all(kinds.map(({ protocol, interval }) => hold('web', protocol, interval)));
    const staying = await hold('other', 'tcp', '10ms');

    const sinceMs = Date.now();
    await spiffe.revoke('example.org', serial);
    await Promise.all(held.map((peer, index) => closed(t, peer, `revoked, ${JSON.stringify(kinds[index])}`, sinceMs)));

    await closedFor(scute, 'revoked', held.length);
    for (const protocol of ['tcp', 'http1', 'h2'] as const) {
      assert.notEqual((await ask('web', protocol))['error'], undefined);
      assert.equal((await ask('other', protocol))['error'], undefined);
    }
    await refusal(scute, 'revoked');
    assert.ok(isOpen(staying));
  },
);

test(
  'a serial number on a list of the Workload API closes the connection to that go-spiffe server, which is asked nothing more',
  needs('go-spiffe'),
  async (t) => {
    const spiffe = await startDomains(t);
    const { scute, hold, ask } = await startAsking(t, spiffe, 'api', API);
    const serial = await serialOf(spiffe, 'api');
    const held = untilOver(await hold());

    const sinceMs = Date.now();
    await spiffe.revoke('example.org', serial);
    checkLateness(t, 'revoked', (await held()) - sinceMs);

    await closedFor(scute, 'revoked', 1);
    assert.equal(await ask(), '');
    await refusal(scute, 'revoked');
  },
);

// ——— authorities ———

const identities = (scute: ScuteProcess): number => scute.log().filter(({ message }) => message === 'identity updated').length;

/** Does something that `scute` is told of by the Workload API, and waits until it has been. */
async function told(scute: ScuteProcess, change: () => Promise<void>): Promise<void> {
  const before = identities(scute);
  await change();
  await eventually(() => assert.ok(identities(scute) > before));
}

for (const [whose, domain, workload] of [
  ['our own', 'example.org', 'other'],
  ['a federated', 'far.example', 'far'],
] as const) {
  const id = domain === 'example.org' ? OTHER : FAR;

  test(
    `an authority that is dropped from ${whose} bundle closes the go-spiffe clients that it vouched for, and refuses them`,
    needs('go-spiffe'),
    async (t) => {
      const spiffe = await startDomains(t);
      const { scute, hold, ask } = await startServing(t, spiffe, [id]);
      const before = given(spiffe, workload);
      const kinds = ['tcp', 'http1', 'h2'] as const;
      const held = await Promise.all(kinds.map((protocol) => hold(workload, protocol)));
      await told(scute, () => spiffe.prepareRoot(domain));
      await spiffe.activateRoot(domain);
      const staying = await hold(workload, 'tcp', '10ms');
      assert.ok(held.every(isOpen), 'while both vouch');

      const sinceMs = Date.now();
      await spiffe.retireRoots(domain);
      await Promise.all(held.map((peer, index) => closed(t, peer, `dropped, ${kinds[index]}`, sinceMs)));

      await closedFor(scute, 'authority_removed', held.length);
      assert.equal((await ask(workload, 'tcp'))['reply'], 'HELLO');
      present(spiffe, workload, before);
      assert.notEqual((await ask(workload, 'tcp'))['error'], undefined);
      await refusal(scute, 'untrusted_chain');
      assert.ok(isOpen(staying));
    },
  );

  test(
    `an authority that is dropped from ${whose} bundle closes the connection to the go-spiffe server that it vouched for`,
    needs('go-spiffe'),
    async (t) => {
      const spiffe = await startDomains(t);
      const { scute, hold, ask } = await startAsking(t, spiffe, workload, id);
      const before = given(spiffe, workload);
      const held = untilOver(await hold());
      await told(scute, () => spiffe.prepareRoot(domain));
      await spiffe.activateRoot(domain);

      const sinceMs = Date.now();
      await spiffe.retireRoots(domain);
      checkLateness(t, 'dropped', (await held()) - sinceMs);

      await closedFor(scute, 'authority_removed', 1);
      const staying = await eventually(hold);
      present(spiffe, workload, before);
      await eventually(async () => assert.equal(await ask(), ''));
      await refusal(scute, 'untrusted_chain');
      await answers(staying);
    },
  );
}

test(
  'a federated bundle that the Workload API no longer gives closes the go-spiffe clients of that trust domain',
  needs('go-spiffe'),
  async (t) => {
    const spiffe = await startDomains(t);
    const { scute, hold, ask } = await startServing(t, spiffe, [FAR, OTHER]);
    const held = await hold('far', 'tcp', '10ms');
    const staying = await hold('other', 'tcp', '10ms');

    const sinceMs = Date.now();
    await spiffe.setFederation('example.org', []);
    await closed(t, held, 'no bundle', sinceMs);

    await closedFor(scute, 'authority_removed', 1);
    assert.notEqual((await ask('far', 'tcp'))['error'], undefined);
    await refusal(scute, 'unknown_trust_domain');
    assert.ok(isOpen(staying));
  },
);

test('a go-spiffe client with an ID of ours from the authority of a federated trust domain is refused', needs('go-spiffe'), async (t) => {
  const spiffe = await startDomains(t);
  const { scute, ask } = await startServing(t, spiffe, [WEB, FAR]);
  for (const workload of ['outsider', 'far']) assert.equal((await ask(workload, 'tcp'))['reply'], 'HELLO');

  present(spiffe, 'outsider', await forge(spiffe, WEB, 'far.example'));

  for (const protocol of ['tcp', 'http1', 'h2'] as const) assert.notEqual((await ask('outsider', protocol))['error'], undefined);
  await eventually(() => assert.equal(scute.log().filter((line) => line['reason'] === 'untrusted_chain').length, 3));
  assert.equal((await ask('web', 'tcp'))['reply'], 'HELLO');
});

test(
  'a go-spiffe server with an ID of ours from the authority of a federated trust domain is asked nothing',
  needs('go-spiffe'),
  async (t) => {
    const spiffe = await startDomains(t);
    const { scute, ask } = await startAsking(t, spiffe, 'outsider', WEB);
    assert.equal(await ask(), 'HELLO');

    present(spiffe, 'outsider', await forge(spiffe, WEB, 'far.example'));

    await eventually(async () => assert.equal(await ask(), ''));
    await refusal(scute, 'untrusted_chain');
  },
);
