// npm 10, which comes with Node 20 and 22, installs Node for this processor and then takes its link out of node_modules/.bin, together with
// the package for the other processor: the project's commands would run in whatever Node the machine has. npm runs this when it has
// installed the project, so it is written for an old Node.
'use strict';
const { existsSync, rmSync, symlinkSync } = require('node:fs');
const { join } = require('node:path');

const bin = join(__dirname, '..', 'node_modules', '.bin');
const node = join('..', `node-linux-${process.arch}`, 'bin', 'node');
if (existsSync(join(bin, node)) && !existsSync(join(bin, 'node'))) {
  rmSync(join(bin, 'node'), { force: true });
  symlinkSync(node, join(bin, 'node'));
}
