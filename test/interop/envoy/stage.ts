/** An Envoy that gets its secrets from Scute, and its visitors. */
import type { TestContext } from 'node:test';
import { connect, createServer, type PeerCertificate } from 'node:tls';
import type { IssuedPem } from '../../../src/devdomain/dev-domain.ts';
import { bootstrap, type BootstrapOptions, type Side } from './bootstrap.ts';
import { exampleBootstrap, startEnvoyProcess, type EnvoyProcess } from './process.ts';
import { freePort, listen, startEcho } from '../stage.ts';

/** Envoy before an echo application, by one of the examples. */
export async function startInboundEnvoy(
  t: TestContext,
  { socket }: { readonly socket: string },
  example: string,
  more: { readonly replace?: Readonly<Record<string, string>>; readonly ready?: boolean } = {},
): Promise<{ readonly envoy: EnvoyProcess; readonly port: number }> {
  const [port, echo] = [await freePort(), await startEcho(t)];
  const bootstrap = await exampleBootstrap(example, {
    '0.0.0.0, port_value: 8443': `127.0.0.1, port_value: ${port}`,
    'port_value: 8080': `port_value: ${echo.address.split(':')[1]}`,
    '/run/scute/sds.sock': socket,
    ...more.replace,
  });
  return { envoy: await startEnvoyProcess(t, bootstrap, { ready: more.ready ?? true }), port };
}

/** Envoy with a listener for each of `sides`, all before one echo application. */
export async function startListeners(
  t: TestContext,
  sds: { readonly path: string },
  sides: readonly Omit<Side, 'port' | 'to'>[],
  { ready = true, ...options }: Partial<BootstrapOptions> & { readonly ready?: boolean } = {},
): Promise<{ readonly envoy: EnvoyProcess; readonly ports: readonly number[] }> {
  const to = (await startEcho(t)).address;
  const inbound = await Promise.all(sides.map(async (side) => ({ ...side, to, port: await freePort() })));
  const envoy = await startEnvoyProcess(t, bootstrap({ socket: sds.path, inbound, ...options }), { ready });
  return { envoy, ports: inbound.map(({ port }) => port) };
}

/** An application that is a TLS server itself, and looks at no client. */
export async function startTlsEcho(t: TestContext, { chainPem, keyPem }: Pick<IssuedPem, 'chainPem' | 'keyPem'>): Promise<string> {
  const server = createServer({ cert: chainPem, key: keyPem }, (socket) => {
    socket.on('error', () => undefined);
    socket.on('data', (chunk: Buffer) => socket.end(chunk.toString().toUpperCase()));
  });
  return listen(t, server);
}

export interface Visit {
  readonly reply: string;
  readonly certificate: PeerCertificate | undefined;
}

/** One mTLS connection with one message. A refusal is an empty reply. */
export async function visit(port: number, svid: Pick<IssuedPem, 'chainPem' | 'keyPem'> | undefined, message = 'hello'): Promise<Visit> {
  const presented = svid === undefined ? {} : { cert: svid.chainPem, key: svid.keyPem };
  const socket = connect({ port, host: '127.0.0.1', rejectUnauthorized: false, ...presented });
  let reply = '';
  let certificate: PeerCertificate | undefined;
  socket.setEncoding('utf8').on('data', (text: string) => (reply += text));
  socket.on('secureConnect', () => {
    certificate = socket.getPeerCertificate();
    socket.end(message);
  });
  socket.on('error', () => undefined);
  socket.setTimeout(60_000, () => socket.destroy());
  await new Promise((resolve) => socket.once('close', resolve));
  return { reply, certificate };
}

/** Leaves it to Scute to say who may connect. */
export const NO_MATCHERS = {
  'match_typed_subject_alt_names: # who may connect; `sds.matchers` of Scute can say it instead': 'match_typed_subject_alt_names: []',
  '                      - { san_type: URI, matcher: { exact: "spiffe://example.org/web" } }\n': '',
};
