import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eventually } from '../support/eventually.ts';
import { json, NOW_SECONDS, startFleet, startStandIn, vector, type Play, type Series } from '../support/prometheus.ts';
import { assertFits, DESKTOP, openTab, PHONE, startBrowser, violations } from './browser.ts';
import { needs } from './parts.ts';

const HOSTILE = '</script><img src=x onerror="document.title=1">';
const PLACE = { job: 'scute', instance: `10.0.0.1:9090 ${HOSTILE}`, cluster: HOSTILE, namespace: 'shop', pod: HOSTILE, node: 'n1' };
const PAGES = [
  '#/',
  '#/certificates',
  `#/certificates?cluster=${encodeURIComponent(HOSTILE)}`,
  '#/groups?by=workload',
  '#/sidecars',
  '#/trust',
  '#/no',
];

/** A fleet of one, whose every label is hostile. */
function playOne(left: number): Play {
  const svid: Series = {
    labels: { ...PLACE, spiffe_id: `spiffe://example.org/${HOSTILE}`, trust_domain: HOSTILE, hint: HOSTILE, issuer_key_id: HOSTILE },
    value: NOW_SECONDS + left,
  };
  const authority: Series = { labels: { ...PLACE, trust_domain: HOSTILE, subject_key_id: HOSTILE }, value: NOW_SECONDS + 86_400 };
  return ({ promql }, response) => {
    const parts = String(Math.max(Math.floor((left / 3600) * 20), -1));
    if (promql.startsWith('count_values')) return vector(response, [{ labels: { parts }, value: 1 }]);
    if (promql.startsWith('topk')) return vector(response, [{ labels: { version: HOSTILE }, value: 1 }]);
    if (promql === 'count(scute_build_info)') return vector(response, [{ labels: {}, value: 1 }]);
    if (promql.startsWith('count(')) return vector(response, []);
    if (promql.includes('== 0')) return vector(response, [{ labels: { ...PLACE, check: HOSTILE, version: HOSTILE }, value: 0 }]);
    if (promql.includes('authority')) return vector(response, [authority]);
    if (promql.includes('not_before') && !promql.includes('bottomk(10, '))
      return vector(response, [{ ...svid, value: NOW_SECONDS + left - 3600 }]);
    return vector(response, [svid]);
  };
}

test('whatever labels say stands on every page of the fleet as text, which fits, and axe finds nothing', needs('chromium'), async (t) => {
  const prometheus = await startStandIn(t);
  prometheus.play(playOne(1800));
  const fleet = await startFleet(t, prometheus.url);
  const browser = await startBrowser(t);
  for (const options of [
    { ...DESKTOP, colorScheme: 'light' },
    { ...PHONE, colorScheme: 'dark' },
  ] as const) {
    const { page, complaints } = await openTab(browser, options);
    for (const hash of PAGES) {
      await page.goto(`${fleet.url}${hash}`);
      await page.locator('main#content h1').waitFor();
      await eventually(async () => assert.equal(await page.locator('.loading').count(), 0));
      if (hash !== '#/no') await page.getByText(HOSTILE).first().waitFor();
      assert.equal(await page.locator('img').count(), 0, hash);
      assert.match(await page.title(), /Scute fleet$/);
      await assertFits(page);
      assert.deepEqual(await violations(page), [], hash);
    }
    assert.deepEqual(complaints, []);
  }
});

test(
  'an expired certificate turns the page of the fleet red, the heal turns it back, and a Prometheus that fails is said to',
  needs('chromium'),
  async (t) => {
    const prometheus = await startStandIn(t);
    prometheus.play(playOne(1800));
    const fleet = await startFleet(t, prometheus.url);
    const { page } = await openTab(await startBrowser(t));
    await page.goto(fleet.url);
    const heading = (text: string) => page.getByRole('heading', { level: 1, name: text }).waitFor();
    await heading('All is well with 1 certificate of 1 sidecar.');

    prometheus.play(playOne(-60));
    await heading('1 certificate of 1 sidecar: act now.');
    await page.getByText('1 certificate has expired.').waitFor();
    assert.equal(await page.locator('html').getAttribute('data-level'), 'red');

    prometheus.play((_, response) => json(response, 422, { status: 'error', errorType: 'execution', error: HOSTILE }));
    await heading('Nothing is known of the fleet.');
    await page.getByText('Raise the limit that it names').waitFor();
    assert.equal(await page.locator('img').count(), 0);

    prometheus.play(playOne(1800));
    await heading('All is well with 1 certificate of 1 sidecar.');
  },
);
