import type { TestContext } from 'node:test';
import { createIdentityStore, type IdentityView } from '../../src/identity/store.ts';
import type { HeldIdentity, IdentitySnapshot, NoIdentity } from '../../src/identity/snapshot.ts';
import { systemClock, type Clock } from '../../src/lib/clock.ts';
import { createWorkloadApiClient } from '../../src/workload-api/client.ts';
import { chooseEndpoint } from '../../src/workload-api/endpoint.ts';
import { createWorkloadApiSource } from '../../src/workload-api/source.ts';
import { eventually } from './eventually.ts';

/** A Workload API source on a real connection, and what it said. Stops with the test. */
export interface SourceHarness {
  readonly view: IdentityView;
  readonly published: readonly IdentitySnapshot[];
  readonly connected: readonly string[];
  readonly failures: readonly { readonly code: string; readonly message: string; readonly retryInMs: number }[];
  readonly rejected: readonly { readonly code: string; readonly message: string }[];
  /** The current snapshot, once it holds an SVID (of this ID). */
  held(id?: string): Promise<HeldIdentity>;
  /** The current snapshot, once it says that there is no identity. */
  none(): Promise<NoIdentity>;
  stop(): Promise<void>;
}

export async function startSource(t: TestContext, endpoint: string, clock: Clock = systemClock, jwt = false): Promise<SourceHarness> {
  const address = chooseEndpoint(undefined, endpoint);
  if (!address.ok) throw new Error(address.error);
  const { view, publisher } = createIdentityStore();
  const published: IdentitySnapshot[] = [];
  const connected: string[] = [];
  const failures: { code: string; message: string; retryInMs: number }[] = [];
  const rejected: { code: string; message: string }[] = [];
  const source = createWorkloadApiSource({
    client: createWorkloadApiClient({ endpoint: address.value, clock }),
    publisher,
    clock,
    random: () => 0.5,
    events: {
      workloadApiConnected: (to) => connected.push(to),
      workloadApiStreamFailed: (error, retryInMs) => failures.push({ ...error, retryInMs }),
      identityUpdated: (snapshot) => published.push(snapshot),
      endpointBundlesUpdated: (snapshot) => published.push(snapshot),
      identityUpdateRejected: (problem) => rejected.push(problem),
    },
    jwt: jwt
      ? {
          bundlesUpdated: (snapshot) => published.push(snapshot),
          bundlesRejected: (problem) => rejected.push(problem),
          streamFailed: (error, retryInMs) => failures.push({ ...error, retryInMs }),
        }
      : undefined,
  });
  await source.start(t.signal);
  const stop = (): Promise<void> => source.stop(AbortSignal.abort());
  t.after(stop);
  return {
    view,
    published,
    connected,
    failures,
    rejected,
    held: (id) =>
      eventually(() => {
        const current = view.current();
        if (current?.kind !== 'held')
          throw new Error(
            `holds no SVID; last failures ${JSON.stringify(failures.slice(-3))}, rejected ${JSON.stringify(rejected.slice(-3))}`,
          );
        if (id !== undefined && current.svids[0].id !== id) throw new Error(`holds ${current.svids[0].id}, not ${id}`);
        return current;
      }),
    none: () =>
      eventually(() => {
        const current = view.current();
        if (current?.kind !== 'none') throw new Error(`is ${current?.kind ?? 'without any answer'}`);
        return current;
      }),
    stop,
  };
}
