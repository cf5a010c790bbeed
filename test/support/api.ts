import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Ajv2020 } from 'ajv/dist/2020.js';
import type { Page } from '../../src/admin/api-types.ts';
import { parseAddress } from '../../src/config/units.ts';
import { ask } from './http.ts';
import type { Sidecar } from './sidecar.ts';

const schema: object = JSON.parse(readFileSync(join(import.meta.dirname, '../../configs/api.schema.json'), 'utf8'));
const ajv = new Ajv2020({ strict: true, allErrors: true, validateFormats: false });
ajv.addSchema(schema, 'api');

/** Fails unless `answer` is what the JSON Schema says of `definition`. */
export function assertSchema(definition: string, answer: unknown): void {
  const validate = ajv.getSchema(`api#/$defs/${definition}`);
  assert.ok(validate, `there is no ${definition} in the schema`);
  assert.ok(validate(answer), `${definition}: ${ajv.errorsText(validate.errors ?? null)}\n${JSON.stringify(answer, null, 2)}`);
}

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
