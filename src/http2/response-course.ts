/** What an application may say to one request, how much of it and in which order (RFC 9113, section 8.1). Pure. */
import type { HpackField } from './hpack/field.ts';
import { responseTrailersProblem, type ResponseFields } from './response-fields.ts';

/** Interim responses (1xx) to one request; a client that does not read would have us hold them. */
export const MAX_INTERIM = 64;
const TOO_SHORT = 'the body is shorter than Content-Length says';

/** One response. What is asked answers why it may not be said, in words; undefined if it may. */
export class ResponseCourse {
  #interim = 0;
  /** Octets of the body that are still to come of a response that says how many it has. */
  #awaited: number | undefined;
  #isSwitched = false;

  /** The other side has agreed to an extended CONNECT: what passes after that is nobody's body, and goes on until both sides have ended. */
  get isSwitched(): boolean {
    return this.#isSwitched;
  }

  /** A head: an interim one, or the final one. `asksSwitch`: the request is an extended CONNECT (RFC 8441). */
  head(
    { status, announced }: Pick<ResponseFields, 'status' | 'announced'>,
    { method, asksSwitch }: { readonly method: string | undefined; readonly asksSwitch: boolean },
    ends: boolean,
  ): string | undefined {
    if (status < 200) {
      if (ends) return `${status} ends the response`;
      return ++this.#interim > MAX_INTERIM ? 'too many interim responses' : undefined;
    }
    const switches = asksSwitch && status < 300;
    if (switches && announced !== undefined) return 'a CONNECT that succeeds has no Content-Length';
    const hasNoBody = method === 'HEAD' || status === 204 || status === 304;
    this.#awaited = hasNoBody ? 0 : announced;
    if (ends && this.#isAwaited) return TOO_SHORT;
    this.#isSwitched = switches;
    return undefined;
  }

  /** So many octets of the body, after the head. */
  content(size: number, ends: boolean): string | undefined {
    if (this.#awaited === undefined) return undefined;
    this.#awaited -= size;
    if (this.#awaited < 0) return 'the body is longer than Content-Length says';
    return ends && this.#isAwaited ? TOO_SHORT : undefined;
  }

  /** A field section after the head. */
  trailers(list: readonly HpackField[], ends: boolean, maxFields: number): string | undefined {
    const problem = ends ? responseTrailersProblem(list, maxFields) : 'trailers that do not end the response';
    if (problem !== undefined) return problem;
    if (this.#isSwitched) return 'trailers on a stream that was switched to another protocol';
    return this.#isAwaited ? TOO_SHORT : undefined;
  }

  get #isAwaited(): boolean {
    return this.#awaited !== undefined && this.#awaited > 0;
  }
}
