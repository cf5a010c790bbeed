import { FILE_USES } from '../../../src/transport/file-budget.ts';
import { UPDATE_PROBLEMS } from '../../../src/workload-api/decode.ts';
import { countRequest, createMetrics, type Metrics } from '../../../src/telemetry/metrics/metrics.ts';
import { NOTIFY_KINDS } from '../../../src/telemetry/log/files-records.ts';
import { HTTP_RESULTS } from '../../../src/telemetry/log/records.ts';
import { buildX509Svid } from '../../../src/spiffe/x509-svid.ts';
import { createTestAuthority } from '../pki/pki.ts';
import { bundleOf, heldSnapshot } from '../pki/snapshots.ts';

/** Metrics in which every series there can be is there, if its labels are from closed sets. */
export function metricsInUse(checks: readonly string[] = ['identity']): Metrics {
  const metrics = createMetrics({ version: '1.2.3', tls: { versions: 'TLSv1.3', groups: 'X25519', ciphers: 'one', fips: 'false' } });
  for (const direction of ['inbound', 'outbound'] as const) {
    const numbers = metrics.listener({ direction, name: `${direction}-0` });
    for (const result of HTTP_RESULTS) {
      countRequest(numbers.requests, 200, result);
      numbers.retries.add(result);
    }
    for (const tally of [numbers.allowed, numbers.denied, numbers.allowedInAudit]) tally.add('spiffe://example.org/**');
  }
  const checked = metrics.checks.listener('inbound-0');
  for (const tally of [checked.allowed, checked.denied, checked.allowedInAudit]) tally.add('spiffe://example.org/**');
  const authority = createTestAuthority();
  const id = 'spiffe://example.org/web';
  const { chainDer, keyDer } = authority.intermediate().issue({ id });
  const svid = buildX509Svid({ spiffeId: id, chainDer, keyDer, hint: 'internal' }, bundleOf(authority), Date.now());
  if (!svid.ok) throw new Error(svid.error.message);
  metrics.setIdentity(heldSnapshot([svid.value], [authority]));
  for (const problem of UPDATE_PROBLEMS) metrics.identityUpdates.rejected.add(problem);
  metrics.jwt.tokens('inbound-0');
  metrics.workloadApiErrors.add('TRANSPORT');
  metrics.setApplicationExposed({ direction: 'inbound', name: 'inbound-0' }, false);
  metrics.federation.relation('partner.example');
  metrics.files.set('nginx');
  for (const kind of NOTIFY_KINDS) metrics.files.target('nginx', kind, '/run/nginx.pid');
  metrics.credentials.source('partner');
  metrics.application.exitCode = 0;
  metrics.probes.probe('/app/ready');
  metrics.setReadinessSource(() => checks.flatMap((name) => [true, false].map((blocks) => ({ name, ok: true, blocks }))));
  metrics.setPolicyFilesSource(() => [{ file: '/etc/scute/policy.yaml', entries: 1 }]);
  metrics.setWaitingSource(
    () => FILE_USES.map((use) => ({ use, held: 0, kept: 8, most: 128 })),
    () => ({ inbound: 0, outbound: 0 }),
  );
  return metrics;
}
