import { rewriteHead, valuesOf, withLine, withoutOverrides, type IdentityFields } from '../http1/identity-fields.ts';
import { Fields } from '../http1/fields.ts';
import type { RequestHead } from '../http1/request-head.ts';
import type { Bearer, RequestTokens } from './bearer.ts';
import type { RequestCredential } from './request-credential.ts';

const NOTHING: Buffer = Buffer.alloc(0);
/** Those that we add to a client's: who it is, twice, `Host` and `Connection`, and some room. */
const OUR_MOST_FIELDS = 8;

export interface HeadOptions {
  readonly identity: IdentityFields;
  readonly tokens: RequestTokens | undefined;
  readonly credential: RequestCredential | undefined;
  /** That a client may say. */
  readonly maxFields: number;
}

/** The head of a request as the application gets it, from when the client's was read until it need not be sent any more. */
export class OutgoingHead {
  readonly #options: HeadOptions;
  #bytes = NOTHING;
  /** It may have fields that say another request: no rule looked at requests when it was rewritten. */
  #hasOverrides = false;
  /** It goes with our token, which is put into it when it is sent. */
  #needsToken = false;
  /** Most requests of a connection bring the token of one. */
  #subjectLine: { readonly subject: string; readonly line: Buffer } | undefined;

  constructor(options: HeadOptions) {
    this.#options = options;
  }

  /** Octets, without our token. */
  get length(): number {
    return this.#bytes.length;
  }

  /** Its token is not known yet: as if it brought one. The bytes of the client's head are the transport's. */
  takeUnproven(head: RequestHead): void {
    this.#rewrite(head, true, NOTHING);
  }

  /** Of one that was taken unproven. */
  prove(bearer: Bearer): void {
    if (bearer.kind === 'token') this.#bytes = withLine(this.#bytes, this.#subjectLineOf(bearer.token.subject));
  }

  take(head: RequestHead, bearer: Bearer): void {
    if (bearer.kind === 'token') this.#rewrite(head, true, this.#subjectLineOf(bearer.token.subject));
    else this.#rewrite(head, false, NOTHING);
  }

  #rewrite(head: RequestHead, hasToken: boolean, subjectLine: Buffer): void {
    const { identity, tokens, credential } = this.#options;
    this.#bytes = rewriteHead(head, hasToken && tokens !== undefined ? tokens.identity : identity, subjectLine);
    this.#hasOverrides = !identity.removesOverrides;
    this.#needsToken = credential !== undefined && (credential.replaces || valuesOf(head, credential.name).length === 0);
  }

  /** Tells the application whose token it was. */
  #subjectLineOf(subject: string): Buffer {
    if (this.#subjectLine?.subject !== subject) {
      const line = Buffer.from(`${this.#options.tokens?.subjectHeader}: ${subject}\r\n`, 'latin1');
      this.#subjectLine = { subject, line };
    }
    return this.#subjectLine.line;
  }

  /** It is to have a token of ours, of which none is valid now. */
  get lacksToken(): boolean {
    return this.#needsToken && this.#options.credential?.line() === undefined;
  }

  /** As it goes now, also when it goes once more; undefined if it lacks a token. */
  toSend(): Buffer | undefined {
    this.#heedFirstRule();
    const { credential } = this.#options;
    if (!this.#needsToken || credential === undefined) return this.#bytes;
    const line = credential.line();
    return line === undefined ? undefined : withLine(this.#bytes, line);
  }

  /** The first rule that looks at requests may have come while this one waited, or before it is sent once more. */
  #heedFirstRule(): void {
    const { identity, maxFields } = this.#options;
    if (!this.#hasOverrides || !identity.removesOverrides) return;
    this.#bytes = withoutOverrides(this.#bytes, new Fields(maxFields + OUR_MOST_FIELDS));
    this.#hasOverrides = false;
  }

  /** It is not sent any more. */
  forget(): void {
    this.#bytes = NOTHING;
  }
}
