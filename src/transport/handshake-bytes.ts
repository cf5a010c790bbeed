import type { Socket } from 'node:net';

/**
 * What peers send in handshakes that they do not finish. OpenSSL reads their certificates when the last byte of them has come,
 * and holds up to 30 times their size until the handshake is over; Node tells nobody of it before that. So bytes are looked
 * at from time to time, and when those under way were sent too much in all, the ones that were sent most are given up.
 * An honest peer's last flight comes whole, so it is not under way for longer than it takes to read.
 */
const LOOK_EVERY_MS = 50;
/** Of one handshake, not counted: a hello with a post-quantum key share and a chain of two or three. */
const FREE_BYTES = 4096;
/** Of all together, beyond that. */
const MAX_BYTES = 1024 * 1024;

/** The code of a handshake that was given up for what all of them hold. */
export const TOO_MUCH_SENT = 'ERR_TOO_MUCH_SENT';

export interface HandshakeUnderWay {
  readonly transport: Pick<Socket, 'bytesRead'>;
  giveUp(sentBytes: number): void;
}

const underWay = new Set<HandshakeUnderWay>();
let timer: NodeJS.Timeout | undefined;

/** It has begun. It must be taken out with `handshakeOver`. */
export function handshakeBegun(handshake: HandshakeUnderWay): void {
  underWay.add(handshake);
  timer ??= setInterval(look, LOOK_EVERY_MS).unref();
}

export function handshakeOver(handshake: HandshakeUnderWay): void {
  underWay.delete(handshake);
}

function look(): void {
  if (underWay.size === 0) {
    clearInterval(timer);
    timer = undefined;
    return;
  }
  for (const { handshake, bytes } of tooMuch([...underWay].map((each) => ({ handshake: each, bytes: each.transport.bytesRead })))) {
    underWay.delete(handshake);
    handshake.giveUp(bytes);
  }
}

/** Those to give up, so that the rest were not sent too much. */
export function tooMuch<T extends { readonly bytes: number }>(handshakes: readonly T[]): readonly T[] {
  const large = handshakes.filter(({ bytes }) => bytes > FREE_BYTES);
  let total = large.reduce((sum, { bytes }) => sum + bytes - FREE_BYTES, 0);
  if (total <= MAX_BYTES) return [];
  const given: T[] = [];
  for (const each of large.toSorted((one, other) => other.bytes - one.bytes)) {
    if (total <= MAX_BYTES) break;
    total -= each.bytes - FREE_BYTES;
    given.push(each);
  }
  return given;
}
