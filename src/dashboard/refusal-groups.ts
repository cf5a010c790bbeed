/** Refusals that say the same, told once. Pure. */
import type { Refusal } from '../admin/api-types.ts';
import type { PolicyAnswer, PolicyRefusal } from './policy-types.ts';

export interface RefusalGroup {
  readonly key: string;
  /** The newest of them. */
  readonly newest: Refusal;
  readonly count: number;
  /** Addresses, each once, without ports. */
  readonly from: readonly string[];
}

/** Newest first, as `refusals` are. Who proved an identity is told by it; strangers are told by what was wrong. */
export function groupRefusals(refusals: readonly Refusal[]): readonly RefusalGroup[] {
  const groups = new Map<string, { newest: Refusal; count: number; from: Set<string> }>();
  for (const refusal of refusals) {
    const key = JSON.stringify([refusal.reason, refusal.listener.direction, refusal.listener.name, refusal.peer ?? '', refusal.rule ?? '']);
    const group = groups.get(key) ?? { newest: refusal, count: 0, from: new Set<string>() };
    groups.set(key, group);
    group.count += 1;
    group.from.add(hostOf(refusal.downstreamAddress));
  }
  return [...groups].map(([key, { newest, count, from }]) => ({ key, newest, count, from: [...from] }));
}

function hostOf(address: string): string {
  return address.replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1');
}

/** What the policy knows of the same peer on the same listener: the rule that nearly allows it, and the one that would. */
export function explanationOf(policy: PolicyAnswer | undefined, { peer, listener }: Refusal): PolicyRefusal | undefined {
  const of = policy?.listeners.find(({ name, direction }) => name === listener.name && direction === listener.direction);
  return of?.denied.find((denied) => denied.peer === peer);
}
