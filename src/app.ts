/** The composition root: everything is made here, and started in the order in which it reads. */
import type { Config, InboundConfig, OutboundConfig } from './config/config.ts';
import type { ConfigReloads } from './config/config-file.ts';
import { NO_DENY_FILE, type DenyListView } from './config/policy/deny-file.ts';
import { formatIssues } from './config/issue.ts';
import type { PolicyFilesView } from './config/policy/policy-files.ts';
import { formatAddress, type Address } from './config/units.ts';
import { isSelected, type DrainSelection } from './admin/drain.ts';
import { createExposureWatch } from './admin/checks/exposure.ts';
import { MOST_CONNECTIONS, type HttpService } from './admin/http.ts';
import { HeldBook } from './admin/held-book.ts';
import type { ListenerStatus } from './admin/inventory.ts';
import { PeerBook } from './admin/peer-book.ts';
import { createReadiness } from './admin/checks/readiness.ts';
import { createMetricsServer } from './admin/metrics-server.ts';
import { MOST_ENDPOINT_CONNECTIONS } from './federation/limits.ts';
import { filesNeeded, filesService } from './files/lazy.ts';
import type { ToldApplication } from './files/notify-application.ts';
import type { NotifyTarget } from './files/notify-target.ts';
import type { OnOurEnd } from './files/service.ts';
import type { EndpointBundles, IdentitySnapshot } from './identity/snapshot.ts';
import { RotationWatch } from './identity/rotation.ts';
import { createIdentityStore } from './identity/store.ts';
import { systemClock, type Clock } from './lib/clock.ts';
import { startAll, stopAll, type Service } from './lib/service.ts';
import { createWatch } from './lib/watch.ts';
import { registerChecks } from './checks.ts';
import { LiveConfig } from './live-config.ts';
import type { DenyList } from './policy/deny-list.ts';
import { createFileBudget, FILE_USES, planFiles } from './transport/file-budget.ts';
import { InboundListener } from './proxy/inbound.ts';
import type { ListenerDeps, ProxyListener } from './proxy/listener.ts';
import { OutboundListener } from './proxy/outbound.ts';
import { Turns } from './proxy/turns.ts';
import { MAX_KEPT_BYTES, WaitingRoom } from './proxy/waiting-room.ts';
import { describeWithheld, sdsPolicies, withheldMatchers } from './sds/withheld.ts';
import type { ApplicationEvents } from './telemetry/events/application-events.ts';
import type { ManagerEvents } from './telemetry/events/manager-events.ts';
import { createEvents } from './telemetry/events/events.ts';
import type { FileSetStatus } from './telemetry/log/files-records.ts';
import { createLogger, type LogDestination, type LogStream } from './telemetry/log/logger.ts';
import { createMetrics, decidedBy } from './telemetry/metrics/metrics.ts';
import { createRefusals } from './telemetry/log/refusals.ts';
import { createTlsContexts } from './tls/contexts.ts';
import { createPeerJudge } from './tls/peer.ts';
import { openFileLimit } from './transport/file-limit.ts';
import { TLS_CIPHERS, TLS_FIPS, TLS_GROUPS, TLS_VERSIONS } from './transport/node.ts';
import {
  webAuthorities,
  credentialsService,
  needsOwnJwt,
  sdsService,
  federationService,
  bundleEndpointService,
  workloadApi,
} from './services.ts';

export interface AppDeps {
  readonly version: string;
  /** Later configurations, from the file that this one came from. */
  readonly reloads?: ConfigReloads | undefined;
  /** Who is revoked, by the file that the configuration names; it must be loaded. */
  readonly denyList?: DenyListView | undefined;
  /** The policy files that the configuration names; they must be loaded. */
  readonly policyFiles?: PolicyFilesView | undefined;
  /** The system's if left out. */
  readonly clock?: Clock | undefined;
  /** Uniform in [0, 1): jitter. */
  readonly random?: (() => number) | undefined;
  /** Sockets that were bound for us, descriptors by the names of listeners. */
  readonly passedSockets?: ReadonlyMap<string, number> | undefined;
  /** Standard output if left out. */
  readonly logStream?: LogStream | undefined;
  /** Where log lines go instead. */
  readonly logDestination?: LogDestination | undefined;
  /** Calls a listener when the process ends. Nobody is told if left out. */
  readonly onOurEnd?: OnOurEnd | undefined;
  /** By name of a set of files, who is told of each replacement besides those of the configuration. */
  readonly alsoTell?: ReadonlyMap<string, readonly NotifyTarget[]> | undefined;
  /** The program beside us, which sets of files may tell. */
  readonly application?: ToldApplication | undefined;
  /** Bytes that are kept of connections that wait, in each direction. `MAX_KEPT_BYTES` if left out. */
  readonly maxKeptBytes?: number | undefined;
}

export interface App {
  /** Resolves when every address is bound and the self-test has passed. Identity may come later. */
  start(signal: AbortSignal): Promise<void>;
  /** Drains; when `deadline` aborts, drops the rest. Resolves to the number of connections that had to be dropped. */
  stop(reason: string, deadline: AbortSignal): Promise<number>;
  /** Bound addresses by listener name, and `metrics` and `admin`. */
  addresses(): ReadonlyMap<string, Address>;
  /** Names of the readiness checks that fail, none when ready. */
  notReady(): readonly string[];
  /** What becomes of an application beside us, and what a service manager above us is told. */
  readonly events: { readonly application: ApplicationEvents; readonly manager: ManagerEvents };
  /** What is known of our identity now. */
  identity(): IdentitySnapshot | undefined;
  /** What is written for programs that read files. */
  fileSets(): readonly FileSetStatus[];
  /** Calls `listener` when there are other SVIDs than before. Returns the way to stop. */
  onRotation(listener: () => void): () => void;
  /** Aborted when somebody asked over the admin listener to stop. */
  readonly stopRequested: AbortSignal;
  /** In force now. */
  config(): Config;
}

export async function createApp(config: Config, deps: AppDeps): Promise<App> {
  const clock = deps.clock ?? systemClock;
  if ((config.revocations === undefined) !== (deps.denyList === undefined))
    throw new Error('the deny list is not that of the configuration');
  const denyFile = deps.denyList ?? NO_DENY_FILE;
  const denyList = (): DenyList => denyFile.current();
  const log = await createLogger({
    level: config.log.level,
    format: config.log.format,
    destination: deps.logDestination,
    stream: deps.logStream,
  });
  const metrics = createMetrics({
    version: deps.version,
    tls: { versions: TLS_VERSIONS, groups: TLS_GROUPS, ciphers: TLS_CIPHERS, fips: TLS_FIPS },
    droppedLogLines: () => log.dropped(),
  });
  const events = createEvents({ logger: log.logger, metrics, clock });
  const refusals = createRefusals(clock);
  const readiness = createReadiness();
  const { view, publisher } = createIdentityStore();
  const stopAsked = new AbortController();
  const contexts = createTlsContexts(view);
  const live = new LiveConfig(config, { policyFiles: deps.policyFiles, log, events, clock });
  const filePlan = planFiles(openFileLimit(), {
    listeners:
      [
        ...config.inbound,
        ...config.outbound,
        config.sds,
        config.metrics,
        config.admin,
        config.bundleEndpoint,
        ...config.federation,
        ...config.credentials,
        // Each probe has one connection at most.
        ...(config.metrics?.probes ?? []),
      ].filter(Boolean).length + filesNeeded(config.files),
    inbound: config.inbound.length > 0,
    outbound: config.outbound.length > 0,
    sds: config.sds?.limits.maxConnections ?? 0,
    metrics: config.metrics ? MOST_CONNECTIONS : 0,
    admin: config.admin ? MOST_CONNECTIONS : 0,
    bundleEndpoint: config.bundleEndpoint ? MOST_ENDPOINT_CONNECTIONS : 0,
  });
  const files = createFileBudget(filePlan);
  const maxKeptBytes = deps.maxKeptBytes ?? MAX_KEPT_BYTES;
  const waiting = { inbound: new WaitingRoom(maxKeptBytes), outbound: new WaitingRoom(maxKeptBytes) };
  const peers = new PeerBook(() => clock.now());
  const held = new HeldBook();
  view.subscribe((snapshot) => held.update(snapshot, clock.now()));
  const listenerDeps: ListenerDeps = {
    identity: view,
    contexts,
    judge: createPeerJudge(denyList),
    denyList,
    peers,
    events,
    refusals,
    clock,
    turns: new Turns(clock),
    drainTimeoutMs: () => live.current.drainTimeoutMs,
    files,
    waiting,
    passedSockets: deps.passedSockets ?? new Map(),
  };
  const inbound = config.inbound.map((settings) => new InboundListener(settings, listenerDeps));
  const web = await webAuthorities(config, { events, clock });
  const credentials = await credentialsService(config, web, {
    identity: view,
    contexts,
    events,
    clock,
    random: deps.random ?? Math.random,
    jwt: () => source.tokens(),
  });
  const outbound = config.outbound.map(
    (settings) =>
      new OutboundListener(settings, listenerDeps, {
        authorities: web,
        credential: settings.attach && credentials?.credentialOf(settings.attach),
      }),
  );
  const listeners = [...inbound, ...outbound];
  /** By SPIFFE IDs. */
  const judging = [...inbound, ...outbound.filter(({ config: { webPki } }) => webPki === undefined)];
  /** Which matchers Envoy is not given; found out once a configuration, for a list may be long. */
  let withheld: readonly string[] = [];
  let selfTested = false;

  const exposure = createExposureWatch({
    applications: inbound.map((listener) => ({ listener: listener.ref, to: listener.config.to })),
    ownAddresses: () => [...addresses().values()],
    events,
    clock,
  });
  const sds =
    config.sds &&
    sdsService({
      // Each connection is a descriptor.
      config: { ...config.sds, limits: { ...config.sds.limits, maxConnections: filePlan.sds.most } },
      identity: view,
      policies: () => sdsPolicies(live.current),
      denyList,
      events,
      clock,
      random: deps.random ?? Math.random,
      listener: (name) => inbound.find(({ ref }) => ref.name === name),
      refusals,
    });
  const endpointBundles = createWatch<EndpointBundles>();
  const federation =
    config.federation.length === 0
      ? undefined
      : federationService({
          relations: config.federation,
          identity: view,
          publish: (bundles) => endpointBundles.set(bundles),
          denyList,
          events,
          clock,
          random: deps.random ?? Math.random,
        });
  const bundleEndpoint =
    config.bundleEndpoint &&
    bundleEndpointService({
      config: config.bundleEndpoint,
      identity: view,
      contexts,
      events,
      clock,
      maxConnections: filePlan.bundle_endpoint.most,
    });
  const fileSets =
    config.files.length === 0
      ? undefined
      : filesService({
          sets: config.files,
          identity: view,
          tokenOf: (file) => {
            if (credentials === undefined) throw new Error('nobody fetches tokens');
            return credentials.tokenOf(file);
          },
          events: events.files,
          clock,
          alsoTell: deps.alsoTell,
          application: deps.application,
          onOurEnd: deps.onOurEnd,
          random: deps.random ?? Math.random,
        });
  const metricsServer =
    config.metrics &&
    createMetricsServer({ config: config.metrics, metrics, readiness, events, clock, maxConnections: filePlan.metrics.most });
  const adminServer =
    config.admin &&
    (await import('./admin/server.ts')).createAdminServer({
      config: config.admin,
      metrics,
      readiness,
      log,
      events,
      policies: () =>
        judging.map(({ ref, config: { policy } }) => ({
          listener: ref,
          policy,
          refusals: () => refusals.list(ref),
          connectionsBy: (rule) => decidedBy(metrics.listener(ref), rule),
        })),
      hasListener: (name) => listeners.some((listener) => listener.ref.name === name),
      drain,
      shutdown: () => stopAsked.abort('asked over the admin listener'),
      maxConnections: filePlan.admin.most,
      status: {
        version: deps.version,
        startedAtMs: clock.now(),
        now: () => clock.now(),
        config: () => live.current,
        identity: () => view.current(),
        listeners: () => listeners.map(listenerStatus),
        exposed: () => exposure.exposed(),
        lastReload: () => live.lastReload,
        policyFiles: () => deps.policyFiles?.status() ?? [],
        denyList: () => denyFile.status(),
        sds: () => sds?.describe(),
        federation: () => federation?.status() ?? [],
        files: () => fileSets?.status() ?? [],
        application: () => events.application.status(),
        tokens: () => credentials?.status() ?? [],
        bundleEndpoint: () => bundleEndpoint?.status(),
      },
      inventory: {
        held,
        peers,
        clock,
        connections: () => listeners.map(({ ref, sessions }) => ({ listener: ref, sessions })),
        sds: () => sds?.status(),
      },
    });

  /** Handshakes under way are not among them: who is let in from now on was not open when this was asked. */
  function drain(selection: DrainSelection): number {
    const { peer, trustDomain, listener } = selection;
    const what = [peer, trustDomain, listener === undefined ? undefined : `listener ${listener}`].filter((part) => part !== undefined);
    const detail = `asked over the admin listener to drain ${what.join(', ')}`;
    const through = listeners.filter(({ ref }) => listener === undefined || ref.name === listener);
    const connections = through.reduce((sum, each) => sum + each.drainPeers((id) => isSelected(selection, id), detail), 0);
    events.drainRequested(selection, connections);
    return connections;
  }

  function addresses(): ReadonlyMap<string, Address> {
    const bound: [string, Address | undefined][] = listeners.map((listener) => [listener.ref.name, listener.address]);
    bound.push(['metrics', metricsServer?.address()], ['admin', adminServer?.address()]);
    bound.push(['sds', sds?.address()], ['bundleEndpoint', bundleEndpoint?.address()]);
    return new Map(bound.filter((entry): entry is [string, Address] => entry[1] !== undefined));
  }

  metrics.setPolicyFilesSource(() => deps.policyFiles?.status() ?? []);
  registerChecks(readiness, {
    config,
    live,
    policyFiles: deps.policyFiles,
    denyFile,
    identity: view,
    inbound,
    outbound,
    federation,
    fileSets,
    credentials,
    application: deps.application === undefined ? undefined : () => events.application.status(),
    exposure,
    withheld: () => withheld,
    isSelfTested: () => selfTested,
    clock,
  });
  metrics.setReadinessSource(() => readiness.evaluate().checks);
  metrics.setWaitingSource(
    () => {
      const { strangers, inbound: peers, outbound: applications } = files;
      const held = {
        strangers: strangers.held,
        inbound: peers.held,
        outbound: applications.held,
        sds: metrics.sds.connections,
        metrics: metricsServer?.connections() ?? 0,
        admin: adminServer?.connections() ?? 0,
        bundle_endpoint: bundleEndpoint?.connections() ?? 0,
      };
      return FILE_USES.map((use) => ({ use, held: held[use], ...filePlan[use] }));
    },
    () => ({ inbound: waiting.inbound.bytes, outbound: waiting.outbound.bytes }),
  );

  const selfTest: Service = {
    name: 'self-test',
    async start() {
      // Loaded now that the addresses are taken: it must pass before any identity comes, not before anybody can wait for one.
      const { runSelfTest } = await import('./tls/self-test.ts');
      await runSelfTest(clock.now());
      selfTested = true;
    },
    stop: () => Promise.resolve(),
  };
  const source = workloadApi(config.workloadApi.endpoint, {
    needsJwt: needsOwnJwt(config) || config.inbound.some(({ jwt }) => jwt !== undefined),
    identity: view,
    events,
    clock,
    publisher,
    endpointBundles,
    random: deps.random ?? Math.random,
  });
  // Before the source, which says what becomes of them.
  const bundles: readonly Service[] = federation === undefined ? [] : [federation];
  /** They stop last, and tell of a drain until it is over. They start when listeners do not wait for them any more. */
  const status: readonly Service[] = [metricsServer, adminServer].filter((server): server is HttpService => server !== undefined);
  const serving: readonly Service[] = [
    ...(web === undefined ? [] : [web]),
    ...(credentials === undefined ? [] : [credentials]),
    // Until a drain is over, the application may read them, and they rotate.
    ...(fileSets === undefined ? [] : [fileSets]),
    // What peers began may need the outbound side until it is done, so that side starts first and stops last.
    together('outbound listeners', outbound),
    together('inbound listeners', inbound),
  ];
  const others: readonly Service[] = [
    exposure,
    selfTest,
    // Last, so that it stops first: its clients hear at once, and not after the drain, that they have to look elsewhere.
    ...(sds === undefined ? [] : [sds]),
    ...(bundleEndpoint === undefined ? [] : [bundleEndpoint]),
  ];

  const findWithheld = (): void => {
    withheld = withheldMatchers(live.current).map(describeWithheld);
    events.sds.matchersWithheld(withheld);
  };
  /** All that can change while running. */
  const takeOver = (next: Config): void => {
    for (const [index, listener] of inbound.entries()) reloadListener(listener, next.inbound[index]);
    for (const [index, listener] of outbound.entries()) reloadListener(listener, next.outbound[index]);
    sds?.policyChanged();
    findWithheld();
  };
  const stopFollowing = live.follow(deps.reloads, takeOver);
  const stopRevoking = denyFile.onReload((reread) => {
    if (!reread.ok) {
      events.denyListReloadFailed(formatIssues(reread.problems).split('\n'));
      return;
    }
    events.denyListReloaded(reread);
    for (const listener of listeners) listener.judgeAgain();
    sds?.policyChanged();
  });

  return {
    stopRequested: stopAsked.signal,
    events,
    identity: () => view.current(),
    fileSets: () => fileSets?.status() ?? [],
    onRotation(listener) {
      const rotation = new RotationWatch();
      return view.subscribe((snapshot) => {
        if (rotation.isRotation(snapshot)) listener();
      });
    },
    config: () => live.current,
    addresses,
    notReady: () =>
      readiness
        .evaluate()
        .checks.filter((check) => check.blocks && !check.ok)
        .map((check) => check.name),
    async start(signal) {
      events.started(deps.version);
      if (config.revocations !== undefined) events.denyListLoaded(config.revocations.file, denyList().size);
      for (const { file, entries } of deps.policyFiles?.status() ?? []) events.policyFileLoaded(file, entries);
      findWithheld();
      try {
        await startAll([...serving, ...status, ...others, ...bundles, source], signal);
        for (const [name, server] of [
          ['metrics', metricsServer],
          ['admin', adminServer],
          ['sds', sds],
          ['bundleEndpoint', bundleEndpoint],
        ] as const) {
          const address = server?.address();
          if (address !== undefined) events.statusListenerBound(name, formatAddress(address));
        }
      } catch (cause) {
        await log.flush(AbortSignal.timeout(LAST_LINES_MS));
        throw cause;
      }
    },
    async stop(reason, deadline) {
      stopFollowing();
      readiness.stopping();
      events.stopping(
        reason,
        listeners.reduce((sum, listener) => sum + listener.openConnections, 0),
      );
      // A drain may take long: until it is over, SVIDs rotate, and what is withdrawn or revoked closes connections.
      const failures = await stopAll([source, ...bundles, ...status, ...serving, ...others], deadline);
      stopRevoking();
      const forced = listeners.reduce((sum, listener) => sum + listener.forced, 0);
      events.stopped(forced === 0, forced);
      await log.flush(AbortSignal.timeout(LAST_LINES_MS));
      if (failures.length > 0) throw new AggregateError(failures, 'not everything could be stopped');
      return forced;
    },
  };
}

/** How long the last log lines may wait for a reader. */
const LAST_LINES_MS = 1000;

/** Of listeners that stay as they are, nobody is judged again. */
function reloadListener<C extends InboundConfig | OutboundConfig>(listener: ProxyListener<C>, next: C | undefined): void {
  if (next !== undefined && next !== listener.config) listener.reload(next);
}

function listenerStatus(listener: InboundListener | OutboundListener): ListenerStatus {
  const { ref, address, counters, config } = listener;
  const tokens = listener instanceof InboundListener ? listener.tokenCounts : undefined;
  const presentsNone = 'webPki' in config && config.webPki !== undefined;
  return { listener: ref, address, to: config.to, identity: presentsNone ? undefined : config.identity, counters, tokens };
}

/** Services of one kind: bound one after the other, stopped at the same time. */
function together(name: string, services: readonly Service[]): Service {
  return {
    name,
    start: (signal) => startAll(services, signal),
    async stop(deadline) {
      const results = await Promise.allSettled(services.map((service) => service.stop(deadline)));
      const failures = results.flatMap((result) => (result.status === 'rejected' ? [result.reason as unknown] : []));
      if (failures.length > 0) throw new AggregateError(failures, `${name} could not be stopped`);
    },
  };
}
