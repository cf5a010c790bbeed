/** `files`: the sets of files that a configuration asks for, and what each must fulfil. Pure. */
import * as z from 'zod';
import type { SvidChoice } from '../identity/snapshot.ts';
import { tokenText } from './sections/credentials.ts';
import { isIpAddress, isLocal } from './units.ts';
import * as field from './fields.ts';

export const FILE_LAYOUTS = ['linked', 'flat'] as const;
export const FILE_FORMATS = ['pem', 'der', 'pkcs12'] as const;
export const KEY_FORMATS = ['pkcs8', 'pkcs1', 'sec1'] as const;
export const NOTIFY_SIGNALS = ['SIGHUP', 'SIGUSR1', 'SIGUSR2', 'SIGWINCH', 'SIGINT', 'SIGQUIT', 'SIGTERM'] as const;
export const NOTIFY_METHODS = ['POST', 'PUT', 'GET'] as const;

/** A directory with an SVID, its key and trust bundles, with JWT-SVIDs, or with all of them, which is replaced whole. */
export interface FileSetConfig {
  /** Unique over all sets. */
  readonly name: string;
  /** Absolute. */
  readonly directory: string;
  /** `linked`: one symbolic link is swapped; `flat`: each file is replaced by itself. */
  readonly layout: (typeof FILE_LAYOUTS)[number];
  readonly identity: SvidChoice;
  readonly format: (typeof FILE_FORMATS)[number];
  readonly keyFormat: (typeof KEY_FORMATS)[number];
  /** Key and chain in one file. */
  readonly combined: boolean;
  /** Present for PKCS#12. */
  readonly passwordFile: string | undefined;
  readonly names: FileNames;
  readonly jwtSvids: readonly JwtFileConfig[];
  /** `apart`: one JWKS for each trust domain; `spiffe-helper`: all of them in one file, as that program has it. */
  readonly jwtBundles: 'apart' | 'spiffe-helper';
  readonly addIntermediatesToBundle: boolean;
  readonly mergedBundle: boolean;
  /** No bundle of another trust domain, unless merged: as spiffe-helper has it. */
  readonly ownBundleOnly: boolean;
  readonly omitExpired: boolean;
  /** Permission bits. */
  readonly certFileMode: number;
  readonly keyFileMode: number;
  readonly directoryMode: number;
  /** Those of the process if undefined. */
  readonly uid: number | undefined;
  readonly gid: number | undefined;
  readonly cleanUpOnStop: boolean;
  readonly unsafeDisk: boolean;
  /** Whatever the directory is, and whose the files that stand there: as spiffe-helper has it. */
  readonly anyDirectory: boolean;
  /** How long after a replacement nothing more must come before anybody is told. */
  readonly notifyDelayMs: number;
  readonly notify: readonly NotifyConfig[];
}

/** Undefined: it is not written. */
export interface FileNames {
  readonly svid: string | undefined;
  /** Undefined also where the key is in the file of the SVID. */
  readonly key: string | undefined;
  readonly bundle: string | undefined;
  readonly bundleMap: string | undefined;
  readonly jwtBundle: string | undefined;
}

/** A file with a JWT-SVID. */
export interface JwtFileConfig {
  readonly fileName: string;
  /** Whom it is for: all of them. */
  readonly audience: readonly string[];
  readonly identity: SvidChoice;
}

/** Who is told that a set was replaced. */
export type NotifyConfig =
  | { readonly kind: 'signal'; readonly pidFile: string; readonly signal: NodeJS.Signals }
  | { readonly kind: 'command'; readonly command: readonly [string, ...string[]]; readonly timeoutMs: number }
  | { readonly kind: 'child'; readonly signal: NodeJS.Signals }
  | { readonly kind: 'http'; readonly url: string; readonly method: string; readonly timeoutMs: number };

const EXTENSIONS: Readonly<Record<FileSetConfig['format'], string>> = { pem: 'pem', der: 'der', pkcs12: 'p12' };

/** One part of a path. What begins with a dot is ours: the sets themselves. */
const fileName = z
  .string()
  .regex(/^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/, 'must be the name of a file, not a path: letters, digits, "-", "_" and ".", no "." ahead');

const directory = field.absolutePath.refine(
  (path) => !/\/\/|\/\.{1,2}(?:\/|$)|\/$/.test(path),
  'must be a plain path: no "//", "." or "..", and no slash at the end',
);

/** Answers nothing but whether it was taken, and goes over plain HTTP. */
const notifyUrl = z.string().superRefine((text, context) => {
  const url = URL.parse(text);
  const host = url?.hostname.replace(/^\[(.*)\]$/, '$1') ?? '';
  const problem =
    url === null || url.protocol !== 'http:' || url.username !== '' || url.password !== '' || url.hash !== ''
      ? 'is not of the form http://HOST:PORT/PATH, without user info and fragment'
      : isLocal({ kind: 'tcp', host, port: 0 }) && (host === 'localhost' || isIpAddress(host))
        ? undefined
        : 'is not on this machine: use a loopback address';
  if (problem !== undefined) context.addIssue({ code: 'custom', message: `${JSON.stringify(text.slice(0, 200))} ${problem}` });
});

const timeout = field.timerDuration.optional().meta({
  description: '`command` and `url`: how long it may take; `10s` if left out. All processes of a command are ended then',
  pattern: field.durationPattern,
});

const DEFAULT_TIMEOUT_MS = 10_000;

const notify = z
  .strictObject({
    pidFile: field.absolutePath.optional().meta({
      description: 'a file with the number of a process, which is sent `signal`; both must belong to root or to the user of Scute',
    }),
    signal: z.enum(NOTIFY_SIGNALS).optional().meta({ description: '`pidFile`: what it is sent; `SIGHUP` if left out' }),
    command: z
      .array(
        z
          .string()
          .max(4096)
          .refine((text) => !text.includes('\0'), 'has a zero byte'),
      )
      .min(1)
      .max(100)
      .refine(([program]) => program?.startsWith('/') === true, 'must begin with the absolute path of a program')
      .optional()
      .meta({ description: 'or a program with its arguments, which no shell reads' }),
    child: z.enum(NOTIFY_SIGNALS).optional().meta({
      description: 'or what the application that `scute exec` runs is sent; one that was started after the replacement is sent nothing',
    }),
    url: notifyUrl.optional().meta({ description: 'or what is asked over HTTP: `http://127.0.0.1:PORT/PATH`' }),
    method: z.enum(NOTIFY_METHODS).optional().meta({ description: '`url`: how; `POST` if left out' }),
    timeout,
  })
  .superRefine((entry, context) => {
    const kinds = (['pidFile', 'command', 'child', 'url'] as const).filter((key) => entry[key] !== undefined);
    const [kind] = kinds;
    if (kinds.length !== 1) context.addIssue({ code: 'custom', message: 'needs one of pidFile, command, child and url' });
    else
      for (const [key, owners] of [
        ['signal', ['pidFile']],
        ['method', ['url']],
        ['timeout', ['command', 'url']],
      ] as const)
        if (entry[key] !== undefined && !(owners as readonly unknown[]).includes(kind))
          context.addIssue({ code: 'custom', path: [key], message: `is for ${owners.join(' and ')}` });
  })
  .transform((entry): NotifyConfig => {
    const timeoutMs = entry.timeout ?? DEFAULT_TIMEOUT_MS;
    if (entry.pidFile !== undefined) return { kind: 'signal', pidFile: entry.pidFile, signal: entry.signal ?? 'SIGHUP' };
    if (entry.child !== undefined) return { kind: 'child', signal: entry.child };
    if (entry.url !== undefined) return { kind: 'http', url: entry.url, method: entry.method ?? 'POST', timeoutMs };
    const [program = '', ...args] = entry.command ?? [];
    return { kind: 'command', command: [program, ...args], timeoutMs };
  });

const fileMode = (standard: string, description: string) =>
  field.socketMode.prefault(standard).meta({ description: `${description}, in quotes`, pattern: '^0?[0-7]{3}$' });

const MAX_JWT_FILES = 16;
const MAX_AUDIENCES = 16;

const jwtSvid = z.strictObject({
  fileName: fileName.meta({ description: 'name of the file, which has the token and nothing else' }),
  audience: z
    .array(tokenText)
    .min(1)
    .max(MAX_AUDIENCES)
    .refine((names) => new Set(names).size === names.length, 'has an audience twice')
    .meta({ description: 'whom the token is for: one token for all of them' }),
  spiffeId: field.spiffeId.optional().meta({ description: 'whose token, of several identities; that of `identity` if left out' }),
});

/** Keys that say how certificates are written. */
const OF_X509 = [
  'passwordFile',
  'combined',
  'svidFileName',
  'svidKeyFileName',
  'svidBundleFileName',
  'addIntermediatesToBundle',
  'mergedBundle',
] as const;

/** What the schema of a set needs of its surroundings. */
export interface FileSetParts {
  readonly identity: z.ZodType<SvidChoice | undefined>;
  readonly group: z.ZodType<number, string | number>;
  readonly user: z.ZodType<number, string | number>;
  /** What is wrong with a directory as it is now; undefined if nothing is, or nobody has looked. */
  readonly directoryProblem: (path: string, unsafeDisk: boolean) => string | undefined;
  /** False: there is no application that could be told. */
  readonly runsApplication: boolean | undefined;
}

export function fileSetSchema({ identity, group, user, directoryProblem, runsApplication }: FileSetParts) {
  return z
    .strictObject({
      name: field.listenerName
        .optional()
        .meta({ description: 'name in logs and metrics, unique over all sets; `files-0`, `files-1` … by position if left out' }),
      directory: directory.meta({
        description:
          "where the set goes, and nothing else: an absolute path on a file system in memory (tmpfs, ramfs). It is made if it is not there, and must belong to Scute's user or root and be writable by no other",
      }),
      layout: z.enum(FILE_LAYOUTS).prefault('linked').meta({
        description:
          '`linked`: a set is written beside the one before, and one symbolic link (`..data`) is swapped; `flat`: for programs that follow no links, each file by itself: bundles, key, SVID',
      }),
      identity: identity.meta({ description: 'which of several SVIDs; the first that the Workload API gives if left out' }),
      format: z.enum(FILE_FORMATS).prefault('pem').meta({
        description: '`pem`; `der`; or `pkcs12`: key and chain in one key store, each bundle in a trust store, as Java reads them',
      }),
      keyFormat: z.enum(KEY_FORMATS).prefault('pkcs8').meta({
        description: '`pem` and `der`: how the key is written: `pkcs8`; `pkcs1`, which RSA keys alone have; `sec1`, EC keys',
      }),
      combined: z.boolean().prefault(false).meta({ description: '`pem`: key and chain in one file, `svidFileName`, in this order' }),
      passwordFile: field.absolutePath.optional().meta({
        description: '`pkcs12`: a file with the password of the stores, read at each replacement. Required',
      }),
      svidFileName: fileName.optional().meta({ description: 'the SVID and its intermediates; `svid.pem` (`.der`, `.p12`) if left out' }),
      svidKeyFileName: fileName.optional().meta({ description: 'its private key; `svid_key.pem` (`.der`) if left out' }),
      svidBundleFileName: fileName.optional().meta({
        description:
          'the trust bundle of our trust domain; `svid_bundle.pem` (`.der`, `.p12`) if left out. Those of others are beside it, each in a file of its own: `svid_bundle.partner.example.pem`',
      }),
      bundleMapFileName: fileName.optional().meta({
        description: 'all trust bundles as a SPIFFE bundle map, in JSON; `svid_bundles.json` if left out, and none with `x509: false`',
      }),
      x509: z.boolean().prefault(true).meta({
        description: 'with `false` no SVID, key and X.509 trust bundles are written, but JWT files alone',
      }),
      jwtSvids: z.array(jwtSvid).max(MAX_JWT_FILES).prefault([]).meta({
        description:
          'JWT-SVIDs, each in a file of its own with the mode of a key; renewed at half of their life. Whoever may read one is us to its audience',
      }),
      jwtBundleFileName: fileName.optional().meta({
        description:
          'the JWT bundle of our trust domain, a JWKS, such as `jwt_bundle.json`; those of others beside it as with `svidBundleFileName`, and all of them in the bundle map. None are written if left out',
      }),
      addIntermediatesToBundle: z
        .boolean()
        .prefault(false)
        .meta({ description: '`pem` and `der`: intermediates go into the bundle of our trust domain, not behind the SVID' }),
      mergedBundle: z.boolean().prefault(false).meta({
        description:
          'all trust bundles in `svidBundleFileName`, for programs that read one file: whoever reads it lets every trust domain vouch for every name',
      }),
      omitExpired: z.boolean().prefault(false).meta({ description: 'leave authorities out of bundles once they have expired' }),
      certFileMode: fileMode('0644', 'permission bits of files without a key'),
      keyFileMode: fileMode('0600', 'permission bits of files with a key, none for all'),
      directoryMode: fileMode('0755', 'permission bits of directories'),
      owner: user
        .optional()
        .meta({ description: "who owns the files, name or number, which only root can give away; Scute's user if left out" }),
      group: group.optional().meta({ description: 'the group of the files, name or number; that of the process if left out' }),
      cleanUpOnStop: z.boolean().prefault(false).meta({ description: 'take the set away when Scute stops' }),
      unsafeDisk: z.boolean().prefault(false).meta({
        description: 'let the private key be on something else than tmpfs or ramfs, where it may outlive its deletion',
      }),
      notifyDelay: field.duration.prefault('200ms').meta({
        description: 'how long after a replacement there must be no other until `notify`; ten times as long at most',
        pattern: field.durationPattern,
      }),
      notify: z.array(notify).max(16).prefault([]).meta({
        description: 'who is told after each replacement, and again until it has worked, each by itself',
      }),
    })
    .superRefine((entry, context) => {
      const problem = (key: string, message: string): void => context.addIssue({ code: 'custom', path: [key], message });
      const only = (format: string, keys: readonly (keyof typeof entry)[]): void => {
        for (const key of keys) if (entry[key] !== undefined && entry[key] !== false) problem(key, `is for ${format}`);
      };
      if (!entry.x509) {
        only('sets with x509', OF_X509);
        if (entry.format !== 'pem') problem('format', 'is for sets with x509');
        if (entry.keyFormat !== 'pkcs8') problem('keyFormat', 'is for sets with x509');
        if (entry.jwtSvids.length === 0 && entry.jwtBundleFileName === undefined)
          problem('x509', 'leaves nothing to write: it needs jwtSvids or jwtBundleFileName');
      } else if (entry.format === 'pkcs12') {
        only('pem and der', ['svidKeyFileName', 'addIntermediatesToBundle']);
        if (entry.keyFormat !== 'pkcs8') problem('keyFormat', 'is for pem and der');
        if (entry.passwordFile === undefined) problem('passwordFile', 'is required: a file with the password of the stores');
      } else only('pkcs12', ['passwordFile']);
      if (entry.format !== 'pem') only('pem', ['combined']);
      if (entry.combined) only('sets that are not combined', ['svidKeyFileName']);
      if ((entry.keyFileMode & 0o007) !== 0) problem('keyFileMode', 'would show the private key to every local user: use group');
      if ((entry.directoryMode & 0o022) !== 0 || (entry.certFileMode & 0o022) !== 0 || (entry.keyFileMode & 0o022) !== 0)
        problem((entry.directoryMode & 0o022) !== 0 ? 'directoryMode' : 'certFileMode', 'would let others change what is trusted');
      checkNames(entry, (path, message) => context.addIssue({ code: 'custom', path: [...path], message }));
      if (runsApplication === false)
        for (const [index, { kind }] of entry.notify.entries())
          if (kind === 'child')
            context.addIssue({
              code: 'custom',
              path: ['notify', index, 'child'],
              message: 'is for the application that `scute exec` runs, and there is none',
            });
      const wrong = directoryProblem(entry.directory, entry.unsafeDisk);
      if (wrong !== undefined) problem('directory', wrong);
    })
    .transform(
      ({
        name,
        identity: choice = { by: 'default' },
        owner,
        group: gid,
        notifyDelay,
        svidFileName,
        svidKeyFileName,
        svidBundleFileName,
        bundleMapFileName,
        jwtBundleFileName,
        jwtSvids,
        ...others
      }) =>
        (index: number): FileSetConfig => ({
          ...others,
          name: name ?? `files-${index}`,
          identity: choice,
          names: namesOf({ svidFileName, svidKeyFileName, svidBundleFileName, bundleMapFileName, jwtBundleFileName, ...others }),
          jwtSvids: jwtSvids.map(({ fileName: file, audience, spiffeId }) => ({
            fileName: file,
            audience,
            identity: spiffeId === undefined ? choice : { by: 'id', id: spiffeId },
          })),
          jwtBundles: 'apart',
          passwordFile: others.passwordFile,
          ownBundleOnly: false,
          anyDirectory: false,
          uid: owner,
          gid,
          notifyDelayMs: notifyDelay,
        }),
    );
}

interface WrittenNames extends Pick<FileSetConfig, 'format' | 'combined'> {
  readonly x509: boolean;
  readonly svidFileName?: string | undefined;
  readonly svidKeyFileName?: string | undefined;
  readonly svidBundleFileName?: string | undefined;
  readonly bundleMapFileName?: string | undefined;
  readonly jwtBundleFileName?: string | undefined;
}

function namesOf({ x509, format, combined, ...names }: WrittenNames): FileNames {
  const { jwtBundleFileName: jwtBundle, bundleMapFileName: bundleMap } = names;
  if (!x509) return { svid: undefined, key: undefined, bundle: undefined, bundleMap, jwtBundle };
  const extension = EXTENSIONS[format];
  return {
    svid: names.svidFileName ?? `svid.${extension}`,
    key: format === 'pkcs12' || combined ? undefined : (names.svidKeyFileName ?? `svid_key.${extension}`),
    bundle: names.svidBundleFileName ?? `svid_bundle.${extension}`,
    bundleMap: bundleMap ?? 'svid_bundles.json',
    jwtBundle,
  };
}

/** No two files of a set have one name, whatever trust domains there will be. */
function checkNames(
  entry: WrittenNames & { readonly jwtSvids: readonly { readonly fileName: string }[] },
  problem: (path: readonly (string | number)[], message: string) => void,
): void {
  const names = namesOf(entry);
  const bundles = (
    [
      ['svidBundleFileName', names.bundle],
      ['jwtBundleFileName', names.jwtBundle],
    ] as const
  ).flatMap(([key, name]) => (name === undefined ? [] : [{ key, name }]));
  const seen = new Set<string>();
  for (const [path, name] of [
    ...bundles.map(({ key, name: of }) => [[key], of] as const),
    [['svidFileName'], names.svid],
    [['svidKeyFileName'], names.key],
    [['bundleMapFileName'], names.bundleMap],
    ...entry.jwtSvids.map(({ fileName: of }, index) => [['jwtSvids', index, 'fileName'], of] as const),
  ] as const) {
    if (name === undefined) continue;
    const family = bundles.find((each) => each.name !== name && mayMeet(each.name, name));
    if (seen.has(name)) problem(path, `${JSON.stringify(name)} is the name of another file of the set`);
    else if (family !== undefined) problem(path, `${JSON.stringify(name)} may be the bundle of another trust domain, as ${family.key} is`);
    seen.add(name);
  }
}

/** Whether a bundle of another trust domain may be called as `name`, or one beside `name` as one beside `bundle`: of `a.` and `a`, that of `b` and `b.`. */
function mayMeet(bundle: string, name: string): boolean {
  const { stem, extension } = splitName(bundle);
  return isOfFamily(bundle, name) || name === `${stem}.${extension}`;
}

/** Whether `name` is that of the bundle of another trust domain, where that of ours is in `bundle`. */
export function isOfFamily(bundle: string, name: string): boolean {
  const { stem, extension } = splitName(bundle);
  return name.startsWith(`${stem}.`) && name.endsWith(extension) && name.length > stem.length + 1 + extension.length;
}

/** `svid_bundle` and `.pem`. */
export function splitName(name: string): { readonly stem: string; readonly extension: string } {
  const dot = name.lastIndexOf('.');
  return dot <= 0 ? { stem: name, extension: '' } : { stem: name.slice(0, dot), extension: name.slice(dot) };
}
