import type { Clock } from '../../lib/clock.ts';
import { factsOf } from '../../policy/judge.ts';
import type { Policy } from '../../policy/policy.ts';
import { asksOfRequests, decisionOn, type Refused } from '../../policy/refusal.ts';
import { UNKNOWN_SUBJECT, type RequestFacts } from '../../policy/request.ts';
import type { PolicyReason } from '../../policy/verdict.ts';
import { trustDomainOf, type SpiffeId } from '../../spiffe/spiffe-id.ts';
import type { TrustDomain } from '../../spiffe/trust-domain.ts';
import type { ListenerRef } from './records.ts';
import { scrubText } from './scrub.ts';

/** The same thing of the same peer, however often. Times are wall time in milliseconds. */
export interface RefusalEntry extends Refused {
  /** At the last time. */
  readonly reason: PolicyReason;
  /** How often only audit let it pass. */
  readonly passed: number;
  /** How often it was refused. */
  readonly refused: number;
  readonly firstMs: number;
  readonly lastMs: number;
}

/** How often there was something that has no entry of its own. */
export interface Unlisted {
  readonly passed: number;
  readonly refused: number;
}

/** Of one listener. */
export interface ListedRefusals {
  /** The newest first. */
  readonly entries: readonly RefusalEntry[];
  readonly unlisted: Unlisted;
  /** Of peers that have entries, too. */
  readonly unlistedOf: ReadonlyMap<SpiffeId, Unlisted>;
}

/** What happened, of a peer that has proven who it is. */
export interface RefusalEvent {
  readonly peer: SpiffeId;
  readonly reason: PolicyReason;
  /** It was refused; if not, only audit let it pass. */
  readonly isEnforced: boolean;
  /** As it came; undefined: a connection. */
  readonly request:
    | { readonly method: string; readonly target: string; readonly host: string; readonly subject?: RequestFacts['subject'] }
    | undefined;
}

/** Who was refused what by which listener, and what audit alone let pass: bounded, whatever peers ask for. */
export interface Refusals {
  /** `policy` is the one in force, which may be newer than the one that said so. Takes the same time however much there is. */
  record(listener: ListenerRef, policy: Policy, event: RefusalEvent): void;
  /** From now on `policy` is in force: what it would have allowed, or cannot say, is forgotten, and what has no entry is counted anew. */
  policyChanged(listener: ListenerRef, policy: Policy): void;
  list(listener: ListenerRef): ListedRefusals;
}

/** Of one listener. */
export const MOST_REFUSALS = 1000;
/** A peer has at most this part of what its entries leave free: some 60, and fewer when there are many such peers. */
const PEER_SHARE = 1 / 16;
/** An entry that is not seen for that long makes room for another. */
const STALE_MS = 86_400_000;
const MAX_PATH = 512;
const MAX_HOST = 255;

const NOTHING: ListedRefusals = { entries: [], unlisted: { passed: 0, refused: 0 }, unlistedOf: new Map() };

export function createRefusals(clock: Clock): Refusals {
  const records = new Map<string, RefusalRecord>();
  const keyOf = ({ direction, name }: ListenerRef): string => `${direction} ${name}`;
  return {
    record(listener, policy, event) {
      const note = noteOf(policy, event);
      if (note === undefined) return;
      const key = keyOf(listener);
      let record = records.get(key);
      if (record === undefined) records.set(key, (record = new RefusalRecord()));
      record.add(event, note, clock.now());
    },
    policyChanged: (listener, policy) => records.get(keyOf(listener))?.policyChanged(policy),
    list: (listener) => records.get(keyOf(listener))?.list() ?? NOTHING,
  };
}

/**
 * What is kept of a request: what the rules asked for, without its query, which may hold secrets, and nothing that looks like
 * one. Undefined: by now it would be refused before any rule.
 */
function noteOf(policy: Policy, { request }: RefusalEvent): Note | undefined {
  if (request === undefined || !asksOfRequests(policy)) return { request: undefined, isWhole: true };
  const facts = factsOf(policy, request.method, request.target, request.host, request.subject);
  if (typeof facts === 'string') return undefined;
  const kept: RequestFacts = {
    method: facts.method.slice(0, MAX_HOST),
    path: cut(scrubText(facts.path), MAX_PATH),
    host: cut(scrubText(facts.host), MAX_HOST),
    subject: policy.asksForSubject ? facts.subject : UNKNOWN_SUBJECT,
  };
  const isWhole = kept.method === facts.method && kept.path === facts.path && kept.host === facts.host;
  return { request: kept, isWhole };
}

function cut(text: string, length: number): string {
  return text.length > length ? `${text.slice(0, length)}…` : text;
}

type Note = Pick<Refused, 'request' | 'isWhole'>;
type Entry = { -readonly [K in keyof RefusalEntry]: RefusalEntry[K] };
type Count = { -readonly [K in keyof Unlisted]: Unlisted[K] };

/**
 * The entries of one listener. Nobody takes the place of another: a new one needs room that is left over, of which a peer can
 * fill a sixteenth, and a trust domain the half, so that there is always some for others.
 */
class RefusalRecord {
  /** By peer and request; the one that was seen last is the last. */
  readonly #entries = new Map<string, Entry>();
  /** Those that have entries. */
  readonly #peers = new Map<SpiffeId, { entries: number; readonly unlisted: Count }>();
  readonly #domains = new Map<TrustDomain, number>();
  #unlisted: Count = { passed: 0, refused: 0 };

  add({ peer, reason, isEnforced }: RefusalEvent, note: Note, nowMs: number): void {
    const key = keyOf(peer, note);
    const outcome = isEnforced ? 'refused' : 'passed';
    const known = this.#entries.get(key);
    if (known !== undefined) {
      this.#entries.delete(key);
      this.#entries.set(key, known);
      known[outcome]++;
      known.reason = reason;
      known.lastMs = nowMs;
      return;
    }
    if (!this.#hasRoom(peer)) {
      this.#dropStale(nowMs);
      if (!this.#hasRoom(peer)) {
        this.#unlisted[outcome]++;
        const count = this.#peers.get(peer)?.unlisted;
        if (count !== undefined) count[outcome]++;
        return;
      }
    }
    const entry: Entry = { peer, ...copyOf(note), reason, passed: 0, refused: 0, firstMs: nowMs, lastMs: nowMs };
    entry[outcome]++;
    this.#entries.set(key, entry);
    this.#count(peer, 1);
  }

  #hasRoom(peer: SpiffeId): boolean {
    const free = MOST_REFUSALS - this.#entries.size;
    return (this.#peers.get(peer)?.entries ?? 0) < free * PEER_SHARE && (this.#domains.get(trustDomainOf(peer)) ?? 0) < free;
  }

  #count(peer: SpiffeId, change: 1 | -1): void {
    const domain = trustDomainOf(peer);
    const ofDomain = (this.#domains.get(domain) ?? 0) + change;
    if (ofDomain > 0) this.#domains.set(domain, ofDomain);
    else this.#domains.delete(domain);
    const ofPeer = this.#peers.get(peer) ?? { entries: 0, unlisted: { passed: 0, refused: 0 } };
    ofPeer.entries += change;
    if (ofPeer.entries > 0) this.#peers.set(peer, ofPeer);
    else this.#peers.delete(peer);
  }

  #drop(key: string, { peer }: Entry): void {
    this.#entries.delete(key);
    this.#count(peer, -1);
  }

  #dropStale(nowMs: number): void {
    const [oldest] = this.#entries;
    if (oldest !== undefined && oldest[1].lastMs <= nowMs - STALE_MS) this.#drop(...oldest);
  }

  policyChanged(policy: Policy): void {
    this.#unlisted = { passed: 0, refused: 0 };
    for (const [key, entry] of this.#entries) {
      const decision = decisionOn(policy, entry, entry.lastMs);
      if (decision === undefined || (decision.allowed && decision.audited === undefined)) this.#drop(key, entry);
    }
    for (const { unlisted } of this.#peers.values()) Object.assign(unlisted, this.#unlisted);
  }

  list(): ListedRefusals {
    const unlistedOf = [...this.#peers].flatMap(([peer, { unlisted }]): [SpiffeId, Unlisted][] =>
      unlisted.passed + unlisted.refused === 0 ? [] : [[peer, { ...unlisted }]],
    );
    return {
      entries: [...this.#entries.values()].toReversed().map((entry) => ({ ...entry })),
      unlisted: { ...this.#unlisted },
      unlistedOf: new Map(unlistedOf),
    };
  }
}

/** With texts of their own: V8 keeps the whole of a text for a part of it, and with the path all that came behind it. */
function copyOf({ request, isWhole }: Note): Note {
  if (request === undefined) return { request, isWhole };
  const copied = (text: string): string => Buffer.from(text).toString();
  const { subject } = request;
  return { request: { method: copied(request.method), path: copied(request.path), host: copied(request.host), subject }, isWhole };
}

/** No part of it has a space. */
function keyOf(peer: SpiffeId, { request }: Note): string {
  return request === undefined ? peer : `${peer} ${request.method} ${request.host} ${request.subject ?? ''} ${request.path}`;
}
