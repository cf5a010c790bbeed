import type { Certificate, CertificateKind } from '../../admin/api-types.ts';
import { parseDuration, type Address } from '../../config/units.ts';
import { systemClock } from '../../lib/clock.ts';
import { err, ok, type Result } from '../../lib/result.ts';
import { parseSpiffeId } from '../../spiffe/spiffe-id.ts';
import { parseTrustDomain } from '../../spiffe/trust-domain.ts';
import { requireAdmin, type AdminOptions } from '../admin-address.ts';
import { askList, UNKNOWN_FORM, type ReadList } from '../admin-client.ts';
import { certificateSchema } from '../api-answers.ts';
import { KINDS } from '../certificate-kinds.ts';
import { counted, drawCertificate, duration, type Drawn } from '../draw.ts';
import { EXIT_FAILED, EXIT_OK, EXIT_UNAVAILABLE, EXIT_USAGE, type CommandEnvironment } from '../environment.ts';
import { screenOf, span, type Line } from '../screen.ts';
import { inAscii, visible } from '../text.ts';

export interface CertsOptions extends AdminOptions {
  readonly kind?: readonly CertificateKind[] | undefined;
  readonly trustDomain?: string | undefined;
  readonly spiffeId?: string | undefined;
  /** Such as `5m`. */
  readonly expiringIn?: string | undefined;
  readonly json?: boolean | undefined;
}

/** Ours, and whom we trust: what strangers show must not ring an alarm here. */
const HELD: readonly CertificateKind[] = ['svid', 'intermediate', 'authority'];

/** A hundred years, as the API has it. */
const LONGEST_LIFE_MS = 36_500 * 86_400_000;
/** Issuers that are not in the list themselves are asked for one by one. */
const MAX_ISSUERS = 20;

/** `scute certs`: every certificate in sight of the Scute that runs. */
export async function certs(options: CertsOptions, environment: CommandEnvironment, stopped: AbortSignal): Promise<number> {
  const { stdout, stderr } = environment;
  const problem = problemOf(options);
  if (problem !== undefined) {
    stderr(`scute: ${problem}\n`);
    return EXIT_USAGE;
  }
  const found = await requireAdmin(options, environment);
  if (found === undefined) return EXIT_USAGE;
  const { address } = found;
  const asked = await askCertificates(address, queriesOf(options), stopped);
  if (!asked.ok) {
    stderr(`scute: ${visible(asked.error)}\n`);
    return EXIT_UNAVAILABLE;
  }
  const { certificates, isCut } = asked.value;
  if (isCut) stderr(`scute: there are more than these ${certificates.length}: ask for some, such as --kind svid\n`);
  if (options.json === true) stdout(`${inAscii(JSON.stringify({ items: certificates }, null, 2))}\n`);
  else {
    const issuers = await askIssuers(address, certificates, stopped);
    stdout(draw(certificates, issuers, environment));
  }
  return options.expiringIn !== undefined && certificates.length > 0 ? EXIT_FAILED : EXIT_OK;
}

function problemOf({ trustDomain, spiffeId, expiringIn }: CertsOptions): string | undefined {
  if (trustDomain !== undefined && !parseTrustDomain(trustDomain).ok) return `--trust-domain ${JSON.stringify(trustDomain)} is none`;
  const id = spiffeId === undefined ? undefined : parseSpiffeId(spiffeId);
  if (id?.ok === false) return `--spiffe-id ${JSON.stringify(spiffeId)} is no SPIFFE ID: ${id.error}`;
  const soon = expiringIn === undefined ? undefined : parseDuration(expiringIn, LONGEST_LIFE_MS);
  return soon?.ok === false ? `--expiring-in ${soon.error}` : undefined;
}

/** One for each kind that is asked for, or one for all. */
function queriesOf({ kind, trustDomain, spiffeId, expiringIn }: CertsOptions): readonly URLSearchParams[] {
  const kinds = kind ?? (expiringIn === undefined ? [undefined] : HELD);
  return [...new Set(kinds)].map((each) => {
    const query = new URLSearchParams({ limit: '500' });
    for (const [name, value] of Object.entries({ kind: each, trustDomain, spiffeId, expiringIn }))
      if (value !== undefined) query.set(name, value);
    return query;
  });
}

async function askCertificates(
  address: Address,
  queries: readonly URLSearchParams[],
  stopped: AbortSignal,
): Promise<Result<{ readonly certificates: readonly Certificate[]; readonly isCut: boolean }, string>> {
  const certificates: Certificate[] = [];
  let isCut = false;
  for (const query of queries) {
    const list: Result<ReadList, string> = await askList(address, `/api/v1/certificates?${query.toString()}`, stopped);
    if (!list.ok) return list;
    for (const item of list.value.items) {
      const certificate = certificateSchema.safeParse(item);
      if (!certificate.success) return err(UNKNOWN_FORM);
      certificates.push(certificate.data);
    }
    isCut ||= list.value.isCut;
  }
  return ok({ certificates: certificates.toSorted(byKindAndEnd), isCut });
}

/** What is the first to end comes first. */
function byKindAndEnd(one: Certificate, other: Certificate): number {
  return KINDS[one.kind] - KINDS[other.kind] || endOf(one) - endOf(other);
}

function endOf({ notAfter }: Drawn): number {
  const endMs = Date.parse(notAfter ?? '');
  return Number.isNaN(endMs) ? Number.MAX_VALUE : endMs;
}

/** Those of `certificates`, and what is not among them but signed one of them. It is drawn without them if they are not to be had. */
async function askIssuers(
  address: Address,
  certificates: readonly Certificate[],
  stopped: AbortSignal,
): Promise<ReadonlyMap<string, Certificate>> {
  const known = new Map(certificates.map((certificate) => [certificate.id, certificate]));
  const missing = new Set(certificates.flatMap(({ issuer }) => (issuer === null || known.has(issuer) ? [] : [issuer])));
  for (const id of [...missing].slice(0, MAX_ISSUERS)) {
    const asked = await askCertificates(address, [new URLSearchParams({ id, limit: '1' })], stopped);
    if (!asked.ok) break;
    for (const certificate of asked.value.certificates) known.set(certificate.id, certificate);
  }
  return known;
}

function draw(certificates: readonly Certificate[], issuers: ReadonlyMap<string, Certificate>, environment: CommandEnvironment): string {
  const screen = screenOf(environment);
  const drawing = { screen, nowMs: systemClock.now(), issuers };
  const cards = certificates.flatMap((certificate): Line[] => [...drawCertificate(certificate, drawing), []]);
  return screen.render([...cards, [span(summary(certificates, drawing.nowMs))]]);
}

function summary(certificates: readonly Certificate[], nowMs: number): string {
  const [first] = certificates.filter(({ kind, validity }) => kind === 'svid' && validity === 'valid').toSorted(byKindAndEnd);
  const next = first === undefined ? '' : `; the first of our SVIDs to end has ${duration(endOf(first) - nowMs)} left`;
  return `${certificates.length === 0 ? 'no certificates' : counted(certificates.length, 'certificate')}${next}`;
}
