/** Which matchers of a configuration Envoy is never given, whatever becomes of identity. Pure. */
import type { Config, SdsConfig, SdsMatchers } from '../config/config.ts';
import { compilePolicy, type Policy } from '../policy/policy.ts';
import { parseSpiffeId, trustDomainOf } from '../spiffe/spiffe-id.ts';
import { sayPolicy, sayRules, type Unsaid } from './expression.ts';

export interface WithheldMatchers extends Unsaid {
  /** The entry of `sds.matchers`. */
  readonly matchers: SdsMatchers;
}

/** Who may be admitted by the validation context of which name. */
export function sdsPolicies(config: Pick<Config, 'sds' | 'inbound'>): ReadonlyMap<string, Policy> {
  return new Map((config.sds?.matchers ?? []).map((matchers) => [matchers.secret, policyOf(config, matchers)]));
}

/** The secrets with matchers that are withheld because of their policy. */
export function withheldMatchers(config: Pick<Config, 'sds' | 'inbound'>): readonly WithheldMatchers[] {
  const { sds } = config;
  if (sds === undefined) return [];
  return sds.matchers.flatMap((matchers) => {
    const unsaid = unsaidOf(policyOf(config, matchers), matchers.secret, sds);
    return unsaid === undefined ? [] : [{ ...unsaid, matchers }];
  });
}

/** In one line. */
export function describeWithheld({ matchers: { secret, listener }, detail }: WithheldMatchers): string {
  return `${JSON.stringify(secret)}${listener === undefined ? '' : `, of listener ${listener},`} is withheld: ${detail}`;
}

function unsaidOf(policy: Policy, secret: string, { defaultBundleName, identity }: SdsConfig): Unsaid | undefined {
  const rules = sayRules(policy);
  if (!rules.ok) return rules.error;
  const id = parseSpiffeId(secret);
  const isOurs = !id.ok && secret === defaultBundleName;
  // Which trust domain is ours is known when there is an identity.
  if (isOurs && identity.by !== 'id' && rules.value.length > 0) return undefined;
  const named = id.ok ? id.value : isOurs && identity.by === 'id' ? identity.id : undefined;
  const said = sayPolicy(policy, named && trustDomainOf(named), 0);
  return said.ok ? undefined : said.error;
}

/** A listener that is not there any more admits nobody. */
function policyOf({ inbound }: Pick<Config, 'inbound'>, { listener, policy }: SdsMatchers): Policy {
  return policy ?? inbound.find(({ name }) => name === listener)?.policy ?? nobody();
}

function nobody(): Policy {
  const compiled = compilePolicy({ allow: [] });
  if (!compiled.ok) throw new Error('an empty policy does not compile');
  return compiled.value;
}
