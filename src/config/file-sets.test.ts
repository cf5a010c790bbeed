import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setOf } from '../../test/support/files/files.ts';
import { formatIssues, judge } from './issue.ts';
import { createConfigSchema } from './schema.ts';
import { parseYaml } from './yaml.ts';

const schema = createConfigSchema({
  groupId: () => undefined,
  user: (name) => (name === 'postgres' ? { name, uid: 999, gid: 999, home: '/' } : undefined),
});

/** What is wrong with `files`, which begins at line 2. */
function problems(files: string): string[] {
  const raw = parseYaml(`workloadApi: { endpoint: unix:///run/agent.sock }\n${files}`, 'scute.yaml');
  assert.ok(raw.ok);
  const judged = judge(schema, raw.value);
  return judged.ok ? [] : formatIssues(judged.error).split('\n');
}

test('a set needs nothing but a directory, and its files are named as spiffe-helper names them', () => {
  assert.deepEqual(problems('files: [{ directory: /run/web }]'), []);
  const set = setOf({ directory: '/run/web' });
  assert.deepEqual(set.names, {
    svid: 'svid.pem',
    key: 'svid_key.pem',
    bundle: 'svid_bundle.pem',
    bundleMap: 'svid_bundles.json',
    jwtBundle: undefined,
  });
  assert.deepEqual([set.name, set.keyFileMode, set.certFileMode, set.directoryMode], ['files-0', 0o600, 0o644, 0o755]);
  assert.deepEqual(setOf({ directory: '/run/web', format: 'pkcs12', passwordFile: '/etc/password' }).names, {
    svid: 'svid.p12',
    key: undefined,
    bundle: 'svid_bundle.p12',
    bundleMap: 'svid_bundles.json',
    jwtBundle: undefined,
  });
});

test('each thing that is wrong with a set is named with its line and column', () => {
  for (const [files, problem] of [
    ['files: [{ directory: run/web }]', 'scute.yaml:2:22 files[0].directory: must be an absolute path, without control characters'],
    [
      'files: [{ directory: /run/../etc }]',
      'scute.yaml:2:22 files[0].directory: must be a plain path: no "//", "." or "..", and no slash at the end',
    ],
    [
      'files: [{ directory: /run/web, svidFileName: ../passwd }]',
      'scute.yaml:2:46 files[0].svidFileName: must be the name of a file, not a path: letters, digits, "-", "_" and ".", no "." ahead',
    ],
    [
      'files: [{ directory: /run/web, svidKeyFileName: ..data }]',
      'scute.yaml:2:49 files[0].svidKeyFileName: must be the name of a file, not a path: letters, digits, "-", "_" and ".", no "." ahead',
    ],
    [
      'files: [{ directory: /run/web }, { directory: /run/web }]',
      'scute.yaml:2:47 files[1].directory: /run/web is the directory of files[0]',
    ],
    [
      'files: [{ directory: /run/web }, { directory: /run/web/inner }]',
      'scute.yaml:2:47 files[1].directory: /run/web/inner and /run/web of files[0] are one within the other',
    ],
    [
      'files: [{ name: a, directory: /run/web }, { name: a, directory: /run/b }]',
      'scute.yaml:2:43 files[1]: the name "a" is taken by files[0]',
    ],
    [
      'files: [{ directory: /run/web, keyFileMode: "0644" }]',
      'scute.yaml:2:45 files[0].keyFileMode: would show the private key to every local user: use group',
    ],
    [
      'files: [{ directory: /run/web, directoryMode: "0777" }]',
      'scute.yaml:2:47 files[0].directoryMode: would let others change what is trusted',
    ],
    ['files: [{ directory: /run/web, owner: nobody }]', 'scute.yaml:2:39 files[0].owner: there is no user "nobody"'],
    ['files: [{ directory: /run/web, passwordFile: /etc/p }]', 'scute.yaml:2:46 files[0].passwordFile: is for pkcs12'],
    [
      'files: [{ directory: /run/web, format: pkcs12 }]',
      'scute.yaml:2:9 files[0].passwordFile: is required: a file with the password of the stores',
    ],
    ['files: [{ directory: /run/web, format: der, combined: true }]', 'scute.yaml:2:55 files[0].combined: is for pem'],
    [
      'files: [{ directory: /run/web, combined: true, svidKeyFileName: k.pem }]',
      'scute.yaml:2:65 files[0].svidKeyFileName: is for sets that are not combined',
    ],
    [
      'files: [{ directory: /run/web, svidKeyFileName: svid.pem }]',
      'scute.yaml:2:49 files[0].svidKeyFileName: "svid.pem" is the name of another file of the set',
    ],
    [
      'files: [{ directory: /run/web, svidKeyFileName: svid_bundle.key.pem }]',
      'scute.yaml:2:49 files[0].svidKeyFileName: "svid_bundle.key.pem" may be the bundle of another trust domain, as svidBundleFileName is',
    ],
    [
      'files: [{ directory: /run/web, x509: false }]',
      'scute.yaml:2:38 files[0].x509: leaves nothing to write: it needs jwtSvids or jwtBundleFileName',
    ],
    [
      'files: [{ directory: /run/web, x509: false, jwtBundleFileName: b.json, svidFileName: a }]',
      'scute.yaml:2:86 files[0].svidFileName: is for sets with x509',
    ],
    [
      'files: [{ directory: /run/web, x509: false, jwtBundleFileName: b.json, format: der }]',
      'scute.yaml:2:80 files[0].format: is for sets with x509',
    ],
    [
      'files: [{ directory: /run/web, jwtSvids: [{ fileName: ../t, audience: [a] }] }]',
      'scute.yaml:2:55 files[0].jwtSvids[0].fileName: must be the name of a file, not a path: letters, digits, "-", "_" and ".", no "." ahead',
    ],
    [
      'files: [{ directory: /run/web, jwtSvids: [{ fileName: t, audience: [a] }, { fileName: t, audience: [b] }] }]',
      'scute.yaml:2:87 files[0].jwtSvids[1].fileName: "t" is the name of another file of the set',
    ],
    [
      'files: [{ directory: /run/web, jwtSvids: [{ fileName: svid_key.pem, audience: [a] }] }]',
      'scute.yaml:2:55 files[0].jwtSvids[0].fileName: "svid_key.pem" is the name of another file of the set',
    ],
    [
      'files: [{ directory: /run/web, jwtBundleFileName: jwt.json, jwtSvids: [{ fileName: jwt.a.json, audience: [a] }] }]',
      'scute.yaml:2:84 files[0].jwtSvids[0].fileName: "jwt.a.json" may be the bundle of another trust domain, as jwtBundleFileName is',
    ],
    [
      'files: [{ directory: /run/web, jwtBundleFileName: svid_bundle.jwt.pem }]',
      'scute.yaml:2:51 files[0].jwtBundleFileName: "svid_bundle.jwt.pem" may be the bundle of another trust domain, as svidBundleFileName is',
    ],
    [
      'files: [{ directory: /run/web, svidBundleFileName: a, jwtBundleFileName: a. }]',
      'scute.yaml:2:74 files[0].jwtBundleFileName: "a." may be the bundle of another trust domain, as svidBundleFileName is',
    ],
    [
      'files: [{ directory: /run/web, svidBundleFileName: a..pem, jwtBundleFileName: a.pem }]',
      'scute.yaml:2:52 files[0].svidBundleFileName: "a..pem" may be the bundle of another trust domain, as jwtBundleFileName is',
    ],
    [
      'files: [{ directory: /run/web, jwtSvids: [{ fileName: t, audience: [a, a] }] }]',
      'scute.yaml:2:68 files[0].jwtSvids[0].audience: has an audience twice',
    ],
    [
      'files: [{ directory: /run/web, jwtSvids: [{ fileName: t, audience: ["a b"] }] }]',
      'scute.yaml:2:69 files[0].jwtSvids[0].audience[0]: must be 1 to 2048 visible ASCII characters',
    ],
    [
      'files: [{ directory: /run/web, notify: [{ signal: SIGHUP }] }]',
      'scute.yaml:2:41 files[0].notify[0]: needs one of pidFile, command, child and url',
    ],
    [
      'files: [{ directory: /run/web, notify: [{ pidFile: /run/a, command: [/bin/true] }] }]',
      'scute.yaml:2:41 files[0].notify[0]: needs one of pidFile, command, child and url',
    ],
    [
      'files: [{ directory: /run/web, notify: [{ command: [/bin/true], timeout: 2h }] }]',
      'scute.yaml:2:74 files[0].notify[0].timeout: is too long: 1h at most',
    ],
    [
      'files: [{ directory: /run/web, notify: [{ command: [nginx] }] }]',
      'scute.yaml:2:52 files[0].notify[0].command: must begin with the absolute path of a program',
    ],
    [
      'files: [{ directory: /run/web, notify: [{ command: [/bin/true], signal: SIGHUP }] }]',
      'scute.yaml:2:73 files[0].notify[0].signal: is for pidFile',
    ],
    [
      'files: [{ directory: /run/web, notify: [{ child: SIGHUP, signal: SIGHUP }] }]',
      'scute.yaml:2:66 files[0].notify[0].signal: is for pidFile',
    ],
    [
      'files: [{ directory: /run/web, notify: [{ child: SIGKILL }] }]',
      'scute.yaml:2:50 files[0].notify[0].child: must be one of SIGHUP, SIGUSR1, SIGUSR2, SIGWINCH, SIGINT, SIGQUIT, SIGTERM',
    ],
    [
      'files: [{ directory: /run/web, notify: [{ url: "http://example.org/" }] }]',
      'scute.yaml:2:48 files[0].notify[0].url: "http://example.org/" is not on this machine: use a loopback address',
    ],
    [
      'files: [{ directory: /run/web, notify: [{ url: "https://127.0.0.1/" }] }]',
      'scute.yaml:2:48 files[0].notify[0].url: "https://127.0.0.1/" is not of the form http://HOST:PORT/PATH, without user info and fragment',
    ],
  ] as const)
    assert.deepEqual(problems(files), [problem], files);
  assert.match(
    problems('files: [{ directory: /run/web, notify: [{ pidFile: /run/a, signal: SIGKILL }] }]')[0] ?? '',
    /scute\.yaml:2:68 .*signal/,
  );
});

test('an owner may be named, and a URL have an address of version 6', () => {
  assert.deepEqual(problems('files: [{ directory: /run/web, owner: postgres, notify: [{ url: "http://[::1]:8080/reload" }] }]'), []);
});
