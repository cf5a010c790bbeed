import { FakeClock } from '../fake-clock.ts';
import { frame, framesIn, HEADERS, DATA, END_HEADERS, END_STREAM, hpack, PREFACE, settings, type Frame } from './http2-frames.ts';
import { MemoryConnection } from '../memory-connection.ts';
import { forwarderOptions } from '../memory-forwarder.ts';
import type { RequestRecord } from '../../../src/telemetry/log/records.ts';
import type { UpstreamOutcome } from '../../../src/forward/http1-upstream.ts';
import { forwardSpliced, type SpliceOptions } from '../../../src/forward/splice/splice.ts';

/** A client and the applications that its requests lead to, all in memory. */
export function startMemorySplice(options: Partial<SpliceOptions> = {}, outcome?: UpstreamOutcome) {
  const client = new MemoryConnection();
  const applications: MemoryConnection[] = [];
  const records: RequestRecord[] = [];
  const faults: string[] = [];
  const clock = new FakeClock();
  const shared = forwarderOptions(() => false);
  forwardSpliced({
    ...shared,
    downstream: client,
    clock,
    maxConcurrentStreams: 100,
    upgrades: undefined,
    idleTimeoutMs: undefined,
    greetingTimeoutMs: 5000,
    files: { take: () => true, give: () => undefined, held: 0 },
    open(done) {
      if (outcome === undefined) {
        const connection = new MemoryConnection();
        applications.push(connection);
        done({ ok: true, connection });
      } else done(outcome);
      return { abort: () => undefined };
    },
    faulted: (side, reason) => faults.push(`${side} ${reason}`),
    requestFinished: (record) => records.push(record),
    done: () => undefined,
    ...options,
  });
  client.say(Buffer.concat([PREFACE, settings()]));
  const frames = (connection: MemoryConnection, skip = 0): Frame[] => framesIn(Buffer.concat(connection.written).subarray(skip));
  return {
    session: shared.session,
    clock,
    client,
    applications,
    records,
    faults,
    toClient: () => frames(client),
    toApplication: (index = 0) => frames(applications[index] ?? new MemoryConnection(), PREFACE.length),
    answer: (stream: number, body: Buffer) =>
      applications[0]?.say(
        Buffer.concat([frame(HEADERS, END_HEADERS, stream, hpack([[':status', '200']])), frame(DATA, END_STREAM, stream, body)]),
      ),
  };
}
