import type { Fault } from '../../http2/frame.ts';
import type { UpstreamFailure } from '../outcome.ts';
import type { ReadRequest, ReadResponse } from './heads.ts';
import type { Section } from './wire.ts';

/** Who takes what is said on streams: a connection of HTTP/2, or what makes something else of it. */
export interface Sink {
  /** Octets of DATA that it takes still, over all of its streams. */
  readonly sendWindow: number;
  /** `initialWindow`: those that it takes of a stream to begin with; `enablesConnect`: it takes extended CONNECT (RFC 8441). */
  readonly remote: { readonly initialWindow: number; readonly enablesConnect: boolean };
  sendBlock(stream: number, block: Buffer, ends: boolean): void;
  /** There must be a window for it. The bytes are the caller's. */
  sendData(stream: number, bytes: Buffer, start: number, end: number, ends: boolean): void;
  /** So many octets more of the response are taken on this stream. */
  sendWindowUpdate(stream: number, increment: number): void;
  /** So many octets of the response were taken. */
  credit(bytes: number): void;
}

/** A request that is asked of the application, and what it hears. */
export interface Asked {
  readonly id: number;
  /** As it was read last; undefined if it could not be read. */
  readonly request: ReadRequest | undefined;
  /** It waits for something of its own, and calls `proceed` when that has come: who came later is not sent before (RFC 9113, section 5.1.1). */
  isHeldUp(): boolean;
  /** Whether it is still to be sent, on this connection. */
  maySend(sink: Sink): boolean;
  /** Whether it may be sent once more, as it is read and judged now. */
  maySendAgain(sink: Sink): boolean;
  send(sink: Sink): void;
  /** It takes no more of them at once. Of its connection, which has times of its own, that is not said. */
  mustWait(): void;
  /** More of the request is taken over all streams. */
  flushRequest(sink: Sink): void;
  applicationWindow(increment: number): void;
  /** SETTINGS have changed the window. What is answered ends the connection. */
  applicationWindowChanged(change: number, sink: Sink): Fault | undefined;
  responseSection(fields: Section, ends: boolean): Fault | undefined;
  /** As `responseSection`, of a head that was read. */
  responseHead(read: ReadResponse, ends: boolean): void;
  responseContent(bytes: Buffer, start: number, end: number, ends: boolean, overhead: number): Fault | undefined;
  /** A response without another end has ended with its connection. */
  responseEndedWithConnection(): void;
  applicationReset(code: number): void;
  /** GOAWAY says that it was not taken. */
  refusedByApplication(code: number): void;
  /** The connection is gone. */
  applicationLost(detail: string): void;
  /** What it answers is no response, which `detail` says of it. */
  applicationMistaken(detail: string): void;
  /** There is no connection to send it on. */
  unreached(failure: UpstreamFailure): void;
  /** It waited for a connection that takes no requests any more. */
  moveOn(): void;
}

/** Where requests go. */
export interface Destination {
  /** SETTINGS_INITIAL_WINDOW_SIZE that it has of us. */
  readonly announcedWindow: number;
  /** Octets that it takes still, over all streams. */
  readonly sendWindow: number;
  /** It is asked something. */
  readonly isBusy: boolean;
  /** Nothing more is to be read for it. */
  readonly isFull: boolean;
  /** So long it has read nothing of what is there for it. */
  readonly fullMs: number;
  /** Once, before anything is asked. */
  connect(): void;
  /** Asks it, or has the request wait until it can be asked. */
  ask(exchange: Asked): void;
  /** One that waits may be sent, if it is its turn. */
  proceed(exchange: Asked): void;
  /** A part of the request is held, for its window is not large enough. */
  holds(exchange: Asked): void;
  /** The stream is over on both sides, or is nobody's any more: it is reset with this code, if there is one. */
  leave(exchange: Asked, code: number | undefined): void;
  /** The client's streams have another window. */
  changeInitialWindow(initialWindow: number): void;
  /** The client takes so much over all streams. */
  raiseWindow(limit: number): void;
  /** Not read from, if its client is full. */
  pauseIf(clientIsFull: boolean): void;
  /** The turn is over: sends what is gathered. */
  flush(): void;
  /** In order, if nothing is under way; else at once. */
  close(): void;
  /** It reads nothing. */
  abandon(): void;
}

/** What a destination tells the client's connection. */
export interface DestinationOwner {
  /** Bytes have come. False: nobody wants them. */
  arrived(bytes: number): boolean;
  wrote(bytes: number): void;
  /** It takes more over all streams. */
  widened(destination: Destination): void;
  /** It broke the rules. */
  faulted(problem: Fault): void;
  /** A mistake of ours. */
  failed(thrown: unknown): void;
  /** Something was done, which may have been written and not sent yet. */
  turned(): void;
  closed(destination: Destination): void;
}
