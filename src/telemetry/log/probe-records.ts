/** How asking an application went for whom a kubelet asks us. One closed set: the `result` label of `scute_application_probes_total`. */
export const PROBE_RESULTS = [
  'answered', // with a status, whatever it is
  'timeout', // 504: not within a second
  'failed', // 502: nothing listens, or it is no HTTP/1.1 answer, or too many interim ones
] as const;
export type ProbeResult = (typeof PROBE_RESULTS)[number];
