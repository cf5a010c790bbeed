/** Whether the server of a bundle endpoint is who it must be: SPIFFE Federation, section 5.2. */
import type { DenyList } from '../policy/deny-list.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import type { TrustBundle } from '../spiffe/trust-bundle.ts';
import type { SecureConnection, TlsContext } from '../transport/connection.ts';
import { createTlsContext } from '../transport/node.ts';
import { createPeerJudge } from './peer.ts';
import { judgeWebServer } from './web-server.ts';

export interface EndpointTrust {
  /** Shows no certificate of ours: an endpoint may not ask for one. */
  readonly context: TlsContext;
  /** A sentence if the server of a finished handshake is not who it must be. `host` is that of the URL, without brackets. */
  problemOf(connection: SecureConnection, host: string, nowMs: number): string | undefined;
}

/** `https_spiffe`: the server has exactly this SPIFFE ID, judged as every peer is, by `denyList` too; its host name counts for nothing. */
export function spiffeTrust(id: SpiffeId, bundle: TrustBundle, denyList: () => DenyList): EndpointTrust {
  const trust = { generation: 0, bundles: new Map([[bundle.trustDomain, bundle]]) };
  const judge = createPeerJudge(denyList);
  return {
    context: createTlsContext({ own: undefined, authoritiesPem: bundle.authorities.map((authority) => authority.pem()) }),
    problemOf(connection, _host, nowMs) {
      const judged = judge.authenticate(connection, 'server', trust, nowMs);
      if (!judged.ok) return `${judged.error.problem}: ${judged.error.detail}`;
      const { id: found } = judged.value.authenticated;
      return found === id ? undefined : `the endpoint is ${found}, not ${id}`;
    },
  };
}

/** `https_web`: an authority of the public web, or one of `authoritiesPem`, vouches for the host name of the URL (RFC 9525). */
export function webTrust(authoritiesPem: readonly string[] | 'web'): EndpointTrust {
  return webTrustIn(createTlsContext({ own: undefined, authoritiesPem }));
}

/** As `webTrust`, by the authorities of `context`, in which something may be presented, too. */
export function webTrustIn(context: TlsContext): EndpointTrust {
  return {
    context,
    problemOf(connection, host) {
      const judged = judgeWebServer(connection, host);
      return judged.ok ? undefined : judged.error.detail;
    },
  };
}
