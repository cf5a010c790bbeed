/**
 * A program of its own, since it uses up its file descriptors: watches a configuration, a policy file and a deny list in the folder that it is
 * given, changes them while there are no descriptors, and then has some again. Prints what it was told meanwhile, and after that.
 */
import { closeSync, openSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createConfigFile } from '../../../src/config/config-file.ts';
import { createDenyFile } from '../../../src/config/policy/deny-file.ts';
import { loadConfig, parsePolicyNow } from '../../../src/config/load.ts';
import { createPolicyFiles } from '../../../src/config/policy/policy-files.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { codeOf } from '../../../src/lib/errors.ts';
import { eventually } from '../eventually.ts';

const [folder = ''] = process.argv.slice(2);
const [config, policy, deny] = ['scute.yaml', 'policy.yaml', 'deny.txt'].map((name) => join(folder, name)) as [string, string, string];

function write(id: string): void {
  const texts = [
    [
      config,
      JSON.stringify({ workloadApi: { endpoint: 'unix:///agent' }, inbound: [{ listen: '127.0.0.1:0', to: '127.0.0.1:1', allow: [id] }] }),
    ],
    [policy, `allow: [${id}]\n...\n`],
    [deny, `ids:\n  - ${id}\n...\n`],
  ] as const;
  for (const [file, text] of texts) {
    writeFileSync(`${file}.new`, text);
    renameSync(`${file}.new`, file);
  }
}

write('spiffe://example.org/a');
const timing = { clock: systemClock, intervalMs: 10 };
const configFile = createConfigFile({ sources: { file: config, flags: {}, env: {} }, ...timing });
const policyFiles = createPolicyFiles({ ...timing, parse: { atStart: parsePolicyNow, later: parsePolicyNow } });
const denyFile = createDenyFile({ file: deny, ...timing });
const told: Record<'config' | 'policy' | 'deny', string[]> = { config: [], policy: [], deny: [] };
configFile.onReload((loaded) => told.config.push(loaded.ok ? 'good' : (loaded.error[0]?.message ?? '')));
policyFiles.onReload((reload) => told.policy.push(reload.ok ? 'good' : (reload.problems[0] ?? '')));
denyFile.onReload((reload) => told.deny.push(reload.ok ? 'good' : reload.problems[0].message));
const inbound = [{ listen: '127.0.0.1:0', to: '127.0.0.1:1', policyFile: policy }];
const used = await loadConfig({
  file: undefined,
  flags: { workloadApi: { endpoint: 'unix:///agent' }, inbound },
  env: {},
  readPolicy: (file) => policyFiles.read(file),
});
if (!used.ok || !(await configFile.load()).ok || !(await denyFile.load()).ok) throw new Error('the files are wrong at the start');
policyFiles.follow(used.value);
write('spiffe://example.org/b');
const held: number[] = [];
try {
  for (;;) held.push(openSync('/dev/null', 'r'));
} catch (cause) {
  if (codeOf(cause) !== 'EMFILE') throw cause;
}
const stop = new AbortController();
let looks = 0;
const watches = [configFile, policyFiles, denyFile].map((file) => file.watch(stop.signal));
const until = (isSo: () => boolean): Promise<void> =>
  eventually(() => (isSo() ? Promise.resolve() : Promise.reject(new Error(JSON.stringify(told)))));
await until(() => Object.values(told).every(({ length }) => length > 0));
// It is tried several times meanwhile.
await until(() => ++looks > 20);
for (const file of held) closeSync(file);
await until(() => Object.values(told).every((texts) => texts.at(-1) === 'good'));
stop.abort();
await Promise.all(watches);
process.stdout.write(`${JSON.stringify(told)}\n`);
