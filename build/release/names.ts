/** Files of a release. What knows them alone needs no package: a clone without `node_modules` can release and verify. */
export const SUMS = 'SHA256SUMS';
export const SUMS_SIGNATURE = `${SUMS}.sig`;
export const PROVENANCE = 'provenance.json';
/** The same statement, signed. */
export const ENVELOPE = 'provenance.intoto.jsonl';
