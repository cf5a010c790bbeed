/**
 * How a certificate is drawn, everywhere in the same way: who uses it, who it is, how long it still lives, its life as a bar with the
 * moment of renewal, and what signed it to the right of that.
 */
import type { Certificate, Finding } from '../admin/api-types.ts';
import { span, widthOf, type Line, type Screen, type Span, type Tone } from './screen.ts';

/** What of a certificate is drawn: of the API, or of a certificate that is held by nobody here. */
export type Drawn = Pick<
  Certificate,
  | 'id'
  | 'kind'
  | 'spiffeId'
  | 'trustDomain'
  | 'subject'
  | 'issuerName'
  | 'issuer'
  | 'serial'
  | 'sha256'
  | 'keyType'
  | 'notBefore'
  | 'notAfter'
  | 'validity'
  | 'remainingShare'
  | 'findings'
> &
  Partial<Pick<Certificate, 'hint' | 'listeners' | 'sds' | 'sdsSubscribers' | 'files' | 'rotations' | 'issued' | 'peer'>>;

export interface Drawing {
  readonly screen: Screen;
  readonly nowMs: number;
  /** What may have signed it, by `id`. */
  readonly issuers: ReadonlyMap<string, Drawn>;
}

const KINDS: Readonly<Record<Certificate['kind'], string>> = {
  svid: 'X.509-SVID',
  intermediate: 'intermediate',
  authority: 'authority',
  peer: 'peer',
  peer_intermediate: 'intermediate of a peer',
  refused: 'nothing is proven of it',
};

const BAR = 24;
/** As SPIRE has it: an SVID is renewed when half of its life is over. */
const RENEWED_AT = 0.5;
/** We ask for a new SVID when less than this is left. */
const OVERDUE_BELOW = 1 / 3;

export function drawCertificate(drawn: Drawn, { screen, nowMs, issuers }: Drawing): readonly Line[] {
  const { subject, serial, keyType, rotations = null, issued = null } = drawn;
  const uses = usesOf(drawn);
  const tone = toneOf(drawn);
  const life: Line = [span(lifeOf(drawn, nowMs).padEnd(16), tone === 'plain' ? 'strong' : tone), span('  '), ...bar(drawn)];
  const signed = span(`  ${signedBy(drawn, issuers, nowMs)}`, 'soft');
  const isNarrow = screen.width !== undefined && widthOf([...life, signed]) > screen.width;
  const details = [
    kindOf(drawn),
    // Where it is not the name above.
    ...(drawn.spiffeId === null || subject === '' ? [] : [`subject ${subject}`]),
    keyType,
    ...(serial === '' ? [`sha256 ${drawn.sha256}`] : [`serial ${serial}`]),
    validityOf(drawn),
    ...(rotations === null ? [] : [`rotated ${times(rotations)}`]),
    ...(issued === null ? [] : [`signed ${issued} of ours`]),
  ];
  return [
    ...(uses === '' ? [] : [[span(uses, 'soft')]]),
    [span(nameOf(drawn), 'strong'), ...(drawn.hint ? [span(`  hint ${drawn.hint}`, 'soft')] : [])],
    ...(isNarrow ? [life, [signed]] : [[...life, signed]]),
    [span(details.join(' · '), 'soft')],
    ...drawn.findings.map((finding) => drawFinding(finding, drawn)),
  ];
}

/** Of SVIDs that we present: who shows an expired one is refused by everybody. What others have is their affair. */
function toneOf({ kind, validity, remainingShare }: Drawn): Tone {
  if (kind !== 'svid' && kind !== 'intermediate') return 'plain';
  if (validity !== 'valid') return 'bad';
  return kind === 'svid' && remainingShare < OVERDUE_BELOW ? 'warn' : 'plain';
}

function drawFinding({ verdict, clause, problem }: Finding, { kind }: Drawn): Line {
  const isOurs = kind === 'svid' || kind === 'intermediate' || kind === 'authority';
  const tone = verdict === 'tolerated' ? 'soft' : isOurs ? 'bad' : 'plain';
  return [span(`! ${verdict}: ${problem}${clause === null ? '' : ` (${clause})`}`, tone)];
}

/** Who it is. What a peer that proved nothing says is a claim. */
export function nameOf({ kind, spiffeId, subject, sha256, trustDomain }: Drawn): string {
  if (kind === 'refused') return spiffeId === null ? `nobody known: ${subject || sha256}` : `claims to be ${spiffeId}`;
  return spiffeId ?? (subject || (trustDomain === null ? sha256 : `unnamed, of ${trustDomain}`));
}

function kindOf({ kind, trustDomain }: Drawn): string {
  return kind === 'authority' && trustDomain !== null ? `authority of ${trustDomain}` : KINDS[kind];
}

function usesOf({ kind, listeners = [], sdsSubscribers = 0, sds = [], files = [], peer = null }: Drawn): string {
  const names = listeners.map(({ name }) => name).join(', ');
  const rejected = sds.filter(({ status }) => status === 'rejected').length;
  const parts = [
    ...(names === '' ? [] : [kind === 'svid' || kind === 'intermediate' ? `used by ${names}` : `seen on ${names}`]),
    ...(sdsSubscribers === 0 ? [] : [`${counted(sdsSubscribers, 'SDS subscription')}${rejected === 0 ? '' : `, ${rejected} rejected`}`]),
    ...(files.length === 0 ? [] : [`in the files of ${files.join(', ')}`]),
    ...(peer === null
      ? []
      : [
          `${peer.connections} open`,
          counted(peer.handshakes, 'handshake'),
          peer.verdict === 'allow' ? 'allowed' : `refused: ${peer.verdict}${peer.detail === null ? '' : `: ${peer.detail}`}`,
        ]),
  ];
  return parts.join(' · ');
}

/** By the path that was found; of what has none, what it says itself. */
function signedBy({ issuer, issuerName, subject, kind }: Drawn, issuers: Drawing['issuers'], nowMs: number): string {
  const found = issuer === null ? undefined : issuers.get(issuer);
  if (found !== undefined) return `signed by ${found.subject || nameOf(found)} (${kindOf(found)}, ${lifeOf(found, nowMs)})`;
  if (issuer !== null) return `signed by ${issuerName}`;
  if (kind === 'authority' && subject === issuerName) return 'signs itself';
  return issuerName === '' ? 'by an unnamed issuer' : `by ${issuerName}, as it says`;
}

/** How long it still lives. */
export function lifeOf({ validity, notBefore, notAfter }: Pick<Drawn, 'validity' | 'notBefore' | 'notAfter'>, nowMs: number): string {
  if (validity === 'unknown') return 'not readable';
  const [beginsMs, endsMs] = [Date.parse(notBefore ?? ''), Date.parse(notAfter ?? '')];
  if (validity === 'not_yet_valid') return Number.isNaN(beginsMs) ? 'not yet valid' : `begins in ${duration(beginsMs - nowMs)}`;
  if (Number.isNaN(endsMs)) return validity === 'expired' ? 'ended' : 'without end';
  return validity === 'expired' ? `ended ${duration(nowMs - endsMs)} ago` : duration(endsMs - nowMs);
}

function bar({ kind, remainingShare }: Drawn): Span[] {
  const left = Math.round(remainingShare * BAR);
  const cells: string[] = Array.from({ length: BAR }, (_, at) => (at < left ? '━' : '─'));
  // Others are not renewed in their time, or we cannot know when.
  if (kind === 'svid' || kind === 'peer') cells[BAR * RENEWED_AT] = '╂';
  return [span(`[${cells.join('')}]`), span(` ${Math.round(remainingShare * 100)} %`.padEnd(6), 'soft')];
}

function validityOf({ notBefore, notAfter }: Drawn): string {
  const [from = '', to = ''] = [notBefore, notAfter].map((time) => time?.replace('T', ' ').replace(/(?:\.\d+)?Z$/, '') ?? 'unknown');
  const day = from.slice(0, 'YYYY-MM-DD '.length);
  return `valid ${from} to ${day.endsWith(' ') && to.startsWith(day) ? to.slice(day.length) : to} UTC`;
}

const UNITS = [
  [86_400_000 * 365, 'year', 'years'],
  [86_400_000 * 30, 'month', 'months'],
  [86_400_000, 'day', 'days'],
  [3_600_000, 'h', 'h'],
  [60_000, 'min', 'min'],
  [1000, 's', 's'],
] as const;
/** From a day on, smaller units say nothing. */
const FIRST_OF_TWO = 3;

/** A time as people say it: `11 months`, `22 h 40 min`, `51 min 12 s`. */
export function duration(ms: number): string {
  const seconds = Math.max(Math.floor(ms / 1000), 0) * 1000;
  // Two months are still told in days, two years in months.
  const at = UNITS.findIndex(([size], index) => seconds >= size * (index < 2 ? 2 : 1));
  const unit = UNITS[at];
  if (unit === undefined) return '0 s';
  const [size, one, many] = unit;
  const count = Math.floor(seconds / size);
  const next = at < FIRST_OF_TWO ? undefined : UNITS[at + 1];
  const rest = next === undefined ? 0 : Math.floor((seconds - count * size) / next[0]);
  return `${count} ${count === 1 ? one : many}${next === undefined || rest === 0 ? '' : ` ${rest} ${next[1]}`}`;
}

/** `1 handshake`, `2 handshakes`. */
export function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? '' : 's'}`;
}

function times(count: number): string {
  return count === 1 ? 'once' : `${count} times`;
}
