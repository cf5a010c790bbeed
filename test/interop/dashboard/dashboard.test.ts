import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import type { Browser, Page } from 'playwright-core';
import { formatAddress } from '../../../src/config/units.ts';
import { createAdminParts, LOOPBACK, startService } from '../../support/admin/admin.ts';
import { presented } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { anSvid, aPeer, startExecStage } from '../../support/exec-stage.ts';
import { startDevDomain, startDevDomainWith } from '../../support/dev-domain.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { joinMany } from '../../support/admin/many-peers.ts';
import { createTestAuthority } from '../../support/pki/pki.ts';
import { openSotw, sdsClient } from '../../support/sds.ts';
import { startSidecar } from '../../support/sidecar.ts';
import { dial, startEcho } from '../../support/tcp.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import { outcome, tlsClient, tlsServer } from '../../support/tls-peer.ts';
import { assertFits, DESKTOP, focused, openTab, PHONE, startBrowser, tabTo, violations, WITHIN_MS } from './browser.ts';
import { needs } from '../parts.ts';

const API = 'spiffe://example.org/api';
const WEB = 'spiffe://example.org/web';
const REPORTS = 'spiffe://example.org/reports';
const STRANGER = 'spiffe://example.org/stranger';
const CHECKOUT = 'spiffe://partner.example/checkout';
const ADMIN = { admin: { listen: '127.0.0.1:0' } } as const;
const HOSTILE = '<img src=x onerror="document.title=1">';

/** A sidecar with everything that the dashboard has a panel for, and callers that talk. */
async function startStage(t: TestContext) {
  const folder = await temporaryFolder(t);
  const spiffe = await startDevDomain(
    t,
    { name: 'example.org', intermediates: 1, federatesWith: ['partner.example'], workloads: { api: [API], web: [WEB] } },
    { name: 'partner.example', federatesWith: ['example.org'], workloads: { checkout: [CHECKOUT] } },
  );
  const echo = await startEcho(t);
  const socket = join(folder, 'sds.sock');
  const sidecar = await startSidecar(t, {
    workloadApi: { endpoint: spiffe.endpoint('api') },
    inbound: [{ name: 'orders', listen: '127.0.0.1:0', to: echo.address, allow: [WEB, CHECKOUT, { peer: REPORTS, mode: 'audit' }] }],
    outbound: [{ name: 'database', listen: '127.0.0.1:0', to: '127.0.0.1:1', expect: [WEB] }],
    sds: { listen: `unix://${socket}` },
    ...ADMIN,
  });
  const address = sidecar.address('orders');
  const call = async (id: string) => tlsClient(t, address, presented(await spiffe.issue(id)));
  for (const id of [WEB, CHECKOUT, REPORTS]) {
    const caller = await call(id);
    caller.resume();
    const timer = setInterval(() => caller.write('hello'), 200);
    t.after(() => clearInterval(timer));
  }
  const envoy = openSotw(sdsClient(t, `unix:${socket}`));
  envoy.send({ resourceNames: ['default', 'ROOTCA'], node: { id: `gateway ${HOSTILE}`, userAgentName: HOSTILE } });
  const { versionInfo, nonce } = await envoy.next();
  envoy.send({ resourceNames: ['default', 'ROOTCA'], versionInfo, responseNonce: nonce });
  return { spiffe, sidecar, address, call, url: `http://${sidecar.address('admin')}/`, refuse: async () => outcome(await call(STRANGER)) };
}

function shows(page: Page, text: string | RegExp): Promise<unknown> {
  return page.getByText(text).filter({ visible: true }).first().waitFor();
}

/** Every page of the dashboard, and something of each that must be there. */
const PAGES: readonly (readonly [string, readonly (string | RegExp)[]])[] = [
  [
    '#/',
    ['Every certificate works. One thing to look at.', 'Audit admits callers that the policy would deny.', /^Authority of example\.org$/],
  ],
  ['#/certificates', ['In sight', 'Authority of partner.example']],
  ['#/certificates?kind=authority', ['Authority of partner.example']],
  ['#/trust', ['partner.example', '1 authority · bundle from the Workload API']],
  ['#/connections', [WEB, CHECKOUT, 'audit: not_allowed']],
  [`#/peers/${encodeURIComponent(WEB)}`, ['Open connections', /^no\. \d+/]],
  ['#/refusals', [STRANGER, 'The rule that would allow it']],
  ['#/policy', [REPORTS, 'audit']],
  ['#/envoy', ['accepted', 'ROOTCA']],
  ['#/time', ['SVID rotated', 'Authority ends']],
  ['#/configuration', ['Effective configuration', 'self_test', '"drainTimeoutMs"']],
];

async function lookAtAll(browser: Browser, url: string, options: Parameters<typeof openTab>[1]): Promise<void> {
  const { page, complaints } = await openTab(browser, options);
  for (const [hash, texts] of PAGES) {
    await page.goto(`${url}${hash}`);
    for (const text of texts) await shows(page, text);
    await assertFits(page);
    assert.deepEqual(await violations(page), [], `${hash} ${JSON.stringify(options)}`);
  }
  assert.deepEqual(complaints, []);
  await page.context().close();
}

test('every page shows what there is of a sidecar under traffic, fits, and axe has nothing against it', needs('chromium'), async (t) => {
  const { spiffe, url, refuse } = await startStage(t);
  await spiffe.rotate();
  await refuse();
  const browser = await startBrowser(t);

  for (const colorScheme of ['light', 'dark'] as const) {
    await lookAtAll(browser, url, { ...DESKTOP, colorScheme });
    await lookAtAll(browser, url, { ...PHONE, colorScheme, reducedMotion: 'reduce' });
  }
});

test('a rotation and a refusal appear without a reload', needs('chromium'), async (t) => {
  const { spiffe, url, refuse } = await startStage(t);
  const { page, complaints } = await openTab(await startBrowser(t));
  await page.goto(url);
  await shows(page, 'The default SVID, and what signed it'.toLowerCase());
  await shows(page, 'Nobody has been refused.');
  await page.evaluate('document.body.dataset.same = "yes"');

  const rotatedAt = performance.now();
  await spiffe.rotate('example.org');
  await shows(page, /rotated once/);
  t.diagnostic(`a rotation was on the page after ${Math.round(performance.now() - rotatedAt)} ms`);

  await refuse();
  const refusedAt = performance.now();
  await page.getByRole('region', { name: 'Refusals' }).getByText(STRANGER).first().waitFor();
  t.diagnostic(`a refusal was on the page after ${Math.round(performance.now() - refusedAt)} ms`);

  assert.equal(await page.evaluate('document.body.dataset.same'), 'yes');
  assert.deepEqual(complaints, []);
});

test('an SVID that is about to expire turns the page red, and the next one turns it back', needs('chromium'), async (t) => {
  const clock = new FakeClock();
  const spiffe = await startDevDomainWith(t, { clock }, [
    { name: 'example.org', svidLife: '1h', rotateEvery: '59m', workloads: { api: [API] } },
  ]);
  const inbound = [{ name: 'orders', listen: '127.0.0.1:0', to: '127.0.0.1:1', allow: [WEB] }];
  const sidecar = await startSidecar(t, { workloadApi: { endpoint: spiffe.endpoint('api') }, inbound, ...ADMIN }, { clock });
  const { page, complaints } = await openTab(await startBrowser(t));
  await page.goto(`http://${sidecar.address('admin')}/`);
  await shows(page, 'All is well: every certificate is fresh.');
  // It follows the text when the page is drawn.
  const isLevel = (level: string): Promise<unknown> =>
    eventually(async () => assert.equal(await page.evaluate('document.documentElement.dataset.level'), level));
  await isLevel('well');
  const status = page.getByRole('status').filter({ hasText: /certificate|broken/ });

  clock.advance(55 * 60_000);
  await shows(page, 'Act now: one thing is broken.');
  await shows(page, /The SVID of spiffe:\/\/example\.org\/api expires in \d min( \d+ s)?, and its renewal is late\.$/);
  await shows(page, '1 thing to do now');
  await isLevel('red');
  assert.match(await page.title(), /^\(!\) /);
  assert.match((await status.last().textContent()) ?? '', /Act now/);
  assert.deepEqual(await violations(page), []);

  clock.advance(5 * 60_000);
  await shows(page, 'All is well: every certificate is fresh.');
  await isLevel('well');
  // Its heart beats by the clock that stands still, so that the server may have taken it for gone.
  assert.deepEqual(
    complaints.filter((complaint) => !complaint.includes('ERR_INCOMPLETE_CHUNKED_ENCODING')),
    [],
  );
});

test('before the first SVID, and when the process is gone, the page says so', needs('chromium'), async (t) => {
  const inbound = [{ name: 'orders', listen: '127.0.0.1:0', to: '127.0.0.1:1', allow: [WEB] }];
  const workloadApi = { endpoint: `unix://${join(await temporaryFolder(t), 'nobody.sock')}` };
  const sidecar = await startSidecar(t, { workloadApi, inbound, ...ADMIN }, { unready: true });
  const { page } = await openTab(await startBrowser(t));
  await page.goto(`http://${sidecar.address('admin')}/`);
  await shows(page, 'No SVID yet. This page shows it as soon as it comes.');
  assert.deepEqual(await violations(page), []);

  await sidecar.stop();
  await shows(page, /^No connection to Scute since \d\d:\d\d:\d\d UTC\.$/);
  await shows(page, 'not connected');
  assert.deepEqual(await violations(page), []);
});

test('the page of a Scute that runs an application says whether that waits, runs or ended badly', needs('chromium'), async (t) => {
  const { api, exec, folder } = await startExecStage(t, { early: true });
  const server = await tlsServer(t, aPeer(API), (peer) => peer.pipe(peer));
  const socket = join(folder, 'out.sock');
  const outbound = [{ name: 'out', listen: `unix://${socket}`, to: server.address, expect: [API] }];
  const running = await exec(['/bin/sh', '-c', 'read -r line; exit 7'], { file: { ...ADMIN, outbound, drainTimeout: '10m' } });
  const [, admin = ''] = /"address":"([^"]+)"/.exec((await running.line(/"listener":"admin"/)).text) ?? [];
  const { page, complaints } = await openTab(await startBrowser(t));
  await page.goto(`http://${admin}/`);
  const panel = page.getByRole('region', { name: 'Application' });
  await panel.getByText('waits to be started').waitFor();

  api.setX509([anSvid()]);
  await panel.getByText('runs', { exact: true }).waitFor();
  assert.deepEqual(await violations(page), []);
  // It holds the drain up, and the page with it.
  const client = await dial(t, `unix://${socket}`);
  client.write('hello');
  await once(client, 'data');
  running.write('\n');

  await shows(page, 'The application does not run.');
  await shows(page, /\/bin\/sh ended by itself: exit code 7/);
  await panel.getByText('exit_code').waitFor();
  assert.deepEqual(await violations(page), []);
  assert.deepEqual(complaints, []);
  client.destroy();
  assert.equal((await running.exited).code, 7);
});

test('with the keyboard alone, everything can be reached', needs('chromium'), async (t) => {
  const { url, refuse } = await startStage(t);
  await refuse();
  const { page } = await openTab(await startBrowser(t));
  await page.goto(url);
  await shows(page, 'Every certificate works. One thing to look at.');
  await page.keyboard.press('Tab');
  assert.equal(await focused(page), 'To the content');
  await page.keyboard.press('Enter');
  assert.equal(await focused(page), 'Every certificate works. One thing to look at.');

  await tabTo(page, 'All refusals');
  await page.keyboard.press('Enter');
  await shows(page, 'Refused connections');
  assert.equal(await focused(page), 'Refusals');
  await tabTo(page, 'The rule that would allow it');
  await page.keyboard.press('Enter');
  await page.getByRole('button', { name: 'Copy rule' }).waitFor();
  await tabTo(page, 'Copy rule');
  await page.keyboard.press('Enter');
  await shows(page, /^(?:Copied|Select the text and copy it)$/);

  await page.reload();
  await shows(page, 'Refused connections');
  await tabTo(page, 'Connections');
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { level: 1, name: 'Connections' }).waitFor();
  await page.getByLabel('Find a SPIFFE ID').focus();
  // The page is drawn anew meanwhile, and must not take what is being typed.
  await page.keyboard.type('checkout', { delay: 300 });
  assert.equal(await page.getByLabel('Find a SPIFFE ID').inputValue(), 'checkout');
  await page.getByRole('table', { name: 'Peers' }).getByRole('link', { name: WEB }).waitFor({ state: 'detached' });
  await page.getByRole('table', { name: 'Peers' }).getByRole('link', { name: CHECKOUT }).waitFor();

  await page.reload();
  await tabTo(page, 'Auto');
  await page.keyboard.press('Enter');
  await page.keyboard.press('Enter');
  await eventually(async () => assert.equal(await page.evaluate('document.documentElement.dataset.theme'), 'dark'));
});

test('the heading of a certificate keeps the focus when what it heads comes', needs('chromium'), async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { api: [API] } });
  const inbound = [{ name: 'orders', listen: '127.0.0.1:0', to: '127.0.0.1:1', allow: [WEB] }];
  const sidecar = await startSidecar(t, { workloadApi: { endpoint: spiffe.endpoint('api') }, inbound, ...ADMIN });
  const { page } = await openTab(await startBrowser(t));
  const { promise: released, resolve: release } = Promise.withResolvers<void>();
  await page.route(/certificates\?id=/, async (route) => {
    await released;
    await route.continue();
  });
  await page.goto(`http://${sidecar.address('admin')}/#/certificates?kind=svid`);
  const link = page.getByRole('table', { name: 'Certificates' }).locator('a.mono');

  await tabTo(page, (await link.textContent()) ?? '');
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { level: 1, name: 'Certificate', exact: true }).waitFor();
  assert.equal(await focused(page), 'Certificate');

  release();
  await page.getByRole('heading', { level: 1, name: 'X.509-SVID', exact: true }).waitFor();
  assert.equal(await focused(page), 'X.509-SVID');
});

test('a question that failed is asked again, though nothing has changed', needs('chromium'), async (t) => {
  const { adminServer } = await createAdminParts();
  const address = await startService(t, adminServer());
  const { page } = await openTab(await startBrowser(t));
  let [failed, asked] = [0, 0];
  await page.route(/api\/v1\/refusals/, async (route) => {
    asked += 1;
    if (asked > 2) return route.continue();
    failed += 1;
    return asked === 1 ? route.abort() : route.fulfill({ status: 503, json: { error: 'no', detail: 'for a while' } });
  });

  await page.goto(`http://${formatAddress(address)}/#/refusals`);
  await shows(page, 'This could not be read. Scute does not answer.');
  await shows(page, 'This could not be read. for a while');
  await shows(page, 'Nobody has been refused since the start.');
  assert.deepEqual([failed, asked], [2, 3]);
});

test('what peers and clients choose is shown as text, and runs nothing', needs('chromium'), async (t) => {
  const { url, address, spiffe } = await startStage(t);
  const long = `spiffe://example.org/${'a.b-c_'.repeat(300)}`;
  const stranger = createTestAuthority({ subject: HOSTILE }).issue({ subject: HOSTILE, id: 'spiffe://example.org/claimed' });
  await outcome(tlsClient(t, address, { cert: stranger.chainPem, key: stranger.keyPem }));
  await outcome(tlsClient(t, address, presented(await spiffe.issue(long))));
  const browser = await startBrowser(t);

  for (const options of [DESKTOP, PHONE]) {
    const { page, complaints } = await openTab(browser, options);
    await page.goto(`${url}#/certificates?kind=refused`);
    await page.getByRole('table', { name: 'Certificates' }).getByRole('link').first().click();
    await shows(page, 'What it says');
    // As names are written: RFC 4514.
    assert.ok((await page.getByText('CN=\\<img src\\=x onerror\\=').count()) > 0);
    await page.goto(`${url}#/envoy`);
    await shows(page, `gateway ${HOSTILE}`);
    assert.ok((await page.getByText(HOSTILE, { exact: true }).count()) > 0);
    await page.goto(`${url}#/refusals`);
    await page.getByRole('link', { name: long }).click();
    await page.getByRole('heading', { level: 1, name: long }).waitFor();
    await assertFits(page);
    // In an address it may be anything, as a link of an attacker's.
    for (const hash of [
      `#/peers/${encodeURIComponent(HOSTILE)}`,
      `#/${HOSTILE}`,
      '#/peers/%E0%A4%A',
      '#/certificates/__proto__',
      '#/__proto__',
    ]) {
      await page.goto(`${url}${hash}`);
      await page.getByRole('heading', { level: 1 }).waitFor();
    }
    assert.equal(await page.locator('img').count(), 0);
    // The last is what the API says to a SPIFFE ID that nobody has.
    assert.deepEqual(complaints, []);
    await page.context().close();
  }
});

test('a page of another site can neither read the dashboard nor frame it, but may link to it', needs('chromium'), async (t) => {
  const { url, sidecar } = await startStage(t);
  const server = createServer((_, response) => {
    response
      .setHeader('content-type', 'text/html')
      .end(`<title>elsewhere</title><iframe src="${url}"></iframe><a href="${url}#/trust">Scute</a>`);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  const { page } = await openTab(await startBrowser(t));
  const refusedBefore = await sidecar.metric('scute_status_requests_refused_total', { reason: 'cross_site' });
  // By another name, it is another site, and not only another origin.
  await page.goto(`http://localhost:${(server.address() as AddressInfo).port}/`);

  const read = (path: string, mode: string): Promise<unknown> =>
    page.evaluate(
      `fetch(${JSON.stringify(url + path)}, { mode: ${JSON.stringify(mode)} }).then((r) => r.text()).then((t) => t.length, () => 'nothing')`,
    );
  for (const path of ['', 'dashboard.js', 'api/v1/overview', 'api/v1/stream', 'config_dump', 'policy'])
    for (const mode of ['cors', 'no-cors']) assert.ok([0, 'nothing'].includes((await read(path, mode)) as 0), `${path} ${mode}`);
  const heard = await page.evaluate(
    `new Promise((resolve) => { const s = new EventSource(${JSON.stringify(`${url}api/v1/stream`)}); s.onmessage = () => resolve('news'); s.onerror = () => resolve('nothing'); })`,
  );
  assert.equal(heard, 'nothing');
  const script = await page.evaluate(
    `new Promise((resolve) => { const s = document.createElement('script'); s.src = ${JSON.stringify(`${url}dashboard.js`)}; s.onload = () => resolve('loaded'); s.onerror = () => resolve('nothing'); document.head.append(s); })`,
  );
  assert.equal(script, 'nothing');
  const [, framed] = page.frames();
  assert.ok(framed !== undefined && !(await framed.content().catch(() => '')).includes('id="page"'));
  assert.ok((await sidecar.metric('scute_status_requests_refused_total', { reason: 'cross_site' })) > refusedBefore);

  await page.getByRole('link', { name: 'Scute' }).click();
  await page.getByRole('heading', { level: 1, name: 'Trust domains' }).waitFor();
});

test('among 10,000 connected peers, the page is there at once and finds one of them', needs('chromium'), async (t) => {
  const { adminServer, peers, sessions } = await createAdminParts();
  const address = await startService(t, adminServer());
  const url = `http://${formatAddress(address)}/`;
  const { page, complaints } = await openTab(await startBrowser(t));
  // What is bundled, and the browser's own first steps, are not what is measured.
  await page.goto(url);
  await shows(page, 'No SVID yet. This page shows it as soon as it comes.');
  sessions.push(...joinMany(peers, 10_000));
  const table = page.getByRole('table', { name: 'Peers' });

  const askedAt = performance.now();
  await page.goto(`${url}#/connections`);
  await page.reload();
  await table.getByRole('row').nth(50).waitFor();
  t.diagnostic(`the first 50 of 10,000 peers were there after ${Math.round(performance.now() - askedAt)} ms`);

  await table.getByText('spiffe://example.org/peer-9999', { exact: true }).waitFor();
  const older = page.getByRole('region', { name: 'Peers' }).getByRole('button', { name: 'Older' });
  await older.focus();
  await page.keyboard.press('Enter');
  await table.getByText('spiffe://example.org/peer-9949', { exact: true }).waitFor();
  assert.equal(await focused(page), 'Older', 'for who turns over once more');
  await page.getByLabel('Find a SPIFFE ID').fill('peer-4711');
  await table.getByText('spiffe://example.org/peer-4711', { exact: true }).waitFor();
  await table.getByText('spiffe://example.org/peer-9949', { exact: true }).waitFor({ state: 'detached' });
  assert.equal(await table.getByRole('row').count(), 2);
  assert.deepEqual(complaints, []);
});

test('when another version answers, the page says so, and is that version after a reload', needs('chromium'), async (t) => {
  const { adminServer, status } = await createAdminParts();
  const first = adminServer(LOOPBACK, { ...status, version: '1.0.0' });
  await first.start(AbortSignal.timeout(WITHIN_MS));
  t.after(() => first.stop(AbortSignal.abort()));
  const address = first.address();
  assert.ok(address !== undefined);
  const { page } = await openTab(await startBrowser(t));
  await page.goto(`http://${formatAddress(address)}/`);
  await shows(page, /^Scute 1\.0\.0/);

  await first.stop(AbortSignal.abort());
  await startService(t, adminServer({ ...LOOPBACK, listen: address }, { ...status, version: '2.0.0' }));
  await shows(page, /^Scute 2\.0\.0 answers now, and this page came from 1\.0\.0\./);

  await page.getByRole('button', { name: 'Reload' }).click();
  await page.getByText('answers now').waitFor({ state: 'detached' });
  await shows(page, /^Scute 2\.0\.0/);
});

test(
  'a seventeenth page asks again and again instead of listening, and shows the same',
  { ...needs('chromium'), timeout: 4 * WITHIN_MS },
  async (t) => {
    const { url, refuse } = await startStage(t);
    const taken = await Promise.all(
      Array.from({ length: 16 }, async () => {
        const leave = new AbortController();
        t.after(() => leave.abort());
        const { status, body } = await fetch(`${url}api/v1/stream`, { signal: leave.signal });
        assert.equal(status, 200);
        void body?.pipeTo(new WritableStream()).catch(() => {});
        return leave;
      }),
    );
    const { page } = await openTab(await startBrowser(t));
    await page.goto(url);
    await shows(page, 'As many pages listen as may. This one is refreshed every 5 s.');

    await refuse();
    await page.getByRole('region', { name: 'Refusals' }).getByText(STRANGER).first().waitFor();

    taken[0]?.abort();
    await page.getByText('As many pages listen as may.').waitFor({ state: 'detached' });
  },
);
