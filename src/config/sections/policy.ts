/** The policy of a listener: written with it, or in a file. Pure. */
import * as z from 'zod';
import { compilePolicy, type Policy, type PolicySpec } from '../../policy/policy.ts';
import type { IdsOf } from '../../policy/rule.ts';
import * as field from '../fields.ts';

export interface FileLookups {
  /** The absolute path of a file that the configuration names. */
  resolve(path: string): string;
  /** Undefined if it cannot be used. */
  policyOf(file: string): Policy | undefined;
  readonly idsOf: IdsOf;
}

export const NO_FILES: FileLookups = { resolve: (path) => path, policyOf: () => undefined, idsOf: () => undefined };

interface PolicyFrom {
  readonly file: string;
  readonly policy: Policy;
}

/** `policyFile`, instead of the keys `replaced`. */
export const policyFile = (replaced: string, files: FileLookups) =>
  field
    .fileBeside(files)
    .transform((file, context): PolicyFrom => {
      const policy = files.policyOf(file);
      if (policy !== undefined) return { file, policy };
      context.addIssue({ code: 'custom', message: `${file} cannot be used`, input: file });
      return z.NEVER;
    })
    .optional()
    .meta({
      description: `a file that has the policy instead of ${replaced}, which listeners and sidecars may share; read again when it changes. \`docs/reference/policy.md\` has its form. A path from the folder of this file`,
    });

/** Each rule has been found good by itself, and there is nothing else that may be wrong. */
export function policyFrom(
  from: PolicyFrom | undefined,
  spec: PolicySpec,
  { idsOf }: FileLookups,
): { readonly policy: Policy; readonly policyFile: string | undefined } {
  if (from !== undefined) return { policy: from.policy, policyFile: from.file };
  const compiled = compilePolicy(spec, { idsOf });
  if (!compiled.ok) throw new Error(`rules that were good are not: ${JSON.stringify(compiled.error)}`);
  return { policy: compiled.value, policyFile: undefined };
}
