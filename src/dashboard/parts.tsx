/** What every page is made of. */
import type { ComponentChildren, JSX } from 'preact';
import { useEffect, useId, useRef, useState } from 'preact/hooks';
import type { Paged } from './live.ts';
import { links } from './routes.ts';
import { briefly, clock, moment, parseTime } from './words.ts';

/** A panel with its heading, and beside that what it is about. */
export function Panel(props: {
  readonly title: string;
  readonly about?: ComponentChildren;
  readonly more?: { readonly to: string; readonly text: string };
  readonly span?: 'half' | 'third' | 'two';
  readonly children: ComponentChildren;
}): JSX.Element {
  const id = useId();
  return (
    <section class={`panel ${props.span ?? ''}`} aria-labelledby={id}>
      <div class="panel-head">
        <h2 id={id}>{props.title}</h2>
        {props.about === undefined ? null : <p class="soft">{props.about}</p>}
        {props.more === undefined ? null : (
          <a class="more" href={props.more.to}>
            {props.more.text}
          </a>
        )}
      </div>
      {props.children}
    </section>
  );
}

export type Tone = 'good' | 'amber' | 'red' | 'quiet';

export function Tag(props: { readonly tone?: Tone; readonly children: ComponentChildren }): JSX.Element {
  return <span class={`tag ${props.tone ?? 'quiet'}`}>{props.children}</span>;
}

/** Links to everything that is known of it. Whoever made it up, it is text, and stands apart from the text around it. */
export function SpiffeId({ id }: { readonly id: string }): JSX.Element {
  return (
    <a class="id" href={links.peer(id)}>
      <bdi>{id}</bdi>
    </a>
  );
}

/** What somebody else said. */
export function Words({ children }: { readonly children: string }): JSX.Element {
  return <bdi class="words">{children}</bdi>;
}

export function Time({ at, now }: { readonly at: string | null; readonly now: number }): JSX.Element {
  const ms = parseTime(at);
  if (ms === undefined || at === null) return <span class="soft">–</span>;
  const distance = now - ms;
  return (
    <time dateTime={at} title={moment(at)}>
      {distance >= 0 ? `${briefly(distance)} ago` : `in ${briefly(-distance)}`}
    </time>
  );
}

export function ClockTime({ at }: { readonly at: string | null }): JSX.Element {
  const ms = parseTime(at);
  if (ms === undefined || at === null) return <span class="soft">–</span>;
  return (
    <time dateTime={at} title={moment(at)}>
      {clock(ms)}
    </time>
  );
}

export interface Column<T> {
  readonly title: string;
  readonly cell: (item: T) => ComponentChildren;
  /** Numbers stand to the right. */
  readonly isNumber?: boolean;
  /** What a card on a phone begins with. */
  readonly isTitle?: boolean;
}

/** A table; on a phone each row is a card. The roles say to readers what the display of cards would hide from them. */
export function Table<T>(props: {
  readonly caption: string;
  readonly columns: readonly Column<T>[];
  readonly items: readonly T[];
  readonly keyOf: (item: T) => string | number;
}): JSX.Element {
  const { caption, columns, items, keyOf } = props;
  const classOf = ({ isNumber, isTitle }: Column<T>): string => `${isNumber === true ? 'n' : ''} ${isTitle === true ? 'title' : ''}`.trim();
  return (
    <table role="table" aria-label={caption}>
      <thead role="rowgroup">
        <tr role="row">
          {columns.map((column) => (
            <th key={column.title} role="columnheader" scope="col" class={classOf(column)}>
              {column.title}
            </th>
          ))}
        </tr>
      </thead>
      <tbody role="rowgroup">
        {items.map((item) => (
          <tr key={keyOf(item)} role="row">
            {columns.map((column) => (
              <td key={column.title} role="cell" class={classOf(column)} data-label={column.title}>
                <div>{column.cell(item)}</div>
              </td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** Names and values, one under the other. */
export function Facts({ of }: { readonly of: readonly (readonly [string, ComponentChildren])[] }): JSX.Element {
  return (
    <dl class="facts">
      {of.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

export function Nothing({ children }: { readonly children: ComponentChildren }): JSX.Element {
  return <p class="nothing">{children}</p>;
}

/** A list that has been asked for: while it comes, when it did not, when there is nothing in it, and its pages. */
export function Listed<T>(props: {
  readonly of: Paged<T>;
  readonly empty: ComponentChildren;
  /** What turning over is called, and the ways back and on. */
  readonly turn?: readonly [string, string, string];
  readonly children: (items: readonly T[]) => ComponentChildren;
}): JSX.Element {
  const [turning, back, on] = props.turn ?? ['Newer and older', 'Newer', 'Older'];
  const { data, problem, newer, older } = props.of;
  if (data === undefined) return problem === undefined ? <Loading /> : <Unread problem={problem} />;
  return (
    <>
      {data.items.length === 0 ? <Nothing>{props.empty}</Nothing> : props.children(data.items)}
      {newer === undefined && older === undefined ? null : (
        <nav class="pager" aria-label={turning}>
          {/* Not `disabled`, which would take the focus from who has just come to the end. */}
          <button type="button" aria-disabled={newer === undefined} onClick={newer}>
            {back}
          </button>
          <button type="button" aria-disabled={older === undefined} onClick={older}>
            {on}
          </button>
        </nav>
      )}
    </>
  );
}

export function Loading(): JSX.Element {
  return <p class="nothing loading">Loading …</p>;
}

export function Unread({ problem }: { readonly problem: string }): JSX.Element {
  return (
    <p class="nothing" role="status">
      This could not be read. <Words>{problem}</Words>
    </p>
  );
}

/** Copies text where the browser lets it; the text stands beside it in any case. */
export function CopyButton({ text, children }: { readonly text: string; readonly children: string }): JSX.Element {
  const [said, setSaid] = useState('');
  const copy = (): void => {
    const tell = (word: string): void => {
      setSaid(word);
      setTimeout(() => setSaid(''), 3000);
    };
    // There is none for a page that came over HTTP from another name than localhost.
    const clipboard = (navigator as { readonly clipboard?: Clipboard }).clipboard;
    const copied = clipboard === undefined ? Promise.reject(new Error('no clipboard')) : clipboard.writeText(text);
    copied.then(
      () => tell('Copied'),
      () => tell('Select the text and copy it'),
    );
  };
  return (
    <span class="copy">
      <button type="button" onClick={copy}>
        {children}
      </button>
      <span role="status" class="soft">
        {said}
      </span>
    </span>
  );
}

/** Text that is looked for, told a moment after the last letter. What is being typed is nobody's but the typist's. */
export function Search(props: { readonly label: string; readonly value: string; readonly onChange: (text: string) => void }): JSX.Element {
  const { label, value, onChange } = props;
  const input = useRef<HTMLInputElement>(null);
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  useEffect(() => {
    if (input.current !== null && document.activeElement !== input.current) input.current.value = value;
  }, [value]);
  return (
    <label class="search">
      <span>{label}</span>
      <input
        type="search"
        ref={input}
        onInput={({ currentTarget }) => {
          clearTimeout(timer.current);
          timer.current = setTimeout(() => onChange(currentTarget.value), 250);
        }}
      />
    </label>
  );
}

export function Choices(props: {
  readonly label: string;
  readonly choices: readonly { readonly text: string; readonly to: string; readonly isChosen: boolean }[];
}): JSX.Element {
  return (
    <nav class="choices" aria-label={props.label}>
      {props.choices.map(({ text, to, isChosen }) => (
        <a key={to} href={to} aria-current={isChosen ? 'true' : undefined}>
          {text}
        </a>
      ))}
    </nav>
  );
}
