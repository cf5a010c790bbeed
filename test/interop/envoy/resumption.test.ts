import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { connect, type SecureVersion } from 'node:tls';
import type { IssuedPem } from '../../../src/devdomain/dev-domain.ts';
import { startDevDomain } from '../../support/dev-domain.ts';
import { useScute } from '../../support/scute-process.ts';
import { startInboundEnvoy } from './stage.ts';
import { needs } from '../parts.ts';
import { temporaryFolder } from '../stage.ts';

const WEB = 'spiffe://example.org/web';

/** One connection, by an earlier session if there is one: whether it was resumed, and the sessions that could be next. */
async function visitAgain(
  port: number,
  { chainPem: cert, keyPem: key }: IssuedPem,
  version: SecureVersion,
  session?: Buffer,
): Promise<{ readonly isReused: boolean; readonly sessions: readonly Buffer[] }> {
  const versions = { minVersion: version, maxVersion: version } as const;
  const socket = connect({ port, host: '127.0.0.1', rejectUnauthorized: false, cert, key, ...versions, ...(session && { session }) });
  const sessions: Buffer[] = [];
  socket.on('session', (one: Buffer) => sessions.push(one)).resume();
  await once(socket, 'secureConnect');
  const isReused = socket.isSessionReused();
  // What the server says after the handshake comes before the answer to this.
  socket.end('hello');
  await once(socket, 'close');
  return { isReused, sessions };
}

test('an Envoy of the examples resumes no session: what a peer showed once would outlive its certificate', needs('envoy'), async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { api: ['spiffe://example.org/api'] } });
  const socket = join(await temporaryFolder(t), 'sds.sock');
  const config = { workloadApi: { endpoint: spiffe.endpoint('api') }, sds: { listen: `unix://${socket}` } };
  await (await useScute(t, { config })).address('sds');
  const { port } = await startInboundEnvoy(t, { socket }, 'inbound.yaml');
  const web = await spiffe.issue(WEB);

  for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
    const { sessions } = await visitAgain(port, web, version);
    for (const session of sessions) assert.equal((await visitAgain(port, web, version, session)).isReused, false, version);
    assert.equal(sessions.length, 0, `${version}: no tickets`);
  }
});

test('no example leaves resumption on, in either direction', async () => {
  const folder = fileURLToPath(new URL('../../../configs/envoy/', import.meta.url));
  for (const name of await readdir(folder)) {
    const text = await readFile(join(folder, name), 'utf8');
    const count = (what: RegExp): number => text.match(what)?.length ?? 0;
    assert.equal(count(/disable_stateless_session_resumption: true/g), count(/DownstreamTlsContext/g), name);
    assert.equal(count(/disable_stateful_session_resumption: true/g), count(/DownstreamTlsContext/g), name);
    assert.equal(count(/max_session_keys: 0/g), count(/UpstreamTlsContext/g), name);
  }
});
