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
  /** Where Scute gets the same identity as `serverChain` has. */
  readonly workloadApi: string;
}

/** What a proxy has to do: accept mutual TLS on `port` from `certificates.clientId` alone, forward bytes to the application. */
export interface Task {
  readonly directory: string;
  readonly port: number;
  /** host:port */
  readonly application: string;
  readonly certificates: CertificateFiles;
}

export interface Peer {
  readonly name: string;
  /** Its version, or undefined when it is not installed. */
  version(): string | undefined;
  /** How to get it, for who reads that it is not installed. */
  readonly install: string;
  /** What is not as in the other peers; printed with the figures. */
  readonly note?: string;
  /** Writes its configuration into the task's directory. */
  prepare(task: Task): Command;
}
