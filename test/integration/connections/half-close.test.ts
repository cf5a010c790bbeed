// ghostunnel: client-half-close-return-traffic
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { startPair } from '../../support/data-path.ts';
import { dial, readAll, startTcpServer } from '../../support/tcp.ts';

test('an answer that the application sends only after the caller has half-closed still arrives, through both sidecars', async (t) => {
  const application = await startTcpServer(t, (socket) => {
    void readAll(socket).then((question) => socket.end(`answer to ${question.toString()}`));
  });
  const { inbound, outbound, address } = await startPair(t, application.address);

  const caller = await dial(t, address);
  caller.end('question');
  const answer = await readAll(caller);
  await once(caller, 'close');

  assert.equal(answer.toString(), 'answer to question');
  for (const sidecar of [outbound, inbound]) {
    const line = await sidecar.connection();
    assert.equal(line['reason'], 'finished');
    assert.equal(line['bytes_from_downstream'], 8);
    assert.equal(line['bytes_to_downstream'], 18);
  }
});

test('what the caller sends after the application has half-closed still arrives, through both sidecars', async (t) => {
  let received: Promise<Buffer> | undefined;
  const application = await startTcpServer(t, (socket) => {
    socket.end('that is all from me');
    received = readAll(socket);
  });
  const { inbound, outbound, address } = await startPair(t, application.address);

  const caller = await dial(t, address);
  const said = await readAll(caller);
  caller.write('I have ');
  caller.end('more to say');
  await once(caller, 'close');

  assert.equal(said.toString(), 'that is all from me');
  assert.equal((await received)?.toString(), 'I have more to say');
  for (const sidecar of [outbound, inbound]) assert.equal((await sidecar.connection())['reason'], 'finished');
});
