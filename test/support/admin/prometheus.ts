/** What plays Prometheus' API: a real HTTP server that answers whatever it is told to. */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { TestContext } from 'node:test';
import { formatAddress } from '../../../src/config/units.ts';
import { createFleet, type FleetOptions } from '../../../src/fleet/server.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { startService } from './admin.ts';
import { answerSchema, type AssertSchema } from './answer-schema.ts';
import { ask, type Answer, type AskOptions } from '../http/http.ts';
import type { TestCertificate } from '../pki/pki.ts';

export interface Question {
  readonly promql: string;
  readonly parameters: URLSearchParams;
  readonly path: string;
  readonly method: string;
  readonly authorization: string | undefined;
}

export type Play = (question: Question, response: ServerResponse, request: IncomingMessage) => void;

export interface StandIn {
  readonly url: string;
  readonly port: number;
  readonly questions: readonly Question[];
  /** What later questions are answered with. */
  play(play: Play): void;
  /** Nothing listens any more. */
  close(): void;
}

/** Answers with empty vectors until told otherwise. Ends with the test. With a certificate it is https. */
export async function startStandIn(t: TestContext, certificate?: TestCertificate): Promise<StandIn> {
  const questions: Question[] = [];
  const sockets = new Set<Socket>();
  let play: Play = (_, response) => vector(response, []);
  const listener = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    let body = '';
    for await (const chunk of request) body += String(chunk);
    const parameters = new URLSearchParams(body);
    const question = {
      promql: parameters.get('query') ?? '',
      parameters,
      path: request.url ?? '',
      method: request.method ?? '',
      authorization: request.headers.authorization,
    };
    questions.push(question);
    play(question, response, request);
  };
  const onRequest = (request: IncomingMessage, response: ServerResponse): void => void listener(request, response).catch(() => undefined);
  const server =
    certificate === undefined
      ? createServer(onRequest)
      : createSecureServer({ cert: certificate.chainPem, key: certificate.keyPem }, onRequest).on('tlsClientError', () => undefined);
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined).on('close', () => sockets.delete(socket));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const close = (): void => {
    server.close();
    for (const socket of sockets) socket.destroy();
  };
  t.after(close);
  const { port } = server.address() as AddressInfo;
  return {
    port,
    url: `${certificate === undefined ? 'http' : 'https'}://localhost:${port}/`,
    questions,
    play: (next) => void (play = next),
    close,
  };
}

export interface Series {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number | string;
}

/** The moment that the stand-in says it is. */
export const NOW_SECONDS = 1_800_000_000;

export function vector(response: ServerResponse, series: readonly Series[]): void {
  const result = series.map(({ labels, value }) => ({ metric: labels, value: [NOW_SECONDS, String(value)] }));
  json(response, 200, { status: 'success', data: { resultType: 'vector', result } });
}

export function json(response: ServerResponse, status: number, value: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value));
}

export const assertFleetSchema: AssertSchema = answerSchema('fleet-api.schema.json');

/** Which part of the schema describes which resource. */
const FLEET_DEFINITIONS: Readonly<Record<string, string>> = {
  '': 'FleetIndex',
  overview: 'FleetOverview',
  certificates: 'FleetCertificatePage',
  groups: 'FleetGroupPage',
  sidecars: 'FleetSidecarPage',
  unreachable: 'FleetUnreachablePage',
  authorities: 'FleetAuthorityPage',
  lagging: 'FleetLaggingPage',
};

export interface RunningFleet {
  readonly url: string;
  readonly said: readonly string[];
  ask(path: string, options?: AskOptions): Promise<Answer>;
  /** The JSON of an answer that is a 200, compared with the schema. */
  get<T>(resource: string): Promise<T>;
  stop(): Promise<void>;
}

/** A fleet over `url`. Ends with the test. */
export async function startFleet(t: TestContext, url: string, options: Partial<FleetOptions> = {}): Promise<RunningFleet> {
  const said: string[] = [];
  const fleet = createFleet({
    url: new URL(url),
    listen: { kind: 'tcp', host: '127.0.0.1', port: 0 },
    caFile: undefined,
    tokenFile: undefined,
    clock: systemClock,
    say: (line) => said.push(line),
    ...options,
  });
  const address = await startService(t, fleet);
  return {
    url: `http://${formatAddress(address)}/`,
    said,
    ask: (path, how) => ask(address, path, how),
    async get(resource) {
      const answer = await ask(address, `/api/v1/fleet/${resource}`);
      if (answer.status !== 200) throw new Error(`${resource}: ${answer.status} ${answer.body}`);
      const told: unknown = JSON.parse(answer.body);
      assertFleetSchema(FLEET_DEFINITIONS[resource.split('?', 1)[0] ?? ''] ?? '', told);
      return told as never;
    },
    stop: () => fleet.stop(new AbortController().signal),
  };
}
