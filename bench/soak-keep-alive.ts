/**
 * `npm run soak:keep-alive`: 100,000 idempotent requests through two sidecars, outbound and inbound, each at the moment in which
 * the application closes the connection that it would come on. None may fail. Besides, a POST for every ten of them: of these
 * some fail, and none may be seen twice. Exit code 1 if not.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { Agent, request, type RequestOptions } from 'node:http';
import { createServer, type AddressInfo, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { startIdentities } from './certificates.ts';
import { freePort } from './process.ts';

const { values } = parseArgs({
  options: {
    requests: { type: 'string', default: '100000' },
    clients: { type: 'string', default: '100' },
    /** After which the application closes a connection. */
    idle: { type: 'string', default: '25' },
    /** What is set for `upstreamIdleTimeout`: `off` leaves all to the repair, a shorter time than `idle` avoids most. */
    timeout: { type: 'string', default: 'off' },
  },
});
const clients = Number(values.clients);
const each = Math.ceil(Number(values.requests) / clients);
const idleMs = Number(values.idle);
const METHODS = ['GET', 'PUT', 'HEAD', 'DELETE', 'OPTIONS'] as const;
const BODY = 'x'.repeat(1000);

/** How often each POST was seen, however little of it. */
const posts = new Map<string, number>();
let closedUnder = 0;

/** Closes each connection after its idle time, now in order and now with a reset, and counts those on which a request was by then. */
function serve(socket: Socket): void {
  let text = '';
  let timer: NodeJS.Timeout | undefined;
  const close = (): void => {
    if (Math.random() < 0.5) socket.end();
    else socket.resetAndDestroy();
  };
  socket.setNoDelay(true);
  socket.on('error', () => undefined);
  socket.on('close', () => clearTimeout(timer));
  socket.on('end', () => socket.end());
  socket.on('data', (chunk: Buffer) => {
    const [, post] = /^POST (\S+)/.exec(chunk.toString('latin1')) ?? [];
    if (post !== undefined) posts.set(post, (posts.get(post) ?? 0) + 1);
    if (socket.writableEnded || socket.destroyed) {
      closedUnder++;
      return;
    }
    text += chunk.toString('latin1');
    const end = text.indexOf('\r\n\r\n');
    if (end === -1 || text.length < end + 4 + Number(/content-length: (\d+)/i.exec(text)?.[1] ?? 0)) return;
    clearTimeout(timer);
    socket.write(`HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n${text.startsWith('HEAD') ? '' : 'ok'}`);
    text = '';
    timer = setTimeout(close, idleMs);
  });
}

/** The status, or the error. */
function ask(options: RequestOptions, body: string | undefined): Promise<number | string> {
  return new Promise((resolve) => {
    const sent = request(options, (response) => {
      response.on('error', (error) => resolve(error.message));
      response.resume().on('end', () => resolve(response.statusCode ?? 0));
    });
    sent.on('error', (error) => resolve(error.message));
    sent.end(body);
  });
}

function counted(metrics: string, series: RegExp): number {
  return metrics
    .split('\n')
    .filter((line) => series.test(line))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0);
}

const directory = mkdtempSync(join(tmpdir(), 'scute-soak-'));
const ending: (() => Promise<unknown> | void)[] = [() => rmSync(directory, { recursive: true, force: true })];
try {
  const identities = await startIdentities(directory);
  ending.unshift(() => identities.stop());
  const { serverWorkloadApi, clientWorkloadApi, serverId, clientId } = identities.certificates;
  const application = createServer({ allowHalfOpen: true }, serve).listen(0, '127.0.0.1');
  await once(application, 'listening');
  ending.unshift(() => void application.close());
  const [inbound, outbound, ...metrics] = await Promise.all(Array.from({ length: 4 }, freePort));
  const http = { upstreamIdleTimeout: values.timeout };
  const to = `127.0.0.1:${(application.address() as AddressInfo).port}`;
  const listeners = [
    {
      workloadApi: { endpoint: serverWorkloadApi },
      inbound: [{ listen: `127.0.0.1:${inbound}`, to, allow: [clientId], protocol: 'http', http }],
    },
    {
      workloadApi: { endpoint: clientWorkloadApi },
      outbound: [{ listen: `127.0.0.1:${outbound}`, to: `127.0.0.1:${inbound}`, expect: [serverId], protocol: 'http', http }],
    },
  ];
  for (const [index, listener] of listeners.entries()) {
    const file = join(directory, `${index}.yaml`);
    const errors = join(directory, `${index}.log`);
    writeFileSync(file, JSON.stringify({ ...listener, metrics: { listen: `127.0.0.1:${metrics[index]}` } }));
    const child = spawn(process.execPath, ['--disable-sigusr1', join(import.meta.dirname, '../src/main.ts'), 'run', '-c', file], {
      stdio: ['ignore', openSync('/dev/null', 'w'), openSync(errors, 'w')],
      env: { PATH: process.env['PATH'] },
    });
    const exited = once(child, 'exit');
    ending.unshift(async () => {
      child.kill('SIGTERM');
      await exited;
      process.stderr.write(readFileSync(errors, 'utf8'));
    });
  }
  for (const port of metrics) {
    while ((await ask({ port, path: '/readyz' }, undefined)) !== 200) await wait(50);
  }

  const failures = new Map<string, number>();
  let failedPosts = 0;
  const begin = performance.now();
  await Promise.all(
    Array.from({ length: clients }, async (_, client) => {
      const agent = new Agent({ keepAlive: true, maxSockets: 1 });
      const options = { agent, host: '127.0.0.1', port: outbound };
      for (let number = 0; number < each; number++) {
        const method = METHODS[number % METHODS.length] ?? 'GET';
        const answer = await ask({ ...options, method, path: `/${client}-${number}` }, method === 'PUT' ? BODY : undefined);
        if (answer !== 200) failures.set(`${method}: ${answer}`, (failures.get(`${method}: ${answer}`) ?? 0) + 1);
        await wait(idleMs + Math.random() * 4 - 2);
        if (number % 10 !== 0) continue;
        if ((await ask({ ...options, method: 'POST', path: `/post-${client}-${number}` }, BODY)) !== 200) failedPosts++;
        await wait(idleMs + Math.random() * 4 - 2);
      }
      agent.destroy();
    }),
  );

  const seconds = Math.round((performance.now() - begin) / 1000);
  const texts = await Promise.all(metrics.map(async (port) => (await fetch(`http://127.0.0.1:${port}/metrics`)).text()));
  const [retriesIn = 0, retriesOut = 0] = texts.map((text) => counted(text, /^scute_http_retries_total\{/));
  const failed = [...failures.values()].reduce((sum, count) => sum + count, 0);
  const twice = [...posts.values()].filter((times) => times > 1).length;
  process.stdout.write(
    `${each * clients} idempotent requests in ${seconds} s, ${closedUnder} on connections that were closed by then: ${failed} failed; ` +
      `sent once more: ${retriesIn} inbound, ${retriesOut} outbound\n` +
      `${clients * Math.ceil(each / 10)} POST requests: ${failedPosts} failed, ${twice} were seen twice\n`,
  );
  for (const [what, count] of failures) process.stderr.write(`${what} (${count})\n`);
  process.exitCode = failed === 0 && twice === 0 ? 0 : 1;
} finally {
  for (const end of ending) await end();
}
