import { DEFAULT_WINDOW } from '../../http2/frame.ts';
import { ENABLE_CONNECT_PROTOCOL, INITIAL_WINDOW_SIZE, MAX_CONCURRENT_STREAMS, type Settings } from '../../http2/settings.ts';
import { LARGEST_WINDOW } from './wire.ts';

/** What a client of ours is to be told now. */
export interface Announcement {
  /** Numbers and values of SETTINGS. */
  readonly pairs: readonly (readonly [number, number])[];
  /** By how much the window of each of its streams is another one (RFC 9113, section 6.9.2). */
  readonly windowChange: number;
}

/** What the SETTINGS say that a client has of us: what the application takes, and no more than we do. Pure. */
export class Announced {
  readonly #mostStreams: number;
  readonly #mayConnect: boolean;
  /** A window of a stream, and the largest that it ever was. */
  #window = DEFAULT_WINDOW;
  #largestWindow = DEFAULT_WINDOW;
  #streams: number;
  #connect = false;

  /** `mayConnect`: an extended CONNECT may be offered (RFC 8441). */
  constructor(mostStreams: number, mayConnect: boolean) {
    this.#mostStreams = mostStreams;
    this.#streams = mostStreams;
    this.#mayConnect = mayConnect;
  }

  /** An extended CONNECT was offered. */
  get connect(): boolean {
    return this.#connect;
  }

  /** The most that a stream of the client's may have had on its way without our asking for more. */
  get largestWindow(): number {
    return this.#largestWindow;
  }

  /** Said first. `connect`: an extended CONNECT is offered, whatever the application is. */
  begin(connect: boolean): Announcement['pairs'] {
    this.#connect = connect;
    return [[MAX_CONCURRENT_STREAMS, this.#streams], ...(connect ? [[ENABLE_CONNECT_PROTOCOL, 1] as const] : [])];
  }

  /** To be said after the SETTINGS of an application. */
  follow(remote: Pick<Settings, 'initialWindow' | 'maxConcurrentStreams' | 'enablesConnect'>): Announcement {
    const window = Math.min(remote.initialWindow, LARGEST_WINDOW);
    const streams = Math.min(remote.maxConcurrentStreams, this.#mostStreams);
    const pairs: [number, number][] = [];
    if (window !== this.#window) pairs.push([INITIAL_WINDOW_SIZE, window]);
    if (streams !== this.#streams) pairs.push([MAX_CONCURRENT_STREAMS, streams]);
    // It is never taken back (RFC 8441, section 3): what the next application does not take is refused one by one.
    if (remote.enablesConnect && !this.#connect && this.#mayConnect) {
      this.#connect = true;
      pairs.push([ENABLE_CONNECT_PROTOCOL, 1]);
    }
    const windowChange = window - this.#window;
    this.#window = window;
    this.#streams = streams;
    this.#largestWindow = Math.max(this.#largestWindow, window);
    return { pairs, windowChange };
  }
}
