import { parseSpiffeId } from '../spiffe/spiffe-id.ts';
import type { Policy } from './policy.ts';

/** Whether a name that decisions had is still that of a rule of this policy, or says that it was none of them. */
export function isRuleOf(policy: Policy): (name: string) => boolean {
  const texts = new Set(['', 'audit', ...policy.rules.map(({ text }) => text)]);
  return (name) => {
    if (texts.has(name)) return true;
    // A bare SPIFFE ID is one of very many, and asked for as a peer is. If it is denied, it decides nothing any more.
    const id = parseSpiffeId(name);
    if (!id.ok) return policy.bare.includes(name);
    const decision = policy.forPeer(id.value).judgeConnection(0);
    return decision.allowed && decision.rule === name;
  };
}
