import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseCertificate } from '../spiffe/x509/certificate.ts';
import { parseCrl } from '../spiffe/x509/crl.ts';
import type { Result } from '../lib/result.ts';
import { parseTrustDomain } from '../spiffe/trust-domain.ts';
import { createAuthority } from './authority.ts';

function unwrap<T>(result: Result<T, string>): T {
  if (!result.ok) assert.fail(result.error);
  return result.value;
}

test('from 2050 on, too, what an authority writes is what Scute reads: whole seconds', async () => {
  const nowMs = Date.UTC(2060, 0, 1) + 123;
  const trustDomain = unwrap(parseTrustDomain('example.org'));
  const options = { keyType: 'ec-p256', lifeMs: 3_600_000, nowMs } as const;

  const authority = await createAuthority({ ...options, trustDomain, intermediates: 1, lifeMs: 86_400_000 });
  const svid = await authority.issue({ ...options, id: 'spiffe://example.org/web' });
  const list = await authority.revocationList({ ...options, number: 1, revoked: [{ serial: svid.serial, atMs: nowMs }] });

  for (const der of [authority.rootDer, ...svid.chainDer]) unwrap(parseCertificate(der));
  unwrap(parseCrl(list));
  assert.equal(unwrap(parseCertificate(svid.chainDer[0] ?? new Uint8Array())).notAfterMs, svid.notAfterMs);
});
