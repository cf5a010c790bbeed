/** Whatever both sides say, it makes no difference where their bytes are cut, nor how slowly the other side takes them. */
import assert from 'node:assert/strict';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { test } from 'node:test';
import type { MemoryConnection } from '../../test/support/memory-connection.ts';
import { startMemoryForwarder, type MemoryForwarderOptions } from '../../test/support/memory-forwarder.ts';

/** What happens next. What the application does, it does on its newest connection. */
type Turn =
  | readonly [who: 'client' | 'application', does: 'says', text: string]
  | readonly [who: 'client' | 'application', does: 'ends' | 'breaks']
  | readonly [who: 'listener', does: 'drains'];

interface Script {
  readonly name: string;
  readonly turns: readonly Turn[];
  /** Status and result of each request. */
  readonly results: readonly (readonly [status: number, result: string])[];
  /** Connections to the application. */
  readonly connections?: number;
  /** A message is broken off: of what came before the fault, the other side is sent more or less. */
  readonly broken?: boolean;
  readonly options?: MemoryForwarderOptions;
}

const client = (text: string): Turn => ['client', 'says', text];
const application = (text: string): Turn => ['application', 'says', text];

const GET = 'GET /a HTTP/1.1\r\nHost: a\r\n\r\n';
const LAST = 'GET /last HTTP/1.1\r\nHost: a\r\n\r\n';
const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const CHUNKED = 'POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n';
const CHUNKS = `5;a=b;c\r\nhello\r\n009\r\n0${'\r\n'.repeat(4)}\r\n0;d\r\nX-Sum: 1\r\nx_peer: f\r\nX-Drop: 2\r\n\r\n`;
const CHUNKED_ANSWER = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n';
const UPGRADE = 'GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n';
const SWITCH = 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n';
const LENGTH = 'POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n';

const SCRIPTS: readonly Script[] = [
  {
    name: 'requests of every framing at once',
    turns: [
      client(`${GET}${LENGTH}helloworld${CHUNKED.replace('Host', 'Connection: x-drop\r\nHost')}${CHUNKS}${LAST}`),
      application(OK),
      application('HTTP/1.1 201 Created\r\nContent-Length: 10\r\n\r\nHTTP/1.1 2'),
      application(`${CHUNKED_ANSWER}${CHUNKS}`),
      application('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'),
      ['client', 'ends'],
      ['application', 'ends'],
    ],
    results: [
      [200, 'forwarded'],
      [201, 'forwarded'],
      [200, 'forwarded'],
      [200, 'forwarded'],
    ],
  },
  {
    name: 'a head with all that is taken from it',
    turns: [
      client(
        'GET /a?b=c HTTP/1.1\r\nX-Peer: f\r\nHost: a.example:80\r\nConnection: close, x-drop\r\nKeep-Alive: 1\r\nX-Drop: 1\r\nx_FORWARDED.client-Cert: f\r\nHTTP2-Settings: A\r\nUpgrade: h2c\r\nTE: trailers\r\nLast:\t z \t\r\n\r\n',
      ),
      application(OK),
      ['application', 'ends'],
      ['client', 'ends'],
    ],
    results: [[200, 'forwarded']],
  },
  {
    name: 'responses without bodies',
    turns: [
      client(`HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n${GET}${GET}${GET}${LAST}`),
      application('HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n'),
      application('HTTP/1.1 204 No Content\r\n\r\n'),
      application('HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n'),
      application('HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'),
      application(OK),
    ],
    results: [
      [200, 'forwarded'],
      [204, 'forwarded'],
      [304, 'forwarded'],
      [200, 'forwarded'],
      [200, 'forwarded'],
    ],
  },
  {
    name: 'HEAD with chunks that do not come',
    turns: [client(`HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n${LAST}`), application(CHUNKED_ANSWER), application(OK)],
    results: [
      [200, 'forwarded'],
      [200, 'forwarded'],
    ],
  },
  {
    name: 'interim responses',
    turns: [
      client(`${GET}${LAST}`),
      application(
        'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n' +
          OK,
      ),
      application(OK),
    ],
    results: [
      [200, 'forwarded'],
      [200, 'forwarded'],
    ],
  },
  {
    name: 'interim responses to HTTP/1.0',
    turns: [
      client('GET /a HTTP/1.0\r\nHost: a\r\n\r\n'),
      application(`HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n${OK}`),
    ],
    results: [[200, 'forwarded']],
  },
  {
    name: 'a body that waits for 100 Continue',
    turns: [
      client('POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n'),
      client(`hello${LAST}`),
      application(`HTTP/1.1 100 Continue\r\nX: y\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n${OK}`),
      application(OK),
    ],
    results: [
      [200, 'forwarded'],
      [200, 'forwarded'],
    ],
  },
  {
    name: 'a WebSocket',
    turns: [
      client(`${UPGRADE}early`),
      application(`HTTP/1.1 103 Early Hints\r\n\r\n${SWITCH}HTTP/1.1 200 OK\r\n\r\n`),
      client(GET),
      application(OK),
      ['client', 'ends'],
      application('late'),
      ['application', 'ends'],
    ],
    results: [[101, 'forwarded']],
  },
  {
    name: 'a WebSocket that the application ends',
    turns: [client(UPGRADE), application(`${SWITCH}hello`), ['application', 'ends'], client('bye'), ['client', 'ends']],
    results: [[101, 'forwarded']],
  },
  {
    name: 'a WebSocket that breaks',
    turns: [client(UPGRADE), application(`${SWITCH}hello`), ['application', 'breaks'], client('bye')],
    results: [[101, 'upstream_failed']],
  },
  {
    name: 'a WebSocket that is refused',
    turns: [
      client(`${UPGRADE}${LAST}`),
      application(`HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nno`),
      application(OK),
    ],
    results: [
      [426, 'forwarded'],
      [200, 'forwarded'],
    ],
  },
  {
    name: 'a response until the end of the connection',
    turns: [
      client(`${GET}${LAST}`),
      application('HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n'),
      ['application', 'ends'],
      ['client', 'ends'],
    ],
    results: [[200, 'forwarded']],
  },
  {
    name: 'an application that closes between requests',
    turns: [
      client(GET),
      application(OK),
      ['application', 'ends'],
      client(GET),
      application('HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo'),
      ['application', 'breaks'],
      client(LAST),
      application(OK),
    ],
    results: [
      [200, 'forwarded'],
      [200, 'forwarded'],
      [200, 'forwarded'],
    ],
    connections: 3,
  },
  {
    name: 'a kept connection that ends under a request with chunks',
    turns: [
      client(GET),
      application(OK),
      client(`${CHUNKED.replace('POST', 'PUT')}${CHUNKS}${LAST}`),
      ['application', 'ends'],
      application(OK),
      application(OK),
    ],
    results: [
      [200, 'forwarded'],
      [200, 'forwarded'],
      [200, 'forwarded'],
    ],
    connections: 2,
  },
  {
    name: 'a kept connection that breaks within a body that was waited for',
    turns: [
      client(GET),
      application(OK),
      client('DELETE /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n'),
      client('hello'),
      ['application', 'breaks'],
      client(`world${LAST}`),
      application(`HTTP/1.1 100 Continue\r\n\r\n${OK}`),
      application(OK),
    ],
    results: [
      [200, 'forwarded'],
      [200, 'forwarded'],
      [200, 'forwarded'],
    ],
    connections: 2,
  },
  {
    name: 'a kept connection that ends under a WebSocket that is asked for',
    turns: [
      client(GET),
      application(OK),
      client(`${UPGRADE}early`),
      ['application', 'ends'],
      application(SWITCH),
      ['client', 'ends'],
      ['application', 'ends'],
    ],
    results: [
      [200, 'forwarded'],
      [101, 'forwarded'],
    ],
    connections: 2,
  },
  ...(
    [
      ['under a POST', `${LENGTH}helloworld`, []],
      ['after an interim response', GET, [application('HTTP/1.1 103 Early Hints\r\n\r\n')]],
      ['within a head', GET, [application('HTTP/1.1 20')]],
    ] as const
  ).flatMap(([when, request, turns]) =>
    (['ends', 'breaks'] as const).map((does): Script => ({
      name: `a kept connection that ${does} ${when}`,
      turns: [client(GET), application(OK), client(`${request}${LAST}`), ...turns, ['application', does], ['client', 'ends']],
      results: [
        [200, 'forwarded'],
        [502, 'upstream_failed'],
      ],
    })),
  ),
  {
    name: 'an application that will close',
    turns: [client(`${GET}${LAST}`), application('HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok'), application(OK)],
    results: [
      [200, 'forwarded'],
      [200, 'forwarded'],
    ],
    connections: 2,
  },
  {
    name: 'responses with all that is taken from them',
    turns: [
      client(`${GET}${GET}${GET}${GET}${LAST}`),
      application(
        'HTTP/1.1 103 Early Hints\r\nKeep-Alive: 1\r\nConnection: x-drop\r\nX-Drop: 1\r\nLink: </a>\r\n\r\n' +
          'HTTP/1.1 200 OK\r\nA: b\r\nConnection: keep-alive, x-drop\r\nKeep-Alive: timeout=5\r\nX-Drop: 1\r\nUpgrade: h2c\r\nTE: x\r\nProxy-Connection: close\r\nContent-Length: 2\r\nLast:\t z \t\r\n\r\nok',
      ),
      application(`HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: X-Drop\r\nTrailer: X\r\n\r\n${CHUNKS}`),
      application('HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: y\r\ncontent-length: 2, 02\r\n\r\nok'),
      application('HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n'),
      application(OK),
    ],
    results: [
      [200, 'forwarded'],
      [200, 'forwarded'],
      [200, 'forwarded'],
      [204, 'forwarded'],
      [200, 'forwarded'],
    ],
    connections: 2,
  },
  {
    name: 'an application of HTTP/1.0',
    turns: [
      client(`${GET}${GET}${LAST}`),
      application('HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok'),
      application('HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok'),
      application('HTTP/1.0 200 OK\r\n\r\nall'),
      ['application', 'ends'],
    ],
    results: [
      [200, 'forwarded'],
      [200, 'forwarded'],
      [200, 'forwarded'],
    ],
    connections: 2,
  },
  {
    name: 'an empty line ahead of each request',
    turns: [
      client(`\r\n${GET}\r\n${LENGTH}helloworld\r\n${LAST}\r\n`),
      application(OK),
      application(OK),
      application(OK),
      ['client', 'ends'],
      ['application', 'ends'],
    ],
    results: [
      [200, 'forwarded'],
      [200, 'forwarded'],
      [200, 'forwarded'],
    ],
  },
  {
    name: 'targets in absolute form, and hosts that are none',
    turns: [
      client('GET http://a:80/b?c HTTP/1.1\r\nX: y\r\nHost: A\r\nX-Peer: f\r\n\r\nOPTIONS https://a HTTP/1.1\r\nHost: a:443\r\n\r\n'),
      application(OK),
      application(OK),
      client('GET /a HTTP/1.1\r\nHost:\r\n\r\nGET http://a?b HTTP/1.0\r\n\r\n'),
      application(OK),
      application(OK),
    ],
    results: [
      [200, 'forwarded'],
      [200, 'forwarded'],
      [200, 'forwarded'],
      [200, 'forwarded'],
    ],
  },
  {
    name: 'HTTP/1.0 without any field',
    turns: [client('GET /a HTTP/1.0\r\n\r\n'), application(OK)],
    results: [[200, 'forwarded']],
  },
  {
    name: 'another protocol that was asked for by POST',
    turns: [
      client('POST /exec HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: TCP\r\nContent-Length: 0\r\n\r\nearly'),
      application(
        'HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: Tcp\r\n\r\n$ ',
      ),
      client('ls\n'),
      ['client', 'ends'],
      application('a b\n'),
      ['application', 'ends'],
    ],
    results: [[101, 'forwarded']],
    options: { upgrades: ['tcp'] },
  },
  {
    name: 'another protocol than the one that was asked for',
    turns: [
      client('POST /exec HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n'),
      application(SWITCH),
      ['client', 'ends'],
    ],
    results: [[502, 'upstream_failed']],
    options: { upgrades: ['tcp'] },
  },
  {
    name: 'a response that nobody asked for',
    turns: [client(GET), application(`${OK}${OK.replace('ok', 'no')}`), client(LAST), application(OK)],
    results: [
      [200, 'forwarded'],
      [200, 'forwarded'],
    ],
    connections: 2,
  },
  {
    name: 'a response before the whole request',
    turns: [client(`${LENGTH}hello`), application(OK), client(`world${LAST}`), application(OK)],
    results: [
      [200, 'forwarded'],
      [200, 'forwarded'],
    ],
  },
  {
    name: 'a response before the whole chunked request',
    turns: [client(`${CHUNKED}5\r\nhel`), application(OK), client(`lo\r\n0\r\nX: y\r\n\r\n${LAST}`), application(OK)],
    results: [
      [200, 'forwarded'],
      [200, 'forwarded'],
    ],
  },
  {
    name: 'a response before the whole request, and an end',
    turns: [
      client(`${LENGTH}hello`),
      application('HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno'),
      ['application', 'ends'],
      client(`world${LAST}`),
    ],
    results: [[413, 'forwarded']],
  },
  {
    name: 'a drain within a response',
    turns: [
      client(`${GET}${LAST}`),
      application('HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n'),
      ['listener', 'drains'],
      application(`HTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\n${CHUNKED_ANSWER}${CHUNKS}`),
      ['application', 'ends'],
    ],
    results: [[200, 'forwarded']],
  },
  {
    name: 'a drain before a response that says close itself',
    turns: [client(GET), ['listener', 'drains'], application('HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall'), ['application', 'ends']],
    results: [[200, 'forwarded']],
  },
  // Refused.
  {
    name: 'a peer that is not allowed',
    turns: [client(`${LENGTH}helloworld${LAST}`), ['client', 'ends']],
    results: [[403, 'denied']],
    connections: 0,
    options: { denies: true },
  },
  ...[
    'GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n',
    'GET /a HTTP/1.1\nHost: a\r\n\r\n',
    'POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    'GET /a HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n',
    'GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n',
    'GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n',
    'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
    '\r\n\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n',
    '\r\n\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n',
  ].map((bad): Script => ({
    name: `${JSON.stringify(bad)} after another`,
    turns: [client(`${GET}${bad}${LAST}`), application(OK), ['client', 'ends'], ['application', 'ends']],
    results: [
      [200, 'forwarded'],
      [400, 'bad_request'],
    ],
  })),
  {
    name: 'a head that is too long',
    turns: [client(`GET /a HTTP/1.1\r\nHost: a\r\nX: ${'y'.repeat(200)}\r\n\r\n${LAST}`)],
    results: [[431, 'head_too_large']],
    connections: 0,
    options: { limits: { maxHeadBytes: 200 } },
  },
  {
    name: 'a head with too many fields',
    turns: [client(`GET /a HTTP/1.1\r\nHost: a\r\nX: y\r\nX: y\r\n\r\n${LAST}`)],
    results: [[431, 'head_too_large']],
    connections: 0,
    options: { limits: { maxFields: 2 } },
  },
  {
    name: 'an announced body that is too large',
    turns: [client(`${LENGTH}helloworld`)],
    results: [[413, 'too_large']],
    connections: 0,
    options: { limits: { maxBodyBytes: 9 } },
  },
  {
    name: 'chunks that are too large',
    turns: [client(`${CHUNKED}5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n${LAST}`)],
    results: [[413, 'too_large']],
    broken: true,
    options: { limits: { maxBodyBytes: 9 } },
  },
  {
    name: 'a chunk without a size',
    turns: [client(`${CHUNKED}5\r\nhello\r\nx\r\n${LAST}`)],
    results: [[400, 'bad_request']],
    broken: true,
  },
  {
    name: 'a chunk that is too long',
    turns: [client(`${CHUNKED}5;a\r\nhello!\r\n0\r\n\r\n${LAST}`)],
    results: [[400, 'bad_request']],
    broken: true,
  },
  {
    name: 'trailers with a length',
    turns: [client(`${CHUNKED}5\r\nhello\r\n0\r\nX: y\r\nContent-Length: 5\r\n\r\n${LAST}`)],
    results: [[400, 'bad_request']],
    broken: true,
  },
  {
    name: 'trailers that are too long',
    turns: [client(`${CHUNKED}5\r\nhello\r\n0\r\nX: ${'y'.repeat(200)}\r\n\r\n${LAST}`)],
    results: [[431, 'head_too_large']],
    broken: true,
    options: { limits: { maxHeadBytes: 200 } },
  },
  {
    name: 'a client that ends within a head',
    turns: [client(`${GET}GET /a`), application(OK), ['client', 'ends']],
    results: [
      [200, 'forwarded'],
      [400, 'bad_request'],
    ],
  },
  { name: 'a client that ends within a body', turns: [client(`${LENGTH}hello`), ['client', 'ends']], results: [[400, 'bad_request']] },
  {
    name: 'a client that ends within chunks',
    turns: [client(`${CHUNKED}5\r\nhello\r\n0\r\nX: y`), ['client', 'ends']],
    results: [[400, 'bad_request']],
  },
  {
    name: 'a client that breaks within a body',
    turns: [client(`${LENGTH}hello`), ['client', 'breaks']],
    results: [[0, 'downstream_closed']],
  },
  {
    name: 'a client that breaks within a response',
    turns: [client(GET), application('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no'), ['client', 'breaks']],
    results: [[200, 'downstream_closed']],
  },
  ...[
    'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok',
    'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok',
    'HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok',
    'HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\nok',
    `${SWITCH}hello`,
    'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 999 No\r\n\r\n',
  ].map((bad): Script => ({
    name: `${JSON.stringify(bad)} for a response`,
    turns: [client(`${GET}${LAST}`), application(bad), ['client', 'ends']],
    results: [[502, 'upstream_failed']],
  })),
  {
    name: 'a response head that is too long',
    turns: [client(GET), application(`HTTP/1.1 200 OK\r\nX: ${'y'.repeat(400)}\r\n\r\n`)],
    results: [[502, 'upstream_failed']],
    options: { limits: { maxHeadBytes: 200 } },
  },
  {
    name: 'an application that ends without a word',
    turns: [client(`${GET}${LAST}`), ['application', 'ends']],
    results: [[502, 'upstream_failed']],
  },
  {
    name: 'an application that ends within a head',
    turns: [client(`${GET}${LAST}`), application('HTTP/1.1 200 OK\r\nContent-'), ['application', 'ends']],
    results: [[502, 'upstream_failed']],
  },
  {
    name: 'an application that breaks within a body',
    turns: [client(`${GET}${LAST}`), application('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello'), ['application', 'breaks']],
    results: [[200, 'upstream_failed']],
  },
  {
    name: 'an application that ends within chunks',
    turns: [client(`${GET}${LAST}`), application(`${CHUNKED_ANSWER}5\r\nhello\r\n0\r\nX: y\r\n`), ['application', 'ends']],
    results: [[200, 'upstream_failed']],
  },
  {
    name: 'a bad chunk in a response',
    turns: [client(`${GET}${LAST}`), application(`${CHUNKED_ANSWER}5\r\nhello\r\n-5\r\n`)],
    results: [[200, 'upstream_failed']],
    broken: true,
  },
  {
    name: 'bad trailers in a response',
    turns: [client(`${GET}${LAST}`), application(`${CHUNKED_ANSWER}5\r\nhello\r\n0\r\nX : y\r\n\r\n`)],
    results: [[200, 'upstream_failed']],
    broken: true,
  },
];

interface Ending {
  readonly text: string;
  readonly state: 'open' | 'ended' | 'aborted';
}

interface Outcome {
  readonly client: Ending;
  readonly applications: readonly Ending[];
  readonly records: readonly (readonly unknown[])[];
  readonly isDone: boolean;
}

type Cut = (text: Buffer, turn: number) => readonly Buffer[];

/** Plays a script. `drip`: what was said is dealt with before more comes. */
async function play({ turns, options = {}, broken = false }: Script, cut: Cut, { drip = false, slow = false } = {}): Promise<Outcome> {
  const { session, downstream, upstreams, records, isDone } = startMemoryForwarder({ ...options, slow });
  // A slow side asks for a turn of the loop after each write.
  const settle = async (): Promise<void> => {
    for (let quiet = 0, before = -1; quiet < (slow ? 3 : 1);) {
      await nextTurn();
      const now = [downstream, ...upstreams].reduce((sum, { written }) => sum + written.length, 0);
      quiet = now === before ? quiet + 1 : 0;
      before = now;
      if (!slow) break;
    }
  };
  for (const [index, turn] of turns.entries()) {
    const [who, does, text = ''] = turn;
    if (who === 'listener') session.wind();
    else {
      const side = who === 'client' ? downstream : upstreams.at(-1);
      assert.ok(side !== undefined, 'the application was never connected to');
      if (does === 'says') {
        for (const piece of cut(Buffer.from(text, 'latin1'), index)) {
          side.say(piece);
          if (drip) await settle();
        }
      } else if (does === 'ends') side.finish();
      else side.break();
    }
    await settle();
  }
  return {
    client: endingOf(downstream),
    applications: upstreams.map(endingOf),
    records: records.map(({ method, target, host, status, result, detail, bytesFromDownstream, bytesToDownstream }) =>
      // How much of a broken message was counted depends on the cut.
      [method, target, host, status, result, detail, ...(broken ? [] : [bytesFromDownstream, bytesToDownstream])],
    ),
    isDone: isDone(),
  };
}

function endingOf(side: MemoryConnection): Ending {
  return { text: side.text(), state: side.isAborted ? 'aborted' : side.hasEnded ? 'ended' : 'open' };
}

const whole: Cut = (text) => [text];
const byByte: Cut = (text) => [...text].map((byte) => Buffer.of(byte));

for (const script of SCRIPTS) {
  test(`it makes no difference where the bytes are cut: ${script.name}`, async () => {
    const { turns, results, connections = 1, broken = false } = script;
    const expected = await play(script, whole);
    assert.deepEqual(
      expected.records.map(([, , , status, result]) => [status, result]),
      results,
    );
    assert.equal(expected.applications.length, connections);
    // The most that may pass of a message that is broken off.
    const most = broken ? await play(script, byByte, { drip: true }) : expected;
    const check = (outcome: Outcome, how: string): void => {
      const told = broken ? shorten(outcome, most, how) : outcome;
      assert.deepEqual(told, broken ? shorten(expected, most, 'uncut') : expected, how);
    };

    for (const slow of [false, true]) {
      check(await play(script, whole, { slow }), `whole, slow: ${slow}`);
      for (const drip of [false, true]) check(await play(script, byByte, { drip, slow }), `byte by byte, drip: ${drip}, slow: ${slow}`);
    }
    for (const [index, [, , text = '']] of turns.entries()) {
      for (let at = 1; at < text.length; at++) {
        const inTwo: Cut = (bytes, turn) => (turn === index ? [bytes.subarray(0, at), bytes.subarray(at)] : [bytes]);
        for (const drip of [false, true]) check(await play(script, inTwo, { drip }), `turn ${index} cut at ${at}, drip: ${drip}`);
      }
    }
  });
}

/** Without the texts, once they are found to be beginnings of the longest. */
function shorten(outcome: Outcome, most: Outcome, how: string): unknown {
  const beginning = (ending: Ending, longest: Ending | undefined): string => {
    assert.ok(longest?.text.startsWith(ending.text), `${how}: ${JSON.stringify(ending)} is no beginning of ${JSON.stringify(longest)}`);
    return ending.state;
  };
  return {
    ...outcome,
    client: beginning(outcome.client, most.client),
    applications: outcome.applications.map((ending, index) => beginning(ending, most.applications[index])),
  };
}
