import { PROBE_RESULTS, type ProbeResult } from '../log/probe-records.ts';
import type { Define } from './text-format.ts';

/** Counted in plain numbers, and read when somebody scrapes. Probes are those of the configuration. */
export interface ProbeMetrics {
  /** The same object for the same path. */
  probe(path: string): Record<ProbeResult, number>;
}

export function registerProbeMetrics(counter: Define): ProbeMetrics {
  const probes = new Map<string, Record<ProbeResult, number>>();
  counter('application_probes_total', 'Times that the application was asked for a probe, by how it went', ['path', 'result'], (add) => {
    for (const [path, results] of probes) for (const result of PROBE_RESULTS) add({ path, result }, results[result]);
  });
  return {
    probe(path) {
      const known = probes.get(path);
      if (known !== undefined) return known;
      const made = { answered: 0, timeout: 0, failed: 0 };
      probes.set(path, made);
      return made;
    },
  };
}
