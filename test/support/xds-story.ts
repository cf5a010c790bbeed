/** A client of the pure part of SDS: real snapshots on one side, requests and responses as they are on the wire on the other, over either protocol. */
import { fromBinary, type MessageInitShape } from '@bufbuild/protobuf';
import { DeltaDiscoveryResponseSchema, DiscoveryResponseSchema, type DiscoveryRequestSchema } from '../../src/gen/discovery_pb.ts';
import type { IdentitySnapshot } from '../../src/identity/snapshot.ts';
import { buildCatalogue, type Catalogue, type CatalogueOptions } from '../../src/sds/secrets.ts';
import {
  NEW_STREAM,
  type SecretResponse,
  type Step,
  type StreamEffect,
  type StreamOptions,
  type StreamState,
} from '../../src/sds/stream-state.ts';
import { DELTA, SOTW, type Protocol } from '../../src/sds/stream.ts';
import { SECRET_TYPE } from '../../src/sds/wire.ts';
import { deltaSecretsOf, encodeDelta, encodeSotw, secretsOf } from './sds.ts';
import { PLAIN_OPTIONS, type ReadSecret } from './secrets.ts';

export const PROTOCOLS = ['sotw', 'delta'] as const;
export type ProtocolName = (typeof PROTOCOLS)[number];

export type NodeInit = MessageInitShape<typeof DiscoveryRequestSchema>['node'];

export interface XdsStoryOptions {
  readonly disable?: boolean;
  readonly strict?: boolean;
  readonly catalogue?: Partial<CatalogueOptions>;
  /** Nonces begin with it. */
  readonly noncePrefix?: string;
}

/** What one event was answered with. */
export interface Told {
  /** `name` for each secret in order, `-name` for what is said to be removed; `nothing`, `empty`, or `end` if the stream is ended. */
  readonly text: string;
  readonly secrets: readonly ReadSecret[];
  readonly version: string;
  readonly nonce: string;
  readonly effects: readonly StreamEffect[];
}

export interface RequestOptions {
  /** Left out of the request by default. */
  readonly node?: NodeInit;
  /** By default that of the last response. */
  readonly nonce?: string;
  /** By default the last that was accepted. */
  readonly version?: string;
  /** Makes it a NACK. */
  readonly error?: string;
  /** Delta alone, in a first request: what the client says that it holds. */
  readonly held?: Readonly<Record<string, string>>;
}

export class XdsStory {
  state: StreamState = NEW_STREAM;
  readonly protocol: ProtocolName;
  readonly #options: XdsStoryOptions;
  readonly #feed: (event: Buffer | 'catalogue' | 'written') => Step;
  #catalogue: Catalogue | undefined;
  #wanted: readonly string[] = [];
  #nonce = '';
  #sentVersion = '';
  #acceptedVersion = '';

  constructor(protocol: ProtocolName, options: XdsStoryOptions = {}) {
    this.protocol = protocol;
    this.#options = options;
    this.#feed = protocol === 'sotw' ? this.#feeder(SOTW) : this.#feeder(DELTA);
  }

  /** A new snapshot, and so a new catalogue. */
  publish(snapshot: IdentitySnapshot): Told {
    this.#catalogue = buildCatalogue(snapshot, { ...PLAIN_OPTIONS, ...this.#options.catalogue }, Date.now());
    return this.#tell('catalogue');
  }

  /** From now on these names, said as the protocol says it: all of them, or those that are new and those that are left. */
  ask(names: readonly string[], options: RequestOptions = {}): Told {
    const before = this.#wanted;
    this.#wanted = names;
    const isNew = (name: string): boolean => !before.includes(name);
    return this.#request(
      names.filter(isNew),
      before.filter((name) => !names.includes(name)),
      options,
    );
  }

  accept(options: RequestOptions = {}): Told {
    this.#acceptedVersion = this.#sentVersion;
    return this.#request([], [], options);
  }

  /** A NACK of the last response. */
  reject(error: string, options: RequestOptions = {}): Told {
    return this.#request([], [], { ...options, error });
  }

  #request(subscribe: readonly string[], unsubscribe: readonly string[], options: RequestOptions): Told {
    const { node, nonce: responseNonce = this.#nonce, version: versionInfo = this.#acceptedVersion, error, held = {} } = options;
    const common = {
      responseNonce,
      ...(node !== undefined && { node }),
      ...(error !== undefined && { errorDetail: { code: 13, message: error } }),
    };
    const lists = { resourceNamesSubscribe: [...subscribe], resourceNamesUnsubscribe: [...unsubscribe] };
    return this.#tell(
      this.protocol === 'sotw'
        ? encodeSotw({ ...common, versionInfo, resourceNames: [...this.#wanted] })
        : encodeDelta({ ...common, ...lists, initialResourceVersions: { ...held } }),
    );
  }

  #feeder<Request>(protocol: Protocol<Request>): (event: Buffer | 'catalogue' | 'written') => Step {
    const { disable: disableSpiffeCertValidation = false, strict = false, noncePrefix = 'n-' } = this.#options;
    const options: StreamOptions = {
      noncePrefix,
      defaultForm: disableSpiffeCertValidation ? 'root_ca' : 'spiffe',
      strictUnknownNames: strict,
      maxNames: 10,
    };
    return (event) => {
      if (typeof event === 'string') return protocol.step(this.state, { kind: event }, this.#catalogue, options);
      const decoded = protocol.decode(event, { disableSpiffeCertValidation });
      if (!decoded.ok) throw new Error(decoded.error);
      return protocol.step(this.state, { kind: 'request', request: decoded.value.request }, this.#catalogue, options);
    };
  }

  #tell(event: Buffer | 'catalogue'): Told {
    const { state, effects } = this.#feed(event);
    this.state = state;
    const end = effects.find(({ kind }) => kind === 'end');
    const [response, ...more] = effects.flatMap((effect) => (effect.kind === 'respond' ? [this.#read(effect.response)] : []));
    if (more.length > 0) throw new Error('two responses to one event');
    if (response === undefined) return { text: end === undefined ? 'nothing' : 'end', secrets: [], version: '', nonce: '', effects };
    this.#nonce = response.nonce;
    this.#sentVersion = response.version;
    this.state = this.#feed('written').state;
    const words = [...response.secrets.map(({ name }) => name), ...response.removed.map((name) => `-${name}`)];
    return { ...response, text: words.length === 0 ? 'empty' : words.join(' '), effects };
  }

  /** As the client reads it. */
  #read(response: SecretResponse): Omit<Told, 'text' | 'effects'> & { readonly removed: readonly string[] } {
    if (this.protocol === 'sotw') {
      const message = fromBinary(DiscoveryResponseSchema, SOTW.encode(response, SECRET_TYPE));
      return { secrets: secretsOf(message), removed: [], version: message.versionInfo, nonce: message.nonce };
    }
    const message = fromBinary(DeltaDiscoveryResponseSchema, DELTA.encode(response, SECRET_TYPE));
    return {
      secrets: deltaSecretsOf(message),
      removed: message.removedResources,
      version: message.systemVersionInfo,
      nonce: message.nonce,
    };
  }
}
