import assert from 'node:assert/strict';
import { test } from 'node:test';
import { buildShipped, shipped } from '../../bench/peers/scute.ts';
import type { CertificateFiles } from '../../bench/peer.ts';
import { API, WEB } from '../support/data-path.ts';
import { startChild } from '../support/child.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

const MINUTES_MS = 60_000;

test('each form of which the benchmark measures the start is one that starts', async (t) => {
  await buildShipped();
  const agent = 'unix:///nonexistent/agent.sock';
  // No file of theirs is read: Scute has its certificates from the agent.
  const certificates = { serverId: API, clientId: WEB, serverWorkloadApi: agent, clientWorkloadApi: agent } as CertificateFiles;
  for (const form of shipped) {
    const directory = await temporaryFolder(t);
    const { argv } = form.prepare({
      direction: 'inbound',
      port: 0,
      protocol: 'http',
      http2: false,
      to: '127.0.0.1:9',
      directory,
      certificates,
    });
    await using child = await startChild(argv);
    const { text } = await child.line(/"listener":"inbound"/, { withinMs: 5 * MINUTES_MS });
    assert.match(text, /"address":"127\.0\.0\.1:\d+"/, form.name);
    child.signal('SIGTERM');
    assert.equal((await child.exited).code, 0, child.stderr());
  }
});
