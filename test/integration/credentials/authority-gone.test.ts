/** A server whose authority is no longer relied on gets no token, whenever it was that this changed. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { rename, writeFile } from 'node:fs/promises';
import { Agent, request } from 'node:http';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { test, type TestContext } from 'node:test';
import { eventually } from '../../support/eventually.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { createTestAuthority } from '../../support/pki/pki.ts';
import { startSidecar, type Sidecar } from '../../support/sidecar.ts';
import { tokenFetched } from '../../support/tokens/held-token.ts';
import { startJwtAgent } from '../../support/tokens/jwt-agent.ts';
import { startWebServer } from '../../support/web-server.ts';

const LIFE_SECONDS = 20;

interface Answer {
  readonly status: number;
  readonly body: string;
}

/** A sidecar that puts tokens of an endpoint on requests to a server, all over one connection of the application. */
async function startStage(t: TestContext) {
  const clock = new FakeClock();
  const [agent, endpoint, server] = await Promise.all([
    startJwtAgent(t),
    startWebServer(t),
    startWebServer(t, { tls: { keepAliveTimeout: 0 } }),
  ]);
  const gate = await startGate(t, server.port);
  let given = 0;
  const waiting: (() => void)[] = [];
  let isSlow = false;
  endpoint.answer((incoming, response) => {
    const answer = (): void => {
      const token = { access_token: `token-${++given}`, token_type: 'Bearer', expires_in: LIFE_SECONDS };
      response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(token));
    };
    incoming.resume().on('end', () => (isSlow ? void waiting.push(answer) : answer()));
  });
  const sidecar = await startSidecar(
    t,
    {
      workloadApi: { endpoint: agent.api.endpoint },
      credentials: [
        {
          name: 'partner',
          kind: 'client_credentials',
          tokenEndpoint: `${endpoint.origin}/token`,
          caFile: endpoint.caFile,
          jwtAudience: 'https://login.example',
        },
      ],
      outbound: [
        {
          name: 'out',
          listen: '127.0.0.1:0',
          protocol: 'http',
          to: `https://localhost:${gate.port}`,
          webPki: { caFile: server.caFile },
          credential: { name: 'partner' },
          // Nothing else ends a connection.
          http: { upstreamIdleTimeout: 'off' },
          limits: { idleTimeout: 'off' },
        },
      ],
    },
    { clock },
  );
  await tokenFetched(sidecar);
  const application = new Agent({ keepAlive: true, maxSockets: 1 });
  t.after(() => application.destroy());
  const asks = (): Promise<Answer> => ask(sidecar, application);
  return { clock, server, gate, sidecar, waiting, asks, slow: () => (isSlow = true) };
}

/** Between the sidecar and the server: what is said on new connections waits while it is shut. */
async function startGate(t: TestContext, port: number) {
  const held: (() => void)[] = [];
  const sockets: Socket[] = [];
  let isShut = false;
  const gate = createServer((socket) => {
    const through = (): void => {
      const other = connect(port, '127.0.0.1');
      sockets.push(other.on('error', () => socket.destroy()));
      socket.pipe(other).pipe(socket);
    };
    sockets.push(socket.on('error', () => undefined));
    if (isShut) held.push(through);
    else through();
  });
  gate.listen(0, '127.0.0.1');
  await once(gate, 'listening');
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    gate.close();
  });
  return {
    port: (gate.address() as AddressInfo).port,
    held: () => held.length,
    shut: () => (isShut = true),
    open: () => held.splice(0).forEach((through) => through()),
  };
}

function ask(sidecar: Sidecar, agent: Agent): Promise<Answer> {
  const [host, port] = sidecar.address('out').split(':');
  return new Promise((resolve, reject) => {
    const sent = request({ host, port, path: '/', agent }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (chunk: string) => (body += chunk));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body }));
    });
    sent.on('error', reject).end();
  });
}

/** Somebody else vouches for the server from here on. */
async function anotherAuthority(sidecar: Sidecar, clock: FakeClock, caFile: string): Promise<void> {
  await writeFile(`${caFile}.new`, createTestAuthority({ trustDomain: 'foreign.test' }).pem);
  await rename(`${caFile}.new`, caFile);
  const reloads = (): Promise<number> => sidecar.metric('scute_authorities_reloads_total', { result: 'ok' });
  // Files are looked at each second, and read when they look twice alike. The time that a request may wait is 5 s.
  for (let looks = 0; looks < 3 && (await reloads()) === 0; looks++) {
    const { sleeping } = clock;
    clock.advance(1000);
    await eventually(() => assert.equal(clock.sleeping, sleeping));
  }
  await eventually(async () => assert.equal(await reloads(), 1));
}

test('a fresh token goes to no server whose authority went while a request waited for it, also not over a connection that was kept', async (t) => {
  const { clock, server, sidecar, waiting, asks, slow } = await startStage(t);
  assert.equal((await asks()).status, 200);
  const read = (): Promise<number> => sidecar.metric('scute_tcp_read_bytes_total', { listener: 'out', peer: 'src' });
  const before = await read();
  slow();
  clock.advance(LIFE_SECONDS * 1000 - 2000);
  await eventually(() => assert.equal(waiting.length, 1));
  const asked = asks();
  await eventually(async () => assert.ok((await read()) > before));

  await anotherAuthority(sidecar, clock, server.caFile);
  waiting[0]?.();

  assert.equal((await asked).status, 502);
  assert.deepEqual(
    server.requests.map(({ headers }) => headers.authorization),
    ['Bearer token-1'],
  );
});

test('a token goes to no server whose authority went during the handshake', async (t) => {
  const { clock, server, gate, sidecar, asks } = await startStage(t);
  gate.shut();
  const asked = asks();
  await eventually(() => assert.equal(gate.held(), 1));

  await anotherAuthority(sidecar, clock, server.caFile);
  gate.open();

  const { status, body } = await asked;
  assert.deepEqual([status, server.requests.length], [502, 0]);
  assert.match(body, /untrusted_chain/);
});
