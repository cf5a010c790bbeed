import { err, ok, type Result } from '../../lib/result.ts';
import type { Effect, Mode, RuleSpec } from '../../policy/rule.ts';
import type { ConfigIssue } from '../issue.ts';
import type { WrittenPolicy } from './policy-text.ts';

type ReadText = Result<WrittenPolicy, readonly ConfigIssue[]>;

/** A policy on its way from one thread to another: whoever gets it makes objects of it a part at a time. */
export type PolicyParcel =
  | {
      readonly ok: true;
      readonly mode: Mode | undefined;
      readonly places: WrittenPolicy['places'];
      /** JSON. */
      readonly rules: Readonly<Record<Effect, readonly string[]>>;
    }
  | { readonly ok: false; readonly error: readonly ConfigIssue[] };

/** Rules that are made at once, and letters of them but for those of the last: less than a millisecond. */
const RULES_A_PART = 100;
const LETTERS_A_PART = 65_536;

export function packPolicy(read: ReadText): PolicyParcel {
  if (!read.ok) return read;
  const { spec, places } = read.value;
  return { ok: true, mode: spec.mode, places, rules: { allow: partsOf(spec.allow), deny: partsOf(spec.deny ?? []) } };
}

function partsOf(rules: readonly (string | RuleSpec)[]): readonly string[] {
  const parts: string[] = [];
  let part: string[] = [];
  let letters = 0;
  for (const rule of rules) {
    const text = JSON.stringify(rule);
    part.push(text);
    letters += text.length;
    if (part.length < RULES_A_PART && letters < LETTERS_A_PART) continue;
    parts.push(`[${part.join()}]`);
    part = [];
    letters = 0;
  }
  if (part.length > 0) parts.push(`[${part.join()}]`);
  return parts;
}

export function* unpackPolicy(parcel: PolicyParcel): Generator<void, ReadText> {
  if (!parcel.ok) return err(parcel.error);
  const { mode, places, rules } = parcel;
  const allow = yield* rulesOf(rules.allow);
  const deny = yield* rulesOf(rules.deny);
  return ok({ spec: { allow, deny, mode }, places });
}

function* rulesOf(parts: readonly string[]): Generator<void, readonly (string | RuleSpec)[]> {
  const rules: (string | RuleSpec)[] = [];
  for (const part of parts) {
    rules.push(...(JSON.parse(part) as readonly (string | RuleSpec)[]));
    yield;
  }
  return rules;
}
