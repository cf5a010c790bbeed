import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { startDevDomain } from '../support/dev-domain.ts';
import { startSidecar } from '../support/sidecar.ts';
import { dial, readAll, startTcpServer } from '../support/tcp.ts';

test('an answer that the application sends only after the caller has half-closed still arrives, through both sidecars', async (t) => {
  const spiffe = await startDevDomain(t, {
    name: 'example.org',
    workloads: { web: ['spiffe://example.org/web'], api: ['spiffe://example.org/api'] },
  });
  const application = await startTcpServer(t, (socket) => {
    void readAll(socket).then((question) => socket.end(`answer to ${question.toString()}`));
  });
  const server = await startSidecar(t, {
    workloadApi: { endpoint: spiffe.endpoint('api') },
    inbound: [{ name: 'in', listen: '127.0.0.1:0', to: application.address, allow: ['spiffe://example.org/web'] }],
  });
  const client = await startSidecar(t, {
    workloadApi: { endpoint: spiffe.endpoint('web') },
    outbound: [{ name: 'out', listen: '127.0.0.1:0', to: server.address('in'), expect: ['spiffe://example.org/api'] }],
  });

  const caller = await dial(t, client.address('out'));
  caller.end('question');
  const answer = await readAll(caller);
  await once(caller, 'close');

  assert.equal(answer.toString(), 'answer to question');
  for (const sidecar of [client, server]) {
    const line = await sidecar.connection();
    assert.equal(line['reason'], 'finished');
    assert.equal(line['bytes_from_downstream'], 8);
    assert.equal(line['bytes_to_downstream'], 18);
  }
});
