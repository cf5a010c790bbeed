import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { scute, scuteIn } from '../../support/command.ts';
import { startExampleDomain, startInbound, WEB } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { startHttpApplication } from '../../support/http/http-stage.ts';
import { createTestAuthority } from '../../support/pki/pki.ts';
import { startScute } from '../../support/scute-process.ts';
import { startSidecar } from '../../support/sidecar.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import { FakeWorkloadApi, svidEntry } from '../../support/workload-api.ts';

const authority = createTestAuthority();
const entry = svidEntry(authority, authority.issue({ id: WEB }), WEB);

/** A sidecar whose agent has said nothing yet. */
const startEarly = async (t: Parameters<typeof startSidecar>[0]) => {
  const api = await FakeWorkloadApi.start();
  t.after(() => api[Symbol.asyncDispose]());
  const sidecar = await startSidecar(
    t,
    {
      workloadApi: { endpoint: api.endpoint },
      inbound: [
        { name: 'api', listen: '127.0.0.1:0', to: '127.0.0.1:1', allow: [WEB] },
        { name: 'other', listen: '127.0.0.1:0', to: '127.0.0.1:2', allow: [WEB], identity: { hint: 'other' } },
      ],
      admin: { listen: '127.0.0.1:0' },
    },
    { unready: true },
  );
  return { api, sidecar, admin: sidecar.address('admin') };
};

test('scute wait returns when what it waits for is there, and says what is missing when the time is over', async (t) => {
  const { api, admin } = await startEarly(t);
  const wait = (...args: readonly string[]) => scute('wait', '--admin', admin, ...args);
  /** A look has a second at most, and there may be no answer in it on a busy machine. */
  const looksOnce = (stderr: string, ...args: readonly string[]): Promise<void> =>
    eventually(async () => assert.deepEqual(await wait('--timeout', '0s', ...args), { code: 1, stdout: '', stderr }));
  await looksOnce('scute: identity: api: no SVID has come from the Workload API yet\n');
  await looksOnce('scute: the listener api has no SVID to present\n', '--for', 'listener', 'api');

  const waits = ['listener api', 'listener other', 'identity', 'ready'].map((what) =>
    wait('--timeout', '60s', '--for', ...what.split(' ')),
  );
  api.setX509([entry]);
  assert.deepEqual(await waits[0], { code: 0, stdout: '', stderr: '' });
  // The other listener has none, so neither is Scute ready.
  await looksOnce('scute: identity: other: the Workload API gives no SVID with the hint "other"\n');
  await looksOnce('scute: the listener other has no SVID to present\n', '--for', 'listener', 'other');
  api.setX509([entry, { ...entry, hint: 'other' }]);
  for (const each of waits) assert.deepEqual(await each, { code: 0, stdout: '', stderr: '' });
});

test('scute wait begins before there is a Scute', async (t) => {
  const folder = await temporaryFolder(t);
  const admin = `unix://${join(folder, 'admin.sock')}`;
  const nobody = await scute('wait', '--admin', admin, '--timeout', '0s');
  assert.equal(nobody.code, 69);
  assert.match(nobody.stderr, /^scute: Scute does not run, or its admin listener is elsewhere: .*\n$/);

  const waiting = scute('wait', '--admin', admin);
  const application = await startHttpApplication(t, (_, response) => void response.end());
  await startInbound(t, application.address, { file: { admin: { listen: admin } } });
  assert.deepEqual(await waiting, { code: 0, stdout: '', stderr: '' });
});

test('scute wait asks the Workload API itself, by the flag or by the environment', async () => {
  await using api = await FakeWorkloadApi.prepare();
  const nobody = await scute('wait', '--workload-api', api.endpoint, '--timeout', '0s');
  assert.equal(nobody.code, 69);
  assert.match(nobody.stderr, /^scute: unix:\/\/.*\n$/);

  const byFlag = scute('wait', '--workload-api', api.endpoint);
  const byEnvironment = scuteIn({ env: { SPIFFE_ENDPOINT_SOCKET: api.endpoint } }, 'wait', '--for', 'identity');
  await api.listen();
  api.failWith('FetchX509SVID', status.PERMISSION_DENIED, { times: 3 });
  api.setX509([entry]);

  assert.deepEqual(await byFlag, { code: 0, stdout: '', stderr: '' });
  assert.deepEqual(await byEnvironment, { code: 0, stdout: '', stderr: '' });
});

test('what cannot be waited for is wrong usage, at once', async (t) => {
  const { admin } = await startEarly(t);
  for (const [args, problem] of [
    [['--for', 'listener', 'database'], /there is no listener "database"; there is api, other/],
    [['--for', 'listener'], /--for is identity, ready, or listener NAME/],
    [['--for', 'identity', 'api'], /--for is identity, ready, or listener NAME/],
    [['--for', 'luck'], /--for is identity, ready, or listener NAME/],
    [['--timeout', 'soon'], /--timeout "soon"/],
    [['--timeout', '2d'], /--timeout "2d"/],
    [['--workload-api', 'unix:///run/agent.sock'], /not both/],
  ] as const) {
    const { code, stderr } = await scute('wait', '--admin', admin, ...args);
    assert.equal(code, 64, args.join(' '));
    assert.match(stderr, problem);
  }
  assert.equal((await scute('wait')).code, 64);
  const listener = await scute('wait', '--workload-api', 'unix:///run/agent.sock', '--for', 'listener', 'api');
  assert.equal(listener.code, 64);
  assert.match(listener.stderr, /the Workload API knows of an identity alone/);
});

test('scute stop drains the Scute that runs and returns when it has ended', async (t) => {
  const spiffe = await startExampleDomain(t);
  const folder = await temporaryFolder(t);
  const admin = `unix://${join(folder, 'admin.sock')}`;
  await using process = await startScute({
    config: {
      workloadApi: { endpoint: spiffe.endpoint('api') },
      inbound: [{ name: 'in', listen: '127.0.0.1:0', to: '127.0.0.1:1', allow: [WEB] }],
      admin: { listen: admin },
    },
  });
  await process.ready('in', 'admin');

  assert.deepEqual(await scute('stop', '--admin', admin), { code: 0, stdout: '', stderr: '' });

  assert.equal((await process.exited).code, 0);
  assert.ok(process.log().some(({ message, reason }) => message === 'stopping' && reason === 'asked over the admin listener'));
  const again = await scute('stop', '--admin', admin);
  assert.equal(again.code, 69);
});

test('scute stop says so if what drains does not end in time', async (t) => {
  const application = await startHttpApplication(t, () => undefined);
  const { sidecar, connect } = await startInbound(t, application.address, { file: { admin: { listen: '127.0.0.1:0' } } });
  await connect();
  await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_open_connections'), 1));
  const admin = sidecar.address('admin');

  // In this process nobody heeds what was asked for.
  assert.deepEqual(await scute('stop', '--admin', admin, '--timeout', '10ms'), {
    code: 1,
    stdout: '',
    stderr: 'scute: it drains, and has not ended yet\n',
  });
  assert.deepEqual(await scute('stop', '--admin', admin, '--timeout', '0s'), { code: 0, stdout: '', stderr: '' });
  assert.ok(sidecar.app.stopRequested.aborted);
});
