import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { startChild } from '../support/child.ts';
import { eventually } from '../support/eventually.ts';
import { part } from './parts.ts';
import { freePort, temporaryFolder } from './stage.ts';

async function startProxy(t: TestContext, argv: readonly [string, ...string[]], port: number): Promise<void> {
  const proxy = await startChild(argv);
  t.after(() => proxy.stop({ withinMs: 3000 }).then(() => undefined));
  let ended: string | undefined;
  void proxy.exited.then(({ code }) => (ended = `${argv[0]} ended with ${code}: ${proxy.stderr()}`));
  await eventually(async () => {
    assert.equal(ended, undefined);
    await new Promise<void>((resolve, reject) => {
      const socket = connect({ port, host: '127.0.0.1' }, () => resolve(void socket.destroy()));
      socket.on('error', reject);
    });
  });
}

/** `bind` and `server` are what to add to either side, `frontend` further lines. */
export interface HaproxyOptions {
  readonly to: string;
  readonly bind?: string;
  readonly server?: string;
  readonly mode?: 'tcp' | 'http';
  readonly frontend?: readonly string[];
}

/** HAProxy on a free port, which this resolves to. */
export async function startHaproxy(t: TestContext, options: HaproxyOptions): Promise<number> {
  const { to, bind = '', server = '', mode = 'tcp', frontend = [] } = options;
  const port = await freePort();
  const file = join(await temporaryFolder(t), 'haproxy.cfg');
  const lines = [
    'global',
    '  nbthread 1',
    'defaults',
    `  mode ${mode}`,
    '  timeout connect 5s',
    '  timeout client 30s',
    '  timeout server 30s',
    'frontend in',
    `  bind 127.0.0.1:${port} ${bind}`,
    ...frontend.map((line) => `  ${line}`),
    '  default_backend out',
    'backend out',
    `  server out ${to} ${server}`,
  ];
  await writeFile(file, `${lines.join('\n')}\n`);
  await startProxy(t, [part('haproxy'), '-db', '-f', file], port);
  return port;
}

/** nginx as a web server or proxy: the directives of each `server`. */
export async function startNginx(t: TestContext, ...servers: readonly ((port: number) => readonly string[])[]): Promise<number> {
  const port = await freePort();
  const folder = await temporaryFolder(t);
  const file = join(folder, 'nginx.conf');
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `  ${name}_temp_path ${folder}/${name};`);
  const lines = [
    'daemon off;',
    'master_process off;',
    `pid ${folder}/nginx.pid;`,
    `error_log ${folder}/error.log warn;`,
    'events { worker_connections 64; }',
    'http {',
    '  access_log off;',
    ...temporary,
    ...servers.flatMap((directives) => ['  server {', ...directives(port).map((line) => `    ${line}`), '  }']),
    '}',
  ];
  await writeFile(file, `${lines.join('\n')}\n`);
  await startProxy(t, [part('nginx'), '-p', folder, '-e', join(folder, 'error.log'), '-c', file], port);
  return port;
}
