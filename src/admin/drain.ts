import type { Result } from '../lib/result.ts';
import { parseSpiffeId, trustDomainOf, type SpiffeId } from '../spiffe/spiffe-id.ts';
import { parseTrustDomain, type TrustDomain } from '../spiffe/trust-domain.ts';
import { json, plain, type Reply } from './http.ts';

/** Whose connections are to be drained: of the peer, or of all peers of the trust domain; through the listener, or through any. */
export interface DrainSelection {
  readonly peer: SpiffeId | undefined;
  readonly trustDomain: TrustDomain | undefined;
  readonly listener: string | undefined;
}

const USAGE = 'the body must be {"peer": SPIFFE_ID} or {"trustDomain": NAME}, each with or without "listener", or {"listener": NAME}';
const KEYS: ReadonlySet<string> = new Set(['peer', 'trustDomain', 'listener']);

/** Answers `POST /drain`. `begin` returns how many connections begin to drain. */
export function answerDrain(body: unknown, hasListener: (name: string) => boolean, begin: (selection: DrainSelection) => number): Reply {
  const selection = readSelection(body);
  if (!selection.ok) return plain(400, selection.error);
  const { listener } = selection.value;
  if (listener !== undefined && !hasListener(listener)) return plain(404, `there is no listener ${JSON.stringify(listener)}`);
  return json(200, { draining: begin(selection.value) });
}

export function isSelected({ peer, trustDomain }: DrainSelection, id: SpiffeId): boolean {
  return (peer === undefined || id === peer) && (trustDomain === undefined || trustDomainOf(id) === trustDomain);
}

/** Strict: what is not understood must not drain more than was meant. */
function readSelection(body: unknown): Result<DrainSelection, string> {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) return { ok: false, error: USAGE };
  const given = new Map<string, unknown>(Object.entries(body));
  const [peer, trustDomain, listener] = [given.get('peer'), given.get('trustDomain'), given.get('listener')];
  if (given.size === 0 || given.keys().some((key) => !KEYS.has(key)) || (given.has('peer') && given.has('trustDomain')))
    return { ok: false, error: USAGE };
  const id = given.has('peer') ? parsed('peer', peer, parseSpiffeId) : NONE;
  if (!id.ok) return id;
  const domain = given.has('trustDomain') ? parsed('trustDomain', trustDomain, parseTrustDomain) : NONE;
  if (!domain.ok) return domain;
  const name = given.has('listener') ? parsed('listener', listener, (text) => ({ ok: true, value: text })) : NONE;
  if (!name.ok) return name;
  return { ok: true, value: { peer: id.value, trustDomain: domain.value, listener: name.value } };
}

const NONE = { ok: true, value: undefined } as const;

function parsed<T>(key: string, value: unknown, parse: (text: string) => Result<T, string>): Result<T, string> {
  if (typeof value !== 'string') return { ok: false, error: `${key} must be a string` };
  const result = parse(value);
  return result.ok ? result : { ok: false, error: `${key} ${JSON.stringify(value)}: ${result.error}` };
}
