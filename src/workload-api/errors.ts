import { status } from '@grpc/grpc-js';
import { messageOf, ScuteError } from '../lib/errors.ts';

/**
 * Why a Workload API stream ended, in one closed set for metrics and logs: the name of the gRPC status that the agent gave
 * (`OK` when it ended the stream in order), or one of our own words for what we found out or decided ourselves.
 */
export type StreamEndCode = keyof typeof status | OwnCode;

type OwnCode =
  | 'TRANSPORT' // the call failed without a gRPC status
  | 'SOCKET_REPLACED' // the path names another socket than the one that we talk to
  | 'CLOCK_JUMPED' // the wall clock was set, or the machine slept
  | 'SVID_AGEING'; // two thirds of the SVID's life are over and no newer one came

/** A call to the Workload API failed, or its stream ended. */
export class WorkloadApiError extends ScuteError {
  override name = 'WorkloadApiError';
  readonly code = 'ERR_WORKLOAD_API';
  readonly endCode: StreamEndCode;

  constructor(message: string, options: { endCode: StreamEndCode; cause?: unknown }) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.endCode = options.endCode;
  }

  /** Whatever a call of `method` threw, as a WorkloadApiError. */
  static from(thrown: unknown, method: string): WorkloadApiError {
    if (thrown instanceof WorkloadApiError) return thrown;
    const endCode = statusNameOf(thrown) ?? 'TRANSPORT';
    return new WorkloadApiError(`${method}: ${printable(messageOf(thrown))}`, { endCode, cause: thrown });
  }

  /** The agent says that we hold no identity: stop using what it gave before (SPIFFE Workload API, section 4). */
  meansNoIdentity(): boolean {
    return this.endCode === 'PERMISSION_DENIED';
  }

  /** False for InvalidArgument and Unimplemented: asking again soon cannot help (SPIFFE Workload Endpoint, section 6). */
  override shouldRetry(): boolean {
    return this.endCode !== 'INVALID_ARGUMENT' && this.endCode !== 'UNIMPLEMENTED';
  }
}

function statusNameOf(thrown: unknown): keyof typeof status | undefined {
  if (!(thrown instanceof Error) || !('code' in thrown) || typeof thrown.code !== 'number') return undefined;
  const name = status[thrown.code];
  return name === undefined ? undefined : (name as keyof typeof status);
}

const LONGEST_MESSAGE = 500;

/** What the agent writes into a status goes to the log: bounded, and on one line. */
function printable(text: string): string {
  const oneLine = text.replace(/\p{Cc}+/gu, ' ');
  return oneLine.length > LONGEST_MESSAGE ? `${oneLine.slice(0, LONGEST_MESSAGE)}…` : oneLine;
}
