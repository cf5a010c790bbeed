import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eventually } from '../../support/eventually.ts';
import { json, NOW_SECONDS, startFleet, startStandIn, vector, type Play, type Series } from '../../support/admin/prometheus.ts';
import { assertFits, DESKTOP, focused, openTab, PHONE, startBrowser, tabTo, violations } from './browser.ts';
import { needs } from '../parts.ts';

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

test('with the keyboard alone, every page of the fleet can be reached, and its lists be chosen', needs('chromium'), async (t) => {
  const prometheus = await startStandIn(t);
  prometheus.play(playOne(1800));
  const fleet = await startFleet(t, prometheus.url);
  const { page } = await openTab(await startBrowser(t));
  await page.goto(fleet.url);
  const heading = (text: string) => page.getByRole('heading', { level: 1, name: text, exact: true }).waitFor();
  /** Follows the link with that text, and is at the head of what comes. */
  const follow = async (link: string, title: string): Promise<void> => {
    await tabTo(page, link);
    await page.keyboard.press('Enter');
    // It may be called as the one before.
    await eventually(async () => assert.equal(await focused(page), title));
  };
  await heading('All is well with 1 certificate of 1 sidecar.');

  await page.keyboard.press('Tab');
  assert.equal(await focused(page), 'To the content');
  await page.keyboard.press('Enter');
  assert.equal(await focused(page), 'All is well with 1 certificate of 1 sidecar.');
  await follow('All certificates', 'Certificates');

  // What is chosen makes another list, in which the link is not any more.
  const table = page.getByRole('table', { name: 'Certificates' });
  await table.getByRole('link', { name: 'shop' }).waitFor();
  await follow('shop', 'Certificates');
  await page.getByRole('link', { name: 'any namespace' }).waitFor();
  const search = page.getByLabel('SPIFFE ID, whole');
  const isTyping = (): Promise<boolean> => page.evaluate<boolean>('document.activeElement.type === "search"');
  for (let presses = 0; !(await isTyping()); presses++) {
    assert.ok(presses < 50, 'no way to the search');
    await page.keyboard.press('Tab');
  }
  await page.keyboard.type('spiffe://example.org/api', { delay: 60 });
  await page.getByRole('link', { name: 'any SPIFFE ID' }).waitFor();
  assert.equal(await search.inputValue(), 'spiffe://example.org/api');
  assert.ok(await isTyping(), 'who types goes on typing');
  // The link is there first; and the page goes on asking for what its head says.
  await eventually(() => assert.ok(prometheus.questions.some(({ promql }) => promql.includes('spiffe_id="spiffe://example.org/api"'))));
  await follow('any namespace', 'Certificates');
  await follow('Stuck', 'Stuck rotations');

  await page.reload();
  await heading('Stuck rotations');
  for (const [link, title] of [
    ['Groups', 'Trust domains'],
    ['Nodes', 'Nodes'],
    ['Sidecars', 'Sidecars'],
    ['Trust', 'Trust'],
    ['Overview', 'All is well with 1 certificate of 1 sidecar.'],
  ] as const) {
    await follow(link, title);
    await page.reload();
    await heading(title);
  }
  await tabTo(page, 'Auto');
  await page.keyboard.press('Enter');
  await page.keyboard.press('Enter');
  await eventually(async () => assert.equal(await page.evaluate('document.documentElement.dataset.theme'), 'dark'));
});

test('who turns the pages of a list keeps the focus on what they pressed, to its end and back', needs('chromium'), async (t) => {
  const prometheus = await startStandIn(t);
  const at = (index: number): Series => ({
    labels: { job: 'scute', instance: `10.0.0.${index}:9090`, spiffe_id: `spiffe://example.org/${index}` },
    value: NOW_SECONDS + index,
  });
  const all = Array.from({ length: 120 }, (_, index) => at(index));
  prometheus.play(({ promql }, response) => {
    const [, most, above] = /^bottomk\((\d+), [^ ]+ > (\S+)\)$/.exec(promql) ?? [];
    const rows = all.filter(({ value }) => Number(value) > Number((above ?? '').replace('Inf', 'Infinity')));
    vector(response, most === undefined ? [] : rows.slice(0, Number(most)));
  });
  const fleet = await startFleet(t, prometheus.url);
  const { page } = await openTab(await startBrowser(t));
  await page.goto(`${fleet.url}#/certificates`);
  const shown = (index: number) => page.getByRole('link', { name: `spiffe://example.org/${index}`, exact: true });
  await shown(0).waitFor();

  await tabTo(page, 'Later');
  for (const first of [50, 100]) {
    await page.keyboard.press('Enter');
    await shown(first).waitFor();
    assert.equal(await focused(page), 'Later');
  }
  await page.keyboard.press('Enter');
  await page.keyboard.press('Shift+Tab');
  assert.equal(await focused(page), 'Earlier');
  await page.keyboard.press('Enter');
  await shown(50).waitFor();
  assert.equal(await focused(page), 'Earlier');
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
    // It follows the text when the page is drawn.
    await eventually(async () => assert.equal(await page.locator('html').getAttribute('data-level'), 'red'));

    prometheus.play((_, response) => json(response, 422, { status: 'error', errorType: 'execution', error: HOSTILE }));
    await heading('Nothing is known of the fleet.');
    await page.getByText('Raise the limit that it names').waitFor();
    assert.equal(await page.locator('img').count(), 0);

    prometheus.play(playOne(1800));
    await heading('All is well with 1 certificate of 1 sidecar.');
  },
);
