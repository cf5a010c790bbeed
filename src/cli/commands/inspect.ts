import { createDenyFile, type DenyFileProblem } from '../../config/policy/deny-file.ts';
import { formatIssues } from '../../config/issue.ts';
import { loadConfig } from '../../config/load.ts';
import { formatAddress, isIpAddress, parseAddress, parseDnsName, parseDuration, type Address } from '../../config/units.ts';
import { readBounded, MAX_FILE_BYTES } from '../../federation/files.ts';
import type { SvidChoice } from '../../identity/snapshot.ts';
import { inspectFile, type FileReport } from '../../inspect/file.ts';
import type { PeerQuestion, PeerReport } from '../../inspect/peer.ts';
import { systemClock } from '../../lib/clock.ts';
import { err, ok, type Result } from '../../lib/result.ts';
import { EMPTY_DENY_LIST, type DenyList } from '../../policy/deny-list.ts';
import { parseSpiffeId } from '../../spiffe/spiffe-id.ts';
import { chooseEndpoint, ENDPOINT_VARIABLE } from '../../workload-api/endpoint.ts';
import { counted, drawCertificate } from '../draw.ts';
import { EXIT_FAILED, EXIT_OK, EXIT_UNAVAILABLE, EXIT_USAGE, type CommandEnvironment } from '../environment.ts';
import { readInput } from '../input.ts';
import { screenOf, span, type Line } from '../screen.ts';
import { inAscii, visible } from '../text.ts';

export interface InspectOptions {
  readonly workloadApi?: string | undefined;
  /** Its configuration file: where the Workload API is, and the deny list. */
  readonly config?: string | undefined;
  /** A SPIFFE ID or a hint; false: `--no-svid`. */
  readonly svid?: string | false | undefined;
  /** A SPIFFE ID. */
  readonly expect?: string | undefined;
  readonly serverName?: string | undefined;
  readonly alpn?: readonly string[] | undefined;
  /** Durations, such as `5s`. */
  readonly timeout?: string | undefined;
  readonly wait?: string | undefined;
  readonly json?: boolean | undefined;
}

const TIMEOUT_MS = 10_000;
const WAIT_MS = 500;
const LONGEST_MS = 3_600_000;

/** `scute inspect`: what a server shows, or what a file holds, judged and drawn as `scute certs` does. */
export async function inspect(
  target: string,
  options: InspectOptions,
  environment: CommandEnvironment,
  stopped: AbortSignal,
): Promise<number> {
  const address = parseAddress(target);
  if (address.ok) return inspectServerAt(address.value, options, environment, stopped);
  const { json: _, ...forServers } = options;
  const [wrong] = Object.keys(forServers).map((option) => flagOf(options.svid === false && option === 'svid' ? 'noSvid' : option));
  if (wrong !== undefined || /^(?:unix:.*|[^/]*:\d+)$/.test(target)) {
    const problem = wrong === undefined ? address.error : `${wrong} is for servers, and ${address.error}`;
    environment.stderr(`scute: ${visible(problem)}\n`);
    return EXIT_USAGE;
  }
  return inspectFileAt(target, options, environment, stopped);
}

function flagOf(option: string): string {
  return `--${option.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

// ——— a server ———

async function inspectServerAt(
  endpoint: Address,
  options: InspectOptions,
  environment: CommandEnvironment,
  stopped: AbortSignal,
): Promise<number> {
  const { stdout, stderr } = environment;
  const prepared = await prepare(endpoint, options, environment);
  if (!prepared.ok) {
    stderr(prepared.error);
    return EXIT_USAGE;
  }
  const { question, shows } = prepared.value;
  // A file needs neither gRPC nor TLS.
  const [{ fetchOwnIdentity }, { inspectPeer }] = await Promise.all([
    import('../../inspect/own-identity.ts'),
    import('../../inspect/peer.ts'),
  ]);
  const own = shows && (await fetchOwnIdentity({ ...shows, clock: systemClock, timeoutMs: question.timeoutMs, stopped }));
  if (own?.ok === false) {
    stderr(`scute: there is no SVID to show: ${visible(own.error)}\n`);
    return EXIT_UNAVAILABLE;
  }
  const inspected = await inspectPeer({ ...question, own: own?.value }, systemClock, stopped);
  if (!inspected.ok) {
    stderr(`scute: ${visible(inspected.error)}\n`);
    return EXIT_UNAVAILABLE;
  }
  const report = inspected.value;
  if (options.json === true) stdout(`${inAscii(JSON.stringify({ target: formatAddress(endpoint), ...report }, null, 2))}\n`);
  else stdout(screenOf(environment).render(drawServer(report, environment, systemClock.now())));
  return isWelcome(report) ? EXIT_OK : EXIT_FAILED;
}

interface Prepared {
  readonly question: Omit<PeerQuestion, 'own'>;
  /** Where the SVID is from that the server is shown; undefined if it is shown none. */
  readonly shows: { readonly endpoint: Address; readonly choice: SvidChoice } | undefined;
}

/** What is asked, and by what it is judged. The error is what standard error is to be told. */
async function prepare(endpoint: Address, options: InspectOptions, { env }: CommandEnvironment): Promise<Result<Prepared, string>> {
  const sentence = (problem: string): Result<never, string> => err(`scute: ${visible(problem)}\n`);
  const asked = askedOf(endpoint, options);
  if (!asked.ok) return sentence(asked.error);
  if (options.svid === false) return ok({ question: { ...asked.value, denyList: EMPTY_DENY_LIST }, shows: undefined });
  const choice = choiceOf(options.svid);
  if (!choice.ok) return sentence(choice.error);
  const flags = options.workloadApi === undefined ? {} : { workloadApi: { endpoint: options.workloadApi } };
  const config = options.config === undefined ? undefined : await loadConfig({ file: options.config, flags, env });
  if (config?.ok === false) return err(`${formatIssues(config.error)}\n`);
  const workloadApi = chooseEndpoint(config?.value.workloadApi.endpoint ?? options.workloadApi, env[ENDPOINT_VARIABLE]);
  if (!workloadApi.ok) return sentence(`${workloadApi.error}; or give --no-svid, to see without a verdict what it presents`);
  const denyList = await readDenyList(config?.value.revocations?.file);
  if (!denyList.ok) return err(`${formatIssues(denyList.error)}\n`);
  return ok({ question: { ...asked.value, denyList: denyList.value }, shows: { endpoint: workloadApi.value, choice: choice.value } });
}

/** A hint is whatever its issuer chose, but nobody would take one for a SPIFFE ID. */
function choiceOf(svid: string | undefined): Result<SvidChoice, string> {
  if (svid === undefined) return ok({ by: 'default' });
  if (!/^spiffe:/i.test(svid)) return ok({ by: 'hint', hint: svid });
  const id = parseSpiffeId(svid);
  return id.ok ? ok({ by: 'id', id: id.value }) : err(`--svid ${JSON.stringify(svid)} is no SPIFFE ID: ${id.error}`);
}

/** As it is now. */
async function readDenyList(file: string | undefined): Promise<Result<DenyList, DenyFileProblem>> {
  if (file === undefined) return ok(EMPTY_DENY_LIST);
  const denyFile = createDenyFile({ file, clock: systemClock, intervalMs: Infinity });
  const read = await denyFile.load();
  return read.ok ? ok(denyFile.current()) : read;
}

/** What the options ask for. The error is a sentence. */
function askedOf(
  endpoint: Address,
  { svid, config, alpn = [], ...options }: InspectOptions,
): Result<Omit<PeerQuestion, 'own' | 'denyList'>, string> {
  if (endpoint.kind === 'tcp' && endpoint.port === 0) return err(`${formatAddress(endpoint)} has port 0`);
  const timeout = parseDuration(options.timeout ?? `${TIMEOUT_MS}ms`, LONGEST_MS);
  if (!timeout.ok) return err(`--timeout ${timeout.error}`);
  const wait = parseDuration(options.wait ?? `${WAIT_MS}ms`, LONGEST_MS);
  if (!wait.ok) return err(`--wait ${wait.error}`);
  const expect = options.expect === undefined ? undefined : parseSpiffeId(options.expect);
  if (expect?.ok === false) return err(`--expect ${JSON.stringify(options.expect)} is no SPIFFE ID: ${expect.error}`);
  if (expect !== undefined && svid === false) return err('--expect needs the bundles that come with an SVID: leave --no-svid out');
  if (config !== undefined && svid === false)
    return err('-c is for judging the server, for which there must be an SVID: leave --no-svid out');
  const badName = alpn.find((name) => !/^[\u0021-\u007e]{1,255}$/.test(name));
  if (badName !== undefined) return err(`--alpn ${JSON.stringify(badName)} is no name of a protocol`);
  const named = options.serverName ?? (endpoint.kind === 'tcp' && !isIpAddress(endpoint.host) ? endpoint.host : undefined);
  const serverName = named === undefined ? undefined : parseDnsName(named);
  if (serverName?.ok === false) return err(`--server-name ${JSON.stringify(named)} ${serverName.error}`);
  return ok({
    endpoint,
    serverName: serverName?.value,
    alpn,
    expect: expect?.value,
    timeoutMs: timeout.value,
    waitMs: wait.value,
  });
}

/** Whether it is who it must be, and takes us; without an SVID, whether there was something to see. */
function isWelcome({ handshake, verdict, afterwards, presented }: PeerReport): boolean {
  if (presented === null) return handshake.ok;
  return (verdict?.result === 'authenticated' || verdict?.result === 'allow') && afterwards?.what !== 'ended';
}

function drawServer(report: PeerReport, environment: CommandEnvironment, nowMs: number): readonly Line[] {
  const { address, presented, handshake, askedForCertificate, verdict, afterwards, certificates, omitted } = report;
  const asks = askedForCertificate === null ? '' : askedForCertificate ? ', asks for a certificate' : ', asks for no certificate';
  const shown = askedForCertificate !== true ? '' : `, and was shown ${presented ?? 'none'}`;
  const tls = handshake.ok
    ? `${handshake.tlsVersion}, ${handshake.alpn === null ? 'no ALPN' : `ALPN ${handshake.alpn}`}`
    : 'no TLS connection';
  const issuers = new Map(certificates.map((certificate) => [certificate.id, certificate]));
  const drawing = { screen: screenOf(environment), nowMs, issuers };
  return [
    [span(`${address}  ${tls}${asks}${shown}`, 'soft')],
    drawVerdict(report),
    ...(afterwards?.what === 'ended'
      ? [
          [
            span(`It ended the connection after the handshake${afterwards.detail === null ? '' : `: ${afterwards.detail}`}.`, 'bad'),
            span(presented === null ? '' : ` It may not accept ${presented}.`),
          ],
        ]
      : []),
    ...(certificates.length === 0 ? [] : [[]]),
    ...certificates.flatMap((certificate): Line[] => [...drawCertificate(certificate, drawing), []]),
    ...(omitted === 0 ? [] : [[span(`and ${counted(omitted, 'more certificate')} that it sent`)]]),
    ...(verdict === null && handshake.ok ? [[span('It was not judged: without an SVID there is no bundle to judge by.', 'soft')]] : []),
  ];
}

function drawVerdict({ handshake, verdict, askedForCertificate, presented }: PeerReport): Line {
  if (!handshake.ok) {
    const hint = askedForCertificate === true && presented === null ? ' It asks for a certificate, and was shown none.' : '';
    return [span(`The TLS handshake failed: ${handshake.code}: ${handshake.detail}.${hint}`, 'bad')];
  }
  if (verdict === null) return [span('Nothing that it says is proven.')];
  const { result, spiffeId, detail } = verdict;
  if (result === 'authenticated' || result === 'allow')
    return [span(`It is ${spiffeId}${result === 'allow' ? ', as expected' : ''}.`, 'strong')];
  return [span(`Refused: ${result}: ${detail ?? ''}`, 'bad')];
}

// ——— a file ———

async function inspectFileAt(
  file: string,
  { json }: InspectOptions,
  environment: CommandEnvironment,
  stopped: AbortSignal,
): Promise<number> {
  const { stdout, stderr } = environment;
  const bytes = file === '-' ? await readInput(environment, MAX_FILE_BYTES, stopped) : await readBounded(file);
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
