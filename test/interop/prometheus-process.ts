import { dirname, join } from 'node:path';
import type { TestContext } from 'node:test';
import { startChild } from '../support/child.ts';
import { part } from './parts.ts';
import { freePort } from './stage.ts';

/** Prometheus with this configuration, and its data beside that. Resolves to its address when it answers; ends with the test. */
export async function startPrometheusWith(t: TestContext, file: string): Promise<string> {
  const address = `127.0.0.1:${await freePort()}`;
  const prometheus = await startChild([
    part('prometheus'),
    `--config.file=${file}`,
    `--storage.tsdb.path=${join(dirname(file), 'data')}`,
    `--web.listen-address=${address}`,
  ]);
  t.after(() => prometheus.stop().then(() => undefined));
  await prometheus.line(/Server is ready to receive web requests/);
  return address;
}
