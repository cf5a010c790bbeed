import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import type { DevDomain } from '../../src/devdomain/dev-domain.ts';
import { type Child, type Finished, runChild, startChild } from '../support/child.ts';
import { startDevDomain } from '../support/dev-domain.ts';
import { needs, part } from './parts.ts';
import {
  type EchoApplication,
  issueFiles,
  type PemFiles,
  refusal,
  type RunningSide,
  startEcho,
  startInbound,
  temporaryFolder,
} from './stage.ts';

const API = 'spiffe://example.org/api';
const WEB = 'spiffe://example.org/web';

interface Stage extends RunningSide {
  readonly spiffe: DevDomain;
  readonly echo: EchoApplication;
  readonly files: PemFiles;
}

async function startStage(t: TestContext): Promise<Stage> {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { api: [API] } });
  const echo = await startEcho(t);
  const side = await startInbound(t, { endpoint: spiffe.endpoint('api'), to: echo.address, allow: [WEB] });
  return { ...side, spiffe, echo, files: await issueFiles(t, spiffe, WEB) };
}

const identity = ({ files }: Stage): string[] => ['-cert', files.chain, '-key', files.key, '-cert_chain', files.chain];
const argv = (stage: Stage, args: readonly string[]): [string, ...string[]] => [
  part('openssl'),
  's_client',
  '-connect',
  stage.address,
  '-CAfile',
  stage.files.authorities,
  ...args,
];

/** Says one line, waits for the answer in upper case, and leaves with `Q`. */
async function converse(t: TestContext, stage: Stage, ...args: readonly string[]): Promise<Child> {
  const child = await startChild(argv(stage, args));
  t.after(() => child.stop().then(() => undefined));
  child.write('hello there\n');
  await child.line(/HELLO THERE/);
  return child;
}

/** Runs a client that is expected to fail, and gives what it printed. */
function attempt(stage: Stage, ...args: readonly string[]): Promise<Finished> {
  return runChild(argv(stage, args), { input: 'hello there\n', withinMs: 90_000 });
}

for (const version of ['-tls1_2', '-tls1_3'] as const) {
  test(`openssl s_client ${version} with an SVID that is allowed talks to the application`, needs('openssl'), async (t) => {
    const stage = await startStage(t);

    const child = await converse(t, stage, version, ...identity(stage));

    assert.match(child.stdout(), /Verify return code: 0 \(ok\)/);
    assert.match(child.stdout(), version === '-tls1_2' ? /Protocol *: TLSv1\.2/ : /TLSv1\.3, Cipher is TLS_/);
  });

  test(`openssl s_client ${version} without a certificate is refused`, needs('openssl'), async (t) => {
    const stage = await startStage(t);

    const { stdout } = await attempt(stage, version);

    assert.doesNotMatch(stdout, /HELLO/);
    await refusal(stage.scute, 'no_certificate');
    assert.equal(stage.echo.connections(), 0);
  });

  test(`openssl s_client ${version} with an SVID that another authority signed is refused`, needs('openssl'), async (t) => {
    const stage = await startStage(t);
    const elsewhere = await startDevDomain(t, { name: 'example.org' });
    const forged = await issueFiles(t, elsewhere, WEB);

    const { stdout } = await attempt(stage, version, '-cert', forged.chain, '-key', forged.key);

    assert.doesNotMatch(stdout, /HELLO/);
    await refusal(stage.scute, 'untrusted_chain');
    assert.equal(stage.echo.connections(), 0);
  });
}

for (const version of ['-tls1', '-tls1_1'] as const) {
  test(`openssl s_client ${version} is refused`, needs('openssl'), async (t) => {
    const stage = await startStage(t);

    // Its own security level would keep it from offering the old version at all.
    const { stdout, stderr } = await attempt(stage, version, '-cipher', 'DEFAULT:@SECLEVEL=0', ...identity(stage));

    assert.match(stderr, /alert protocol version/);
    assert.doesNotMatch(stdout, /HELLO/);
    assert.equal(stage.echo.connections(), 0);
  });
}

test('openssl s_client finds no cipher suite of TLS 1.2 without forward secrecy or AEAD', needs('openssl'), async (t) => {
  const stage = await startStage(t);
  const weak = [
    'AES128-GCM-SHA256',
    'ECDHE-ECDSA-AES128-SHA256',
    'ECDHE-ECDSA-AES128-SHA',
    'ECDHE-ECDSA-AES128-CCM8',
    'ECDHE-ECDSA-CAMELLIA128-SHA256',
  ];

  for (const cipher of weak) {
    const { stderr } = await attempt(stage, '-tls1_2', '-cipher', `${cipher}:@SECLEVEL=0`, ...identity(stage));

    assert.match(stderr, /alert handshake failure/, cipher);
  }
});

test('a renegotiation in TLS 1.2 is refused', needs('openssl'), async (t) => {
  const stage = await startStage(t);
  const child = await converse(t, stage, '-tls1_2', ...identity(stage));

  child.write('R\n');
  await child.line(/RENEGOTIATING/);
  await child.exited;

  assert.match(child.stderr(), /no renegotiation/);
});

for (const version of ['-tls1_2', '-tls1_3'] as const) {
  test(`no session of openssl s_client ${version} is resumed`, needs('openssl'), async (t) => {
    const stage = await startStage(t);
    const session = join(await temporaryFolder(t), 'session.pem');

    const first = await converse(t, stage, version, '-sess_out', session, ...identity(stage));
    first.write('Q\n');
    await first.exited;
    // In TLS 1.3 OpenSSL hands out tickets even so, of sessions that it then does not know; in TLS 1.2 there may be none to keep.
    const again = existsSync(session) ? ['-sess_in', session] : [];
    const second = await converse(t, stage, version, ...again, ...identity(stage));

    for (const child of [first, second]) {
      assert.match(child.stdout(), /^New, TLS/m);
      assert.doesNotMatch(child.stdout(), /^Reused/m);
    }
    assert.equal(stage.echo.connections(), 2);
  });
}

test('`openssl s_client -reconnect` never resumes', needs('openssl'), async (t) => {
  const stage = await startStage(t);

  const { stdout } = await attempt(stage, '-tls1_2', '-reconnect', ...identity(stage));

  assert.equal(stdout.match(/^New, TLS/gm)?.length, 6);
  assert.doesNotMatch(stdout, /Reused/);
});
