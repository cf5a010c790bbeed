import assert from 'node:assert/strict';
import type { Page } from '../../../src/admin/api-types.ts';
import { parseAddress } from '../../../src/config/units.ts';
import { answerSchema, type AssertSchema } from './answer-schema.ts';
import { ask } from '../http/http.ts';
import type { Sidecar } from '../sidecar.ts';

export const assertSchema: AssertSchema = answerSchema('api.schema.json');

/** Which part of the schema describes which resource. */
export const DEFINITIONS: Readonly<Record<string, string>> = {
  '': 'Index',
  overview: 'Overview',
  certificates: 'CertificatePage',
  'trust-domains': 'TrustDomainPage',
  connections: 'ConnectionPage',
  peers: 'PeerPage',
  listeners: 'ListenerList',
  tokens: 'TokenList',
  readiness: 'Readiness',
  refusals: 'RefusalPage',
  sds: 'Sds',
  rotations: 'Rotations',
};

/** One answer of the API of a sidecar, compared with the schema. */
export async function api<T>(sidecar: Sidecar, resource: string): Promise<T> {
  const address = parseAddress(sidecar.address('admin'));
  assert.ok(address.ok);
  const { status, body } = await ask(address.value, `/api/v1/${resource}`);
  assert.equal(status, 200, body);
  const answer: unknown = JSON.parse(body);
  assertSchema(DEFINITIONS[resource.split('?', 1)[0] ?? ''] ?? '', answer);
  return answer as T;
}

/** Every page of a list. */
export async function everyPage<T>(sidecar: Sidecar, resource: string): Promise<readonly T[]> {
  const items: T[] = [];
  let cursor: string | null = '';
  while (cursor !== null) {
    const separator = resource.includes('?') ? '&' : '?';
    const page: Page<T> = await api(sidecar, cursor === '' ? resource : `${resource}${separator}cursor=${cursor}`);
    items.push(...page.items);
    cursor = page.nextCursor;
  }
  return items;
}
