/** A request over HTTP, to this machine. */
import { request } from 'node:http';
import type { Clock } from '../lib/clock.ts';
import { messageOf } from '../lib/errors.ts';
import { limitInterim } from '../lib/interim.ts';
import type { NotifyFailure } from '../telemetry/log/files-records.ts';
import type { NotifyTarget } from './notify-target.ts';

export interface HttpTargetOptions {
  readonly url: string;
  readonly method: string;
  readonly timeoutMs: number;
  readonly clock: Clock;
}

/** Without a body; what is answered is not read, and no redirect is followed. */
export function httpTarget({ url, method, timeoutMs, clock }: HttpTargetOptions): NotifyTarget {
  return {
    kind: 'http',
    target: url,
    tell(context, signal) {
      return new Promise((resolve) => {
        const headers = { 'content-length': '0', connection: 'close', 'scute-set': context.set };
        const asked = request(url, { method, headers, agent: false });
        const finish = (failure: NotifyFailure | undefined): void => {
          timer.cancel();
          signal.removeEventListener('abort', onAbort);
          asked.destroy();
          resolve(failure);
        };
        const onAbort = (): void => finish({ reason: 'failed', detail: `${url} was given up, since Scute stops` });
        const timer = clock.after(timeoutMs, () => finish({ reason: 'timeout', detail: `${url} has not answered within ${timeoutMs} ms` }));
        signal.addEventListener('abort', onAbort, { once: true });
        // Also after it was given up: then nobody asks any longer.
        asked.on('error', (cause) => finish({ reason: 'unreachable', detail: `${url}: ${messageOf(cause)}` }));
        limitInterim(asked, (detail) => finish({ reason: 'failed', detail: `${url}: ${detail}` }));
        asked.once('response', ({ statusCode = 0 }) =>
          finish(statusCode >= 200 && statusCode < 300 ? undefined : { reason: 'bad_status', detail: `${url} answered ${statusCode}` }),
        );
        asked.end();
        if (signal.aborted) onAbort();
      });
    },
  };
}
