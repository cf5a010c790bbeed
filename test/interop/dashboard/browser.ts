/** A real browser that looks at a dashboard. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import axe from 'axe-core';
import { chromium, type Browser, type BrowserContextOptions, type Page } from 'playwright-core';
import { part } from '../parts.ts';

/** Beyond it, what a page should show does not come any more: the machine may be busy. */
export const WITHIN_MS = 120_000;

/** Closed with the test. */
export async function startBrowser(t: TestContext): Promise<Browser> {
  const browser = await launchBrowser();
  t.after(() => browser.close());
  return browser;
}

export function launchBrowser(): Promise<Browser> {
  // Its sandbox is not for root.
  return chromium.launch({ executablePath: part('chromium'), chromiumSandbox: process.getuid?.() !== 0, timeout: WITHIN_MS });
}

export interface LookedAt {
  readonly page: Page;
  /** What the browser complained of: errors of scripts, and what the policy of the page did not let through. */
  readonly complaints: readonly string[];
}

export const DESKTOP = { viewport: { width: 1320, height: 900 } } as const;
export const PHONE = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true } as const;

/** A tab with nothing kept from others. */
export async function openTab(browser: Browser, options: BrowserContextOptions = DESKTOP): Promise<LookedAt> {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(WITHIN_MS);
  const page = await context.newPage();
  const complaints: string[] = [];
  page.on('pageerror', ({ message }) => complaints.push(message));
  page.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning') complaints.push(message.text());
  });
  page.on('dialog', (dialog) => {
    complaints.push(`a dialog: ${dialog.message()}`);
    void dialog.dismiss();
  });
  return { page, complaints };
}

/** What axe finds against the accessibility of the page as it is. */
export async function violations(page: Page): Promise<readonly string[]> {
  await page.evaluate(axe.source);
  const found = await page.evaluate('axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) => violations)');
  return (found as axe.Result[]).map(({ id, nodes }) => `${id}: ${nodes.map(({ target }) => target.join(' ')).join(', ')}`);
}

/** What has the focus, by its text. */
export function focused(page: Page): Promise<unknown> {
  return page.evaluate('document.activeElement.textContent');
}

/** Presses Tab until `text` has the focus, which must be seen. */
export async function tabTo(page: Page, text: string): Promise<void> {
  for (let presses = 0; presses < 200; presses++) {
    await page.keyboard.press('Tab');
    if ((await focused(page)) !== text) continue;
    assert.notEqual(await page.evaluate('getComputedStyle(document.activeElement).outlineStyle'), 'none');
    return;
  }
  assert.fail(`no way to ${text}`);
}

/** Nothing stands out of the page to the right. */
export async function assertFits(page: Page): Promise<void> {
  const [width, content] = await page.evaluate<[number, number]>('[innerWidth, document.documentElement.scrollWidth]');
  assert.ok(content <= width, `${content} of ${width} pixels at ${page.url()}`);
}
