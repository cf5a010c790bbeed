/** What an Envoy is told that asks Scute (`ext_authz`), where matchers cannot say what a listener does. Pure. */
import type { InboundConfig, SdsConfig } from '../../config/config.ts';
import { err, ok, type Result } from '../../lib/result.ts';
import { parsePattern, type Pattern } from '../../policy/pattern.ts';
import type { Policy } from '../../policy/policy.ts';
import { trustDomainId, trustDomainOf } from '../../spiffe/spiffe-id.ts';
import type { TrustDomain } from '../../spiffe/trust-domain.ts';

const FILTER = 'envoy.filters.http.ext_authz';
const TYPE = 'type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3';

/** Whether Envoy may ask about the requests of a listener: for TCP there is no filter that asks before the application may speak. */
export function mayAsk({ authorization }: SdsConfig, { http }: InboundConfig): boolean {
  return authorization !== undefined && http !== undefined;
}

/** The trust bundle whose peers may connect and ask: all that the policy may admit, whom Scute then judges. The error is a sentence. */
export function askedBundle(sds: SdsConfig, policy: Policy): Result<string, string> {
  const [domain, ...others] = policy.mode === 'audit' ? [] : domainsOf(policy);
  const secret = domain !== undefined && others.length === 0 ? trustDomainId(domain) : sds.defaultAllBundlesName;
  if (secret === sds.defaultAllBundlesName && (sds.disableSpiffeCertValidation || secret === sds.defaultBundleName))
    return err('its peers may be of several trust domains, and there is no secret with all bundles, each bound to its own');
  if (sds.matchers.some((taken) => taken.secret === secret))
    return err(`${JSON.stringify(secret)} has matchers, and Envoy would refuse whom these do not name before it asks`);
  return ok(secret);
}

/** Of whom a policy may admit; none where it cannot be told. */
function domainsOf({ rules, spec }: Policy): ReadonlySet<TrustDomain> {
  const domains = new Set<TrustDomain>();
  const add = (pattern: Pattern): void => void domains.add(pattern.kind === 'exact' ? trustDomainOf(pattern.id) : pattern.trustDomain);
  for (const { effect, peer } of rules) {
    if (effect === 'deny') continue;
    // A list in a file may name anybody, and another one tomorrow; and a rule for a subject is for whoever brings its token.
    if (peer.kind === 'list' || peer.kind === 'any') return new Set();
    add(peer);
  }
  for (const bare of spec.allow) {
    const pattern = typeof bare === 'string' ? parsePattern(bare) : undefined;
    if (pattern?.ok === true) add(pattern.value);
  }
  return domains;
}

/** Longer than any pause of Scute's: Envoy's own is 200 ms. Without an answer in time, the request is answered with a 503. */
const TIMEOUT = '1s';

/** The filter, ahead of the router. */
export function extAuthzFilter(cluster_name: string): object {
  return {
    name: FILTER,
    typed_config: {
      '@type': `${TYPE}.ExtAuthz`,
      transport_api_version: 'V3',
      grpc_service: { envoy_grpc: { cluster_name }, timeout: TIMEOUT },
      include_peer_certificate: true,
      // Else bytes of a path that are no UTF-8 are shown as "!", and go on as they are.
      encode_raw_headers: true,
      failure_mode_allow: false,
      status_on_error: { code: 'ServiceUnavailable' },
    },
  };
}

/** Of a virtual host: which listener is meant. */
export function extAuthzOf(listener: string): object {
  return {
    typed_per_filter_config: { [FILTER]: { '@type': `${TYPE}.ExtAuthzPerRoute`, check_settings: { context_extensions: { listener } } } },
  };
}

/** Of the HTTP connection manager: what is judged is what the caller sent, and what goes on. */
export const AS_JUDGED = { normalize_path: false, merge_slashes: false, path_with_escaped_slashes_action: 'KEEP_UNCHANGED' } as const;
