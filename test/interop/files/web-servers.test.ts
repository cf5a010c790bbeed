import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { startChild } from '../../support/child.ts';
import { eventually } from '../../support/eventually.ts';
import { needs, part } from '../parts.ts';
import { freePort } from '../stage.ts';
import { rotateUnderLoad, startFilesStage, visit } from './rotations.ts';

const HTTP = { ask: 'GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n', answer: 'hello' };
/**
 * As the command in docs/reference/files.md. A reload makes the master execute itself twice, and ignore SIGUSR2 for a moment each time, so that one that
 * comes meanwhile is gone, though it was held back. Its socket refuses or resets whoever comes then: only a master that answered has heard.
 */
const ASK_FOR_RELOAD = `
  let said = '';
  const master = require('node:net').connect(process.argv[1]).setEncoding('utf8');
  master.on('data', (chunk) => (said += chunk)).on('close', () => process.exit(said.includes('master') ? 0 : 1));
  master.end('show proc; reload\\n');`;

test('nginx takes 100 rotations by SIGHUP, and no client fails', needs('nginx'), async (t) => {
  const stage = await startFilesStage(t);
  const { folder, directory } = stage;
  const pidFile = join(folder, 'nginx.pid');
  await stage.startWriter({ notify: [{ pidFile }] });
  const port = await freePort();
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${folder}/${name};`);
  const lines = [
    ...(process.getuid?.() === 0 ? ['user root;'] : []),
    'daemon off; worker_processes 1;',
    `pid ${pidFile}; error_log stderr notice;`,
    'events { worker_connections 256; }',
    `http { access_log off; ${temporary.join(' ')}`,
    `server { listen 127.0.0.1:${port} ssl; ssl_certificate ${directory}/svid.pem; ssl_certificate_key ${directory}/svid_key.pem;`,
    'location / { return 200 "hello"; } } }',
  ];
  await writeFile(join(folder, 'nginx.conf'), lines.join('\n'));
  const nginx = await startChild([part('nginx'), '-p', folder, '-c', join(folder, 'nginx.conf')]);
  t.after(() => nginx.stop({ signal: 'SIGQUIT' }).then(() => undefined));
  await eventually(async () => visit(port, await bundle(stage.directory), {}, HTTP));

  await rotateUnderLoad(stage, (ca) => visit(port, ca, {}, HTTP));
});

test('HAProxy takes 100 rotations of key and chain in one file by its CLI, and no client fails', needs('haproxy'), async (t) => {
  const stage = await startFilesStage(t);
  const { folder, directory } = stage;
  const master = join(folder, 'haproxy-master.sock');
  await stage.startWriter({ combined: true, notify: [{ command: [process.execPath, '--eval', ASK_FOR_RELOAD, master] }] });
  const port = await freePort();
  const lines = [
    'global',
    '  nbthread 1',
    `  stats socket ${folder}/haproxy.sock mode 600 expose-fd listeners level admin`,
    'defaults',
    '  mode http',
    '  timeout connect 5s',
    '  timeout client 30s',
    '  timeout server 30s',
    'frontend in',
    `  bind 127.0.0.1:${port} ssl crt ${directory}/svid.pem`,
    '  http-request return status 200 content-type text/plain string "hello"',
    '',
  ];
  await writeFile(join(folder, 'haproxy.cfg'), lines.join('\n'));
  const haproxy = await startChild([part('haproxy'), '-W', '-db', '-S', `unix@${master}`, '-f', join(folder, 'haproxy.cfg')]);
  t.after(() => haproxy.stop().then(() => undefined));
  await eventually(async () => visit(port, await bundle(directory), {}, HTTP));

  await rotateUnderLoad(stage, (ca) => visit(port, ca, {}, HTTP));
});

async function bundle(directory: string): Promise<string> {
  const { readFile } = await import('node:fs/promises');
  return readFile(join(directory, 'svid_bundle.pem'), 'utf8');
}
