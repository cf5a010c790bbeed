import { readBounded, MAX_FILE_BYTES } from '../federation/files.ts';
import { inspectFile, type FileReport } from '../inspect/file.ts';
import { systemClock } from '../lib/clock.ts';
import { messageOf } from '../lib/errors.ts';
import { err, ok, type Result } from '../lib/result.ts';
import { counted, drawCertificate } from './draw.ts';
import { EXIT_FAILED, EXIT_OK, EXIT_USAGE, type CommandEnvironment } from './environment.ts';
import { screenOf, span, type Line } from './screen.ts';
import { inAscii, visible } from './text.ts';

export interface InspectOptions {
  readonly json?: boolean | undefined;
}

/** `scute inspect`: what a server shows, or what a file holds, judged and drawn as `scute certs` does. */
export async function inspect(
  target: string,
  options: InspectOptions,
  environment: CommandEnvironment,
  stopped: AbortSignal,
): Promise<number> {
  return inspectFileAt(target, options, environment, stopped);
}

// ——— a file ———

async function inspectFileAt(
  file: string,
  { json }: InspectOptions,
  environment: CommandEnvironment,
  stopped: AbortSignal,
): Promise<number> {
  const { stdout, stderr } = environment;
  const bytes = file === '-' ? await readInput(environment, stopped) : await readBounded(file);
  if (!bytes.ok) {
    stderr(`scute: ${visible(bytes.error)}\n`);
    return EXIT_USAGE;
  }
  const nowMs = systemClock.now();
  const report = inspectFile(bytes.value, nowMs);
  if (json === true) stdout(`${inAscii(JSON.stringify({ target: file, ...report }, null, 2))}\n`);
  else stdout(screenOf(environment).render(drawFile(report, environment, nowMs)));
  return isGood(report) ? EXIT_OK : EXIT_FAILED;
}

async function readInput({ stdin }: CommandEnvironment, stopped: AbortSignal): Promise<Result<Uint8Array, string>> {
  if (stdin === undefined) return err('there is no standard input');
  const input = stdin();
  const stop = (): void => void input.destroy();
  stopped.addEventListener('abort', stop, { once: true });
  try {
    const chunks: Uint8Array[] = [];
    let length = 0;
    for await (const chunk of input) {
      chunks.push(chunk);
      length += chunk.length;
      if (length > MAX_FILE_BYTES) return err(`standard input is larger than ${MAX_FILE_BYTES} bytes`);
    }
    return ok(Buffer.concat(chunks));
  } catch (cause) {
    return err(stopped.aborted ? 'stopped' : `standard input cannot be read: ${messageOf(cause)}`);
  } finally {
    stopped.removeEventListener('abort', stop);
    input.destroy();
  }
}

/** Whoever relies on it would be let down: it is wrong, or not valid now, or refused for its form. */
function isGood({ problems, certificates }: FileReport): boolean {
  return (
    problems.length === 0 &&
    certificates.every(({ validity, findings }) => validity === 'valid' && findings.every(({ verdict }) => verdict !== 'refused'))
  );
}

function drawFile(report: FileReport, environment: CommandEnvironment, nowMs: number): readonly Line[] {
  const { form, certificates, revocationLists, jwtKeys, sequence, refreshHint, privateKeys, notes, problems } = report;
  const issuers = new Map(certificates.map((certificate) => [certificate.id, certificate]));
  const drawing = { screen: screenOf(environment), nowMs, issuers };
  const cards = certificates.flatMap((certificate): Line[] => [...drawCertificate(certificate, drawing), []]);
  const saysWhen =
    sequence === null && refreshHint === null ? '' : `, sequence ${sequence ?? 'none'}, refresh hint ${refreshHint ?? 'none'} s`;
  return [
    ...cards,
    ...revocationLists.flatMap(({ issuerName, thisUpdate, nextUpdate, notes: odd }): Line[] => [
      [span(`revocation list by ${issuerName}, of ${thisUpdate ?? 'no time'}, the next by ${nextUpdate ?? 'no time'}`)],
      ...odd.map((note) => [span(`! ${note}`)]),
    ]),
    ...jwtKeys.map(({ keyId, keyType }): Line => [span(`key for JWT-SVIDs: kid ${keyId} (${keyType})`)]),
    ...(privateKeys === 0
      ? []
      : [[span(`It holds ${privateKeys === 1 ? 'a private key' : `${privateKeys} private keys`}, of which nothing is shown.`, 'warn')]]),
    ...notes.map((note): Line => [span(`note: ${note}`, 'soft')]),
    ...problems.map((problem): Line => [span(`! ${problem}`, 'bad')]),
    [span(`${FORMS[form]}: ${counted(certificates.length, 'certificate')}${saysWhen}`)],
  ];
}

const FORMS: Readonly<Record<FileReport['form'], string>> = { pem: 'PEM', der: 'DER', bundle: 'SPIFFE bundle' };
