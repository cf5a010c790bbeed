/** HPACK as Scute reads and writes it, and as golang.org/x/net does: many connections at once, since that one is a program. */
import { spawnSync } from 'node:child_process';
import { HpackDecoder, HpackError, type HpackProblem } from '../../src/http2/hpack/decoder.ts';
import { HpackEncoder } from '../../src/http2/hpack/encoder.ts';
import type { HpackField } from '../../src/http2/hpack/field.ts';
import { part } from '../interop/parts.ts';
import { uint32 } from '../support/http/http2-frames.ts';
import { ANYTHING, drawHpackConnection } from './hpack-connections.ts';
import { Draws } from './random.ts';

/** Where the two differ on purpose: but for the last one, what Scute refuses and x/net takes. */
export const DIFFERENCES = {
  integer: 'x/net takes numbers of up to nine bytes; with zeros at their end, they are what fewer bytes could say',
  size_update_late: 'x/net takes an update after a field, if its table is empty',
  size_update_missing: 'x/net looks for no update after the limit was lowered',
  second_update: 'x/net refuses a second update at the beginning (RFC 7541, section 4.2), if its table is not empty',
} as const satisfies Partial<Record<HpackProblem | 'second_update', string>>;
export type Difference = keyof typeof DIFFERENCES;

const isDifference = (problem: HpackProblem): problem is HpackProblem & Difference => Object.hasOwn(DIFFERENCES, problem);

/** Of batches, and no limit that a case comes near to. */
const UNLIMITED = { maxFieldSectionSize: 2 ** 30, maxFields: 2 ** 30 };
const CASES_AT_ONCE = 2000;
const MAX_ANSWER_BYTES = 2 ** 30;
const Kind = { connection: 0, limit: 1, block: 2 } as const;

/** Of one block. */
interface Expected {
  readonly number: number;
  /** Counted on. */
  readonly connection: number;
  readonly block: Buffer;
  /** As x/net writes what it took. */
  readonly outcome: { readonly fields: Buffer } | { readonly problem: HpackProblem };
}

export class HpackDifferential {
  /** Blocks by what Scute said to them, those of its own encoder aside. */
  readonly seen = new Map<'taken' | HpackProblem, number>();
  readonly differences = new Set<Difference>();
  written = 0;
  #records: Buffer[] = [];
  #expected: Expected[] = [];
  #cases = 0;
  #connection = 0;

  /** Throws if a case of the last ones differs. */
  check(number: number): void {
    const draws = new Draws(number);
    const { tableSize, events } = drawHpackConnection(draws, ANYTHING);
    this.#record(Kind.connection, tableSize);
    const decoder = new HpackDecoder({ ...UNLIMITED, maxTableSize: tableSize });
    const messages: (readonly HpackField[])[] = [];
    for (const event of events) {
      if (event.kind === 'limit') {
        decoder.limitTableSize(event.bytes);
        this.#record(Kind.limit, event.bytes);
        continue;
      }
      const outcome = read(decoder, event.bytes);
      this.#block(number, event.bytes, 'problem' in outcome ? outcome : { fields: encodeAnswer(outcome.fields) });
      const said = 'problem' in outcome ? outcome.problem : 'taken';
      this.seen.set(said, (this.seen.get(said) ?? 0) + 1);
      if ('problem' in outcome) break;
      messages.push(outcome.fields);
    }
    this.#write(number, draws, messages);
    if (++this.#cases >= CASES_AT_ONCE) this.finish();
  }

  /** What Scute read, written by its encoder for an application that changes the size of its table. */
  #write(number: number, draws: Draws, messages: readonly (readonly HpackField[])[]): void {
    this.#record(Kind.connection, 4096);
    const encoder = new HpackEncoder();
    for (const fields of messages) {
      if (draws.once(4)) {
        const bytes = draws.of([0, 100, 4096, 65_536]);
        encoder.limitTableSize(bytes);
        this.#record(Kind.limit, bytes);
      }
      this.#block(number, encoder.encode(fields), { fields: encodeAnswer(fields) });
      this.written++;
    }
  }

  /** Asks x/net of all that is still open. */
  finish(): void {
    const { stdout, status } = spawnSync(part('go-spiffe'), ['hpack'], {
      input: Buffer.concat(this.#records),
      maxBuffer: MAX_ANSWER_BYTES,
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    if (status !== 0) throw new Error(`spiffe-peer hpack ended with ${status}`);
    let at = 0;
    // Where x/net has given up.
    let lost = -1;
    for (const expected of this.#expected) {
      const length = stdout.readUInt32BE(at);
      const isOver = expected.connection === lost || !this.#compare(expected, stdout.subarray(at + 4, at + 4 + length));
      if (isOver) lost = expected.connection;
      at += 4 + length;
    }
    if (at !== stdout.length) throw new Error('x/net said more than it was asked');
    this.#records = [];
    this.#expected = [];
    this.#cases = 0;
  }

  /** False if the two have nothing more to say about this connection. */
  #compare({ number, block, outcome }: Expected, answer: Buffer): boolean {
    const isTaken = answer[0] === 1;
    if ('fields' in outcome ? outcome.fields.equals(answer) : !isTaken) return isTaken;
    const met = 'fields' in outcome ? this.#secondUpdate(block, answer) : outcome.problem;
    if (met !== undefined && (met === 'second_update' || isDifference(met))) {
      this.differences.add(met);
      return false;
    }
    const ours = 'fields' in outcome ? outcome.fields.toString('latin1') : outcome.problem;
    throw new Error(
      `case ${number}, block ${block.toString('hex')}: ${JSON.stringify(ours)}, x/net ${JSON.stringify(answer.toString('latin1'))}`,
    );
  }

  #secondUpdate(block: Buffer, answer: Buffer): Difference | undefined {
    if (!answer.includes('size update MUST occur')) return undefined;
    return /^(?:[\x20-\x3e]|\x3f[\x80-\xff]*[\0-\x7f]){2}/.test(block.toString('latin1')) ? 'second_update' : undefined;
  }

  #record(kind: number, number: number, bytes: Buffer = Buffer.alloc(0)): void {
    if (kind === Kind.connection) this.#connection++;
    this.#records.push(Buffer.of(kind), uint32(number), bytes);
  }

  #block(number: number, block: Buffer, outcome: Expected['outcome']): void {
    this.#record(Kind.block, block.length, block);
    this.#expected.push({ number, connection: this.#connection, block, outcome });
  }
}

function read(decoder: HpackDecoder, block: Buffer): { readonly fields: readonly HpackField[] } | { readonly problem: HpackProblem } {
  try {
    const fields = decoder.decode(block);
    if (fields === 'too_large') throw new Error('there is no limit');
    return { fields };
  } catch (error) {
    if (error instanceof HpackError) return { problem: error.reason };
    throw error;
  }
}

/** As `test/interop/go/hpack.go` writes it. */
function encodeAnswer(fields: readonly HpackField[]): Buffer {
  let length = 1;
  for (const [name, value] of fields) length += 9 + name.length + value.length;
  const answer = Buffer.alloc(length);
  answer[0] = 1;
  let at = 1;
  for (const [name, value, neverIndexed] of fields) {
    answer[at++] = neverIndexed === true ? 1 : 0;
    for (const text of [name, value]) {
      at = answer.writeUInt32BE(text.length, at);
      at += answer.write(text, at, 'latin1');
    }
  }
  return answer;
}
