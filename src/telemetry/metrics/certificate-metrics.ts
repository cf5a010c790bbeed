import type { IdentitySnapshot } from '../../identity/snapshot.ts';
import type { Certificate } from '../../spiffe/x509/certificate.ts';
import { trustDomainOf } from '../../spiffe/spiffe-id.ts';
import type { TrustDomain } from '../../spiffe/trust-domain.ts';
import type { Collected, Define, Labels } from './text-format.ts';

/** Series of one metric, so that no trust bundle, which its owner may fill as he likes, is a burden for whoever stores them. */
export const MOST_CERTIFICATE_SERIES = 1000;
/** Of one trust domain: nobody takes the places of others. */
export const MOST_DOMAIN_SERIES = 100;
/** Hexadecimal digits. A key identifier is 40 of them as a rule, and as long as its issuer likes. */
const MAX_KEY_ID = 128;

interface Series {
  readonly labels: Labels;
  readonly certificate: Certificate;
}

/** Times are absolute, and no label changes when a certificate is renewed by the same key. What is gone from the snapshot has no series. */
export function registerCertificateMetrics(gauge: Define): (snapshot: IdentitySnapshot) => void {
  let svids: readonly Series[] = [];
  let intermediates: readonly Series[] = [];
  let authorities: readonly Series[] = [];
  let omitted = { svid: 0, intermediate: 0, authority: 0 };

  const each =
    (series: () => readonly Series[], timeMs: (certificate: Certificate) => number): Collected['collect'] =>
    (add) => {
      for (const { labels, certificate } of series()) add(labels, timeMs(certificate) / 1000);
    };
  const notAfter = ({ notAfterMs }: Certificate): number => notAfterMs;
  const notBefore = ({ notBeforeMs }: Certificate): number => notBeforeMs;
  const ofSvid = ['spiffe_id', 'hint', 'issuer_key_id'];
  gauge(
    'x509_svid_expiration_timestamp_seconds',
    'When each SVID of ours expires',
    ofSvid,
    each(() => svids, notAfter),
  );
  gauge(
    'x509_svid_not_before_timestamp_seconds',
    'When each SVID of ours begins',
    ofSvid,
    each(() => svids, notBefore),
  );
  gauge(
    'x509_intermediate_expiration_timestamp_seconds',
    'When each intermediate expires that stands between an SVID of ours and its authority',
    ['subject_key_id', 'issuer_key_id'],
    each(() => intermediates, notAfter),
  );
  gauge(
    'x509_authority_expiration_timestamp_seconds',
    'When each authority expires',
    ['trust_domain', 'subject_key_id'],
    each(() => authorities, notAfter),
  );
  gauge(
    'x509_authority_not_before_timestamp_seconds',
    'When each authority begins',
    ['trust_domain', 'subject_key_id'],
    each(() => authorities, notBefore),
  );
  gauge('x509_omitted_series', 'Certificates without a series of their own, since there are too many', ['kind'], (add) => {
    for (const [kind, count] of Object.entries(omitted)) add({ kind }, count);
  });

  return (snapshot) => {
    const held = snapshot.kind === 'held' ? snapshot.svids : [];
    const allSvids = unique(
      held.flatMap(({ id, hint, chain: [leaf] }) =>
        leaf === undefined ? [] : { labels: { spiffe_id: id, hint, issuer_key_id: keyId(leaf.authorityKeyId) }, certificate: leaf },
      ),
      // The Workload API's order is that of preference.
      (shown) => shown,
    );
    const allIntermediates = unique(
      held
        .flatMap((svid) => svid.intermediates)
        .map((certificate) => ({
          labels: { subject_key_id: keyId(certificate.subjectKeyId), issuer_key_id: keyId(certificate.authorityKeyId) },
          certificate,
        })),
      lasting,
    );
    // Ours before those of partners, if there are too many.
    const ours = new Set<TrustDomain>(held.map(({ id }) => trustDomainOf(id)));
    const { own = [], others = [] } = Object.groupBy(snapshot.bundles.values(), ({ trustDomain }) =>
      ours.has(trustDomain) ? 'own' : 'others',
    );
    const byDomain = [...own, ...others].map((bundle) =>
      unique(
        bundle.authorities.map((certificate) => ({
          labels: { trust_domain: bundle.trustDomain, subject_key_id: keyId(certificate.subjectKeyId) },
          certificate,
        })),
        lasting,
      ).toSorted((one, other) => one.certificate.notAfterMs - other.certificate.notAfterMs),
    );
    svids = allSvids.slice(0, MOST_CERTIFICATE_SERIES);
    intermediates = allIntermediates.slice(0, MOST_CERTIFICATE_SERIES);
    authorities = byDomain.flatMap((series) => series.slice(0, MOST_DOMAIN_SERIES)).slice(0, MOST_CERTIFICATE_SERIES);
    omitted = {
      svid: allSvids.length - svids.length,
      intermediate: allIntermediates.length - intermediates.length,
      authority: byDomain.reduce((sum, series) => sum + series.length, 0) - authorities.length,
    };
  };
}

/** One series for each set of labels; `choose` says which certificate of two. */
function unique(all: readonly Series[], choose: (shown: Certificate, other: Certificate) => Certificate): readonly Series[] {
  const found = new Map<string, Series>();
  for (const { labels, certificate } of all) {
    const key = JSON.stringify(labels);
    const shown = found.get(key);
    found.set(key, { labels, certificate: shown === undefined ? certificate : choose(shown.certificate, certificate) });
  }
  return [...found.values()];
}

/** Of a certificate and its renewal the renewal; of two keys that only look alike the one that is missed first. */
function lasting(one: Certificate, other: Certificate): Certificate {
  const isRenewal = one.subjectDer === other.subjectDer && one.publicKey.equals(other.publicKey);
  return one.notAfterMs > other.notAfterMs === isRenewal ? one : other;
}

function keyId(id: string | undefined): string {
  return (id ?? '').slice(0, MAX_KEY_ID);
}
