import { formatIp, parseIp } from '../lib/ip.ts';
import { err, ok, type Result } from '../lib/result.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';

/** What a rule may ask of a request, in the one form in which rules compare it. */
export interface RequestFacts {
  readonly method: string;
  /** As `comparablePath` gives it. */
  readonly path: string;
  /** As `comparableHost` gives it; empty if there is none. */
  readonly host: string;
  /** Whose JWT-SVID it has; undefined if it has none. */
  readonly subject?: SpiffeId | typeof UNKNOWN_SUBJECT | undefined;
}

/** Nobody looked for a token: a rule that allows for a subject allows nothing then, and one that denies for one denies. */
export const UNKNOWN_SUBJECT = 'unknown' as const;

const SLASH = 47;
const PERCENT = 37;
/** Unreserved characters (RFC 3986, section 2.3): 1. Encoded, they are another spelling of themselves (section 6.2.2.2). */
const UNRESERVED = new Uint8Array(256);
for (let byte = 0; byte < 256; byte++) if (/[A-Za-z0-9._~-]/.test(String.fromCharCode(byte))) UNRESERVED[byte] = 1;

/**
 * The path of a request target (RFC 9112, section 3.2), without its query, as rules compare it: `%XX` in upper case, all
 * else as it was sent. What servers are known to read in more than one way is no path for a rule to judge, and is refused:
 * the error says why.
 */
export function comparablePath(target: string): Result<string, string> {
  const query = target.indexOf('?');
  const path = query === -1 ? target : target.slice(0, query);
  if (path === '*') return ok(path);
  if (path.charCodeAt(0) !== SLASH) return err('the path does not begin with "/"');
  let isPlain = true;
  for (let at = 0; at < path.length; at++) {
    const byte = path.charCodeAt(at);
    if (byte <= 32 || byte >= 127) return err('the path has a byte outside of visible ASCII');
    switch (byte) {
      case 92:
        return err('the path has a backslash');
      case 59:
        return err('the path has a ";"');
      case 35:
        return err('the path has a "#"');
      case PERCENT: {
        const problem = encodingProblem(path, at);
        if (problem !== undefined) return err(problem);
        isPlain = false;
        at += 2;
        break;
      }
      case SLASH: {
        const problem = segmentProblem(path, at + 1);
        if (problem !== undefined) return err(problem);
      }
    }
  }
  if (isPlain) return ok(path);
  const comparable = path.replaceAll(/%[0-9A-Fa-f]{2}/g, (encoded) => encoded.toUpperCase());
  return OVERLONG.test(comparable) ? err('the path has UTF-8 that is too long, which servers read in more than one way') : ok(comparable);
}

/**
 * More bytes than a character takes: some decoders find "/", "." or a letter in them (RFC 3629, section 10). No text of UTF-8 has these, and
 * none of an older encoding of 8 bits but for 0xC0 and 0xC1, of which the worst decoders take anything for the second byte.
 */
const OVERLONG = /%(?:C[01]|E0%[89]|F0%8|F[89A-F]%[89AB])/;

/**
 * Of a target and the rules for hosts: many parsers of URLs find a host in one that begins so, since URLs may be relative to
 * a scheme (RFC 3986, section 4.2), and browsers' take "\\" for "/".
 */
export function namesAnotherHost(target: string): boolean {
  return /^\/[/\\]/.test(target);
}

function encodingProblem(path: string, at: number): string | undefined {
  const digits = path.slice(at + 1, at + 3);
  if (!/^[0-9A-Fa-f]{2}$/.test(digits)) return 'the path has a "%" that encodes nothing';
  const byte = Number.parseInt(digits, 16);
  // Encoded: NUL, "%", "/", "\" and every unreserved character, "." among them.
  if (byte === 0 || byte === PERCENT || byte === SLASH || byte === 92 || UNRESERVED[byte] === 1)
    return `the path has %${digits.toUpperCase()}, which servers read in more than one way`;
  return undefined;
}

/** Of the segment that begins at `from`. */
function segmentProblem(path: string, from: number): string | undefined {
  const first = path.charCodeAt(from);
  if (first === SLASH) return 'the path has an empty segment';
  if (first !== 46) return undefined;
  const length = segmentEnd(path, from) - from;
  return length === 1 || (length === 2 && path.charCodeAt(from + 1) === 46) ? 'the path has a dot segment' : undefined;
}

function segmentEnd(path: string, from: number): number {
  const slash = path.indexOf('/', from);
  return slash === -1 ? path.length : slash;
}

/**
 * The host of an authority (`:authority`, Host, or that of a target in absolute form) as rules compare it: in lower case,
 * without port and final dot, an IPv6 address in its shortest form. The error says why it is none that a rule can judge.
 */
export function comparableHost(authority: string): Result<string, string> {
  const bracket = authority.lastIndexOf(']');
  const colon = authority.indexOf(':', bracket + 1);
  if (colon !== -1 && !PORT.test(authority.slice(colon + 1))) return err('the port of the host is not a number');
  const host = (colon === -1 ? authority : authority.slice(0, colon)).toLowerCase();
  const name = host.endsWith('.') ? host.slice(0, -1) : host;
  if (name === '') return err('the request names no host');
  if (HOST_NAME.test(name) && (!NUMBER_AT_END.test(name) || parseIp(name) !== undefined)) return ok(name);
  const address = name.startsWith('[') && name.endsWith(']') && !name.includes('%') ? parseIp(name.slice(1, -1)) : undefined;
  // One of IPv4 in brackets is the same to some and another to others.
  return address?.length === 16 ? ok(`[${formatIp(address)}]`) : err('the host has a form that servers read in more than one way');
}

/** RFC 3986, section 3.2.3: it may be empty. */
const PORT = /^[0-9]{0,5}$/;
/** Labels of letters, digits, "-" and "_". Percent-encoding, which RFC 3986 allows, would be another spelling of a name. */
const HOST_NAME = /^[a-z0-9_-]+(?:\.[a-z0-9_-]+)*$/;
/** Parsers of URLs take such a name for an address of IPv4, in parts that may be hexadecimal or octal, or left out. */
const NUMBER_AT_END = /(?:^|\.)(?:[0-9]+|0x[0-9a-f]*)$/;
