/** Every spelling of a path, a host or a method that is denied, before servers that we did not write and that route by these. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { ClientHttp2Session } from 'node:http2';
import { connect, type Socket } from 'node:net';
import { test, type TestContext } from 'node:test';
import { startExampleDomain, WEB, type InboundStage } from '../support/data-path.ts';
import { startHttpInbound } from '../support/http-stage.ts';
import { request, startClient } from '../support/http2-stage.ts';
import { hostSpellings, overrideSpellings, pathTargets, type Spelling } from '../support/spellings.ts';
import { needs, type PartName } from './parts.ts';
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

const paths = pathTargets().map((target): Spelling => ({ method: 'GET', target, host: 'open.example', fields: [] }));
const overrides = overrideSpellings();
const hosts = hostSpellings();

const FIELDS_OF_PATHS = /URL/;
/** `denied`: at least so many reach what is denied without Scute, of a server that heeds them at all; `open`: so many pass Scute and reach something else. */
const CORPORA = [
  { what: 'paths', spellings: paths, by: 'path', denied: 150, open: 400 },
  { what: 'methods in fields', spellings: overrides.filter(({ fields }) => !isOfPath(fields)), by: 'method', denied: 0, open: 150 },
  { what: 'paths in fields', spellings: overrides.filter(({ fields }) => isOfPath(fields)), by: 'path', denied: 0, open: 60 },
  { what: 'hosts', spellings: hosts, by: 'host', denied: 40, open: 50 },
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
        overHttp1(() => Promise.resolve(connect(port, '127.0.0.1'))),
        spellings,
      );
      assert.ok(around.denied.length >= (denied === 0 && heeds ? 15 : denied), `${what}: ${around.denied.length} of ${spellings.length}`);
      for (const [version, ask] of [
        ['HTTP/1.1', overHttp1(() => of.connect())],
        ['HTTP/2', overHttp2(t, of)],
      ] as const) {
        const through = await reached(ask, spellings);
        assert.deepEqual(through.denied, [], `${what} over ${version}`);
        assert.ok(through.open >= open, `${what} over ${version}: ${through.open} of ${spellings.length}`);
      }
    }
  });
}

async function reached(ask: Ask, spellings: readonly Spelling[]): Promise<{ readonly denied: readonly Spelling[]; readonly open: number }> {
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
  return { denied, open };
}

/** Over connections that are kept where the other side keeps them. */
function overHttp1(open: () => Promise<Socket>): Ask {
  const idle: Socket[] = [];
  return async ({ method, target, host, fields }) => {
    const kept = idle.pop();
    const socket = kept === undefined || kept.destroyed || !kept.readable ? (await open()).on('error', () => undefined) : kept;
    const lines = [`${method} ${target} HTTP/1.1`, `Host: ${host}`, ...fields.map(([name, value]) => `${name}: ${value}`)];
    if (method !== 'GET') lines.push('Content-Length: 0');
    const { answer, isOver } = await exchange(socket, `${lines.join('\r\n')}\r\n\r\n`);
    if (isOver) socket.destroy();
    else idle.push(socket);
    return answer;
  };
}

async function exchange(socket: Socket, bytes: string): Promise<{ readonly answer: Answer; readonly isOver: boolean }> {
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

/** As over HTTP/1.1. Where Node's client or the other side's parser finds no request, there is no answer. */
function overHttp2(t: TestContext, of: InboundStage): Ask {
  const idle: ClientHttp2Session[] = [];
  return async ({ method, target, host, fields }) => {
    const client = idle.pop() ?? (await startClient(t, of));
    const lower = Object.fromEntries(fields.map(([name, value]) => [name.toLowerCase(), value]));
    try {
      const { status, body } = await request(client, { ':method': method, ':path': target, ':authority': host, ...lower });
      if (status !== 0 && !client.closed) idle.push(client);
      else client.destroy();
      return { status, body: body.toString('latin1') };
    } catch (error) {
      client.destroy();
      assert.match(String((error as NodeJS.ErrnoException).code), /^ERR_(?:HTTP2|INVALID)_/);
      return { status: 0, body: '' };
    }
  };
}
