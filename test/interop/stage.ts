import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { DevDomain, IssuedPem } from '../../src/devdomain/dev-domain.ts';
import type { X509SVID } from '../../src/gen/workload_pb.ts';
import { type ScuteEntry, type ScuteProcess, useScute } from '../support/scute-process.ts';

export { freePort } from '../support/tcp.ts';

/** A folder that goes with the test. */
export async function temporaryFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'scute-interop-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** An application that knows nothing of TLS: answers in upper case, and ends when the other side ends. */
export interface EchoApplication {
  readonly address: string;
  /** Connections that it has seen. */
  connections(): number;
}

export async function startEcho(t: TestContext): Promise<EchoApplication> {
  let connections = 0;
  const open = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    connections += 1;
    open.add(socket);
    socket.on('close', () => open.delete(socket)).on('error', () => undefined);
    socket.on('data', (chunk: Buffer) => socket.write(chunk.toString('latin1').toUpperCase(), 'latin1'));
    socket.on('end', () => socket.end());
  });
  const address = await listen(t, server);
  t.after(() => {
    for (const socket of open) socket.destroy();
  });
  return { address, connections: () => connections };
}

/** Binds a server to a free port of 127.0.0.1 until the test ends. */
export async function listen(t: TestContext, server: Server): Promise<string> {
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', resolve));
  t.after(() => void server.close());
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

interface Side {
  readonly endpoint: string;
  readonly to: string;
  readonly alpn?: readonly string[];
  readonly entry?: ScuteEntry;
  /** More settings of the listener, and of the file. */
  readonly listener?: object;
  readonly file?: object;
}

export interface RunningSide {
  readonly scute: ScuteProcess;
  readonly port: number;
  readonly address: string;
}

/** Scute before an application: `allow` may connect. Ready when this resolves. */
export async function startInbound(t: TestContext, { allow, ...side }: Side & { readonly allow: readonly string[] }): Promise<RunningSide> {
  return startSide(t, side, 'inbound', { allow });
}

/** Scute for an application that connects to a server, which must be one of `expect`. */
export async function startOutbound(
  t: TestContext,
  { expect, ...side }: Side & { readonly expect: readonly string[] },
): Promise<RunningSide> {
  return startSide(t, side, 'outbound', { expect });
}

async function startSide(t: TestContext, side: Side, direction: 'inbound' | 'outbound', peers: object): Promise<RunningSide> {
  const { endpoint, to, alpn = [], entry } = side;
  const listener = { name: direction, listen: '127.0.0.1:0', to, alpn, ...peers, ...side.listener };
  const config = { workloadApi: { endpoint }, [direction]: [listener], drainTimeout: '3s', ...side.file };
  const scute = await useScute(t, { config, entry });
  await scute.ready(direction);
  return { scute, port: await scute.port(direction), address: await scute.address(direction) };
}

/** An SVID in files, as programs without a Workload API take it. */
export interface PemFiles {
  /** Leaf and intermediates. */
  readonly chain: string;
  readonly key: string;
  /** The authorities of a trust domain. */
  readonly authorities: string;
}

export async function writePem(t: TestContext, issued: IssuedPem): Promise<PemFiles> {
  const folder = await temporaryFolder(t);
  const write = async (name: string, text: string): Promise<string> => {
    const path = join(folder, name);
    await writeFile(path, text, { mode: 0o600 });
    return path;
  };
  return {
    chain: await write('chain.pem', issued.chainPem),
    key: await write('key.pem', issued.keyPem),
    authorities: await write('authorities.pem', issued.bundlePem),
  };
}

/** The SVID of `id` in files. */
export async function issueFiles(t: TestContext, spiffe: DevDomain, id: string): Promise<PemFiles> {
  return writePem(t, await spiffe.issue(id));
}

type GivenSvid = Pick<X509SVID, 'x509Svid' | 'x509SvidKey' | 'spiffeId'>;

/** Lets `workload` present another SVID than the one that it was given. */
export function present(spiffe: DevDomain, workload: string, svid: GivenSvid): void {
  const { x509Svids } = spiffe.answers(workload);
  const told = x509Svids.get();
  assert.ok(told?.kind === 'message');
  const svids = told.message.svids.map((given) => ({ ...given, ...svid }));
  x509Svids.set({ kind: 'message', message: { ...told.message, svids } });
}

/** The SVID that `workload` is given. */
export function given(spiffe: DevDomain, workload: string): GivenSvid {
  const told = spiffe.answers(workload).x509Svids.get();
  assert.ok(told?.kind === 'message');
  const [svid] = told.message.svids;
  assert.ok(svid !== undefined);
  return { x509Svid: svid.x509Svid, x509SvidKey: svid.x509SvidKey, spiffeId: svid.spiffeId };
}

/** An SVID of `id` from the authority of another trust domain. */
export async function forge(spiffe: DevDomain, id: string, signedBy: string): Promise<GivenSvid> {
  const { chainDer, key } = await spiffe.issue(id, { signedBy });
  return { x509Svid: Buffer.concat(chainDer), x509SvidKey: key.export({ type: 'pkcs8', format: 'der' }), spiffeId: id };
}

/** Sends `message` as an application does, ends its own side, and gives all that came back. A reset ends it as well. */
export function exchange(port: number, message: string, withinMs = 90_000): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    let reply = '';
    const timer = setTimeout(() => socket.destroy(new Error(`no end within ${withinMs} ms, after ${JSON.stringify(reply)}`)), withinMs);
    socket.setEncoding('latin1').on('data', (chunk: string) => (reply += chunk));
    socket.on('error', (error: NodeJS.ErrnoException) => {
      clearTimeout(timer);
      if (error.code === 'ECONNRESET' || error.code === 'EPIPE') resolve(reply);
      else reject(error);
    });
    socket.on('end', () => {
      clearTimeout(timer);
      socket.destroy();
      resolve(reply);
    });
    socket.end(message);
  });
}

/** The log line of the next connection that `scute` refuses for this reason. */
export function refusal(scute: ScuteProcess, reason: string): Promise<unknown> {
  return scute.logged((line) => line.message === 'connection closed' && line['reason'] === reason);
}
