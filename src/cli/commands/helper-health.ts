/** The health listener of `scute spiffe-helper`. */
import { posix } from 'node:path';
import type { App } from '../../app.ts';
import { writeStatusOf } from '../../admin/checks/file-sets.ts';
import { createHttpService, type HttpService, type Routes } from '../../admin/http.ts';
import { healthBody, isHealthy, type WriteStatuses } from '../../helper/health.ts';
import { X509_SET, type HealthConfig, type HelperConfig } from '../../helper/helper-config.ts';

/** Serves until it is stopped. Rejects if the port cannot be had. */
export async function serveHealth(
  { port, livenessPath, readinessPath }: HealthConfig,
  { certDir, sets }: Pick<HelperConfig, 'certDir' | 'sets'>,
  statuses: App['fileSets'],
): Promise<HttpService> {
  const answer = (check: 'liveness' | 'readiness') => () => {
    const now = writeStatuses(
      certDir,
      sets.map(({ name }) => name),
      statuses(),
    );
    const isGood = isHealthy(now, check);
    return { status: isGood ? 200 : 503, body: healthBody(now, isGood), contentType: 'application/json' };
  };
  const routes: Routes = { [livenessPath]: { GET: answer('liveness') }, [readinessPath]: { GET: answer('readiness') } };
  const socket = { listen: { kind: 'tcp', host: '::', port }, socketMode: 0o600, socketGid: undefined } as const;
  const service = createHttpService({ name: 'health', socket, allowedHosts: [], routes });
  await service.start(AbortSignal.timeout(10_000));
  return service;
}

function writeStatuses(certDir: string, names: readonly string[], statuses: ReturnType<App['fileSets']>): WriteStatuses {
  const statusOf = (name: string) => writeStatusOf(statuses.find((each) => each.name === name));
  return {
    x509: names.includes(X509_SET) ? statusOf(X509_SET) : undefined,
    jwt: new Map(
      names.filter((name) => name !== X509_SET).map((name) => [posix.join(certDir, name.slice(X509_SET.length + 1)), statusOf(name)]),
    ),
  };
}
