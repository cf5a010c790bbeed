import type { Node } from '../gen/core_pb.ts';

/** How a validation context is written: for Envoy's SPIFFE validator, which keeps trust domains apart, or as plain authorities. */
export type ValidationForm = 'spiffe' | 'root_ca';

/** The key of node metadata that goes before the configuration, in both directions; the SPIRE agent has the same. */
const OVERRIDE = 'disable_spiffe_cert_validation';

/** What Go's `strconv.ParseBool` reads, and so what bootstraps written for the SPIRE agent may hold. */
const WORDS: ReadonlyMap<string, boolean> = new Map([
  ...['1', 't', 'T', 'TRUE', 'true', 'True'].map((word) => [word, true] as const),
  ...['0', 'f', 'F', 'FALSE', 'false', 'False'].map((word) => [word, false] as const),
]);

/** The first release of Envoy with the SPIFFE validator. */
const SINCE = { major: 1, minor: 18 };

/**
 * Which form this client is given. The client's metadata goes before the configuration; a release of Envoy before 1.18 does not know the SPIFFE
 * validator, and who does not say its version does.
 */
export function validationForm(node: Node | undefined, disabledByConfig: boolean): ValidationForm {
  const isDisabled = overrideIn(node) ?? disabledByConfig;
  return isDisabled || !knowsValidator(node) ? 'root_ca' : 'spiffe';
}

function overrideIn(node: Node | undefined): boolean | undefined {
  const fields = node?.metadata;
  if (fields === undefined || !Object.hasOwn(fields, OVERRIDE)) return undefined;
  const value = fields[OVERRIDE];
  if (typeof value === 'boolean') return value;
  return typeof value === 'string' ? WORDS.get(value) : undefined;
}

function knowsValidator(node: Node | undefined): boolean {
  const agent = node?.userAgentVersionType;
  const version = agent?.case === 'userAgentBuildVersion' ? agent.value.version : undefined;
  if (version === undefined) return true;
  return version.majorNumber > SINCE.major || (version.majorNumber === SINCE.major && version.minorNumber >= SINCE.minor);
}
