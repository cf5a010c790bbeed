import { median } from './median.ts';
import type { Peer } from './peer.ts';
import type { Measured } from './run-work.ts';

/** A figure of Scute, with nobody beside it. */
export interface AloneRow<Unit extends string = string> {
  readonly work: string;
  readonly variant: string;
  readonly peer: 'none';
  /** The median over the rounds. */
  readonly ours: number;
  readonly unit: Unit;
  readonly better: 'lower';
  readonly rounds: number;
  /** The least and the most of a round. */
  readonly spread: readonly [number, number];
  readonly versions: { readonly ours: string };
}

/** `values` has one of each round, or one of all. Figures have three digits that count, or all in front of the point. */
export function aloneRow<Unit extends string>(
  work: string,
  {
    variant,
    unit,
    values,
    rounds,
    version,
  }: Pick<AloneRow<Unit>, 'variant' | 'unit' | 'rounds'> & {
    readonly values: readonly number[];
    readonly version: string;
  },
): AloneRow<Unit> {
  const [ours, least, most] = [median(values), Math.min(...values), Math.max(...values)].map(rounded) as [number, number, number];
  return {
    work,
    variant,
    peer: 'none',
    ours,
    unit,
    better: 'lower',
    rounds,
    spread: [least, most],
    versions: { ours: `scute ${version}` },
  };
}

function rounded(value: number): number {
  return value >= 1000 ? Math.round(value) : Number(value.toPrecision(3));
}

/** One line of `--json`. */
export interface Row {
  readonly work: string;
  /** Which line of the work: `down`, `up`, `idle` … */
  readonly variant?: string;
  readonly peer: string;
  /** Medians over the rounds. */
  readonly ours: number;
  readonly theirs: number;
  /** Median over the rounds of ours divided by theirs within one round. */
  readonly ratio: number;
  readonly unit: string;
  readonly better: 'higher' | 'lower';
  readonly rounds: number;
  /** The lowest and the highest ratio of a round. */
  readonly spread: readonly [number, number];
  readonly tls: string;
  readonly versions: { readonly ours: string; readonly theirs: string };
  readonly note?: string;
}

export interface Named {
  readonly name: string;
  readonly version: string;
  readonly notes: Peer['notes'];
}

/** Compares `ours` with each of the others. A form of Scute that has a name of its own is part of the variant. */
export function compare(measured: Measured, ours: Named, others: readonly Named[]): Row[] {
  const { work, line, values, tls, lateRounds } = measured;
  const own = values.get(ours.name) ?? [];
  const variant = ours.name === 'scute' ? line.variant : `${ours.name} ${line.variant}`.trimEnd();
  return others.map((peer) => {
    const theirs = values.get(peer.name) ?? [];
    const ratios = own.map((value, round) => value / (theirs[round] ?? Number.NaN));
    const [ownTls = '', theirTls = ''] = [tls.get(ours.name), tls.get(peer.name)];
    const late = (lateRounds.get(ours.name) ?? 0) + (lateRounds.get(peer.name) ?? 0);
    const notes = [
      peer.notes[work.protocol],
      late === 0
        ? undefined
        : `${work.name}: the load was late itself in ${late} of ${2 * own.length} measurements beside ${peer.name}, so their p99 are partly its own`,
    ].filter((text) => text !== undefined);
    const negotiated = ownTls === theirTls ? ownTls : `ours ${ownTls}, theirs ${theirTls}`;
    return {
      work: work.name,
      ...(variant === '' ? {} : { variant }),
      peer: peer.name,
      ours: round(median(own)),
      theirs: round(median(theirs)),
      ratio: round(median(ratios)),
      unit: line.unit,
      better: line.better,
      rounds: ratios.length,
      spread: [round(Math.min(...ratios)), round(Math.max(...ratios))],
      tls: `${negotiated}${work.topology === 'pair' ? ' with the load; between the proxies TLS 1.3, as they agree on' : ''}; ECDSA P-256 SVIDs, client certificate required, no resumption`,
      versions: { ours: `scute ${ours.version}`, theirs: `${peer.name} ${peer.version}` },
      ...(notes.length === 0 ? {} : { note: notes.join('; ') }),
    };
  });
}

/** A line for people. */
export function formatRow(row: Row): string {
  const cells = [
    `${row.work}${row.variant === undefined ? '' : ` ${row.variant}`}`.padEnd(28),
    row.peer.padEnd(8),
    format(row.ours).padStart(9),
    format(row.theirs).padStart(9),
    row.unit.padEnd(18),
    `${row.ratio.toFixed(2)} x`.padStart(8),
    `[${row.spread[0].toFixed(2)} .. ${row.spread[1].toFixed(2)}]`,
    row.better === 'lower' ? '(lower is better)' : '',
  ];
  return cells.join('  ').trimEnd();
}

export const TABLE_HEAD = [
  'work'.padEnd(28),
  'peer'.padEnd(8),
  'scute'.padStart(9),
  'peer'.padStart(9),
  'unit'.padEnd(18),
  'ratio'.padStart(8),
  'spread',
].join('  ');

function format(value: number): string {
  return value >= 100 ? Math.round(value).toLocaleString('en') : value.toFixed(1);
}

/** Four significant digits. */
function round(value: number): number {
  return Number(value.toPrecision(4));
}
