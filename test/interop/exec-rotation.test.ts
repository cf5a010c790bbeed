/** Real processes in real time: an application that is started anew at a rotation, and one that is there before the agent. */
import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { API, WEB } from '../support/data-path.ts';
import { anSvid, aPeer, startExecStage } from '../support/exec-stage.ts';
import { folderInMemory } from '../support/files/files.ts';
import { wire } from '../support/http/http-stage.ts';
import { createTestAuthority } from '../support/pki/pki.ts';
import { useScute } from '../support/scute-process.ts';
import { dial } from '../support/tcp.ts';
import { tlsClient, tlsServer } from '../support/tls-peer.ts';
import { FakeWorkloadApi, svidEntry } from '../support/workload-api.ts';

/** How late the agent is. */
const LATE_MS = 5000;

test('an application that reads files is started when they are there, and anew when those of the next SVID are', async (t) => {
  const { api, exec } = await startExecStage(t, { early: true });
  const { folder, unsafeDisk } = await folderInMemory(t);
  const directory = join(folder, 'web');
  const serial = async (): Promise<string> => new X509Certificate(await readFile(join(directory, 'svid.pem'))).serialNumber.toLowerCase();
  const look = `
    process.on('SIGTERM', () => process.exit(5));
    const { X509Certificate } = require('node:crypto');
    console.log('serial ' + new X509Certificate(require('node:fs').readFileSync(process.argv[1])).serialNumber.toLowerCase());
    setInterval(() => {}, 1000);
  `;
  const running = await exec([process.execPath, '--eval', look, join(directory, 'svid.pem')], {
    settings: { restartOnRotation: true },
    file: { files: [{ name: 'web', directory, unsafeDisk }] },
  });
  api.setX509([anSvid()]);
  const first = await running.line(/^serial /);
  const before = await serial();
  assert.equal(first.text, `serial ${before}`);

  api.setX509([anSvid()]);

  const second = await running.line(/^serial /, { after: first.next });
  assert.notEqual(second.text, first.text);
  assert.equal(second.text, `serial ${await serial()}`);
  running.signal('SIGTERM');
  assert.equal((await running.exited).code, 5);
});

test('what is under way through Scute is finished by the application that is asked to end; what comes later is for the next', async (t) => {
  const { api, exec, folder } = await startExecStage(t);
  const socket = join(folder, 'application.sock');
  const serve = `
    const { rmSync } = process.getBuiltinModule('node:fs');
    rmSync(process.argv[1], { force: true });
    const { createServer } = process.getBuiltinModule('node:net');
    const server = createServer((peer) => peer.on('error', () => {}).on('data', () => peer.write(process.pid + ';')));
    // Ends when what is open has ended.
    process.on('SIGTERM', () => { server.close(); console.log('asked ' + process.pid); });
    server.listen(process.argv[1], () => console.log('serves ' + process.pid));
  `;
  const running = await exec([process.execPath, '--eval', serve, socket], {
    settings: { restartOnRotation: true, stopTimeout: '10m' },
    file: { inbound: [{ name: 'in', listen: '127.0.0.1:0', to: `unix://${socket}`, allow: [WEB] }] },
  });
  const { text: first, next } = await running.line(/^serves /);
  const [, address = ''] = /"listener":"in","address":"([^"]+)"/.exec((await running.line(/"listener":"in"/)).text) ?? [];
  const talk = async (client: ReturnType<typeof tlsClient>): Promise<string> => {
    client.write('?');
    const [said] = (await once(client, 'data')) as [Buffer];
    return said.toString();
  };
  const early = tlsClient(t, address, aPeer(WEB));
  const pid = await talk(early);
  assert.equal(first, `serves ${pid.replace(';', '')}`);

  api.setX509([anSvid()]);
  await running.line(/^asked /);
  assert.equal(await talk(early), pid, 'it has all the time that it needs');
  early.end();
  const { text: second } = await running.line(/^serves /, { after: next });
  assert.notEqual(second, first);
  const late = tlsClient(t, address, aPeer(WEB));
  assert.equal(`serves ${await talk(late)}`, `${second};`);

  late.end();
  running.signal('SIGTERM');
  assert.equal((await running.exited).code, 0);
});

test('the first request of an application that is there five seconds before the agent does not fail', async (t) => {
  await using api = await FakeWorkloadApi.prepare();
  const authority = createTestAuthority();
  const { chainPem, keyPem } = authority.issue({ id: API });
  const server = await tlsServer(t, { cert: chainPem, key: keyPem }, (socket) => {
    socket.on('data', () => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok'));
  });
  const scute = await useScute(t, {
    config: {
      workloadApi: { endpoint: api.endpoint },
      outbound: [{ name: 'out', listen: '127.0.0.1:0', to: server.address, expect: [API], protocol: 'http' }],
    },
  });
  const first = wire(await dial(t, await scute.address('out')));
  first.socket.write('GET / HTTP/1.1\r\nHost: api\r\n\r\n');

  // In real time: this is what the agent does.
  await delay(LATE_MS);
  api.setX509([svidEntry(authority, authority.issue({ id: WEB }), WEB)]);
  await api.listen();

  assert.match(await first.until(/\r\n\r\n[^]+/), /^HTTP\/1\.1 200 OK\r\n[^]*ok$/);
});
