import type { Job, JobResult } from './load.ts';
import type { Application, Peer, Protocol } from './peer.ts';
import type { RunningProxy } from './process.ts';

/** One line of the table. */
export interface Line {
  /** Distinguishes the lines of one work; empty when there is one. */
  readonly variant: string;
  readonly unit: string;
  readonly better: 'higher' | 'lower';
}

/** A proxy under measurement that has answered one request; or a pair of them, seen as one. */
export interface Subject {
  readonly peer: Peer;
  /** Of a pair, the one that the load connects to, with the processes of both. */
  readonly proxy: RunningProxy;
  /** From spawning the process until it has answered the first request. */
  readonly servingInMs: number;
  /** What its listener for mutual TLS agreed on with the load. */
  readonly tls: string;
  /** Lets the load run one job through it. */
  readonly run: (work: Job['work'], more: Partial<Job>) => Promise<JobResult>;
}

export interface Figures {
  /** One for each line of the work. */
  readonly values: readonly number[];
  /** Whether the load was so late itself that the figures are partly its own. */
  readonly late?: boolean;
}

interface Common {
  readonly name: string;
  readonly what: string;
  readonly lines: readonly Line[];
  /** How the proxies forward. */
  readonly protocol: Protocol;
  /** What is behind the proxies; as they forward, if left out. */
  readonly application?: Application;
  /** What the load speaks. */
  readonly client: Job['protocol'];
  /** `pair`: the load speaks plain text to an outbound proxy, which reaches the inbound one over mutual TLS. */
  readonly topology: 'inbound' | 'pair';
  /** Names of the peers that can do it; all if left out. */
  readonly beside?: readonly string[];
  /** Scute takes part as it is shipped, in each form (`peers/scute.ts`), and not as the bundle alone. */
  readonly asShipped?: boolean;
  /** Name of a peer without which it is not measured. */
  readonly needs?: string;
}

/** The proxies are kept through all rounds, warm. */
export interface KeptWork extends Common {
  readonly keep: true;
  measure(subject: Subject, offered: number): Promise<Figures>;
  /** Finds, with the peer in `needs`, once a round and before anybody's turn, how many requests a second `measure` shall offer. */
  readonly findOffer?: (subject: Subject) => Promise<number>;
}

/** The work starts its own proxies in each round. */
export interface FreshWork extends Common {
  readonly keep: false;
  measure(start: () => Promise<Subject>): Promise<Figures>;
}

export type Work = KeptWork | FreshWork;
