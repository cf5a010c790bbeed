import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { type Finished, runChild } from '../support/child.ts';
import { startDevDomain } from '../support/dev-domain.ts';
import { EVERY_KIND } from './grpc/every-kind.ts';
import { needs, part } from './parts.ts';
import { type Peer, runPython, startPython } from './peers.ts';
import { issueFiles, type PemFiles, refusal, startInbound, startOutbound } from './stage.ts';

const WORDS = 'spiffe://example.org/words';
const APP = 'spiffe://example.org/app';
const SERVICE = 'scute.interop.Words';
/** gRPC clients check DNS names: the server's SVID has one besides its SPIFFE ID. */
const SERVER_NAME = 'words.example';

/** An unmodified gRPC server behind a listener with `alpn: [h2]`. */
async function startService(t: TestContext) {
  const spiffe = await startDevDomain(t, {
    name: 'example.org',
    workloads: { words: [{ id: WORDS, dnsNames: [SERVER_NAME] }], app: [APP] },
  });
  const server = await startPython(t, 'grpc_peer', ['serve']);
  const to = await listening(server);
  const inbound = await startInbound(t, { endpoint: spiffe.endpoint('words'), to, allow: [APP], alpn: ['h2'] });
  return { spiffe, inbound };
}

async function listening(server: Peer): Promise<string> {
  return String((await server.first('listening'))['listening']);
}

/** `verb` is `list`, or a method, which gets `request`. */
function grpcurl(address: string, files: PemFiles, verb: string, request?: object): Promise<Finished> {
  const identity = ['-cert', files.chain, '-key', files.key, '-cacert', files.authorities, '-authority', SERVER_NAME];
  const data = request === undefined ? [] : ['-d', JSON.stringify(request)];
  return runChild([part('grpcurl'), '-max-time', '20', ...identity, ...data, address, verb], { env: {} });
}

test('a gRPC client with an SVID uses calls of every kind, and health', needs('python'), async (t) => {
  const { spiffe, inbound } = await startService(t);
  const files = await issueFiles(t, spiffe, APP);

  const said = await runPython('grpc_peer', 'call', inbound.address, files.chain, files.key, files.authorities, SERVER_NAME);

  assert.deepEqual(said, EVERY_KIND);
});

test('a gRPC client with an SVID that is not allowed is refused', needs('python'), async (t) => {
  const { spiffe, inbound } = await startService(t);
  const files = await issueFiles(t, spiffe, 'spiffe://example.org/other');

  const said = await runPython('grpc_peer', 'call', inbound.address, files.chain, files.key, files.authorities, SERVER_NAME);

  assert.ok(['UNAVAILABLE', 'DEADLINE_EXCEEDED'].includes(String(said['error'])), JSON.stringify(said));
  await refusal(inbound.scute, 'not_allowed');
});

test('a gRPC client in plain text uses calls of every kind through two sidecars', needs('python'), async (t) => {
  const { spiffe, inbound } = await startService(t);
  const outbound = await startOutbound(t, { endpoint: spiffe.endpoint('app'), to: inbound.address, expect: [WORDS], alpn: ['h2'] });

  const said = await runPython('grpc_peer', 'call', outbound.address);

  assert.deepEqual(said, EVERY_KIND);
});

test('grpcurl lists, describes and calls by reflection', needs('python', 'grpcurl'), async (t) => {
  const { spiffe, inbound } = await startService(t);
  const files = await issueFiles(t, spiffe, APP);

  const list = await grpcurl(inbound.address, files, 'list');
  const call = await grpcurl(inbound.address, files, `${SERVICE}/Upper`, { text: 'hello' });
  const health = await grpcurl(inbound.address, files, 'grpc.health.v1.Health/Check', { service: SERVICE });

  assert.deepEqual([list.code, call.code, health.code], [0, 0, 0], list.stderr + call.stderr + health.stderr);
  assert.match(list.stdout, new RegExp(`^${SERVICE}$`, 'm'));
  assert.deepEqual(JSON.parse(call.stdout), { text: 'HELLO' });
  assert.deepEqual(JSON.parse(health.stdout), { status: 'SERVING' });
});
