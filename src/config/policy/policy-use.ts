import type { Policy } from '../../policy/policy.ts';
import type { Config, InboundConfig, OutboundConfig } from '../config.ts';
import { asksOfRequest, type Effect } from '../../policy/rule.ts';

/** A listener that takes its policy from a file which others may share. */
export interface PolicyUse {
  /** `inbound web`. */
  readonly listener: string;
  readonly direction: 'inbound' | 'outbound';
  readonly protocol: 'tcp' | 'http';
  /** It looks at JWT-SVIDs. */
  readonly hasTokens: boolean;
}

export interface UseProblem {
  /** Undefined: it is about the policy as a whole. */
  readonly rule: { readonly effect: Effect; readonly index: number } | undefined;
  readonly message: string;
}

/** Each listener that takes its policy from a file, by that file. */
export function usesOf({ inbound, outbound }: Config): readonly (PolicyUse & { readonly file: string; readonly policy: Policy })[] {
  const uses = (direction: PolicyUse['direction'], listeners: readonly (InboundConfig | OutboundConfig)[]) =>
    listeners.flatMap((config) => {
      const { name, protocol, policy, policyFile: file } = config;
      const hasTokens = 'jwt' in config && config.jwt !== undefined;
      return file === undefined ? [] : [{ file, policy, listener: `${direction} ${name}`, direction, protocol, hasTokens }];
    });
  return [...uses('inbound', inbound), ...uses('outbound', outbound)];
}

/** A sentence each, with where the rule is written. */
export function describeUseProblems(policy: Policy, use: PolicyUse, file: string): readonly string[] {
  return useProblems(policy, use).map(({ rule, message }) => {
    const place = rule === undefined ? undefined : policy.placeOf(rule.effect, rule.index);
    return `${place ?? file}: ${message}`;
  });
}

const WHOLE_TRUST_DOMAIN = /^spiffe:\/\/[^/]+\/\*\*$/;

/** What of a policy cannot be for this listener, though it may be for others. */
export function useProblems(policy: Policy, { listener, direction, protocol, hasTokens }: PolicyUse): readonly UseProblem[] {
  const problems: UseProblem[] = [];
  if (protocol === 'tcp') {
    for (const rule of policy.rules)
      if (asksOfRequest({ ...rule, subject: undefined }))
        problems.push({
          rule,
          message: `methods, paths and hosts are for protocol: http, and ${listener}, where nobody sees requests, uses this file`,
        });
  }
  if (!hasTokens)
    for (const rule of policy.rules)
      if (rule.subject !== undefined)
        problems.push({
          rule,
          message: `subject is for inbound listeners with jwt, and ${listener}, where nobody looks at tokens, uses this file`,
        });
  if (direction === 'inbound') return problems;
  const audit = `audit is for inbound, and ${listener} uses this file: outbound, it would send data to whoever answers`;
  if (policy.mode === 'audit') problems.push({ rule: undefined, message: audit });
  for (const rule of policy.rules) if (rule.mode === 'audit') problems.push({ rule, message: audit });
  for (const [index, spec] of policy.spec.allow.entries()) {
    const peer = typeof spec === 'string' ? spec : spec.peer;
    if (peer !== undefined && WHOLE_TRUST_DOMAIN.test(peer))
      problems.push({
        rule: { effect: 'allow', index },
        message: `${JSON.stringify(peer)} is any server of the trust domain, and ${listener}, which is outbound, uses this file`,
      });
  }
  return problems;
}
