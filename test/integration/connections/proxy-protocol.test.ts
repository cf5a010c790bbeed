// ghostunnel: server-proxy-protocol, server-proxy-protocol-conn, server-proxy-protocol-tls, server-unix-socket-backend, server-unix-socket-listener
import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { test, type TestContext } from 'node:test';
import { connect as tlsConnect, type ConnectionOptions, type TLSSocket } from 'node:tls';
import { presented, startExampleDomain, startInbound, WEB, type InboundStage, type StageOptions } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { receive, tlv, tlvsOf, v2Header, v2Raw, type ReceivedHeader } from '../../support/proxy-header.ts';
import { closed, dial, startEcho, startTcpServer } from '../../support/tcp.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import { outcome, tlsClient } from '../../support/tls-peer.ts';

/** An application that is told, and answers what came after the header in upper case. */
async function startTold(t: TestContext, path?: string) {
  const received: ReturnType<typeof receive>[] = [];
  const { address, connections } = await startTcpServer(
    t,
    (socket) => {
      const one = receive(socket);
      received.push(one);
      socket.on('end', () => socket.end(one.rest().toUpperCase()));
    },
    path,
  );
  return {
    address,
    connections,
    header: (): Promise<ReceivedHeader> => eventually(() => received.at(-1)?.header() ?? Promise.reject(new Error('no connection'))),
  };
}

async function exchanged(client: TLSSocket, text: string): Promise<string> {
  client.end(text);
  return (await outcome(client)).text;
}

/** Source and destination, as a client's own socket says. */
function ends(client: TLSSocket): string[] {
  return [`127.0.0.1:${client.localPort}`, `127.0.0.1:${client.remotePort}`];
}

const text = (bytes: Buffer | undefined): string | undefined => bytes?.toString();

test('in mode conn the application is told the addresses alone, and every byte after them', async (t) => {
  const application = await startTold(t);
  const { connect } = await startInbound(t, application.address, { listener: { proxyProtocol: { send: 'conn' } } });
  const client = await connect();
  const expected = ends(client);

  assert.equal(await exchanged(client, 'hello proxy protocol conn'), 'HELLO PROXY PROTOCOL CONN');

  const header = await application.header();
  assert.deepEqual([header.command, header.family, header.tlvs.length], [0x21, 0x11, 0]);
  assert.deepEqual([header.source, header.destination], expected);
});

test('in mode tls the application is told of TLS and the SPIFFE ID, and not of the certificate', async (t) => {
  const application = await startTold(t);
  const { connect } = await startInbound(t, application.address, { listener: { proxyProtocol: { send: 'tls' }, alpn: ['h2'] } });
  const client = await connect({ ALPNProtocols: ['h2'], servername: 'api.example' });
  const expected = ends(client);

  assert.equal(await exchanged(client, 'hello'), 'HELLO');

  const { tlvs, source, destination } = await application.header();
  assert.deepEqual([source, destination], expected);
  assert.deepEqual([text(tlv(tlvs, 0x01)), text(tlv(tlvs, 0x02)), text(tlv(tlvs, 0xd0))], ['h2', 'api.example', WEB]);
  const ssl = tlv(tlvs, 0x20);
  assert.equal(ssl?.subarray(0, 5).toString('hex'), '0100000000');
  assert.deepEqual(
    tlvsOf(ssl.subarray(5)).map(([type, value]) => [type, value.toString()]),
    [[0x21, 'TLSv1.3']],
  );
});

test('what was not negotiated or indicated is not told', async (t) => {
  const application = await startTold(t);
  const { connect } = await startInbound(t, application.address, { listener: { proxyProtocol: { send: 'tls', spiffeIdTlv: 0xe7 } } });
  const client = await connect({ maxVersion: 'TLSv1.2' });

  await exchanged(client, 'hello');

  const { tlvs } = await application.header();
  assert.deepEqual(
    tlvs.map(([type]) => type),
    [0x20, 0xe7],
  );
  assert.deepEqual(text(tlvsOf((tlv(tlvs, 0x20) ?? Buffer.alloc(5)).subarray(5))[0]?.[1]), 'TLSv1.2');
});

test('a name in SNI that is no host name is not told', async (t) => {
  const application = await startTold(t);
  const { connect } = await startInbound(t, application.address, { listener: { proxyProtocol: { send: 'tls' } } });
  const client = await connect({ servername: 'a b\r\nc' });

  await exchanged(client, 'hello');

  assert.equal(tlv((await application.header()).tlvs, 0x02), undefined);
});

test('in mode tls-full the application is told the common name and the very certificate, verified', async (t) => {
  const application = await startTold(t);
  const { spiffe, address } = await startInbound(t, application.address, { listener: { proxyProtocol: { send: 'tls-full' } } });
  const named = await spiffe.issue(WEB, { subject: [{ CN: 'web client' }] });
  const client = tlsClient(t, address, presented(named));
  await once(client, 'secureConnect');

  assert.equal(await exchanged(client, 'hello'), 'HELLO');

  const ssl = tlv((await application.header()).tlvs, 0x20) ?? Buffer.alloc(5);
  assert.equal(ssl.subarray(0, 5).toString('hex'), '0700000000');
  const inner = tlvsOf(ssl.subarray(5));
  assert.equal(text(tlv(inner, 0x22)), 'web client');
  assert.deepEqual(tlv(inner, 0x28), new X509Certificate(named.certPem).raw);
});

test('a certificate without a common name has no TLV for one', async (t) => {
  const application = await startTold(t);
  const { connect } = await startInbound(t, application.address, { listener: { proxyProtocol: { send: 'tls-full' } } });

  await exchanged(await connect(), 'hello');

  const inner = tlvsOf((tlv((await application.header()).tlvs, 0x20) ?? Buffer.alloc(5)).subarray(5));
  assert.deepEqual(
    inner.map(([type]) => type),
    [0x21, 0x28],
  );
});

test('an application on a Unix socket is told the same', async (t) => {
  const application = await startTold(t, `${await temporaryFolder(t)}/app.sock`);
  const { connect } = await startInbound(t, application.address, { listener: { proxyProtocol: { send: 'conn' } } });
  const client = await connect();
  const expected = ends(client);

  assert.equal(await exchanged(client, 'hello'), 'HELLO');

  const header = await application.header();
  assert.deepEqual([header.source, header.destination], expected);
});

test('a client of a Unix listener is told in a block of 216 bytes, with the path of the listener', async (t) => {
  const application = await startTold(t);
  const path = `${await temporaryFolder(t)}/in.sock`;
  const { connect } = await startInbound(t, application.address, {
    listener: { listen: `unix://${path}`, proxyProtocol: { send: 'tls' } },
  });

  assert.equal(await exchanged(await connect(), 'hello unix'), 'HELLO UNIX');

  const { family, block, tlvs } = await application.header();
  assert.deepEqual([family, block.length], [0x31, 216]);
  assert.ok(block.subarray(0, 108).every((byte) => byte === 0));
  assert.equal(block.subarray(108).toString().replaceAll('\0', ''), path);
  assert.equal(text(tlv(tlvs, 0xd0)), WEB);
});

test('a listener on every address tells the one that the client connected to', async (t) => {
  const application = await startTold(t);
  const { connect } = await startInbound(t, application.address, { listener: { listen: '[::]:0', proxyProtocol: { send: 'conn' } } });
  const client = await connect();
  const expected = ends(client);

  await exchanged(client, 'hello');

  // Not as IPv4 addresses within IPv6.
  const header = await application.header();
  assert.deepEqual([header.family, header.source, header.destination], [0x11, ...expected]);
});

test('the header is first even when the application speaks first', async (t) => {
  const application = await startTcpServer(t, (socket) => {
    socket.write('220 ready\r\n');
    const received = receive(socket);
    socket.on('end', () => socket.end(received.header().source));
  });
  const { connect } = await startInbound(t, application.address, { listener: { proxyProtocol: { send: 'conn' } } });
  const client = await connect();
  const [source] = ends(client);

  assert.equal(await exchanged(client, ''), `220 ready\r\n${source}`);
});

test('an application that speaks HTTP is told once a connection, before its first request', async (t) => {
  const application = await startTcpServer(t, (socket) => {
    const received = receive(socket);
    socket.on('data', () => {
      const requests = received.rest().match(/^GET /gm)?.length ?? 0;
      const body = `${received.header().source} ${requests}`;
      socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${body.length}\r\n\r\n${body}`);
    });
  });
  const { connect } = await startInbound(t, application.address, { listener: { protocol: 'http', proxyProtocol: { send: 'tls' } } });
  const client = await connect();
  const [source] = ends(client);
  let replies = '';
  client.on('data', (chunk: Buffer) => (replies += chunk.toString()));

  for (const count of [1, 2]) {
    client.write('GET / HTTP/1.1\r\nHost: api\r\n\r\n');
    await eventually(() => assert.ok(replies.includes(`${source} ${count}`), replies));
  }
});

test('a change of the PROXY protocol needs a restart, and says so', async (t) => {
  const application = await startTold(t);
  const stage = await startInbound(t, application.address, { listener: { proxyProtocol: { send: 'conn' } } });

  await stage.sidecar.reload(stage.with({ proxyProtocol: { send: 'off', acceptFrom: ['127.0.0.1'] } }));

  const line = stage.sidecar.log().find((each) => each['settings'] !== undefined);
  assert.deepEqual(line?.['settings'], ['inbound in: proxyProtocol']);
  assert.equal(await exchanged(await stage.connect(), 'hello'), 'HELLO');
});

test('a peer that is not admitted has no header sent for it', async (t) => {
  const application = await startTold(t);
  const { sidecar, address, spiffe } = await startInbound(t, application.address, { listener: { proxyProtocol: { send: 'tls' } } });

  await outcome(tlsClient(t, address, presented(await spiffe.issue('spiffe://example.org/stranger'))));

  assert.equal((await sidecar.connection())['reason'], 'not_allowed');
  assert.equal(application.connections.size, 0);
});

test('bytes of the header are not counted as the application’s', async (t) => {
  const application = await startTold(t);
  const { sidecar, connect } = await startInbound(t, application.address, { listener: { proxyProtocol: { send: 'tls-full' } } });

  await exchanged(await connect(), 'hello');

  const line = await sidecar.connection();
  assert.deepEqual([line['bytes_from_downstream'], line['bytes_to_downstream'], line['via']], [5, 5, undefined]);
});

const ANNOUNCED = { source: '203.0.113.7:40112', destination: '198.51.100.1:443' };
const HEADER = v2Header(ANNOUNCED.source, ANNOUNCED.destination);
const V1 = Buffer.from('PROXY TCP4 203.0.113.7 198.51.100.1 40112 443\r\n');
const FROM_HERE = { proxyProtocol: { acceptFrom: ['127.0.0.0/8'] } };

async function startBehind(t: TestContext, options: StageOptions = {}): Promise<InboundStage> {
  return startInbound(t, (await startEcho(t)).address, { ...options, listener: { ...FROM_HERE, ...options.listener } });
}

/** A TLS client whose first bytes go out in one write with `header`. */
async function connectAfter(
  t: TestContext,
  { address, web }: InboundStage,
  header: Uint8Array,
  options: ConnectionOptions = {},
): Promise<TLSSocket> {
  const raw = await dial(t, address);
  const socket = tlsConnect({ socket: prefixed(raw, header), ...web, rejectUnauthorized: false, ...options });
  socket.on('error', () => undefined);
  t.after(() => socket.destroy());
  await once(socket, 'secureConnect');
  return socket;
}

function prefixed(raw: Socket, prefix: Uint8Array): Duplex {
  let first: Uint8Array | undefined = prefix;
  const stream = new Duplex({
    read: () => raw.resume(),
    write(chunk: Buffer, _encoding, done) {
      raw.write(first === undefined ? chunk : Buffer.concat([first, chunk]), () => done());
      first = undefined;
    },
    final: (done) => void raw.end(done),
  });
  raw.on('data', (chunk: Buffer) => void (stream.push(chunk) || raw.pause()));
  raw.on('end', () => stream.push(null));
  raw.on('close', () => stream.destroy());
  return stream;
}

for (const [name, header] of [
  ['version 2', HEADER],
  ['version 1', V1],
] as const) {
  test(`the address in a header of ${name} is the one that is logged, and the load balancer is named beside it`, async (t) => {
    const stage = await startBehind(t);

    const client = await connectAfter(t, stage, header);
    assert.equal(await exchanged(client, 'hello'), 'hello');

    const line = await stage.sidecar.connection();
    assert.equal(line['downstream_address'], ANNOUNCED.source);
    assert.match(String(line['via']), /^127\.0\.0\.1:\d+$/);
    assert.deepEqual([line['verdict'], line['peer_id'], line['close_reason']], ['allow', WEB, 'finished']);
  });
}

test('the announced addresses are sent on to the application, and nothing else of the received header', async (t) => {
  const application = await startTold(t);
  const stage = await startInbound(t, application.address, {
    listener: { proxyProtocol: { send: 'tls', acceptFrom: ['127.0.0.1'] } },
  });
  const forged = Buffer.from([0xd0, 0, 4, 0x6d, 0x69, 0x6e, 0x65, 0x02, 0, 1, 0x78, 0x20, 0, 5, 7, 0, 0, 0, 0]);

  const client = await connectAfter(t, stage, v2Header(ANNOUNCED.source, ANNOUNCED.destination, forged));
  assert.equal(await exchanged(client, 'hello'), 'HELLO');

  const { source, destination, tlvs } = await application.header();
  assert.deepEqual({ source, destination }, ANNOUNCED);
  assert.deepEqual(
    tlvs.map(([type]) => type),
    [0x20, 0xd0],
  );
  assert.equal(text(tlv(tlvs, 0xd0)), WEB);
});

for (const [name, header] of [
  ['a header that says LOCAL', v2Raw(0x20, 0x00, Buffer.alloc(0))],
  ['a header of an unspecified family', v2Raw(0x21, 0x00, Buffer.alloc(0))],
  ['a line that says UNKNOWN', Buffer.from('PROXY UNKNOWN\r\n')],
] as const) {
  test(`${name} leaves the real addresses in force`, async (t) => {
    const application = await startTold(t);
    const stage = await startInbound(t, application.address, { listener: { proxyProtocol: { ...FROM_HERE.proxyProtocol, send: 'conn' } } });

    const client = await connectAfter(t, stage, header);
    assert.equal(await exchanged(client, 'hello'), 'HELLO');

    const line = await stage.sidecar.connection();
    assert.match(String(line['downstream_address']), /^127\.0\.0\.1:/);
    assert.equal(line['via'], undefined);
    assert.equal((await application.header()).source, line['downstream_address']);
  });
}

test('a header that comes byte by byte, the TLS client’s first bytes with the last of them, is read', async (t) => {
  const stage = await startBehind(t);
  for (const header of [HEADER, V1]) {
    const raw = await dial(t, stage.address);
    for (const byte of header.subarray(0, -1)) {
      raw.write(Uint8Array.of(byte));
      await new Promise((resolve) => setImmediate(resolve));
    }
    const client = tlsConnect({ socket: prefixed(raw, header.subarray(-1)), ...stage.web, rejectUnauthorized: false });
    client.on('error', () => undefined);
    await once(client, 'secureConnect');

    assert.equal(await exchanged(client, 'hello'), 'hello');
  }
  await eventually(() => assert.equal(stage.sidecar.log().filter((line) => line['downstream_address'] === ANNOUNCED.source).length, 2));
});

test('a header cut anywhere, with a pause, loses nothing of what follows', async (t) => {
  const stage = await startBehind(t);
  const handshake = async (header: Buffer, cut: number): Promise<void> => {
    const raw = await dial(t, stage.address);
    raw.write(header.subarray(0, cut));
    // Until it has been read: a round trip of another connection.
    await closed(await dialAndLeave(t, stage.address));
    const client = tlsConnect({ socket: prefixed(raw, header.subarray(cut)), ...stage.web, rejectUnauthorized: false });
    client.on('error', () => undefined);
    await once(client, 'secureConnect');
    assert.equal(await exchanged(client, 'hello'), 'hello', `cut at ${cut}`);
  };
  for (const header of [HEADER, V1]) {
    for (let cut = 1; cut < header.length; cut += 3) await handshake(header, cut);
    await handshake(header, header.length);
  }
});

async function dialAndLeave(t: TestContext, address: string): Promise<Socket> {
  const socket = await dial(t, address);
  socket.end();
  return socket;
}

test('a header is read of a connection that had to speak to get its place', async (t) => {
  const stage = await startBehind(t, { listener: { limits: { maxHandshakes: 4 } } });
  await dial(t, stage.address);
  await eventually(async () => assert.equal(await stage.sidecar.metric('scute_tls_handshaking_connections'), 1));

  assert.equal(await exchanged(await connectAfter(t, stage, HEADER), 'hello'), 'hello');
});

test('a header is read when places for handshakes are scarce, too', async (t) => {
  const stage = await startBehind(t, { listener: { limits: { maxHandshakes: 1 } } });
  const holder = await dial(t, stage.address);
  await eventually(async () => assert.equal(await stage.sidecar.metric('scute_tls_handshaking_connections'), 1));

  const waiting = connectAfter(t, stage, HEADER);
  await eventually(async () => assert.equal(await stage.sidecar.metric('scute_tcp_waiting_connections'), 1));
  holder.destroy();

  assert.equal(await exchanged(await waiting, 'hello'), 'hello');
  await stage.sidecar.connection((line) => line['downstream_address'] === ANNOUNCED.source);
});

test('a load balancer that sends no header is refused, though its client would be admitted', async (t) => {
  const stage = await startBehind(t);

  const { error } = await outcome(tlsClient(t, stage.address, stage.web));

  assert.equal(error, 'ECONNRESET');
  const line = await stage.sidecar.connection();
  assert.deepEqual([line['reason'], line['close_reason'], line['verdict']], ['bad_proxy_header', 'handshake_failed', 'deny']);
  assert.equal(await stage.sidecar.metric('scute_tls_handshakes_total', { reason: 'bad_proxy_header' }), 1);
});

for (const [name, bytes, detail] of [
  ['garbage', Buffer.from('GET / HTTP/1.1\r\n\r\n'), /does not begin with a PROXY header/],
  ['a header of a version to come', v2Raw(0x31, 0x11, Buffer.alloc(12)), /version and command 0x31/],
  ['a header that is too long', Buffer.concat([v2Raw(0x21, 0x11, Buffer.alloc(1000))]), /1016 bytes, more than 536/],
  ['a line without an end', Buffer.from(`PROXY UNKNOWN ${'x'.repeat(70_000)}`), /without an end in 107 bytes/],
] as const) {
  test(`${name} from a load balancer is refused and counted`, async (t) => {
    const { sidecar, address } = await startBehind(t);
    const client = await dial(t, address);

    client.write(bytes);
    await closed(client);

    assert.match(String((await sidecar.connection((line) => line['reason'] === 'bad_proxy_header'))['detail']), detail);
    assert.equal(await sidecar.metric('scute_tls_handshakes_total', { reason: 'bad_proxy_header' }), 1);
    assert.equal(await sidecar.metric('scute_tls_handshaking_connections'), 0);
  });
}

test('a header that is cut short is refused and counted', async (t) => {
  const { sidecar, address } = await startBehind(t);
  const client = await dial(t, address);

  client.end(HEADER.subarray(0, 20));
  await closed(client);

  assert.equal((await sidecar.connection())['detail'], 'PROXY header cut short after 20 bytes');
});

test('a header that never ends is cut at the handshake timeout', async (t) => {
  const { sidecar, address } = await startBehind(t, { listener: { limits: { handshakeTimeout: '300ms' } } });
  const client = await dial(t, address);

  client.write(HEADER.subarray(0, 20));
  await closed(client);

  const line = await sidecar.connection();
  assert.deepEqual([line['reason'], line['detail']], ['handshake_timeout', 'no PROXY header within 300 ms']);
  assert.equal(await sidecar.metric('scute_tls_handshaking_connections'), 0);
});

test('a header that says LOCAL and then nothing is cut at the handshake timeout', async (t) => {
  const { sidecar, address } = await startBehind(t, { listener: { limits: { handshakeTimeout: '300ms' } } });
  const client = await dial(t, address);

  client.write(v2Raw(0x20, 0x00, Buffer.alloc(0)));
  await closed(client);

  assert.equal((await sidecar.connection())['detail'], 'nothing after the PROXY header within 300 ms');
});

test('a health check leaves no refusal behind', async (t) => {
  const { sidecar, address } = await startBehind(t);

  await closed(await dialAndLeave(t, address));
  const local = await dial(t, address);
  local.end(v2Raw(0x20, 0x00, Buffer.alloc(0)));
  await closed(local);

  await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_close_total', { reason: 'downstream_reset' }), 2));
  assert.equal(await sidecar.metric('scute_tls_handshakes_total', { result: 'failed' }), 0);
  const levels = sidecar.log().filter(({ message }) => message === 'connection closed');
  assert.deepEqual(
    levels.map((line) => [line['level'], line['detail']]),
    [
      ['debug', 'a health check'],
      ['debug', 'a health check'],
    ],
  );
});

test('a header from anybody else is bad TLS, and the address in it counts for nothing', async (t) => {
  for (const acceptFrom of [[], ['10.0.0.0/8', '::1']]) {
    const stage = await startBehind(t, { listener: { proxyProtocol: { acceptFrom } } });
    for (const header of [HEADER, V1]) {
      const client = await dial(t, stage.address);
      client.on('end', () => client.end());
      client.write(header);
      await closed(client);
    }
    assert.equal(await exchanged(await stage.connect(), 'hello'), 'hello');

    await eventually(async () => assert.equal(await stage.sidecar.metric('scute_tls_handshakes_total', { reason: 'protocol_error' }), 2));
    for (const line of stage.sidecar.log()) assert.notEqual(line['downstream_address'], ANNOUNCED.source);
  }
});

test('a peer behind a load balancer is judged as any other', async (t) => {
  const stage = await startBehind(t);
  const stranger = presented(await stage.spiffe.issue('spiffe://example.org/stranger'));

  const client = await connectAfter(t, stage, HEADER, stranger);
  await outcome(client);

  const line = await stage.sidecar.connection();
  assert.deepEqual([line['reason'], line['downstream_address']], ['not_allowed', ANNOUNCED.source]);
});

test('a listener on every address knows a load balancer by its IPv4 address', async (t) => {
  const stage = await startBehind(t, { listener: { listen: '[::]:0' } });

  assert.equal(await exchanged(await connectAfter(t, stage, HEADER), 'hello'), 'hello');

  assert.equal((await stage.sidecar.connection())['downstream_address'], ANNOUNCED.source);
});

test('what waits for its header when the listener closes is dropped', async (t) => {
  const { sidecar, address } = await startBehind(t);
  const client = await dial(t, address);
  client.write(HEADER.subarray(0, 5));
  await eventually(async () => assert.equal(await sidecar.metric('scute_tls_handshaking_connections'), 1));

  await sidecar.stop();

  assert.equal(await closed(client), 'ECONNRESET');
});

test('the domain of these tests has no common names', async (t) => {
  const spiffe = await startExampleDomain(t);
  assert.doesNotMatch(new X509Certificate((await spiffe.issue(WEB)).certPem).subject, /CN=/);
});
