/** What becomes of an open connection: it ends at once; when nothing is under way, or after `drainTimeout`; or it goes on. */
export const ON_CHANGE = ['close', 'drain', 'unsafeKeep'] as const;
export const ON_EXPIRY = ['close', 'drain', 'keep'] as const;

/** What becomes of open connections that would not be let in now. Revocation, and the loss of our identity, always close them. */
export interface LiveRules {
  /** The policy, or a time in it, no longer allows the peer, or what it has under way. */
  readonly onPolicyChange: (typeof ON_CHANGE)[number];
  /** The peer's chain leads to no authority that is trusted. */
  readonly onAuthorityRemoved: (typeof ON_CHANGE)[number];
  /** A certificate on the path of the peer has expired since its handshake. */
  readonly onPeerExpiry: (typeof ON_EXPIRY)[number];
  /** A certificate that we presented in that handshake has. */
  readonly onOwnExpiry: (typeof ON_EXPIRY)[number];
}

export const LIVE_RULES = ['onPolicyChange', 'onAuthorityRemoved', 'onPeerExpiry', 'onOwnExpiry'] as const satisfies (keyof LiveRules)[];

/** Which changes open connections of a listener outlive without end although who would open them now is refused. */
export function unsafeKeepsOf(rules: LiveRules): readonly string[] {
  return (['onPolicyChange', 'onAuthorityRemoved'] as const).filter((key) => rules[key] === 'unsafeKeep');
}
