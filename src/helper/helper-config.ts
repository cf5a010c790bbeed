/** What a configuration of spiffe-helper asks for, and of Scute. Pure. */
import { resolve } from 'node:path';
import type { FileNames, FileSetConfig, NotifyConfig } from '../config/file-sets.ts';
import { NOTIFY_SIGNALS } from '../config/file-sets.ts';
import type { ConfigIssue } from '../config/issue.ts';
import { err, ok, type Result } from '../lib/result.ts';
import { parseHcl, type HclObject, type HclValue, type Place } from './hcl.ts';

export interface HelperConfig {
  /** `unix:///path`. */
  readonly endpoint: string;
  /** As it is written. */
  readonly certDir: string;
  /** Each stands for itself, as in spiffe-helper: the X.509 files, each JWT-SVID, and the JWT bundles. All in one directory. */
  readonly sets: readonly [FileSetConfig, ...FileSetConfig[]];
  /** Undefined: not served. */
  readonly health: HealthConfig | undefined;
  /** A program that is started when the files are there, and sent a signal after each replacement. */
  readonly child: { readonly command: readonly [string, ...string[]]; readonly signal: NodeJS.Signals | undefined } | undefined;
  /** False: write the files once, and exit. */
  readonly daemonMode: boolean;
  /** Sentences: what is not done, or better done otherwise. */
  readonly warnings: readonly string[];
}

/** Where it is told whether the files are written: over HTTP, on every address of this machine. */
export interface HealthConfig {
  readonly port: number;
  readonly livenessPath: string;
  readonly readinessPath: string;
}

/** The name of the set of X.509 files; those of JWT files have that of the file behind it and a slash. */
export const X509_SET = 'spiffe-helper';

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
    issues.push(issueAt(source, found?.key, key, message));
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
  const hasX509 = names.some((name) => name !== '');
  if (names.includes('') && hasX509)
    problem('svid_file_name', 'all or none of svid_file_name, svid_key_file_name and svid_bundle_file_name must be given');
  const jwtBundle = at.text('jwt_bundle_file_name');
  const jwtSvids = (at.list('jwt_svids') ?? []).map((entry) => readJwtSvid(entry, source, issues));
  const seen = new Set<string>();
  for (const { name, of, place } of [
    ...(['svid_file_name', 'svid_key_file_name', 'svid_bundle_file_name', 'jwt_bundle_file_name'] as const).map((of) => ({
      name: at.text(of),
      of,
      place: object.get(of)?.key,
    })),
    ...jwtSvids.map(({ fileName, place }) => ({ name: fileName, of: 'jwt_svids', place })),
  ]) {
    if (name === '') continue;
    if (name.includes('/') || name.startsWith('..') || name.includes('\0'))
      issues.push(issueAt(source, place, of, `${JSON.stringify(name)} is not the name of a file in cert_dir`));
    if (seen.has(name)) issues.push(issueAt(source, place, of, `${JSON.stringify(name)} is the name of another file`));
    seen.add(name);
  }
  if (!hasX509 && jwtBundle === '' && jwtSvids.length === 0)
    problem('svid_file_name', 'is required, or jwt_svids or jwt_bundle_file_name: there is nothing to write');
  const health = readHealth(object.get('health_checks'), source, issues);

  const daemonMode = surroundings.daemonMode ?? at.flag('daemon_mode') ?? true;
  const [command, signalName, pidFile] = [at.text('cmd'), at.text('renew_signal'), at.text('pid_file_name')];
  const signal = NOTIFY_SIGNALS.find((name) => name === signalName);
  if (signalName !== '' && signal === undefined) problem('renew_signal', `must be one of ${NOTIFY_SIGNALS.join(', ')}`);
  if (pidFile !== '' && signalName === '') problem('pid_file_name', 'needs renew_signal');
  if (pidFile !== '' && !daemonMode) problem('pid_file_name', 'is for daemon_mode alone');
  if (!daemonMode && command !== '') warnings.push('cmd is ignored, since daemon_mode is false');
  if (!hasX509 && (command !== '' || pidFile !== '')) warnings.push('cmd and pid_file_name are for X.509 files, and there are none');
  const args = splitArguments(at.text('cmd_args'));
  if (args === undefined) problem('cmd_args', 'has a quotation mark in an argument that does not begin with one, or none at its end');

  const modeOf = (of: 'cert_file_mode' | 'key_file_mode' | 'jwt_bundle_file_mode' | 'jwt_svid_file_mode', standard: number): number => {
    const mode = at.number(of);
    if (mode !== undefined && (mode < 0 || mode > 0o777)) problem(of, `must be an octal mode such as 0600, and is ${mode} in decimal`);
    return mode || standard;
  };
  const [certFileMode, keyFileMode] = [modeOf('cert_file_mode', 0o644), modeOf('key_file_mode', 0o600)];
  const [jwtBundleMode, jwtSvidMode] = [modeOf('jwt_bundle_file_mode', 0o600), modeOf('jwt_svid_file_mode', 0o600)];
  if (hasX509 && (keyFileMode & 0o007) !== 0)
    warnings.push(`key_file_mode ${keyFileMode.toString(8)} (octal) shows the private key to every local user`);
  if (jwtSvids.length > 0 && (jwtSvidMode & 0o007) !== 0)
    warnings.push(`jwt_svid_file_mode ${jwtSvidMode.toString(8)} (octal) shows the tokens to every local user`);
  if (issues.length > 0) return err(issues);

  const notify: readonly NotifyConfig[] =
    pidFile === '' || signal === undefined ? [] : [{ kind: 'signal', pidFile: resolve(folder, pidFile), signal }];
  const hint = at.text('hint');
  const agent = at.text('agent_address') || surroundings.endpointSocket || DEFAULT_AGENT;
  const identity = hint === '' ? ({ by: 'default' } as const) : ({ by: 'hint', hint } as const);
  const common: FileSetConfig = {
    name: X509_SET,
    directory: resolve(folder, at.text('cert_dir')),
    layout: 'flat',
    identity,
    format: 'pem',
    keyFormat: 'pkcs8',
    combined: false,
    passwordFile: undefined,
    names: NO_NAMES,
    jwtSvids: [],
    jwtBundles: 'spiffe-helper',
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
    notify: [],
  };
  const [first, ...more] = [
    ...(hasX509 ? [{ ...common, names: { ...NO_NAMES, svid, key, bundle }, notify }] : []),
    ...jwtSvids.map(({ fileName, audience }) => ({
      ...common,
      name: `${X509_SET}/${fileName}`,
      jwtSvids: [{ fileName, audience, identity }],
      keyFileMode: jwtSvidMode,
    })),
    ...(jwtBundle === ''
      ? []
      : [{ ...common, name: `${X509_SET}/${jwtBundle}`, names: { ...NO_NAMES, jwtBundle }, certFileMode: jwtBundleMode }]),
  ];
  if (first === undefined) throw new Error('there is nothing to write');
  return ok({
    endpoint: agent.startsWith('unix:') ? agent : `unix://${agent}`,
    daemonMode,
    child: command === '' || !daemonMode || !hasX509 ? undefined : { command: [command, ...(args ?? [])], signal },
    warnings,
    certDir: at.text('cert_dir'),
    sets: [first, ...more],
    health: daemonMode ? health : undefined,
  });
}

const NO_NAMES: FileNames = { svid: undefined, key: undefined, bundle: undefined, bundleMap: undefined, jwtBundle: undefined };

function issueAt(source: string, place: Place | undefined, path: string, message: string): ConfigIssue {
  return { source, line: place?.line, column: place?.column, path, message };
}

interface JwtSvidEntry {
  readonly fileName: string;
  readonly audience: readonly string[];
  readonly place: Place;
}

function readJwtSvid(entry: HclValue, source: string, issues: ConfigIssue[]): JwtSvidEntry {
  const problem = (message: string, place: Place = entry): void => void issues.push(issueAt(source, place, 'jwt_svids', message));
  const found = { jwt_audience: '', jwt_svid_file_name: '', jwt_extra_audiences: [] as readonly string[] };
  if (entry.kind !== 'object') problem('must be a list of objects, each in braces');
  for (const [key, value] of entry.kind === 'object' ? entry.value : []) {
    if (key === 'jwt_audience' || key === 'jwt_svid_file_name') {
      if (value.kind === 'text') found[key] = value.value;
      else problem(`${key} must be text in quotes`, value.key);
    } else if (key === 'jwt_extra_audiences') {
      if (value.kind === 'list' && value.value.every((each) => each.kind === 'text')) found[key] = value.value.map((each) => each.value);
      else problem(`${key} must be a list of texts in quotes`, value.key);
    } else problem(`${JSON.stringify(key)} is not a key of spiffe-helper`, value.key);
  }
  for (const key of ['jwt_audience', 'jwt_svid_file_name'] as const)
    if (entry.kind === 'object' && found[key] === '') problem(`${key} is required`);
  const audience = [...new Set([found.jwt_audience, ...found.jwt_extra_audiences])];
  return { fileName: found.jwt_svid_file_name, audience, place: { line: entry.line, column: entry.column } };
}

const HEALTH_KEYS = { listener_enabled: 'boolean', bind_port: 'number', liveness_path: 'text', readiness_path: 'text' } as const;

function readHealth(
  found: (HclValue & { readonly key: Place }) | undefined,
  source: string,
  issues: ConfigIssue[],
): HealthConfig | undefined {
  if (found?.kind !== 'object') return undefined;
  const problem = (key: string, message: string): void =>
    void issues.push(issueAt(source, found.value.get(key)?.key, `health_checks.${key}`, message));
  // Keys that it does not know, spiffe-helper passes over here.
  for (const [key, kind] of Object.entries(HEALTH_KEYS)) {
    const value = found.value.get(key);
    if (value !== undefined && value.kind !== kind) problem(key, `must be ${kind === 'text' ? 'text in quotes' : `a ${kind}`}`);
  }
  const at = valuesOf<keyof typeof HEALTH_KEYS>(found.value);
  const port = at.number('bind_port') || 8081;
  if (port < 1 || port > 65_535) problem('bind_port', `${port} is not the number of a port`);
  const [livenessPath, readinessPath] = [at.text('liveness_path') || '/live', at.text('readiness_path') || '/ready'];
  for (const [key, path] of [
    ['liveness_path', livenessPath],
    ['readiness_path', readinessPath],
  ] as const)
    if (!/^\/[\w./~-]*$/.test(path)) problem(key, `${JSON.stringify(path)} is not the path of a URL`);
  if (livenessPath === readinessPath) problem('readiness_path', 'is the same as liveness_path');
  return at.flag('listener_enabled') === true ? { port, livenessPath, readinessPath } : undefined;
}

function valuesOf<K extends string = Key>(object: HclObject) {
  return {
    text: (key: K): string => {
      const found = object.get(key);
      return found?.kind === 'text' ? found.value : '';
    },
    number: (key: K): number | undefined => {
      const found = object.get(key);
      return found?.kind === 'number' ? found.value : undefined;
    },
    flag: (key: K): boolean | undefined => {
      const found = object.get(key);
      return found?.kind === 'boolean' ? found.value : undefined;
    },
    list: (key: K): readonly HclValue[] | undefined => {
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
