import { chooseSvid, type IdentitySnapshot } from '../identity/snapshot.ts';

/** One line for `systemctl status`: who we are and until when, or what is missing. `failing` are the checks that fail and block. */
export function statusLine(snapshot: IdentitySnapshot | undefined, failing: readonly string[]): string {
  const svid = chooseSvid(snapshot, { by: 'default' });
  const leaf = svid?.chain[0];
  const identity = svid === undefined || leaf === undefined ? 'no identity' : `${svid.id} until ${isoTime(leaf.notAfterMs)}`;
  return failing.length === 0 ? identity : `${identity}; not ready: ${failing.join(', ')}`;
}

/** Certificates may carry dates that JavaScript cannot write. */
function isoTime(ms: number): string {
  const date = new Date(ms);
  return Number.isNaN(date.getTime()) ? 'an unknown time' : date.toISOString();
}
