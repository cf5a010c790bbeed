import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { createServer, type ClientRequest, type IncomingHttpHeaders, type IncomingMessage, type Server } from 'node:http';
import { request } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { PeerCertificate, TLSSocket } from 'node:tls';
import { runCommandLine } from '../../../src/cli/program.ts';
import type { IssuedPem } from '../../../src/devdomain/dev-domain.ts';
import { temporaryFolder } from '../stage.ts';

/** What `scute envoy` prints of a configuration. */
export async function printedBootstrap(t: TestContext, config: object): Promise<string> {
  const file = join(await temporaryFolder(t), 'scute.yaml');
  await writeFile(file, JSON.stringify(config));
  let printed = '';
  const io = {
    env: {},
    isTerminal: false,
    stdout: (text: string) => (printed += text),
    stderr: (text: string) => (printed += text),
    onHangup: () => () => undefined,
  };
  assert.equal(await runCommandLine(['envoy', '-c', file], io, new AbortController().signal), 0, printed);
  return printed;
}

/** An application that answers with the fields that it got, and agrees to WebSocket. At a Unix socket if there is a path. */
export async function startApplication(t: TestContext, path?: string): Promise<string> {
  const server: Server = createServer((asked, answer) => answer.end(JSON.stringify(asked.headers)));
  server.on('upgrade', (_, socket) => socket.end('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n'));
  server.listen(path === undefined ? { port: 0, host: '127.0.0.1' } : { path });
  await once(server, 'listening');
  t.after(() => server.close());
  return path === undefined ? `127.0.0.1:${(server.address() as AddressInfo).port}` : `unix://${path}`;
}

type Fields = Readonly<Record<string, string>>;

/** A request over mTLS, on a connection of its own, that is not ended yet. */
export function requestOver(port: number, { chainPem, keyPem }: IssuedPem, headers: Fields = {}): ClientRequest {
  return request({ host: '127.0.0.1', port, rejectUnauthorized: false, cert: chainPem, key: keyPem, headers, agent: false });
}

/** One request over mTLS to the application: the fields that it saw, and what the server presented. Throws if there is no answer. */
export async function ask(
  port: number,
  svid: IssuedPem,
  headers: Fields = {},
): Promise<{ readonly fields: IncomingHttpHeaders; readonly certificate: PeerCertificate }> {
  const asked = requestOver(port, svid, headers);
  asked.end();
  const [response] = (await once(asked, 'response')) as [IncomingMessage];
  const certificate = (response.socket as TLSSocket).getPeerCertificate();
  const body: Buffer[] = [];
  for await (const chunk of response as AsyncIterable<Buffer>) body.push(chunk);
  return { fields: JSON.parse(Buffer.concat(body).toString()) as IncomingHttpHeaders, certificate };
}
