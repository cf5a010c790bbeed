import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { presented, startExampleDomain, WEB } from '../../test/support/data-path.ts';
import { eventually } from '../../test/support/eventually.ts';
import { openSockets } from '../../test/support/open-files.ts';
import { temporaryFolder } from '../../test/support/temporary-folder.ts';
import type { Connection, Endpoint } from './connection.ts';
import { collectAll } from './garbage.ts';
import { connect, createTlsContext, listen } from './node.ts';

interface Ends {
  readonly opened: Connection;
  readonly accepted: Connection;
}

/** Two ends of a connection of ours; TLS if contexts are made. */
async function connected(t: TestContext, endpoint: Endpoint, tls: boolean): Promise<Ends> {
  const svid = tls ? presented(await (await startExampleDomain(t)).issue(WEB)) : undefined;
  const context = svid && createTlsContext({ own: { chainPem: svid.cert, keyPem: svid.key }, authoritiesPem: [] });
  const { promise: accepted, resolve: accept } = Promise.withResolvers<Connection>();
  const bound = await listen({
    endpoint,
    mode: 0o600,
    keepAliveMs: 0,
    acceptFailed: assert.fail,
    accept(connection) {
      if (context === undefined) accept(connection.open());
      else connection.openTls({ context, alpn: [] }, (outcome) => (outcome.ok ? accept(outcome.connection) : assert.fail(outcome.code)));
    },
  });
  t.after(() => bound.close());
  const opened = new Promise<Connection>((resolve) => {
    connect({ endpoint: bound.endpoint, timeoutMs: 5000, keepAliveMs: 0, use: tls ? 'tls' : 'plain' }, (outcome) => {
      assert.ok(outcome.ok);
      if (context === undefined) resolve(outcome.opened.open());
      else
        outcome.opened.openTls({ context, alpn: [], serverName: undefined }, (done) => {
          assert.ok(done.ok);
          resolve(done.connection);
        });
    });
  });
  return { opened: await opened, accepted: await accepted };
}

function watch(connection: Connection): { closed: number } {
  const seen = { closed: 0 };
  connection.start({
    data: () => undefined,
    ended: () => undefined,
    drained: () => undefined,
    closed: () => {
      seen.closed += 1;
    },
  });
  return seen;
}

for (const kind of ['TCP', 'TLS over TCP', 'a Unix socket', 'TLS over a Unix socket'] as const) {
  for (const which of ['opened', 'accepted'] as const) {
    for (const turns of [0, 1, 2, 3]) {
      test(`dropping ${kind} that we ${which}, ${turns} turns after ending it, closes it`, async (t) => {
        const endpoint: Endpoint = kind.endsWith('TCP')
          ? { kind: 'tcp', host: '127.0.0.1', port: 0 }
          : { kind: 'unix', path: `${await temporaryFolder(t)}/s` };
        const ends = await connected(t, endpoint, kind.startsWith('TLS'));
        const other = ends[which === 'opened' ? 'accepted' : 'opened'];
        const sockets = openSockets();
        const [seen, seenByOther] = [watch(ends[which]), watch(other)];
        ends[which].write(Buffer.alloc(100_000));

        ends[which].endWrite();
        for (let i = 0; i < turns; i++) await nextTurn();
        ends[which].abort();
        ends[which].abort();

        await eventually(() => assert.equal(seen.closed, 1));
        other.abort();
        await eventually(() => assert.equal(seenByOther.closed, 1));
        await eventually(() => assert.equal(openSockets(), sockets - 2));
      });
    }
  }
}

for (const tls of [false, true]) {
  test(`small pieces of large buffers that wait for a ${tls ? 'TLS ' : ''}peer that reads nothing do not hold the buffers`, async (t) => {
    const { opened, accepted } = await connected(t, { kind: 'tcp', host: '127.0.0.1', port: 0 }, tls);
    t.after(() => accepted.abort());
    const seen = watch(opened);
    // More than the system takes.
    opened.write(Buffer.alloc(32 * 1024 * 1024));

    const held: WeakRef<ArrayBufferLike>[] = [];
    for (let time = 0; time < 100; time++) {
      const slab = Buffer.allocUnsafeSlow(64 * 1024);
      held.push(new WeakRef(slab.buffer));
      opened.write(slab.subarray(time, time + 17));
    }

    await eventually(() => {
      collectAll();
      assert.ok(held.filter((each) => each.deref() !== undefined).length < 5);
    });
    opened.abort();
    await eventually(() => assert.equal(seen.closed, 1));
  });
}
