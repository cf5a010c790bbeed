/** What the fleet's API answers, asked for again and again while the page is looked at. */
import { useEffect, useState } from 'preact/hooks';
import type { FleetPage, FleetRefusal } from '../../fleet/api-types.ts';
import { useTurning, type Answer, type Paged } from '../live.ts';
import { apiPath } from '../routes.ts';
import { parseTime } from '../words.ts';

/** Prometheus learns something new about as often. */
const EVERY_MS = 10_000;
/** A question may wait for others. */
const WITHIN_MS = 60_000;

interface Asked<T> extends Answer<T> {
  readonly path: string;
}

/** The newest answer of `path`. One that fails leaves the one before it. */
export function useAsked<T>(path: string): Answer<T> {
  const [asked, setAsked] = useState<Asked<T>>({ path, data: undefined, problem: undefined });
  useEffect(() => {
    const left = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const ask = async (): Promise<void> => {
      timer = undefined;
      const next = document.hidden ? undefined : await answerOf<T>(path, left.signal);
      if (left.signal.aborted) return;
      if (next !== undefined)
        setAsked((before) => ({ path, ...next, data: next.data ?? (before.path === path ? before.data : undefined) }));
      timer = setTimeout(() => void ask(), EVERY_MS);
    };
    const seen = (): void => {
      if (document.hidden || timer === undefined) return;
      clearTimeout(timer);
      void ask();
    };
    document.addEventListener('visibilitychange', seen);
    void ask();
    return () => {
      left.abort();
      clearTimeout(timer);
      document.removeEventListener('visibilitychange', seen);
    };
  }, [path]);
  return asked.path === path ? asked : { data: undefined, problem: undefined };
}

async function answerOf<T>(path: string, left: AbortSignal): Promise<Answer<T>> {
  try {
    const response = await fetch(path, { signal: AbortSignal.any([left, AbortSignal.timeout(WITHIN_MS)]) });
    const body: unknown = await response.json();
    if (response.ok) return { data: body as T, problem: undefined };
    const { error, detail } = body as FleetRefusal;
    return { data: undefined, problem: `${error}: ${detail}` };
  } catch {
    return { data: undefined, problem: 'scute fleet does not answer' };
  }
}

export interface FleetPaged<T> extends Paged<T> {
  readonly data: FleetPage<T> | undefined;
}

/** A list, one page at a time. */
export function useFleetPages<T>(resource: string, parameters: Readonly<Record<string, string | number | undefined>> = {}): FleetPaged<T> {
  return useTurning(apiPath(`fleet/${resource}`, parameters), (cursor) =>
    useAsked<FleetPage<T>>(apiPath(`fleet/${resource}`, { ...parameters, cursor })),
  );
}

/** The time of Prometheus, told each second while the page is looked at; `told` is what it was in the last answer. */
export function useFleetNow(told: string | null | undefined): number {
  const [offset, setOffset] = useState(0);
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const ms = parseTime(told);
    if (ms !== undefined) setOffset(ms - Date.now());
  }, [told]);
  useEffect(() => {
    const timer = setInterval(() => {
      if (!document.hidden) setNow(Date.now());
    }, 1000);
    return () => clearInterval(timer);
  }, []);
  return now + offset;
}
