import { createHash } from 'node:crypto';
import { inTurns } from '../in-turns.ts';
import { err, ok, type Result } from '../../lib/result.ts';
import { IdListBuilder, type IdList } from '../../policy/id-list.ts';
import type { ConfigIssue } from '../issue.ts';
import { LineReader } from '../line-reader.ts';
import { readWhole } from '../whole-file.ts';

/** A SPIFFE ID needs no quotes. */
const ID = /^([ \t]*)(\S+)[ \t]*(?:[ \t]#.*)?$/;

/** One SPIFFE ID a line. */
export class IdsLineReader extends LineReader {
  /** After `finish` without a problem it has all of the list. */
  readonly builder = new IdListBuilder();

  protected override readContent(line: string): void {
    const [, indent = '', id] = ID.exec(line) ?? [];
    if (id === undefined) {
      this.problem(Math.max(line.search(/[^ \t]/), 0), 'is not one SPIFFE ID, nor a comment, nor the line "..."');
      return;
    }
    const problem = this.builder.add(id, this.line);
    if (problem !== undefined) this.problem(indent.length, `${JSON.stringify(id.slice(0, 200))}: ${problem}`);
  }
}

/**
 * Reads a list of SPIFFE IDs, a part at a time: a million lines stop nobody else. `known` is given back where the file still has the same
 * bytes; otherwise the new list says how it differs from that one.
 */
export async function readIdsFile(file: string, known: IdList | undefined): Promise<Result<IdList, readonly ConfigIssue[]>> {
  const reader = new IdsLineReader(file);
  const hash = createHash('sha256');
  const unread = await readWhole(file, (bytes) => {
    hash.update(bytes);
    return reader.push(bytes);
  });
  const issues = reader.finish();
  if (unread !== undefined) return err([unread]);
  if (issues.length > 0) return err(issues);
  const digest = hash.digest('hex');
  return ok(known?.digest === digest ? known : await inTurns(reader.builder.build(file, digest, known)));
}
