/** Bundle endpoints of partners, as a test has them: real HTTPS servers that answer whatever they are told to. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { TestContext } from 'node:test';
import { EMPTY_DENY_LIST, type DenyList } from '../../src/policy/deny-list.ts';
import { createFederationClient, type FederationClient } from '../../src/federation/client.ts';
import type { FederationConfig } from '../../src/config/config.ts';
import type { EndpointBundles, IdentitySnapshot } from '../../src/identity/snapshot.ts';
import { createIdentityStore } from '../../src/identity/store.ts';
import { requireSpiffeId } from '../../src/spiffe/spiffe-id.ts';
import { requireTrustDomain } from './pki/bundles.ts';
import { eventually } from './eventually.ts';
import { FakeClock } from './fake-clock.ts';
import type { TestCertificate } from './pki/pki.ts';
import { startWebServer, type WebServer } from './web-server.ts';

export interface TestEndpoint extends WebServer {
  readonly url: string;
}

/** Shows `certificate` and answers with `body` as JSON, until told otherwise. Ends with the test. */
export async function startEndpoint(t: TestContext, certificate: TestCertificate, body = ''): Promise<TestEndpoint> {
  const server = await startWebServer(t, { certificate });
  server.answer(sendJson(body));
  return { ...server, url: `${server.origin}/bundle` };
}

export function sendJson(body: string): (request: IncomingMessage, response: ServerResponse) => void {
  return (_request, response) => void response.writeHead(200, { 'content-type': 'application/json' }).end(body);
}

/** The bundle that a partner with these authorities publishes. */
export function bundleJson(
  authorities: readonly Pick<TestCertificate, 'keys' | 'der'>[],
  more: { readonly sequence?: number; readonly hint?: number; readonly keys?: readonly object[] } = {},
): string {
  return JSON.stringify({
    ...(more.sequence === undefined ? {} : { spiffe_sequence: more.sequence }),
    ...(more.hint === undefined ? {} : { spiffe_refresh_hint: more.hint }),
    keys: [...authorities.map(x509Key), ...(more.keys ?? [])],
  });
}

export function x509Key({ keys, der }: Pick<TestCertificate, 'keys' | 'der'>): object {
  return { use: 'x509-svid', ...keys.publicKey.export({ format: 'jwk' }), x5c: [der.toString('base64')] };
}

export function spiffeRelation(trustDomain: string, url: string, endpointSpiffeId: string, bundleFile?: string): FederationConfig {
  return {
    trustDomain: requireTrustDomain(trustDomain),
    url,
    profile: { kind: 'https_spiffe', endpointSpiffeId: requireSpiffeId(endpointSpiffeId), bundleFile },
  };
}

export function webRelation(trustDomain: string, url: string, caFile?: string): FederationConfig {
  return { trustDomain: requireTrustDomain(trustDomain), url, profile: { kind: 'https_web', caFile } };
}

/** A client of endpoints whose time is moved by hand, and what it told. */
export interface FederationHarness {
  readonly client: FederationClient;
  readonly clock: FakeClock;
  /** What was published last. */
  bundles(): EndpointBundles;
  readonly published: readonly EndpointBundles[];
  /** Each refresh: `updated`, `unchanged`, or why it failed. */
  readonly results: readonly string[];
  readonly details: readonly string[];
  /** How long it will wait after the last one. */
  readonly waits: readonly number[];
  /** Resolves when so many refreshes are done, with the last one's result. */
  refreshed(count: number): Promise<string>;
  /** Moves time to the next refresh, and resolves to its result. */
  next(): Promise<string>;
  setIdentity(snapshot: IdentitySnapshot): void;
}

export async function startFederation(
  t: TestContext,
  relations: readonly FederationConfig[],
  identity?: IdentitySnapshot,
  denyList: () => DenyList = () => EMPTY_DENY_LIST,
): Promise<FederationHarness> {
  const clock = new FakeClock();
  const store = createIdentityStore();
  if (identity !== undefined) store.publisher.publish(identity);
  const published: EndpointBundles[] = [];
  const results: string[] = [];
  const details: string[] = [];
  const waits: number[] = [];
  const done = (result: string, waitMs: number): void => {
    results.push(result);
    waits.push(waitMs);
  };
  const client = createFederationClient({
    relations,
    identity: store.view,
    publish: (bundles) => published.push(bundles),
    denyList,
    clock,
    random: () => 0,
    events: {
      relation: () => undefined,
      bundleTaken: (_domain, _taken, waitMs) => done('updated', waitMs),
      bundleUnchanged: (_domain, waitMs) => done('unchanged', waitMs),
      refreshFailed(_domain, { reason, detail }, waitMs) {
        details.push(detail);
        done(reason, waitMs);
      },
      documentChanged: () => undefined,
      endpointAsked: () => undefined,
      endpointFiles: () => undefined,
    },
  });
  t.after(() => client.stop(AbortSignal.abort()));
  await client.start(t.signal);
  const refreshed = (count: number): Promise<string> =>
    eventually(() => {
      const result = results[count - 1];
      if (result === undefined) throw new Error(`${results.length} refreshes, not ${count}: ${results.join()} ${details.join('; ')}`);
      return result;
    });
  return {
    client,
    clock,
    bundles: () => published.at(-1) ?? new Map(),
    published,
    results,
    details,
    waits,
    refreshed,
    next() {
      const count = results.length + 1;
      clock.advance(waits.at(-1) ?? 0);
      return refreshed(count);
    },
    setIdentity: (snapshot) => store.publisher.publish(snapshot),
  };
}
