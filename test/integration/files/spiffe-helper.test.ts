import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { chmod, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { startDevDomain } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { startNotified } from '../../support/files/notify-process.ts';
import { startScute } from '../../support/scute-process.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';

const WEB = 'spiffe://example.org/web';

async function startStage(t: TestContext, more: string) {
  const spiffe = await startDevDomain(
    t,
    { name: 'example.org', federatesWith: ['partner.example'], workloads: { web: [WEB] } },
    { name: 'partner.example' },
  );
  const folder = await temporaryFolder(t);
  const directory = join(folder, 'certs');
  await mkdir(directory);
  // As an emptyDir is.
  await chmod(directory, 0o777);
  const file = join(folder, 'helper.conf');
  const lines = [
    `agent_address = "${spiffe.endpoint('web').replace('unix://', '')}"`,
    `cert_dir = "${directory}"`,
    'svid_file_name = "tls.crt"',
    'svid_key_file_name = "tls.key"',
    'svid_bundle_file_name = "ca.pem"',
    more,
  ];
  await writeFile(file, lines.join('\n'));
  const serial = async (): Promise<string> => new X509Certificate(await readFile(join(directory, 'tls.crt'))).serialNumber;
  return { spiffe, folder, directory, file, serial };
}

test('with the configuration of spiffe-helper: its files and no others, warnings where Scute would refuse, and a signal at each rotation', async (t) => {
  const pidFile = join(await temporaryFolder(t), 'app.pid');
  await using application = await startNotified(pidFile);
  const { spiffe, directory, file, serial } = await startStage(
    t,
    `pid_file_name = "${pidFile}"\nrenew_signal = "SIGHUP"\nkey_file_mode = 0640`,
  );
  await using scute = await startScute({ args: ['spiffe-helper', '-config', file] });
  const { next } = await application.line(/^hangup$/);
  const first = await serial();

  await spiffe.rotate('example.org');

  await eventually(async () => assert.notEqual(await serial(), first));
  await application.line(/^hangup$/, { after: next });
  assert.deepEqual((await readdir(directory)).toSorted(), ['ca.pem', 'tls.crt', 'tls.key']);
  assert.equal((await stat(join(directory, 'tls.key'))).mode & 0o777, 0o640);
  assert.equal((await readFile(join(directory, 'ca.pem'), 'utf8')).match(/BEGIN/g)?.length, 1);
  await scute.child.line(/^warning: .* is writable by others/);
});

test('its command is started when the files are there, with our output, is sent the signal at a rotation, and is started anew if it has ended', async (t) => {
  // Nobody ends it but we: it looks itself whether Scute is gone.
  const script = `
    const { ppid } = process;
    process.on('SIGHUP', () => {
      console.log('told', process.pid);
      process.exit();
    });
    setInterval(() => process.ppid === ppid || process.exit(), 50);
    console.log('began', process.pid);`;
  const folder = await temporaryFolder(t);
  const program = join(folder, 'app.cjs');
  await writeFile(program, script);
  const { spiffe, file } = await startStage(
    t,
    `cmd = "${process.execPath}"\ncmd_args = "${program}"\nrenew_signal = "SIGHUP"\ninclude_federated_domains = true`,
  );
  await using scute = await startScute({ args: ['spiffe-helper', '-config', file] });
  const began = (): readonly number[] =>
    scute.child.lines().flatMap((line) => (/^began \d+$/.test(line) ? [Number(line.split(' ')[1])] : []));
  await scute.child.line(/^began \d+$/);

  await spiffe.rotate('example.org');
  await scute.child.line(new RegExp(`^told ${began()[0]}$`));
  // What comes before its end is noticed tells nobody.
  await eventually(async () => {
    await spiffe.rotate('example.org');
    assert.ok(new Set(began()).size >= 2);
  });

  await scute.stop();
});

test('without a daemon the files are written once, and the exit code is 0', async (t) => {
  const { directory, file, serial } = await startStage(t, 'include_federated_domains = true');
  await using scute = await startScute({ args: ['spiffe-helper', `-config=${file}`, '-daemon-mode=false'] });

  assert.deepEqual(await scute.exited, { code: 0, signal: null });

  assert.ok((await serial()).length > 0);
  assert.equal((await readFile(join(directory, 'ca.pem'), 'utf8')).match(/BEGIN/g)?.length, 2);
});
