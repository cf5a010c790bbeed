import type { ServerResponse } from 'node:http';
import type { Clock, Timer } from '../../lib/clock.ts';
import type { StreamEvent, StreamTopic } from '../api-types.ts';
import { isoTime } from '../iso-time.ts';

/** Of each topic a text that is another whenever the topic has changed. Asked twice a second while somebody listens, so it must cost little. */
export type Looks = Readonly<Record<StreamTopic, string>>;

export interface EventStreamsOptions {
  readonly clock: Clock;
  readonly look: () => Looks;
}

const LOOK_EVERY_MS = 500;
/** Under traffic it changes always, and no page asks again within a second. */
const EVERY_SECOND_LOOK: StreamTopic = 'traffic';
/** Without news; a page that hears nothing for three of these knows that the process, or the way to it, is gone. */
const BEAT_EVERY_MS = 5000;

interface Stream {
  readonly response: ServerResponse;
  /** The revisions that it was told of. */
  readonly told: Map<StreamTopic, number>;
  lastSentMs: number;
}

/**
 * Tells pages what has changed, as server-sent events: the names of topics with their revisions, never what they say, so that a page asks for
 * what it shows. It looks only while there is a stream. Who reads slowly gets the newest state when it reads again: nothing is kept for it.
 */
export class EventStreams {
  readonly #options: EventStreamsOptions;
  readonly #streams = new Set<Stream>();
  readonly #seen = new Map<StreamTopic, { readonly look: string; readonly revision: number }>();
  #timer: Timer | undefined;
  #looks = 0;

  constructor(options: EventStreamsOptions) {
    this.#options = options;
  }

  /** A stream from here on, until it is closed by anybody. Its head has been sent. */
  open(response: ServerResponse): void {
    const stream: Stream = { response, told: new Map(), lastSentMs: 0 };
    this.#streams.add(stream);
    response.once('close', () => {
      this.#streams.delete(stream);
      if (this.#streams.size > 0) return;
      this.#timer?.cancel();
      this.#timer = undefined;
    });
    response.on('drain', () => this.#tell(stream));
    this.#look();
    this.#tell(stream);
    this.#timer ??= this.#options.clock.after(LOOK_EVERY_MS, () => this.#round());
  }

  #round(): void {
    this.#timer = this.#options.clock.after(LOOK_EVERY_MS, () => this.#round());
    this.#look();
    for (const stream of this.#streams) this.#tell(stream);
  }

  #look(): void {
    this.#looks += 1;
    for (const [topic, look] of Object.entries(this.#options.look()) as [StreamTopic, string][]) {
      const seen = this.#seen.get(topic);
      if (topic === EVERY_SECOND_LOOK && seen !== undefined && this.#looks % 2 === 1) continue;
      if (seen?.look !== look) this.#seen.set(topic, { look, revision: (seen?.revision ?? 0) + 1 });
    }
  }

  #tell(stream: Stream): void {
    const { response, told } = stream;
    if (response.writableNeedDrain || response.writableEnded || response.destroyed) return;
    const { clock } = this.#options;
    const changed = [...this.#seen].filter(([topic, { revision }]) => told.get(topic) !== revision);
    if (changed.length === 0 && clock.monotonic() - stream.lastSentMs < BEAT_EVERY_MS) return;
    for (const [topic, { revision }] of changed) told.set(topic, revision);
    stream.lastSentMs = clock.monotonic();
    const event: StreamEvent = {
      now: isoTime(clock.now()),
      revisions: Object.fromEntries(changed.map(([topic, { revision }]) => [topic, revision])),
    };
    response.write(`data: ${JSON.stringify(event)}\n\n`);
  }
}
