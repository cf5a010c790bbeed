export type Labels = Readonly<Record<string, string>>;
/** `suffix` goes after the name of the metric: the series of a histogram have three. */
export type Add = (labels: Labels, value: number, suffix?: '_bucket' | '_sum' | '_count') => void;

/** A metric whose series are told anew at each scrape, from plain numbers. Labels of two series are never the same. */
export interface Collected {
  readonly name: string;
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly help: string;
  readonly labels: readonly string[];
  /** May stop after each of its steps, to let others have a turn. */
  readonly collect: (add: Add) => Iterable<void> | void;
}

/** By name without `scute_`, what it is about, labels, and what is asked at each scrape. */
export type Define = (name: string, help: string, labels: readonly string[], collect: Collected['collect']) => void;

/** Writes the Prometheus text format, step by step: with many listeners and rules it is megabytes. */
export function* writeMetrics(metrics: Iterable<Collected>, write: (text: string) => void): Generator<void, void> {
  for (const { name, type, help, collect } of metrics) {
    let text = `# HELP ${name} ${escapeLine(help)}\n# TYPE ${name} ${type}\n`;
    const steps = collect((labels, value, suffix) => {
      text += `${name}${suffix ?? ''}${formatLabels(labels)} ${formatValue(value)}\n`;
    });
    if (steps !== undefined) yield* steps;
    write(`${text}\n`);
    yield;
  }
}

function formatLabels(labels: Labels): string {
  let text = '';
  for (const label in labels) text += `${text === '' ? '{' : ','}${label}="${escapeLine(labels[label] ?? '').replaceAll('"', '\\"')}"`;
  return text === '' ? '' : `${text}}`;
}

function formatValue(value: number): string {
  if (value === Infinity) return '+Inf';
  return value === -Infinity ? '-Inf' : String(value);
}

function escapeLine(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n');
}
