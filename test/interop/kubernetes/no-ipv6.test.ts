import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { presented } from '../../support/data-path.ts';
import { startChild } from '../../support/child.ts';
import { startDevDomain } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { startEcho } from '../../support/tcp.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import { outcome, tlsClient } from '../../support/tls-peer.ts';
import { needs, part, pythonPrograms } from '../parts.ts';
import { freePort } from '../stage.ts';

const MAIN = join(import.meta.dirname, '../../../dist/scute.js');

test(
  'where the kernel has no IPv6, every address is 0.0.0.0, and an address of IPv6 that is named is an error',
  needs('python'),
  async (t) => {
    const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { api: ['spiffe://example.org/api'] } });
    const folder = await temporaryFolder(t);
    const echo = await startEcho(t);
    const [listen, metrics] = [await freePort(), await freePort()];
    const configure = async (host: string): Promise<string> => {
      const file = join(folder, 'scute.yaml');
      const config = {
        workloadApi: { endpoint: spiffe.endpoint('api') },
        inbound: [{ name: 'api', listen: `${host}:${listen}`, to: echo.address, allow: ['spiffe://example.org/web'] }],
        metrics: { listen: `[::]:${metrics}` },
      };
      await writeFile(file, JSON.stringify(config));
      return file;
    };
    const run = (file: string) =>
      startChild([part('python'), join(pythonPrograms, 'no_ipv6.py'), process.execPath, '--disable-sigusr1', MAIN, 'run', '-c', file], {
        env: { PATH: process.env['PATH'] ?? '' },
      });

    await using scute = await run(await configure('[::]'));
    await scute.line(/"address":"0\.0\.0\.0:\d+".*"listening"/);
    await eventually(async () => assert.equal((await fetch(`http://127.0.0.1:${metrics}/readyz`)).status, 200));
    const socket = tlsClient(t, `127.0.0.1:${listen}`, presented(await spiffe.issue('spiffe://example.org/web')));
    socket.end('hello');
    assert.equal((await outcome(socket)).text, 'hello');
    await scute.stop();

    await using other = await run(await configure('[::1]'));
    const { code } = await other.exited;
    assert.equal(code, 1);
    assert.match(other.stderr(), /EAFNOSUPPORT/);
  },
);
