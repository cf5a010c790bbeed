/**
 * A shim for the public SPIFFE conformance suite (harness contract, version 1): the same identity source, TLS contexts and
 * peer judge that `run` uses, with a listener that says whom it authenticated and a control port that dials. It admits any
 * SPIFFE ID that it can authenticate, so it is for that suite alone.
 */
import { createHttpService, json, type Reply } from './admin/http.ts';
import { parseEndpoint } from './config/units.ts';
import { createIdentityStore } from './identity/store.ts';
import { systemClock } from './lib/clock.ts';
import { verifyToken } from './jwt/verify.ts';
import type { JwtBundles } from './spiffe/jwt-bundle.ts';
import { parseSpiffeId } from './spiffe/spiffe-id.ts';
import { startAll, stopAll, type Service } from './lib/service.ts';
import { handshakeProblem } from './forward/outcome.ts';
import { createEvents } from './telemetry/events/events.ts';
import { createLogger } from './telemetry/log/logger.ts';
import { createMetrics } from './telemetry/metrics/metrics.ts';
import { createTlsContexts } from './tls/contexts.ts';
import { createPeerJudge, type PeerRole } from './tls/peer.ts';
import type { BoundListener, SecureConnection } from './transport/connection.ts';
import { connect, listen } from './transport/node.ts';
import { createWorkloadApiClient } from './workload-api/client.ts';
import { chooseEndpoint } from './workload-api/endpoint.ts';
import { createJwtSource } from './workload-api/jwt-source.ts';
import { createWorkloadApiSource } from './workload-api/source.ts';

export interface HarnessDeps {
  readonly version: string;
  /** The value of SPIFFE_ENDPOINT_SOCKET: the only configuration there is. */
  readonly endpoint: string | undefined;
  /** Standard output: the contract's lines. */
  readonly print: (line: string) => void;
  /** Standard error: the log. */
  readonly log: (line: string) => void;
}

const CONTRACT_VERSION = 1;
const DEFAULT_SVID = { by: 'default' } as const;
const HANDSHAKE_TIMEOUT_MS = 5000;
/** They come a moment after the first SVID, on a stream of their own. */
const JWT_BUNDLES_TIMEOUT_MS = 5000;
const LOOPBACK = { kind: 'tcp', host: '127.0.0.1', port: 0 } as const;

/** Serves until `signal` aborts. Resolves to the exit code. */
export async function runHarness(deps: HarnessDeps, signal: AbortSignal): Promise<number> {
  const endpoint = chooseEndpoint(undefined, deps.endpoint);
  if (!endpoint.ok) {
    deps.log(`${endpoint.error}\n`);
    return 1;
  }
  const clock = systemClock;
  const { logger } = await createLogger({ level: 'info', format: 'json', destination: { write: deps.log } });
  const events = createEvents({ logger, metrics: createMetrics({ version: deps.version }), clock });
  const { view, publisher } = createIdentityStore();
  const contexts = createTlsContexts(view);
  const judge = createPeerJudge();

  /** The SPIFFE ID of the peer, or why it was refused. */
  const authenticate = (connection: SecureConnection, role: PeerRole): { readonly id?: string; readonly refusal?: string } => {
    const snapshot = view.current();
    if (snapshot?.kind !== 'held') return { refusal: 'we hold no identity' };
    const judged = judge.authenticate(connection, role, snapshot, clock.now());
    return judged.ok ? { id: judged.value.authenticated.id } : { refusal: `${judged.error.problem}: ${judged.error.detail}` };
  };

  /** Handshakes, connections and attempts under way: nothing of them may hold up the end. */
  const open = new Set<{ abort(): void }>();
  /** Says `text` and ends the connection; what the peer says is not listened to. */
  const answer = (connection: SecureConnection, text: string): void => {
    open.add(connection);
    const timer = clock.after(HANDSHAKE_TIMEOUT_MS, () => connection.abort());
    const closed = (): void => {
      timer.cancel();
      open.delete(connection);
    };
    connection.start({ data: () => undefined, ended: () => undefined, drained: () => undefined, closed });
    if (text !== '') connection.write(Buffer.from(text));
    connection.endWrite();
  };

  let bound: BoundListener | undefined;
  const x509: Service = {
    name: 'x509 port',
    async start() {
      bound = await listen({
        endpoint: LOOPBACK,
        mode: 0o600,
        keepAliveMs: 0,
        acceptFailed: (error) => deps.log(`${error.message}\n`),
        accept(accepted) {
          const own = contexts.own(DEFAULT_SVID, clock.now());
          if ('detail' in own) {
            accepted.abort();
            return;
          }
          const handshake = accepted.openTls({ context: own.context, alpn: [] }, (outcome) => {
            timer.cancel();
            open.delete(handshake);
            if (!outcome.ok) return;
            const { id, refusal } = authenticate(outcome.connection, 'client');
            if (id === undefined) {
              deps.log(`refused: ${refusal}\n`);
              outcome.connection.abort();
            } else {
              answer(outcome.connection, `${id}\n`);
            }
          });
          open.add(handshake);
          const timer = clock.after(HANDSHAKE_TIMEOUT_MS, () => {
            open.delete(handshake);
            handshake.abort();
          });
        },
      });
    },
    async stop() {
      await bound?.close();
      for (const each of open) each.abort();
    },
  };

  const control = createHttpService({
    name: 'control port',
    socket: { listen: LOOPBACK, socketMode: 0o600, socketGid: undefined },
    allowedHosts: [],
    routes: {
      '/v1/info': { GET: () => json(200, { status: 'ok', sdk: 'scute', sdk_version: deps.version, language: 'typescript' }) },
      '/v1/jwt/validate': { POST: ({ body }) => validate(membersOf(body)) },
      '/v1/jwt/fetch': { POST: ({ body }) => fetch(membersOf(body)) },
      '/v1/x509/dial': { POST: ({ body }) => dial(textOf(membersOf(body)['address'])) },
    },
  });

  function dial(address: string): Promise<Reply> {
    const target = parseTarget(address);
    const own = contexts.own(DEFAULT_SVID, clock.now());
    const failed = (message: string): Reply => json(500, { status: 'error', message });
    if (target === undefined) return Promise.resolve(failed(`${JSON.stringify(address)} is not HOST:PORT`));
    if ('detail' in own) return Promise.resolve(failed(own.detail));
    return new Promise((resolve) => {
      const attempt = connect({ endpoint: target, timeoutMs: HANDSHAKE_TIMEOUT_MS, keepAliveMs: 0, use: 'tls' }, (opened) => {
        open.delete(attempt);
        if (!opened.ok) {
          resolve(failed(opened.error.message));
          return;
        }
        const handshake = opened.opened.openTls({ context: own.context, alpn: [], serverName: undefined }, (outcome) => {
          timer.cancel();
          open.delete(handshake);
          if (!outcome.ok) {
            const message = `${outcome.code}: ${outcome.message}`;
            // Only what was held against the certificate is a refusal: a server that speaks no TLS was never judged.
            const isRefusal = handshakeProblem(outcome.code) === 'bad_certificate';
            resolve(isRefusal ? json(422, { status: 'rejected', message }) : failed(message));
            return;
          }
          const { id, refusal } = authenticate(outcome.connection, 'server');
          answer(outcome.connection, '');
          resolve(id === undefined ? json(422, { status: 'rejected', message: refusal }) : json(200, { status: 'ok', spiffe_id: id }));
        });
        open.add(handshake);
        const timer = clock.after(HANDSHAKE_TIMEOUT_MS, () => {
          open.delete(handshake);
          handshake.abort();
          resolve(failed(`no handshake within ${HANDSHAKE_TIMEOUT_MS} ms`));
        });
      });
      open.add(attempt);
    });
  }

  /** Undefined if the agent gives none for so long: then there is nothing to judge by. */
  async function jwtBundles(): Promise<JwtBundles | undefined> {
    const come = new AbortController();
    const leave = view.subscribe((snapshot) => {
      if (snapshot.jwtBundles !== undefined) come.abort();
    });
    await clock.sleep(JWT_BUNDLES_TIMEOUT_MS, AbortSignal.any([come.signal, signal]));
    leave();
    return view.current()?.jwtBundles;
  }

  async function validate(body: Members): Promise<Reply> {
    const bundles = await jwtBundles();
    if (bundles === undefined) return json(500, { status: 'error', message: 'there are no JWT bundles' });
    const expected = { audiences: [textOf(body['audience'])], nowMs: clock.now() };
    const verified = await verifyToken(textOf(body['token']), expected, bundles);
    return verified.ok
      ? json(200, { status: 'ok', spiffe_id: verified.value.subject })
      : json(422, { status: 'rejected', message: `${verified.error.code}: ${verified.error.message}` });
  }

  async function fetch(body: Members): Promise<Reply> {
    const wanted = textOf(body['spiffe_id']);
    const spiffeId = wanted === '' ? undefined : parseSpiffeId(wanted);
    const failed = (message: string): Reply => json(500, { status: 'error', message });
    if (spiffeId?.ok === false) return failed(`${JSON.stringify(wanted)} is no SPIFFE ID`);
    await jwtBundles();
    const audience = Array.isArray(body['audience']) ? body['audience'].map(textOf) : [];
    const fetched = await jwt.fetch({ audience, spiffeId: spiffeId?.value }, signal);
    if (!fetched.ok) return failed(`${fetched.error.code}: ${fetched.error.message}`);
    const { spiffeId: spiffe_id, token, hint } = fetched.value;
    return json(200, { status: 'ok', svids: [{ spiffe_id, token, hint }] });
  }

  const client = createWorkloadApiClient({ endpoint: endpoint.value, clock });
  const jwt = createJwtSource({ client, clock, bundles: () => view.current()?.jwtBundles });
  const source = createWorkloadApiSource({
    client,
    publisher,
    events,
    jwt: events.jwt,
    clock,
    random: Math.random,
  });
  const services = [x509, control, source];
  await startAll(services, signal);
  deps.print(`SPIFFE_HARNESS_VERSION=${CONTRACT_VERSION}`);
  deps.print(`SPIFFE_X509_PORT=${portOf(bound?.endpoint)}`);
  deps.print(`SPIFFE_CONTROL_PORT=${portOf(control.address())}`);
  let announced = false;
  const forgetReady = view.subscribe((snapshot) => {
    if (snapshot.kind !== 'held' || announced) return;
    announced = true;
    deps.print('READY');
  });
  await new Promise<void>((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
  forgetReady();
  await stopAll(services, AbortSignal.abort());
  return 0;
}

type Members = Readonly<Record<string, unknown>>;

function membersOf(body: unknown): Members {
  return typeof body === 'object' && body !== null ? (body as Members) : {};
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

/** Only IP literals: the suite dials loopback. */
function parseTarget(address: string) {
  const parsed = parseEndpoint(`tcp://${address}`);
  return parsed.ok ? parsed.value : undefined;
}

function portOf(endpoint: { readonly kind: string; readonly port?: number } | undefined): number {
  if (endpoint?.port === undefined) throw new Error('a port of the harness is not bound');
  return endpoint.port;
}
