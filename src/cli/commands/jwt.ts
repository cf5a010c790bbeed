import { parseDuration } from '../../config/units.ts';
import type { WorkloadApiPlace } from '../../inspect/tokens.ts';
import { systemClock } from '../../lib/clock.ts';
import { err, ok, type Result } from '../../lib/result.ts';
import { parseSpiffeId } from '../../spiffe/spiffe-id.ts';
import { chooseEndpoint, ENDPOINT_VARIABLE } from '../../workload-api/endpoint.ts';
import { EXIT_FAILED, EXIT_OK, EXIT_UNAVAILABLE, EXIT_USAGE, type CommandEnvironment } from '../environment.ts';
import { readInput } from '../input.ts';
import { inAscii, visible } from '../text.ts';

export interface JwtFlags {
  /** At least one. */
  readonly audience: readonly string[];
  readonly workloadApi?: string | undefined;
  /** A duration, such as `5s`. */
  readonly timeout?: string | undefined;
  readonly json?: boolean | undefined;
}

export interface JwtFetchFlags extends JwtFlags {
  readonly spiffeId?: string | undefined;
  readonly hint?: string | undefined;
}

const TIMEOUT_MS = 10_000;
const LONGEST_MS = 3_600_000;
/** Of standard input: what is no token is refused for that, and not for being read in part. */
const MAX_INPUT_BYTES = 1 << 20;

/** `scute jwt fetch`: prints a JWT-SVID, which whoever reads it may use as a bearer. */
export async function fetchJwt(flags: JwtFetchFlags, environment: CommandEnvironment, stopped: AbortSignal): Promise<number> {
  const { stdout, stderr } = environment;
  const place = placeOf(flags, environment, stopped);
  const id = flags.spiffeId === undefined ? ok(undefined) : parseSpiffeId(flags.spiffeId);
  if (!place.ok || !id.ok) {
    const wrong = place.ok ? `--spiffe-id ${JSON.stringify(flags.spiffeId)} is no SPIFFE ID` : place.error;
    stderr(`scute: ${visible(wrong)}\n`);
    return EXIT_USAGE;
  }
  const { fetchToken } = await import('../../inspect/tokens.ts');
  const fetched = await fetchToken(place.value, { audience: flags.audience, spiffeId: id.value, hint: flags.hint });
  if (!fetched.ok) {
    stderr(`scute: there is no JWT-SVID: ${visible(fetched.error)}\n`);
    return EXIT_UNAVAILABLE;
  }
  const { token, spiffeId, hint, audience, issuedMs, expiresMs } = fetched.value;
  const report = { spiffeId, hint, audience, issuedAt: isoTime(issuedMs), expiresAt: isoTime(expiresMs), token };
  stdout(flags.json === true ? `${inAscii(JSON.stringify(report, null, 2))}\n` : `${token}\n`);
  return EXIT_OK;
}

/** `scute jwt validate`: whether the token on standard input is a JWT-SVID for the audience. Arguments are visible to others, so it is none. */
export async function validateJwt(flags: JwtFlags, environment: CommandEnvironment, stopped: AbortSignal): Promise<number> {
  const { stdout, stderr } = environment;
  const place = placeOf(flags, environment, stopped);
  const input = place.ok ? await readInput(environment, MAX_INPUT_BYTES, stopped) : place;
  if (!place.ok || !input.ok) {
    stderr(`scute: ${visible(place.ok ? (input.ok ? '' : input.error) : place.error)}\n`);
    return EXIT_USAGE;
  }
  // A shell puts a line end behind what it prints.
  const token = Buffer.from(input.value)
    .toString('latin1')
    .replace(/\r?\n$/, '');
  const { validateToken } = await import('../../inspect/tokens.ts');
  const validated = await validateToken(place.value, token, flags.audience);
  if (!validated.ok) {
    stderr(`scute: the token cannot be judged: ${visible(validated.error)}\n`);
    return EXIT_UNAVAILABLE;
  }
  const verdict = validated.value;
  if (!verdict.ok) {
    const { code, message } = verdict.error;
    stdout(
      flags.json === true
        ? `${inAscii(JSON.stringify({ valid: false, reason: code, detail: message }, null, 2))}\n`
        : `refused  ${code}: ${visible(message)}\n`,
    );
    return EXIT_FAILED;
  }
  const { subject, audience, algorithm, authority, issuedMs, notBeforeMs, expiresMs } = verdict.value;
  const report = {
    valid: true,
    spiffeId: subject,
    audience,
    issuedAt: issuedMs === undefined ? null : isoTime(issuedMs),
    notBefore: notBeforeMs === undefined ? null : isoTime(notBeforeMs),
    expiresAt: isoTime(expiresMs),
    algorithm,
    keyId: authority.keyId,
  };
  const lines = [
    `valid     ${subject}`,
    `audience  ${audience.map((each) => visible(each)).join(' ')}`,
    `expires   ${report.expiresAt}`,
    `key       ${visible(authority.keyId)} (${algorithm})`,
  ];
  stdout(flags.json === true ? `${inAscii(JSON.stringify(report, null, 2))}\n` : `${lines.join('\n')}\n`);
  return EXIT_OK;
}

/** Where the Workload API is, and how long it has. The error is a sentence. */
function placeOf(flags: JwtFlags, { env }: CommandEnvironment, stopped: AbortSignal): Result<WorkloadApiPlace, string> {
  if (flags.audience.includes('')) return err('--audience is empty');
  const timeout = parseDuration(flags.timeout ?? `${TIMEOUT_MS}ms`, LONGEST_MS);
  if (!timeout.ok) return err(`--timeout ${timeout.error}`);
  const endpoint = chooseEndpoint(flags.workloadApi, env[ENDPOINT_VARIABLE]);
  return endpoint.ok ? ok({ endpoint: endpoint.value, clock: systemClock, timeoutMs: timeout.value, stopped }) : endpoint;
}

function isoTime(ms: number): string {
  return new Date(ms).toISOString();
}
