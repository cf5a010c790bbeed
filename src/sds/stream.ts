import { status, type ServerDuplexStream } from '@grpc/grpc-js';
import type { SdsEvents } from '../telemetry/events/sds-events.ts';
import type { SdsProtocol, SdsRefusalReason, SdsStreamRef } from '../telemetry/log/sds-records.ts';
import type { Result } from '../lib/result.ts';
import type { ValidationForm } from './validation-form.ts';
import type { Catalogue } from './secrets.ts';
import {
  changesDelta,
  changesSotw,
  kindsDue,
  NEW_STREAM,
  shorten,
  stepDelta,
  stepSotw,
  type DeltaRequest,
  type SotwRequest,
  type Step,
  type StreamEffect,
  type StreamEvent,
  type StreamOptions,
  type StreamState,
} from './stream-state.ts';
import { decodeDeltaRequest, decodeSotwRequest, encodeDeltaResponse, encodeSotwResponse, SECRET_TYPE, type Received } from './wire.ts';

export type XdsCall = ServerDuplexStream<Buffer, Buffer>;

/** What one variant of the protocol is made of. */
export interface Protocol<Request> {
  readonly name: SdsProtocol;
  step(state: StreamState, event: StreamEvent<Request>, catalogue: Catalogue | undefined, options: StreamOptions): Step;
  /** Whether a request changes what is asked for. */
  changes(state: StreamState, request: Request): boolean;
  decode(bytes: Uint8Array, options: { readonly disableSpiffeCertValidation: boolean }): Result<Received<Request>, string>;
  encode: typeof encodeSotwResponse;
}

export const SOTW: Protocol<SotwRequest> = {
  name: 'sotw',
  step: stepSotw,
  changes: changesSotw,
  decode: decodeSotwRequest,
  encode: encodeSotwResponse,
};
export const DELTA: Protocol<DeltaRequest> = {
  name: 'delta',
  step: stepDelta,
  changes: changesDelta,
  decode: decodeDeltaRequest,
  encode: encodeDeltaResponse,
};

export interface StreamDeps {
  readonly catalogue: () => Catalogue | undefined;
  readonly options: StreamOptions & { readonly disableSpiffeCertValidation: boolean };
  /** True while a new catalogue is being told, bundles first: whatever but that would send a certificate holds it back. */
  readonly holdsCertificates: () => boolean;
  readonly maxRequestBytes: number;
  readonly events: SdsEvents;
  /** Asked for a request that does more than to answer a response of ours. A sentence if it is one too many. */
  readonly admitRequest: () => string | undefined;
  /** The names of this stream have grown by so many bytes. A sentence if these are too many. */
  readonly growSubscription: (bytes: number) => string | undefined;
}

/** One stream, as whoever pushes to it sees it. */
export interface XdsStream {
  readonly ref: SdsStreamRef;
  readonly state: StreamState;
  readonly openedAtMs: number;
  /** Of validation contexts: what its client is given. */
  readonly form: ValidationForm;
  /** What it would be sent now. */
  due(): ReturnType<typeof kindsDue>;
  /** Sends it what changed. Resolves to what was sent when that has gone out, or when the stream has ended; at once if there is nothing. */
  update(): Promise<{ readonly secrets: number; readonly bytes: number }> | undefined;
  /** Ends it with a status. */
  end(code: status, detail: string): void;
}

const { INVALID_ARGUMENT, RESOURCE_EXHAUSTED, INTERNAL } = status;

/** Of types other than secrets, on an aggregated stream. */
const MAX_TYPES = 16;
const MAX_TYPE_LENGTH = 200;

/** What it takes to remember a name, besides its letters. */
const NAME_OVERHEAD_BYTES = 64;

/** Of responses that a client has not answered, as many answers are taken without asking. */
const MAX_EXPECTED = 8;

/** What there is of any type but secrets. */
const NOTHING: Catalogue = {
  generation: 0,
  notes: [],
  changesAtMs: undefined,
  names: () => [],
  lookup: () => ({ found: false, reason: 'unknown_name', detail: 'Scute serves secrets alone' }),
  subject: () => undefined,
};

interface TypeState {
  state: StreamState;
  /** Responses that were sent and not answered yet: as many requests are expected. */
  expected: number;
  nameBytes: number;
}

/** Carries one call: what comes in goes through the reducer, and what comes out of it goes out. */
export class XdsServerStream<Request extends { readonly nonce: string }> implements XdsStream {
  readonly ref: SdsStreamRef;
  readonly openedAtMs: number;
  /** Why it was ended, if it was by us. */
  endDetail: string | undefined;
  readonly #call: XdsCall;
  readonly #protocol: Protocol<Request>;
  readonly #deps: StreamDeps;
  readonly #types = new Map<string, TypeState>();
  /** The client says no more. */
  #isHalfClosed = false;
  #hasEnded = false;
  #lastWrite: PromiseWithResolvers<void> | undefined;

  constructor(call: XdsCall, protocol: Protocol<Request>, ref: SdsStreamRef, openedAtMs: number, deps: StreamDeps) {
    this.#call = call;
    this.#protocol = protocol;
    this.#deps = deps;
    this.ref = ref;
    this.openedAtMs = openedAtMs;
    call.on('data', (bytes: Buffer) => this.#receive(bytes));
    call.on('end', () => {
      this.#isHalfClosed = true;
      this.#endIfAnswered();
    });
  }

  get state(): StreamState {
    return this.#types.get(SECRET_TYPE)?.state ?? NEW_STREAM;
  }

  get form(): ValidationForm {
    return this.state.node?.form ?? this.#deps.options.defaultForm;
  }

  due(): ReturnType<typeof kindsDue> {
    // What is being sent holds the rest back, and is followed by the newest.
    if (this.#hasEnded || this.state.isWriting) return 'none';
    return kindsDue(this.state, this.#deps.catalogue(), this.#deps.options);
  }

  update(): ReturnType<XdsStream['update']> {
    const type = this.#types.get(SECRET_TYPE);
    if (type === undefined || this.#hasEnded) return undefined;
    const sent = this.#feed(SECRET_TYPE, type, { kind: 'catalogue' });
    return sent === undefined ? undefined : (this.#lastWrite?.promise ?? Promise.resolve()).then(() => sent);
  }

  end(code: status, detail: string): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.endDetail = detail;
    // What a client still sends is of no interest: one that does not read its status either would keep us at work.
    this.#call.pause();
    this.#call.emit('error', { code, details: detail });
  }

  /** The call is over. Gives back what its names were counted for. */
  closed(): void {
    this.#hasEnded = true;
    // Whoever waits for a write that was cut off would wait for good.
    this.#lastWrite?.resolve();
    for (const { nameBytes } of this.#types.values()) this.#deps.growSubscription(-nameBytes);
    this.#types.clear();
  }

  #receive(bytes: Buffer): void {
    if (this.#hasEnded) return;
    if (bytes.length > this.#deps.maxRequestBytes) {
      this.#refuse('request_size', RESOURCE_EXHAUSTED, `a request of ${bytes.length} bytes: ${this.#deps.maxRequestBytes} are allowed`);
      return;
    }
    const decoded = this.#protocol.decode(bytes, this.#deps.options);
    if (!decoded.ok) {
      this.#refuse('bad_request', INVALID_ARGUMENT, decoded.error);
      return;
    }
    const { typeUrl, request } = decoded.value;
    const type = this.#typeOf(typeUrl);
    if (type === undefined) return;
    if (!this.#isFree(type, request)) {
      const problem = this.#deps.admitRequest();
      if (problem !== undefined) {
        this.#refuse('request_rate', RESOURCE_EXHAUSTED, problem);
        return;
      }
    }
    this.#feed(typeUrl === '' ? SECRET_TYPE : typeUrl, type, { kind: 'request', request });
  }

  /** One answer to each response costs nothing, and neither does the first request of a stream. Whatever asks for something else does. */
  #isFree(type: TypeState, request: Request): boolean {
    const { state } = type;
    const isChange = state.isSubscribed && this.#protocol.changes(state, request);
    // One that changes something and is about no response leaves the answer to come.
    const isExpected = type.expected > 0;
    if (isExpected && (!isChange || state.outstanding.has(request.nonce))) type.expected -= 1;
    return isExpected && !isChange;
  }

  /** The state of one type. The service for secrets knows one, which need not be named. */
  #typeOf(typeUrl: string): TypeState | undefined {
    const isKnownWrong = this.ref.aggregated ? !isTypeUrl(typeUrl) : typeUrl !== '' && typeUrl !== SECRET_TYPE;
    if (isKnownWrong) {
      const what = this.ref.aggregated ? 'is not the URL of a type' : `is not served here: ${SECRET_TYPE} is`;
      this.#refuse('bad_request', INVALID_ARGUMENT, `type_url ${JSON.stringify(shorten(typeUrl))} ${what}`);
      return undefined;
    }
    const key = typeUrl === '' ? SECRET_TYPE : typeUrl;
    const known = this.#types.get(key);
    if (known !== undefined) return known;
    if (this.#types.size >= MAX_TYPES) {
      this.#refuse('bad_request', RESOURCE_EXHAUSTED, `more than ${MAX_TYPES} types on one stream`);
      return undefined;
    }
    // The first request of a stream was paid for when it was opened.
    const type: TypeState = { state: NEW_STREAM, expected: this.#types.size === 0 ? 1 : 0, nameBytes: 0 };
    this.#types.set(key, type);
    return type;
  }

  /** Feeds one event to the reducer and carries its effects out. What was sent, if anything was. */
  #feed(typeUrl: string, type: TypeState, event: StreamEvent<Request>): { readonly secrets: number; readonly bytes: number } | undefined {
    const isSecrets = typeUrl === SECRET_TYPE;
    const { options, catalogue } = this.#deps;
    const before = type.state;
    const { state, effects } = isSecrets
      ? this.#protocol.step(
          before,
          event,
          catalogue(),
          event.kind === 'catalogue' ? options : { ...options, holdsCertificates: this.#deps.holdsCertificates() },
        )
      : this.#protocol.step(before, event, NOTHING, { ...options, strictUnknownNames: false, answersEmpty: true });
    type.state = state;
    if (state.node !== undefined && state.node !== before.node) {
      this.ref.node = state.node.id;
      this.ref.userAgent = state.node.userAgent;
    }
    if ((state.names !== before.names || state.unanswered !== before.unanswered) && !this.#countNames(type)) return undefined;
    let sent: { readonly secrets: number; readonly bytes: number } | undefined;
    for (const effect of effects) {
      if (effect.kind === 'respond') sent = this.#send(typeUrl, type, effect);
      else this.#tell(effect, isSecrets);
    }
    this.#endIfAnswered();
    return sent;
  }

  /** Whoever says no more is still told what it asked for, which may have to wait. Nothing follows: to write after the end would take the status away. */
  #endIfAnswered(): void {
    if (!this.#isHalfClosed || this.#hasEnded) return;
    for (const { state } of this.#types.values()) if (state.unanswered.size > 0) return;
    this.#hasEnded = true;
    this.#call.end();
  }

  #countNames(type: TypeState): boolean {
    let bytes = 0;
    const { names, unanswered } = type.state;
    for (const name of names) bytes += name.length + NAME_OVERHEAD_BYTES;
    for (const name of unanswered) if (!names.has(name)) bytes += name.length + NAME_OVERHEAD_BYTES;
    const problem = this.#deps.growSubscription(bytes - type.nameBytes);
    type.nameBytes = bytes;
    if (problem === undefined) return true;
    this.#refuse('subscription_size', RESOURCE_EXHAUSTED, problem);
    return false;
  }

  #send(
    typeUrl: string,
    type: TypeState,
    { response }: StreamEffect & { kind: 'respond' },
  ): { readonly secrets: number; readonly bytes: number } {
    const bytes = this.#protocol.encode(response, typeUrl);
    type.expected = Math.min(type.expected + 1, MAX_EXPECTED);
    const written = Promise.withResolvers<void>();
    this.#lastWrite = written;
    this.#call.write(bytes, () => {
      written.resolve();
      if (!this.#hasEnded) this.#feed(typeUrl, type, { kind: 'written' });
    });
    this.#deps.events.secretsSent(this.ref, response.secrets, response.removed, bytes.length);
    return { secrets: response.secrets.length, bytes: bytes.length };
  }

  #tell(effect: Exclude<StreamEffect, { kind: 'respond' }>, isSecrets: boolean): void {
    const { events } = this.#deps;
    switch (effect.kind) {
      case 'accepted':
        events.accepted(this.ref, effect.versions);
        return;
      case 'rejected':
        events.rejected(this.ref, effect.versions, effect.code, effect.message);
        return;
      case 'stale':
        events.staleRequest(this.ref);
        return;
      case 'missing':
        if (isSecrets) events.namesMissing(this.ref, effect.names);
        return;
      case 'withdrawn':
        events.secretsWithdrawn(this.ref, effect.names);
        return;
      case 'end':
        if (effect.reason === 'too_many_names') this.#refuse('name_limit', RESOURCE_EXHAUSTED, effect.detail);
        else this.#refuse('unknown_names', effect.isPooled ? INTERNAL : INVALID_ARGUMENT, effect.detail);
    }
  }

  #refuse(reason: SdsRefusalReason, code: status, detail: string): void {
    if (this.#hasEnded) return;
    this.#deps.events.refused(reason, detail);
    this.end(code, detail);
  }
}

function isTypeUrl(text: string): boolean {
  return text.length <= MAX_TYPE_LENGTH && /^type\.googleapis\.com\/[\w.]+$/.test(text);
}
