import type { Job, JobResult } from './load.ts';
import { median } from './median.ts';
import { residentBytes } from './process.ts';
import type { Figures, Line, Subject, Work } from './work.ts';

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;
const POST_BYTES = 200;
const IDLE_CONNECTIONS = 4000;
const IDLE_HTTP2_CONNECTIONS = 1000;
const IDLE_STREAMS = 100;
/** Of what saturates Envoy in the same round. */
const OFFERED_SHARE = 0.7;
/** A p99 says nothing of the proxy when the load itself sent more than this late; it is measured again then, so often. */
const LATE_SHARE = 0.005;
const OFFER_ATTEMPTS = 3;
const STARTS_PER_ROUND = 5;

export const TCP = { protocol: 'tcp', client: 'frames', topology: 'inbound' } as const;
export const HTTP1 = { protocol: 'http', client: 'http1', topology: 'inbound' } as const;
/** nginx speaks no HTTP/2 to applications. */
const HTTP2 = { ...HTTP1, application: 'h2c', client: 'http2', beside: ['envoy', 'haproxy'] } as const;
const GRPC = { ...HTTP2, application: 'grpc', client: 'grpc' } as const;
export const REQUESTS: Line = { variant: '', unit: 'requests/cpu-s', better: 'higher' };
const BULK: readonly Line[] = [
  { variant: 'down', unit: 'MiB/cpu-s', better: 'higher' },
  { variant: 'up', unit: 'MiB/cpu-s', better: 'higher' },
];
const MEMORY: readonly Line[] = [
  { variant: 'idle', unit: 'MiB', better: 'lower' },
  { variant: 'connection', unit: 'KiB/connection', better: 'lower' },
];

export const WORKS: readonly Work[] = [
  {
    name: 'tcp',
    what: '128 bytes there and back, 64 kept connections',
    lines: [REQUESTS],
    ...TCP,
    keep: true,
    measure: (subject) => rates(subject, [{ connections: 64 }]),
  },
  {
    name: 'bulk-tcp',
    what: '1 MiB at a time, 8 kept connections',
    lines: BULK,
    ...TCP,
    keep: true,
    measure: (subject) =>
      rates(subject, [
        { connections: 8, downBytes: MIB },
        { connections: 8, upBytes: MIB },
      ]),
  },
  {
    name: 'handshake',
    what: 'a new mTLS connection, a connection to the application, one request; 16 clients',
    lines: [{ variant: '', unit: 'connections/cpu-s', better: 'higher' }],
    ...TCP,
    keep: true,
    measure: (subject) => rates(subject, [{ work: 'connect', connections: 16 }]),
  },
  {
    name: 'http1',
    what: 'a small GET over HTTP/1.1, 64 kept connections; again with 1.5 KiB of cookies and tracing fields',
    lines: [REQUESTS, { ...REQUESTS, variant: 'cookies' }],
    ...HTTP1,
    keep: true,
    measure: (subject) => rates(subject, [{ connections: 64 }, { connections: 64, cookies: true }]),
  },
  {
    name: 'bulk-http',
    what: 'a body of 1 MiB over HTTP/1.1, 8 kept connections',
    lines: BULK,
    ...HTTP1,
    keep: true,
    measure: (subject) =>
      rates(subject, [
        { connections: 8, downBytes: MIB },
        { connections: 8, upBytes: MIB },
      ]),
  },
  {
    name: 'h2-to-http1',
    what: 'a small GET over HTTP/2 to an HTTP/1.1 application; 64 connections of one stream, 16 of 16 streams',
    lines: [
      { ...REQUESTS, variant: '64x1' },
      { ...REQUESTS, variant: '16x16' },
    ],
    ...HTTP1,
    client: 'http2',
    keep: true,
    measure: (subject) =>
      rates(subject, [
        { connections: 64, streams: 1 },
        { connections: 16, streams: 16 },
      ]),
  },
  {
    name: 'h2',
    what: 'a small GET over HTTP/2 to an application that speaks HTTP/2 in plain text; 64 connections of one stream',
    lines: [REQUESTS],
    ...HTTP2,
    keep: true,
    measure: (subject) => rates(subject, [{ connections: 64, streams: 1 }]),
  },
  {
    name: 'h2-mux',
    what: 'the same, 16 connections of 16 streams',
    lines: [REQUESTS],
    ...HTTP2,
    keep: true,
    measure: (subject) => rates(subject, [{ connections: 16, streams: 16 }]),
  },
  {
    name: 'h2-post',
    what: `a POST of ${POST_BYTES} bytes over HTTP/2 to the same application, 16 connections of 16 streams`,
    lines: [REQUESTS],
    ...HTTP2,
    keep: true,
    measure: (subject) => rates(subject, [{ connections: 16, streams: 16, upBytes: POST_BYTES }], 'requests'),
  },
  {
    name: 'h2-stream',
    what: 'a body of 1 GiB in one stream of HTTP/2 to the same application',
    lines: BULK,
    ...HTTP2,
    keep: true,
    measure: (subject) =>
      rates(subject, [
        { work: 'once', downBytes: GIB },
        { work: 'once', upBytes: GIB },
      ]),
  },
  {
    name: 'grpc-unary',
    what: 'a unary call of grpc-go to a server of grpc-go; 64 connections of one call, 16 of 16',
    lines: [
      { ...REQUESTS, variant: '64x1' },
      { ...REQUESTS, variant: '16x16' },
    ],
    ...GRPC,
    keep: true,
    measure: (subject) =>
      rates(subject, [
        { connections: 64, streams: 1 },
        { connections: 16, streams: 16 },
      ]),
  },
  {
    name: 'pair-grpc',
    what: 'the same calls through an outbound and an inbound proxy, work of both together',
    lines: [
      { ...REQUESTS, variant: '64x1' },
      { ...REQUESTS, variant: '16x16' },
    ],
    ...GRPC,
    topology: 'pair',
    // As for `pair-http1`.
    beside: ['envoy'],
    needs: 'envoy',
    keep: true,
    measure: (subject) =>
      rates(subject, [
        { connections: 64, streams: 1 },
        { connections: 16, streams: 16 },
      ]),
  },
  {
    name: 'pair-http1',
    what: 'the same GET through an outbound and an inbound proxy, 64 kept connections, work of both together; how long it takes at 16',
    lines: [REQUESTS, { variant: 'p50', unit: 'ms', better: 'lower' }, { variant: 'p99', unit: 'ms', better: 'lower' }],
    ...HTTP1,
    topology: 'pair',
    // The others cannot check who a server is by its SPIFFE ID.
    beside: ['envoy'],
    needs: 'envoy',
    keep: true,
    measure: async (subject) => {
      const rate = await rates(subject, [{ connections: 64 }]);
      const { p50Ms, p99Ms } = await subject.run('exchange', { connections: 16, warmUpMs: 500, windowMs: 2000 });
      return { values: [...rate.values, p50Ms, p99Ms] };
    },
  },
  {
    name: 'latency',
    what: `how long the same GET takes, from when it was due, when ${OFFERED_SHARE * 100} % of what saturates Envoy is offered on 64 connections`,
    lines: [
      { variant: 'p50', unit: 'ms', better: 'lower' },
      { variant: 'p99', unit: 'ms', better: 'lower' },
    ],
    ...HTTP1,
    needs: 'envoy',
    keep: true,
    findOffer: async (subject) => {
      const { count, wallSeconds } = await subject.run('exchange', { connections: 64, warmUpMs: 1000, windowMs: 2000 });
      return (OFFERED_SHARE * count) / wallSeconds;
    },
    measure: async (subject, offered) => {
      let best: JobResult | undefined;
      for (let i = 0; i < OFFER_ATTEMPTS && (best === undefined || best.lateShare > LATE_SHARE); i++) {
        const result = await subject.run('offer', { connections: 64, rate: offered, warmUpMs: 1000, windowMs: 4000 });
        if (best === undefined || result.lateShare < best.lateShare) best = result;
      }
      if (best === undefined) throw new Error('nothing was offered');
      return { values: [best.p50Ms, best.p99Ms], late: best.lateShare > LATE_SHARE };
    },
  },
  {
    name: 'memory',
    what: `resident after start, and what each of ${IDLE_CONNECTIONS} idle mTLS connections adds`,
    lines: MEMORY,
    ...TCP,
    keep: false,
    measure: (start) => memory(start, { connections: IDLE_CONNECTIONS }),
  },
  {
    name: 'h2-memory',
    what: `resident after start, and what each of ${IDLE_HTTP2_CONNECTIONS} idle connections of HTTP/2 adds that has had ${IDLE_STREAMS} streams at once`,
    lines: MEMORY,
    ...HTTP2,
    keep: false,
    measure: (start) => memory(start, { connections: IDLE_HTTP2_CONNECTIONS, streams: IDLE_STREAMS }),
  },
  {
    name: 'startup',
    asShipped: true,
    what: `from spawning the process until it accepts connections, and until it answered the first mTLS request; median of ${STARTS_PER_ROUND} in each round`,
    lines: [
      { variant: 'listening', unit: 'ms', better: 'lower' },
      { variant: 'serving', unit: 'ms', better: 'lower' },
    ],
    ...TCP,
    keep: false,
    measure: async (start) => {
      const listening: number[] = [];
      const serving: number[] = [];
      for (let i = 0; i < STARTS_PER_ROUND; i++) {
        const { proxy, servingInMs } = await start();
        listening.push(proxy.startedInMs);
        serving.push(servingInMs);
        await proxy.stop();
      }
      return { values: [median(listening), median(serving)] };
    },
  },
];

async function memory(start: () => Promise<Subject>, job: Partial<Job>): Promise<Figures> {
  const { proxy, run } = await start();
  try {
    // It has answered one request: what an idle proxy holds that has done its work once.
    await new Promise((resolve) => setTimeout(resolve, 2000));
    const idle = residentBytes(proxy.pids());
    const held = await run('idle', { ...job, windowMs: 2000 });
    return { values: [idle / MIB, (held.rssBytes - idle) / 1024 / held.count] };
  } finally {
    await proxy.stop();
  }
}

/** What came through for each CPU-second of the proxy, in one job after the other. Of bodies it is MiB, unless `unit` says that requests count. */
export async function rates({ proxy, run }: Subject, jobs: readonly Partial<Job>[], unit: 'MiB' | 'requests' = 'MiB'): Promise<Figures> {
  const values: number[] = [];
  for (const job of jobs) {
    const result = await run(job.work ?? 'exchange', { warmUpMs: 1000, windowMs: 2000, ...job });
    if (result.count === 0 || result.cpuSeconds === 0) throw new Error(`nothing came through 127.0.0.1:${proxy.port}`);
    const scale = unit === 'requests' ? 1 : ((job.upBytes ?? 0) + (job.downBytes ?? 0)) / MIB || 1;
    values.push((result.count * scale) / result.cpuSeconds);
  }
  return { values };
}
