/** Watches what one side of a connection writes, and what it was told: whatever breaks RFC 9113 fails. */
import assert from 'node:assert/strict';
import {
  ACK,
  CONTINUATION,
  DATA,
  END_HEADERS,
  END_STREAM,
  framesIn,
  GOAWAY,
  HEADERS,
  PREFACE,
  RST_STREAM,
  SETTINGS,
  WINDOW_UPDATE,
} from './http2-frames.ts';

interface Watched {
  window: number;
  isOver: boolean;
  hasEnded: boolean;
  hasHead: boolean;
}

export class Referee {
  /** Ids of streams in the order in which they began. */
  readonly begun: number[] = [];
  readonly streams = new Map<number, Watched>();
  /** Octets of DATA that may still be sent. */
  window = 65_535;
  #initialWindow = 65_535;
  #hasSettings = false;
  #read = 0;
  readonly #opens: boolean;
  #block = 0;
  goaway: { readonly last: number; readonly code: number } | undefined;
  settingsTaken = 0;

  /** `opens`: the side that is watched opens the streams. */
  constructor(opens: boolean) {
    this.#opens = opens;
    if (opens) this.#read = PREFACE.length;
  }

  /** The side was told that it may send more. */
  gaveWindow(stream: number, increment: number): void {
    if (stream === 0) this.window += increment;
    else {
      const watched = this.streams.get(stream);
      if (watched !== undefined) watched.window += increment;
    }
  }

  /**
   * It was told SETTINGS, with a window or without. One that is smaller than before is no fault: what is on its way was sent before
   * it was heard of. The first are heard before anything is sent.
   */
  gaveSettings(window = this.#initialWindow): void {
    const more = window - this.#initialWindow;
    const isFirst = !this.#hasSettings;
    this.#hasSettings = true;
    if (more <= 0 && !isFirst) return;
    for (const watched of this.streams.values()) watched.window += more;
    this.#initialWindow = window;
  }

  /** The other side has opened it. */
  wasOpened(stream: number): void {
    this.streams.set(stream, { window: this.#initialWindow, isOver: false, hasEnded: false, hasHead: false });
  }

  /** The other side has reset it: what was on its way is no fault. */
  wasReset(stream: number): void {
    const watched = this.streams.get(stream);
    if (watched !== undefined) watched.window = Infinity;
  }

  /** Everything that it has written so far. */
  watch(all: Buffer): void {
    if (this.#opens && this.#read === PREFACE.length) assert.ok(all.subarray(0, PREFACE.length).equals(PREFACE.subarray(0, all.length)));
    const frames = framesIn(all.subarray(this.#read));
    for (const { type, flags, stream, payload } of frames) {
      this.#read += 9 + payload.length;
      assert.ok(payload.length <= 16_384, 'a frame that is too large');
      if (this.#block !== 0) assert.deepEqual([type, stream], [CONTINUATION, this.#block], 'a frame within a field block');
      if (type === SETTINGS && (flags & ACK) !== 0) this.settingsTaken++;
      if (type === GOAWAY) this.goaway = { last: payload.readUInt32BE(0), code: payload.readUInt32BE(4) };
      if (type === WINDOW_UPDATE) assert.ok(payload.readUInt32BE(0) > 0, 'a window of nothing');
      if (stream === 0) continue;
      let watched = this.streams.get(stream);
      if (watched === undefined && this.#opens && type === HEADERS) {
        assert.ok(stream > (this.begun.at(-1) ?? 0), 'streams begin in their order');
        this.begun.push(stream);
        this.wasOpened(stream);
        watched = this.streams.get(stream);
      }
      assert.ok(watched !== undefined, `a frame of type ${type} on a stream that is not there: ${stream}`);
      assert.ok(!watched.isOver, `a frame of type ${type} on stream ${stream}, which it has reset`);
      if (type === HEADERS || type === CONTINUATION) this.#block = (flags & END_HEADERS) === 0 ? stream : 0;
      if (type === HEADERS || type === DATA) {
        assert.ok(!watched.hasEnded, `a frame of type ${type} on stream ${stream}, which it has ended`);
        assert.ok(type === HEADERS || watched.hasHead, 'DATA ahead of HEADERS');
        watched.hasHead = true;
        watched.hasEnded = (flags & END_STREAM) !== 0;
      }
      if (type === DATA) {
        watched.window -= payload.length;
        this.window -= payload.length;
        assert.ok(payload.length === 0 || (watched.window >= 0 && this.window >= 0), `more DATA than its window on stream ${stream}`);
      }
      if (type === RST_STREAM) watched.isOver = true;
    }
  }
}
