/**
 * Beside the real spiffe-helper: the same configuration, the same agent, and what both make of it. The Go module proxy does not serve that program, so
 * whoever has built it from its source names it: `SPIFFE_HELPER=/path/spiffe-helper npm test -- test/interop/files/spiffe-helper.test.ts`.
 */
import assert from 'node:assert/strict';
import { chmod, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { startChild, type Child } from '../../support/child.ts';
import { eventually } from '../../support/eventually.ts';
import { startNotified } from '../../support/files/notify-process.ts';
import { ask } from '../../support/http/http.ts';
import { createTestAuthority } from '../../support/pki/pki.ts';
import { startScute } from '../../support/scute-process.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import { startJwtAgent, type JwtAgent } from '../../support/tokens/jwt-agent.ts';
import { SUBJECT } from '../../support/tokens/tokens.ts';
import { svidEntry } from '../../support/workload-api.ts';
import { freePort } from '../stage.ts';

const real = process.env['SPIFFE_HELPER'];
const options = real === undefined ? { skip: 'SPIFFE_HELPER does not name a spiffe-helper, which the Go module proxy does not serve' } : {};

const X509 = 'svid_file_name = "tls.crt"\nsvid_key_file_name = "tls.key"\nsvid_bundle_file_name = "ca.pem"';
const JWT =
  'jwt_bundle_file_name = "jwt_bundle.json"\njwt_svids = [{ jwt_audience = "one", jwt_extra_audiences = ["two"], jwt_svid_file_name = "jwt_svid.token" }]';

interface Side {
  readonly directory: string;
  readonly port: number;
  readonly application: Child;
  readonly ended: Promise<number | null>;
  stop(): Promise<number | null>;
}

/** The one and the other, with a directory, a process to be told, and a port for health each. */
async function startBoth(t: TestContext, agent: JwtAgent, settings: string, args: readonly string[] = []) {
  const stops: (() => Promise<unknown>)[] = [];
  // Before their directories go.
  t.after(() => Promise.all(stops.map((stop) => stop())));
  const both = ['real', 'ours'].map(async (who): Promise<Side> => {
    const folder = await temporaryFolder(t);
    const directory = join(folder, 'certs');
    await mkdir(directory);
    await chmod(directory, 0o755);
    const [port, pidFile, file] = [await freePort(), join(folder, 'app.pid'), join(folder, 'helper.conf')];
    const application = await startNotified(pidFile);
    stops.push(() => application.stop());
    const text = settings.replaceAll('PID_FILE', pidFile).replaceAll('PORT', String(port));
    await writeFile(file, `agent_address = "${agent.api.endpoint.replace('unix://', '')}"\ncert_dir = "${directory}"\n${text}`);
    if (who === 'ours') {
      const scute = await startScute({ args: ['spiffe-helper', '-config', file, ...args] });
      stops.push(() => scute.stop());
      return { directory, port, application, ended: scute.exited.then(({ code }) => code), stop: async () => (await scute.stop()).code };
    }
    const helper = await startChild([real ?? '', '-config', file, ...args], { env: { PATH: process.env['PATH'] ?? '' } });
    stops.push(() => helper.stop());
    return { directory, port, application, ended: helper.exited.then(({ code }) => code), stop: async () => (await helper.stop()).code };
  });
  const [theirs, ours] = await Promise.all(both);
  if (theirs === undefined || ours === undefined) throw new Error('there are two');
  return { theirs, ours };
}

function claimsOf(token: string): unknown {
  const { sub, aud, iss } = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()) as Record<string, unknown>;
  return { sub, aud, iss };
}

/** What is in the files, as far as it is the same for whoever asks: each gets tokens of its own. */
async function contentOf(directory: string, name: string): Promise<unknown> {
  const text = await readFile(join(directory, name), 'utf8');
  if (name.endsWith('.token')) return { length: text.trim() === text, claims: claimsOf(text) };
  if (name !== 'jwt_bundle.json') return text;
  const bundles = Object.entries(JSON.parse(text) as Record<string, string>);
  return bundles.map(([domain, jwks]) => [domain, JSON.parse(Buffer.from(jwks, 'base64').toString()) as unknown]);
}

async function filesOf({ directory }: Side): Promise<object> {
  const names = (await readdir(directory)).toSorted();
  const all = names.map(async (name) => {
    const mode = ((await stat(join(directory, name))).mode & 0o7777).toString(8);
    return [name, mode, await contentOf(directory, name)] as const;
  });
  return Promise.all(all);
}

function rotate(agent: JwtAgent): string {
  const authority = createTestAuthority();
  const leaf = authority.issue({ id: SUBJECT });
  agent.api.setX509([svidEntry(authority, leaf, SUBJECT)]);
  return leaf.pem;
}

for (const [what, settings] of [
  ['as its first example has it', X509],
  [
    'with modes of its own',
    `${X509}\n${JWT}\ncert_file_mode = 0444\nkey_file_mode = 0400\njwt_bundle_file_mode = 0640\njwt_svid_file_mode = 0440`,
  ],
  ['with everything else left out', JWT],
  [
    'with intermediates in the bundle, and without what has expired',
    `${X509}\n${JWT}\nadd_intermediates_to_bundle = true\nomit_expired = true`,
  ],
] as const)
  test(`${what}: the same files with the same modes and contents, once and as a daemon`, options, async (t) => {
    const agent = await startJwtAgent(t);
    for (const args of [['-daemon-mode=false'], []]) {
      const { theirs, ours } = await startBoth(t, agent, settings, args);
      if (args.length > 0) assert.deepEqual([await theirs.ended, await ours.ended], [0, 0]);
      await eventually(async () => {
        const [their, our] = await Promise.all([filesOf(theirs), filesOf(ours)]);
        // Once, the real one leaves the other audiences out.
        if (args.length > 0) for (const files of [their, our]) withoutAudiences(files);
        assert.deepEqual(our, their);
        assert.ok((our as readonly unknown[]).length >= 2);
      });
      if (args.length === 0) assert.deepEqual([await theirs.stop(), await ours.stop()], [0, 0]);
    }
  });

function withoutAudiences(files: object): void {
  for (const [, , content] of files as readonly (readonly [string, string, { readonly claims?: { aud?: unknown } }])[])
    if (content.claims !== undefined) delete content.claims.aud;
}

test('the same signals to the process in a file: one for each X.509-SVID, none for a token', options, async (t) => {
  const agent = await startJwtAgent(t);
  agent.lifeSeconds = 6;
  const { theirs, ours } = await startBoth(t, agent, `${X509}\n${JWT}\npid_file_name = "PID_FILE"\nrenew_signal = "SIGHUP"`);
  const hangups = ({ application }: Side): number => application.lines().filter((line) => line === 'hangup').length;
  for (const count of [1, 2, 3]) {
    await eventually(() => Promise.resolve(assert.deepEqual([hangups(theirs), hangups(ours)], [count, count])));
    const signed = agent.signed.length;
    await eventually(() => Promise.resolve(assert.ok(agent.signed.length >= signed + 2)));
    assert.deepEqual([hangups(theirs), hangups(ours)], [count, count]);
    rotate(agent);
  }
});

test('the same health, with the same bodies', options, async (t) => {
  const agent = await startJwtAgent(t);
  const { theirs, ours } = await startBoth(
    t,
    agent,
    `${X509}\n${JWT}\nhealth_checks { listener_enabled = true, bind_port = PORT, liveness_path = "/alive" }`,
  );
  const health = async ({ port, directory }: Side) =>
    Promise.all(
      ['/alive', '/ready', '/live'].map(async (path) => {
        const { status, body, headers } = await ask({ kind: 'tcp', host: '127.0.0.1', port }, path);
        return status === 404 ? status : [status, headers['content-type'], body.replaceAll(directory, '')];
      }),
    );
  await eventually(async () => {
    const [their, our] = await Promise.all([health(theirs), health(ours)]);
    assert.deepEqual(our, their);
    assert.deepEqual(
      their.map((each) => (typeof each === 'number' ? each : each[0])),
      [200, 200, 404],
    );
  });
});
