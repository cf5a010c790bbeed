import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';

const SERVICE = join(import.meta.dirname, '../../../src/admin/http.ts');

/** In a process of its own, as the option is of the whole of it: what the listener, and a server of Node's, answer a field with a bad byte. */
const CHILD = `
  import { createServer } from 'node:http';
  import { connect } from 'node:net';
  const { createHttpService } = await import(${JSON.stringify(SERVICE)});
  const ask = (port) => new Promise((resolve, reject) => {
    let answer = '';
    const socket = connect(port, '127.0.0.1', () => socket.write('GET /livez HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\nX: a\\u0001b\\r\\nConnection: close\\r\\n\\r\\n'));
    socket.on('data', (chunk) => (answer += chunk));
    socket.on('close', () => resolve(answer.split('\\r\\n')[0]));
    socket.on('error', reject);
  });
  const node = createServer((_, response) => response.end()).listen(0, '127.0.0.1');
  await new Promise((resolve) => node.once('listening', resolve));
  const ours = createHttpService({
    name: 'test',
    socket: { listen: { kind: 'tcp', host: '127.0.0.1', port: 0 }, socketMode: 0o600, socketGid: undefined },
    allowedHosts: [],
    routes: { '/livez': { GET: () => ({ status: 200, body: 'ok' }) } },
  });
  await ours.start(AbortSignal.timeout(60_000));
  console.log(JSON.stringify([await ask(node.address().port), await ask(ours.address().port)]));
  process.exit(0);
`;

test('the listeners that are for status read requests strictly, whatever Node was told', async () => {
  const options = ['--insecure-http-parser', '--input-type=module', '--eval', CHILD];
  const { stdout } = await promisify(execFile)(process.execPath, options);

  assert.deepEqual(JSON.parse(stdout), ['HTTP/1.1 200 OK', 'HTTP/1.1 400 Bad Request']);
});
