/** Text for people and programs, of what strangers may have chosen. */

/** Such a text must not command a terminal, nor turn what follows around, nor hide. */
export function visible(text: string): string {
  // oxlint-disable-next-line no-control-regex -- control characters are what is looked for
  return text.replaceAll(/[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\u{e0000}-\u{e0fff}]/gu, '\ufffd');
}

/** The same JSON value. */
export function inAscii(json: string): string {
  return json.replaceAll(/[\u007f-\uffff]/g, (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

/** Beyond it a cell moves what follows, and not the whole column: peers choose how long theirs are. */
const WIDEST = 60;

export function table(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.min(WIDEST, Math.max(...rows.map((row) => (row[column] ?? '').length))));
  return rows.map((row) => row.map((cell, column) => cell.padEnd(column === row.length - 1 ? 0 : (widths[column] ?? 0))).join('  '));
}
