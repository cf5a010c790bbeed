import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { test } from 'node:test';
import { createHttpService } from '../../../src/admin/http.ts';
import { LOOPBACK, startService } from '../../support/admin/admin.ts';
import { ask } from '../../support/http/http.ts';

test('an answer that takes long to make arrives, and whoever asks nothing meanwhile is let go', async (t) => {
  const asked = Promise.withResolvers<void>();
  const made = Promise.withResolvers<void>();
  const service = createHttpService({
    name: 'slow',
    socket: LOOPBACK,
    allowedHosts: [],
    idleTimeoutMs: 100,
    routes: {
      '/slow': {
        async GET() {
          asked.resolve();
          await made.promise;
          return { status: 200, body: 'made' };
        },
      },
    },
  });
  const address = await startService(t, service);
  assert.ok(address.kind === 'tcp');
  const answer = ask(address, '/slow');
  await asked.promise;

  // Whoever came later is gone by now, so more than the time has passed.
  for (let later = 0; later < 3; later += 1) {
    const silent = connect(address.port, address.host).on('error', () => undefined);
    silent.resume();
    await once(silent, 'close');
  }
  made.resolve();

  assert.equal((await answer).status, 200);
});
