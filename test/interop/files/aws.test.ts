import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createServer, request } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { startChild } from '../../support/child.ts';
import { eventually } from '../../support/eventually.ts';
import { folderInMemory } from '../../support/files/files.ts';
import { startSidecar } from '../../support/sidecar.ts';
import { startJwtAgent } from '../../support/tokens/jwt-agent.ts';
import { SUBJECT, testKey } from '../../support/tokens/tokens.ts';
import { needs, part, pythonPrograms } from '../parts.ts';
import { freePort } from '../stage.ts';

const ROLE = 'arn:aws:iam::123456789012:role/orders';

/** moto, an AWS in one process, and before it a server that notes the tokens which are shown for a role. */
async function startAws(t: TestContext): Promise<{ readonly endpoint: string; readonly shown: readonly string[] }> {
  const port = await freePort();
  const moto = await startChild([part('moto'), '-H', '127.0.0.1', '-p', String(port)]);
  t.after(() => moto.stop().then(() => undefined));
  await moto.line(/Running on/);
  const shown: string[] = [];
  const server = createServer((incoming, response) => {
    const chunks: Buffer[] = [];
    incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
    incoming.on('end', () => {
      const body = Buffer.concat(chunks);
      const asked = new URLSearchParams(body.toString());
      if (asked.get('Action') === 'AssumeRoleWithWebIdentity') shown.push(asked.get('WebIdentityToken') ?? '');
      const { method, url, headers } = incoming;
      const onwards = request({ host: '127.0.0.1', port, method, path: url, headers }, (answer) => {
        response.writeHead(answer.statusCode ?? 500, answer.headers);
        answer.pipe(response);
      });
      onwards.on('error', () => response.destroy());
      onwards.end(body);
    });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close().closeAllConnections());
  return { endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, shown };
}

test(
  'an AWS SDK takes its token from a file of a set, and the new one from there once it was renewed',
  needs('python', 'moto'),
  async (t) => {
    const agent = await startJwtAgent(t);
    const { endpoint, shown } = await startAws(t);
    const { folder, unsafeDisk } = await folderInMemory(t);
    const directory = join(folder, 'aws');
    await startSidecar(t, {
      workloadApi: { endpoint: agent.api.endpoint },
      files: [{ directory, unsafeDisk, x509: false, jwtSvids: [{ fileName: 'aws.token', audience: ['sts.amazonaws.com'] }] }],
    });
    const file = join(directory, 'aws.token');
    const sdk = await startChild([part('python'), join(pythonPrograms, 'aws_client.py'), endpoint], {
      env: {
        PATH: process.env['PATH'] ?? '',
        HOME: folder,
        AWS_WEB_IDENTITY_TOKEN_FILE: file,
        AWS_ROLE_ARN: ROLE,
        AWS_ROLE_SESSION_NAME: 'orders-1',
        AWS_ENDPOINT_URL_STS: endpoint,
        AWS_EC2_METADATA_DISABLED: 'true',
      },
    });
    t.after(() => sdk.stop().then(() => undefined));
    const assumed = /^arn:aws:sts::123456789012:assumed-role\/orders\/orders-1$/;
    const first = await readFile(file, 'utf8');

    sdk.write('\n');
    const { next } = await sdk.line(assumed);
    assert.deepEqual(shown, [first]);
    const { sub, aud } = JSON.parse(Buffer.from(first.split('.')[1] ?? '', 'base64url').toString()) as { sub: string; aud: unknown };
    assert.deepEqual([sub, aud], [SUBJECT, ['sts.amazonaws.com']]);

    // A key that goes has tokens fetched anew.
    agent.become(testKey('two'));
    const second = await eventually(async () => {
      const now = await readFile(file, 'utf8');
      assert.notEqual(now, first);
      return now;
    });
    sdk.write('\n');
    await sdk.line(assumed, { after: next });
    assert.deepEqual(shown, [first, second]);
  },
);
