import assert from 'node:assert/strict';
import { test } from 'node:test';
import { presented, startExampleDomain, WEB } from '../../support/data-path.ts';
import { connectClient, request } from '../../support/http/http2-stage.ts';
import { startRawApplication } from '../../support/http/http-stage.ts';
import { startScute } from '../../support/scute-process.ts';

// Names of functions are others in the bundle, and packages are cut down there.
for (const entry of ['bundle', 'source'] as const) {
  test(`the ${entry} serves HTTP/2, keeps a body a body, and has nothing to say on standard error`, async (t) => {
    const spiffe = await startExampleDomain(t);
    const application = await startRawApplication(t, (received) =>
      (received.startsWith('DELETE') ? received.endsWith('\r\n0\r\n\r\n') : received.endsWith('\r\n\r\n'))
        ? 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'
        : undefined,
    );
    const scute = await startScute({
      entry,
      config: {
        workloadApi: { endpoint: spiffe.endpoint('api') },
        inbound: [{ name: 'in', listen: '127.0.0.1:0', to: application.address, allow: [WEB], protocol: 'http' }],
      },
    });
    t.after(() => scute.stop());
    await scute.ready('in');
    const client = await connectClient(t, await scute.address('in'), presented(await spiffe.issue(WEB)));

    const hidden = 'GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n';
    assert.equal((await request(client, { ':method': 'DELETE', ':path': '//a' }, hidden)).status, 200);
    assert.equal((await request(client, { ':path': '/' })).body.toString(), 'ok');

    assert.match(
      application.received(),
      /^DELETE \/\/a HTTP\/1\.1\r\nX-Forwarded-Client-Cert: [^\r]+\r\nhost: api:443\r\ntransfer-encoding: chunked\r\n\r\n/,
    );
    assert.ok(application.received().includes(`\r\n\r\n21\r\n${hidden}\r\n0\r\n\r\nGET / HTTP/1.1\r\n`), application.received());
    client.close();
    assert.deepEqual(await scute.stop(), { code: 0, signal: null });
    assert.equal(scute.child.stderr(), '');
  });
}
