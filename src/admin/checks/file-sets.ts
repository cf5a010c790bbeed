import { chooseSvid, type IdentitySnapshot } from '../../identity/snapshot.ts';
import { isToldLater, type FileSetStatus } from '../../telemetry/log/files-records.ts';
import { isoTime } from '../iso-time.ts';
import type { CheckResult } from './readiness.ts';

/** Whether there is something for programs to read: each set was written by this process, and no SVID in it has expired, X.509 or JWT. */
export function filesCheck(sets: readonly FileSetStatus[], nowMs: number): CheckResult {
  const lines = sets.flatMap(({ name, inForce, problem }) => {
    if (inForce === undefined) return [`${name}: ${problem?.detail ?? 'not written yet'}`];
    return nowMs <= inForce.expires.atMs ? [] : [`${name}: the SVID in ${inForce.expires.name} has expired`];
  });
  return lines.length === 0 ? { ok: true } : { ok: false, detail: lines.join('; ') };
}

/** A warning while the files in force are not those of the identity in force, or somebody has not been told of them. */
export function filesCurrentCheck(sets: readonly FileSetStatus[]): CheckResult {
  const lines = sets.flatMap(({ name, inForce, problem, notify }) => [
    ...(problem === undefined || inForce === undefined
      ? []
      : [`${name}: the files of before stay in force: ${problem.reason}: ${problem.detail}`]),
    ...notify.flatMap((each) =>
      each.problem === undefined ? [] : [`${name}: not told of new files: ${each.problem.reason}: ${each.problem.detail}`],
    ),
  ]);
  return lines.length === 0 ? { ok: true } : { ok: false, detail: lines.join('; ') };
}

/** As spiffe-helper has it: nothing is written yet, what should be written could not be, or it is there. */
export function writeStatusOf(set: FileSetStatus | undefined): 'unwritten' | 'failed' | 'written' {
  if (set?.problem !== undefined && !isToldLater(set.problem.reason)) return 'failed';
  return set?.inForce === undefined ? 'unwritten' : 'written';
}

/** What is still to be written of this very identity, a sentence each; none when every set has it. What was found of an older one counts for nothing. */
export function unwrittenSets(sets: readonly FileSetStatus[], snapshot: IdentitySnapshot | undefined): readonly string[] {
  return sets.flatMap(({ name, identity, inForce, problem }) => {
    const leaf = chooseSvid(snapshot, identity)?.chain[0];
    const isOfLeaf = inForce !== undefined && (inForce.leaf === undefined || inForce.leaf === leaf?.sha256);
    if (problem === undefined && leaf !== undefined && isOfLeaf) return [];
    return [`${name}: ${problem?.detail ?? 'not written yet'}`];
  });
}

/** Who is still to be told of the files, a sentence each. */
export function untoldOfSets(sets: readonly FileSetStatus[]): readonly string[] {
  return sets.flatMap(({ name, notify }) =>
    notify
      .filter(({ isPending, problem }) => isPending || problem !== undefined)
      .map(({ target, problem }) => `${name}: ${target} is not told yet${problem === undefined ? '' : `: ${problem.detail}`}`),
  );
}

/** The sets as plain JSON values. */
export function describeFileSets(sets: readonly FileSetStatus[]): object[] {
  return sets.map(({ name, directory, inForce, problem, notify }) => ({
    name,
    directory,
    spiffe_id: inForce?.spiffeId ?? null,
    not_after: inForce === undefined || inForce.expires.atMs === Infinity ? null : isoTime(inForce.expires.atMs),
    written_at: inForce === undefined ? null : isoTime(inForce.writtenAtMs),
    files: inForce?.files ?? [],
    problem: problem ?? null,
    notify: notify.map(({ kind, target, isPending, lastSuccessMs, problem: last }) => ({
      kind,
      target,
      is_pending: isPending,
      last_success_at: lastSuccessMs === undefined ? null : isoTime(lastSuccessMs),
      problem: last ?? null,
    })),
  }));
}
