import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { appearance } from '../config/file-watch.ts';
import type { BundleEndpointConfig } from '../config/config.ts';
import type { Address } from '../config/units.ts';
import type { IdentityView } from '../identity/store.ts';
import type { Clock, Timer } from '../lib/clock.ts';
import { messageOf } from '../lib/errors.ts';
import { err, ok, type Result } from '../lib/result.ts';
import type { Service } from '../lib/service.ts';
import type { FederationEvents } from '../telemetry/events/federation-events.ts';
import type { EndpointResult, EndpointStatus } from '../telemetry/log/federation-records.ts';
import type { TlsContexts } from '../tls/contexts.ts';
import type { AcceptedConnection, BoundListener, TlsContext } from '../transport/connection.ts';
import { createTlsContext, listen } from '../transport/node.ts';
import { FederationFileError, readBounded } from './files.ts';
import { documentOf, type ServedDocument } from './served-document.ts';

export interface BundleEndpointDeps {
  readonly config: BundleEndpointConfig;
  readonly identity: IdentityView;
  readonly contexts: TlsContexts;
  readonly events: FederationEvents;
  readonly clock: Clock;
  /** Beyond it the oldest goes, so that idle strangers cannot keep others out. */
  readonly maxConnections: number;
}

export interface BundleEndpoint extends Service {
  /** Where it is bound; undefined before `start`. A port of 0 has become the real one. */
  address(): Address | undefined;
  status(): EndpointStatus;
  /** Those that are open. */
  connections(): number;
}

/** For handshake, request and answer together: a connection is for one request. */
const MAX_TIME_MS = 10_000;
const MAX_HEAD_BYTES = 8192;
/** How often to look whether the certificate's files have changed. */
const LOOK_MS = 10_000;

/** Serves the bundle of our own trust domain to anybody (SPIFFE Federation, section 5.2). */
export function createBundleEndpoint(deps: BundleEndpointDeps): BundleEndpoint {
  return new Endpoint(deps);
}

class Endpoint implements BundleEndpoint {
  readonly name = 'bundle endpoint';
  readonly #deps: BundleEndpointDeps;
  readonly #http = createServer({ maxHeaderSize: MAX_HEAD_BYTES, requireHostHeader: false, insecureHTTPParser: false });
  /** Oldest first. */
  readonly #open = new Set<OneRequest>();
  readonly #requests = new WeakMap<object, OneRequest>();
  /** The last that there was, whether it may be served now or not. */
  #last: ServedDocument | undefined;
  #document: ServedDocument | undefined;
  #web: TlsContext | undefined;
  #filesLook = '';
  #timer: Timer | undefined;
  #bound: BoundListener | undefined;
  #leave: (() => void) | undefined;
  #stopped = false;

  constructor(deps: BundleEndpointDeps) {
    this.#deps = deps;
    this.#http.on('request', (request, response) => this.#answer(request, response));
    // A switch of protocols is not offered, and what breaks HTTP is worth no answer.
    this.#http.on('clientError', (_error, socket) => socket.destroy());
  }

  async start(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const { config, identity } = this.#deps;
    if (config.profile.kind === 'https_web') {
      this.#filesLook = await this.#look();
      const loaded = await this.#load();
      if (!loaded.ok) throw new FederationFileError(`bundleEndpoint: ${loaded.error}`);
      this.#web = loaded.value;
      this.#watchFiles();
    }
    this.#leave = identity.subscribe((snapshot) => {
      const { refreshHintMs, identity: choice } = config;
      this.#document = documentOf(snapshot, choice, refreshHintMs, this.#last, this.#deps.clock.now());
      if (this.#document === undefined || this.#document === this.#last) return;
      this.#last = this.#document;
      this.#deps.events.documentChanged(this.#document.trustDomain, this.#document.sequence, this.#document.authorities);
    });
    this.#bound = await listen({
      endpoint: config.listen,
      mode: 0,
      keepAliveMs: 0,
      use: 'tls',
      accept: (accepted) => this.#accept(accepted),
      // The next one may be accepted.
      acceptFailed: () => undefined,
    });
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#timer?.cancel();
    this.#leave?.();
    await this.#bound?.close();
    for (const each of this.#open) each.cut(undefined);
  }

  address(): Address | undefined {
    return this.#bound?.endpoint;
  }

  status(): EndpointStatus {
    const document = this.#document;
    return { trustDomain: document?.trustDomain, sequence: document?.sequence, authorities: document?.authorities ?? 0 };
  }

  connections(): number {
    return this.#open.size;
  }

  #accept(accepted: AcceptedConnection): void {
    const context = this.#context();
    if (this.#stopped || context === undefined) {
      this.#deps.events.endpointAsked('not_ready');
      accepted.abort();
      return;
    }
    for (const oldest of this.#open) {
      if (this.#open.size < this.#deps.maxConnections) break;
      oldest.cut('connection_limit');
    }
    const one = new OneRequest(this.#deps, () => this.#open.delete(one));
    this.#open.add(one);
    one.begin(accepted, context, (stream) => {
      this.#requests.set(stream, one);
      this.#http.emit('connection', stream);
    });
  }

  /** Our SVID as it is now, never one that is not valid; or the certificate of the files. */
  #context(): TlsContext | undefined {
    const { config, contexts, clock } = this.#deps;
    if (config.profile.kind === 'https_web') return this.#web;
    const own = contexts.own(config.identity, clock.now());
    return 'context' in own ? own.context : undefined;
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const one = this.#requests.get(request.socket);
    const { path } = this.#deps.config;
    const document = this.#document;
    response.setHeader('connection', 'close');
    response.setHeader('x-content-type-options', 'nosniff');
    const refuse = (status: number, result: EndpointResult): void => {
      one?.answered(result);
      response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8' }).end();
    };
    // The target as it stands: no other spelling of the path is the path.
    if (request.url !== path) return refuse(404, 'not_found');
    if (request.method !== 'GET') {
      response.setHeader('allow', 'GET');
      return refuse(405, 'bad_method');
    }
    if (document === undefined) return refuse(503, 'not_ready');
    one?.answered('served');
    response
      .writeHead(200, {
        'content-type': 'application/json',
        'content-length': Buffer.byteLength(document.text),
        'cache-control': 'no-store',
      })
      .end(document.text);
  }

  #watchFiles(): void {
    this.#timer = this.#deps.clock.after(LOOK_MS, () => {
      void this.#reloadFiles().finally(() => {
        if (!this.#stopped) this.#watchFiles();
      });
    });
  }

  async #reloadFiles(): Promise<void> {
    const look = await this.#look();
    if (look === this.#filesLook) return;
    this.#filesLook = look;
    const loaded = await this.#load();
    if (loaded.ok) this.#web = loaded.value;
    this.#deps.events.endpointFiles(loaded.ok ? undefined : loaded.error);
  }

  async #look(): Promise<string> {
    const { profile } = this.#deps.config;
    if (profile.kind !== 'https_web') return '';
    return (await Promise.all([profile.certFile, profile.keyFile].map(appearance))).join('\n');
  }

  async #load(): Promise<Result<TlsContext, string>> {
    const { profile } = this.#deps.config;
    if (profile.kind !== 'https_web') return err('there are no files with https_spiffe');
    const [certificate, key] = await Promise.all([readBounded(profile.certFile), readBounded(profile.keyFile)]);
    if (!certificate.ok) return certificate;
    if (!key.ok) return key;
    try {
      const own = { chainPem: certificate.value.toString('latin1'), keyPem: key.value.toString('latin1') };
      return ok(createTlsContext({ own, authoritiesPem: [] }));
    } catch (cause) {
      return err(`${profile.certFile} and ${profile.keyFile} cannot be used: ${messageOf(cause)}`);
    }
  }
}

/** One connection from accept to close. Counted once, by what became of it. */
class OneRequest {
  readonly #deps: Pick<BundleEndpointDeps, 'events' | 'clock'>;
  readonly #over: () => void;
  #step: { abort(): void } | undefined;
  #timer: Timer | undefined;
  #counted = false;

  constructor(deps: Pick<BundleEndpointDeps, 'events' | 'clock'>, over: () => void) {
    this.#deps = deps;
    this.#over = over;
  }

  begin(accepted: AcceptedConnection, context: TlsContext, serve: (stream: object) => void): void {
    this.#timer = this.#deps.clock.after(MAX_TIME_MS, () => this.cut('timeout'));
    this.#step = accepted.openTls({ context, alpn: ['http/1.1'], askForCertificate: false }, (outcome) => {
      if (!outcome.ok) return this.#end('no_request');
      const { connection } = outcome;
      this.#step = connection;
      const handed = connection.handOver({ ended: () => undefined, closed: () => this.#end('no_request') });
      if (handed !== undefined) serve(handed.stream);
    });
  }

  answered(result: EndpointResult): void {
    if (this.#counted) return;
    this.#counted = true;
    this.#deps.events.endpointAsked(result);
  }

  /** Ends it at once. */
  cut(result: EndpointResult | undefined): void {
    const step = this.#step;
    this.#end(result);
    step?.abort();
  }

  #end(result: EndpointResult | undefined): void {
    if (this.#step === undefined) return;
    this.#step = undefined;
    this.#timer?.cancel();
    if (result !== undefined) this.answered(result);
    this.#over();
  }
}
