/**
 * `npm run screenshots`: pictures of the dashboard of the demonstration into `docs/images`, with Debian's Chromium. They are looked at by
 * people; tests compare nothing with them.
 */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Page } from 'playwright-core';
import { startChild } from '../support/child.ts';
import { DESKTOP, launchBrowser, openTab, PHONE } from './browser.ts';

const root = join(import.meta.dirname, '..', '..');
const FOLDER = join(root, 'docs', 'images');
/** So that there are rotations to be seen, and curves. */
const RUNS_FOR_MS = 135_000;
const CURVES_MS = 25_000;

/** The name of the file, where it is, and what is done before. */
interface Picture {
  readonly name: string;
  readonly hash: string;
  readonly colorScheme: 'light' | 'dark';
  readonly isPhone?: boolean;
  readonly prepare?: (page: Page) => Promise<unknown>;
}

const openRule = (page: Page): Promise<unknown> => page.getByText('The rule that would allow it').first().click();
const PICTURES: readonly Picture[] = [
  { name: 'overview-light', hash: '#/', colorScheme: 'light', prepare: () => sleep(CURVES_MS) },
  { name: 'overview-dark', hash: '#/', colorScheme: 'dark', prepare: () => sleep(CURVES_MS) },
  { name: 'overview-phone-light', hash: '#/', colorScheme: 'light', isPhone: true },
  { name: 'overview-phone-dark', hash: '#/', colorScheme: 'dark', isPhone: true },
  { name: 'certificates-light', hash: '#/certificates', colorScheme: 'light' },
  {
    name: 'certificate-dark',
    hash: '#/certificates?kind=svid',
    colorScheme: 'dark',
    prepare: (page) => page.locator('td a.mono').first().click(),
  },
  { name: 'trust-light', hash: '#/trust', colorScheme: 'light' },
  { name: 'connections-dark', hash: '#/connections', colorScheme: 'dark' },
  { name: 'connections-phone-light', hash: '#/connections', colorScheme: 'light', isPhone: true },
  { name: 'refusals-light', hash: '#/refusals', colorScheme: 'light', prepare: openRule },
  { name: 'policy-dark', hash: '#/policy', colorScheme: 'dark', prepare: openRule },
  { name: 'time-light', hash: '#/time', colorScheme: 'light' },
];

await mkdir(FOLDER, { recursive: true });
await using demo = await startChild([process.execPath, '--disable-sigusr1', join(root, 'src/main.ts'), 'demo'], {
  env: { PATH: process.env['PATH'] ?? '', TMPDIR: process.env['TMPDIR'] ?? '/tmp' },
});
await demo.line(/^READY/);
const [, url = ''] = /^Dashboard: (\S+)$/.exec((await demo.line(/^Dashboard: /)).text) ?? [];
console.log(`the demonstration runs for ${RUNS_FOR_MS / 1000} s before its picture is taken`);
await sleep(RUNS_FOR_MS);
const browser = await launchBrowser();
for (const { name, hash, colorScheme, isPhone = false, prepare } of PICTURES) {
  const { page } = await openTab(browser, { ...(isPhone ? PHONE : DESKTOP), colorScheme });
  await page.goto(url + hash);
  await page.getByRole('heading', { level: 1 }).waitFor();
  await prepare?.(page);
  await sleep(1500);
  // What is further down says the same of other things, and pictures should be small.
  const { width } = (isPhone ? PHONE : DESKTOP).viewport;
  const content = await page.evaluate<number>('document.documentElement.scrollHeight');
  const height = Math.min(content, isPhone ? 1500 : 1040);
  await page.screenshot({ path: join(FOLDER, `${name}.png`), fullPage: true, clip: { x: 0, y: 0, width, height } });
  console.log(name);
  await page.context().close();
}
await browser.close();
