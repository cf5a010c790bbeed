import { rmSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { get } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type App, type AppDeps, createApp } from '../../app.ts';
import { formatIssues } from '../../config/issue.ts';
import { loadConfig } from '../../config/load.ts';
import { formatAddress } from '../../config/units.ts';
import { devConfigSchema } from '../../devdomain/config.ts';
import { createDevDomain } from '../../devdomain/dev-domain.ts';
import { systemClock } from '../../lib/clock.ts';
import { messageOf } from '../../lib/errors.ts';
import { CALLER_HEADER, startDemoApplication, TICKS } from './demo-application.ts';
import { aborted } from './dev.ts';
import { EXIT_FAILED, EXIT_OK, type CommandEnvironment } from '../environment.ts';
import { VERSION } from './version.ts';

const READY_WITHIN_MS = 20_000;
const LOOK_EVERY_MS = 20;
const STOP_WITHIN_MS = 2000;

const APP = 'spiffe://example.org/app';
const FRONTEND = 'spiffe://example.org/frontend';
const STRANGER = 'spiffe://example.org/stranger';
const REPORTS = 'spiffe://example.org/reports';
const PARTNER = 'spiffe://partner.example/checkout';
/** Of what callers do by themselves, so that there is something to see. */
const CALL_AGAIN_MS = 1000;
const STRANGER_EVERY_MS = 10_000;

/**
 * `scute demo`: two trust domains, a plain application, a sidecar before it, and sidecars of callers: one that it admits, one of the other
 * trust domain, one that only audit admits, and one that it refuses. All in one process and on loopback only. Prints the address of the
 * dashboard and commands to try, and serves until `signal` aborts. Resolves to the exit code. Leaves no file behind.
 */
export async function runDemo(environment: CommandEnvironment, signal: AbortSignal): Promise<number> {
  const folder = await mkdtemp(join(tmpdir(), 'scute-demo-'));
  // A second signal ends the process without waiting for anything.
  const removeAtExit = (): void => rmSync(folder, { recursive: true, force: true });
  process.once('exit', removeAtExit);
  await using stack = new AsyncDisposableStack();
  stack.defer(async () => {
    await rm(folder, { recursive: true, force: true });
    process.off('exit', removeAtExit);
  });
  const log = createDemoLog(environment);
  try {
    const parts = await startAllParts(folder, stack, log, signal);
    environment.stdout(instructions(parts));
    log.show();
  } catch (cause) {
    if (signal.aborted) return EXIT_OK;
    log.show();
    environment.stderr(`scute demo could not start: ${messageOf(cause)}\n`);
    return EXIT_FAILED;
  }
  await aborted(signal);
  return EXIT_OK;
}

type LogDestination = NonNullable<AppDeps['logDestination']>;

interface DemoLog {
  readonly destination: LogDestination;
  /** For what has no log of its own. */
  complain(text: string): void;
  /** Lines go out from here on, those that waited first. */
  show(): void;
}

/** Nothing of the log stands before the commands to try. */
function createDemoLog({ stdout, stderr, isTerminal }: CommandEnvironment): DemoLog {
  let waiting: string[] | undefined = [];
  return {
    destination: { isTerminal, write: (line) => (waiting === undefined ? stdout(line) : void waiting.push(line)) },
    complain: stderr,
    show() {
      const lines = waiting ?? [];
      waiting = undefined;
      stdout(lines.join(''));
    },
  };
}

/** Addresses as commands need them. */
interface DemoAddresses {
  readonly application: string;
  readonly inbound: string;
  readonly metrics: string;
  readonly admin: string;
  readonly frontend: string;
  readonly stranger: string;
}

/** What was started is stopped by `stack`, in reverse. */
async function startAllParts(folder: string, stack: AsyncDisposableStack, log: DemoLog, signal: AbortSignal): Promise<DemoAddresses> {
  const workload = (id: string) => ({ socket: join(folder, `${nameOf(id)}.sock`), ids: [id] });
  const trustDomain = (name: string, partner: string, ids: readonly string[]) => ({
    name,
    // The embedded trust domain dates them a minute back: at half of their life they are rotated.
    svidLife: '2m',
    rotateEvery: '30s',
    intermediates: 1,
    federatesWith: [partner],
    workloads: ids.map(workload),
  });
  const domain = createDevDomain(
    devConfigSchema.parse({
      trustDomains: [
        trustDomain('example.org', 'partner.example', [APP, FRONTEND, STRANGER, REPORTS]),
        trustDomain('partner.example', 'example.org', [PARTNER]),
      ],
    }),
    {
      clock: systemClock,
      onFailure: (failure) => log.complain(`rotation failed: ${messageOf(failure)}\n`),
    },
  );
  await domain.start(signal);
  stack.defer(() => domain.stop(AbortSignal.timeout(STOP_WITHIN_MS)));
  const application = await startDemoApplication();
  stack.defer(() => application.stop());

  const startSidecar = async (name: string, level: string, settings: Readonly<Record<string, unknown>>): Promise<Sidecar> => {
    const config = { workloadApi: { endpoint: domain.endpoint(name) }, log: { level }, ...settings };
    const sidecar = await createSidecar(config, log.destination, signal);
    stack.defer(() => sidecar.stop());
    return sidecar;
  };
  // The log of one sidecar tells the whole story: what the others have to say would repeat it from their side.
  const app = await startSidecar('app', 'info', {
    inbound: [
      {
        name: 'app',
        listen: '127.0.0.1:0',
        to: application.address,
        allow: [FRONTEND, PARTNER, { peer: REPORTS, mode: 'audit' }],
        protocol: 'http',
        http: { spiffeIdHeader: CALLER_HEADER },
      },
    ],
    metrics: { listen: '127.0.0.1:0' },
    admin: { listen: '127.0.0.1:0' },
  });
  const inbound = app.address('app');
  const outbound = { listen: '127.0.0.1:0', to: inbound, expect: [APP], protocol: 'http' };
  const startCaller = (id: string): Promise<Sidecar> => startSidecar(nameOf(id), 'error', { outbound: [{ name: 'to-app', ...outbound }] });
  const frontend = await startCaller(FRONTEND);
  const stranger = await startCaller(STRANGER);
  const others = [await startCaller(REPORTS), await startCaller(PARTNER)];
  for (const sidecar of [app, frontend, stranger, ...others]) await sidecar.ready(signal);
  for (const sidecar of [frontend, ...others]) stack.defer(keepCalling(`http://${sidecar.address('to-app')}${TICKS}`, CALL_AGAIN_MS));
  stack.defer(keepCalling(`http://${stranger.address('to-app')}/orders`, STRANGER_EVERY_MS));
  return {
    application: application.address,
    inbound,
    metrics: app.address('metrics'),
    admin: app.address('admin'),
    frontend: frontend.address('to-app'),
    stranger: stranger.address('to-app'),
  };
}

function nameOf(id: string): string {
  return id.replace(/^.*\//, '');
}

/** Asks, reads what comes for as long as it comes, and asks again after `pauseMs`. Returns the way to stop. */
function keepCalling(url: string, pauseMs: number): () => Promise<void> {
  const stop = new AbortController();
  const { signal } = stop;
  const call = async (): Promise<void> => {
    while (!signal.aborted) {
      await new Promise<void>((resolve) => {
        get(url, { agent: false, signal }, (response) => response.on('error', () => {}).resume())
          .on('error', () => {})
          .once('close', resolve);
      });
      await systemClock.sleep(pauseMs, signal);
    }
  };
  const calling = call();
  return () => {
    stop.abort();
    return calling;
  };
}

interface Sidecar {
  address(listener: string): string;
  ready(signal: AbortSignal): Promise<void>;
  stop(): Promise<void>;
}

/** The same application that `scute run` runs, with settings in the shape of its file. */
async function createSidecar(
  settings: Readonly<Record<string, unknown>>,
  logDestination: LogDestination,
  signal: AbortSignal,
): Promise<Sidecar> {
  const config = await loadConfig({ file: undefined, flags: settings, env: {} });
  if (!config.ok) throw new Error(formatIssues(config.error));
  const app: App = await createApp(config.value, { version: VERSION, logDestination });
  await app.start(signal);
  return {
    address(listener) {
      const address = app.addresses().get(listener);
      if (address === undefined) throw new Error(`listener ${JSON.stringify(listener)} is not bound`);
      return formatAddress(address);
    },
    async ready(signal) {
      const deadline = AbortSignal.any([signal, AbortSignal.timeout(READY_WITHIN_MS)]);
      while (app.notReady().length > 0) {
        if (deadline.aborted) throw new Error(`not ready: ${app.notReady().join(', ')}`);
        await systemClock.sleep(LOOK_EVERY_MS, deadline);
      }
    },
    async stop() {
      await app.stop('the demo ends', AbortSignal.timeout(STOP_WITHIN_MS));
    },
  };
}

/** One command a line, to be pasted; what each shows is in the comment before it. */
function instructions({ application, inbound, metrics, admin, frontend, stranger }: DemoAddresses): string {
  return `
Dashboard: http://${admin}/

A plain HTTP application listens on ${application}. Before it, a Scute sidecar accepts HTTP over mTLS on ${inbound}. It admits
${FRONTEND} and, of a federated trust domain, ${PARTNER}. ${REPORTS} is
admitted by audit alone, and ${STRANGER} is refused. Each has a sidecar, and calls. Identities come from an
embedded trust domain that is never for production, and rotate each half minute. Try, in another terminal:

# Allowed: this caller's sidecar presents ${FRONTEND}, which is on the allow list. The application reads it in a header.
curl http://${frontend}/hello
# Refused: this caller's sidecar presents ${STRANGER}, which is not on the allow list. The answer is a 403 that says so.
curl --include http://${stranger}/hello
# Refused: TLS without a client certificate, so without any identity.
curl --insecure https://${inbound}/hello
# Metrics of the sidecar before the application.
curl http://${metrics}/metrics
# Its status, check by check.
curl 'http://${metrics}/readyz?verbose'
# Its configuration, identity and listeners, without secrets.
curl http://${admin}/config_dump

READY. Ctrl-C ends everything and removes every file. The log of the sidecar before the application follows.

`;
}
