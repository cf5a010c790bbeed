import assert from 'node:assert/strict';
import { compilePolicy, type Policy, type PolicySpec } from '../../src/policy/policy.ts';

/** The policy that lets whom these entries name do everything. */
export function policyOf(...allow: readonly string[]): Policy {
  return policyFrom({ allow });
}

export function policyFrom(spec: PolicySpec): Policy {
  const compiled = compilePolicy(spec);
  assert.ok(compiled.ok, compiled.ok ? '' : JSON.stringify(compiled.error));
  return compiled.value;
}
