import { err, ok, type Result } from '../lib/result.ts';
import type { SegmentPattern } from './segment-trie.ts';
import { comparableHost, comparablePath } from './request.ts';

/** `/a/b`, with `*` for one segment, or a last `**` for whatever follows that slash. The error is a sentence. */
export function parsePathPattern(text: string): Result<SegmentPattern, string> {
  if (text === '*') return err('"OPTIONS *" asks for no path: write "/**" for every path');
  if (text.includes('?')) return err('the query takes no part: leave out "?" and what follows');
  const comparable = comparablePath(text);
  if (!comparable.ok) return err(`no request has such a path: ${comparable.error}`);
  if (comparable.value !== text) return err(`requests are compared with upper-case hex: write ${JSON.stringify(comparable.value)}`);
  const segments = text.slice(1).split('/');
  for (const [index, segment] of segments.entries()) {
    if (segment === '**' && index !== segments.length - 1)
      return err('"**" stands for the whole rest of the path, so it can only be the last segment');
    if (segment.includes('*') && segment !== '*' && segment !== '**')
      return err(`a wildcard stands for whole segments, and ${JSON.stringify(segment)} is part of one: write "*"`);
  }
  const hasMore = segments.at(-1) === '**';
  return ok({ segments: (hasMore ? segments.slice(0, -1) : segments).map((segment) => (segment === '*' ? undefined : segment)), hasMore });
}

/** `shop.example.com`, or `*.example.com` for one label. The error is a sentence. */
export function parseHostPattern(text: string): Result<string, string> {
  const name = text.startsWith('*.') ? text.slice(2) : text;
  if (name.includes('*')) return err('a wildcard stands for the first label alone: write "*.example.com"');
  if (/:[0-9]*$/.test(name) && !name.endsWith(']')) return err('the port takes no part: leave it out');
  const comparable = comparableHost(name);
  if (!comparable.ok) return err(`no request has such a host: ${comparable.error}`);
  if (name !== text && /^\[|^[0-9.]+$/.test(name)) return err('an IP address has no labels ahead of it');
  if (comparable.value !== name)
    return err(`hosts are compared in lower case without a final dot: write ${JSON.stringify(comparable.value)}`);
  return ok(text);
}

/** Whether one of `patterns` is `host`, which is comparable. */
export function matchesHost(patterns: ReadonlySet<string>, host: string): boolean {
  if (host === '') return false;
  if (patterns.has(host)) return true;
  const dot = host.indexOf('.');
  return dot > 0 && patterns.has(`*${host.slice(dot)}`);
}
