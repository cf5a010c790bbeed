import assert from 'node:assert/strict';
import { open, readdir, readFile, realpath, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { status } from '@grpc/grpc-js';
import type { TokenList } from '../../../src/admin/api-types.ts';
import { api } from '../../support/admin/api.ts';
import { eventually } from '../../support/eventually.ts';
import { folderInMemory } from '../../support/files/files.ts';
import { ask } from '../../support/http/http.ts';
import { createTestAuthority } from '../../support/pki/pki.ts';
import { startScute } from '../../support/scute-process.ts';
import { startSidecar, type Sidecar } from '../../support/sidecar.ts';
import { startJwtAgent, type JwtAgent } from '../../support/tokens/jwt-agent.ts';
import { jwk, jwks, SUBJECT, testKey } from '../../support/tokens/tokens.ts';
import { svidEntry } from '../../support/workload-api.ts';

const AWS = { fileName: 'aws.token', audience: ['sts.amazonaws.com'] };

async function startStage(t: TestContext, more: object = {}, agent?: JwtAgent, { unready = false } = {}) {
  const from = agent ?? (await startJwtAgent(t));
  const { folder, unsafeDisk } = await folderInMemory(t);
  const directory = join(folder, 'aws');
  const admin = { kind: 'unix', path: join(folder, 'admin.sock') } as const;
  const sidecar = await startSidecar(
    t,
    {
      workloadApi: { endpoint: from.api.endpoint },
      files: [{ name: 'aws', directory, unsafeDisk, jwtSvids: [AWS], ...more }],
      admin: { listen: `unix://${admin.path}` },
    },
    { unready },
  );
  const token = (): Promise<string> => readFile(join(directory, 'aws.token'), 'utf8');
  return { agent: from, folder, directory, admin, sidecar, token };
}

/** Another SVID of the same name, by another authority; resolves when it is in force. */
async function rotate({ api: agent }: JwtAgent, { app }: Sidecar): Promise<void> {
  const before = app.identity()?.generation ?? 0;
  const authority = createTestAuthority();
  agent.setX509([svidEntry(authority, authority.issue({ id: SUBJECT }), SUBJECT)]);
  await eventually(() => {
    assert.ok((app.identity()?.generation ?? 0) > before);
    return Promise.resolve();
  });
}

/** Wall time, milliseconds since 1970. */
function expiryOf(token: string): number {
  return (JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()) as { exp: number }).exp * 1000;
}

test('a set has a JWT-SVID for its audiences and the JWT bundles beside the SVID, with the mode of a key', async (t) => {
  const { agent, directory, sidecar, token } = await startStage(t, {
    jwtSvids: [AWS, { fileName: 'vault.token', audience: ['vault', 'other'], spiffeId: SUBJECT }],
    jwtBundleFileName: 'jwt_bundle.json',
  });

  assert.deepEqual((await readdir(directory)).filter((name) => !name.startsWith('..')).toSorted(), [
    'aws.token',
    'jwt_bundle.json',
    'svid.pem',
    'svid_bundle.pem',
    'svid_bundles.json',
    'svid_key.pem',
    'vault.token',
  ]);
  assert.ok(agent.signed.includes(await token()), 'the file has the token and nothing else');
  assert.equal((await stat(join(directory, 'aws.token'))).mode & 0o777, 0o600);
  assert.equal((await stat(join(directory, 'jwt_bundle.json'))).mode & 0o777, 0o644);
  const { keys } = JSON.parse(await readFile(join(directory, 'jwt_bundle.json'), 'utf8')) as { readonly keys: readonly object[] };
  assert.equal(keys.length, 1);
  assert.deepEqual(
    agent.asked.toSorted((a, b) => (String(a.audience) < String(b.audience) ? -1 : 1)),
    [
      { audience: ['sts.amazonaws.com'], spiffeId: '' },
      { audience: ['vault', 'other'], spiffeId: SUBJECT },
    ],
  );
  assert.deepEqual(
    (await api<TokenList>(sidecar, 'tokens')).items.map(({ source, files, listeners }) => [source, files, listeners]),
    [
      ['jwt sts.amazonaws.com', ['aws'], []],
      [`jwt vault other as ${SUBJECT}`, ['aws'], []],
    ],
  );
  for (const signed of agent.signed) assert.equal(JSON.stringify(sidecar.log()).includes(signed), false);
});

test('a token is renewed well before its end, and the set is replaced whole with it, which is told', async (t) => {
  const agent = await startJwtAgent(t);
  agent.lifeSeconds = 4;
  const marks = join((await folderInMemory(t)).folder, 'marks');
  const { directory, token } = await startStage(t, { notify: [{ command: ['/bin/sh', '-c', `echo told >> ${marks}`] }] }, agent);
  const first = await token();
  const inForce = await realpath(join(directory, '..data'));

  await eventually(async () => {
    await using file = await open(join(directory, 'aws.token'));
    const now = (await file.readFile()).toString();
    assert.notEqual(now, first);
    assert.ok((await file.stat()).mtimeMs < expiryOf(now), 'it was valid when it was written');
  });

  assert.notEqual(await realpath(join(directory, '..data')), inForce);
  await eventually(async () => assert.ok((await readFile(marks, 'utf8')).split('\n').length >= 3));
});

test('while the agent gives no token the set of before stays, which is told until it heals by itself', async (t) => {
  const agent = await startJwtAgent(t);
  agent.lifeSeconds = 3;
  const { sidecar, admin, token, directory } = await startStage(t, {}, agent);
  agent.api.failWith('FetchJWTSVID', status.UNAVAILABLE);
  const last = await eventually(async () => {
    assert.equal(await sidecar.metric('scute_files_current', { set: 'aws' }), 0);
    return token();
  });

  assert.ok((await sidecar.metric('scute_files_replacements_total', { set: 'aws', result: 'no_token' })) >= 1);
  assert.ok((await sidecar.metric('scute_token_fetches_total', { source: 'jwt sts.amazonaws.com', result: 'agent_unavailable' })) >= 1);
  const { body } = await ask(admin, '/readyz?verbose');
  assert.match(body, /files_current warning: aws: the files of before stay in force: no_token: there is no valid JWT-SVID for sts/);
  assert.match(body, /tokens warning: jwt sts\.amazonaws\.com: agent_unavailable/);
  await eventually(() => {
    assert.deepEqual(sidecar.app.notReady(), ['files'], 'what is there has expired');
    return Promise.resolve();
  });
  assert.equal(await token(), last);
  // Nothing that is not whole comes into force with a rotation either.
  const inForce = await realpath(join(directory, '..data'));
  await rotate(agent, sidecar);
  assert.equal(await realpath(join(directory, '..data')), inForce);

  agent.lifeSeconds = 300;
  agent.api.failWith('FetchJWTSVID', status.UNAVAILABLE, { times: 1 });
  await eventually(async () => {
    assert.notEqual(await token(), last);
    assert.equal(await sidecar.metric('scute_files_current', { set: 'aws' }), 1);
  });
  await sidecar.ready();
  assert.equal(sidecar.log().filter(({ message, reason }) => message.startsWith('files not replaced') && reason === 'no_token').length, 1);
});

test('a set that waits for its first token keeps Scute unready, and is no failure until the agent refuses', async (t) => {
  const agent = await startJwtAgent(t);
  agent.api.failWith('FetchJWTSVID', status.PERMISSION_DENIED);
  const { sidecar, directory } = await startStage(t, {}, agent, { unready: true });

  await eventually(async () => assert.ok((await sidecar.metric('scute_files_replacements_total', { result: 'no_token' })) >= 1));
  assert.deepEqual(sidecar.app.notReady(), ['files']);
  await assert.rejects(stat(directory), 'nothing half done');
  const [failed] = sidecar.log().filter(({ message }) => message.startsWith('files not replaced'));
  assert.match(String(failed?.['detail']), /not_entitled/);
});

test('JWT files may be all of a set, which goes when Scute stops where that is asked for, and which no rotation of the SVID replaces', async (t) => {
  const { agent, directory, sidecar, token } = await startStage(t, {
    x509: false,
    layout: 'flat',
    cleanUpOnStop: true,
    keyFileMode: '0640',
  });
  assert.deepEqual(await readdir(directory), ['aws.token']);
  assert.equal((await stat(join(directory, 'aws.token'))).mode & 0o777, 0o640);
  const before = await token();

  await rotate(agent, sidecar);

  assert.equal(await token(), before);
  assert.equal(await sidecar.metric('scute_files_replacements_total', { result: 'replaced' }), 1);
  await sidecar.stop();
  assert.deepEqual(await readdir(directory), []);
});

test('a token goes with who it speaks for: once we do not hold that any more, the set is not written with it', async (t) => {
  const { agent, sidecar, token } = await startStage(t, { x509: false });
  const before = await token();
  const other = 'spiffe://example.org/other';
  const authority = createTestAuthority();
  agent.api.failWith('FetchJWTSVID', status.PERMISSION_DENIED);
  agent.api.setX509([svidEntry(authority, authority.issue({ id: other }), other)]);

  await eventually(async () => assert.ok((await sidecar.metric('scute_files_replacements_total', { result: 'no_token' })) >= 1));
  assert.equal(await token(), before);
  assert.equal(await sidecar.metric('scute_files_current', { set: 'aws' }), 0);
});

test('a set and a listener that ask for the same token have the same one', async (t) => {
  const agent = await startJwtAgent(t);
  const { folder, unsafeDisk } = await folderInMemory(t);
  const sidecar = await startSidecar(t, {
    workloadApi: { endpoint: agent.api.endpoint },
    files: [{ name: 'aws', directory: join(folder, 'aws'), unsafeDisk, jwtSvids: [AWS] }],
    outbound: [
      {
        name: 'out',
        listen: '127.0.0.1:0',
        protocol: 'http',
        to: '127.0.0.1:9',
        expect: [SUBJECT],
        jwt: { audience: AWS.audience[0] },
      },
    ],
    admin: { listen: '127.0.0.1:0' },
  });

  assert.equal(agent.asked.length, 1);
  assert.deepEqual(
    (await api<TokenList>(sidecar, 'tokens')).items.map(({ listeners, files }) => [listeners.map(({ name }) => name), files]),
    [[['out'], ['aws']]],
  );
});

test('the JWT bundle of each federated trust domain has a file of its own, which comes and goes with it', async (t) => {
  const own = jwks(jwk(testKey('one')));
  for (const layout of ['linked', 'flat']) {
    const { agent, directory } = await startStage(t, { layout, x509: false, jwtSvids: [], jwtBundleFileName: 'jwt.json' });
    const names = async (): Promise<readonly string[]> => (await readdir(directory)).filter((name) => !name.startsWith('..')).toSorted();
    assert.deepEqual(await names(), ['jwt.json']);
    assert.equal(agent.asked.length, 0);

    agent.api.setJwtBundles({ 'spiffe://example.org': own, 'spiffe://partner.example': jwks(jwk(testKey('two'))) });
    await eventually(async () => assert.deepEqual(await names(), ['jwt.json', 'jwt.partner.example.json']));
    agent.api.setJwtBundles({ 'spiffe://example.org': own });
    await eventually(async () => assert.deepEqual(await names(), ['jwt.json']));
  }
});

test('a token speaks for the identity of its set, by name also where that is chosen by a hint', async (t) => {
  const agent = await startJwtAgent(t);
  const authority = createTestAuthority();
  const first = 'spiffe://example.org/first';
  agent.api.setX509([
    svidEntry(authority, authority.issue({ id: first }), first, { hint: 'first' }),
    svidEntry(authority, authority.issue({ id: SUBJECT }), SUBJECT, { hint: 'db' }),
  ]);

  await startStage(t, { identity: { hint: 'db' } }, agent);

  assert.deepEqual(agent.asked, [{ audience: AWS.audience, spiffeId: SUBJECT }]);
});

test('scute once waits for the tokens of its sets, and says which are missing', async (t) => {
  const agent = await startJwtAgent(t);
  const { folder, unsafeDisk } = await folderInMemory(t);
  const config = {
    workloadApi: { endpoint: agent.api.endpoint },
    files: [{ name: 'aws', directory: join(folder, 'aws'), unsafeDisk, x509: false, jwtSvids: [AWS] }],
  };
  {
    await using scute = await startScute({ args: ['once'], config });
    assert.deepEqual(await scute.exited, { code: 0, signal: null });
  }
  assert.equal(await readFile(join(folder, 'aws', 'aws.token'), 'utf8'), agent.signed[0]);

  agent.api.failWith('FetchJWTSVID', status.PERMISSION_DENIED);
  await using scute = await startScute({ args: ['once', '--timeout', '2s'], config });
  assert.deepEqual(await scute.exited, { code: 1, signal: null });
  assert.match(scute.child.stderr(), /^scute: aws: there is no valid JWT-SVID for sts\.amazonaws\.com \(aws\.token\)/m);
});

test('tokens that would be called the same are still two', async (t) => {
  const { agent, token, directory } = await startStage(t, {
    jwtSvids: [
      { fileName: 'aws.token', audience: ['a'], spiffeId: SUBJECT },
      { fileName: 'other.token', audience: ['a', 'as', SUBJECT] },
    ],
  });

  const other = await readFile(join(directory, 'other.token'), 'utf8');
  assert.notEqual(await token(), other);
  assert.equal(agent.asked.length, 2);
});
