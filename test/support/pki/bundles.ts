import assert from 'node:assert/strict';
import { parseCertificate, type Certificate } from '../../../src/spiffe/x509/certificate.ts';
import { buildTrustBundle, type TrustBundle } from '../../../src/spiffe/trust-bundle.ts';
import { parseTrustDomain, type TrustDomain } from '../../../src/spiffe/trust-domain.ts';
import type { TestCertificate } from './pki.ts';

export function requireTrustDomain(name: string): TrustDomain {
  const parsed = parseTrustDomain(name);
  assert.ok(parsed.ok, `trust domain ${name}`);
  return parsed.value;
}

export function bundleOf(domain: string, authorities: readonly TestCertificate[], crls: readonly Uint8Array[] = []): TrustBundle {
  const built = buildTrustBundle(requireTrustDomain(domain), Buffer.concat(authorities.map(({ der }) => der)), crls);
  assert.ok(built.ok, built.ok ? '' : built.error.message);
  return built.value;
}

/** Bundles by trust domain, as `verifyPeer` takes them. */
export function bundlesOf(
  authorities: Readonly<Record<string, readonly TestCertificate[]>>,
  crls: readonly Uint8Array[] = [],
): ReadonlyMap<TrustDomain, TrustBundle> {
  return new Map(Object.entries(authorities).map(([domain, roots]) => [requireTrustDomain(domain), bundleOf(domain, roots, crls)]));
}

export function requireCertificate(der: Uint8Array): Certificate {
  const parsed = parseCertificate(der);
  assert.ok(parsed.ok, parsed.ok ? '' : parsed.error);
  return parsed.value;
}
