/** Certificates may carry dates that JavaScript cannot write. */
export function isoTime(ms: number): string | null {
  const date = new Date(ms);
  return Number.isNaN(date.getTime()) ? null : date.toISOString();
}

/** The same, where there may be none. */
export function timeOf(ms: number | undefined): string | null {
  return ms === undefined ? null : isoTime(ms);
}
