/** Servers of the public web, as a test has them: real HTTPS, with certificates of an authority of the test's own. */
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import type { IncomingMessage, RequestListener } from 'node:http';
import { createSecureServer } from 'node:http2';
import { createServer, type ServerOptions } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { TLSSocket } from 'node:tls';
import { createTestAuthority, type CertificateOptions, type TestAuthority, type TestCertificate } from './pki/pki.ts';
import { temporaryFolder } from './temporary-folder.ts';

export interface WebRequest {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingMessage['headers'];
  readonly rawHeaders: readonly string[];
  /** It showed one. */
  readonly clientCertificate: boolean;
  /** SPIFFE ID or whatever else is in that. */
  readonly clientNames: string | undefined;
}

export interface WebServer {
  readonly ca: TestAuthority;
  /** PEM of `ca`. */
  readonly caFile: string;
  readonly port: number;
  /** `https://localhost:PORT`. */
  readonly origin: string;
  readonly requests: readonly WebRequest[];
  readonly connections: () => number;
  /** What later requests are answered with. */
  answer(listener: RequestListener): void;
  /** Shows another certificate from here on. */
  become(certificate: Pick<TestCertificate, 'chainPem' | 'keyPem'>): void;
}

/** For `localhost` by its name alone, if `options` say nothing else. */
export function issueForWeb(ca: TestAuthority, options: CertificateOptions = {}): TestCertificate {
  return ca.issue({ uriSans: [], dnsSans: ['localhost'], ...options });
}

/** Answers `hello` until told otherwise, asks for a client's certificate and trusts any. Ends with the test. */
export async function startWebServer(
  t: TestContext,
  { certificate, ca = createTestAuthority({ trustDomain: 'web.test' }), tls = {}, isHttp2 = false }: WebServerOptions = {},
): Promise<WebServer> {
  const caFile = join(await temporaryFolder(t), 'ca.pem');
  await writeFile(caFile, ca.pem);
  let answer: RequestListener = (_request, response) => void response.end('hello');
  let connections = 0;
  const requests: WebRequest[] = [];
  const { chainPem, keyPem } = certificate ?? issueForWeb(ca);
  const create = isHttp2 ? (createSecureServer as unknown as typeof createServer) : createServer;
  const server = create({ cert: chainPem, key: keyPem, requestCert: true, rejectUnauthorized: false, ...tls }, (request, response) => {
    const { subjectaltname: clientNames, raw } = (request.socket as TLSSocket).getPeerCertificate();
    const clientCertificate = (raw as Buffer | undefined) !== undefined;
    const { method = '', url = '', headers, rawHeaders } = request;
    requests.push({ method, url, headers, rawHeaders, clientCertificate, clientNames });
    answer(request, response);
  });
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    connections++;
    sockets.add(socket);
    socket.on('error', () => undefined).on('close', () => sockets.delete(socket));
  });
  server.on('tlsClientError', () => undefined).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return {
    ca,
    caFile,
    port,
    origin: `https://localhost:${port}`,
    requests,
    connections: () => connections,
    answer: (listener) => void (answer = listener),
    become: (next) => server.setSecureContext({ cert: next.chainPem, key: next.keyPem }),
  };
}

export interface WebServerOptions {
  readonly certificate?: Pick<TestCertificate, 'chainPem' | 'keyPem'>;
  readonly ca?: TestAuthority;
  readonly tls?: ServerOptions;
  /** It speaks HTTP/2, and nothing else. */
  readonly isHttp2?: boolean;
}
