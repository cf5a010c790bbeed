import { writeFile } from 'node:fs/promises';
import { startChild, type Child } from '../child.ts';

const ON_HANGUP = "process.on('SIGHUP', () => console.log('hangup')); setInterval(() => {}, 1000); console.log('ready');";
const WITHOUT_HANDLER = "setInterval(() => {}, 1000); console.log('ready');";

/** A process that says when it gets a SIGHUP, or one that would be ended by it, with its number in `pidFile`. */
export async function startNotified(pidFile: string, { handles = true } = {}): Promise<Child> {
  const child = await startChild([process.execPath, '--eval', handles ? ON_HANGUP : WITHOUT_HANDLER]);
  await child.line(/^ready$/);
  await writeFile(pidFile, `${child.pid}\n`, { mode: 0o644 });
  return child;
}
