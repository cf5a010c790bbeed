import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { eventually } from '../../support/eventually.ts';
import type { LogLine, ScuteProcess } from '../../support/scute-process.ts';
import { needs } from '../parts.ts';
import { type Peer, runGo, startPython } from '../peers.ts';
import { exchange, startEcho, startInbound, startOutbound, temporaryFolder } from '../stage.ts';

const WEB = 'spiffe://python.example/web';
const API = 'spiffe://python.example/api';

interface Stage {
  readonly api: Peer;
  readonly endpoint: (workload: string) => string;
}

/** A Workload API of which nothing is ours: gRPC's C core, py-spiffe's stubs, certificates by `cryptography`. */
async function startWorkloadApi(t: TestContext): Promise<Stage> {
  const folder = await temporaryFolder(t);
  const api = await startPython(t, 'workload_api_server', [folder, 'python.example', 'web', 'api']);
  await api.first('ready');
  return { api, endpoint: (workload) => `unix://${folder}/${workload}.sock` };
}

/** The serial number of the SVID in the last update that Scute has taken. */
function serialOf(scute: ScuteProcess): string | undefined {
  const update = scute.log().findLast(({ message }) => message === 'identity updated');
  return (update?.['svids'] as readonly { readonly serial: string }[] | undefined)?.[0]?.serial;
}

async function issued(api: Peer, workload: string): Promise<string> {
  const said = await api.next('issued');
  return (said['issued'] as Readonly<Record<string, string>>)[workload] ?? '';
}

/** Serial numbers are written with and without leading zeros. */
const sameSerial = (a: string | undefined, b: string): boolean => a?.replace(/^0+/, '') === b.replace(/^0+/, '');

const isFailure = (line: LogLine): boolean => line.message === 'Workload API stream failed';

test('Scute takes its SVID from a Workload API of another make, and follows its rotations', needs('python'), async (t) => {
  const { api, endpoint } = await startWorkloadApi(t);
  const echo = await startEcho(t);
  const first = await issued(api, 'web');
  const inbound = await startInbound(t, { endpoint: endpoint('api'), to: echo.address, allow: [WEB] });
  const outbound = await startOutbound(t, { endpoint: endpoint('web'), to: inbound.address, expect: [API] });
  const before = await exchange(outbound.port, 'before');
  const serialBefore = serialOf(outbound.scute);

  api.child.write('rotate\n');
  const second = await issued(api, 'web');
  await eventually(() => assert.ok(sameSerial(serialOf(outbound.scute), second)));
  const after = await exchange(outbound.port, 'after');

  assert.deepEqual([before, after], ['BEFORE', 'AFTER']);
  assert.ok(sameSerial(serialBefore, first), `${serialBefore} is ${first}`);
  const call = await api.first('call');
  assert.deepEqual([call['call'], call['header']], ['FetchX509SVID', 'true']);
});

test('Scute follows a new authority of a Workload API of another make', needs('python'), async (t) => {
  const { api, endpoint } = await startWorkloadApi(t);
  const echo = await startEcho(t);
  await issued(api, 'web');
  const inbound = await startInbound(t, { endpoint: endpoint('api'), to: echo.address, allow: [WEB] });
  const outbound = await startOutbound(t, { endpoint: endpoint('web'), to: inbound.address, expect: [API] });

  api.child.write('rotate-root\n');
  const serials = (await api.next('issued'))['issued'] as Readonly<Record<string, string>>;
  await eventually(() => {
    assert.ok(sameSerial(serialOf(outbound.scute), serials['web'] ?? ''));
    assert.ok(sameSerial(serialOf(inbound.scute), serials['api'] ?? ''));
  });

  assert.equal(await exchange(outbound.port, 'hello'), 'HELLO');
});

test('Scute connects again when a Workload API of another make ends its stream', needs('python', 'go-spiffe'), async (t) => {
  const { api, endpoint } = await startWorkloadApi(t);
  const echo = await startEcho(t);
  await issued(api, 'api');
  const { scute, address } = await startInbound(t, { endpoint: endpoint('api'), to: echo.address, allow: [WEB] });

  api.child.write('end api\n');
  await scute.logged(isFailure);
  api.child.write('rotate\n');
  const serial = await issued(api, 'api');
  await eventually(() => assert.ok(sameSerial(serialOf(scute), serial)));
  const said = await helloFromGo(endpoint('web'), address);

  assert.equal(said, 'HELLO');
});

test('Scute gives its identity back when a Workload API of another make denies it', needs('python'), async (t) => {
  const { api, endpoint } = await startWorkloadApi(t);
  const echo = await startEcho(t);
  const inbound = await startInbound(t, { endpoint: endpoint('api'), to: echo.address, allow: [WEB] });
  const outbound = await startOutbound(t, { endpoint: endpoint('web'), to: inbound.address, expect: [API] });
  assert.equal(await exchange(outbound.port, 'before'), 'BEFORE');

  api.child.write('deny api\n');
  await inbound.scute.logged(({ message }) => message === 'identity withdrawn');
  const denied = await exchange(outbound.port, 'denied');
  api.child.write('allow api\n');
  await eventually(async () => assert.equal(await exchange(outbound.port, 'again'), 'AGAIN'));

  assert.equal(denied, '');
});

/** A client that is not ours either. */
async function helloFromGo(endpoint: string, address: string): Promise<unknown> {
  return (await runGo('client', '-socket', endpoint, '-address', address, '-peer', API))['reply'];
}
