import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import type { TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { startChild } from './child.ts';

const LISTEN = `
  const server = require('node:net').createServer((socket) => {
    socket.on('error', () => {});
    socket.on('data', (chunk) => process.stdout.write(JSON.stringify(chunk.toString('latin1')) + '\\n'));
  });
  server.listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => {
    process.stdout.write(server.address().port + '\\n');
    setImmediate(() => process.kill(process.pid, 'SIGSTOP'));
  });
`;

/** The port of a listener on 127.0.0.1 that accepts nothing and has no room for more: connecting takes for ever. */
export async function fillBacklog(t: TestContext): Promise<number> {
  return (await startFullBacklog(t)).port;
}

export interface FullBacklog {
  readonly port: number;
  /** Has it accept all the same, and answer nothing. */
  readonly accept: () => void;
  /** The first bytes from then on in which there is `text`. */
  readonly received: (text: RegExp) => Promise<string>;
}

/** Such a listener, which may accept later. */
export async function startFullBacklog(t: TestContext): Promise<FullBacklog> {
  // A process that is stopped: Node itself always accepts.
  const child = await startChild([process.execPath, '-e', LISTEN]);
  t.after(() => {
    child.signal('SIGKILL');
    return child.exited;
  });
  const port = Number((await child.line(/^\d+$/)).text);
  const held: Socket[] = [];
  t.after(() => {
    for (const socket of held) socket.destroy();
  });
  // On a busy machine one connection may be slow for other reasons, so several must hang.
  for (let hanging = 0; hanging < 3;) {
    const socket = connect({ port, host: '127.0.0.1' });
    socket.on('error', () => undefined);
    held.push(socket);
    const opened = await Promise.race([once(socket, 'connect').then(() => true), delay(150, false)]);
    hanging = opened ? 0 : hanging + 1;
  }
  const received = async (text: RegExp): Promise<string> => String(JSON.parse((await child.line(text)).text));
  return { port, accept: () => child.signal('SIGCONT'), received };
}
