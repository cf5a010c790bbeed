import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { devConfigSchema, type DevConfigInput } from '../../src/devdomain/config.ts';
import { createDevDomain, type DevDomain, type DevDomainDeps } from '../../src/devdomain/dev-domain.ts';
import { systemClock } from '../../src/lib/clock.ts';

type DomainInput = DevConfigInput['trustDomains'][number];

/** A trust domain of the test's: workloads by name, each with the paths or IDs that it holds. Sockets are made in a temporary folder. */
export type TestTrustDomain = Omit<DomainInput, 'workloads'> & { readonly workloads?: Readonly<Record<string, WorkloadIds>> };
type WorkloadIds = NonNullable<DomainInput['workloads']>[number]['ids'];

/**
 * Starts trust domains, and stops them after the test.
 *
 *     const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { web: ['spiffe://example.org/web'] } });
 *     spiffe.endpoint('web') // unix:///tmp/…/web.sock
 */
export async function startDevDomain(t: TestContext, ...trustDomains: readonly TestTrustDomain[]): Promise<DevDomain> {
  return startDevDomainWith(t, {}, trustDomains);
}

/** As `startDevDomain`, with a clock or a way to count calls. */
export async function startDevDomainWith(
  t: TestContext,
  deps: Partial<DevDomainDeps>,
  trustDomains: readonly TestTrustDomain[],
): Promise<DevDomain> {
  const folder = await mkdtemp(join(tmpdir(), 'scute-dev-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const config = devConfigSchema.parse({
    trustDomains: trustDomains.map((domain) => ({
      ...domain,
      workloads: Object.entries(domain.workloads ?? {}).map(([name, ids]) => ({ name, socket: join(folder, `${name}.sock`), ids })),
    })),
  });
  const domain = createDevDomain(config, {
    clock: systemClock,
    onFailure: (failure) => {
      throw failure;
    },
    ...deps,
  });
  await domain.start(AbortSignal.timeout(60_000));
  t.after(() => domain.stop(AbortSignal.abort()));
  return domain;
}
