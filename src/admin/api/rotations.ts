import type { ApiSource } from './source.ts';
import type * as api from '../api-types.ts';
import type { Held } from '../held-book.ts';
import { isoTime, timeOf } from '../iso-time.ts';
import { newest } from './page.ts';

const MAX_DUE = 100;

/** `rotations`: what was, and what is to come. */
export function rotations(source: ApiSource): api.Rotations {
  const past = source.held.changes
    .toReversed()
    .map(({ atMs, notAfterMs, generation, change, spiffeId, trustDomain, certificate, replaced }): api.Rotation => ({
      at: isoTime(atMs),
      generation,
      change,
      spiffeId,
      trustDomain,
      certificate,
      replaced,
      notAfter: timeOf(notAfterMs),
    }));
  return { past, due: due(source) };
}

function due({ held, status, clock }: ApiSource): readonly api.Due[] {
  const nowMs = clock.now();
  const found: { readonly atMs: number; readonly due: Omit<api.Due, 'at'> }[] = [];
  const tell = (atMs: number | undefined, expected: Omit<api.Due, 'at'>): void => {
    if (atMs !== undefined && atMs > nowMs) found.push({ atMs, due: expected });
  };
  for (const { id, svid, trustDomain, certificate } of held.of('svid')) {
    const { notBeforeMs, notAfterMs } = certificate;
    const lifeMs = notAfterMs - notBeforeMs;
    const of = { spiffeId: svid?.id ?? null, trustDomain, certificate: id };
    tell(notBeforeMs + lifeMs / 2, { what: 'svid_renewal', ...of });
    tell(notBeforeMs + (lifeMs * 2) / 3, { what: 'svid_overdue', ...of });
    tell(notAfterMs, { what: 'svid_expiry', ...of });
  }
  const authorities = newest<Held>(
    {
      name: 'authority',
      items: () => held.of('authority'),
      // The first to expire are the greatest.
      keyOf: ({ certificate }) => -certificate.notAfterMs,
      fits: ({ certificate }) => certificate.notAfterMs > nowMs,
    },
    Infinity,
    MAX_DUE,
  );
  for (const { id, trustDomain, certificate } of authorities)
    tell(certificate.notAfterMs, { what: 'authority_expiry', spiffeId: null, trustDomain, certificate: id });
  for (const { trustDomain, nextRefreshMs } of status.federation?.() ?? [])
    tell(nextRefreshMs, { what: 'bundle_refresh', spiffeId: null, trustDomain, certificate: null });
  return found
    .toSorted((one, other) => one.atMs - other.atMs)
    .slice(0, MAX_DUE)
    .map(({ atMs, due: expected }) => ({ at: isoTime(atMs), ...expected }));
}
