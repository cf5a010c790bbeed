/** What listeners have in both directions. Pure. */
import * as z from 'zod';
import type { Protocol } from '../config.ts';
import * as field from '../fields.ts';
import { ON_CHANGE, ON_EXPIRY, type LiveRules } from '../policy/live-rules.ts';

export const name = (direction: string) =>
  field.listenerName.optional().meta({
    description: `name in logs and metrics, unique over all listeners; \`${direction}-0\`, \`${direction}-1\` … by position if left out`,
  });

export const alpnProtocols = z
  .array(field.alpnProtocol)
  .refine((protocols) => new Set(protocols).size === protocols.length, 'has a protocol twice');

/** `onExpiry` has another default for each protocol. */
export const liveFields = {
  onPolicyChange: z.enum(ON_CHANGE).prefault('close').meta({
    description:
      'what becomes of an open connection when the policy, or a time in it, no longer allows its peer, or a request that is under way: `close` cuts what is under way; `drain` lets it end, for `drainTimeout` at most, and takes nothing new; `unsafeKeep` lets it go on without end. Further requests are judged by the new policy in any case',
  }),
  onAuthorityRemoved: z.enum(ON_CHANGE).prefault('close').meta({
    description:
      "likewise, when the peer's chain leads to no authority that is still trusted; with `unsafeKeep` its requests go on to be judged by the policy. What is revoked is closed in any case",
  }),
  onPeerExpiry: z.enum(ON_EXPIRY).optional().meta({
    description:
      "likewise, when the peer's SVID, or a certificate above it, expires after the handshake; over HTTP `drain` lets what is under way end, however long it takes, and a client ask once more within 5 seconds. If left out, `drain` for `protocol: http` and `keep` for `tcp`",
  }),
  onOwnExpiry: z.enum(ON_EXPIRY).optional().meta({
    description:
      'likewise, when the SVID expires that we presented in the handshake of that connection, whether or not it has been rotated',
  }),
};

/** A protocol that has moments between requests ends in one; who speaks another would be cut. */
export function liveRulesOf({
  protocol,
  onPolicyChange,
  onAuthorityRemoved,
  onPeerExpiry,
  onOwnExpiry,
}: { readonly protocol: Protocol } & Pick<LiveRules, 'onPolicyChange' | 'onAuthorityRemoved'> & {
    readonly [K in 'onPeerExpiry' | 'onOwnExpiry']?: LiveRules[K] | undefined;
  }): LiveRules {
  const onExpiry = protocol === 'http' ? 'drain' : 'keep';
  return { onPolicyChange, onAuthorityRemoved, onPeerExpiry: onPeerExpiry ?? onExpiry, onOwnExpiry: onOwnExpiry ?? onExpiry };
}
