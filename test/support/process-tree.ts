import { readdir, readFile } from 'node:fs/promises';

export interface RunningProcess {
  readonly pid: number;
  readonly name: string;
  /** As `/proc/PID/stat` has it. */
  readonly state: string;
}

/** A process and all below it, each before those that it started; numbers as they are known here. */
export async function processTree(pid: number): Promise<readonly RunningProcess[]> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  const [, name = '', state = ''] = /\((.*)\) (\w)/s.exec(stat) ?? [];
  const tasks = await readdir(`/proc/${pid}/task`).catch(() => []);
  const children = await Promise.all(tasks.map((task) => readFile(`/proc/${pid}/task/${task}/children`, 'utf8').catch(() => '')));
  const pids = children.flatMap((text) => text.split(' ').filter((each) => each !== ''));
  const below = await Promise.all(pids.map((each) => processTree(Number(each))));
  return [...(stat === '' ? [] : [{ pid, name, state }]), ...below.flat()];
}

/** Kills a process and all below it: who is left would hold its output open. */
export async function killTree(pid: number): Promise<void> {
  for (const each of await processTree(pid)) {
    try {
      process.kill(each.pid, 'SIGKILL');
    } catch {
      // It has ended by itself.
    }
  }
}
