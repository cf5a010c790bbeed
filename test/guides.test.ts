import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { DENY_REASONS } from '../src/policy/verdict.ts';
import { CLOSE_REASONS } from '../src/telemetry/log/records.ts';
import { below, namesUnder } from './support/documents.ts';

const root = join(import.meta.dirname, '..');
const GUIDES = 'docs/guides';
const guides = globSync(`${GUIDES}/*.md`, { cwd: root }).toSorted();
const read = (document: string): string => readFileSync(join(root, document), 'utf8');

test('every deny and close reason is in the troubleshooting guide once, with what to do', () => {
  const document = `${GUIDES}/troubleshooting.md`;
  assert.deepEqual(namesUnder(document, 'Why a peer was refused').toSorted(), [...DENY_REASONS].toSorted());
  assert.deepEqual(namesUnder(document, 'Why a connection ended').toSorted(), [...CLOSE_REASONS].toSorted());
  for (const heading of ['Why a peer was refused', 'Why a connection ended']) {
    const rows = below(document, heading).matchAll(/^\| `(\w+)` \|(.*)\|(.*)\|$/gm);
    for (const [row, , happened = '', todo = ''] of rows) assert.ok(happened.trim() !== '' && todo.trim() !== '', row);
  }
});

test('every guide says at its end what was not run', () => {
  assert.ok(guides.length > 8);
  for (const guide of guides.filter((each) => !each.endsWith('README.md'))) {
    const end = read(guide).split('\n---\n').at(-1) ?? '';
    assert.match(end, /\bNot (?:run|tested|measured)\b/, guide);
    assert.ok(end.length < 1000, `${guide}: that is its end, and short`);
  }
});

test('every guide is in the list of guides', () => {
  const list = read(`${GUIDES}/README.md`);
  for (const guide of guides.filter((each) => !each.endsWith('README.md')))
    assert.ok(list.includes(`(${guide.slice(GUIDES.length + 1)})`), guide);
});

test('the figures for sizing are those of the newest run of the benchmark', () => {
  const results = below('docs/performance.md', 'Results');
  const sizing = read(`${GUIDES}/sizing.md`);
  const ours = (work: string): number => {
    const [, figure] = new RegExp(`^\\| \`${work}\` \\| [^|]+ \\| ([\\d.,]+) \\|`, 'm').exec(results) ?? [];
    assert.ok(figure !== undefined, work);
    return Number(figure.replaceAll(',', ''));
  };
  /** Two digits are what a reader can use, and a machine of another make has others anyway. */
  const rounded = (figure: number): number => Number(figure.toPrecision(2));
  const written = (figure: number): string => figure.toLocaleString('en-GB', { maximumFractionDigits: 1 });
  const [http1, pair, tcp] = [rounded(ours('http1')), rounded(ours('pair-http1')), rounded(ours('tcp'))];
  const [handshake, down, up] = [ours('handshake'), rounded(ours('bulk-http down')), rounded(ours('bulk-http up'))];
  const idle = Math.round(ours('memory idle'));
  const connection = Math.round(ours('memory connection'));
  const rows = [
    `| HTTP/1.1 requests, kept connections | ${written(http1)} a second | ${Math.round(1e6 / http1)} millicores |`,
    `| HTTP/1.1 requests through two sidecars on one core | ${written(pair)} a second | ${Math.round(1e6 / pair)} millicores |`,
    `| small messages over \`tcp\`, kept connections | ${written(tcp)} a second | ${Math.round(1e6 / tcp)} millicores |`,
    `| new mutual TLS connections | ${written(handshake)} a second | ${Math.round(1e6 / handshake)} millicores |`,
    `| large bodies, from the application; to the application | ${written(down)}; ${written(up)} MiB a second | ${Math.round(1e5 / down)}; ${Math.round(1e5 / up)} millicores for 100 MiB a second |`,
    `| an idle Scute | ${idle} MiB;`,
    `| each open connection | ${connection} KiB |`,
    `So 1,000 connections need ${idle} + ${rounded((connection * 1000) / 1024)} = ${idle + rounded((connection * 1000) / 1024)} MiB`,
    `Half of the requests take ${ours('latency p50')} ms longer, one in a hundred ${ours('latency p99')} ms`,
    `Through two sidecars on one core, ${ours('pair-http1 p50')} ms\nand ${ours('pair-http1 p99')} ms`,
  ];
  for (const row of rows) assert.ok(sizing.includes(row), row);
});
