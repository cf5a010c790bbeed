import type { Policy } from './policy.ts';

/** What of a policy is in audit, a sentence each; none if all of it is enforced. */
export function auditOf({ mode, rules }: Policy): readonly string[] {
  return [
    ...(mode === 'audit' ? ['the whole policy: it denies nobody'] : []),
    ...rules.filter((rule) => rule.mode === 'audit').map(({ text, effect }) => (effect === 'allow' ? `allow ${text}` : text)),
  ];
}
