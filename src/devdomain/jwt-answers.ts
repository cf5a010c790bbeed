import { create } from '@bufbuild/protobuf';
import { status } from '@grpc/grpc-js';
import { JWTSVIDResponseSchema, JWTSVIDSchema, ValidateJWTSVIDResponseSchema } from '../gen/workload_pb.ts';
import { parseSpiffeId, type SpiffeId, trustDomainOf } from '../spiffe/spiffe-id.ts';
import type { TrustDomain } from '../spiffe/trust-domain.ts';
import { validateJwtSvid } from './jwt.ts';
import type { TrustDomainAuthorities } from './trust-domain-authorities.ts';
import { type Answer, refusal, type WorkloadApiAnswers } from './workload-api-server.ts';

export interface JwtAnswerSources {
  /** In order, the default first; none if the workload was withdrawn. */
  identities(): readonly { readonly id: SpiffeId; readonly hint: string }[];
  /** The workload's own trust domain and those that it federates with. */
  domains(): ReadonlyMap<TrustDomain, TrustDomainAuthorities>;
  now(): number;
}

/** FetchJWTSVID and ValidateJWTSVID for one workload (Workload API standard, JWT profile), answered as SPIRE does. */
export function createJwtAnswers(sources: JwtAnswerSources): Pick<WorkloadApiAnswers, 'fetchJwtSvid' | 'validateJwtSvid'> {
  return {
    fetchJwtSvid({ audience, spiffeId }) {
      if (audience.length === 0 || audience.includes('')) return refusal(status.INVALID_ARGUMENT, 'audience must be specified');
      const parsed = spiffeId === '' ? undefined : parseSpiffeId(spiffeId);
      if (parsed?.ok === false) return refusal(status.INVALID_ARGUMENT, `${JSON.stringify(spiffeId)} is not a SPIFFE ID: ${parsed.error}`);
      const wanted = sources.identities().filter(({ id }) => parsed === undefined || id === parsed.value);
      if (wanted.length === 0) return refusal(status.PERMISSION_DENIED, 'no identity issued');
      const domains = sources.domains();
      const svids = wanted.flatMap(({ id, hint }) => {
        const svid = domains.get(trustDomainOf(id))?.signJwt(id, audience);
        return svid === undefined ? [] : [create(JWTSVIDSchema, { spiffeId: id, svid, hint })];
      });
      return { kind: 'message', message: create(JWTSVIDResponseSchema, { svids }) };
    },
    validateJwtSvid({ audience, svid }) {
      if (audience === '') return refusal(status.INVALID_ARGUMENT, 'audience must be specified');
      if (svid === '') return refusal(status.INVALID_ARGUMENT, 'svid must be specified');
      if (sources.identities().length === 0) return refusal(status.PERMISSION_DENIED, 'no identity issued');
      const keys = new Map([...sources.domains()].map(([name, authorities]) => [name, authorities.jwtKeys()]));
      const valid = validateJwtSvid(svid, { audience, keys, nowMs: sources.now() });
      if (!valid.ok) return refusal(status.INVALID_ARGUMENT, valid.error);
      const { id, claims } = valid.value;
      return { kind: 'message', message: create(ValidateJWTSVIDResponseSchema, { spiffeId: id, claims }) } satisfies Answer<unknown>;
    },
  };
}
