/** What a configuration of spiffe-helper asks for, and of Scute. Pure. */
import { resolve } from 'node:path';
import type { FileSetConfig, NotifyConfig } from '../config/file-sets.ts';
import { NOTIFY_SIGNALS } from '../config/file-sets.ts';
import type { ConfigIssue } from '../config/issue.ts';
import { err, ok, type Result } from '../lib/result.ts';
import { parseHcl, type HclObject, type HclValue } from './hcl.ts';

export interface HelperConfig {
  /** `unix:///path`. */
  readonly endpoint: string;
  readonly set: FileSetConfig;
  /** A program that is started when the files are there, and sent a signal after each replacement. */
  readonly child: { readonly command: readonly [string, ...string[]]; readonly signal: NodeJS.Signals | undefined } | undefined;
  /** False: write the files once, and exit. */
  readonly daemonMode: boolean;
  /** Sentences: what is not done, or better done otherwise. */
  readonly warnings: readonly string[];
}

export interface HelperSurroundings {
  /** How the file is named in problems. */
  readonly source: string;
  /** What relative paths are relative to. */
  readonly folder: string;
  readonly endpointSocket: string | undefined;
  /** By the command line, which goes before the file. */
  readonly daemonMode: boolean | undefined;
}

const DEFAULT_AGENT = '/tmp/spire-agent/public/api.sock';
const KEYS = {
  agent_address: 'text',
  cmd: 'text',
  cmd_args: 'text',
  pid_file_name: 'text',
  cert_dir: 'text',
  renew_signal: 'text',
  hint: 'text',
  svid_file_name: 'text',
  svid_key_file_name: 'text',
  svid_bundle_file_name: 'text',
  add_intermediates_to_bundle: 'boolean',
  include_federated_domains: 'boolean',
  omit_expired: 'boolean',
  daemon_mode: 'boolean',
  cert_file_mode: 'number',
  key_file_mode: 'number',
  jwt_bundle_file_mode: 'number',
  jwt_svid_file_mode: 'number',
  jwt_bundle_file_name: 'text',
  jwt_svids: 'list',
  health_checks: 'object',
} as const satisfies Record<string, HclValue['kind']>;
type Key = keyof typeof KEYS;

export function readHelperConfig(text: string, surroundings: HelperSurroundings): Result<HelperConfig, readonly ConfigIssue[]> {
  const { source, folder } = surroundings;
  const parsed = parseHcl(text);
  if (!parsed.ok) return err([{ source, line: parsed.error.line, column: parsed.error.column, path: '', message: parsed.error.message }]);
  const object = parsed.value;
  const issues: ConfigIssue[] = [];
  const problem = (key: string, message: string): void => {
    const found = object.get(key);
    issues.push({ source, line: found?.key.line, column: found?.key.column, path: key, message });
  };
  for (const [key, value] of object) {
    const kind = Object.hasOwn(KEYS, key) ? KEYS[key as Key] : undefined;
    if (kind === undefined) problem(key, 'is not a key of spiffe-helper');
    else if (value.kind !== kind) problem(key, `must be ${kind === 'text' ? 'text in quotes' : `a ${kind}`}`);
  }
  const at = valuesOf(object);
  const warnings: string[] = [];

  const names = [at.text('svid_file_name'), at.text('svid_key_file_name'), at.text('svid_bundle_file_name')];
  const [svid = '', key = '', bundle = ''] = names;
  if (names.includes('') && names.some((name) => name !== ''))
    problem('svid_file_name', 'all or none of svid_file_name, svid_key_file_name and svid_bundle_file_name must be given');
  for (const [name, of] of [
    [svid, 'svid_file_name'],
    [key, 'svid_key_file_name'],
    [bundle, 'svid_bundle_file_name'],
  ] as const)
    if (name.includes('/') || name.startsWith('..')) problem(of, `${JSON.stringify(name)} is not the name of a file in cert_dir`);
  if (new Set(names).size < names.filter((name) => name !== '').length) problem('svid_key_file_name', 'two files have the same name');
  if (names.every((name) => name === '')) problem('svid_file_name', 'is required: JWT files alone are not written');
  for (const jwt of ['jwt_bundle_file_name', 'jwt_svids'] as const)
    if (at.text(jwt) !== '' || (at.list(jwt)?.length ?? 0) > 0) problem(jwt, 'is for JWT-SVIDs, which are not written');
  const health = object.get('health_checks');
  if (health?.kind === 'object' && health.value.get('listener_enabled')?.value === true)
    problem('health_checks', 'is not served: use the metrics listener of a configuration of Scute, which has /livez and /readyz');

  const daemonMode = surroundings.daemonMode ?? at.flag('daemon_mode') ?? true;
  const [command, signalName, pidFile] = [at.text('cmd'), at.text('renew_signal'), at.text('pid_file_name')];
  const signal = NOTIFY_SIGNALS.find((name) => name === signalName);
  if (signalName !== '' && signal === undefined) problem('renew_signal', `must be one of ${NOTIFY_SIGNALS.join(', ')}`);
  if (pidFile !== '' && signalName === '') problem('pid_file_name', 'needs renew_signal');
  if (pidFile !== '' && !daemonMode) problem('pid_file_name', 'is for daemon_mode alone');
  if (!daemonMode && command !== '') warnings.push('cmd is ignored, since daemon_mode is false');
  const args = splitArguments(at.text('cmd_args'));
  if (args === undefined) problem('cmd_args', 'has a quotation mark in an argument that does not begin with one, or none at its end');

  const modes = (['cert_file_mode', 'key_file_mode'] as const).map((of) => {
    const mode = at.number(of);
    if (mode !== undefined && (mode < 0 || mode > 0o777)) problem(of, `must be an octal mode such as 0600, and is ${mode} in decimal`);
    return mode;
  });
  const [certFileMode, keyFileMode] = [modes[0] || 0o644, modes[1] || 0o600];
  if ((keyFileMode & 0o007) !== 0)
    warnings.push(`key_file_mode ${keyFileMode.toString(8)} (octal) shows the private key to every local user`);
  if (issues.length > 0) return err(issues);

  const notify: readonly NotifyConfig[] =
    pidFile === '' || signal === undefined ? [] : [{ kind: 'signal', pidFile: resolve(folder, pidFile), signal }];
  const hint = at.text('hint');
  const agent = at.text('agent_address') || surroundings.endpointSocket || DEFAULT_AGENT;
  return ok({
    endpoint: agent.startsWith('unix:') ? agent : `unix://${agent}`,
    daemonMode,
    child: command === '' || !daemonMode ? undefined : { command: [command, ...(args ?? [])], signal },
    warnings,
    set: {
      name: 'spiffe-helper',
      directory: resolve(folder, at.text('cert_dir')),
      layout: 'flat',
      identity: hint === '' ? { by: 'default' } : { by: 'hint', hint },
      format: 'pem',
      keyFormat: 'pkcs8',
      combined: false,
      passwordFile: undefined,
      names: { svid, key, bundle, bundleMap: undefined },
      addIntermediatesToBundle: at.flag('add_intermediates_to_bundle') ?? false,
      mergedBundle: at.flag('include_federated_domains') ?? false,
      ownBundleOnly: true,
      omitExpired: at.flag('omit_expired') ?? false,
      certFileMode,
      keyFileMode,
      directoryMode: 0o755,
      uid: undefined,
      gid: undefined,
      cleanUpOnStop: false,
      unsafeDisk: true,
      anyDirectory: true,
      notifyDelayMs: 0,
      notify,
    },
  });
}

function valuesOf(object: HclObject) {
  return {
    text: (key: Key): string => {
      const found = object.get(key);
      return found?.kind === 'text' ? found.value : '';
    },
    number: (key: Key): number | undefined => {
      const found = object.get(key);
      return found?.kind === 'number' ? found.value : undefined;
    },
    flag: (key: Key): boolean | undefined => {
      const found = object.get(key);
      return found?.kind === 'boolean' ? found.value : undefined;
    },
    list: (key: Key): readonly HclValue[] | undefined => {
      const found = object.get(key);
      return found?.kind === 'list' ? found.value : undefined;
    },
  };
}

/**
 * As spiffe-helper splits them: at each space, but not within quotation marks, in which two stand for one (RFC 4180 with spaces for commas). Undefined if
 * they are not balanced.
 */
export function splitArguments(text: string): readonly string[] | undefined {
  if (text === '') return [];
  const args: string[] = [];
  const ARGUMENT = /(?:"((?:[^"]|"")*)"|([^" ]*))(?: |$)/y;
  ARGUMENT.lastIndex = 0;
  for (;;) {
    const found = ARGUMENT.exec(text);
    if (found === null) return undefined;
    const [all, quoted, plain = ''] = found;
    args.push(quoted?.replaceAll('""', '"') ?? plain);
    if (!all.endsWith(' ')) return args;
    // A space at the end is followed by one more argument, which is empty.
    if (ARGUMENT.lastIndex === text.length) return [...args, ''];
  }
}
