import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Agent, request, type IncomingMessage, type RequestOptions } from 'node:http';
import { Agent as TlsAgent, request as requestOverTls } from 'node:https';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { connect, type ConnectionOptions } from 'node:tls';
import { API, presented, startPair, WEB } from '../../support/data-path.ts';
import { startDevDomain } from '../../support/dev-domain.ts';
import { startHttpApplication } from '../../support/http/http-stage.ts';

const FOR_MS = 20_000;

test('SVIDs that live for eight seconds rotate each second under HTTP load, and no request fails, on old connections or new ones', async (t) => {
  const spiffe = await startDevDomain(t, {
    name: 'example.org',
    svidLife: '8s',
    rotateEvery: '1s',
    workloads: { web: [WEB], api: [API] },
  });
  const application = await startHttpApplication(t, (asked, response) => {
    const chunks: Buffer[] = [];
    asked.on('data', (chunk: Buffer) => chunks.push(chunk));
    asked.on('end', () => response.end(`${String(asked.headers['x-peer'])} ${Buffer.concat(chunks).toString()}`));
  });
  const { inbound, outbound, address } = await startPair(t, application.address, {
    spiffe,
    inbound: { protocol: 'http', http: { spiffeIdHeader: 'X-Peer' } },
    outbound: { protocol: 'http' },
  });
  const failures: string[] = [];
  const until = performance.now() + FOR_MS;
  const during = (): boolean => performance.now() < until;
  let requests = 0;
  const exchange = async (ask: typeof request, options: RequestOptions, body: string): Promise<void> => {
    requests++;
    try {
      const asked = ask({ method: 'POST', ...options });
      asked.end(body);
      const [response] = (await once(asked, 'response')) as [IncomingMessage];
      let text = '';
      for await (const part of response.setEncoding('latin1')) text += String(part);
      if (response.statusCode !== 200 || text !== `${WEB} ${body}`) failures.push(`${response.statusCode} ${text.slice(0, 200)}`);
    } catch (error) {
      failures.push(String(error));
    }
  };
  const at = (where: string): RequestOptions => ({ host: '127.0.0.1', port: Number(where.split(':')[1]) });

  // Connections that stay, through both sidecars.
  const staying = Array.from({ length: 5 }, async (_, number) => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    while (during()) {
      await exchange(request, { ...at(address), agent }, `${number} ${'x'.repeat(number * 1000)}`);
      await delay(20);
    }
    agent.destroy();
  });
  // A new one for each request.
  const coming = (async () => {
    while (during()) {
      await exchange(request, { ...at(address), agent: false }, 'new');
      await delay(50);
    }
  })();
  // Peers of the inbound sidecar, with SVIDs of their own, which expire while they are connected.
  let svid = presented(await spiffe.issue(WEB));
  const renewing = (async () => {
    while (during()) {
      await delay(1000);
      svid = presented(await spiffe.issue(WEB));
    }
  })();
  const peers = Array.from({ length: 2 }, async () => {
    const agent = new TlsAgent({ keepAlive: true, maxSockets: 1, rejectUnauthorized: false });
    agent.createConnection = (options) => connect({ ...(options as ConnectionOptions), ...svid });
    while (during()) {
      await exchange(requestOverTls, { ...at(inbound.address('in')), agent }, 'peer');
      await delay(20);
    }
    agent.destroy();
  });
  await Promise.all([...staying, coming, ...peers, renewing]);

  assert.deepEqual(failures, []);
  // One a second and loop, however busy the machine is.
  assert.ok(requests > (8 * FOR_MS) / 1000, `${requests} requests`);
  const generations = await Promise.all([inbound, outbound].map((sidecar) => sidecar.metric('scute_identity_generation')));
  assert.ok(Math.min(...generations) >= 15, `${generations.join()} rotations`);
  // Connections outlived SVIDs, and were made anew.
  const expired = await Promise.all(
    ['peer_svid_expired', 'own_svid_expired'].map((reason) => inbound.metric('scute_connections_drained_total', { reason })),
  );
  assert.ok(expired.reduce((sum, count) => sum + count, 0) >= 2);
  const outlived = inbound.log().filter((line) => line.message === 'connection closed' && Number(line['duration_ms']) > 5000);
  assert.ok(outlived.length >= 7, `${outlived.length} connections`);
  for (const sidecar of [inbound, outbound]) {
    const total = await sidecar.metric('scute_http_requests_total');
    assert.equal(await sidecar.metric('scute_http_requests_total', { status: '200', result: 'forwarded' }), total);
    assert.equal(await sidecar.metric('scute_tls_handshakes_total', { result: 'error' }), 0);
    assert.equal(await sidecar.metric('scute_x509_svid_updates_total', { result: 'rejected' }), 0);
  }
});
