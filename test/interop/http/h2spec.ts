import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { runChild } from '../../support/child.ts';
import type { startDevDomain } from '../../support/dev-domain.ts';
import { part } from '../parts.ts';
import { startHaproxy } from '../proxies.ts';
import { issueFiles, temporaryFolder } from '../stage.ts';

/** What h2spec says of a listener, as the peer `who`: its sum, and all of its failures. */
export async function runH2spec(
  t: TestContext,
  spiffe: Awaited<ReturnType<typeof startDevDomain>>,
  who: string,
  address: string,
): Promise<{ readonly sum: string; readonly failures: string }> {
  const files = await issueFiles(t, spiffe, who);
  const both = join(await temporaryFolder(t), 'both.pem');
  await writeFile(both, (await readFile(files.chain, 'utf8')) + (await readFile(files.key, 'utf8')), { mode: 0o600 });
  // It has no client certificate of its own.
  const port = await startHaproxy(t, { to: address, server: `ssl crt ${both} ca-file ${files.authorities} verify required alpn h2` });
  const { stdout } = await runChild([part('h2spec'), '-h', '127.0.0.1', '-p', String(port), '-o', '2'], { withinMs: 500_000 });
  const sum = /^145 tests, \d+ passed, \d+ skipped, \d+ failed$/m.exec(stdout)?.[0] ?? stdout;
  return { sum, failures: stdout.slice(stdout.indexOf('Failures:')) };
}
