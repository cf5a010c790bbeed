import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import type { AllowList } from './rules.ts';
import type { Verdict } from './verdict.ts';

/** Whether `list` admits `peer`, which has been authenticated. The same for both directions: who may connect to us, and whom we accept to reach. */
export function authorise(peer: SpiffeId, list: AllowList): Verdict {
  const rule = list.match(peer);
  if (rule !== undefined) return { allowed: true, peer, rule };
  return {
    allowed: false,
    peer,
    reason: 'not_allowed',
    detail: `${peer} matches none of the ${list.entries.length} entries of the allow list`,
  };
}
