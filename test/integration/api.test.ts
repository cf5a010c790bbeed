import assert from 'node:assert/strict';
import { test } from 'node:test';
import type * as types from '../../src/admin/api-types.ts';
import { api, everyPage } from '../support/api.ts';
import { API, startPair, WEB } from '../support/data-path.ts';
import { dial, startEcho } from '../support/tcp.ts';
import { eventually } from '../support/eventually.ts';

const ADMIN = { admin: { listen: '127.0.0.1:0' } };

test('every resource answers as the JSON Schema says, before and after a connection', async (t) => {
  const echo = await startEcho(t);
  const { inbound, outbound, address } = await startPair(t, echo.address, { file: ADMIN });
  const { resources } = await api<types.Index>(inbound, '');
  for (const path of Object.values(resources)) await api(inbound, path.replace('/api/v1/', ''));

  const caller = await dial(t, address);
  caller.write('hello');
  await eventually(async () => {
    const { items } = await api<types.ConnectionPage>(inbound, 'connections');
    assert.equal(items[0]?.bytesFromDownstream, 5);
  });

  for (const path of Object.values(resources)) await api(inbound, path.replace('/api/v1/', ''));
  for (const path of Object.values(resources)) await api(outbound, path.replace('/api/v1/', ''));
  const overview = await api<types.Overview>(inbound, 'overview');
  assert.equal(overview.identity.spiffeId, API);
  assert.deepEqual(overview.certificates, { svid: 1, intermediate: 0, authority: 1, peer: 1, peer_intermediate: 0, refused: 0 });
  const all = await everyPage<types.Certificate>(inbound, 'certificates');
  assert.deepEqual(
    all.map(({ kind, spiffeId }) => [kind, spiffeId]),
    [
      ['svid', API],
      ['authority', null],
      ['peer', WEB],
    ],
  );
});
