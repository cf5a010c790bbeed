import assert from 'node:assert/strict';
import { test } from 'node:test';
import { policyFrom } from '../../test/support/policy/policies.ts';
import { auditOf } from './audit.ts';

const WEB = 'spiffe://example.org/web';

test('what is in audit is named, an allow rule as such, and what is enforced is not', () => {
  const allow = [WEB, { peer: WEB, methods: ['GET'] }, { peer: WEB, methods: ['PUT'], mode: 'audit' as const }];
  const deny = [
    { peer: WEB, paths: ['/a'] },
    { peer: WEB, paths: ['/b'], mode: 'audit' as const },
  ];

  assert.deepEqual(auditOf(policyFrom({ allow, deny })), [`allow ${WEB} PUT (audit)`, `deny ${WEB} /b (audit)`]);
  assert.deepEqual(auditOf(policyFrom({ allow: [WEB], mode: 'audit' })), ['the whole policy: it denies nobody']);
  assert.deepEqual(auditOf(policyFrom({ allow: [WEB] })), []);
});
