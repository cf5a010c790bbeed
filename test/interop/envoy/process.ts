import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { TestContext } from 'node:test';
import { startChild } from '../../support/child.ts';
import { eventually } from '../../support/eventually.ts';
import { part } from '../parts.ts';
import { freePort, temporaryFolder } from '../stage.ts';

export interface EnvoyProcess {
  /** The sum of the statistics whose names match. */
  stat(name: RegExp): Promise<number>;
  /** What the admin interface answers, whatever the status. */
  admin(path: string): Promise<string>;
  /** Envoy's own log. */
  log(): string;
  signal(signal: NodeJS.Signals): void;
  stop(): Promise<void>;
}

export const examplesFolder = fileURLToPath(new URL('../../../configs/envoy/', import.meta.url));

/** A bootstrap of `configs/envoy/`, with other addresses: each key of `replace` must be in it. */
export async function exampleBootstrap(name: string, replace: Readonly<Record<string, string>>): Promise<string> {
  return replaced(await readFile(join(examplesFolder, name), 'utf8'), replace);
}

export function replaced(bootstrap: string, replace: Readonly<Record<string, string>>): string {
  let text = bootstrap;
  for (const [from, to] of Object.entries(replace)) {
    assert.ok(text.includes(from), `${from} is not in the bootstrap`);
    text = text.replaceAll(from, to);
  }
  return text;
}

export interface EnvoyOptions {
  /** Wait until all listeners and clusters have what they need; that may be never. */
  readonly ready?: boolean;
}

/** Starts Envoy with a bootstrap in YAML, and ends it with the test. */
export async function startEnvoyProcess(t: TestContext, bootstrap: string, { ready = true }: EnvoyOptions = {}): Promise<EnvoyProcess> {
  const port = await freePort();
  const file = join(await temporaryFolder(t), 'envoy.yaml');
  await writeFile(file, `${bootstrap}\nadmin: { address: { socket_address: { address: 127.0.0.1, port_value: ${port} } } }\n`);
  const argv = ['-c', file, '--concurrency', '1', '--use-dynamic-base-id', '--log-level', 'info'] as const;
  const envoy = await startChild([part('envoy'), ...argv]);
  const stop = (): Promise<void> => envoy.stop({ withinMs: 3000 }).then(() => undefined);
  t.after(stop);
  const ended = envoy.exited.then(({ code }) => {
    throw new Error(`envoy ended with ${code}\n${envoy.stderr().slice(-3000)}`);
  });
  ended.catch(() => undefined);
  const admin = async (path: string): Promise<string> => (await fetch(`http://127.0.0.1:${port}${path}`)).text();
  const isUp = async (): Promise<void> => {
    const response = await fetch(`http://127.0.0.1:${port}${ready ? '/ready' : '/server_info'}`);
    const text = await response.text();
    assert.equal(response.status, 200, text);
  };
  await Promise.race([ended, eventually(isUp)]);
  return {
    admin,
    log: () => envoy.stderr(),
    signal: (signal) => envoy.signal(signal),
    stop,
    async stat(name) {
      const stats = await admin('/stats?usedonly');
      let sum = 0;
      for (const line of stats.split('\n')) {
        const [, key = '', value] = /^(\S+): (\d+)$/.exec(line) ?? [];
        if (name.test(key)) sum += Number(value);
      }
      return sum;
    },
  };
}
