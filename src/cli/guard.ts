/** What the start of this process says about itself. */
export interface ProcessFacts {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Options given to Node itself. */
  readonly execArgv: readonly string[];
  /** `v26.12.1` */
  readonly nodeVersion: string;
  /** Where Node's inspector listens, if it does. */
  readonly inspectorUrl: string | undefined;
}

/** What has what is needed here; `engines` names the one that is tested. */
const OLDEST_NODE = [26, 12] as const;

/** Options of Node under which keys leak, or TLS or HTTP is weaker than this program promises. Underscores count as hyphens, as for Node. */
const REFUSED_OPTIONS: readonly (readonly [RegExp, string])[] = [
  [/^--inspect/, 'opens the inspector, through which private keys can be read'],
  [/^--tls-keylog/, 'writes the secrets of TLS sessions to a file'],
  [/^--trace-tls/, 'writes what TLS sessions hold to standard error'],
  [/^--heapsnapshot-/, 'writes memory, with private keys, to files'],
  [/^--tls-min-v1\.[01]$/, 'allows old versions of TLS'],
  [/^--tls-max-v1\.2$/, 'forbids TLS 1.3'],
  [/^--tls-cipher-list/, 'changes the ciphers of TLS'],
  [/^--openssl-legacy-provider$/, 'allows broken ciphers'],
  [/^--insecure-http-parser$/, 'takes HTTP that others read in another way'],
  [/^--(?:experimental-(?:default-)?)?config-file/, 'reads more options from a file, any of these among them'],
];

/** Why this program must not run in this process; a sentence each. Empty: nothing is wrong. */
export function refusals({ env, execArgv, nodeVersion, inspectorUrl }: ProcessFacts): string[] {
  const problems: string[] = [];
  const old = tooOld(nodeVersion);
  if (old !== undefined) problems.push(old);
  if (env['NODE_TLS_REJECT_UNAUTHORIZED'] === '0')
    problems.push('NODE_TLS_REJECT_UNAUTHORIZED=0 turns the verification of certificates off');
  if (env['SSLKEYLOGFILE'] !== undefined && env['SSLKEYLOGFILE'] !== '')
    problems.push('SSLKEYLOGFILE asks for the secrets of TLS sessions');
  if (env['NODE_COMPILE_CACHE'] !== undefined && env['NODE_COMPILE_CACHE'] !== '')
    problems.push('NODE_COMPILE_CACHE names a folder of compiled code, which runs instead of this program and which nobody has checked');
  for (const [source, options] of [
    ['', execArgv],
    ['NODE_OPTIONS: ', splitOptions(env['NODE_OPTIONS'] ?? '')],
  ] as const) {
    for (const option of options) {
      const plain = option.startsWith('--') ? option.replaceAll('_', '-') : option;
      const refused = REFUSED_OPTIONS.find(([pattern]) => pattern.test(plain));
      if (refused !== undefined) problems.push(`${source}${plain.replace(/=.*/s, '')} ${refused[1]}`);
    }
  }
  if (problems.length === 0 && inspectorUrl !== undefined) problems.push('the inspector is open, through which private keys can be read');
  return problems;
}

/** What to say of a Node that is older than what this program needs; undefined of any other. */
export function tooOld(version: string): string | undefined {
  const [major = 0, minor = 0] = version.replace(/^v/, '').split('.').map(Number);
  const isNewEnough = major > OLDEST_NODE[0] || (major === OLDEST_NODE[0] && minor >= OLDEST_NODE[1]);
  return isNewEnough ? undefined : `this is Node ${version}; it needs ${OLDEST_NODE.join('.')} or later`;
}

/** The options in a NODE_OPTIONS value, as Node reads it: spaces part them, double quotes hold them together, and within those a backslash stands before any letter. */
function splitOptions(text: string): string[] {
  return (text.match(/(?:"(?:\\[^]|[^"\\])*"|[^ "])+/g) ?? []).map((option) =>
    option.replaceAll(/"((?:\\[^]|[^"\\])*)"/g, (_, quoted: string) => quoted.replaceAll(/\\([^])/g, '$1')),
  );
}
