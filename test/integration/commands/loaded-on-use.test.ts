import assert from 'node:assert/strict';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { placesOf, type Place } from '../../../build/code-cache/places.ts';
import { buildBundle } from '../../support/build.ts';
import { startChild } from '../../support/child.ts';
import { startExampleDomain } from '../../support/data-path.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';

/** What V8 writes for NODE_V8_COVERAGE, as far as it is used. */
interface Coverage {
  readonly result: readonly {
    readonly url: string;
    readonly functions: readonly { readonly ranges: readonly { readonly startOffset: number; readonly count: number }[] }[];
  }[];
}

const NOT_LOADED = [
  /\/src\/admin\/(?:dashboard|api|api-[a-z]+|event-streams|inventory|policy-page|server)\.ts$/,
  /\/src\/(?:credentials|ext-authz|fleet|helper|inspect)\//,
  /\/src\/federation\/(?!limits)/,
  /\/src\/files\/(?!lazy)/,
  /\/src\/forward\/(?:http2|splice)/,
  /\/src\/http2\/(?!frame)/,
  /\/src\/sds\/(?!expression|withheld)/,
  /\/node_modules\/@bufbuild\/protobuf\/dist\/esm\/(?:create|from-binary|registry|to-binary|codegenv2|wkt)/,
  /\/node_modules\/(?:http-proxy|jose|oauth4webapi)\//,
];

function offsets(text: string, { from, to }: Place): readonly [number, number] {
  const starts = [0];
  for (let at = text.indexOf('\n'); at !== -1; at = text.indexOf('\n', at + 1)) starts.push(at + 1);
  const offset = ({ lineNumber, columnNumber }: Place['from']): number => (starts[lineNumber] ?? text.length) + columnNumber;
  return [offset(from), offset(to)];
}

test('a plain sidecar runs no code of the admin API, SDS, HTTP/2, credentials, federation or files', async (t) => {
  const [folder, spiffe] = [await temporaryFolder(t), await startExampleDomain(t)];
  const { path } = await buildBundle(join(folder, 'scute.js'), { sourceMap: true });
  const [text, map] = [await readFile(path, 'utf8'), await readFile(`${path}.map`, 'utf8')];
  const config = join(folder, 'scute.json');
  await writeFile(
    config,
    JSON.stringify({
      workloadApi: { endpoint: spiffe.endpoint('web') },
      inbound: [{ listen: '127.0.0.1:0', to: '127.0.0.1:9', protocol: 'http', allow: ['spiffe://example.org/web'] }],
      outbound: [{ listen: '127.0.0.1:0', to: '127.0.0.1:9', expect: ['spiffe://example.org/web'] }],
      metrics: { listen: '127.0.0.1:0' },
    }),
  );
  const covered = join(folder, 'coverage');
  const argv = [process.execPath, '--disable-sigusr1', path, 'run', '-c', config] as const;
  await using child = await startChild(argv, { env: { PATH: process.env['PATH'] ?? '', NODE_V8_COVERAGE: covered } });
  await child.line(/"generation":1/);
  child.signal('SIGTERM');
  assert.equal((await child.exited).code, 0, child.stderr());

  const called: number[] = [];
  for (const file of await readdir(covered)) {
    const { result } = JSON.parse(await readFile(join(covered, file), 'utf8')) as Coverage;
    for (const { functions } of result.filter(({ url }) => url.endsWith('/scute.js')))
      for (const { ranges } of functions) if (ranges[0] !== undefined && ranges[0].count > 0) called.push(ranges[0].startOffset);
  }
  const run = (pattern: RegExp): number => {
    const places = placesOf(map, (source) => pattern.test(source)).map((place) => offsets(text, place));
    assert.ok(places.length > 0, `the bundle has nothing like ${pattern.source}`);
    return called.filter((at) => places.some(([from, to]) => at >= from && at < to)).length;
  };
  assert.ok(run(/\/src\/workload-api\//) > 10);
  assert.deepEqual(
    NOT_LOADED.filter((pattern) => run(pattern) > 0),
    [],
  );
});
