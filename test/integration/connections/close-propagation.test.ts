// ghostunnel: client-/server-handles-client-closes-connection, client-/server-handles-server-closes-connection, each with -unix;
// server-abortive-close; server-unix-socket-backend, client-unix-socket-backend
import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { startPair } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { closed, dial, startTcpServer } from '../../support/tcp.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';

for (const kind of ['TCP', 'Unix sockets'] as const) {
  test(`when the caller leaves, the application is told, over ${kind}`, async (t) => {
    const { caller, served, inbound, outbound } = await connectThrough(t, kind);

    caller.end();
    await once(served, 'end');
    served.end();
    await Promise.all([closed(caller), closed(served)]);

    for (const sidecar of [inbound, outbound]) assert.equal((await sidecar.connection())['close_reason'], 'finished');
  });

  test(`when the application leaves, the caller is told, over ${kind}`, async (t) => {
    const { caller, served, inbound, outbound } = await connectThrough(t, kind);

    served.end();
    await once(caller, 'end');
    caller.end();
    await Promise.all([closed(caller), closed(served)]);

    for (const sidecar of [inbound, outbound]) assert.equal((await sidecar.connection())['close_reason'], 'finished');
  });
}

for (const [who, direction, reasons] of [
  ['caller', 'downstream', { outbound: 'downstream_reset', inbound: 'downstream_reset' }],
  ['application', 'upstream', { outbound: 'upstream_reset', inbound: 'upstream_reset' }],
] as const) {
  test(`a reset by the ${who} in the middle of a transfer is a reset for the other side, and nothing stays open`, async (t) => {
    const { caller, served, inbound, outbound } = await connectThrough(t, 'TCP');
    const [breaking, other] = who === 'caller' ? [caller, served] : [served, caller];
    const told = closed(other);
    const pump = (): void => {
      while (other.write(Buffer.alloc(65_536)));
    };
    other.on('drain', pump);
    pump();
    await once(breaking.resume(), 'data');

    breaking.resetAndDestroy();

    assert.match((await told) ?? 'an end in order', /ECONNRESET|EPIPE/, `what the other side of ${direction} was told`);
    assert.equal((await outbound.connection())['close_reason'], reasons.outbound);
    assert.equal((await inbound.connection())['close_reason'], reasons.inbound);
    for (const sidecar of [inbound, outbound]) {
      await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_open_connections'), 0));
    }
  });
}

/** A connection through both sidecars over which a byte has passed each way. */
async function connectThrough(t: Parameters<typeof dial>[0], kind: 'TCP' | 'Unix sockets') {
  const folder = await temporaryFolder(t);
  const { promise: accepted, resolve } = Promise.withResolvers<Socket>();
  const unix = kind === 'Unix sockets';
  const application = await startTcpServer(t, resolve, unix ? join(folder, 'app.sock') : undefined);
  const { inbound, outbound, address } = await startPair(
    t,
    application.address,
    unix
      ? { inbound: { listen: `unix://${join(folder, 'in.sock')}` }, outbound: { listen: `unix://${join(folder, 'out.sock')}` } }
      : undefined,
  );
  const caller = await dial(t, address);
  caller.write('x');
  const served = await accepted;
  await once(served, 'data');
  served.write('y');
  await once(caller, 'data');
  return { caller, served, inbound, outbound };
}
