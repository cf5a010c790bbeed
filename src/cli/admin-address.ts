import type { Config } from '../config/config.ts';
import { formatIssues } from '../config/issue.ts';
import { loadLocatedConfig, type Located } from '../config/load.ts';
import type { Address } from '../config/units.ts';
import { err, ok, type Result } from '../lib/result.ts';
import { parseAdminAddress } from './admin-client.ts';
import type { CommandEnvironment } from './environment.ts';

export interface AdminOptions {
  readonly config?: string | undefined;
  /** Goes before the address in the file. */
  readonly admin?: string | undefined;
}

/** Whom a command asks. */
export interface AdminTarget {
  readonly address: Address;
  /** The configuration, if a file was given. */
  readonly located: Located<Config> | undefined;
}

/** Where the admin listener is, by the options of a command. The error is what standard error is to be told. */
export async function findAdmin({ config, admin }: AdminOptions, { env }: CommandEnvironment): Promise<Result<AdminTarget, string>> {
  const wrong = (problem: string): Result<never, string> => err(`scute: ${problem}\n`);
  let located: Located<Config> | undefined;
  if (config !== undefined) {
    const loaded = await loadLocatedConfig({ file: config, flags: {}, env });
    if (!loaded.ok) return err(`${formatIssues(loaded.error)}\n`);
    located = loaded.value;
  }
  const given = admin === undefined ? undefined : parseAdminAddress(admin);
  if (given?.ok === false) return wrong(`--admin ${given.error}`);
  const address = given?.value ?? located?.value.admin?.listen;
  if (address !== undefined) return ok({ address, located });
  return wrong(
    config === undefined
      ? 'nobody to ask: give the configuration file (-c), or the address of the admin listener (--admin)'
      : `${JSON.stringify(config)} has no admin listener: give one to the Scute that runs ("admin: { listen: unix:///run/scute/admin.sock }"), or its address (--admin)`,
  );
}

/** As `findAdmin`, for a command that can do nothing without it: undefined if it is not found, which standard error is told. */
export async function requireAdmin(options: AdminOptions, environment: CommandEnvironment): Promise<AdminTarget | undefined> {
  const found = await findAdmin(options, environment);
  if (found.ok) return found.value;
  environment.stderr(found.error);
  return undefined;
}
