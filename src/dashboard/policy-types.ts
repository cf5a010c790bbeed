/** What the dashboard reads of the answer of `GET /policy`, whose own schema is `config/policy-page.ts`. */

export interface PolicyRule {
  readonly effect: 'allow' | 'deny';
  readonly index: number;
  readonly text: string;
}

export interface PolicyRefusal {
  readonly peer: string;
  readonly method: string | null;
  readonly path: string | null;
  readonly host: string | null;
  readonly reason: string;
  readonly rule: PolicyRule | null;
  readonly passes_by: PolicyRule | null;
  readonly near: { readonly rule: PolicyRule; readonly text: string } | null;
  readonly passed: number;
  readonly refused: number;
  readonly first_at: string | null;
  readonly last_at: string | null;
  readonly allowed_now: boolean;
  readonly rule_to_allow: string | null;
  readonly no_rule: string | null;
}

export interface PolicyListener {
  readonly name: string;
  readonly direction: 'inbound' | 'outbound';
  readonly mode: 'enforce' | 'audit';
  readonly audit_rules: number;
  readonly in_audit: readonly string[];
  readonly rules: readonly (PolicyRule & { readonly mode: 'enforce' | 'audit'; readonly connections: number | null })[];
  readonly rules_omitted: number;
  readonly would_deny: readonly PolicyRefusal[];
  readonly denied: readonly PolicyRefusal[];
  readonly omitted: number;
  readonly not_listed: { readonly passed: number; readonly refused: number };
  readonly rules_to_copy: readonly string[];
}

export interface PolicyAnswer {
  readonly now: string | null;
  readonly listeners: readonly PolicyListener[];
}
