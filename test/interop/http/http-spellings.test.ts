/** Every spelling of a path, a host or a method that is denied, before servers that we did not write and that route by these. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect as connectHttp2, type ClientHttp2Session } from 'node:http2';
import { connect, type Socket } from 'node:net';
import { test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { startExampleDomain, WEB, type InboundStage } from '../../support/data-path.ts';
import { startHttpInbound } from '../../support/http/http-stage.ts';
import { request } from '../../support/http/http2-stage.ts';
import { hostSpellings, overrideSpellings, pathTargets, type Spelling } from '../../support/policy/spellings.ts';
import { needs, type PartName } from '../parts.ts';
import { ROUTING_SERVERS, startRoutingServer, type RoutingServerName } from './routing-servers.ts';

const PARTS: Readonly<Record<RoutingServerName, readonly PartName[]>> = {
  nginx: ['nginx'],
  'Go ServeMux': ['go-spiffe'],
  'Go FileServer': ['go-spiffe'],
  gunicorn: ['python'],
  Node: [],
};

/** Requests at a time. */
const AT_ONCE = 8;

interface Answer {
  /** 0 if there was none. */
  readonly status: number;
  readonly body: string;
}
type Ask = (spelling: Spelling) => Promise<Answer>;
interface Asking {
  readonly ask: Ask;
  readonly close: () => void;
}

const paths = pathTargets().map((target): Spelling => ({ method: 'GET', target, host: 'open.example', fields: [] }));
const overrides = overrideSpellings();
const hosts = hostSpellings();

const FIELDS_OF_PATHS = /URL/;
/** `denied`: at least so many reach what is denied without Scute, of a server that heeds them at all; `open`: so many pass Scute and reach something else; of HTTP/2, which has no spaces around a value, fewer. */
const CORPORA = [
  { what: 'paths', spellings: paths, by: 'path', denied: 150, open: { 'HTTP/1.1': 400, 'HTTP/2': 400 } },
  {
    what: 'methods in fields',
    spellings: overrides.filter(({ fields }) => !isOfPath(fields)),
    by: 'method',
    denied: 0,
    open: { 'HTTP/1.1': 150, 'HTTP/2': 80 },
  },
  {
    what: 'paths in fields',
    spellings: overrides.filter(({ fields }) => isOfPath(fields)),
    by: 'path',
    denied: 0,
    open: { 'HTTP/1.1': 60, 'HTTP/2': 60 },
  },
  { what: 'hosts', spellings: hosts, by: 'host', denied: 40, open: { 'HTTP/1.1': 50, 'HTTP/2': 50 } },
] as const;

function isOfPath(fields: Spelling['fields']): boolean {
  return fields.some(([name]) => FIELDS_OF_PATHS.test(name.toUpperCase()));
}

for (const name of ROUTING_SERVERS) {
  test(`no spelling of a path, a method or a host reaches what is denied of ${name}`, needs(...PARTS[name]), async (t) => {
    const address = await startRoutingServer(t, name);
    const port = Number(address.slice(address.lastIndexOf(':') + 1));
    const spiffe = await startExampleDomain(t);
    const stage = (deny: object): Promise<InboundStage> =>
      startHttpInbound(t, address, { spiffe, listener: { allow: [WEB], deny: [{ peer: WEB, ...deny }] } });
    const stages = {
      path: await stage({ paths: ['/admin', '/admin/**', '/files/admin', '/files/admin/**'] }),
      method: await stage({ methods: ['DELETE'] }),
      host: await stage({ hosts: ['secret.example', '127.0.0.2'] }),
    };
    // They take no heed of these fields.
    const heeds = name === 'gunicorn' || name === 'Node';

    for (const { what, spellings, by, denied, open } of CORPORA) {
      const of = stages[by];
      const around = await reached(
        overHttp1(() => openPlain(port)),
        spellings,
      );
      assert.ok(around.denied.length >= (denied === 0 && heeds ? 15 : denied), `${what}: ${around.denied.length} of ${spellings.length}`);
      for (const [version, asking] of [
        ['HTTP/1.1', overHttp1(() => openTls(of, ['http/1.1']))],
        ['HTTP/2', overHttp2(() => openTls(of, ['h2']))],
      ] as const) {
        const through = await reached(asking, spellings);
        assert.deepEqual(through.denied, [], `${what} over ${version}`);
        assert.ok(through.open >= open[version], `${what} over ${version}: ${through.open} of ${spellings.length}`);
      }
    }
  });
}

async function reached(
  { ask, close }: Asking,
  spellings: readonly Spelling[],
): Promise<{ readonly denied: readonly Spelling[]; readonly open: number }> {
  const denied: Spelling[] = [];
  let open = 0;
  const left = spellings.values();
  await Promise.all(
    Array.from({ length: AT_ONCE }, async () => {
      for (const spelling of left) {
        const { status, body } = await ask(spelling);
        if (status === 200 && body === 'denied') denied.push(spelling);
        else if (status === 200 && body === 'open') open++;
      }
    }),
  );
  close();
  return { denied, open };
}

/** Connections that wait for their next request; what is not taken back is closed. */
class Idle<T extends { destroy(): void }> {
  readonly #all: T[] = [];

  take(): T | undefined {
    return this.#all.pop();
  }

  giveBack(connection: T, isGood: boolean): void {
    if (isGood) this.#all.push(connection);
    else connection.destroy();
  }

  close(): void {
    for (const connection of this.#all) connection.destroy();
  }
}

function overHttp1(open: () => Promise<Socket>): Asking {
  const idle = new Idle<Socket>();
  const ask: Ask = async (spelling) => {
    const { method, target, host, fields } = spelling;
    const kept = idle.take();
    const socket = kept ?? (await open());
    const lines = [`${method} ${target} HTTP/1.1`, `Host: ${host}`, ...fields.map(([name, value]) => `${name}: ${value}`)];
    if (method !== 'GET') lines.push('Content-Length: 0');
    const { answer, isOver } = await exchange(socket, `${lines.join('\r\n')}\r\n\r\n`);
    idle.giveBack(socket, !isOver);
    // It may have been closed before it was asked.
    return kept !== undefined && answer.status === 0 ? ask(spelling) : answer;
  };
  return { ask, close: () => idle.close() };
}

async function exchange(socket: Socket, bytes: string): Promise<{ readonly answer: Answer; readonly isOver: boolean }> {
  // Closed while nobody listened, it says so no more.
  if (socket.destroyed) return { answer: { status: 0, body: '' }, isOver: true };
  let text = '';
  let isOver = false;
  const told = new AbortController();
  const onData = (chunk: Buffer): void => {
    text += chunk.toString('latin1');
    if (answerIn(text, false) !== undefined) told.abort();
  };
  const onEnd = (): void => {
    isOver = true;
    told.abort();
  };
  socket.on('data', onData).on('end', onEnd).on('close', onEnd);
  socket.write(Buffer.from(bytes, 'latin1'));
  if (!told.signal.aborted) await once(told.signal, 'abort');
  socket.off('data', onData).off('end', onEnd).off('close', onEnd);
  const answer = answerIn(text, isOver) ?? { status: 0, body: '' };
  return { answer, isOver: isOver || /^connection: close/im.test(text) };
}

/** Of a response that is whole, or that the end of the connection ends. */
function answerIn(text: string, isOver: boolean): Answer | undefined {
  const end = text.indexOf('\r\n\r\n');
  if (end === -1) return undefined;
  const head = text.slice(0, end);
  const body = text.slice(end + 4);
  const length = /^content-length: *(\d+)/im.exec(head)?.[1];
  if (!isOver && (length === undefined || body.length < Number(length))) return undefined;
  return { status: Number(head.split(' ')[1]), body };
}

/** Where Node's client or the other side's parser finds no request, there is no answer. */
function overHttp2(open: () => Promise<Socket>): Asking {
  const idle = new Idle<ClientHttp2Session>();
  const ask: Ask = async ({ method, target, host, fields }) => {
    const client = idle.take() ?? (await openHttp2(open));
    const lower = Object.fromEntries(fields.map(([name, value]) => [name.toLowerCase(), value]));
    try {
      const { status, body } = await request(client, { ':method': method, ':path': target, ':authority': host, ...lower });
      idle.giveBack(client, status !== 0 && !client.closed);
      return { status, body: body.toString('latin1') };
    } catch (error) {
      client.destroy();
      assert.match(String((error as NodeJS.ErrnoException).code), /^ERR_(?:HTTP2|INVALID)_/);
      return { status: 0, body: '' };
    }
  };
  return { ask, close: () => idle.close() };
}

async function openHttp2(open: () => Promise<Socket>): Promise<ClientHttp2Session> {
  const socket = await open();
  return connectHttp2('https://api', { createConnection: () => socket }).on('error', () => undefined);
}

/** There are thousands of them: too many to be closed one by one after the test. */
async function openTls({ address, web }: InboundStage, protocols: readonly string[]): Promise<Socket> {
  const port = Number(address.slice(address.lastIndexOf(':') + 1));
  const socket = connectTls({ port, host: '127.0.0.1', ...web, rejectUnauthorized: false, ALPNProtocols: [...protocols] });
  socket.on('error', () => undefined);
  await once(socket, 'secureConnect');
  return socket;
}

async function openPlain(port: number): Promise<Socket> {
  const socket = connect(port, '127.0.0.1').on('error', () => undefined);
  await once(socket, 'connect');
  return socket;
}
