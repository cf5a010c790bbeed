import type { Address } from '../config/units.ts';
import type { SvidChoice } from '../identity/snapshot.ts';
import { createIdentityStore } from '../identity/store.ts';
import type { Clock } from '../lib/clock.ts';
import { err, ok, type Result } from '../lib/result.ts';
import { createTlsContexts, type OwnIdentity } from '../tls/contexts.ts';
import { createWorkloadApiClient } from '../workload-api/client.ts';
import { createWorkloadApiSource } from '../workload-api/source.ts';
import { FirstAnswer } from './first-answer.ts';

/** An SVID of whoever asks, from the Workload API, with the bundles that came with it. The error says in a sentence why there is none. */
export async function fetchOwnIdentity({
  endpoint,
  choice,
  clock,
  timeoutMs,
  stopped,
}: {
  readonly endpoint: Address;
  readonly choice: SvidChoice;
  readonly clock: Clock;
  readonly timeoutMs: number;
  readonly stopped: AbortSignal;
}): Promise<Result<OwnIdentity, string>> {
  const { view, publisher } = createIdentityStore();
  const contexts = createTlsContexts(view);
  const client = createWorkloadApiClient({ endpoint, clock });
  const first = new FirstAnswer();
  const source = createWorkloadApiSource({
    client,
    publisher,
    clock,
    random: Math.random,
    events: {
      workloadApiConnected: () => undefined,
      workloadApiStreamFailed: ({ message }) => first.failed(`${client.endpoint}: ${message}`),
      identityUpdated: () => first.came(),
      endpointBundlesUpdated: () => undefined,
      identityUpdateRejected: ({ message }) => first.failed(`the Workload API gives an SVID that cannot be used: ${message}`),
    },
  });
  await source.start(first.over);
  const told = await first.wait({ clock, timeoutMs, stopped }, () => source.stop(AbortSignal.abort()));
  if (!told.ok) return told;
  if (view.current() === undefined) return err(`the Workload API at ${client.endpoint} gave nothing within ${timeoutMs} ms`);
  const own = contexts.own(choice, clock.now());
  return 'detail' in own ? err(own.detail) : ok(own);
}
