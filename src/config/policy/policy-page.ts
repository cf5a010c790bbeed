/** What `GET /policy` of the admin listener answers: what the process writes and `scute audit` reads. */
import * as z from 'zod';
import { POLICY_REASONS } from '../../policy/verdict.ts';

/** A rule of the policy: `index` is its place among those of its effect, as they were written. */
const rule = z.object({ effect: z.enum(['allow', 'deny']), index: z.int().min(0), text: z.string() });

const count = z.int().min(0);
const outcomes = z.object({ passed: count, refused: count });

/** The same request, or connection, of the same peer, however often. */
const refusal = z.object({
  peer: z.string(),
  /** Each null if the rules did not ask for it, and all where they are about peers alone. */
  method: z.string().nullable(),
  path: z.string().nullable(),
  host: z.string().nullable(),
  /** Whose token it had; null also if it had none. */
  subject: z.string().nullable(),
  reason: z.enum(POLICY_REASONS),
  /** The rule that denies. */
  rule: rule.nullable(),
  /** The rule in audit that admits; null also if the whole policy is in audit. */
  passes_by: rule.nullable(),
  /** The rule that nearly allows it, and what it lacks. */
  near: z.object({ rule, text: z.string() }).nullable(),
  ...outcomes.shape,
  first_at: z.string().nullable(),
  last_at: z.string().nullable(),
  /** The policy would allow it at this moment, though not at the last one. */
  allowed_now: z.boolean(),
  /** An entry for the list of rules that allow, in YAML, for exactly this; or why there is none. */
  rule_to_allow: z.string().nullable(),
  no_rule: z.string().nullable(),
});

const listener = z.object({
  name: z.string(),
  direction: z.enum(['inbound', 'outbound']),
  mode: z.enum(['enforce', 'audit']),
  /** How much is in audit, and the first of it in words. */
  audit_rules: count,
  in_audit: z.array(z.string()),
  /** `connections`: how many it decided about; null if that was not counted, since there are too many rules. */
  rules: z.array(rule.extend({ mode: z.enum(['enforce', 'audit']), connections: count.nullable() })),
  /** There, but not in this answer. */
  rules_omitted: count,
  /** Only audit lets it pass; the newest first. */
  would_deny: z.array(refusal),
  denied: z.array(refusal),
  /** Of both: known, but not in this answer. */
  omitted: count,
  /** How often there was something that is not known by itself any more. */
  not_listed: outcomes,
  /** The same of peers that are listed with something else. */
  partly_listed: z.array(outcomes.extend({ peer: z.string() })),
  /** Entries for the list of rules that allow, in YAML: all of `would_deny` that a rule can allow. */
  rules_to_copy: z.array(z.string()),
});

export const policyPageSchema = z.object({ now: z.string().nullable(), listeners: z.array(listener) });

export type PolicyPage = z.output<typeof policyPageSchema>;
export type ListenerPage = PolicyPage['listeners'][number];
export type RefusalLine = ListenerPage['would_deny'][number];
export type RuleLine = z.output<typeof rule>;
