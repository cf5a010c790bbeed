import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { stringify } from 'yaml';
import type * as api from '../../../src/fleet/api-types.ts';
import { startChild } from '../../support/child.ts';
import { startDevDomain } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { ODD_ONES } from '../../support/admin/fleet-generator.ts';
import { startFleet, type RunningFleet } from '../../support/admin/prometheus.ts';
import { readyz } from '../../support/scute-process.ts';
import { openTab, startBrowser } from './browser.ts';
import { needs } from '../parts.ts';
import { startPrometheusWith } from '../prometheus-process.ts';
import { startEcho, startInbound, temporaryFolder } from '../stage.ts';

const GENERATOR = fileURLToPath(new URL('../../support/admin/fleet-generator.ts', import.meta.url));
const DOMAIN = 'real.example';
const REAL = 20;
const PLAYED = 10_000;
/** At once: each takes a second of a processor to start, and 100 MB. */
const STARTED_AT_ONCE = 4;

/** What the first screen of the page asks for. */
const FIRST_SCREEN = ['overview', 'certificates?limit=10', 'groups?by=trust_domain&limit=10', 'authorities?limit=10'] as const;

async function startPrometheus(t: TestContext, jobs: readonly object[]): Promise<string> {
  const folder = await temporaryFolder(t);
  const file = join(folder, 'prometheus.yaml');
  await writeFile(file, stringify({ global: { scrape_interval: '1s' }, scrape_configs: jobs }));
  const address = await startPrometheusWith(t, file);
  return `http://${address}/`;
}

async function everyItem<T>(fleet: RunningFleet, resource: string): Promise<readonly T[]> {
  const items: T[] = [];
  let cursor: string | null = '-Infinity';
  while (cursor !== null) {
    const page: api.FleetPage<T> = await fleet.get(`${resource}${resource.includes('?') ? '&' : '?'}limit=500&cursor=${cursor}`);
    items.push(...page.items);
    assert.equal(page.omitted, 0);
    cursor = page.nextCursor;
  }
  return items;
}

test(
  'a real Prometheus with twenty sidecars and ten thousand that are played: the fleet has every certificate once, and finds what is odd',
  needs('prometheus', 'chromium'),
  async (t) => {
    const names = Array.from({ length: REAL }, (_, index) => `w${index}`);
    const spiffe = await startDevDomain(t, {
      name: DOMAIN,
      workloads: Object.fromEntries(names.map((name) => [name, [`spiffe://${DOMAIN}/${name}`]])),
    });
    const echo = await startEcho(t);
    const sidecars: { readonly name: string; readonly target: string; readonly stop: () => Promise<unknown> }[] = [];
    for (let first = 0; first < REAL; first += STARTED_AT_ONCE) {
      const started = names.slice(first, first + STARTED_AT_ONCE).map(async (name) => {
        const file = { metrics: { listen: '127.0.0.1:0' } };
        const { scute } = await startInbound(t, {
          endpoint: spiffe.endpoint(name),
          to: echo.address,
          allow: [`spiffe://${DOMAIN}/*`],
          file,
        });
        const port = await scute.port('metrics');
        await readyz(port);
        return { name, target: `127.0.0.1:${port}`, stop: () => scute.stop() };
      });
      sidecars.push(...(await Promise.all(started)));
    }
    // A process of its own: what it takes to play ten thousand is not to be taken from the fleet.
    const generator = await startChild([process.execPath, GENERATOR, String(PLAYED), '127.0.0.1:0']);
    t.after(() => generator.stop().then(() => undefined));
    const [, generatorAddress = ''] = /http:\/\/([^/]+)\/metrics/.exec((await generator.line(/metrics$/)).text) ?? [];
    const url = await startPrometheus(t, [
      {
        job_name: 'scute',
        static_configs: sidecars.map(({ name, target }) => ({ targets: [target], labels: { cluster: 'real', node: `node-${name}` } })),
      },
      {
        job_name: 'scute-played',
        honor_labels: true,
        scrape_interval: '30s',
        scrape_timeout: '30s',
        body_size_limit: '64MB',
        static_configs: [{ targets: [generatorAddress] }],
      },
    ]);
    const fleet = await startFleet(t, url);
    const counts = async (): Promise<api.FleetCounts> => {
      const { counts: told } = await fleet.get<api.FleetOverview>('overview');
      assert.ok(told.value !== null, JSON.stringify(told.problem));
      return told.value;
    };
    const all = REAL + PLAYED;
    const played = PLAYED + PLAYED / ODD_ONES.twoSvids;
    await eventually(async () => assert.equal((await counts()).certificates, played + REAL), { withinMs: 180_000 });

    await t.test('the overview counts them', async () => {
      const { sidecars: told, unreachable, lagging, stuck, expired, disconnected, notReady } = await counts();
      const late = PLAYED / ODD_ONES.stuck;
      const both = Array.from({ length: PLAYED }, (_, index) => index).filter((index) => index % 500 === 499 && index % 100 === 99).length;
      assert.deepEqual(
        { told, unreachable, lagging, stuck, expired, disconnected, notReady },
        {
          told: all,
          unreachable: 0,
          lagging: PLAYED / ODD_ONES.oldAuthority,
          stuck: late + both,
          expired: late + both,
          disconnected: late,
          notReady: late,
        },
      );
      const { versions, remainingLife } = await fleet.get<api.FleetOverview>('overview');
      assert.deepEqual(versions.value, [
        { version: '0.1.0', sidecars: all - PLAYED / ODD_ONES.oldVersion },
        { version: '0.0.9', sidecars: PLAYED / ODD_ONES.oldVersion },
      ]);
      assert.equal(
        remainingLife.value?.reduce((sum, { certificates }) => sum + certificates, 0),
        played + REAL,
      );
      // Each is replaced at half of its life, but for those that are stuck.
      assert.equal(
        remainingLife.value
          ?.filter(({ tenth }) => tenth !== 'expired' && tenth < 4)
          .reduce((sum, { certificates }) => sum + certificates, 0),
        0,
      );
    });

    await t.test('page by page each certificate is there once, soonest to expire first', async () => {
      const certificates = await everyItem<api.FleetCertificate>(fleet, 'certificates?cluster=north');
      const others = await everyItem<api.FleetCertificate>(fleet, 'certificates?cluster=south');
      const keys = new Set([...certificates, ...others].map(({ sidecar, spiffeId }) => `${sidecar.instance} ${spiffeId}`));
      assert.deepEqual([keys.size, certificates.length + others.length], [played, played]);
      const times = certificates.map(({ notAfter }) => notAfter ?? '');
      assert.deepEqual(times, times.toSorted());
    });

    await t.test('what it tells of a real sidecar is what that has', async () => {
      const certificates = await everyItem<api.FleetCertificate>(fleet, `certificates?trustDomain=${DOMAIN}`);
      assert.deepEqual(
        certificates.map(({ spiffeId }) => spiffeId).toSorted(),
        names.map((name) => `spiffe://${DOMAIN}/${name}`).toSorted(),
      );
      for (const { spiffeId, notAfter, sidecar, stuck } of certificates) {
        const { name, target } = sidecars.find((each) => spiffeId === `spiffe://${DOMAIN}/${each.name}`) ?? assert.fail(spiffeId);
        const scrape = await (await fetch(`http://${target}/metrics`)).text();
        const expiry = /^scute_x509_svid_expiration_timestamp_seconds\{.*\} (\S+)$/m.exec(scrape)?.[1];
        assert.deepEqual([notAfter, stuck], [new Date(Number(expiry) * 1000).toISOString(), false]);
        assert.deepEqual(sidecar, {
          job: 'scute',
          instance: target,
          place: { cluster: 'real', namespace: '', pod: '', node: `node-${name}` },
        });
      }
      const told = await everyItem<api.FleetSidecar>(fleet, 'sidecars?cluster=real');
      assert.equal(told.length, REAL);
      for (const { version, failing, connected, certificates: held } of told)
        assert.deepEqual([version, failing, connected, held], ['0.1.0', [], true, 1]);
    });

    await t.test('groups are whole, and say how many of them are stuck', async () => {
      for (const [by, groups] of [
        ['trust_domain', 4],
        ['issuer', 7],
        ['cluster', 3],
        ['namespace', 6],
        ['node', 200 + REAL],
      ] as const) {
        const items = await everyItem<api.FleetGroup>(fleet, `groups?by=${by}`);
        const sum = (of: (group: api.FleetGroup) => number): number => items.reduce((total, group) => total + of(group), 0);
        assert.equal(
          sum(({ certificates }) => certificates),
          played + REAL,
          by,
        );
        assert.equal(
          sum(({ stuck }) => stuck),
          (await counts()).stuck,
          by,
        );
        assert.equal(items.length, groups, by);
      }
    });

    await t.test('one workload has as many certificates as there are sidecars with it', async () => {
      const groups = await everyItem<api.FleetGroup>(fleet, 'groups?by=workload&trustDomain=prod.example');
      const [group] = groups.filter(({ certificates }) => certificates > 80);
      assert.ok(group !== undefined);
      const certificates = await everyItem<api.FleetCertificate>(fleet, `certificates?spiffeId=${encodeURIComponent(group.name)}`);
      assert.deepEqual([certificates.length, certificates[0]?.notAfter], [group.certificates, group.firstExpiry]);
    });

    await t.test('who still trusts only the old root is named, and a root that comes is seen to come', async () => {
      const lagging = await everyItem<api.FleetLagging>(fleet, 'lagging');
      assert.equal(lagging.length, PLAYED / ODD_ONES.oldAuthority);
      assert.ok(lagging.every(({ lastExpiry }) => lastExpiry !== null));
      const roots = (): Promise<readonly api.FleetAuthority[]> => everyItem<api.FleetAuthority>(fleet, `authorities?trustDomain=${DOMAIN}`);
      const [before, ...more] = await roots();
      assert.deepEqual([before?.trustedBy, before?.issued, before?.newest, more.length], [REAL, REAL, true, 0]);

      await spiffe.rotateRoot(DOMAIN);

      await eventually(async () => {
        const after = await roots();
        assert.deepEqual(after.map(({ trustedBy, issued, newest }) => `${trustedBy} ${issued} ${newest}`).toSorted(), [
          `${REAL} 0 false`,
          `${REAL} ${REAL} true`,
        ]);
      });
    });

    await t.test('a sidecar that ends is told as one that cannot be scraped', async () => {
      const [gone] = sidecars;
      await gone?.stop();
      await eventually(async () => {
        const { items } = await fleet.get<api.FleetPage<api.FleetUnreachable>>('unreachable');
        assert.deepEqual(
          items.map(({ sidecar }) => sidecar.instance),
          [gone?.target],
        );
      });
      await eventually(async () => assert.equal((await counts()).certificates, played + REAL - 1));
    });

    // Each from nothing: another fleet has no answers yet.
    const measure = async (complete: (fresh: RunningFleet) => Promise<unknown>): Promise<string> => {
      const times: number[] = [];
      for (let round = 0; round < 5; round += 1) {
        const fresh = await startFleet(t, url);
        const begin = performance.now();
        await complete(fresh);
        times.push(performance.now() - begin);
      }
      const [fastest, , median = Infinity, , slowest] = times.toSorted((one, other) => one - other).map(Math.round);
      // On an idle machine it is below 2 s; this says only that it is bounded.
      assert.ok(median < 60_000);
      return `${median} ms (median of 5; ${fastest} to ${slowest})`;
    };
    const answers = await measure(async (fresh) => {
      const all = await Promise.all(FIRST_SCREEN.map((resource) => fresh.ask(`/api/v1/fleet/${resource}`)));
      assert.ok(all.every(({ status }) => status === 200));
    });
    t.diagnostic(`what the first screen asks for: ${answers}`);
    const browser = await startBrowser(t);
    const page = await measure(async (fresh) => {
      const { page: tab, complaints } = await openTab(browser);
      await tab.goto(fresh.url);
      for (const panel of ['Certificates', 'Remaining life', 'Versions', 'Trust domains', 'Authorities']) {
        const region = tab.getByRole('region', { name: panel, exact: true });
        await region.locator('td, .bars').first().waitFor();
      }
      // On a busy machine Prometheus may take longer than it may: the page says so, asks again, and is complete all the same.
      assert.deepEqual(
        complaints.filter((text) => !text.includes('502 (Bad Gateway)')),
        [],
      );
    });
    t.diagnostic(`the page, until every panel is complete: ${page}`);
  },
);
