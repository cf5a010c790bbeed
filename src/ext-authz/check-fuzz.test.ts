import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fromBinary } from '@bufbuild/protobuf';
import { Draws } from '../../test/fuzz/random.ts';
import { asEnvoySays, checkOf, encodeCheck } from '../../test/support/ext-authz.ts';
import { createTestAuthority } from '../../test/support/pki/pki.ts';
import { policyFrom } from '../../test/support/policy/policies.ts';
import { heldSnapshot, svidOf } from '../../test/support/pki/snapshots.ts';
import { CheckResponseSchema } from '../gen/ext_authz_pb.ts';
import { systemClock } from '../lib/clock.ts';
import { EMPTY_DENY_LIST } from '../policy/deny-list.ts';
import type { CheckRecord } from '../telemetry/log/ext-authz-records.ts';
import { checkMembers } from '../telemetry/log/traffic-lines.ts';
import { leafOf } from './certificates.ts';
import { createCheckService } from './service.ts';
import { decodeCheck } from './wire.ts';

const WEB = 'spiffe://example.org/web';
const own = createTestAuthority({ trustDomain: 'example.org' });
const web = own.issue({ id: WEB });
const policy = policyFrom({ allow: [{ peer: WEB, methods: ['GET'], paths: ['/items/**'], hosts: ['app'] }] });

function startService() {
  const records: CheckRecord[] = [];
  const snapshot = heldSnapshot([svidOf(own, 'spiffe://example.org/api')], [own]);
  const service = createCheckService({
    limits: { maxConcurrentChecks: 1, maxConcurrentChecksPerConnection: 1, maxRequestBytes: 100_000, requestTimeoutMs: 1 },
    listener: (name) => (name === 'api' ? { policy, notReady: () => undefined } : undefined),
    identity: { current: () => snapshot, subscribe: () => () => undefined },
    denyList: () => EMPTY_DENY_LIST,
    events: {
      opened: () => undefined,
      ended: () => undefined,
      checked: (record) => void records.push(record),
      refused: () => undefined,
    },
    refusals: { record: () => undefined },
    clock: systemClock,
  });
  return { service, records };
}

const GOOD = checkOf({ leaf: web.der, listener: 'api', http: { path: '/items/1' } });
const WITH_CHAIN = checkOf({
  leaf: web.der,
  listener: 'api',
  http: { path: '/items/1', headers: { 'x-forwarded-client-cert': `Hash=0;Chain="${asEnvoySays(web.der, own.der)}"`, other: 'x' } },
});

const RAW = checkOf({ leaf: web.der, listener: 'api', http: { path: '/items/1', raw: { ':path': '/items/1', other: 'x' } } });

const CASES = 20_000;
test(`no check that is broken at random is let pass unless it still says what may pass, and none ends the process (${CASES} checks)`, () => {
  const { service, records } = startService();
  const seeds = [GOOD, WITH_CHAIN, RAW].map(encodeCheck);
  const seen = { ok: 0, denied: 0, refused: 0 };
  for (let seed = 0; seed < CASES; seed++) {
    const draws = new Draws(seed);
    const bytes = broken(draws, draws.of(seeds));
    const answer = service.answer(bytes, draws.once(2) ? 'api' : undefined);
    if (!answer.ok) {
      assert.notEqual(answer.error.reason, 'internal_error', String(seed));
      seen.refused += 1;
      continue;
    }
    const { status, httpResponse } = fromBinary(CheckResponseSchema, answer.value);
    const record = records.pop();
    assert.ok(record !== undefined);
    const line: unknown = JSON.parse(`{${checkMembers(record, () => undefined)}}`);
    assert.ok(typeof line === 'object');
    if (status?.code === 0) {
      // Whatever was changed was not what is looked at: all of it still holds.
      const decoded = decodeCheck(bytes, 'api');
      assert.ok(decoded.ok && httpResponse.case === 'okResponse');
      const { certificates, request, listener } = decoded.value.check;
      const leaf = leafOf(certificates.leaf);
      assert.ok(leaf.ok && web.der.equals(leaf.value), String(seed));
      assert.equal(listener, 'api', String(seed));
      assert.ok(request !== undefined && request.method === 'GET' && /^\/items\/[\x21-\x7e]*$/.test(request.target), String(seed));
      assert.match(request.host, /^app\.?(:.*)?$/i, String(seed));
      seen.ok += 1;
    } else {
      assert.ok(status?.code === 7 || status?.code === 3, String(seed));
      assert.ok(httpResponse.case === 'deniedResponse' && [400, 403].includes(httpResponse.value.status?.code ?? 0), String(seed));
      seen.denied += 1;
    }
  }
  for (const [kind, count] of Object.entries(seen)) assert.ok(count > CASES / 100, `${kind}: ${count}`);
});

/** Bytes changed, left out, doubled, cut off; or no check at all. */
function broken(draws: Draws, good: Buffer): Buffer {
  if (draws.once(10)) return Buffer.from(Array.from({ length: draws.below(200) }, () => draws.below(256)));
  let bytes = Buffer.from(good);
  for (let change = 0; change <= draws.below(4); change++) {
    const at = draws.below(bytes.length);
    const end = Math.min(at + 1 + draws.below(8), bytes.length);
    switch (draws.below(4)) {
      case 0:
        bytes[at] = draws.below(256);
        break;
      case 1:
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(end)]);
        break;
      case 2:
        bytes = Buffer.concat([bytes.subarray(0, end), bytes.subarray(at)]);
        break;
      case 3:
        if (draws.once(4)) bytes = bytes.subarray(0, at);
    }
    if (bytes.length === 0) return bytes;
  }
  return bytes;
}
