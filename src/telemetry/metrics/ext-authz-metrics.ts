import { POLICY_REASONS } from '../../policy/verdict.ts';
import { Durations, type DefineDurations } from './durations.ts';
import { CHECK_DENIALS, CHECK_REFUSALS, type CheckRefusal } from '../log/ext-authz-records.ts';
import { countsByLabel, createTally, type Tally } from './tally.ts';
import type { Define } from './text-format.ts';

/** Counted in plain numbers, and read when somebody scrapes. */
export interface CheckMetrics {
  /** Under way. */
  open: number;
  /** The numbers of one listener; '' is that of checks which name none that there is. */
  listener(name: string): CheckedListenerMetrics;
  /** What is counted by the rules of a listener. */
  byRule(name: string): readonly Tally[];
  readonly refused: Record<CheckRefusal, number>;
  readonly durations: Durations;
}

export interface CheckedListenerMetrics {
  /** By the rule that decided; empty if none did. */
  readonly allowed: Tally;
  readonly allowedInAudit: Tally;
  readonly denied: Tally;
  /** By the reason. */
  readonly denials: Tally;
  readonly audited: Tally;
}

export function registerCheckMetrics(counter: Define, gauge: Define, histogram: DefineDurations): CheckMetrics {
  const listeners = new Map<string, CheckedListenerMetrics>();
  const metrics: CheckMetrics = {
    open: 0,
    listener(name) {
      const known = listeners.get(name);
      if (known !== undefined) return known;
      const made = {
        allowed: createTally([]),
        allowedInAudit: createTally([]),
        denied: createTally(['']),
        denials: createTally(CHECK_DENIALS),
        audited: createTally(POLICY_REASONS),
      };
      listeners.set(name, made);
      return made;
    },
    byRule(name) {
      const known = listeners.get(name);
      return known === undefined ? [] : [known.allowed, known.allowedInAudit, known.denied];
    },
    refused: Object.fromEntries(CHECK_REFUSALS.map((reason) => [reason, 0])) as Record<CheckRefusal, number>,
    durations: new Durations(),
  };
  metrics.listener('');
  gauge('ext_authz_open_checks', 'Checks of Envoy under way', [], (add) => add({}, metrics.open));
  counter(
    'ext_authz_checks_total',
    'Checks of Envoy that were answered; rule is the one that decided, empty if none did',
    ['listener', 'decision', 'mode', 'rule'],
    function* (add) {
      for (const [listener, { allowed, allowedInAudit, denied }] of listeners) {
        for (const [rule, count] of countsByLabel(denied)) add({ listener, decision: 'deny', mode: 'enforce', rule }, count);
        for (const [rule, count] of countsByLabel(allowed)) add({ listener, decision: 'allow', mode: 'enforce', rule }, count);
        for (const [rule, count] of countsByLabel(allowedInAudit)) add({ listener, decision: 'allow', mode: 'audit', rule }, count);
        yield;
      }
    },
  );
  counter('ext_authz_denied_total', 'Checks of Envoy that were denied, by reason', ['listener', 'reason'], (add) => {
    for (const [listener, { denials }] of listeners) for (const [reason, count] of denials.entries()) add({ listener, reason }, count);
  });
  counter(
    'ext_authz_audit_passed_total',
    'Checks of Envoy that only audit let pass, by what they would have been denied for',
    ['listener', 'reason'],
    (add) => {
      for (const [listener, { audited }] of listeners) for (const [reason, count] of audited.entries()) add({ listener, reason }, count);
    },
  );
  counter('ext_authz_refused_total', 'Checks of Envoy that ended with an error, by reason', ['reason'], (add) => {
    for (const reason of CHECK_REFUSALS) add({ reason }, metrics.refused[reason]);
  });
  histogram('ext_authz_check_duration_seconds', 'Time from a whole check to its answer', [], () => [
    { labels: {}, durations: metrics.durations },
  ]);
  return metrics;
}
