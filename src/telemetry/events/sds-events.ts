/** What happens on the SDS socket, and how it is told. */
import type { LogFields, Logger } from '../log/logger.ts';
import { strangersWords } from '../log/scrub.ts';
import type { SdsMetrics } from '../metrics/sds-metrics.ts';
import type { SdsName, SdsRefusalReason, SdsRound, SdsSent, SdsStreamRef } from '../log/sds-records.ts';

export interface SdsEvents {
  connectionOpened(): void;
  connectionClosed(): void;
  /** A call beside the xDS streams: FetchSecrets, health, reflection. */
  callOpened(): void;
  callEnded(): void;
  streamOpened(stream: SdsStreamRef): void;
  /** `detail` if it was not the client that ended it. */
  streamEnded(stream: SdsStreamRef, detail: string | undefined): void;
  secretsSent(stream: SdsStreamRef, secrets: readonly SdsSent[], removed: readonly string[], bytes: number): void;
  accepted(stream: SdsStreamRef, versions: ReadonlyMap<string, string>): void;
  rejected(stream: SdsStreamRef, versions: ReadonlyMap<string, string>, code: number, text: string): void;
  staleRequest(stream: SdsStreamRef): void;
  namesMissing(stream: SdsStreamRef, names: readonly SdsName[]): void;
  secretsWithdrawn(stream: SdsStreamRef, names: readonly SdsName[]): void;
  /** Rate-limited in the log, always counted. */
  refused(reason: SdsRefusalReason, detail: string): void;
  /** Every stream has been offered a new catalogue, and what it was sent has gone out. */
  pushed(round: SdsRound): void;
  /** What of the trust bundles is not sent. */
  notes(notes: readonly string[]): void;
  /** Which secrets with matchers are withheld because of their policy, a sentence each, at each start and reload. */
  matchersWithheld(withheld: readonly string[]): void;
}

export interface SdsEventsOptions {
  readonly logger: Logger;
  readonly metrics: SdsMetrics;
  /** Calls back at once for the first of a kind, then at times with the number of those that followed. */
  readonly repeated: (kind: string, log: (count: number) => void) => void;
}

/** The level of lines that there is one of for each secret and client. */
const DETAILED = 'debug';
/** A client chooses names and texts: their length in a line, and how many of them there are. */
const MAX_NAME = 200;
const MAX_TEXT = 1000;
const MAX_NAMES = 20;
/** Names that were said to be missing are remembered, so that each is said once, however often clients come back. */
const MAX_REMEMBERED = 1000;

export function createSdsEvents({ logger, metrics, repeated }: SdsEventsOptions): SdsEvents {
  const said = new Set<string>();
  /** True for the first time. When there are too many to remember, all are forgotten but what is in hand. */
  const isNews = ({ name, reason }: SdsName): boolean => {
    const key = `${reason} ${name.slice(0, MAX_NAME)}`;
    if (said.has(key)) return false;
    if (said.size >= MAX_REMEMBERED) said.clear();
    said.add(key);
    return true;
  };
  let lastNotes = '';

  return {
    connectionOpened() {
      metrics.connections += 1;
    },
    connectionClosed() {
      metrics.connections -= 1;
    },
    callOpened() {
      metrics.calls += 1;
    },
    callEnded() {
      metrics.calls -= 1;
    },
    streamOpened(stream) {
      metrics.streams[stream.protocol] += 1;
      metrics.opened[stream.protocol] += 1;
    },
    streamEnded(stream, detail) {
      metrics.streams[stream.protocol] -= 1;
      if (logger.isLevelEnabled(DETAILED)) logger.debug({ ...fieldsOf(stream), detail }, 'SDS stream ended');
    },
    secretsSent(stream, secrets, removed, bytes) {
      for (const { kind } of secrets) metrics.sent[kind] += 1;
      metrics.removed += removed.length;
      metrics.bytes += bytes;
      if (!logger.isLevelEnabled(DETAILED)) return;
      for (const { name, version } of secrets.slice(0, MAX_NAMES))
        logger.debug({ ...fieldsOf(stream), name: cut(name), version }, 'secret sent');
    },
    accepted(stream, versions) {
      metrics.accepted[stream.protocol] += 1;
      if (!logger.isLevelEnabled(DETAILED)) return;
      for (const [name, version] of [...versions].slice(0, MAX_NAMES))
        logger.debug({ ...fieldsOf(stream), name: cut(name), version }, 'secret accepted');
    },
    rejected(stream, versions, code, text) {
      metrics.rejected[stream.protocol] += 1;
      const [[name, version] = [undefined, undefined]] = versions;
      const shown = { name: name === undefined ? undefined : cut(name), version, code, detail: text.slice(0, MAX_TEXT) };
      repeated(`sds-rejected ${cut(name ?? '')}`, (count) =>
        logger.warn({ ...fieldsOf(stream), ...shown, count }, 'secret rejected by the client'),
      );
    },
    staleRequest(stream) {
      metrics.stale[stream.protocol] += 1;
    },
    namesMissing(stream, names) {
      for (const { reason } of names) metrics.missing[reason] += 1;
      for (const { name, reason, detail } of names.slice(0, MAX_NAMES).filter(isNews))
        repeated(`sds-missing ${reason}`, (count) =>
          logger.warn({ ...fieldsOf(stream), name: cut(name), reason, detail, count }, 'a secret that is asked for is not there'),
        );
    },
    secretsWithdrawn(stream, names) {
      for (const { reason } of names) metrics.missing[reason] += 1;
      for (const { name, reason, detail } of names.slice(0, MAX_NAMES))
        repeated(`sds-withdrawn ${cut(name)}`, (count) =>
          logger.warn({ ...fieldsOf(stream), name: cut(name), reason, detail, count }, 'a secret that was sent is withdrawn'),
        );
    },
    refused(reason, detail) {
      metrics.refused[reason] += 1;
      repeated(`sds-refused ${reason}`, (count) => logger.warn({ reason, detail: detail.slice(0, MAX_TEXT), count }, 'SDS client refused'));
    },
    pushed(round) {
      metrics.observePush(round.durationMs);
      const { generation, streams, secrets, bytes, durationMs } = round;
      logger.info({ generation, streams, secrets, bytes, duration_ms: Math.round(durationMs * 10) / 10 }, 'secrets pushed');
    },
    notes(notes) {
      const text = notes.join('\n');
      if (text !== lastNotes && notes.length > 0)
        logger.warn({ notes: notes.slice(0, MAX_NAMES), count: notes.length }, 'revocation lists that Envoy cannot use');
      lastNotes = text;
    },
    matchersWithheld(withheld) {
      if (withheld.length > 0)
        logger.warn({ matchers: withheld.slice(0, MAX_NAMES), count: withheld.length }, 'a policy cannot be said in matchers of Envoy');
    },
  };
}

function fieldsOf(stream: SdsStreamRef): LogFields {
  return { stream: stream.id, protocol: stream.protocol, node: stream.node, user_agent: stream.userAgent };
}

function cut(name: string): string {
  return strangersWords(name, MAX_NAME);
}
