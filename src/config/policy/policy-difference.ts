import type { Difference } from '../../lib/text-table.ts';
import { changeSince } from '../../policy/id-list.ts';
import type { Policy } from '../../policy/policy.ts';
import { ruleText, type Effect, type RuleSpec } from '../../policy/rule.ts';

/** What one policy has that another has not: rules, and SPIFFE IDs of the lists of both, in one line each. */
export interface PolicyDifference {
  readonly added: Difference;
  readonly removed: Difference;
}

/** Entries that are told of each difference. */
const MAX_TOLD = 20;

/** Rule by rule, whatever their order, a part at a time. */
export function* policyDifference(old: Policy, fresh: Policy): Generator<void, PolicyDifference> {
  const [added, removed] = [new Tally(), new Tally()];
  for (const effect of ['allow', 'deny'] as const) {
    const before = yield* textsOf(effect, old);
    const after = yield* textsOf(effect, fresh);
    yield* added.onlyIn(after, before, effect);
    yield* removed.onlyIn(before, after, effect);
  }
  if (old.mode !== fresh.mode) {
    added.add(`mode ${fresh.mode}`);
    removed.add(`mode ${old.mode}`);
  }
  for (const [file, list] of fresh.lists) {
    const change = changeSince(old.lists.get(file), list);
    if (change === undefined) continue;
    added.addAll(change.added, file);
    removed.addAll(change.removed, file);
  }
  return { added, removed };
}

class Tally implements Difference {
  readonly first: string[] = [];
  count = 0;

  add(text: string): void {
    this.count += 1;
    if (this.first.length < MAX_TOLD) this.first.push(text);
  }

  addAll({ count, first }: Difference, file: string): void {
    this.count += count;
    this.first.push(...first.slice(0, MAX_TOLD - this.first.length).map((id) => `${id} in ${file}`));
  }

  *onlyIn(texts: ReadonlyMap<string, string>, others: ReadonlyMap<string, string>, effect: Effect): Generator<void> {
    for (const [key, text] of texts) {
      if (!others.has(key)) this.add(effect === 'deny' ? text : `allow ${text}`);
      yield;
    }
  }
}

/** What is the same, rule by rule, and how it is told. */
function* textsOf(effect: Effect, { spec }: Policy): Generator<void, ReadonlyMap<string, string>> {
  const specs: readonly (string | RuleSpec)[] = (effect === 'allow' ? spec.allow : spec.deny) ?? [];
  const texts = new Map<string, string>();
  for (const rule of specs) {
    texts.set(JSON.stringify(rule), ruleText(rule, effect));
    yield;
  }
  return texts;
}
