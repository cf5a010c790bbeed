import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import type { CertificateKind } from '../admin/api-types.ts';
import { CERTIFICATE_KINDS } from './certificate-kinds.ts';
import type { InspectOptions } from './commands/inspect.ts';
import type { JwtFetchFlags, JwtFlags } from './commands/jwt.ts';
import { createListenerFlags } from './listener-flags.ts';
import { EXIT_OK, EXIT_USAGE, type CommandEnvironment } from './environment.ts';
import type { FleetFlags } from './commands/fleet.ts';
import { addCommandsBesideAnApplication } from './program-application.ts';
import { ADMIN, WHERE_ASKED } from './shared-options.ts';
import { describeVersion } from './commands/version.ts';

const PRECEDENCE = `
Flags go before the file, the file before the environment (SPIFFE_ENDPOINT_SOCKET, SCUTE_LOG_LEVEL), the environment before the defaults.`;

const EXIT_CODES = `
Exit codes: 0 done; 1 failed, or connections were cut at the end of the drain; 64 wrong usage or configuration; 69 nobody to ask.`;

interface RunFlags {
  readonly config?: string;
  readonly workloadApi?: string;
  readonly metrics?: string;
  readonly admin?: string;
  readonly logLevel?: string;
}

interface AuditFlags {
  readonly config?: string;
  readonly admin?: string;
  readonly json?: boolean;
}

interface StatusFlags extends AuditFlags {
  readonly watch?: boolean;
}

interface CertsFlags extends AuditFlags {
  readonly kind?: readonly CertificateKind[];
  readonly trustDomain?: string;
  readonly spiffeId?: string;
  readonly expiringIn?: string;
}

/** Parses the arguments (without `node` and the script) and runs the command. Resolves to the exit code. What a command needs is loaded when it runs, so that each starts fast. */
export async function runCommandLine(args: readonly string[], environment: CommandEnvironment, signal: AbortSignal): Promise<number> {
  let exitCode = EXIT_OK;
  const program = new Command('scute')
    .description('An mTLS sidecar proxy for SPIFFE: nothing gets in or out without a verified, allowed SPIFFE ID.')
    .configureOutput({
      writeOut: environment.stdout,
      writeErr: environment.stderr,
      outputError: (text, write) => write(text.replace(/^error: /, 'scute: ')),
    })
    .version(describeVersion(), '-V, --version', 'print the version')
    .exitOverride()
    .helpCommand('help [command]', 'show the help of a command')
    .addHelpText('after', `${EXIT_CODES}\n\nExample:\n  scute demo`);

  const flags = createListenerFlags();
  program
    .command('run')
    .description('run the proxy, until SIGINT or SIGTERM; a second one ends it at once, and SIGHUP reads the file again')
    .option('-c, --config <file>', 'configuration file (YAML); or describe listeners by the flags below')
    .addOption(listenerOption('--inbound <address>', 'accept TLS here', (address) => flags.listener('inbound', address)))
    .addOption(listenerOption('--outbound <address>', 'accept plain text here', (address) => flags.listener('outbound', address)))
    .addOption(listenerOption('--to <address>', 'where the listener before it forwards to', (address) => flags.to(address)))
    .addOption(
      listenerOption('--allow <id...>', 'SPIFFE IDs or patterns that the inbound listener before it admits', (id) =>
        flags.peer('allow', id),
      ),
    )
    .addOption(
      listenerOption('--expect <id...>', 'SPIFFE IDs or patterns that the server behind the outbound listener before it must have', (id) =>
        flags.peer('expect', id),
      ),
    )
    .option('--metrics <address>', 'serve metrics and probes here')
    .option('--admin <address>', 'serve the admin API here (Unix socket or loopback)')
    .option('--workload-api <address>', 'unix:///path or tcp://IP:PORT of the Workload API')
    .option('--log-level <level>', 'error, warn, info, debug or trace')
    .addHelpText(
      'after',
      `${PRECEDENCE}

Examples:
  scute run -c scute.yaml
  scute run --workload-api unix:///run/spire/agent.sock \\
    --inbound 0.0.0.0:8443 --to 127.0.0.1:8080 --allow spiffe://example.org/web \\
    --outbound unix:///run/scute/db.sock --to db.internal:5432 --expect spiffe://example.org/db`,
    )
    .action(async ({ config, ...rest }: RunFlags) => {
      const listeners = flags.collected();
      const described = listeners.inbound !== undefined || listeners.outbound !== undefined;
      if (config !== undefined && described)
        program.error('scute: listeners come from a file (-c) or from --inbound and --outbound, not from both', { exitCode: EXIT_USAGE });
      if (config === undefined && !described)
        program.error('scute: nothing to run: give a file (-c), or --inbound or --outbound; see scute run --help', {
          exitCode: EXIT_USAGE,
        });
      const { run } = await import('./commands/run.ts');
      exitCode = await run({ file: config, flags: { ...listeners, ...rawFlags(rest) } }, environment, signal);
    });

  addCommandsBesideAnApplication(program, environment, signal, (code) => {
    exitCode = code;
  });

  program
    .command('spiffe-helper')
    .description(
      'do what spiffe-helper does, with its configuration file: write SVID, key and trust bundle into a directory, and tell a program',
    )
    .option('--config <file>', 'configuration file (HCL); one dash will do, as spiffe-helper has it', 'helper.conf')
    .option('--daemon-mode [boolean]', 'false: write the files once, and exit; goes before the file')
    .addHelpText('after', '\nExample:\n  scute spiffe-helper -config helper.conf')
    .action(async ({ config, daemonMode }: { readonly config: string; readonly daemonMode?: true | string }) => {
      if (daemonMode !== undefined && daemonMode !== true && daemonMode !== 'true' && daemonMode !== 'false')
        program.error(`scute: -daemon-mode ${JSON.stringify(daemonMode)} is neither true nor false`, { exitCode: EXIT_USAGE });
      const { spiffeHelper } = await import('./commands/spiffe-helper.ts');
      exitCode = await spiffeHelper(
        { file: config, daemonMode: daemonMode === undefined ? undefined : daemonMode !== 'false' },
        environment,
        signal,
      );
    });

  program
    .command('check')
    .description('check a configuration: every problem at once, or what would listen where and who is admitted')
    .requiredOption('-c, --config <file>', 'configuration file (YAML)')
    .addHelpText('after', `${PRECEDENCE}\n\nExample:\n  scute check -c scute.yaml`)
    .action(async ({ config }: { readonly config: string }) => {
      const { check } = await import('./commands/check.ts');
      exitCode = await check(config, environment);
    });

  program
    .command('explain')
    .description('say what the policy of a listener says of a peer or of a request, which rule decides, and which nearly matched')
    .requiredOption('-c, --config <file>', 'configuration file (YAML)')
    .requiredOption('--peer <id>', 'SPIFFE ID of the peer; for an outbound listener, of the server')
    .option('--listener <name>', 'whose policy; may be left out if there is one listener')
    .option('--method <method>', 'of a request; GET if left out and no rule asks for it')
    .option('--path <path>', 'of a request')
    .option('--host <host>', 'of a request')
    .option('--subject <id>', 'whose JWT-SVID a request has, for listeners with jwt; none if left out')
    .option('--at <time>', 'when, such as 2027-01-31T09:00:00+01:00; now if left out')
    .option('--expect <verdict>', 'allow or deny: anything else is exit code 1')
    .addHelpText(
      'after',
      '\nExample:\n  scute explain -c scute.yaml --listener api --peer spiffe://example.org/web --method GET --path /items/1',
    )
    .action(async ({ config, ...flags }: { readonly config: string } & Readonly<Record<string, string>>) => {
      const { explainCommand } = await import('./commands/explain.ts');
      exitCode = await explainCommand(config, flags, environment);
    });

  const policy = program
    .command('policy')
    .description('work with policies')
    .addHelpText('after', '\nExample:\n  scute policy test -c scute.yaml questions.yaml');
  policy
    .command('test <table>')
    .description('put a table of questions (YAML) to a configuration: exit code 1 if one is not answered as the table expects')
    .requiredOption('-c, --config <file>', 'configuration file (YAML)')
    .addHelpText(
      'after',
      `
The table is a list of { listener, peer, method, path, host, subject, at, expect: allow or deny, rule }. Only peer and expect are required;
listener may be left out if there is one, rule is the deciding rule as logs and scute explain name it.

Example:
  scute policy test -c scute.yaml questions.yaml`,
    )
    .action(async (table: string, { config }: { readonly config: string }) => {
      const { testPolicy } = await import('./commands/policy-test.ts');
      exitCode = await testPolicy(config, table, environment);
    });

  program
    .command('audit')
    .description('ask the Scute that runs whom its policies would deny, were they not in audit, and print rules to copy')
    .option('-c, --config <file>', `${WHERE_ASKED}; rules are told with their places`)
    .option('--admin <address>', ADMIN)
    .option('--json', 'all that is known, for programs')
    .addHelpText(
      'after',
      `
Exit codes: 0 nobody would be denied, as far as was seen; 1 somebody would be; 64 wrong usage or configuration; 69 no Scute to ask.

Examples:
  scute audit -c scute.yaml
  scute audit --admin unix:///run/scute/admin.sock --json`,
    )
    .action(async (options: AuditFlags) => {
      const { audit } = await import('./commands/audit.ts');
      exitCode = await audit(options, environment, signal);
    });

  program
    .command('status')
    .description('say on one screen whether all is well with the Scute that runs, and if not, what to do')
    .option('-c, --config <file>', WHERE_ASKED)
    .option('--admin <address>', ADMIN)
    .option('--watch', 'go on, until Ctrl-C; also when it restarts')
    .option('--json', 'all that is known, for programs')
    .addHelpText(
      'after',
      `
Exit codes: 0 it is ready, or the end of --watch; 1 it is not ready; 64 wrong usage or configuration; 69 no Scute to ask.

Examples:
  scute status -c scute.yaml
  scute status --admin unix:///run/scute/admin.sock --watch`,
    )
    .action(async (options: StatusFlags) => {
      const { status } = await import('./commands/status.ts');
      exitCode = await status(options, environment, signal);
    });

  program
    .command('certs')
    .description('draw every certificate in sight of the Scute that runs: ours, those of authorities, and those of peers')
    .option('-c, --config <file>', WHERE_ASKED)
    .option('--admin <address>', ADMIN)
    .addOption(new Option('--kind <kind...>', 'only of these kinds').choices(CERTIFICATE_KINDS))
    .option('--trust-domain <name>', 'only of this trust domain')
    .option('--spiffe-id <id>', 'only of this SPIFFE ID')
    .option('--expiring-in <duration>', 'only what has expired, or will in this time, such as 5m; of what we hold, if no --kind is given')
    .option('--json', 'as the API has them, for programs')
    .addHelpText(
      'after',
      `
Exit codes: 0 done, and with --expiring-in nothing expires so soon; 1 something does; 64 wrong usage or configuration; 69 no Scute to ask.

Examples:
  scute certs -c scute.yaml
  scute certs --admin unix:///run/scute/admin.sock --kind svid --expiring-in 5m --json`,
    )
    .action(async (options: CertsFlags) => {
      const { certs } = await import('./commands/certs.ts');
      exitCode = await certs(options, environment, signal);
    });

  program
    .command('inspect <target>')
    .description(
      'look at a TLS server (HOST:PORT or unix:///path) with an SVID that the Workload API gives, or into a file of certificates (PEM, DER, SPIFFE bundle; - is standard input): what is there, drawn and judged',
    )
    .option('--workload-api <address>', 'unix:///path or tcp://IP:PORT of the Workload API, if not as in SPIFFE_ENDPOINT_SOCKET')
    .option('-c, --config <file>', 'its configuration file (YAML): where the Workload API is, and the deny list to judge by')
    .option('--svid <id>', 'which SVID to show, by SPIFFE ID or hint, if not the default one')
    .option('--no-svid', 'show the server no SVID; what it presents is then not judged')
    .option('--expect <id>', 'the SPIFFE ID that the server must have')
    .option('--server-name <name>', 'to indicate (SNI), if not the host')
    .option('--alpn <name...>', 'protocols to offer, such as h2')
    .option('--timeout <duration>', 'for the Workload API, for connecting and for the handshake each (default: 10s)')
    .option('--wait <duration>', 'for the server to say after the handshake that it does not want us (default: 500ms)')
    .option('--json', 'all that is known, for programs')
    .addHelpText(
      'after',
      `
Exit codes: 0 it is authenticated, and whom --expect names; for a file, all of it is good; 1 it is not, or does not want us; something of the
file cannot be read, is not valid now, or would be refused; 64 wrong usage; 69 no SVID to show, or no server that answers in time.

Examples:
  scute inspect db.internal:5432 --expect spiffe://example.org/db
  scute inspect svid.pem
  curl https://example.org/bundle.json | scute inspect -`,
    )
    .action(async (target: string, options: InspectOptions) => {
      const { inspect } = await import('./commands/inspect.ts');
      exitCode = await inspect(target, options, environment, signal);
    });

  const jwt = program.command('jwt').description('fetch or validate JWT-SVIDs, with the Workload API of whoever runs the command');
  const ofWorkloadApi = (command: Command): Command =>
    command
      .requiredOption(
        '--audience <name>',
        'whom the token is for; given again, for several, of which one is enough to be valid',
        (name: string, names: readonly string[] | undefined) => [...(names ?? []), name],
      )
      .option('--workload-api <address>', 'unix:///path or tcp://IP:PORT of the Workload API, if not as in SPIFFE_ENDPOINT_SOCKET')
      .option('--timeout <duration>', 'for the Workload API (default: 10s)')
      .option('--json', 'all that is known, for programs');
  ofWorkloadApi(jwt.command('fetch'))
    .description('print a JWT-SVID of ours, verified: whoever reads it may use it')
    .option('--spiffe-id <id>', 'of this SPIFFE ID, if we hold several')
    .option('--hint <hint>', 'the one with this hint')
    .addHelpText(
      'after',
      `
Exit codes: 0 done; 64 wrong usage; 69 there is none.

Example:
  scute jwt fetch --audience https://vault.example.org`,
    )
    .action(async (options: JwtFetchFlags) => {
      const { fetchJwt } = await import('./commands/jwt.ts');
      exitCode = await fetchJwt(options, environment, signal);
    });
  ofWorkloadApi(jwt.command('validate'))
    .description('say whose the JWT-SVID on standard input is, or why it is refused; arguments are visible to others, so it is none')
    .addHelpText(
      'after',
      `
Exit codes: 0 it is valid; 1 it is refused; 64 wrong usage; 69 there are no JWT bundles to judge it by.

Example:
  scute jwt validate --audience api < token`,
    )
    .action(async (options: JwtFlags) => {
      const { validateJwt } = await import('./commands/jwt.ts');
      exitCode = await validateJwt(options, environment, signal);
    });

  program
    .command('fleet')
    .description(
      'serve a page of every certificate of every sidecar that a Prometheus scrapes; without an identity, until SIGINT or SIGTERM',
    )
    .requiredOption('--prometheus <url>', 'where Prometheus is: http:// or https://, without credentials')
    .option('--listen <address>', 'serve it here (Unix socket or loopback)', '127.0.0.1:9470')
    .option('--ca-file <file>', 'authorities (PEM) that Prometheus is verified by, instead of those of the public web')
    .option('--token-file <file>', 'a bearer token for Prometheus; it is read again each time')
    .addHelpText('after', '\nExample:\n  scute fleet --prometheus http://127.0.0.1:9090')
    .action(async (options: FleetFlags) => {
      const { runFleet } = await import('./commands/fleet.ts');
      exitCode = await runFleet(options, environment, signal);
    });

  program
    .command('envoy')
    .description('print a bootstrap for Envoy that does what the listeners of a configuration do, with secrets from Scute')
    .requiredOption('-c, --config <file>', 'configuration file (YAML), with an sds section')
    .addHelpText('after', '\nExample:\n  scute envoy -c scute.yaml > envoy.yaml')
    .action(async ({ config }: { readonly config: string }) => {
      const { printEnvoy } = await import('./commands/envoy.ts');
      exitCode = await printEnvoy(config, environment);
    });

  program
    .command('dev')
    .description('run a trust domain of its own, with a Workload API socket a workload: to try and to test, never in production')
    .option('-c, --config <file>', 'what to issue to whom (YAML)')
    .addHelpText('after', '\nExample:\n  scute dev -c dev.yaml')
    .action(async (options: { readonly config?: string }) => {
      const { runDev } = await import('./commands/dev.ts');
      exitCode = await runDev(options.config, environment, signal);
    });

  program
    .command('demo')
    .description('run a trust domain, an application, a sidecar before it and one for a caller, and print commands to try')
    .addHelpText('after', '\nExample:\n  scute demo')
    .action(async () => {
      const { runDemo } = await import('./commands/demo.ts');
      exitCode = await runDemo(environment, signal);
    });

  program
    .command('harness')
    .description('speak the protocol of the SPIFFE conformance suite on standard input and output')
    .addHelpText('after', '\nExample:\n  scute harness')
    .action(async () => {
      const { runHarness } = await import('./commands/harness.ts');
      exitCode = await runHarness(environment, signal);
    });

  program
    .command('version')
    .description('print the version')
    .addHelpText('after', '\nExample:\n  scute version')
    .action(() => environment.stdout(`${describeVersion()}\n`));

  try {
    await program.parseAsync(withoutHelpOnTheUnknown(asOurFlags(args), program), { from: 'user' });
    return exitCode;
  } catch (thrown) {
    // Commander has said what is wrong, or has shown the help that was asked for.
    if (thrown instanceof CommanderError) return thrown.exitCode === 0 ? EXIT_OK : EXIT_USAGE;
    throw thrown;
  }
}

/** Flags of Go programs have one dash or two. */
function asOurFlags(args: readonly string[]): readonly string[] {
  if (args[0] !== 'spiffe-helper') return args;
  return args.map((arg) => (/^-(?:config|daemon-mode|help)(?:=|$)/.test(arg) ? `-${arg}` : arg));
}

/** Commander would answer a command that there is not with the help of all, as if nothing were wrong, if there is a `--help` anywhere. */
function withoutHelpOnTheUnknown(args: readonly string[], program: Command): readonly string[] {
  const words = args.filter((arg) => !arg.startsWith('-'));
  if (words[0] === 'help') words.shift();
  const known: string[] = [];
  for (let at = program; at.commands.length > 0;) {
    const word = words[known.length];
    const next = at.commands.find((command) => command.name() === word);
    if (word === undefined) return args;
    known.push(word);
    if (next === undefined) return known;
    at = next;
  }
  return args;
}

/** An option whose place among the others matters, so it is taken in when it is parsed. */
function listenerOption(syntax: string, description: string, take: (value: string) => string | void): Option {
  return new Option(syntax, description).argParser((value: string) => {
    const problem = take(value);
    if (typeof problem === 'string') throw new InvalidArgumentError(problem);
    return value;
  });
}

function rawFlags({ workloadApi, metrics, admin, logLevel }: Omit<RunFlags, 'config'>): Record<string, unknown> {
  return {
    ...(workloadApi !== undefined && { workloadApi: { endpoint: workloadApi } }),
    ...(metrics !== undefined && { metrics: { listen: metrics } }),
    ...(admin !== undefined && { admin: { listen: admin } }),
    ...(logLevel !== undefined && { log: { level: logLevel } }),
  };
}
