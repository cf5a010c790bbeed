import type { IssuePath, RawConfig } from '../issue.ts';

export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * The environment variables that stand in for a configuration key. Flags go before the file, the file before the
 * environment, the environment before the defaults: SPIFFE_ENDPOINT_SOCKET is what is used when nothing is configured
 * (SPIFFE Workload Endpoint standard, section 4), and one order holds for all.
 */
export const ENVIRONMENT_KEYS: Readonly<Record<string, readonly [section: string, key: string]>> = {
  SPIFFE_ENDPOINT_SOCKET: ['workloadApi', 'endpoint'],
  SCUTE_LOG_LEVEL: ['log', 'level'],
};

/** Puts flags over the file over the environment. A section of two levels is merged, a list is replaced. An empty variable counts as unset. */
export function overlay(file: RawConfig, { flags, env }: { flags: Readonly<Record<string, unknown>>; env: Environment }): RawConfig {
  if (!isRecord(file.value)) return file;
  const value: Record<string, unknown> = { ...file.value };
  const origins = new Map<string, string>();
  const set = (section: string, key: string, setting: unknown, source: string): void => {
    const held = value[section] ?? {};
    // A section of the wrong kind is left for the schema to refuse.
    if (!isRecord(held)) return;
    value[section] = { ...held, [key]: setting };
    origins.set(`${section}.${key}`, source);
  };
  for (const [variable, [section, key]] of Object.entries(ENVIRONMENT_KEYS)) {
    const setting = env[variable];
    if (setting === undefined || setting === '' || has(value[section], key)) continue;
    set(section, key, setting, `environment variable ${variable}`);
  }
  for (const [section, setting] of Object.entries(flags)) {
    if (isRecord(setting)) {
      for (const [key, inner] of Object.entries(setting)) set(section, key, inner, 'command line');
    } else if (setting !== undefined) {
      value[section] = setting;
      origins.set(section, 'command line');
    }
  }
  return {
    value,
    locate(path, target) {
      const source = origins.get(String(path[0])) ?? origins.get(dotted(path));
      return source === undefined ? file.locate(path, target) : { source, line: undefined, column: undefined };
    },
  };
}

function has(section: unknown, key: string): boolean {
  return isRecord(section) && Object.hasOwn(section, key);
}

function dotted(path: IssuePath): string {
  return path.slice(0, 2).map(String).join('.');
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
