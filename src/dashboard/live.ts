/** What the process says at this moment: the stream of changes, and what is asked for when something changed. One of each for the whole page. */
import { useEffect, useRef, useState } from 'preact/hooks';
import type { Page, Problem, StreamEvent, StreamTopic } from '../admin/api-types.ts';
import { apiPath } from './routes.ts';
import { wholeOf } from './whole.ts';

/** `polling`: as many pages listen as may, so this one asks every few seconds. */
export type LinkState = 'connecting' | 'live' | 'polling' | 'lost';

const SILENCE_MS = 15_000;
const RETRY_MS = 2000;
const POLL_MS = 5000;
const LOOK_MS = 1000;
/** What one answer may take, or a whole list. */
const ANSWER_WITHIN_MS = 10_000;

const TOPICS: readonly StreamTopic[] = ['identity', 'trust', 'readiness', 'peers', 'traffic', 'refusals', 'sds', 'configuration'];

class Live {
  state: LinkState = 'connecting';
  /** When the process was last heard of. */
  heardMs = Date.now();
  /** The clock of the process, less that of the browser. */
  offsetMs = 0;
  /** How often each topic was named. */
  readonly #changes = new Map<StreamTopic, number>();
  readonly #listeners = new Set<() => void>();
  #source: EventSource | undefined;
  #retry: ReturnType<typeof setTimeout> | undefined;

  start(): void {
    document.addEventListener('visibilitychange', () => this.#visible());
    setInterval(() => {
      if (this.#source !== undefined && Date.now() - this.heardMs > SILENCE_MS) this.#broken();
    }, LOOK_MS);
    this.#visible();
  }

  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Another text whenever one of the topics has changed. */
  changesOf(topics: readonly StreamTopic[]): string {
    return topics.map((topic) => this.#changes.get(topic) ?? 0).join(' ');
  }

  nowMs(): number {
    return Date.now() + this.offsetMs;
  }

  /** A page that nobody looks at asks for nothing. */
  #visible(): void {
    clearTimeout(this.#retry);
    if (document.hidden) {
      this.#source?.close();
      this.#source = undefined;
    } else if (this.#source === undefined) this.#open();
  }

  #open(): void {
    const source = new EventSource(apiPath('stream'));
    this.#source = source;
    this.heardMs = Date.now();
    source.addEventListener('message', ({ data }: MessageEvent<string>) => {
      const { now, revisions } = JSON.parse(data) as StreamEvent;
      this.heardMs = Date.now();
      if (now !== null) this.offsetMs = Date.parse(now) - this.heardMs;
      // Whatever is named counts as a change: of another process, or after a pause, the same number may mean something else.
      const topics = Object.keys(revisions) as StreamTopic[];
      this.#changed(topics);
      this.#become('live', topics.length > 0);
    });
    source.addEventListener('error', () => this.#broken());
  }

  #broken(): void {
    this.#source?.close();
    this.#source = undefined;
    clearTimeout(this.#retry);
    // The stream does not say why it ended. If other questions are answered, it is full.
    void this.#askWhy();
  }

  async #askWhy(): Promise<void> {
    const isThere = await fetch(apiPath(''), { signal: AbortSignal.timeout(ANSWER_WITHIN_MS) })
      .then(({ ok }) => ok)
      .catch(() => false);
    if (document.hidden || this.#source !== undefined) return;
    if (isThere) this.heardMs = Date.now();
    this.#changed(isThere ? TOPICS : []);
    this.#become(isThere ? 'polling' : 'lost', isThere);
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.#open(), isThere ? POLL_MS : RETRY_MS);
  }

  #changed(topics: readonly StreamTopic[]): void {
    for (const topic of topics) this.#changes.set(topic, (this.#changes.get(topic) ?? 0) + 1);
  }

  #become(state: LinkState, isNews: boolean): void {
    const isOther = this.state !== state;
    this.state = state;
    if (isOther || isNews) for (const listener of this.#listeners) listener();
  }
}

export const live = new Live();

/** The state of the connection, whenever it changes. */
export function useLink(): LinkState {
  const [state, setState] = useState(live.state);
  useEffect(() => live.subscribe(() => setState(live.state)), []);
  return state;
}

/** The time of the process, told each second while the page is looked at. */
export function useNow(): number {
  const [now, setNow] = useState(live.nowMs());
  useEffect(() => {
    const timer = setInterval(() => {
      if (!document.hidden) setNow(live.nowMs());
    }, 1000);
    return () => clearInterval(timer);
  }, []);
  return now;
}

export interface Answer<T> {
  /** The newest that came. */
  readonly data: T | undefined;
  /** Why nothing newer did. */
  readonly problem: string | undefined;
}

const EMPTY: Answer<never> = { data: undefined, problem: undefined };

class Resource<T> {
  answer: Answer<T> = EMPTY;
  readonly #path: string;
  readonly #topics: readonly StreamTopic[];
  readonly #everyMs: number;
  readonly #isWhole: boolean;
  readonly #listeners = new Set<() => void>();
  #changes = '';
  #isAsking = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #unsubscribe: (() => void) | undefined;
  #askedMs = 0;

  constructor(path: string, topics: readonly StreamTopic[], everyMs: number, isWhole: boolean) {
    this.#path = path;
    this.#topics = topics;
    this.#everyMs = everyMs;
    this.#isWhole = isWhole;
  }

  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    this.#unsubscribe ??= live.subscribe(() => this.#changed());
    this.#changed();
    return () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size > 0) return;
      this.#unsubscribe?.();
      this.#unsubscribe = undefined;
      clearTimeout(this.#timer);
      this.#timer = undefined;
    };
  }

  /** Asks, unless it has just done so: then a little later, once for all that comes until then. */
  #changed(): void {
    const hasFailed = this.answer.problem !== undefined;
    const isNews = this.answer === EMPTY || live.changesOf(this.#topics) !== this.#changes;
    if ((!isNews && !hasFailed) || this.#isAsking || this.#timer !== undefined) return;
    // While there is nobody to answer, or nobody to look, the stream finds out when to ask again.
    if (!isNews && (live.state === 'lost' || document.hidden)) return;
    this.#timer = setTimeout(
      () => {
        this.#timer = undefined;
        void this.#ask();
      },
      Math.max(this.#askedMs + (isNews ? this.#everyMs : RETRY_MS) - Date.now(), 0),
    );
  }

  async #ask(): Promise<void> {
    this.#isAsking = true;
    const changes = live.changesOf(this.#topics);
    try {
      this.answer = { data: await this.#read(), problem: undefined };
    } catch (cause) {
      this.answer = { data: this.answer.data, problem: cause instanceof Refused ? cause.message : 'Scute does not answer.' };
    }
    this.#changes = changes;
    this.#isAsking = false;
    this.#askedMs = Date.now();
    for (const listener of this.#listeners) listener();
    if (this.#listeners.size > 0) this.#changed();
  }

  async #read(): Promise<T> {
    const signal = AbortSignal.timeout(ANSWER_WITHIN_MS);
    const first = await read<T>(this.#path, signal);
    if (!this.#isWhole) return first;
    const more = (cursor: string): Promise<Page<unknown>> =>
      read(`${this.#path}${this.#path.includes('?') ? '&' : '?'}cursor=${encodeURIComponent(cursor)}`, signal);
    return { ...first, ...(await wholeOf(first as Page<unknown>, more)) };
  }
}

/** The process answers, and not with what was asked for: why. */
class Refused extends Error {
  override name = 'Refused';
}

async function read<T>(path: string, signal: AbortSignal): Promise<T> {
  const response = await fetch(path, { signal });
  const body: unknown = await response.json();
  if (!response.ok) throw new Refused((body as Problem).detail ?? `status ${response.status}`);
  return body as T;
}

/** By path: several parts of a page share what they ask for, and who comes back sees at once what was there. */
const resources = new Map<string, Resource<unknown>>();
const MOST_KEPT = 64;

/**
 * Asks for `path`, and anew when one of `topics` changes, at most every `everyMs`; for all pages of it, if `isWhole`. Nothing where `path` is
 * undefined.
 */
export function useResource<T>(path: string | undefined, topics: readonly StreamTopic[], everyMs = 1000, isWhole = false): Answer<T> {
  const [answer, setAnswer] = useState<{ readonly path: string | undefined; readonly answer: Answer<T> }>({
    path: undefined,
    answer: EMPTY,
  });
  useEffect(() => {
    if (path === undefined) return undefined;
    const resource = (resources.get(path) as Resource<T> | undefined) ?? new Resource<T>(path, topics, everyMs, isWhole);
    resources.delete(path);
    resources.set(path, resource);
    for (const oldest of resources.keys()) {
      if (resources.size <= MOST_KEPT) break;
      resources.delete(oldest);
    }
    const tell = (): void => setAnswer({ path, answer: resource.answer });
    tell();
    return resource.subscribe(tell);
    // The topics of a path, and whether all of it is asked for, are always the same.
  }, [path]);
  return answer.path === path ? answer.answer : EMPTY;
}

export interface Paged<T> extends Answer<Page<T>> {
  /** Absent on the first page. */
  readonly newer: (() => void) | undefined;
  /** Absent on the last. */
  readonly older: (() => void) | undefined;
}

/** The same of a list, one page at a time: the newest, until somebody turns over. */
export function usePages<T>(
  resource: string,
  parameters: Readonly<Record<string, string | number | undefined>>,
  topics: readonly StreamTopic[],
): Paged<T> {
  return useTurning(apiPath(resource, parameters), (cursor) => useResource<Page<T>>(apiPath(resource, { ...parameters, cursor }), topics));
}

/**
 * A list of which `useAnswer` asks for one page, by its cursor; `first` is the address of its first. While the next page comes the one before
 * stands: whoever turned over keeps the focus on what they pressed.
 */
export function useTurning<P extends { readonly nextCursor: string | null }>(
  first: string,
  useAnswer: (cursor: string | undefined) => Answer<P>,
): Answer<P> & Pick<Paged<unknown>, 'newer' | 'older'> {
  const [turned, setTurned] = useState<{ readonly first: string; readonly cursors: readonly string[] }>({ first, cursors: [] });
  const cursors = turned.first === first ? turned.cursors : [];
  const { data, problem } = useAnswer(cursors.at(-1));
  const shown = useRef<{ readonly first: string; readonly data: P } | undefined>(undefined);
  if (data !== undefined) shown.current = { first, data };
  const before = problem === undefined && shown.current?.first === first ? shown.current.data : undefined;
  const next = data?.nextCursor ?? null;
  return {
    data: data ?? before,
    problem,
    newer: cursors.length === 0 ? undefined : () => setTurned({ first, cursors: cursors.slice(0, -1) }),
    older: next === null ? undefined : () => setTurned({ first, cursors: [...cursors, next] }),
  };
}
