import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatIssues } from '../config/issue.ts';
import { parseConfig } from '../config/load.ts';
import { describeWithheld, withheldMatchers } from './withheld.ts';

const [WEB, BATCH] = ['spiffe://example.org/web', 'spiffe://partner.example/batch'];

/** What is said of matchers of a listener, under this name. */
async function said(secret: string, listener: object, sds: object = {}): Promise<readonly string[]> {
  const raw = {
    workloadApi: { endpoint: 'unix:///a' },
    inbound: [{ name: 'in', listen: '127.0.0.1:1', to: '127.0.0.1:2', ...listener }],
    sds: { listen: 'unix:///s', matchers: [{ secret, listener: 'in' }], ...sds },
  };
  const loaded = await parseConfig(JSON.stringify(raw), { file: 'f', flags: {}, env: {} });
  if (!loaded.ok) throw new Error(formatIssues(loaded.error));
  return withheldMatchers(loaded.value).map(describeWithheld);
}

test('matchers that are never given to Envoy are told, each with its rule, and no others', async () => {
  const times = { peer: WEB, notAfter: '2027-01-01T00:00:00Z' };
  const both = { allow: [WEB, BATCH] };
  const ours = { identity: { id: 'spiffe://other.example/x' } };
  for (const [found, wanted] of [
    [await said('ROOTCA', { allow: [WEB, times] }), undefined],
    [await said('ROOTCA', { allow: [times] }), undefined],
    [
      await said('ROOTCA', { allow: [WEB], deny: [BATCH] }),
      /^"ROOTCA", of listener in, is withheld: the rule "deny spiffe:.*batch" cannot/,
    ],
    [await said('ROOTCA', { allow: [WEB], policyMode: 'audit' }), /a policy in audit cannot be said/],
    [await said('ROOTCA', { allow: [] }), /the allow list is empty/],
    [await said('ALL', { allow: [] }), /the allow list is empty/],
    // Which trust domain is ours is not known yet.
    [await said('ROOTCA', both), undefined],
    [await said('ROOTCA', both, ours), /no entry of the allow list is of other\.example/],
    [await said('spiffe://partner.example', both), undefined],
    [await said('spiffe://other.example', both), /no entry of the allow list is of other\.example/],
    [await said('ALL', both), /example\.org and partner\.example could issue the IDs of the other/],
    [await said('ALL', { allow: [WEB] }), undefined],
    // Where two names are the same one, that of our bundle is meant.
    [await said('ALL', both, { defaultBundleName: 'ALL' }), undefined],
    [
      await said('ROOTCA', { allow: [WEB] }, { matchers: [{ secret: 'ROOTCA', allow: [] }] }),
      /^"ROOTCA" is withheld: the allow list is empty/,
    ],
  ] as const) {
    assert.equal(found.length, wanted === undefined ? 0 : 1, found.join());
    if (wanted !== undefined) assert.match(found[0] ?? '', wanted);
  }
});
