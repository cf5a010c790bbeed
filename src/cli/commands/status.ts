import type { Certificate, Due } from '../../admin/api-types.ts';
import type { Address } from '../../config/units.ts';
import { systemClock } from '../../lib/clock.ts';
import { err, ok, type Result } from '../../lib/result.ts';
import { requireAdmin, type AdminOptions } from '../admin-address.ts';
import { askAdmin, askList, UNKNOWN_FORM } from '../admin-client.ts';
import {
  certificateSchema,
  connectionSchema,
  listenersSchema,
  overviewSchema,
  readinessSchema,
  refusalSchema,
  rotationsSchema,
  sdsStreamSchema,
  trustDomainSchema,
} from '../api-answers.ts';
import { counted, drawCertificate, duration, lifeOf } from '../draw.ts';
import { EXIT_FAILED, EXIT_OK, EXIT_UNAVAILABLE, EXIT_USAGE, type CommandEnvironment } from '../environment.ts';
import { screenOf, span, type Line, type Screen } from '../screen.ts';
import { AUTHORITY_SOON_MS, problemsOf, timeOf, type Problem, type Status } from '../status-problems.ts';
import { inAscii, table, visible } from '../text.ts';

export interface StatusOptions extends AdminOptions {
  readonly watch?: boolean | undefined;
  readonly json?: boolean | undefined;
}

/** How often it is asked while somebody watches. */
const WATCH_EVERY_MS = 2000;
/** Of each answer: who watches is told soon that one does not come. */
const LIMITS = { timeoutMs: 5000, maxBytes: 32 * 1024 * 1024 };
/** Of each list, so much is read; and so much of it has room on one screen. */
const MAX_READ = 500;
const MAX_SHOWN = 8;
const MAX_NEWEST = 5;

/** `scute status`: whether all is well with the Scute that runs, and if not, what to do. */
export async function status(options: StatusOptions, environment: CommandEnvironment, stopped: AbortSignal): Promise<number> {
  const { stdout, stderr } = environment;
  const found = await requireAdmin(options, environment);
  if (found === undefined) return EXIT_USAGE;
  const { address } = found;
  if (options.watch === true) {
    await watch(address, options.json === true, environment, stopped);
    return EXIT_OK;
  }
  const read = await readStatus(address, stopped);
  if (!read.ok) {
    stderr(`scute: ${visible(read.error)}\n`);
    return EXIT_UNAVAILABLE;
  }
  const nowMs = systemClock.now();
  stdout(options.json === true ? asJson(read.value, nowMs, 2) : screenOf(environment).render(draw(read.value, environment, nowMs), 'cut'));
  return read.value.readiness.ready ? EXIT_OK : EXIT_FAILED;
}

/** Until it is stopped, whatever becomes of the Scute that is watched. */
async function watch(address: Address, json: boolean, environment: CommandEnvironment, stopped: AbortSignal): Promise<void> {
  const { stdout, isTerminal } = environment;
  let goneSinceMs: number | undefined;
  while (!stopped.aborted) {
    const read = await readStatus(address, stopped);
    // Asking was given up.
    if (stopped.aborted) return;
    const nowMs = systemClock.now();
    goneSinceMs = read.ok ? undefined : (goneSinceMs ?? nowMs);
    if (json) stdout(read.ok ? asJson(read.value, nowMs) : `${inAscii(JSON.stringify({ ready: false, gone: read.error }))}\n`);
    else {
      const screen = screenOf(environment);
      const lines = read.ok ? draw(read.value, environment, nowMs) : drawGone(read.error, goneSinceMs ?? nowMs, nowMs);
      stdout(isTerminal ? redrawn(screen, lines) : `${screen.render(lines)}\n`);
    }
    await systemClock.sleep(WATCH_EVERY_MS, stopped);
  }
}

/** Over what was there before, and no higher than the terminal is. */
function redrawn(screen: Screen, lines: readonly Line[]): string {
  const text = screen.render(lines.slice(0, Math.max((screen.height ?? Infinity) - 1, 1)), 'cut');
  return `\u001b[H${text.replaceAll('\n', '\u001b[K\n')}\u001b[J`;
}

// ——— what is asked ———

interface Reader<T> {
  safeParse(value: unknown): { readonly success: true; readonly data: T } | { readonly success: false };
}

async function readStatus(address: Address, stopped: AbortSignal): Promise<Result<Status, string>> {
  try {
    const one = async <T>(path: string, schema: Reader<T>): Promise<T> =>
      understood(schema, need(await askAdmin(address, `/api/v1/${path}`, stopped, LIMITS)));
    const many = async <T>(path: string, schema: Reader<T>, maxItems = MAX_READ): Promise<readonly T[]> => {
      const limits = { ...LIMITS, maxItems, maxPages: maxItems };
      const { items } = need(await askList(address, `/api/v1/${path}`, stopped, limits));
      return items.map((item) => understood(schema, item));
    };
    const soon = `${Math.floor(AUTHORITY_SOON_MS / 86_400_000)}d`;
    const overview = await one('overview', overviewSchema);
    const svids = await many('certificates?kind=svid&limit=100', certificateSchema);
    const issuer = svids.find(({ id }) => id === overview.identity.certificate)?.issuer ?? null;
    const byId = new URLSearchParams({ id: issuer ?? '', limit: '1' }).toString();
    return ok({
      overview,
      readiness: await one('readiness', readinessSchema),
      listeners: (await one('listeners', listenersSchema)).items,
      svids,
      issuers: issuer === null ? [] : await many(`certificates?${byId}`, certificateSchema, 1),
      trustDomains: await many('trust-domains?limit=100', trustDomainSchema),
      authorities: await many(`certificates?kind=authority&expiringIn=${soon}&limit=500`, certificateSchema),
      connections: await many(`connections?limit=${MAX_NEWEST}`, connectionSchema, MAX_NEWEST),
      refusals: await many(`refusals?limit=${MAX_NEWEST}`, refusalSchema, MAX_NEWEST),
      sds: await many('sds?limit=100', sdsStreamSchema),
      rotations: await one('rotations', rotationsSchema),
    });
  } catch (thrown) {
    if (thrown instanceof NoAnswer) return err(thrown.message);
    throw thrown;
  }
}

/** Ends the reading: half a status is none. */
class NoAnswer extends Error {}

function need<T>(answer: Result<T, string>): T {
  if (answer.ok) return answer.value;
  throw new NoAnswer(answer.error);
}

function understood<T>(schema: Reader<T>, value: unknown): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new NoAnswer(UNKNOWN_FORM);
}

// ——— how it is told ———

function asJson(read: Status, nowMs: number, indent?: number): string {
  const { ready } = read.readiness;
  return `${inAscii(JSON.stringify({ ready, problems: problemsOf(read, nowMs), ...read }, null, indent))}\n`;
}

function draw(read: Status, environment: CommandEnvironment, nowMs: number): readonly Line[] {
  const problems = problemsOf(read, nowMs);
  return [
    ...drawSentence(read, problems, nowMs),
    ...problems.slice(0, MAX_SHOWN).flatMap(drawProblem),
    ...(problems.length > MAX_SHOWN ? [[span(`and ${counted(problems.length - MAX_SHOWN, 'more thing')}`)]] : []),
    [],
    ...drawIdentity(read, screenOf(environment), nowMs),
    ...drawApplication(read, nowMs),
    ...drawTrust(read, nowMs),
    ...drawListeners(read),
    ...drawConnections(read, nowMs),
    ...drawRefusals(read, nowMs),
    ...drawSds(read),
    ...drawFoot(read, nowMs),
  ];
}

function drawSentence({ readiness, rotations }: Status, problems: readonly Problem[], nowMs: number): readonly Line[] {
  const toLookAt = problems.length === 0 ? '' : `${counted(problems.length, 'thing')} to look at.`;
  const first = !readiness.ready
    ? span(`Not ready. ${toLookAt}`, 'bad')
    : problems.length === 0
      ? span('All is well.', 'strong')
      : span(`Ready. ${toLookAt}`, problems.some(({ severity }) => severity === 'act') ? 'bad' : 'warn');
  const next = rotations.due.find(({ at }) => (timeOf(at) ?? 0) > nowMs);
  const [last] = rotations.past.filter(({ change }) => change === 'svid_rotated');
  return [
    [
      first,
      span(next === undefined ? '' : ` Next: ${DUE[next.what]} in ${sinceOf(nowMs, timeOf(next.at))}${whose(next)}.`),
      span(last === undefined ? '' : ` Last rotation ${sinceOf(timeOf(last.at), nowMs)} ago.`),
    ],
  ];
}

const DUE: Readonly<Record<Due['what'], string>> = {
  svid_renewal: 'renewal of the SVID',
  svid_overdue: 'the SVID is overdue',
  svid_expiry: 'the SVID ends',
  authority_expiry: 'an authority ends',
  bundle_refresh: 'refresh of a bundle',
};

function whose({ what, trustDomain }: Due): string {
  return what.startsWith('svid') || trustDomain === null ? '' : `, of ${trustDomain}`;
}

function sinceOf(fromMs: number | undefined, toMs: number | undefined): string {
  return fromMs === undefined || toMs === undefined ? 'some time' : duration(toMs - fromMs);
}

function drawProblem({ severity, what, why, todo }: Problem): readonly Line[] {
  return [[span(`! ${what}`, severity === 'act' ? 'bad' : 'warn')], [span(`  ${why} `), span(`Do: ${todo}.`, 'strong')]];
}

function drawIdentity({ overview, svids, issuers: signers }: Status, screen: Screen, nowMs: number): readonly Line[] {
  const { state, reason, certificate } = overview.identity;
  const own = svids.find(({ id }) => id === certificate);
  if (own === undefined)
    return [[span('identity  ', 'soft'), span(reason ?? (state === 'waiting' ? 'none has come from the Workload API yet' : 'none'))], []];
  const issuers = new Map<string, Certificate>(signers.map((signer) => [signer.id, signer]));
  const more = svids.length - 1;
  return [
    ...drawCertificate(own, { screen, nowMs, issuers }),
    ...(more > 0 ? [[span(`and ${counted(more, 'more SVID')}: scute certs --kind svid`, 'soft')]] : []),
    [],
  ];
}

function drawApplication({ overview: { application } }: Status, nowMs: number): readonly Line[] {
  if (application === null) return [];
  const { program, state, since, pid, result, exitCode } = application;
  const about = [
    pid === null ? '' : ` as process ${pid}`,
    result === null ? '' : `: ${result}`,
    exitCode === null ? '' : `, exit code ${exitCode}`,
  ];
  return [[span('application  ', 'soft'), span(`${program} ${state}${about.join('')}, for ${sinceOf(timeOf(since), nowMs)}`)], []];
}

function drawTrust({ trustDomains }: Status, nowMs: number): readonly Line[] {
  return drawTable(
    ['trust domain', 'authorities', 'the last ends in', 'bundle from'],
    trustDomains.map(({ trustDomain, authorities, lastExpiry, source, endpoint }) => [
      trustDomain,
      String(authorities),
      lastExpiry === null ? '-' : lifeOf({ validity: validityAt(lastExpiry, nowMs), notBefore: null, notAfter: lastExpiry }, nowMs),
      `${source === null ? 'nobody' : source === 'workload_api' ? 'the Workload API' : 'its endpoint'}${
        endpoint?.problem ? `; the endpoint: ${endpoint.problem.reason}: ${endpoint.problem.detail}` : ''
      }`,
    ]),
  );
}

function validityAt(notAfter: string, nowMs: number): Certificate['validity'] {
  return (timeOf(notAfter) ?? Infinity) <= nowMs ? 'expired' : 'valid';
}

function drawListeners({ listeners }: Status): readonly Line[] {
  return drawTable(
    ['listener', 'direction', 'from', 'to', 'open', 'waiting', 'since the start'],
    listeners.map(({ name, direction, address, to, connections }) => [
      name,
      direction,
      address ?? 'not bound',
      to,
      String(connections.open),
      String(connections.waiting),
      String(connections.opened),
    ]),
  );
}

function drawConnections({ overview, connections }: Status, nowMs: number): readonly Line[] {
  return drawTable(
    [`open: ${overview.connections}`, 'on', 'with', 'by the rule', 'bytes in', 'bytes out'],
    connections.map(({ since, listener, peer, downstreamAddress, rule, denied, audited, bytesFromDownstream, bytesToDownstream }) => [
      `for ${sinceOf(timeOf(since), nowMs)}`,
      listener.name,
      peer ?? downstreamAddress,
      denied === null ? (rule ?? (audited === null ? '-' : `none: audit lets it in (${audited})`)) : `refused: ${denied}`,
      String(bytesFromDownstream),
      String(bytesToDownstream),
    ]),
  );
}

function drawRefusals({ overview, refusals }: Status, nowMs: number): readonly Line[] {
  if (overview.refusals === 0) return [[span('nobody was refused since the start', 'soft')], []];
  return drawTable(
    [`refused: ${overview.refusals}`, 'on', 'who', 'why'],
    refusals.map(({ at, listener, peer, downstreamAddress, reason, detail }) => [
      `${sinceOf(timeOf(at), nowMs)} ago`,
      listener.name,
      peer ?? downstreamAddress,
      `${reason}: ${detail}`,
    ]),
  );
}

function drawSds({ overview, sds }: Status): readonly Line[] {
  if (overview.sdsStreams === 0) return [];
  const subscriptions = sds.flatMap((stream) => stream.subscriptions);
  const [accepted, rejected] = (['accepted', 'rejected'] as const).map(
    (wanted) => subscriptions.filter((each) => each.status === wanted).length,
  );
  return [[span(`SDS  ${counted(overview.sdsStreams, 'stream')}: ${accepted} secrets accepted, ${rejected} rejected`)], []];
}

function drawFoot({ overview, readiness }: Status, nowMs: number): readonly Line[] {
  const { version, startedAt, connections, certificates, generation } = { ...overview, generation: overview.identity.generation };
  const good = readiness.checks.filter(({ ok: isGood }) => isGood).length;
  const inSight = Object.values(certificates).reduce((sum, many) => sum + many, 0);
  const parts = [
    `scute ${version}`,
    `up ${sinceOf(timeOf(startedAt), nowMs)}`,
    `${good} of ${readiness.checks.length} checks pass`,
    counted(connections, 'open connection'),
    `${counted(inSight, 'certificate')} in sight`,
    `generation ${generation}`,
  ];
  return [[span(parts.join(' · '), 'soft')]];
}

function drawTable(head: readonly string[], rows: readonly (readonly string[])[]): readonly Line[] {
  if (rows.length === 0) return [];
  const shown = table([head, ...rows.slice(0, MAX_SHOWN)]);
  const omitted = rows.length - MAX_SHOWN;
  return [
    ...shown.map((text, index): Line => [span(text, index === 0 ? 'soft' : 'plain')]),
    ...(omitted > 0 ? [[span(`and ${omitted} more`, 'soft')]] : []),
    [],
  ];
}

function drawGone(why: string, sinceMs: number, nowMs: number): readonly Line[] {
  return [[span(`Nobody answers since ${duration(nowMs - sinceMs)}. `, 'bad'), span('It is asked again and again.')], [span(`  ${why}`)]];
}
