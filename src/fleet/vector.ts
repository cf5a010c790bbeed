/** What Prometheus answers, as far as it is believed. Pure. */
import { err, ok, type Result } from '../lib/result.ts';
import type { FleetProblem } from './api-types.ts';

export interface Sample {
  /** What Prometheus relays is chosen by what it scrapes: text, never more. */
  readonly labels: ReadonlyMap<string, string>;
  readonly value: number;
}

export interface Vector {
  /** Seconds since 1970: the moment that was asked about; undefined if nothing was found. */
  readonly atSeconds: number | undefined;
  readonly samples: readonly Sample[];
}

/** No label of Scute is longer: a SPIFFE ID has at most 2,048 bytes. */
const MAX_LABEL = 2048;
const MAX_QUOTED = 300;

/** The body of an answer to `/api/v1/query`. What does not have its shape is refused as a whole: half an answer would be taken for a whole one. */
export function parseVector(text: string, maxSeries: number): Result<Vector, FleetProblem> {
  let answer: unknown;
  try {
    answer = JSON.parse(text);
  } catch {
    return err({ reason: 'not_json', detail: `it answers ${JSON.stringify(text.slice(0, 60))}, which is not JSON` });
  }
  if (!isRecord(answer)) return notPrometheus('the answer is no object');
  if (answer['status'] === 'error') {
    const { errorType, error } = answer;
    return err({ reason: 'refused_query', detail: `${wordOf(errorType)}: ${wordOf(error)}` });
  }
  const { data } = answer;
  if (answer['status'] !== 'success' || !isRecord(data)) return notPrometheus('the answer has no status and data');
  const { result } = data;
  if (data['resultType'] !== 'vector' || !Array.isArray(result)) return notPrometheus('the answer is no vector');
  if (result.length > maxSeries)
    return err({ reason: 'too_many_series', detail: `${result.length} series, where ${maxSeries} were asked for at most` });
  const samples: Sample[] = [];
  let atSeconds: number | undefined;
  for (const each of result as readonly unknown[]) {
    const read = readSample(each);
    if (read === undefined) return notPrometheus('a sample is not one of a vector');
    atSeconds ??= read.atSeconds;
    samples.push(read.sample);
  }
  return ok({ atSeconds, samples });
}

function readSample(each: unknown): { readonly sample: Sample; readonly atSeconds: number } | undefined {
  if (!isRecord(each) || !isRecord(each['metric']) || !Array.isArray(each['value'])) return undefined;
  const [atSeconds, text] = each['value'] as readonly unknown[];
  if (typeof atSeconds !== 'number' || typeof text !== 'string') return undefined;
  const value = readNumber(text);
  if (value === undefined) return undefined;
  const labels = new Map<string, string>();
  for (const [name, label] of Object.entries(each['metric'])) {
    if (typeof label !== 'string') return undefined;
    labels.set(name, label.slice(0, MAX_LABEL));
  }
  return { sample: { labels, value }, atSeconds };
}

function readNumber(text: string): number | undefined {
  if (text === 'NaN') return Number.NaN;
  if (text === '+Inf') return Infinity;
  if (text === '-Inf') return -Infinity;
  return /^-?\d+(?:\.\d+)?(?:e[+-]?\d+)?$/.test(text) ? Number(text) : undefined;
}

function wordOf(value: unknown): string {
  return typeof value === 'string' ? value.slice(0, MAX_QUOTED) : 'no word';
}

function notPrometheus(detail: string): Result<never, FleetProblem> {
  return err({ reason: 'not_prometheus', detail });
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
