import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Job } from './load.ts';
import type { Command } from './process.ts';

/** PEM files of one trust domain, made for one run. */
export interface CertificateFiles {
  /** The proxy's SVID with the authority after the leaf, its key, and both in one file. */
  readonly serverChain: string;
  readonly serverKey: string;
  readonly serverChainAndKey: string;
  readonly clientChain: string;
  readonly clientKey: string;
  readonly authorities: string;
  readonly serverId: string;
  readonly clientId: string;
  /** Where Scute gets certificates of the same two identities. */
  readonly serverWorkloadApi: string;
  readonly clientWorkloadApi: string;
}

/** `tcp`: bytes are forwarded. `http`: each request is judged, labelled with the client's identity, counted and logged. */
export type Protocol = 'tcp' | 'http';

/** What is behind the proxy. `http` speaks HTTP/1.1 alone; `h2c` and `grpc` HTTP/2 alone, with prior knowledge, in plain text. */
export type Application = 'tcp' | 'http' | 'h2c' | 'grpc';

/**
 * What a proxy has to do. `inbound`: accept mutual TLS on `port` from `certificates.clientId` alone, and forward to the application.
 * `outbound`: accept plain text on `port`, and forward over mutual TLS, as `certificates.clientId`, to `certificates.serverId` alone.
 */
export interface Task {
  readonly directory: string;
  readonly port: number;
  readonly protocol: Protocol;
  /** Whether HTTP/2 is spoken to the application, and between two proxies. */
  readonly http2: boolean;
  readonly direction: 'inbound' | 'outbound';
  /** The application, or the inbound proxy: host:port. */
  readonly to: string;
  readonly certificates: CertificateFiles;
}

export interface Peer {
  readonly name: string;
  /** Its version, or undefined when it is not installed. */
  version(): string | undefined;
  /** How to get it, for who reads that it is not installed. */
  readonly install: string;
  /** What is not as in the other peers; printed with the figures. */
  readonly notes: Readonly<Partial<Record<Protocol, string>>>;
  /** What the load does besides, of this peer. */
  readonly job?: Partial<Job>;
  /** The value of X-Forwarded-Client-Cert that the application must find in every request. */
  identity(certificates: CertificateFiles): string;
  /** Writes its configuration into the task's directory. */
  prepare(task: Task): Command;
}

/** The same whatever the certificate's hash is. */
export function anyHash(identity: string): string {
  return identity.replace(/Hash=[0-9a-f]+/, 'Hash=*');
}

/** X-Forwarded-Client-Cert of `certificates.clientId` as Envoy writes it. */
export function envoyIdentity({ clientChain, clientId, serverId }: CertificateFiles): string {
  const leaf = new X509Certificate(readFileSync(clientChain));
  const hash = leaf.fingerprint256.replaceAll(':', '').toLowerCase();
  return `By=${serverId};Hash=${hash};URI=${clientId}`;
}
