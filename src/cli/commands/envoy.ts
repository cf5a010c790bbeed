import { formatIssues } from '../../config/issue.ts';
import { loadLocatedConfig } from '../../config/load.ts';
import { EXIT_FAILED, EXIT_OK, EXIT_USAGE, type CommandEnvironment } from '../environment.ts';
import { findListener, placeOf } from '../question.ts';

/** `scute envoy`: prints a bootstrap for Envoy that does what the listeners of a configuration do. */
export async function printEnvoy(file: string, { env, stdout, stderr }: CommandEnvironment): Promise<number> {
  const loaded = await loadLocatedConfig({ file, flags: {}, env });
  if (!loaded.ok) {
    stderr(`${formatIssues(loaded.error)}\n`);
    return EXIT_USAGE;
  }
  const [{ admitsNobody, buildEnvoyConfig }, { stringify }] = await Promise.all([import('../../sds/envoy/config.ts'), import('yaml')]);
  const { value: config, locate } = loaded.value;
  const built = buildEnvoyConfig(config);
  if (!built.ok) {
    const { message, listener, rule } = built.error;
    const placed = listener === undefined ? undefined : findListener(config, listener);
    stderr(`scute: ${placed?.ok === true ? placeOf(placed.value, rule, locate) : file}: ${message}\n`);
    return EXIT_FAILED;
  }
  const nobody = config.inbound.filter(({ policy }) => admitsNobody(policy));
  const notes = nobody.map(({ name }) => `# inbound ${name} admits nobody, so there is no listener for it.\n`);
  if (config.revocations !== undefined)
    notes.push(
      '# Envoy does not know the deny list (revocations) where it does not ask Scute (ext_authz): there, only authorities on it, and what in sds.matchers admits nobody else than peers on it, are kept from it.\n',
    );
  // Envoy reads YAML 1.1 and then some, in which a plain `yes`, `on` or `inf` is no text.
  const yaml = stringify(built.value, { lineWidth: 0, defaultStringType: 'QUOTE_DOUBLE', defaultKeyType: 'PLAIN' });
  stdout(`# Envoy with secrets from Scute, made of ${JSON.stringify(file)}. Take what you need.\n${notes.join('')}${yaml}`);
  return EXIT_OK;
}
