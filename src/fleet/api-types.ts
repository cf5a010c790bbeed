/**
 * The answers of `/api/v1/fleet/`, as TypeScript types alone: nothing is imported, so that a page in a browser can share them.
 * `configs/fleet-api.schema.json` says the same as JSON Schema, and tests compare the two with real answers.
 */

/** RFC 3339; null if there is none, or none that can be written. */
export type Time = string | null;

/** Why something is not known. */
export type FleetProblemReason =
  | 'unreachable'
  | 'tls_failed'
  | 'timeout'
  | 'unauthorized' // 401 or 403: the token
  | 'redirected' // it is not followed
  | 'bad_status'
  | 'too_large'
  | 'too_many_series'
  | 'not_json'
  | 'not_prometheus' // JSON, and not what Prometheus answers
  | 'refused_query' // Prometheus says no, in its words
  | 'bad_file' // of the token or the CA
  | 'busy'; // too much is asked at once

export interface FleetProblem {
  readonly reason: FleetProblemReason;
  readonly detail: string;
}

/** Either is null: what one question could not find out leaves the others as they are. */
export interface Part<T> {
  readonly value: T | null;
  readonly problem: FleetProblem | null;
}

/** Labels that Prometheus was told to add; empty if it was not. */
export interface Place {
  readonly cluster: string;
  readonly namespace: string;
  readonly pod: string;
  readonly node: string;
}

/** By which a sidecar is known; `instance` is what its own dashboard is called. */
export interface SidecarName {
  readonly job: string;
  readonly instance: string;
  readonly place: Place;
}

export interface FleetCounts {
  readonly sidecars: number;
  /** Prometheus could not scrape them at its last attempt. */
  readonly unreachable: number;
  /** A check that blocks fails. */
  readonly notReady: number;
  /** Without a stream to the Workload API. */
  readonly disconnected: number;
  readonly certificates: number;
  readonly expired: number;
  /** Past three quarters of their life without rotation. */
  readonly stuck: number;
  /** Sidecars by trust domain that lack its newest authority. */
  readonly lagging: number;
}

export interface FleetOverview {
  /** By the clock of Prometheus: certificates are judged by it. Null while there is no answer. */
  readonly now: Time;
  /** Without anything that lets somebody in. */
  readonly prometheus: string;
  readonly counts: Part<FleetCounts>;
  readonly firstExpiry: Part<Time>;
  /** Certificates by how many tenths of their life are left, rounded down; the first are those that have expired. */
  readonly remainingLife: Part<
    readonly { readonly tenth: 'expired' | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9; readonly certificates: number }[]
  >;
  /** Sidecars by version of Scute, the most frequent first; at most 50 versions. */
  readonly versions: Part<readonly { readonly version: string; readonly sidecars: number }[]>;
}

/** In an order by time, or by labels where times are the same. */
export interface FleetPage<T> {
  readonly now: Time;
  readonly items: readonly T[];
  readonly nextCursor: string | null;
  /** Of more than 1,000 with the very same time, those that are not told. */
  readonly omitted: number;
}

export type FleetCertificatePage = FleetPage<FleetCertificate>;
export type FleetGroupPage = FleetPage<FleetGroup>;
export type FleetSidecarPage = FleetPage<FleetSidecar>;
export type FleetUnreachablePage = FleetPage<FleetUnreachable>;
export type FleetAuthorityPage = FleetPage<FleetAuthority>;
export type FleetLaggingPage = FleetPage<FleetLagging>;

/** An SVID that a sidecar holds. */
export interface FleetCertificate {
  readonly spiffeId: string;
  readonly trustDomain: string;
  readonly hint: string;
  readonly issuerKeyId: string;
  readonly notBefore: Time;
  readonly notAfter: Time;
  /** 1 before its life, 0 after; null if its beginning is not known. */
  readonly remainingShare: number | null;
  readonly stuck: boolean;
  readonly sidecar: SidecarName;
}

/** What `groups` can be made by. */
export type Dimension = 'trust_domain' | 'issuer' | 'workload' | 'cluster' | 'namespace' | 'node';

/** The SVIDs that have one thing in common. */
export interface FleetGroup {
  readonly name: string;
  readonly certificates: number;
  readonly stuck: number;
  readonly firstExpiry: Time;
}

export interface FleetSidecar {
  readonly sidecar: SidecarName;
  readonly version: string | null;
  /** Checks that block and fail; null if it tells none. */
  readonly failing: readonly string[];
  readonly connected: boolean | null;
  readonly certificates: number;
  readonly firstExpiry: Time;
}

/** A sidecar that Prometheus cannot scrape. */
export interface FleetUnreachable {
  readonly sidecar: SidecarName;
}

/** An authority of a trust domain, wherever it is trusted. */
export interface FleetAuthority {
  readonly trustDomain: string;
  readonly subjectKeyId: string;
  readonly notAfter: Time;
  /** No other of its trust domain began later. */
  readonly newest: boolean;
  /** Sidecars that trust it. */
  readonly trustedBy: number;
  /** SVIDs that say they were signed by its key. */
  readonly issued: number;
}

/** A sidecar to which the newest authority of a trust domain has not come: it cannot verify who is signed by that. */
export interface FleetLagging {
  readonly trustDomain: string;
  readonly sidecar: SidecarName;
  /** When the last authority that it trusts expires. */
  readonly lastExpiry: Time;
}

/** What there is under `/api/v1/fleet/`. */
export interface FleetIndex {
  readonly version: 1;
  readonly resources: Readonly<Record<string, string>>;
}

/** Every answer that is not a 200. */
export interface FleetRefusal {
  readonly error: string;
  readonly detail: string;
}
