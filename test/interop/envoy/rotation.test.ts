/** Rotation of SVIDs and of authorities under load: no request fails, and what Envoy shows is never a second old. */
import assert from 'node:assert/strict';
import { hash, X509Certificate } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { connect, type PeerCertificate } from 'node:tls';
import { setTimeout as delay } from 'node:timers/promises';
import type { DevDomain, IssuedPem } from '../../../src/devdomain/dev-domain.ts';
import { startDevDomain } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { useScute } from '../../support/scute-process.ts';
import { ask, printedBootstrap, startApplication } from './printed.ts';
import { startEnvoyProcess, type EnvoyProcess } from './process.ts';
import { startInboundEnvoy, visit } from './stage.ts';
import { needs } from '../parts.ts';
import { freePort, temporaryFolder } from '../stage.ts';

const WEB = 'spiffe://example.org/web';
const API = 'spiffe://example.org/api';
const VISITOR = 'spiffe://example.org/visitor';

/** The SVIDs of one workload in the order in which they were issued, and when; by the digest of the leaf. */
interface History {
  /** The newest is another one. */
  note(): void;
  newest(): string;
  /** What is wrong with an SVID that was shown to a request which began then. */
  problemWith(shown: string, begunMs: number): string | undefined;
  /** Digests that were shown and are of no SVID that was ever issued. */
  unknown(): readonly string[];
  /** How many were shown. */
  seen(): number;
}

const MAX_AGE_MS = 1000;

function createHistory(spiffe: DevDomain, workload: string): History {
  const newest = (): string => {
    const answer = spiffe.answers(workload).x509Svids.get();
    assert.ok(answer?.kind === 'message');
    return hash('sha256', new X509Certificate(answer.message.svids[0]?.x509Svid ?? '').raw);
  };
  const issued = [newest()];
  const atMs = [0];
  const seen = new Set<string>();
  return {
    newest,
    note() {
      issued.push(newest());
      atMs.push(performance.now());
    },
    problemWith(shown, begunMs) {
      seen.add(shown);
      const index = issued.indexOf(shown);
      // One that is not known is newer than what is known here; `unknown` has the last word.
      const replacedMs = index === -1 ? undefined : atMs[index + 1];
      return replacedMs !== undefined && replacedMs < begunMs - MAX_AGE_MS
        ? `SVID ${index} when ${issued.length - 1} is the newest`
        : undefined;
    },
    unknown: () => [...seen].filter((shown) => !issued.includes(shown)),
    seen: () => seen.size,
  };
}

interface Load {
  /** Resolves when a request that begins from now on is over. */
  round(): Promise<void>;
  /** The number of requests, and what went wrong. */
  end(): Promise<{ readonly requests: number; readonly failures: readonly string[] }>;
}

/** One request after the other, each of which says what is wrong or nothing. */
function startLoad(t: TestContext, request: (begunMs: number) => Promise<string | undefined>): Load {
  const over = new AbortController();
  let requests = 0;
  const failures: string[] = [];
  let waiting: (() => void)[] = [];
  const run = async (): Promise<void> => {
    while (!over.signal.aborted) {
      const resolved = waiting;
      waiting = [];
      const failure = await request(performance.now()).catch(String);
      requests += 1;
      if (failure !== undefined) failures.push(`request ${requests}: ${failure}`);
      for (const resolve of resolved) resolve();
    }
  };
  const running = run();
  t.after(() => over.abort());
  return {
    round: () => new Promise((resolve) => waiting.push(resolve)),
    async end() {
      over.abort();
      await running;
      return { requests, failures };
    },
  };
}

/** Scute with an SDS socket alone. */
async function startSecrets(t: TestContext, spiffe: DevDomain, workload: string) {
  const listen = `unix://${join(await temporaryFolder(t), 'sds.sock')}`;
  const config = { workloadApi: { endpoint: spiffe.endpoint(workload) }, sds: { listen } };
  const scute = await useScute(t, { config });
  await scute.address('sds');
  return { config, socket: listen.slice('unix://'.length) };
}

function digestOf(certificate: PeerCertificate | undefined): string {
  return certificate === undefined ? '' : hash('sha256', certificate.raw);
}

async function assertNoneRejected(envoy: EnvoyProcess): Promise<void> {
  assert.equal(await envoy.stat(/update_rejected|key_rotation_failed/), 0);
}

/** A connection that stays, over which a message is sent and answered at a time. */
function keep(port: number, { chainPem, keyPem }: IssuedPem) {
  const socket = connect({ port, host: '127.0.0.1', rejectUnauthorized: false, cert: chainPem, key: keyPem });
  socket.setEncoding('utf8');
  const replies = socket[Symbol.asyncIterator]() as AsyncIterator<string, undefined>;
  return {
    async ask(message: string): Promise<string | undefined> {
      socket.write(message);
      return (await replies.next()).value;
    },
    end: () => socket.destroy(),
  };
}

test(
  '200 rotations at five a second under load, both variants: no request fails, no secret is rejected, none is a second old',
  needs('envoy'),
  async (t) => {
    const spiffe = await startDevDomain(t, { name: 'example.org', intermediates: 1, workloads: { api: [API] } });
    const { socket } = await startSecrets(t, spiffe, 'api');
    const web = await spiffe.issue(WEB);
    const envoys = await Promise.all(
      ['inbound.yaml', 'delta.yaml'].map(async (example) => {
        const { envoy, port } = await startInboundEnvoy(t, { socket }, example);
        const history = createHistory(spiffe, 'api');
        const kept = keep(port, web);
        t.after(kept.end);
        const load = startLoad(t, async (begunMs) => {
          const { reply, certificate } = await visit(port, web);
          if (reply !== 'HELLO') return JSON.stringify(reply);
          if ((await kept.ask('still here')) !== 'STILL HERE') return 'a connection from before was closed';
          return history.problemWith(digestOf(certificate), begunMs);
        });
        return { envoy, port, history, load };
      }),
    );

    for (let rotation = 0; rotation < 200; rotation += 1) {
      const next = delay(200);
      await spiffe.rotate();
      for (const { history } of envoys) history.note();
      // Each is met by a request, however busy the machine is.
      await Promise.all([next, ...envoys.map(({ load }) => load.round())]);
    }

    for (const { envoy, port, history, load } of envoys) {
      await eventually(async () => assert.equal(digestOf((await visit(port, web)).certificate), history.newest()), {
        withinMs: MAX_AGE_MS,
      });
      const { requests, failures } = await load.end();
      assert.deepEqual(failures, []);
      assert.deepEqual(history.unknown(), []);
      assert.ok(requests > 200 && history.seen() >= 150, `${requests} requests saw ${history.seen()} SVIDs`);
      await assertNoneRejected(envoy);
    }
  },
);

test(
  'Envoy to Envoy, both with secrets from Scute: SVIDs and then the authority rotate under load, and no request fails',
  needs('envoy'),
  async (t) => {
    const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { api: [API], web: [WEB] } });
    const [api, web] = await Promise.all([startSecrets(t, spiffe, 'api'), startSecrets(t, spiffe, 'web')]);
    const [to, inbound, outbound] = [await startApplication(t), await freePort(), await freePort()];
    const allow = [WEB, VISITOR];
    const atServer = await printedBootstrap(t, {
      ...api.config,
      inbound: [{ name: 'in', listen: `127.0.0.1:${inbound}`, to, allow, protocol: 'http' }],
    });
    const atClient = await printedBootstrap(t, {
      ...web.config,
      outbound: [{ name: 'out', listen: `127.0.0.1:${outbound}`, to: `127.0.0.1:${inbound}`, expect: [API] }],
    });
    const envoys = [
      await startEnvoyProcess(t, atServer),
      await startEnvoyProcess(t, atClient.replaceAll('api_type: GRPC', 'api_type: DELTA_GRPC')),
    ];
    const [server, client] = [createHistory(spiffe, 'api'), createHistory(spiffe, 'web')];
    const old = await spiffe.issue(VISITOR);
    let visitor = old;
    /** The SVIDs that the server and the client presented. */
    const present = async (): Promise<{ readonly server: string; readonly client: string }> => {
      const response = await fetch(`http://127.0.0.1:${outbound}/`, { headers: { connection: 'close' } });
      const seen = (await response.json()) as IncomingHttpHeaders;
      const { certificate } = await ask(inbound, visitor);
      return { server: digestOf(certificate), client: /Hash=([0-9a-f]{64})/.exec(String(seen['x-forwarded-client-cert']))?.[1] ?? '' };
    };
    const load = startLoad(t, async (begunMs) => {
      const presented = await present();
      return server.problemWith(presented.server, begunMs) ?? client.problemWith(presented.client, begunMs);
    });
    const noteBoth = (): void => {
      server.note();
      client.note();
    };
    const newestPresented = async (): Promise<void> => {
      await eventually(async () => assert.deepEqual(await present(), { server: server.newest(), client: client.newest() }), {
        withinMs: MAX_AGE_MS,
      });
      // A request that began before may still be under way with the one before.
      await load.round();
    };

    for (let rotation = 0; rotation < 10; rotation += 1) {
      const next = delay(200);
      await spiffe.rotate();
      noteBoth();
      // Each is met by a request, however busy the machine is.
      await Promise.all([next, load.round()]);
    }
    await newestPresented();

    const bundlesTaken = async (): Promise<readonly number[]> =>
      Promise.all(envoys.map((envoy) => envoy.stat(/^sds\.spiffe_example\.org\.update_success$/)));
    const before = await bundlesTaken();
    await spiffe.prepareRoot('example.org');
    await eventually(async () =>
      assert.deepEqual(
        await bundlesTaken(),
        before.map((count) => count + 1),
      ),
    );
    await spiffe.activateRoot('example.org');
    noteBoth();
    visitor = await spiffe.issue(VISITOR);
    await newestPresented();
    await spiffe.retireRoots('example.org');
    // Those that this authority issued are refused now.
    await eventually(() => assert.rejects(ask(inbound, old)));
    await load.round();

    const { requests, failures } = await load.end();
    assert.deepEqual(failures, []);
    assert.deepEqual([...server.unknown(), ...client.unknown()], []);
    assert.ok(requests > 12 && Math.min(server.seen(), client.seen()) > 5, `${requests} requests`);
    for (const envoy of envoys) await assertNoneRejected(envoy);
  },
);
