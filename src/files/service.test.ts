import assert from 'node:assert/strict';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { eventually } from '../../test/support/eventually.ts';
import { folderInMemory, setOf } from '../../test/support/files/files.ts';
import { createTestAuthority } from '../../test/support/pki/pki.ts';
import { heldSnapshot, svidOf } from '../../test/support/pki/snapshots.ts';
import type { FileSetConfig, JwtFileConfig } from '../config/file-sets.ts';
import { createIdentityStore } from '../identity/store.ts';
import { systemClock } from '../lib/clock.ts';
import { createEvents } from '../telemetry/events/events.ts';
import { createLogger } from '../telemetry/log/logger.ts';
import { createMetrics } from '../telemetry/metrics/metrics.ts';
import { createFilesService } from './service.ts';
import type { WatchedJwt } from './set.ts';

const SETS = 8;
const RENEWALS = 40;
/** So that each takes a while to be written. */
const PADDING = 'x'.repeat(500_000);

test('sets in one directory, as those of spiffe-helper are, do not get in the way of each other, however often each is replaced', async (t) => {
  const { folder, unsafeDisk } = await folderInMemory(t);
  const directory = join(folder, 'certs');
  await mkdir(directory);
  const names = Array.from({ length: SETS }, (_, index) => `token-${index}`);
  const sets = names.map((fileName): FileSetConfig => {
    const jwtSvids = [{ fileName, audience: ['partner'] }];
    return { ...setOf({ name: fileName, directory, unsafeDisk, layout: 'flat', x509: false, jwtSvids }), anyDirectory: true };
  });
  const values = new Map<string, { readonly value: string; readonly expiresAtMs: number }>();
  const listeners = new Map<string, () => void>();
  const renew = (name: string, number: number): void => {
    values.set(name, { value: `${name} ${number} ${PADDING}`, expiresAtMs: Date.now() + 3_600_000 });
    listeners.get(name)?.();
  };
  const tokenOf = ({ fileName }: JwtFileConfig): WatchedJwt => ({
    current: () => values.get(fileName),
    problem: undefined,
    subscribe(changed) {
      listeners.set(fileName, changed);
      return () => listeners.delete(fileName);
    },
  });
  for (const name of names) renew(name, 0);
  const { view, publisher } = createIdentityStore();
  const authority = createTestAuthority();
  publisher.publish(heldSnapshot([svidOf(authority, 'spiffe://example.org/web')], [authority]));
  const lines: string[] = [];
  const { logger } = await createLogger({ level: 'info', format: 'json', destination: { write: (line) => void lines.push(line) } });
  const { files: events } = createEvents({ logger, metrics: createMetrics({ version: '0' }), clock: systemClock });
  const service = createFilesService({ sets, identity: view, tokenOf, events, clock: systemClock, random: Math.random });
  await service.start(new AbortController().signal);
  t.after(() => service.stop(AbortSignal.abort()));

  for (let number = 1; number <= RENEWALS; number += 1)
    for (const name of names) {
      renew(name, number);
      await readFile(join(directory, name)).catch(() => undefined);
    }

  await eventually(async () => {
    for (const name of names) assert.ok((await readFile(join(directory, name), 'utf8')).startsWith(`${name} ${RENEWALS} `));
  });
  assert.deepEqual(
    lines.filter((line) => line.includes('files not replaced')),
    [],
  );
});
