/**
 * `npm run screenshots`: pictures of the dashboard of the demonstration, of SDS and of the fleet into `docs/images`, with Debian's Chromium and
 * Prometheus; `-- fleet envoy` takes those alone whose names begin so. They are looked at by people; tests compare nothing with them.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Page } from 'playwright-core';
import { stringify } from 'yaml';
import type { FleetOverview } from '../../../src/fleet/api-types.ts';
import { startChild } from '../../support/child.ts';
import { startDevDomain } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { startFleet as playFleet } from '../../support/admin/fleet-generator.ts';
import { startFleet } from '../../support/admin/prometheus.ts';
import { openSotw, sdsClient } from '../../support/sds.ts';
import { readyz } from '../../support/scute-process.ts';
import { freePort } from '../../support/tcp.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import { DESKTOP, launchBrowser, openTab, PHONE } from './browser.ts';
import { startPrometheusWith } from '../prometheus-process.ts';

const root = join(import.meta.dirname, '..', '..', '..');
const FOLDER = join(root, 'docs', 'images');
/** So that there are rotations to be seen, and curves. */
const RUNS_FOR_MS = 135_000;
const CURVES_MS = 25_000;

/** What a picture is of; resolves to its address. */
type Stage = (t: TestContext) => Promise<string>;

/** The name of the file, of what, where it is, and what is done before. */
interface Picture {
  readonly name: string;
  readonly of: Stage;
  readonly hash: string;
  readonly colorScheme: 'light' | 'dark';
  readonly isPhone?: boolean;
  /** Its height, in pixels. */
  readonly most?: number;
  readonly prepare?: (page: Page) => Promise<unknown>;
}

const demo: Stage = async (t) => {
  const child = await startChild([process.execPath, '--disable-sigusr1', join(root, 'src/main.ts'), 'demo'], {
    env: { PATH: process.env['PATH'] ?? '', TMPDIR: process.env['TMPDIR'] ?? '/tmp' },
  });
  t.after(() => child.stop());
  await child.line(/^READY/);
  const [, url = ''] = /^Dashboard: (\S+)$/.exec((await child.line(/^Dashboard: /)).text) ?? [];
  console.log(`the demonstration runs for ${RUNS_FOR_MS / 1000} s before its picture is taken`);
  await sleep(RUNS_FOR_MS);
  return url;
};

/** A sidecar that serves two Envoys, of which one will not have what it was sent last. */
const sds: Stage = async (t) => {
  const spiffe = await startDevDomain(
    t,
    {
      name: 'example.org',
      intermediates: 1,
      federatesWith: ['partner.example'],
      workloads: { gateway: ['spiffe://example.org/gateway'] },
    },
    { name: 'partner.example', federatesWith: ['example.org'], workloads: {} },
  );
  const path = join(await temporaryFolder(t), 'sds.sock');
  const admin = await freePort();
  const config = {
    workloadApi: { endpoint: spiffe.endpoint('gateway') },
    inbound: [{ name: 'orders', listen: '127.0.0.1:0', to: '127.0.0.1:1', allow: ['spiffe://example.org/**'] }],
    sds: { listen: `unix://${path}` },
    admin: { listen: `127.0.0.1:${admin}` },
  };
  const file = join(dirname(path), 'scute.yaml');
  await writeFile(file, stringify(config));
  const child = await startChild([process.execPath, '--disable-sigusr1', join(root, 'src/main.ts'), 'run', '-c', file]);
  t.after(() => child.stop());
  await readyz(admin);
  const envoys = ['gateway-7f9c', 'reports-proxy-2b41'].map((id) => {
    const names = { resourceNames: ['default', 'ROOTCA', ...(id.startsWith('gateway') ? ['spiffe://partner.example'] : [])] };
    const envoy = openSotw(sdsClient(t, `unix:${path}`));
    envoy.send({ ...names, node: { id, userAgentName: 'envoy' } });
    return { envoy, names };
  });
  let accepted = '';
  const answer = async (isGood: boolean, { envoy, names }: (typeof envoys)[number]): Promise<void> => {
    const { versionInfo, nonce: responseNonce } = await envoy.next();
    if (isGood) accepted = versionInfo;
    const message = 'Failed to load incomplete certificate from <inline>: no certificate chain';
    envoy.send({ ...names, versionInfo: accepted, responseNonce, ...(isGood ? {} : { errorDetail: { code: 13, message } }) });
  };
  for (const each of envoys) await answer(true, each);
  await spiffe.rotate('example.org');
  for (const [index, each] of envoys.entries()) await answer(index === 0, each);
  return `http://127.0.0.1:${admin}/`;
};

/** As many sidecars as are played, which a real Prometheus scrapes. Among 500 one is stuck. */
const fleetOf =
  (sidecars: number): Stage =>
  async (t) => {
    const { address, server } = await playFleet({ sidecars });
    t.after(() => server.close());
    const file = join(await temporaryFolder(t), 'prometheus.yaml');
    const job = { job_name: 'scute-played', honor_labels: true, static_configs: [{ targets: [address] }] };
    await writeFile(file, stringify({ global: { scrape_interval: '2s', scrape_timeout: '2s' }, scrape_configs: [job] }));
    const fleet = await startFleet(t, `http://${await startPrometheusWith(t, file)}/`);
    await eventually(async () => {
      const { counts } = await fleet.get<FleetOverview>('overview');
      if (counts.value?.sidecars !== sidecars) throw new Error(JSON.stringify(counts));
    });
    return fleet.url;
  };
const [healthy, ill] = [fleetOf(240), fleetOf(2000)];

/** Between two connections of a caller there is nothing to see. */
const untilConnected = (page: Page): Promise<unknown> => page.getByRole('table', { name: 'Peers' }).getByRole('row').nth(3).waitFor();
const openRule = (page: Page): Promise<unknown> => page.getByText('The rule that would allow it').first().click();
const PICTURES: readonly Picture[] = [
  { of: demo, name: 'overview-light', hash: '#/', colorScheme: 'light', prepare: () => sleep(CURVES_MS) },
  { of: demo, name: 'overview-dark', hash: '#/', colorScheme: 'dark', prepare: () => sleep(CURVES_MS) },
  { of: demo, name: 'overview-phone-light', hash: '#/', colorScheme: 'light', isPhone: true },
  { of: demo, name: 'overview-phone-dark', hash: '#/', colorScheme: 'dark', isPhone: true },
  { of: demo, name: 'certificates-light', hash: '#/certificates', colorScheme: 'light', most: 820 },
  {
    of: demo,
    name: 'certificate-dark',
    hash: '#/certificates?kind=svid',
    colorScheme: 'dark',
    prepare: (page) => page.locator('td a.mono').first().click(),
  },
  { of: demo, name: 'trust-light', hash: '#/trust', colorScheme: 'light' },
  { of: demo, name: 'connections-dark', hash: '#/connections', colorScheme: 'dark', prepare: untilConnected },
  { of: demo, name: 'connections-phone-light', hash: '#/connections', colorScheme: 'light', isPhone: true, prepare: untilConnected },
  { of: demo, name: 'refusals-light', hash: '#/refusals', colorScheme: 'light', prepare: openRule },
  { of: demo, name: 'policy-dark', hash: '#/policy', colorScheme: 'dark', prepare: openRule },
  { of: demo, name: 'time-light', hash: '#/time', colorScheme: 'light' },
  { of: demo, name: 'configuration-dark', hash: '#/configuration', colorScheme: 'dark', most: 1560 },
  { of: sds, name: 'envoy-light', hash: '#/envoy', colorScheme: 'light' },
  { of: healthy, name: 'fleet-dark', hash: '#/', colorScheme: 'dark' },
  { of: ill, name: 'fleet-red-light', hash: '#/', colorScheme: 'light', most: 960 },
];

/**
 * The height of the picture, for the browser. What is further down says the same of other things, and pictures should be small: they end below the
 * last panel that is whole, or the last line of a long one.
 */
const heightWithin = (most: number): string => `(() => {
  const content = document.documentElement.scrollHeight;
  if (content <= ${most}) return content;
  const ends = (what) => [...document.querySelectorAll(what)]
    .map((element) => element.getBoundingClientRect().bottom + scrollY)
    .filter((end) => end <= ${most} - 16);
  const panel = Math.max(0, ...ends('.panel'));
  return Math.round(panel > ${most} * 0.7 ? panel + 16 : Math.max(panel, ...ends('tr, .panel > *')) + 1);
})()`;

const chosen = process.argv.slice(2);
const endings: (() => unknown)[] = [];
/** Of a test, the stages need only its end. */
const t = { after: (end: () => unknown) => void endings.push(end) } as unknown as TestContext;
const stages = new Map<Stage, Promise<string>>();

await mkdir(FOLDER, { recursive: true });
const browser = await launchBrowser();
try {
  for (const { name, of, hash, colorScheme, isPhone = false, most = isPhone ? 1500 : 1040, prepare } of PICTURES) {
    if (chosen.length > 0 && !chosen.some((begin) => name.startsWith(begin))) continue;
    const started = stages.get(of) ?? of(t);
    stages.set(of, started);
    const url = await started;
    const { page } = await openTab(browser, { ...(isPhone ? PHONE : DESKTOP), colorScheme });
    await page.goto(url + hash);
    await page.getByRole('heading', { level: 1 }).waitFor();
    await prepare?.(page);
    await sleep(1500);
    const { width } = (isPhone ? PHONE : DESKTOP).viewport;
    const height = await page.evaluate<number>(heightWithin(most));
    await page.screenshot({ path: join(FOLDER, `${name}.png`), fullPage: true, clip: { x: 0, y: 0, width, height } });
    console.log(name);
    await page.context().close();
  }
} finally {
  await browser.close();
  for (const end of endings.toReversed()) await end();
}
