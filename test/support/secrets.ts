import { fromBinary } from '@bufbuild/protobuf';
import { anyUnpack } from '@bufbuild/protobuf/wkt';
import { SecretSchema, SPIFFECertValidatorConfigSchema } from '../../src/gen/secret_pb.ts';
import { EMPTY_DENY_LIST } from '../../src/policy/deny-list.ts';
import { DEFAULT_NAMES, type Catalogue, type CatalogueOptions, type Lookup, type Secret } from '../../src/sds/secrets.ts';
import type { SdsMissingReason } from '../../src/telemetry/log/sds-records.ts';

/** What a secret says, in words. */
export interface ReadSecret {
  readonly name: string;
  readonly certificate?: { readonly chain: string; readonly key: string };
  /** The SPIFFE validator's trust domains with their PEM. */
  readonly spiffe?: Readonly<Record<string, string>>;
  readonly trustedCa?: string;
  readonly crl?: string;
  /** `exact …` or `regex …`. */
  readonly matchers?: readonly string[];
}

export function readSecret(bytes: Uint8Array): ReadSecret {
  const { name, type } = fromBinary(SecretSchema, bytes);
  if (type.case === 'tlsCertificate') {
    return { name, certificate: { chain: textOf(type.value.certificateChain), key: textOf(type.value.privateKey) } };
  }
  if (type.case !== 'validationContext') throw new Error(`the secret ${name} is nothing`);
  const context = type.value;
  const matchers = context.matchTypedSubjectAltNames.map(({ sanType, matcher }) => {
    const pattern = matcher?.matchPattern;
    const text =
      pattern?.case === 'exact' ? `exact ${pattern.value}` : pattern?.case === 'safeRegex' ? `regex ${pattern.value.regex}` : 'none';
    return sanType === 3 ? text : `${sanType} ${text}`;
  });
  const custom = context.customValidatorConfig;
  const config = custom?.typedConfig === undefined ? undefined : anyUnpack(custom.typedConfig, SPIFFECertValidatorConfigSchema);
  if (custom !== undefined && (custom.name !== 'envoy.tls.cert_validator.spiffe' || config === undefined)) throw new Error(custom.name);
  const domains = config?.trustDomains.map((each) => each.name) ?? [];
  // Envoy rejects them.
  if (new Set(domains).size < domains.length) throw new Error(`${domains.join(', ')}: one is there twice`);
  return {
    name,
    ...(config !== undefined && { spiffe: Object.fromEntries(config.trustDomains.map((each) => [each.name, textOf(each.trustBundle)])) }),
    ...(context.trustedCa !== undefined && { trustedCa: textOf(context.trustedCa) }),
    ...(context.crl !== undefined && { crl: textOf(context.crl) }),
    ...(matchers.length > 0 && { matchers }),
  };
}

function textOf(source: { readonly specifier: { readonly value?: Uint8Array | undefined } } | undefined): string {
  return Buffer.from(source?.specifier.value ?? []).toString();
}

/** The options that a configuration without any gives. */
export const PLAIN_OPTIONS: CatalogueOptions = {
  ...DEFAULT_NAMES,
  identity: { by: 'default' },
  crls: false,
  policies: new Map(),
  denyList: EMPTY_DENY_LIST,
};

/** A catalogue of secrets that are nothing but a name and a version. Names that begin with `bundle` are bundles. */
export function catalogueOf(
  versions: Readonly<Record<string, string>>,
  generation = 1,
  reason: SdsMissingReason = 'unknown_name',
): Catalogue {
  return {
    generation,
    notes: [],
    changesAtMs: undefined,
    names: () => Object.keys(versions),
    lookup(name): Lookup {
      const version = versions[name];
      if (version === undefined) return { found: false, reason, detail: 'nothing has this name' };
      const kind = name.startsWith('bundle') ? 'bundle' : 'certificate';
      const secret: Secret = { name, kind, version, encode: () => Buffer.from(`${name} ${version}`) };
      return { found: true, secret };
    },
    subject: () => undefined,
  };
}
