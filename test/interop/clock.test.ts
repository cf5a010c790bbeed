import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { parseAddress } from '../../src/config/units.ts';
import { runChild, startChild } from '../support/child.ts';
import { eventually } from '../support/eventually.ts';
import { ask } from '../support/http/http.ts';
import { needs, part } from './parts.ts';

const main = join(import.meta.dirname, '../../src/main.ts');

// OpenSSL reads the clock of the system itself, which no test can set: libfaketime lies to the whole process.
for (const date of ['1970-01-01 00:00:01', '2100-01-01 00:00:00'])
  test(`a machine whose clock says ${date} passes the self-test at the start`, needs('faketime'), async () => {
    const flags = ['--metrics', '127.0.0.1:0', '--workload-api', 'unix:///nonexistent/agent.sock'];
    const listener = ['--inbound', '127.0.0.1:0', '--to', '127.0.0.1:8080', '--allow', 'spiffe://example.org/web'];
    // The program itself would stand between us and what it starts, and not pass SIGTERM on.
    const { stdout } = await runChild([part('faketime'), '-f', '+0', 'printenv', 'LD_PRELOAD']);
    await using child = await startChild([process.execPath, '--disable-sigusr1', main, 'run', ...flags, ...listener], {
      env: { TZ: 'UTC', LD_PRELOAD: stdout.trim(), FAKETIME: `@${date}`, FAKETIME_DONT_FAKE_MONOTONIC: '1' },
    });
    const { text } = await child.line(/"listener":"metrics"/, { withinMs: 60_000 });
    const { time, address } = JSON.parse(text) as { readonly time: string; readonly address: string };

    assert.equal(time.slice(0, 4), date.slice(0, 4));
    const metrics = parseAddress(address);
    assert.ok(metrics.ok);
    await eventually(async () => assert.match((await ask(metrics.value, '/readyz?verbose')).body, /\[\+\]self_test ok/));
  });
