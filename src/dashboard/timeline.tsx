/** What happened and what is due, on one axis from the last rotations to the last authority. */
import type { JSX } from 'preact';
import type { Due, Rotation, Rotations } from '../admin/api-types.ts';
import { place, rows, ticks, type Span } from './axis.ts';
import { useNow } from './live.ts';
import { links } from './routes.ts';
import { ago, briefly, parseTime, plural } from './words.ts';

const CHANGES: Readonly<Record<Rotation['change'], string>> = {
  svid_added: 'SVID added',
  svid_rotated: 'SVID rotated',
  svid_removed: 'SVID removed',
  authority_added: 'Authority added',
  authority_removed: 'Authority removed',
  identity_withdrawn: 'Identity withdrawn',
};
const DUES: Readonly<Record<Due['what'], string>> = {
  svid_renewal: 'renewal',
  svid_overdue: 'renewal late',
  svid_expiry: 'SVID ends',
  authority_expiry: 'authority ends',
  bundle_refresh: 'bundle refresh',
};

export function changeName(change: Rotation['change']): string {
  return CHANGES[change];
}
export function dueName(what: Due['what']): string {
  const name = DUES[what];
  return name.charAt(0).toUpperCase() + name.slice(1);
}

interface Mark {
  readonly key: string;
  readonly ms: number;
  readonly kind: 'past' | 'due' | 'end';
  readonly text: string;
  readonly full: string;
  readonly link: string | undefined;
}

/** More would stand on each other. */
const MOST_PAST = 24;
const MOST_DUE = 12;
/** So wide is a label, of the whole: `axis` measures in this. */
const APART = 0.13;
const MINUTE = 60_000;

export function Timeline({ of }: { readonly of: Rotations }): JSX.Element {
  const now = useNow();
  const past = of.past.slice(0, MOST_PAST).flatMap((rotation): Mark[] => {
    const ms = parseTime(rotation.at);
    if (ms === undefined) return [];
    const text = CHANGES[rotation.change];
    const who = rotation.spiffeId ?? rotation.trustDomain ?? '';
    const link = rotation.certificate === null ? undefined : links.certificate(rotation.certificate);
    return [
      { key: `${rotation.generation} ${text} ${who} ${rotation.certificate ?? ''}`, ms, kind: 'past', text, full: `${text}, ${who}`, link },
    ];
  });
  // Late renewal stands between the two others, and is told when it comes to that.
  const due = of.due
    .filter(({ what }) => what !== 'svid_overdue')
    .slice(0, MOST_DUE)
    .flatMap((expected): Mark[] => {
      const ms = parseTime(expected.at);
      if (ms === undefined) return [];
      const isAuthority = expected.what === 'authority_expiry' || expected.what === 'bundle_refresh';
      const text = isAuthority ? (expected.trustDomain ?? '') : DUES[expected.what];
      const link = isAuthority
        ? links.trust(expected.trustDomain)
        : expected.certificate === null
          ? undefined
          : links.certificate(expected.certificate);
      const full = `${dueName(expected.what)}, ${expected.spiffeId ?? expected.trustDomain ?? ''}`;
      const kind = expected.what.endsWith('_expiry') ? 'end' : 'due';
      return [{ key: `${expected.what} ${expected.certificate ?? expected.trustDomain ?? ''}`, ms, kind, text, full, link }];
    });
  const span: Span = {
    pastMs: Math.max(5 * MINUTE, ...past.map(({ ms }) => now - ms)),
    futureMs: Math.max(10 * MINUTE, ...due.map(({ ms }) => ms - now)) * 1.2,
  };
  const sorted = due.toSorted((one, other) => one.ms - other.ms);
  // What was due, and did not come, is due now, until something comes.
  const places = sorted.map(({ ms }) => place(Math.max(ms - now, 0), span));
  const lanes = rows(places, APART, 2);
  const last = past.find(({ text }) => text === CHANGES.svid_rotated);
  const first = sorted[0];
  const summary = [
    `${plural(past.length, 'past change')}.`,
    last === undefined ? '' : `The last rotation was ${ago(now - last.ms)}.`,
    first === undefined ? '' : `Next: ${first.full}, ${whenOf(first, now)}.`,
  ].join(' ');
  return (
    <>
      <Brief marks={[...past.slice(0, 3).toReversed(), ...sorted.slice(0, 5)]} now={now} />
      <div class="timeline" role="group" aria-label={`Timeline. ${summary}`}>
        <div class="axis" aria-hidden="true" />
        <div class="now" style={{ left: percent(place(0, span)) }} aria-hidden="true">
          now
        </div>
        {past.map((mark) => (
          <a
            key={mark.key}
            class="mark past"
            style={{ left: percent(place(mark.ms - now, span)) }}
            href={mark.link ?? links.time}
            title={`${mark.full}, ${ago(now - mark.ms)}`}
            aria-label={`${mark.full}, ${ago(now - mark.ms)}`}
            tabIndex={-1}
          />
        ))}
        {sorted.map((mark, index) => {
          const at = places[index] ?? 1;
          const lane = lanes[index];
          const when = whenOf(mark, now);
          return (
            <a
              key={mark.key}
              class={`mark ${mark.kind} ${lane === undefined ? '' : `lane-${lane}`} ${at > 0.88 ? 'at-end' : at < place(0, span) + APART / 2 ? 'at-now' : ''}`}
              style={{ left: percent(at) }}
              href={mark.link ?? links.time}
              title={`${mark.full}, ${when}`}
              aria-label={lane === undefined ? `${mark.full}, ${when}` : undefined}
            >
              {lane === undefined ? null : (
                <span>
                  {mark.text} <small>{when}</small>
                </span>
              )}
            </a>
          );
        })}
        {ticks(span, 0.07).map(({ at, text }) => (
          <span key={text + at} class="tick" style={{ left: percent(at) }} aria-hidden="true">
            {text}
          </span>
        ))}
      </div>
    </>
  );
}

/** Where there is no room for an axis: the last changes and the next, one under the other. */
function Brief({ marks, now }: { readonly marks: readonly Mark[]; readonly now: number }): JSX.Element {
  return (
    <ol class="timeline-brief">
      {marks.map((mark) => (
        <li key={mark.key} class={mark.kind}>
          <span class="soft">{whenOf(mark, now)}</span>
          <a href={mark.link ?? links.time}>{mark.full}</a>
        </li>
      ))}
    </ol>
  );
}

function whenOf({ ms, kind }: Mark, now: number): string {
  if (ms > now) return `in ${briefly(ms - now)}`;
  return kind === 'past' ? ago(now - ms) : `due ${ago(now - ms)}`;
}

function percent(share: number): string {
  return `${(share * 100).toFixed(2)}%`;
}
