import { resolve } from 'node:path';
import { formatAddress, isLocal, parseListenAddress } from '../../config/units.ts';
import { createFleet } from '../../fleet/server.ts';
import { parsePrometheusUrl } from '../../fleet/url.ts';
import { systemClock } from '../../lib/clock.ts';
import { messageOf } from '../../lib/errors.ts';
import { EXIT_FAILED, EXIT_OK, EXIT_USAGE, type CommandEnvironment } from '../environment.ts';

export interface FleetFlags {
  readonly prometheus: string;
  readonly listen: string;
  readonly caFile?: string | undefined;
  readonly tokenFile?: string | undefined;
}

const STOP_WITHIN_MS = 5000;

/** `scute fleet`: every certificate of every sidecar that a Prometheus scrapes, as a page and as JSON, until `signal` aborts. Resolves to the exit code. */
export async function runFleet(flags: FleetFlags, { stdout, stderr }: CommandEnvironment, signal: AbortSignal): Promise<number> {
  const wrong = (sentence: string): number => {
    stderr(`scute: ${sentence}\n`);
    return EXIT_USAGE;
  };
  const listen = parseListenAddress(flags.listen);
  if (!listen.ok) return wrong(`--listen: ${listen.error}`);
  if (!isLocal(listen.value)) return wrong('--listen: nobody is asked who he is here: listen on a Unix socket or loopback');
  const url = parsePrometheusUrl(flags.prometheus, { withToken: flags.tokenFile !== undefined });
  if (!url.ok) return wrong(`--prometheus: ${url.error}`);
  if (flags.caFile !== undefined && url.value.protocol !== 'https:') return wrong('--ca-file is for https://');

  const fleet = createFleet({
    url: url.value,
    listen: listen.value,
    caFile: flags.caFile === undefined ? undefined : resolve(flags.caFile),
    tokenFile: flags.tokenFile === undefined ? undefined : resolve(flags.tokenFile),
    clock: systemClock,
    say: (line) => stderr(`scute fleet: ${line}\n`),
  });
  try {
    await fleet.start(signal);
  } catch (cause) {
    stderr(`scute fleet could not start: ${messageOf(cause)}\n`);
    return EXIT_FAILED;
  }
  const bound = formatAddress(fleet.address() ?? listen.value);
  stdout(`${listen.value.kind === 'unix' ? bound : `http://${bound}/`}\nREADY\n`);
  if (!signal.aborted) await new Promise<void>((done) => signal.addEventListener('abort', () => done(), { once: true }));
  await fleet.stop(AbortSignal.timeout(STOP_WITHIN_MS));
  return EXIT_OK;
}
