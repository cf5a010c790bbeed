/**
 * What the command of the npm package starts: a bin link has no place for options of Node. It runs in whatever Node is there, the oldest
 * too, so it is built without any syntax that is newer than that.
 */
import { join } from 'node:path';
import { tooOld } from './guard.ts';

const problem = tooOld(process.version);
if (problem === undefined) startScute();
else {
  process.stderr.write(`scute: will not start: ${problem}. ${howToGetNode()}\n`);
  process.exitCode = 1;
}

/** npm has Node itself, as a package, for two kinds of machine. Scute we do not publish there, so it is never named by its name alone. */
function howToGetNode(): string {
  const isPackaged = process.platform === 'linux' && ['x64', 'arm64'].includes(process.arch);
  return isPackaged
    ? `npm has it: npx --package=node-linux-${process.arch}@26 --package=FILE -- scute …, where FILE is the file or folder that you installed from`
    : 'Install it from https://nodejs.org';
}

/** In the place of this process, so that signals, file descriptors and the process id stay what they are. What was given to Node comes after what is ours, and so wins. */
function startScute(): void {
  const { argv, env, execArgv, execPath } = process;
  const ours = ['--disable-sigusr1', `--openssl-config=${join(__dirname, 'openssl.cnf')}`];
  // Of another system, for which the package is not, it is undefined.
  process.execve?.(execPath, [execPath, ...ours, ...execArgv, join(__dirname, 'scute.js'), ...argv.slice(2)], env);
  throw new Error('this system cannot start one program in the place of another');
}
