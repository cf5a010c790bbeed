import { toPem } from '../spiffe/x509/pem.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import { type Authority, createAuthority, type IssuedSvid, type LeafRequest } from './authority.ts';
import type { DevTrustDomain } from './config.ts';
import { createJwtKey, type JwtKey, signJwtSvid, writeJwks } from './jwt.ts';

/** What may be chosen when a leaf is issued; the rest comes from the trust domain's configuration. */
export type IssueOptions = Partial<Omit<LeafRequest, 'id' | 'nowMs'>>;

/** The authorities of one trust domain: those that its bundle holds, and the one among them that signs. Changes nothing by itself. */
export interface TrustDomainAuthorities {
  /** X.509 authorities, concatenated DER, the oldest first. */
  bundleDer(): Uint8Array;
  bundlePem(): string;
  /** JWKS document. */
  jwks(): Uint8Array;
  jwtKeys(): readonly JwtKey[];
  /** The revocation list of the signing authority; undefined as long as nothing was ever revoked. */
  revocationList(): Uint8Array | undefined;
  /** Signed by the authority that is active. */
  issue(id: string, options?: IssueOptions): Promise<IssuedSvid>;
  /** A JWT-SVID in compact form. */
  signJwt(id: SpiffeId, audience: readonly string[]): string;
  /** Adds a new authority to the bundle that does not sign yet. */
  prepare(): Promise<void>;
  /** The authority that was added last signs from now on. The others stay in the bundle. */
  activate(): Promise<void>;
  /** Leaves only the active authority in the bundle. */
  retire(): void;
  revoke(serial: Uint8Array): Promise<void>;
  /** One step of what an authority does with time: prepare at half of its life, activate at the next step, drop what has expired. */
  age(): Promise<void>;
}

interface Generation {
  readonly x509: Authority;
  readonly jwt: JwtKey;
  readonly createdAtMs: number;
}

/** Creates the first authority of a trust domain, which is active at once. */
export async function createTrustDomainAuthorities(domain: DevTrustDomain, now: () => number): Promise<TrustDomainAuthorities> {
  const create = async (): Promise<Generation> => {
    const nowMs = now();
    const keyType = domain.authorityKeyType ?? domain.keyType;
    const options = { trustDomain: domain.name, keyType, intermediates: domain.intermediates, lifeMs: domain.authorityLife, nowMs };
    return { x509: await createAuthority(options), jwt: await createJwtKey(), createdAtMs: nowMs };
  };
  let active = await create();
  let generations: readonly Generation[] = [active];
  let revoked: readonly { readonly serial: Uint8Array; readonly atMs: number }[] = [];
  let lists = 0;
  let list: Uint8Array | undefined;

  const writeList = async (): Promise<void> => {
    if (revoked.length === 0) return;
    lists += 1;
    list = await active.x509.revocationList({ number: lists, nowMs: now(), lifeMs: domain.svidLife, revoked });
  };
  const newest = (): Generation => generations.at(-1) ?? active;
  const prepare = async (): Promise<void> => {
    generations = [...generations, await create()];
  };
  const activate = (): Promise<void> => {
    active = newest();
    return writeList();
  };

  return {
    bundleDer: () => Buffer.concat(generations.map(({ x509 }) => x509.rootDer)),
    bundlePem: () => generations.map(({ x509 }) => toPem(x509.rootDer)).join(''),
    jwks: () => writeJwks(generations.map(({ jwt }) => jwt)),
    jwtKeys: () => generations.map(({ jwt }) => jwt),
    revocationList: () => list,
    issue: (id, options) => active.x509.issue({ id, keyType: domain.keyType, lifeMs: domain.svidLife, nowMs: now(), ...options }),
    signJwt: (id, audience) => signJwtSvid(active.jwt, { id, audience, nowMs: now(), lifeMs: domain.jwtSvidLife }),
    prepare,
    activate,
    retire() {
      generations = [active];
    },
    async revoke(serial) {
      if (revoked.some((entry) => Buffer.compare(entry.serial, serial) === 0)) return;
      revoked = [...revoked, { serial, atMs: now() }];
      await writeList();
    },
    async age() {
      generations = generations.filter((generation) => generation === active || generation.x509.notAfterMs > now());
      if (newest() !== active) await activate();
      else if (now() >= active.createdAtMs + domain.authorityLife / 2) await prepare();
      // Lists end like SVIDs do, and are renewed with them.
      await writeList();
    },
  };
}
