/**
 * What one xDS stream for one type of resource knows, and what happens on it: pure, one step for the state-of-the-world protocol and one for
 * delta. Neither sockets nor time are seen here; whoever owns the stream feeds events in and carries the effects out.
 */
import { strangersWords } from '../telemetry/log/scrub.ts';
import type { SdsMissingReason, SdsName } from '../telemetry/log/sds-records.ts';
import { digest, type Catalogue, type Secret } from './secrets.ts';
import type { ValidationForm } from './validation-form.ts';

/** What a client says of itself that matters afterwards. */
export interface NodeInfo {
  readonly id: string;
  /** Such as `envoy/1.36.0`; empty if it does not say. */
  readonly userAgent: string;
  readonly form: ValidationForm;
}

interface CommonRequest {
  /** Clients may send it with their first request only. */
  readonly node: NodeInfo | undefined;
  /** Of the response that this answers; empty in a first request. */
  readonly nonce: string;
  /** Present: the response was rejected. Nothing else means that. */
  readonly error: { readonly code: number; readonly message: string } | undefined;
}

export interface SotwRequest extends CommonRequest {
  /** All that the client wants from now on. */
  readonly names: readonly string[];
}

export interface DeltaRequest extends CommonRequest {
  readonly subscribe: readonly string[];
  readonly unsubscribe: readonly string[];
  /** In a first request: what the client says that it holds, name to version. */
  readonly initialVersions: ReadonlyMap<string, string>;
}

export type StreamEvent<Request> =
  | { readonly kind: 'request'; readonly request: Request }
  /** There is another catalogue than at the last event. */
  | { readonly kind: 'catalogue' }
  /** The response that was handed over last has gone out. */
  | { readonly kind: 'written' };

export interface StreamOptions {
  /** Begins each nonce, so that one of an earlier stream is known for what it is. */
  readonly noncePrefix: string;
  /** What a client is given that has not said who it is. */
  readonly defaultForm: ValidationForm;
  /** End the stream when a name is asked for that is not there, as the SPIRE agent does. */
  readonly strictUnknownNames: boolean;
  /** Names that one stream may be subscribed to. */
  readonly maxNames: number;
  /** Others are being told of bundles first: what has a certificate in it waits until it is asked for again. */
  readonly holdsCertificates?: boolean;
  /** Answer state-of-the-world requests for what is not there with nothing, for types of which there never is anything. */
  readonly answersEmpty?: boolean;
}

/** How it stands with a secret that was sent. */
export interface SentSecret {
  readonly version: string;
  readonly status: 'sent' | 'accepted' | 'rejected';
  /** Why the client rejected it, in its words. */
  readonly detail: string | undefined;
}

export type Wildcard = 'none' | 'implicit' | 'explicit';

export interface StreamState {
  readonly node: NodeInfo | undefined;
  /** False until the first request. */
  readonly isSubscribed: boolean;
  /** Everything is asked for, besides `names`: by asking for nothing in the first request, or by `*`. */
  readonly wildcard: Wildcard;
  /** Asked for by name. */
  readonly names: ReadonlySet<string>;
  /** What the client holds or has been sent, by name. */
  readonly sent: ReadonlyMap<string, SentSecret>;
  /** Names that were found missing, and why: said once. */
  readonly missing: ReadonlyMap<string, SdsMissingReason>;
  /** Names that want an answer even if it is that there is nothing; `*` for everything. */
  readonly unanswered: ReadonlySet<string>;
  /** The last responses, by nonce: what was in each. */
  readonly outstanding: ReadonlyMap<string, ReadonlyMap<string, string>>;
  /** Of the last response; empty if there was none. */
  readonly nonce: string;
  readonly responses: number;
  /** A response is on its way: the next one waits, and is made of what is the newest then. */
  readonly isWriting: boolean;
}

export interface SecretResponse {
  /** Of everything that this stream is subscribed to. */
  readonly version: string;
  readonly nonce: string;
  /** Bundles first. */
  readonly secrets: readonly Secret[];
  /** Delta only: what is not there, or no longer. */
  readonly removed: readonly string[];
}

export type StreamEffect =
  | { readonly kind: 'respond'; readonly response: SecretResponse }
  | { readonly kind: 'accepted'; readonly versions: ReadonlyMap<string, string> }
  | { readonly kind: 'rejected'; readonly versions: ReadonlyMap<string, string>; readonly code: number; readonly message: string }
  /** The request is about a response that is not the last one. */
  | { readonly kind: 'stale'; readonly nonce: string }
  | { readonly kind: 'missing'; readonly names: readonly SdsName[] }
  /** Secrets that were sent are no longer there; an Envoy goes on with what it has. */
  | { readonly kind: 'withdrawn'; readonly names: readonly SdsName[] }
  /** Nothing comes after it. */
  | {
      readonly kind: 'end';
      readonly reason: 'unknown_names' | 'too_many_names';
      readonly detail: string;
      /** What is asked for is all trust domains in one list of authorities, for which the SPIRE agent has another status. */
      readonly isPooled: boolean;
    };

export interface Step {
  readonly state: StreamState;
  readonly effects: readonly StreamEffect[];
}

/** In a list of names: everything. */
export const WILDCARD = '*';

/** Older responses than these are forgotten: what is said of them then is only stale. */
const MAX_OUTSTANDING = 8;
/** Names that one text lists. */
const MAX_LISTED = 20;
const MAX_LISTED_LENGTH = 200;

export const NEW_STREAM: StreamState = {
  node: undefined,
  isSubscribed: false,
  wildcard: 'none',
  names: new Set(),
  sent: new Map(),
  missing: new Map(),
  unanswered: new Set(),
  outstanding: new Map(),
  nonce: '',
  responses: 0,
  isWriting: false,
};

/** One event on a state-of-the-world stream. `catalogue` is undefined until the first answer of the Workload API: then nobody is told anything. */
export function stepSotw(
  state: StreamState,
  event: StreamEvent<SotwRequest>,
  catalogue: Catalogue | undefined,
  options: StreamOptions,
): Step {
  if (event.kind !== 'request') return settle(afterWrite(state, event), catalogue, 'sotw', options, []);
  const { request } = event;
  const { state: judged, effects, isStale } = judgeAnswer(state, request);
  if (isStale) effects.push({ kind: 'stale', nonce: request.nonce });
  // What a client wants is in each of its requests, so what a stale one says comes again with the answer to the newest response. An empty
  // nonce is no stale one: it is a client that only changes its subscription.
  if (isStale) return { state: judged, effects };
  const { wanted, wildcard } = sotwSubscription(state, request);
  return settle(subscribe(judged, wanted, wildcard), catalogue, 'sotw', options, effects);
}

function sotwSubscription(state: StreamState, request: SotwRequest): { wanted: ReadonlySet<string>; wildcard: Wildcard } {
  const wanted = new Set(request.names.filter((name) => name !== '' && name !== WILDCARD));
  // An empty list is "everything" in a first request, and for as long as nothing else was asked for; later it is "nothing".
  const isImplicit = wanted.size === 0 && (!state.isSubscribed || state.wildcard === 'implicit');
  const wildcard = request.names.includes(WILDCARD) ? 'explicit' : isImplicit ? 'implicit' : 'none';
  return { wanted, wildcard };
}

/** Whether a request on a stream that has begun changes what is asked for: an answer to a response does not. */
export function changesSotw(state: StreamState, request: SotwRequest): boolean {
  const { wanted, wildcard } = sotwSubscription(state, request);
  return wildcard !== state.wildcard || wanted.size !== state.names.size || !wanted.isSubsetOf(state.names);
}

/** As `changesSotw`. In delta, to ask for the same again is a change too: it is answered. */
export function changesDelta(_state: StreamState, request: DeltaRequest): boolean {
  return request.subscribe.length > 0 || request.unsubscribe.length > 0;
}

/** One event on a delta stream. */
export function stepDelta(
  state: StreamState,
  event: StreamEvent<DeltaRequest>,
  catalogue: Catalogue | undefined,
  options: StreamOptions,
): Step {
  if (event.kind !== 'request') return settle(afterWrite(state, event), catalogue, 'delta', options, []);
  const { request } = event;
  const isFirst = !state.isSubscribed;
  // The subscription counts whatever the nonce: it is a change, and never said again.
  const { state: judged, effects, isStale, isKnown } = judgeAnswer(state, request);
  if (isStale && !isKnown) effects.push({ kind: 'stale', nonce: request.nonce });
  const subscribed = request.subscribe.filter((name) => name !== '');
  const dropped = new Set(request.unsubscribe);
  const wanted = new Set(judged.names);
  for (const name of subscribed) if (name !== WILDCARD) wanted.add(name);
  for (const name of dropped) wanted.delete(name);
  const wildcard = wildcardAfter(judged.wildcard, subscribed, dropped, isFirst);
  const isStillAsked = (name: string): boolean => (name !== WILDCARD && wanted.has(name)) || wildcard !== 'none';
  let next = subscribe(judged, wanted, wildcard);
  // Each subscription is answered, though the client is thought to hold the secret already: it may have dropped it. A name that is left by
  // itself but still in the wildcard is answered too, since the client cannot know whether it is.
  // What one request both asks for and leaves was never asked for.
  const asked = subscribed.filter((name) => !dropped.has(name));
  next = withAnswersDue(next, [...asked, ...[...dropped].filter((name) => state.names.has(name))].filter(isStillAsked));
  if (isFirst) next = withClaims(next, request.initialVersions);
  else {
    const left = leftUnanswered(next);
    if (left > options.maxNames && left > leftUnanswered(state)) return { state: next, effects: [...effects, tooManyNames(left, options)] };
  }
  return settle(next, catalogue, 'delta', options, effects);
}

function wildcardAfter(held: Wildcard, subscribed: readonly string[], dropped: ReadonlySet<string>, isFirst: boolean): Wildcard {
  if (dropped.has(WILDCARD)) return 'none';
  if (subscribed.includes(WILDCARD)) return 'explicit';
  return isFirst && subscribed.length === 0 && dropped.size === 0 ? 'implicit' : held;
}

/** The kinds of secret that this stream would be sent now, for whoever decides on the order of streams. */
export function kindsDue(
  state: StreamState,
  catalogue: Catalogue | undefined,
  options: StreamOptions,
): 'none' | 'bundles' | 'certificates' | 'both' {
  if (catalogue === undefined || !state.isSubscribed) return 'none';
  const form = formOf(state, options);
  const isEverythingDue = state.unanswered.has(WILDCARD);
  const subscribed = subscribedNames(state, catalogue);
  let [bundles, certificates] = [false, false];
  for (const name of subscribed) {
    // Of those a client may have any number, and what nothing is called, nothing is called in any catalogue.
    if (state.missing.get(name) === 'unknown_name' && !state.unanswered.has(name)) continue;
    const looked = catalogue.lookup(name, form);
    if (!looked.found) {
      // To be told that something is gone is as urgent as a bundle.
      if (state.sent.has(name) || state.unanswered.has(name)) bundles = true;
    } else if (isEverythingDue || state.unanswered.has(name) || looked.secret.version !== state.sent.get(name)?.version) {
      if (looked.secret.kind === 'bundle') bundles = true;
      else certificates = true;
    }
  }
  if (state.wildcard !== 'none') {
    // What a wildcard holds no longer is found among what was sent, as in `whatIsMissing`; an empty catalogue is told as well.
    for (const name of [...state.sent.keys(), ...state.unanswered]) {
      if (!subscribed.has(name) && (!state.missing.has(name) || state.unanswered.has(name))) bundles = true;
    }
  }
  if (bundles && certificates) return 'both';
  return bundles ? 'bundles' : certificates ? 'certificates' : 'none';
}

function afterWrite(state: StreamState, event: { readonly kind: 'catalogue' | 'written' }): StreamState {
  return event.kind === 'written' && state.isWriting ? { ...state, isWriting: false } : state;
}

/** What a request says of a response of ours: accepted, rejected, or nothing that matters. Remembers the node at once. */
function judgeAnswer(
  state: StreamState,
  request: CommonRequest,
): { state: StreamState; effects: StreamEffect[]; /** Not about the last response. */ isStale: boolean; isKnown: boolean } {
  const effects: StreamEffect[] = [];
  let next: StreamState = { ...state, isSubscribed: true, node: request.node ?? state.node };
  // Whatever a first request carries is of another stream, or of another process.
  if (!state.isSubscribed) {
    if (request.error !== undefined) effects.push(rejection(new Map(), request.error));
    return { state: next, effects, isStale: false, isKnown: false };
  }
  const answered = request.nonce === '' ? undefined : state.outstanding.get(request.nonce);
  if (answered !== undefined) {
    const outstanding = new Map(state.outstanding);
    outstanding.delete(request.nonce);
    const status = request.error === undefined ? 'accepted' : 'rejected';
    next = { ...next, outstanding, sent: marked(state.sent, answered, status, request.error?.message) };
    effects.push(request.error === undefined ? { kind: 'accepted', versions: answered } : rejection(answered, request.error));
  } else if (request.error !== undefined) {
    effects.push(rejection(new Map(), request.error));
  }
  // Where no response was ever sent, nothing can be stale: to ignore such a client would be for good.
  const isStale = request.nonce !== '' && state.nonce !== '' && request.nonce !== state.nonce;
  return { state: next, effects, isStale, isKnown: answered !== undefined };
}

function rejection(versions: ReadonlyMap<string, string>, { code, message }: { code: number; message: string }): StreamEffect {
  return { kind: 'rejected', versions, code, message };
}

function marked(
  sent: ReadonlyMap<string, SentSecret>,
  answered: ReadonlyMap<string, string>,
  status: 'accepted' | 'rejected',
  detail: string | undefined,
): ReadonlyMap<string, SentSecret> {
  const next = new Map(sent);
  for (const [name, version] of answered) {
    // A newer one may have gone out since.
    if (sent.get(name)?.version === version) next.set(name, { version, status, detail });
  }
  return next;
}

/** From now on the client wants these. A name that it did not want before is sent anew: it may have thrown away what it had. */
function subscribe(state: StreamState, wanted: ReadonlySet<string>, wildcard: Wildcard): StreamState {
  const added = wanted.difference(state.names);
  const dropped = state.names.difference(wanted);
  if (added.size === 0 && dropped.size === 0 && wildcard === state.wildcard) return state;
  const isStillAsked = (name: string): boolean => (name !== WILDCARD && wanted.has(name)) || wildcard !== 'none';
  // What leaves `names` leaves its answer too, though a wildcard still holds it: else a client that does not read could pile names up.
  const unanswered = new Set([...state.unanswered].filter((name) => isStillAsked(name) && !dropped.has(name)));
  for (const name of added) unanswered.add(name);
  if (wildcard !== 'none' && state.wildcard === 'none') unanswered.add(WILDCARD);
  return {
    ...state,
    names: wanted,
    wildcard,
    sent: kept(state.sent, isStillAsked),
    missing: kept(state.missing, isStillAsked),
    unanswered,
  };
}

/** These names are sent, or said to be missing, whatever was said of them before. */
function withAnswersDue(state: StreamState, names: readonly string[]): StreamState {
  if (names.length === 0) return state;
  return { ...state, unanswered: state.unanswered.union(new Set(names)) };
}

/** Names that wait for an answer though they are subscribed to no more: a client that does not read could leave ever more of them. */
function leftUnanswered({ unanswered, names }: StreamState): number {
  return unanswered.size === 0 ? 0 : unanswered.difference(names).size;
}

function tooManyNames(count: number, { maxNames }: StreamOptions): StreamEffect {
  const detail = `${count} names on one stream: ${maxNames} are allowed`;
  return { kind: 'end', reason: 'too_many_names', detail, isPooled: false };
}

/** What a client says that it holds: of no use but for what is not there any more, of which it must hear. */
function withClaims(state: StreamState, claimed: ReadonlyMap<string, string>): StreamState {
  const known = [...claimed.keys()].filter((name) => name !== WILDCARD && (state.wildcard !== 'none' || state.names.has(name)));
  return known.length === 0 ? state : { ...state, unanswered: new Set([...state.unanswered, ...known]) };
}

function kept<V>(map: ReadonlyMap<string, V>, keeps: (name: string) => boolean): ReadonlyMap<string, V> {
  const next = new Map<string, V>();
  for (const [name, value] of map) if (keeps(name)) next.set(name, value);
  return next.size === map.size ? map : next;
}

function formOf(state: StreamState, options: StreamOptions): ValidationForm {
  return state.node?.form ?? options.defaultForm;
}

function subscribedNames(state: StreamState, catalogue: Catalogue): ReadonlySet<string> {
  return state.wildcard === 'none' ? state.names : new Set([...catalogue.names(), ...state.names]);
}

/** Compares what the client wants with what there is, and sends what it lacks. */
function settle(
  state: StreamState,
  catalogue: Catalogue | undefined,
  protocol: 'sotw' | 'delta',
  options: StreamOptions,
  effects: readonly StreamEffect[],
): Step {
  if (state.names.size > options.maxNames) return { state, effects: [...effects, tooManyNames(state.names.size, options)] };
  if (catalogue === undefined || !state.isSubscribed || state.isWriting) return { state, effects };

  const form = formOf(state, options);
  const names = subscribedNames(state, catalogue);
  const isAnswerDue = state.unanswered.has(WILDCARD);
  const secrets: Secret[] = [];
  const available: Secret[] = [];
  const missing: SdsName[] = [];
  for (const name of names) {
    const looked = catalogue.lookup(name, form);
    if (!looked.found) {
      missing.push({ name, reason: looked.reason, detail: looked.detail });
      continue;
    }
    available.push(looked.secret);
    if (isAnswerDue || state.unanswered.has(name) || looked.secret.version !== state.sent.get(name)?.version) secrets.push(looked.secret);
  }
  const asked = missing.filter(({ name }) => state.names.has(name));
  if (options.strictUnknownNames && asked.length > 0) return { state, effects: [...effects, strictEnd(asked)] };

  if (options.holdsCertificates === true && secrets.some(({ kind }) => kind === 'certificate')) return { state, effects };

  const outcome = whatIsMissing(state, missing, available, protocol);
  const all = [...effects, ...outcome.effects];
  const isSilent =
    secrets.length === 0 && outcome.removed.length === 0 && !isAnswerDue && (options.answersEmpty !== true || state.unanswered.size === 0);
  const settled: StreamState =
    outcome.missing === state.missing && outcome.sent === state.sent && state.unanswered.size === 0
      ? state
      : { ...state, missing: outcome.missing, sent: outcome.sent, unanswered: NEW_STREAM.unanswered };
  if (isSilent) return { state: settled, effects: all };
  return respond(settled, { secrets, removed: outcome.removed, version: versionOf(available) }, options, all);
}

/** What is to be said of names that are not there: in the log once, and to the client as its protocol has it. */
function whatIsMissing(
  state: StreamState,
  missing: readonly SdsName[],
  available: readonly Secret[],
  protocol: 'sotw' | 'delta',
): Pick<StreamState, 'missing' | 'sent'> & { readonly removed: readonly string[]; readonly effects: readonly StreamEffect[] } {
  const gone = new Map(missing.map((each) => [each.name, each]));
  if (state.wildcard !== 'none') {
    // A wildcard names nothing: what it no longer holds is found among what was sent, or claimed to be held.
    const present = new Set(available.map(({ name }) => name));
    for (const name of [...state.sent.keys(), ...state.unanswered]) {
      if (name !== WILDCARD && !present.has(name) && !gone.has(name))
        gone.set(name, { name, reason: 'not_held', detail: 'it is no longer there' });
    }
  }
  if (gone.size === 0 && state.missing.size === 0) return { missing: state.missing, sent: state.sent, removed: [], effects: [] };

  const effects: StreamEffect[] = [];
  const told = [...gone.values()].filter(({ name, reason }) => state.missing.get(name) !== reason);
  const isWithdrawn = ({ name }: SdsName): boolean => state.sent.has(name) && !state.missing.has(name);
  const withdrawn = told.filter(isWithdrawn);
  const absent = told.filter((each) => !isWithdrawn(each));
  if (absent.length > 0) effects.push({ kind: 'missing', names: absent });
  if (withdrawn.length > 0) effects.push({ kind: 'withdrawn', names: withdrawn });
  const isSame = told.length === 0 && gone.size === state.missing.size;
  const next = isSame ? state.missing : new Map([...gone.values()].map(({ name, reason }) => [name, reason]));
  // State of the world cannot say that something is gone, so the client still holds it, and needs nothing if the same comes back.
  if (protocol === 'sotw') return { missing: next, sent: state.sent, removed: [], effects };
  const removed = [...gone.keys()].filter((name) => state.sent.has(name) || state.unanswered.has(name));
  return { missing: next, sent: kept(state.sent, (name) => !gone.has(name)), removed, effects };
}

function respond(
  state: StreamState,
  { secrets, removed, version }: Pick<SecretResponse, 'secrets' | 'removed' | 'version'>,
  { noncePrefix }: StreamOptions,
  effects: readonly StreamEffect[],
): Step {
  const responses = state.responses + 1;
  const nonce = `${noncePrefix}${responses}`;
  const sent = new Map(state.sent);
  for (const secret of secrets) sent.set(secret.name, { version: secret.version, status: 'sent', detail: undefined });
  const outstanding = new Map(state.outstanding).set(nonce, new Map(secrets.map((secret) => [secret.name, secret.version])));
  for (const oldest of outstanding.keys()) {
    if (outstanding.size <= MAX_OUTSTANDING) break;
    outstanding.delete(oldest);
  }
  const bundlesFirst = [...secrets.filter(({ kind }) => kind === 'bundle'), ...secrets.filter(({ kind }) => kind !== 'bundle')];
  return {
    state: { ...state, sent, outstanding, nonce, responses, isWriting: true },
    effects: [...effects, { kind: 'respond', response: { version, nonce, secrets: bundlesFirst, removed } }],
  };
}

/** Of one secret its own version, of several a digest of theirs. */
function versionOf(secrets: readonly Secret[]): string {
  const [only] = secrets;
  if (only !== undefined && secrets.length === 1) return only.version;
  return digest('all', ...secrets.map(({ name, version }) => `${version} ${name}`).toSorted());
}

function strictEnd(names: readonly SdsName[]): StreamEffect {
  const listed = names.map(({ name }) => name).toSorted();
  const isPooled = names.every(({ reason }) => reason === 'pooled_bundles');
  return { kind: 'end', reason: 'unknown_names', detail: `not served: ${listNames(listed)}`, isPooled };
}

/** Names that a client chose, for a sentence: quoted, and not without end. */
export function listNames(names: readonly string[]): string {
  const shown = names.slice(0, MAX_LISTED).map((name) => JSON.stringify(shorten(name)));
  return `${shown.join(', ')}${names.length > shown.length ? ` and ${names.length - shown.length} more` : ''}`;
}

/** A client's words for people. */
export function shorten(text: string, length = MAX_LISTED_LENGTH): string {
  return strangersWords(text, length);
}
