/** Who may ask a status listener for what. Pure: what a page in the user's own browser could send must not get through. */
import { isIPv4, isIPv6 } from 'node:net';
import type { StatusRefusal } from '../telemetry/log/records.ts';

/** What a browser says of where a request comes from. */
export interface RequestOrigin {
  readonly host: string;
  readonly origin: string | undefined;
  /** `Sec-Fetch-Site`. */
  readonly site: string | undefined;
}

/** An IP literal, `localhost` or one of the names, each with or without a port. */
export function isHostAllowed(host: string, allowedHosts: ReadonlySet<string>): boolean {
  const [, bracketed, name] = /^(?:\[([0-9a-f:.]+)\]|([^:[\]@/\s]+))(?::\d{1,5})?$/i.exec(host) ?? [];
  if (bracketed !== undefined) return isIPv6(bracketed);
  if (name === undefined) return false;
  return isIPv4(name) || name.toLowerCase() === 'localhost' || allowedHosts.has(name.toLowerCase());
}

/** For what no page but one of our own may ask. Browsers say where a request comes from; programs say nothing. */
export function crossSiteProblem({
  host,
  origin,
  site,
}: RequestOrigin): { readonly reason: StatusRefusal; readonly detail: string } | undefined {
  if (origin !== undefined && origin.toLowerCase() !== `http://${host.toLowerCase()}`)
    return { reason: 'foreign_origin', detail: `origin ${JSON.stringify(origin)} may not do this` };
  if (site !== undefined && site !== 'same-origin' && site !== 'none')
    return { reason: 'cross_site', detail: 'a page of another site may not do this' };
  return undefined;
}
