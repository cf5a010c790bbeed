import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { type Child, type ChildOptions, type OutputLine, runChild, startChild, type WaitOptions } from '../support/child.ts';
import { part, pythonPrograms } from './parts.ts';

/** What a peer program prints: one JSON object a line. */
export type Said = Readonly<Record<string, unknown>>;

/** A program of `go/`, `java/` or `python/` that goes on until the test ends. */
export interface Peer {
  readonly child: Child;
  /** Everything that it has said. */
  said(): readonly Said[];
  /** The next thing that it says with this field, after what was waited for before. */
  next(field: string, options?: WaitOptions): Promise<Said>;
  /** The first thing that it says with this field. */
  first(field: string): Promise<Said>;
}

/** Programs of `python/`. */
export type PythonProgram =
  | 'workload_api_server'
  | 'spiffe_peer'
  | 'defakto_peer'
  | 'grpc_peer'
  | 'tls_peer'
  | 'web_server'
  | 'http_peer'
  | 'wsgi_site'
  | 'routing_site'
  | 'websocket_peer'
  | 'websocket_h2_peer';

const goArgv = (args: readonly string[]): [string, ...string[]] => [part('go-spiffe'), ...args];
const pythonArgv = (program: PythonProgram, args: readonly string[]): [string, ...string[]] => [
  part('python'),
  '-u',
  join(pythonPrograms, `${program}.py`),
  ...args,
];

/** Starts `spiffe-peer`, the go-spiffe program, and ends it with the test. */
export function startGo(t: TestContext, ...args: readonly string[]): Promise<Peer> {
  return startPeer(t, goArgv(args));
}

/** Starts `xds-peer`, an SDS client of Envoy's own types, and ends it with the test. */
export function startXds(t: TestContext, target: string): Promise<Peer> {
  return startPeer(t, [part('go-control-plane'), target]);
}

/** Runs `spiffe-peer` to its end, and gives what it said last. */
export function runGo(...args: readonly string[]): Promise<Said> {
  return runPeer(goArgv(args));
}

/** Starts `grpc-peer`, a server or client of grpc-go, and ends it with the test. */
export function startGrpc(t: TestContext, ...args: readonly string[]): Promise<Peer> {
  return startPeer(t, [part('grpc-go'), ...args]);
}

/** Runs `grpc-peer` to its end, and gives what it said last. */
export function runGrpc(...args: readonly string[]): Promise<Said> {
  return runPeer([part('grpc-go'), ...args]);
}

/** Starts `java-peer`, the program on java-spiffe and grpc-java, and ends it with the test. */
export function startJava(t: TestContext, ...args: readonly string[]): Promise<Peer> {
  return startPeer(t, [part('java-spiffe'), ...args]);
}

/** Runs `java-peer` to its end, and gives what it said last. */
export function runJava(...args: readonly string[]): Promise<Said> {
  return runPeer([part('java-spiffe'), ...args]);
}

export function startPython(t: TestContext, program: PythonProgram, args: readonly string[], options: ChildOptions = {}): Promise<Peer> {
  return startPeer(t, pythonArgv(program, args), options);
}

export function runPython(program: PythonProgram, ...args: readonly string[]): Promise<Said> {
  return runPeer(pythonArgv(program, args));
}

async function startPeer(t: TestContext, argv: [string, ...string[]], options: ChildOptions = {}): Promise<Peer> {
  const child = await startChild(argv, options);
  t.after(async () => {
    await child.stop({ withinMs: 2000 });
  });
  let seen = 0;
  const find = async (field: string, options: WaitOptions): Promise<OutputLine> =>
    child.line((line) => {
      const said = parse(line);
      return said !== undefined && field in said;
    }, options);
  return {
    child,
    said: () =>
      child
        .lines()
        .map(parse)
        .filter((said) => said !== undefined),
    async next(field, waiting = {}) {
      const line = await find(field, { after: seen, ...waiting });
      seen = line.next;
      return parse(line.text) ?? {};
    },
    first: async (field) => parse((await find(field, {})).text) ?? {},
  };
}

async function runPeer(argv: [string, ...string[]]): Promise<Said> {
  const { stdout, stderr, code, signal } = await runChild(argv);
  const said = stdout
    .split('\n')
    .map(parse)
    .findLast((line) => line !== undefined);
  if (said === undefined) throw new Error(`${argv.join(' ')} ended with ${signal ?? code} and said nothing\n${stdout}\n${stderr}`);
  return said;
}

function parse(line: string): Said | undefined {
  if (!line.startsWith('{')) return undefined;
  try {
    return JSON.parse(line) as Said;
  } catch {
    return undefined;
  }
}
