import { request } from 'node:http';
import type { ProbeConfig } from '../config/sections/probes.ts';
import { formatAddress } from '../config/units.ts';
import type { Clock } from '../lib/clock.ts';
import { codeOf, messageOf } from '../lib/errors.ts';
import { limitInterim } from '../lib/interim.ts';
import type { ProbeResult } from '../telemetry/log/probe-records.ts';
import { plain, type Reply, type Respond } from './http.ts';

export interface ProbeDeps {
  readonly clock: Clock;
  /** The application was asked: once, however many wanted to know. */
  readonly probed: (probe: ProbeConfig, result: ProbeResult, detail: string | undefined) => void;
}

/** What came of asking the application. */
interface Outcome {
  readonly result: ProbeResult;
  /** Of the answer, if it is one that may be told. */
  readonly status: number;
  readonly detail: string | undefined;
}

/** As a kubelet waits by default. */
const ANSWER_WITHIN_MS = 1000;
/**
 * An answer counts for all who ask so soon after the question. Each question takes a port of the loopback interface, for a while after it
 * as well, and connections of peers to the application need the same ones.
 */
const COUNTS_FOR_MS = 200;
const MAX_HEAD_BYTES = 8192;

/**
 * Answers with the status that the application gives to a GET of a fixed target, and nothing else of what it says. Nothing of the request
 * to us goes on to the application. No connection: 502; no answer within a second: 504. The question is asked 5 times a second at most, and
 * once at a time.
 */
export function createProbe(probe: ProbeConfig, { clock, probed }: ProbeDeps): Respond {
  let asked: { readonly atMs: number; readonly outcome: Promise<Outcome> } | undefined;
  let isUnderWay = false;
  return async () => {
    if (asked === undefined || (!isUnderWay && clock.monotonic() - asked.atMs >= COUNTS_FOR_MS)) {
      isUnderWay = true;
      const outcome = askApplication(probe, clock).then((came) => {
        isUnderWay = false;
        probed(probe, came.result, came.detail);
        return came;
      });
      asked = { atMs: clock.monotonic(), outcome };
    }
    return replyFor(await asked.outcome);
  };
}

function replyFor({ result, status, detail }: Outcome): Reply {
  return result === 'answered' ? { status, body: '' } : plain(status, `no answer of the application: ${detail ?? result}`);
}

/** Never rejects. */
function askApplication({ to, target }: ProbeConfig, clock: Clock): Promise<Outcome> {
  return new Promise((resolve) => {
    const where =
      to.kind === 'unix'
        ? { socketPath: to.path, headers: { host: 'localhost' } }
        : { host: to.host, port: to.port, headers: { host: formatAddress(to) } };
    // A connection of its own: one that was kept could be closed by the application just then.
    const asking = request({
      ...where,
      path: target,
      method: 'GET',
      agent: false,
      maxHeaderSize: MAX_HEAD_BYTES,
      insecureHTTPParser: false,
    });
    const timer = clock.after(ANSWER_WITHIN_MS, () => end({ result: 'timeout', status: 504, detail: 'it did not answer within 1s' }));
    const end = (outcome: Outcome): void => {
      timer.cancel();
      asking.destroy();
      resolve(outcome);
    };
    asking.on('error', (cause) => end({ result: 'failed', status: 502, detail: whyNot(cause, to.kind) }));
    limitInterim(asking, (detail) => end({ result: 'failed', status: 502, detail }));
    asking.on('upgrade', (_, socket) => {
      socket.destroy();
      end({ result: 'failed', status: 502, detail: 'it changed the protocol' });
    });
    asking.on('response', (response) => {
      // What is destroyed says so once more.
      response.on('error', () => undefined);
      const { statusCode = 0 } = response;
      if (statusCode >= 200 && statusCode <= 599) end({ result: 'answered', status: statusCode, detail: undefined });
      else end({ result: 'failed', status: 502, detail: 'it answered with a status that there is not' });
    });
    asking.end();
  });
}

/** For whoever may ask, and that may be anybody: no path, no address, none of the application's words. */
function whyNot(cause: Error, kind: 'tcp' | 'unix'): string {
  const code = codeOf(cause);
  if (code === 'ECONNREFUSED' || code === 'ENOENT') return `nothing listens on its ${kind === 'unix' ? 'socket' : 'port'}`;
  return code?.startsWith('HPE_') === true ? 'it is no HTTP/1.1' : (code ?? messageOf(cause));
}
