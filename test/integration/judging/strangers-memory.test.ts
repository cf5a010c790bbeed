// How much strangers, and insiders, make us hold by what they send in a handshake, and who still gets in.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test, type TestContext } from 'node:test';
import { element, sequence, set, utf8 } from '../../support/pki/der-writer.ts';
import { eventually } from '../../support/eventually.ts';
import { createTestAuthority, pemOf, type TestAuthority, type TestCertificate } from '../../support/pki/pki.ts';
import { useScute, type ScuteProcess } from '../../support/scute-process.ts';
import {
  applicationCalls,
  MOST_CERTIFICATES,
  smallestCertificate,
  startStrangeServer,
  strangerFlight,
  strangersCall,
  strangersStall,
  type Flight,
  type StrangeServer,
} from '../../support/pki/strangers.ts';
import { dial, readAll, startEcho } from '../../support/tcp.ts';
import { outcome, tlsClient, tlsServer } from '../../support/tls-peer.ts';
import { FakeWorkloadApi, svidEntry } from '../../support/workload-api.ts';

const US = 'spiffe://example.org/us';
const PEER = 'spiffe://example.org/peer';
const MIB = 1024 * 1024;
const ALLOWED_BYTES = 60 * MIB;
/** What 800 handshakes at once take is not the same each time. Their certificates took 150 more. */
const ALLOWED_CROWD_BYTES = 100 * MIB;
const COUNTS = [1, 8, 9, 120, MOST_CERTIFICATES] as const;
const TIMES_EACH = 100;

interface Stage {
  readonly api: FakeWorkloadApi;
  readonly authority: TestAuthority;
  readonly scute: ScuteProcess;
  readonly inbound: number;
  readonly outbound: number;
  readonly server: StrangeServer;
  /** A peer of ours is served: what it says is echoed. */
  admits(peer: TestCertificate, said?: Buffer): Promise<void>;
  /** Handshakes that ended with this reason so far. */
  refused(reason: string): Promise<number>;
  resident(): number;
}

async function startStage(t: TestContext): Promise<Stage> {
  const authority = createTestAuthority();
  const api = await FakeWorkloadApi.start();
  t.after(() => api[Symbol.asyncDispose]());
  api.setX509([svidEntry(authority, authority.issue({ id: US }), US)]);
  const application = await startEcho(t);
  const server = await startStrangeServer(strangerFlight(1));
  t.after(() => server.close());
  const scute = await useScute(t, {
    config: {
      workloadApi: { endpoint: api.endpoint },
      inbound: [{ name: 'in', listen: '127.0.0.1:0', to: application.address, allow: [PEER], limits: { handshakeTimeout: '60s' } }],
      outbound: [{ name: 'out', listen: '127.0.0.1:0', to: server.address, expect: [PEER] }],
      metrics: { listen: '127.0.0.1:0' },
    },
  });
  await scute.ready('in', 'out', 'metrics');
  const [inbound, outbound, metrics] = [await scute.port('in'), await scute.port('out'), await scute.port('metrics')];
  return {
    api,
    authority,
    scute,
    inbound,
    outbound,
    server,
    async admits(peer, said = Buffer.from('!')) {
      const client = tlsClient(t, `127.0.0.1:${inbound}`, { cert: peer.chainPem, key: peer.keyPem });
      client.end(said);
      const { text, error } = await outcome(client);
      assert.deepEqual([text.length, error], [said.length, undefined]);
    },
    async refused(reason) {
      const text = await (await fetch(`http://127.0.0.1:${metrics}/metrics`)).text();
      const lines = text
        .split('\n')
        .filter((line) => line.startsWith('scute_tls_handshakes_total{') && line.includes(`reason="${reason}"`));
      return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0);
    },
    resident: () => Number(readFileSync(`/proc/${scute.child.pid}/statm`, 'utf8').split(' ')[1]) * 4096,
  };
}

/** `act` must not make the process larger than it may become. */
async function grows(t: TestContext, stage: Stage, what: string, act: () => Promise<void>, allowed = ALLOWED_BYTES): Promise<void> {
  const before = stage.resident();
  await act();
  const grown = stage.resident() - before;
  t.diagnostic(`${what}: ${(before / MIB).toFixed(0)} MiB, and ${(grown / MIB).toFixed(1)} more`);
  assert.ok(grown < allowed, `${what}: ${(grown / MIB).toFixed(0)} MiB more`);
}

test('500 strangers with flights of up to 1,000 certificates in each direction make us hold little, and honest peers get in', async (t) => {
  const stage = await startStage(t);
  const { authority, inbound, outbound, server } = stage;
  const flights = COUNTS.map((count) => strangerFlight(count));
  const [single] = flights as [Flight, ...Flight[]];
  const honest = authority.issue({ id: PEER });
  await stage.admits(honest);
  await strangersCall(inbound, single, 50, 8);
  await applicationCalls(outbound, 50, 8);

  await grows(t, stage, 'clients', async () => {
    for (const flight of flights) await strangersCall(inbound, flight, TIMES_EACH, 8);
  });
  await grows(t, stage, 'servers', async () => {
    for (const flight of flights) {
      server.present(flight);
      await applicationCalls(outbound, TIMES_EACH, 8);
    }
  });
  // What was refused for want of room says so; whose chain was read is refused as ever.
  await eventually(async () => {
    const [full, untrusted, tooMany] = [
      await stage.refused('chain_not_read'),
      await stage.refused('untrusted_chain'),
      await stage.refused('bad_certificate'),
    ];
    assert.equal(full + untrusted + tooMany, 2 * (50 + COUNTS.length * TIMES_EACH));
    assert.ok(full > 100 && untrusted >= 2 * 50 && tooMany > 0, `${full}, ${untrusted}, ${tooMany}`);
  });
  const line = stage.scute.log().find(({ reason }) => reason === 'chain_not_read');
  assert.match(String(line?.['detail']), /claims to be spiffe:\/\/example.org\/peer/);

  // Known, new, and by an intermediate that nobody has shown so far.
  await stage.admits(honest);
  await stage.admits(authority.issue({ id: PEER }));
  await stage.admits(authority.intermediate().issue({ id: PEER }));
});

test('a stranger whose leaf alone says enough, or of whom OpenSSL has said the last word, takes none of the room', async (t) => {
  const stage = await startStage(t);
  const hourAgo = Date.now() - 3_600_000;
  const kinds = {
    expired: strangerFlight(MOST_CERTIFICATES, { notBefore: hourAgo - 60_000, notAfter: hourAgo }),
    not_yet_valid: strangerFlight(MOST_CERTIFICATES, { notBefore: Date.now() + 3_600_000, notAfter: Date.now() + 7_200_000 }),
    unknown_trust_domain: strangerFlight(MOST_CERTIFICATES, { id: 'spiffe://elsewhere.test/peer' }),
    not_an_svid: strangerFlight(MOST_CERTIFICATES, { uriSans: [] }),
  };
  await strangersCall(stage.inbound, strangerFlight(1), 50, 8);
  for (const [reason, flight] of Object.entries(kinds)) {
    await grows(t, stage, reason, () => strangersCall(stage.inbound, flight, TIMES_EACH, 8));
    await eventually(async () => assert.equal(await stage.refused(reason), TIMES_EACH));
  }
  assert.equal(await stage.refused('chain_not_read'), 0);
});

test('a stranger whose leaf has a name that the TLS library cannot write out is refused for its certificate, and is no mistake of ours', async (t) => {
  const stage = await startStage(t);
  const endlessType = element(0x06, Buffer.alloc(1000, 1));
  const subject = sequence(set(sequence(endlessType, utf8('x'))));
  const flight = strangerFlight(1, { subject });
  await strangersCall(stage.inbound, flight, 1, 1);
  stage.server.present(flight);
  await applicationCalls(stage.outbound, 1, 1);
  await eventually(async () => assert.equal(await stage.refused('bad_certificate'), 2));
  const closed = (): readonly Record<string, unknown>[] => stage.scute.log().filter(({ reason }) => reason === 'bad_certificate');
  await eventually(() => assert.equal(closed().length, 2));
  assert.deepEqual(
    closed().map(({ level, close_reason }) => `${String(level)} ${String(close_reason)}`),
    ['info denied', 'warn upstream_denied'],
  );
});

test('honest clients get in while 800 strangers with 120 certificates each are at the door, and a second crowd finds no more to take', async (t) => {
  const stage = await startStage(t);
  const { authority, inbound } = stage;
  const flight = strangerFlight(120);
  const crowd = async (): Promise<void> => {
    const strangers = strangersCall(inbound, flight, 800, 800);
    await stage.admits(authority.issue({ id: PEER }));
    await stage.admits(authority.intermediate().issue({ id: PEER }));
    await strangers;
  };
  // So many handshakes at once take room by themselves, which is not given back and used again.
  await crowd();
  await grows(t, stage, 'the second crowd', crowd, ALLOWED_CROWD_BYTES);
});

test('a peer of whom OpenSSL picks the wrong issuer gets in while a few strangers keep their room full', async (t) => {
  const stage = await startStage(t);
  const { authority, inbound } = stage;
  // OpenSSL tries the first of two authorities of one name.
  const twin = createTestAuthority({ subject: authority.name });
  const shared = twin.intermediate({ authorityKeyId: null });
  const bundle = Buffer.concat([authority.der, twin.der]);
  stage.api.setX509([svidEntry(authority, authority.issue({ id: US }), US, { bundle })]);
  const early = shared.issue({ id: PEER });
  await eventually(() => stage.admits(early));

  for (const count of [MOST_CERTIFICATES, 300, 100, 20, 3]) await strangersCall(inbound, strangerFlight(count), 20, 1);
  const few = strangerFlight(3);
  for (let time = 0; time < 10; time++) {
    await strangersCall(inbound, few, 3, 1);
    await stage.admits(early);
    await stage.admits(shared.issue({ id: PEER }));
  }
  assert.ok((await stage.refused('chain_not_read')) > 20);
});

test('somebody with an SVID who sends a thousand certificates beside it takes a bounded room too, and keeps nobody out', async (t) => {
  const stage = await startStage(t);
  const { authority } = stage;
  const shared = authority.intermediate();
  await stage.admits(shared.issue({ id: PEER }));
  const insider = authority.issue({ id: PEER });
  // It is known, too.
  await stage.admits(insider);
  const others = Array.from({ length: MOST_CERTIFICATES - 1 }, (_, index) => pemOf('CERTIFICATE', smallestCertificate(index)));
  const { context } = strangerFlight(1);
  context.context.setCert(insider.pem + others.join(''));
  context.context.setKey(insider.keyPem, undefined);
  await grows(t, stage, 'an insider', () =>
    strangersCall(stage.inbound, { what: 'an insider', certificates: MOST_CERTIFICATES, context }, 100, 8),
  );
  await eventually(async () => {
    const [full, tooMany] = [await stage.refused('chain_not_read'), await stage.refused('bad_certificate')];
    assert.equal(full + tooMany, 100);
    assert.ok(full > 0 && tooMany > 0, `${full}, ${tooMany}`);
  });
  // Known; new; and new below an issuer whose certificate came with another peer.
  await stage.admits(insider);
  await stage.admits(authority.issue({ id: PEER }));
  await stage.admits(shared.issue({ id: PEER }));
});

test('strangers who never finish their handshake hold little of what they sent, and keep nobody out', async (t) => {
  const stage = await startStage(t);
  await stage.admits(stage.authority.issue({ id: PEER }));
  await strangersCall(stage.inbound, strangerFlight(1), 50, 8);
  await grows(t, stage, 'unfinished', async () => {
    const end = await strangersStall(stage.inbound, strangerFlight(MOST_CERTIFICATES), 200);
    t.after(end);
    await eventually(async () => assert.ok((await stage.refused('chain_not_read')) >= 150));
    await stage.admits(stage.authority.intermediate().issue({ id: PEER }));
  });
  const line = stage.scute.log().find(({ reason }) => reason === 'chain_not_read');
  assert.match(String(line?.['detail']), /bytes were sent, and the handshake is not over/);
});

test('a client that sends 1 MiB right behind its Finished is served, known or not', async (t) => {
  const stage = await startStage(t);
  const peer = stage.authority.intermediate().issue({ id: PEER });
  // Written before the handshake begins, so that it leaves together with the end of it.
  for (let time = 0; time < 3; time++) await stage.admits(peer, Buffer.alloc(MIB, 'x'));
});

test('a server that speaks first is served, known or not', async (t) => {
  const authority = createTestAuthority();
  const peer = authority.intermediate().issue({ id: PEER });
  const greeting = Buffer.alloc(MIB, 'g');
  const server = await tlsServer(t, { cert: peer.chainPem, key: peer.keyPem }, (socket) => socket.end(greeting));
  const api = await FakeWorkloadApi.start();
  t.after(() => api[Symbol.asyncDispose]());
  api.setX509([svidEntry(authority, authority.issue({ id: US }), US)]);
  const scute = await useScute(t, {
    config: {
      workloadApi: { endpoint: api.endpoint },
      outbound: [{ name: 'out', listen: '127.0.0.1:0', to: server.address, expect: [PEER] }],
    },
  });
  await scute.ready('out');
  for (let time = 0; time < 3; time++) {
    const socket = await dial(t, await scute.address('out'));
    assert.ok((await readAll(socket)).equals(greeting));
    socket.end();
  }
});
