/** The commands that start, wait for and end a Scute beside an application. */
import type { Command } from 'commander';
import type { CommandEnvironment } from './environment.ts';
import { ADMIN, WHERE_ASKED } from './shared-options.ts';
import type { ExecOptions } from './commands/exec.ts';
import type { OnceOptions } from './commands/once.ts';
import type { StopOptions } from './commands/stop.ts';
import type { WaitOptions } from './commands/wait.ts';

/** `done` is told the exit code. */
export function addCommandsBesideAnApplication(
  program: Command,
  environment: CommandEnvironment,
  signal: AbortSignal,
  done: (exitCode: number) => void,
): void {
  program
    .command('exec')
    .description(
      'run the proxy, and a command when identity and listeners are there: it gets our signals, its end ends the proxy, and its exit code is ours',
    )
    .argument('<command...>', 'after --; no shell reads it')
    .requiredOption('-c, --config <file>', 'configuration file (YAML), with what is said of the command in its section exec')
    .option('--user <user>', 'the user that the command runs as, name or number, for which Scute must be root')
    .option('--restart-on-rotation', 'end the command and start it anew at each rotation')
    .addHelpText(
      'after',
      `
The log is on standard error; standard output is the command's alone.

Exit codes: that of the command, 128 and the number of the signal that ended it; 126 it cannot be started; 127 there is no such command; 1 the
proxy could not start, or the command runs as another user and could not be ended; 64 wrong usage or configuration; 69 identity or listeners did not come within exec.waitTimeout.

Example:
  scute exec -c scute.yaml --user app -- ./application --port 8080`,
    )
    .action(async ([file = '', ...args]: readonly string[], options: ExecOptions) => {
      const { exec } = await import('./commands/exec.ts');
      done(await exec([file, ...args], options, environment, signal));
    });

  program
    .command('once')
    .description('have an identity, write what files says, tell whom that says, and end: for jobs and cron')
    .requiredOption('-c, --config <file>', 'configuration file (YAML); its listeners are not heeded')
    .option('--timeout <duration>', 'how long all of it may take (default: 60s)')
    .addHelpText(
      'after',
      `
Exit codes: 0 all is written, and everybody was told; 1 not in time: standard error says what is missing; 64 wrong usage or configuration.

Example:
  scute once -c scute.yaml`,
    )
    .action(async (options: OnceOptions) => {
      const { once } = await import('./commands/once.ts');
      done(await once(options, environment, signal));
    });

  program
    .command('wait')
    .description('wait until the Scute that runs is ready, or an identity is there: for scripts and init containers')
    .option('-c, --config <file>', WHERE_ASKED)
    .option('--admin <address>', ADMIN)
    .option('--workload-api <address>', 'ask the Workload API itself (unix:///path or tcp://IP:PORT), for an identity alone')
    .option('--for <what...>', 'ready, identity, or listener NAME (default: ready, or with --workload-api identity)')
    .option('--timeout <duration>', 'how long; 0s looks once (default: 60s)')
    .addHelpText(
      'after',
      `
If neither -c nor --admin is given, SPIFFE_ENDPOINT_SOCKET says which Workload API is asked.

Exit codes: 0 it is there; 1 not in time; 64 wrong usage or configuration, or no such listener; 69 nobody answered in time.

Examples:
  scute wait -c scute.yaml
  scute wait --admin unix:///run/scute/admin.sock --for listener database --timeout 30s
  scute wait --workload-api unix:///run/spire/agent.sock`,
    )
    .action(async (options: WaitOptions) => {
      const { wait } = await import('./commands/wait.ts');
      done(await wait(options, environment, signal));
    });

  program
    .command('stop')
    .description('have the Scute that runs drain and end, as after SIGTERM, and wait for its end: for a job whose main program is done')
    .option('-c, --config <file>', WHERE_ASKED)
    .option('--admin <address>', ADMIN)
    .option('--timeout <duration>', 'how long its end is waited for; 0s does not wait (default: 60s)')
    .addHelpText(
      'after',
      `
Exit codes: 0 it has ended; 1 not in time, but it drains; 64 wrong usage or configuration; 69 no Scute to ask.

Example:
  scute stop --admin unix:///run/scute/admin.sock`,
    )
    .action(async (options: StopOptions) => {
      const { stop } = await import('./commands/stop.ts');
      done(await stop(options, environment, signal));
    });
}
