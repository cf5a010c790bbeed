import type { Socket } from 'node:net';
import type { TestContext } from 'node:test';
import { startOutboundToApi } from '../data-path.ts';
import { send, startHttpInbound, startRawApplication, wire, type Wire } from './http-stage.ts';
import type { Sidecar } from '../sidecar.ts';
import { dial } from '../tcp.ts';

/** A sidecar with `protocol: http` between a client that says bytes and a server that answers with bytes. */
export interface HttpDirection {
  readonly name: 'inbound' | 'outbound';
  readonly sidecar: Sidecar;
  /** All that the server was sent, without what the sidecar adds of the caller. */
  readonly received: () => string;
  readonly connections: () => number;
  /** Sends bytes over a new connection. */
  say(bytes: string): Promise<Wire>;
}

/** What a server says to what one connection has sent since its last answer. */
export type Answer = (received: string, socket: Socket) => string | undefined;

const IDENTITY = /X-Forwarded-Client-Cert: [^\r]*\r\n/g;

/** The same client and the same server, once with an inbound and once with an outbound listener between them. */
export const HTTP_DIRECTIONS: readonly {
  readonly name: HttpDirection['name'];
  readonly start: (t: TestContext, answer: Answer, http?: object) => Promise<HttpDirection>;
}[] = [
  { name: 'inbound', start: startInboundDirection },
  { name: 'outbound', start: startOutboundDirection },
];

async function startInboundDirection(t: TestContext, answer: Answer, http: object = {}): Promise<HttpDirection> {
  const application = await startRawApplication(t, answer);
  const stage = await startHttpInbound(t, application.address, { http });
  const received = (): string => application.received().replace(IDENTITY, '');
  return { name: 'inbound', sidecar: stage.sidecar, received, connections: application.connections, say: (bytes) => send(stage, bytes) };
}

async function startOutboundDirection(t: TestContext, answer: Answer, http: object = {}): Promise<HttpDirection> {
  let received = '';
  let connections = 0;
  const { sidecar, address } = await startOutboundToApi(
    t,
    (socket) => {
      let own = '';
      connections++;
      socket.on('data', (chunk: Buffer) => {
        own += chunk.toString('latin1');
        received += chunk.toString('latin1');
        const said = answer(own, socket);
        if (said === undefined) return;
        own = '';
        socket.write(Buffer.from(said, 'latin1'));
      });
      socket.on('end', () => socket.end());
    },
    { listener: { protocol: 'http', http } },
  );
  return {
    name: 'outbound',
    sidecar,
    received: () => received,
    connections: () => connections,
    async say(bytes) {
      const line = wire(await dial(t, address));
      line.socket.write(Buffer.from(bytes, 'latin1'));
      return line;
    },
  };
}
