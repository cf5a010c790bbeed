import { createHash } from 'node:crypto';
import { create, toBinary } from '@bufbuild/protobuf';
import { anyPack } from '@bufbuild/protobuf/wkt';
import {
  CertificateValidationContextSchema,
  SecretSchema,
  SPIFFECertValidatorConfigSchema,
  type Secret as SecretMessage,
  type SubjectAltNameMatcher,
} from '../gen/secret_pb.ts';
import { chooseSvid, type IdentitySnapshot, type SvidChoice } from '../identity/snapshot.ts';
import type { DenyList } from '../policy/deny-list.ts';
import type { Policy } from '../policy/policy.ts';
import { parseSpiffeId, pathOf, trustDomainId, trustDomainOf } from '../spiffe/spiffe-id.ts';
import type { TrustBundle } from '../spiffe/trust-bundle.ts';
import type { TrustDomain } from '../spiffe/trust-domain.ts';
import type { X509Svid } from '../spiffe/x509-svid.ts';
import type { SdsMissingReason, SdsSubject } from '../telemetry/log/sds-records.ts';
import { toPem } from '../spiffe/x509/pem.ts';
import { envoyRefusal } from './envoy/refusals.ts';
import { sayPolicy } from './expression.ts';
import { sentAuthorities, usableCrls } from './revocation.ts';
import { sanMatchers } from './san-matchers.ts';
import type { ValidationForm } from './validation-form.ts';

/** One secret, as one name and one form of it. Its bytes hold a private key: they are in no field, so that nothing shows them by mistake. */
export interface Secret {
  readonly name: string;
  readonly kind: 'certificate' | 'bundle';
  /** A digest of the content: equal for equal secrets, whichever process made them. Never of the key, which the certificate stands for. */
  readonly version: string;
  /** The message, serialized once. */
  encode(): Buffer;
}

export type Lookup =
  | { readonly found: true; readonly secret: Secret }
  | { readonly found: false; readonly reason: SdsMissingReason; /** A sentence for the log. */ readonly detail: string };

/** Everything that may be asked for at one moment. Immutable; secrets are made when they are first asked for. */
export interface Catalogue {
  readonly generation: number;
  /** What "everything" is: our trust domain, the others, then our identities, each by its SPIFFE ID. */
  names(): readonly string[];
  /** The secret that is called `name`. Several names of one thing are several secrets. */
  lookup(name: string, form: ValidationForm): Lookup;
  /** What the secret of that name is made of; undefined if nothing is called so, or it is not held. */
  subject(name: string, form: ValidationForm): SdsSubject | undefined;
  /** Sentences about revocation lists that Envoy could not use, and so are left out, or for which it refuses all peers. */
  readonly notes: readonly string[];
  /** Wall time, milliseconds since 1970, from which the catalogue may be another although nothing that it is made of is. */
  readonly changesAtMs: number | undefined;
}

export interface CatalogueOptions {
  /** Which SVID is the default one. */
  readonly identity: SvidChoice;
  readonly defaultSvidName: string;
  readonly defaultBundleName: string;
  readonly defaultAllBundlesName: string;
  /** Put revocation lists into validation contexts, for those trust domains whose every authority has one. */
  readonly crls: boolean;
  /** Policies that go, as matchers, into the validation contexts of these names. */
  readonly policies: ReadonlyMap<string, Policy>;
  /** Authorities that it names go into no validation context, and entries all of whose peers it names by SPIFFE ID into no matchers. */
  readonly denyList: DenyList;
}

/** What the SPIRE agent calls them. */
export const DEFAULT_NAMES = { defaultSvidName: 'default', defaultBundleName: 'ROOTCA', defaultAllBundlesName: 'ALL' } as const;

export const HINT_PREFIX = 'hint:';

/** The catalogue of a snapshot. Pure: the same arguments give secrets with the same bytes. */
export function buildCatalogue(snapshot: IdentitySnapshot, options: CatalogueOptions, nowMs: number): Catalogue {
  return new SnapshotCatalogue(snapshot, options, nowMs);
}

type Things =
  | { readonly kind: 'svid'; readonly svid: X509Svid }
  | { readonly kind: 'bundles'; readonly bundles: readonly TrustBundle[]; readonly ofAll: boolean };
type Missing = Lookup & { readonly found: false };

class SnapshotCatalogue implements Catalogue {
  readonly generation: number;
  readonly changesAtMs: number | undefined;
  readonly notes: readonly string[];
  readonly #snapshot: IdentitySnapshot;
  readonly #options: CatalogueOptions;
  readonly #nowMs: number;
  readonly #svids: readonly X509Svid[];
  readonly #own: TrustDomain | undefined;
  readonly #found = new Map<string, Lookup>();

  constructor(snapshot: IdentitySnapshot, options: CatalogueOptions, nowMs: number) {
    this.#snapshot = snapshot;
    this.#options = options;
    this.#nowMs = nowMs;
    this.#svids = snapshot.kind === 'held' ? snapshot.svids : [];
    this.#own = ownDomain(snapshot, options.identity);
    this.generation = snapshot.generation;
    const looked = options.crls ? [...snapshot.bundles.values()].map((bundle) => this.#crlsOf(bundle)) : [];
    this.notes = looked.flatMap((crls) => (crls.ok ? crls.value.notes : [crls.error]));
    const boundaries = this.#svids.flatMap((svid) => {
      const { notBeforeMs, notAfterMs } = validityOf(svid);
      return [notBeforeMs, notAfterMs + 1].filter((boundary) => boundary > nowMs);
    });
    boundaries.push(...looked.flatMap((crls) => (crls.ok ? crls.value.boundariesMs : [])));
    boundaries.push(...[...options.policies.values()].map((policy) => policy.nextLook(nowMs)));
    const soonest = Math.min(Infinity, ...boundaries);
    this.changesAtMs = soonest === Infinity ? undefined : soonest;
  }

  names(): readonly string[] {
    const others = [...this.#snapshot.bundles.keys()].filter((domain) => domain !== this.#own).toSorted();
    const domains = this.#own === undefined ? others : [this.#own, ...others];
    return [...new Set([...domains.map(trustDomainId), ...this.#svids.map(({ id }) => id)])];
  }

  lookup(name: string, form: ValidationForm): Lookup {
    const key = `${form} ${name}`;
    const known = this.#found.get(key);
    if (known !== undefined) return known;
    const things = this.#resolve(name, form);
    // Names of what we do not have are the client's to invent, without end and of any length.
    if ('found' in things) return things;
    const made = things.kind === 'svid' ? this.#certificate(name, things.svid) : this.#validation(name, form, things);
    this.#found.set(key, made);
    return made;
  }

  subject(name: string, form: ValidationForm): SdsSubject | undefined {
    const things = this.#resolve(name, form);
    if ('found' in things) return undefined;
    if (things.kind === 'bundles') return { kind: 'bundles', trustDomains: things.bundles.map(({ trustDomain }) => trustDomain) };
    return { kind: 'svid', sha256: things.svid.chain[0]?.sha256 ?? '' };
  }

  /** What a name stands for. Where one name has two meanings, the order is the SPIRE agent's. */
  #resolve(name: string, form: ValidationForm): Things | Missing {
    const { bundles } = this.#snapshot;
    const { defaultSvidName, defaultBundleName, defaultAllBundlesName, identity } = this.#options;
    const id = parseSpiffeId(name);
    if (id.ok && pathOf(id.value) === '') return this.#bundle(trustDomainOf(id.value));
    if (name === defaultBundleName) {
      return this.#own === undefined ? missing('not_held', 'we hold no trust domain of our own') : this.#bundle(this.#own);
    }
    if (name === defaultAllBundlesName) {
      if (form === 'root_ca') {
        return missing('pooled_bundles', 'all trust domains in one list of authorities would let each issue IDs of any other');
      }
      const others = [...bundles.values()].filter(({ trustDomain }) => trustDomain !== this.#own);
      const own = this.#own === undefined ? undefined : bundles.get(this.#own);
      return { kind: 'bundles', bundles: own === undefined ? others : [own, ...others], ofAll: true };
    }
    if (id.ok) {
      const svid = chooseSvid(this.#snapshot, { by: 'id', id: id.value });
      return svid === undefined ? missing('not_held', `we do not hold ${id.value}`) : { kind: 'svid', svid };
    }
    if (name === defaultSvidName) {
      const svid = chooseSvid(this.#snapshot, identity);
      return svid === undefined ? missing('not_held', 'we do not hold the default identity') : { kind: 'svid', svid };
    }
    if (name.startsWith(HINT_PREFIX) && name.length > HINT_PREFIX.length) {
      const svid = chooseSvid(this.#snapshot, { by: 'hint', hint: name.slice(HINT_PREFIX.length) });
      return svid === undefined ? missing('not_held', 'we hold no identity with this hint') : { kind: 'svid', svid };
    }
    return missing('unknown_name', 'nothing has this name');
  }

  #bundle(domain: TrustDomain): Things | Missing {
    const bundle = this.#snapshot.bundles.get(domain);
    return bundle === undefined
      ? missing('not_held', `we hold no bundle of ${domain}`)
      : { kind: 'bundles', bundles: [bundle], ofAll: false };
  }

  #certificate(name: string, svid: X509Svid): Lookup {
    const { notBeforeMs, notAfterMs } = validityOf(svid);
    if (this.#nowMs < notBeforeMs) return missing('not_valid', `${svid.id} is not valid yet`);
    if (this.#nowMs > notAfterMs) return missing('not_valid', `${svid.id} has expired`);
    const refusal = envoyRefusal(svid);
    if (refusal !== undefined) return missing('unusable', refusal);
    const version = digest('certificate', name, ...svid.chain.map(({ sha256 }) => sha256));
    return { found: true, secret: new EncodedSecret(name, 'certificate', version, () => certificateMessage(name, svid)) };
  }

  #validation(name: string, form: ValidationForm, { bundles, ofAll }: Things & { kind: 'bundles' }): Lookup {
    // Envoy rejects a context with an empty bundle as a whole, so that one emptied trust domain would freeze all the others.
    const trusted = bundles.map((bundle) => this.#trustedPart(bundle)).filter(({ authorities }) => authorities.length > 0);
    if (trusted.length === 0) {
      const which = bundles.length === 1 ? ` of ${bundles[0]?.trustDomain}` : '';
      return missing('empty_bundle', `the bundle${which} has no authorities that can be relied on`);
    }
    const policy = this.#options.policies.get(name);
    const said = policy === undefined ? undefined : sayPolicy(policy, ofAll ? undefined : trusted[0]?.trustDomain, this.#nowMs);
    if (said !== undefined && !said.ok) return missing(said.error.problem, said.error.detail);
    const admitted = said?.value.trustDomain;
    // Of a pattern all can be left out, and not some.
    const matchers =
      said === undefined ? [] : sanMatchers(said.value.entries.filter(({ pattern }) => !this.#options.denyList.namesAll(pattern)));
    const sorted = trusted
      .filter(({ trustDomain }) => admitted === undefined || trustDomain === admitted)
      .toSorted((a, b) => (a.trustDomain < b.trustDomain ? -1 : 1));
    if (admitted !== undefined && sorted.length === 0) return missing('not_held', `we hold no authorities of ${admitted}`);
    const version = digest(
      form,
      name,
      ...sorted.flatMap(({ trustDomain, authorities, crls }) => [
        trustDomain,
        ...authorities.map(({ sha256 }) => sha256),
        ...crls.map(({ sha256 }) => sha256),
      ]),
      ...matchers.map(({ matcher }) => JSON.stringify(matcher?.matchPattern)),
    );
    const message = (): SecretMessage => validationMessage(name, form, sorted, matchers);
    return { found: true, secret: new EncodedSecret(name, 'bundle', version, message) };
  }

  /** What of a bundle goes into a validation context, in an order of its own: that of the agent's message means nothing. */
  #trustedPart(bundle: TrustBundle): TrustedPart {
    const crls = this.#options.crls ? this.#crlsOf(bundle) : undefined;
    return {
      trustDomain: bundle.trustDomain,
      authorities: sentAuthorities(bundle)
        .filter((authority) => !this.#options.denyList.namesAuthority(authority))
        .toSorted(byDigest),
      crls: crls?.ok === true ? crls.value.crls.toSorted(byDigest) : [],
    };
  }

  #crlsOf(bundle: TrustBundle): ReturnType<typeof usableCrls> {
    const ofDomain = this.#svids.filter(({ id }) => trustDomainOf(id) === bundle.trustDomain);
    return usableCrls(
      bundle,
      ofDomain.flatMap(({ chain }) => chain.slice(1)),
      this.#nowMs,
    );
  }
}

/** A class, for its private fields: neither JSON nor an inspection shows them. */
class EncodedSecret implements Secret {
  readonly name: string;
  readonly kind: Secret['kind'];
  readonly version: string;
  readonly #message: () => SecretMessage;
  #bytes: Buffer | undefined;

  constructor(name: string, kind: Secret['kind'], version: string, message: () => SecretMessage) {
    this.name = name;
    this.kind = kind;
    this.version = version;
    this.#message = message;
  }

  encode(): Buffer {
    this.#bytes ??= Buffer.from(toBinary(SecretSchema, this.#message()));
    return this.#bytes;
  }
}

function missing(reason: SdsMissingReason, detail: string): Missing {
  return { found: false, reason, detail };
}

/**
 * The trust domain of the default identity, which never becomes another one because that identity is not held. Without any identity, and none
 * named: the only one whose bundle we are given, if it is the only one.
 */
function ownDomain(snapshot: IdentitySnapshot, identity: SvidChoice): TrustDomain | undefined {
  if (identity.by === 'id') return trustDomainOf(identity.id);
  const svid = chooseSvid(snapshot, identity);
  if (svid !== undefined) return trustDomainOf(svid.id);
  if (identity.by === 'hint') return undefined;
  const [only, ...more] = snapshot.bundles.keys();
  return more.length === 0 ? only : undefined;
}

/** When all of the chain is valid. */
function validityOf(svid: X509Svid): { readonly notBeforeMs: number; readonly notAfterMs: number } {
  return {
    notBeforeMs: Math.max(...svid.chain.map((certificate) => certificate.notBeforeMs)),
    notAfterMs: Math.min(...svid.chain.map((certificate) => certificate.notAfterMs)),
  };
}

type TrustedPart = Pick<TrustBundle, 'trustDomain' | 'authorities' | 'crls'>;

function byDigest(a: { readonly sha256: string }, b: { readonly sha256: string }): number {
  return a.sha256 < b.sha256 ? -1 : 1;
}

function certificateMessage(name: string, svid: X509Svid): SecretMessage {
  const chain = svid.chain.map((certificate) => certificate.pem()).join('');
  const key = svid.key.export({ type: 'pkcs8', format: 'pem' });
  return create(SecretSchema, {
    name,
    type: { case: 'tlsCertificate', value: { certificateChain: inline(chain), privateKey: inline(key) } },
  });
}

function validationMessage(
  name: string,
  form: ValidationForm,
  bundles: readonly TrustedPart[],
  matchTypedSubjectAltNames: readonly SubjectAltNameMatcher[],
): SecretMessage {
  const common = { matchTypedSubjectAltNames: [...matchTypedSubjectAltNames] };
  const value =
    form === 'spiffe'
      ? create(CertificateValidationContextSchema, { ...common, customValidatorConfig: spiffeValidator(bundles) })
      : create(CertificateValidationContextSchema, { ...common, ...plainAuthorities(bundles) });
  return create(SecretSchema, { name, type: { case: 'validationContext', value } });
}

function spiffeValidator(bundles: readonly TrustedPart[]) {
  const config = create(SPIFFECertValidatorConfigSchema, {
    // This validator takes revocation lists from the bundle.
    trustDomains: bundles.map((bundle) => ({ name: bundle.trustDomain, trustBundle: inline(authoritiesPem(bundle) + crlsPem(bundle)) })),
  });
  return { name: 'envoy.tls.cert_validator.spiffe', typedConfig: anyPack(SPIFFECertValidatorConfigSchema, config) };
}

/** One trust domain only: `lookup` has refused more. */
function plainAuthorities(bundles: readonly TrustedPart[]) {
  const [bundle, ...more] = bundles;
  if (bundle === undefined || more.length > 0) throw new Error(`${bundles.length} trust domains in one list of authorities`);
  return { trustedCa: inline(authoritiesPem(bundle)), ...(bundle.crls.length > 0 && { crl: inline(crlsPem(bundle)) }) };
}

function authoritiesPem({ authorities }: TrustedPart): string {
  return authorities.map((authority) => authority.pem()).join('');
}

function crlsPem({ crls }: TrustedPart): string {
  return crls.map((crl) => toPem(crl.der(), 'X509 CRL')).join('');
}

function inline(text: string) {
  return { specifier: { case: 'inlineBytes' as const, value: Buffer.from(text) } };
}

/** 128 bits of SHA-256: what is compared is made by us. The parts cannot run into each other. */
export function digest(...parts: readonly string[]): string {
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 32);
}
