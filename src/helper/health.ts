/** What spiffe-helper says of its health: whether each file is written. Pure. */

/** Nothing is written yet, what should be written could not be, or it is there. */
export type WriteStatus = 'unwritten' | 'failed' | 'written';

export interface WriteStatuses {
  /** Undefined: no X.509 files are asked for. */
  readonly x509: WriteStatus | undefined;
  /** By path, as the configuration has it. */
  readonly jwt: ReadonlyMap<string, WriteStatus>;
}

/** It lives as long as nothing has failed to be written since it was written last; it is ready when all is there. */
export function isHealthy({ x509, jwt }: WriteStatuses, check: 'liveness' | 'readiness'): boolean {
  const all = [...(x509 === undefined ? [] : [x509]), ...jwt.values()];
  return all.every((status) => (check === 'liveness' ? status !== 'failed' : status === 'written'));
}

/** The body of its answers, for a status of 200 or 503. */
export function healthBody({ x509, jwt }: WriteStatuses, isGood: boolean): string {
  const byPath = Object.fromEntries([...jwt].toSorted(([a], [b]) => (a < b ? -1 : 1)));
  return JSON.stringify({
    status: isGood ? 'OK' : 'Service Unavailable',
    health: { file_write_statuses: { x509_write_status: x509, jwt_write_status: byPath } },
  });
}
