import { formatIssues } from '../config/issue.ts';
import { loadConfig } from '../config/load.ts';
import { EXIT_FAILED, EXIT_OK, EXIT_USAGE, type CommandEnvironment } from './environment.ts';

/** `scute envoy`: prints a bootstrap for Envoy that does what the listeners of a configuration do. */
export async function printEnvoy(file: string, { env, stdout, stderr }: CommandEnvironment): Promise<number> {
  const loaded = await loadConfig({ file, flags: {}, env });
  if (!loaded.ok) {
    stderr(`${formatIssues(loaded.error)}\n`);
    return EXIT_USAGE;
  }
  const [{ admitsNobody, buildEnvoyConfig }, { stringify }] = await Promise.all([import('../sds/envoy-config.ts'), import('yaml')]);
  const built = buildEnvoyConfig(loaded.value);
  if (!built.ok) {
    stderr(`scute: ${file}: ${built.error}\n`);
    return EXIT_FAILED;
  }
  const nobody = loaded.value.inbound.filter(({ policy }) => admitsNobody(policy));
  const notes = nobody.map(({ name }) => `# inbound ${name} admits nobody, so there is no listener for it.\n`);
  if (loaded.value.revocations !== undefined)
    notes.push(
      '# Envoy does not know the deny list (revocations) where it does not ask Scute (ext_authz): there, only authorities that are on it are kept from it.\n',
    );
  // Envoy reads YAML 1.1 and then some, in which a plain `yes`, `on` or `inf` is no text.
  const yaml = stringify(built.value, { lineWidth: 0, defaultStringType: 'QUOTE_DOUBLE', defaultKeyType: 'PLAIN' });
  stdout(`# Envoy with secrets from Scute, made of ${JSON.stringify(file)}. Take what you need.\n${notes.join('')}${yaml}`);
  return EXIT_OK;
}
