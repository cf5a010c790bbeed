/**
 * Plays the certificates of many sidecars under one target, for a Prometheus with `honor_labels`: only the series that a page about a
 * fleet needs, of sidecars that rotate in time and of some that do not. `node test/support/admin/fleet-generator.ts 10000 127.0.0.1:9900`
 */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Readable } from 'node:stream';

export interface FleetOptions {
  readonly sidecars: number;
  /** Each SVID is replaced at half of it. */
  readonly svidLifeSeconds?: number;
}

/** Of so many one, by its number: sidecars with something to find. */
export const ODD_ONES = {
  /** Its SVID was last replaced an hour after the fleet began, and its agent is gone. */
  stuck: 500,
  /** It has not heard of the new authority of its trust domain. */
  oldAuthority: 250,
  /** It runs the version before. */
  oldVersion: 20,
  /** It has two SVIDs. */
  twoSvids: 100,
} as const;

const TRUST_DOMAINS = ['example.org', 'prod.example', 'partner.example'];
const CLUSTERS = ['north', 'south'];
const NAMESPACES = ['shop', 'search', 'payments', 'reports', 'mail'];
const DAY = 86_400;
const SIDECARS_A_CHUNK = 200;

/** When the fleet began, so that what is stuck is late from the first scrape on. */
const begun = (nowSeconds: number, life: number): number => nowSeconds - 10 * life;

/** The sidecar with that number is one of `share`. */
export const isOdd = (index: number, share: number): boolean => index % share === share - 1;

/** The Prometheus text format, in pieces; each metric in one block, as the format wants it. */
export function* fleetMetrics({ sidecars, svidLifeSeconds = 3600 }: FleetOptions, startedAtMs: number, nowMs: number): Generator<string> {
  const now = nowMs / 1000;
  const start = begun(startedAtMs / 1000, svidLifeSeconds);
  const numbers = Array.from({ length: sidecars }, (_, index) => index);
  const block = function* (name: string, lines: (index: number) => string): Generator<string> {
    yield `# TYPE ${name} gauge\n`;
    for (let first = 0; first < sidecars; first += SIDECARS_A_CHUNK)
      yield numbers
        .slice(first, first + SIDECARS_A_CHUNK)
        .map((index) => lines(index))
        .join('');
  };
  const place = (index: number): string => {
    const pod = `app-${index % 40}-${index}`;
    const [cluster, namespace] = [CLUSTERS[index % 2], NAMESPACES[index % 5]];
    return `job="scute",instance="10.${index >> 16}.${(index >> 8) & 255}.${index & 255}:9090",cluster="${cluster}",namespace="${namespace}",pod="${pod}",node="node-${index % 200}"`;
  };
  const domainOf = (index: number): string => TRUST_DOMAINS[index % TRUST_DOMAINS.length] ?? '';
  /** The last rotation: each sidecar at a moment of its own. */
  const begins = (index: number): number => {
    const phase = ((index * 7919) % 1000) / 1000;
    const half = svidLifeSeconds / 2;
    const rotations = isOdd(index, ODD_ONES.stuck) ? 1 : Math.floor((now - start) / half - phase);
    return start + (rotations + phase) * half;
  };
  const svids = (index: number): readonly string[] => {
    const id = `spiffe://${domainOf(index)}/ns/${NAMESPACES[index % 5]}/sa/app-${index % 40}`;
    const issuer = isOdd(index, ODD_ONES.oldAuthority) ? 'old' : 'new';
    const labels = (spiffeId: string): string =>
      `${place(index)},spiffe_id="${spiffeId}",hint="",issuer_key_id="${keyId(domainOf(index), issuer)}"`;
    return isOdd(index, ODD_ONES.twoSvids) ? [labels(id), labels(`${id}-internal`)] : [labels(id)];
  };
  const authorities = (index: number): readonly (readonly [labels: string, begins: number, ends: number])[] => {
    const domain = domainOf(index);
    const labels = (which: 'old' | 'new'): string => `${place(index)},trust_domain="${domain}",subject_key_id="${keyId(domain, which)}"`;
    const old = [labels('old'), start - 360 * DAY, start + 5 * DAY] as const;
    return isOdd(index, ODD_ONES.oldAuthority) ? [old] : [old, [labels('new'), start - 2 * DAY, start + 363 * DAY]];
  };
  const line = (name: string, labels: string, value: number): string => `${name}{${labels}} ${value}\n`;

  const ofSvids = (name: string, value: (index: number) => number): Generator<string> =>
    block(name, (index) =>
      svids(index)
        .map((labels) => line(name, labels, value(index)))
        .join(''),
    );
  yield* ofSvids('scute_x509_svid_expiration_timestamp_seconds', (index) => begins(index) + svidLifeSeconds);
  yield* ofSvids('scute_x509_svid_not_before_timestamp_seconds', begins);
  const ofAuthorities = (name: string, which: 1 | 2): Generator<string> =>
    block(name, (index) =>
      authorities(index)
        .map((each) => line(name, each[0], each[which]))
        .join(''),
    );
  yield* ofAuthorities('scute_x509_authority_not_before_timestamp_seconds', 1);
  yield* ofAuthorities('scute_x509_authority_expiration_timestamp_seconds', 2);
  yield* block('scute_build_info', (index) => {
    const version = isOdd(index, ODD_ONES.oldVersion) ? '0.0.9' : '0.1.0';
    return line('scute_build_info', `${place(index)},version="${version}",nodejs="26.12.1",openssl="3.5.6"`, 1);
  });
  yield* block('scute_ready', (index) => {
    const hasExpired = begins(index) + svidLifeSeconds <= now;
    return line('scute_ready', `${place(index)},check="identity_valid",blocks="true"`, hasExpired ? 0 : 1);
  });
  yield* block('scute_workload_api_connected', (index) =>
    line('scute_workload_api_connected', place(index), isOdd(index, ODD_ONES.stuck) ? 0 : 1),
  );
}

/** 40 hexadecimal digits. */
function keyId(domain: string, which: 'old' | 'new'): string {
  return Buffer.from(`${which}-${domain}`).toString('hex').padEnd(40, '0').slice(0, 40);
}

/** Serves `/metrics` of the fleet. */
export async function startFleet(
  options: FleetOptions,
  listen = { host: '127.0.0.1', port: 0 },
): Promise<{ address: string; server: Server }> {
  const startedAtMs = Date.now();
  const server = createServer((_, response) => {
    response.setHeader('content-type', 'text/plain; version=0.0.4; charset=utf-8');
    Readable.from(fleetMetrics(options, startedAtMs, Date.now())).pipe(response);
  });
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(listen, resolve));
  const { address, port } = server.address() as AddressInfo;
  return { address: `${address}:${port}`, server };
}

if (import.meta.main) {
  const [sidecars = '10000', listen = '127.0.0.1:0'] = process.argv.slice(2);
  const [host = '', port = ''] = listen.split(':');
  const { address } = await startFleet({ sidecars: Number(sidecars) }, { host, port: Number(port) });
  process.stdout.write(`${sidecars} sidecars at http://${address}/metrics\n`);
}
