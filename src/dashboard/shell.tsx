/** What stands around each page, of whichever dashboard. */
import type { JSX } from 'preact';
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import type { Attention, Headline } from './health.ts';
import { parseRoute, type Route } from './routes.ts';

export function useRoute(): Route {
  const [hash, setHash] = useState(location.hash);
  useEffect(() => {
    const changed = (): void => setHash(location.hash);
    addEventListener('hashchange', changed);
    return () => removeEventListener('hashchange', changed);
  }, []);
  return parseRoute(hash);
}

/** Who follows a link stands at the head of the page that it leads to, as after a page of its own, before the next key is heard. */
export function useHeadOf(where: string): void {
  const before = useRef(where);
  useLayoutEffect(() => {
    if (before.current === where) return;
    before.current = where;
    // Who types into a search, which chooses as well, goes on typing.
    if (document.activeElement instanceof HTMLInputElement) return;
    scrollTo(0, 0);
    document.querySelector<HTMLElement>('main h1')?.focus({ preventScroll: true });
  }, [where]);
}

export function Mark(): JSX.Element {
  return (
    <svg width="26" height="26" viewBox="0 0 24 24" aria-hidden="true">
      <path class="outer" d="M12 1.6l9 5.2v10.4l-9 5.2-9-5.2V6.8z" />
      <path class="inner" d="M12 6l5.2 3v6L12 18l-5.2-3V9z" />
    </svg>
  );
}

/** The address is for pages, so this link leads there by itself. */
export function skip(event: Event): void {
  event.preventDefault();
  document.querySelector<HTMLElement>('main h1')?.focus();
}

const THEMES = ['auto', 'light', 'dark'] as const;
type ThemeName = (typeof THEMES)[number];

export function Theme(): JSX.Element {
  const [theme, setTheme] = useState<ThemeName>(savedTheme());
  useEffect(() => {
    if (theme === 'auto') delete document.documentElement.dataset['theme'];
    else document.documentElement.dataset['theme'] = theme;
    try {
      localStorage.setItem('theme', theme);
    } catch {
      // Not kept, then.
    }
  }, [theme]);
  return (
    <button type="button" onClick={() => setTheme(nextTheme)} title={`Colours. Press for ${nextTheme(theme)}.`}>
      {theme === 'auto' ? 'Auto' : theme === 'light' ? 'Light' : 'Dark'}
    </button>
  );
}

function nextTheme(theme: ThemeName): ThemeName {
  return THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length] ?? 'auto';
}

function savedTheme(): ThemeName {
  try {
    const saved = localStorage.getItem('theme');
    return THEMES.find((name) => name === saved) ?? 'auto';
  } catch {
    return 'auto';
  }
}

/** One sentence: is all well. Under it what a person must look at. */
export function Health({ found, head }: { readonly found: readonly Attention[]; readonly head: Headline }): JSX.Element {
  return (
    <>
      <Sentence head={head} />
      {found.length === 0 ? null : (
        <ul class="attention" aria-label="What to look at">
          {found.map((one) => (
            <Note key={one.key} of={one} />
          ))}
        </ul>
      )}
    </>
  );
}

function Sentence({ head }: { readonly head: Headline }): JSX.Element {
  return (
    <div class={`sentence ${head.level}`}>
      <h1 tabIndex={-1}>{head.sentence}</h1>
      <p>{head.next}</p>
    </div>
  );
}

function Note({ of: { level, what, why, todo, link } }: { readonly of: Attention }): JSX.Element {
  return (
    <li class={`note ${level}`}>
      <p class="what">
        <span class="hidden">{level === 'red' ? 'Act now: ' : 'To look at: '}</span>
        {what}
      </p>
      <p>{why}</p>
      <p class="todo">
        <b>Do:</b> {todo} {link === undefined ? null : <a href={link.to}>{link.text}</a>}
      </p>
    </li>
  );
}
