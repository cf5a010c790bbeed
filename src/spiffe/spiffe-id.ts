import { err, ok, type Result } from '../lib/result.ts';
import { parseTrustDomain, type TrustDomain, type TrustDomainProblem } from './trust-domain.ts';

declare const spiffeIdBrand: unique symbol;
/** A valid SPIFFE ID (SPIFFE-ID standard, section 2). Compare with ===; safe as a Map key and in logs. */
export type SpiffeId = string & { readonly [spiffeIdBrand]: true };

export type SpiffeIdProblem =
  | 'wrong_scheme'
  | 'too_long'
  | TrustDomainProblem
  | 'trailing_slash'
  | 'empty_segment'
  | 'dot_segment'
  | 'bad_path_character';

const SCHEME = 'spiffe://';
/** SPIFFE-ID, section 2.3: 2048 bytes must be supported, and issuers should not exceed them. */
const MAX_SPIFFE_ID_LENGTH = 2048;

/** Parses a SPIFFE ID with or without a path. User info, port, query, fragment and percent-encoding all fail as characters that are not allowed. */
export function parseSpiffeId(text: string): Result<SpiffeId, SpiffeIdProblem> {
  if (!text.startsWith(SCHEME)) return err('wrong_scheme');
  if (text.length > MAX_SPIFFE_ID_LENGTH) return err('too_long');
  const slash = text.indexOf('/', SCHEME.length);
  const domain = parseTrustDomain(slash === -1 ? text.slice(SCHEME.length) : text.slice(SCHEME.length, slash));
  if (!domain.ok) return domain;
  if (slash !== -1) {
    const problem = pathProblem(text.slice(slash));
    if (problem !== undefined) return err(problem);
  }
  return ok(text as SpiffeId);
}

/** As `parseSpiffeId`, for text that the program itself wrote. Throws an Error that names the value. */
export function requireSpiffeId(text: string): SpiffeId {
  const parsed = parseSpiffeId(text);
  if (!parsed.ok) throw new Error(`${JSON.stringify(text)} is not a SPIFFE ID: ${parsed.error}`);
  return parsed.value;
}

export function trustDomainOf(id: SpiffeId): TrustDomain {
  const slash = id.indexOf('/', SCHEME.length);
  return (slash === -1 ? id.slice(SCHEME.length) : id.slice(SCHEME.length, slash)) as TrustDomain;
}

/** The path with its leading slash; empty for a trust domain's own ID. */
export function pathOf(id: SpiffeId): string {
  const slash = id.indexOf('/', SCHEME.length);
  return slash === -1 ? '' : id.slice(slash);
}

/** The SPIFFE ID of a trust domain itself: no path. */
export function trustDomainId(domain: TrustDomain): SpiffeId {
  return `${SCHEME}${domain}` as SpiffeId;
}

/** `path` begins with a slash. One rule of section 2.2 a line. */
function pathProblem(path: string): SpiffeIdProblem | undefined {
  if (path.endsWith('/')) return 'trailing_slash';
  for (const segment of path.slice(1).split('/')) {
    if (segment === '') return 'empty_segment';
    if (segment === '.' || segment === '..') return 'dot_segment';
    if (!/^[a-zA-Z0-9._-]+$/.test(segment)) return 'bad_path_character';
  }
  return undefined;
}
