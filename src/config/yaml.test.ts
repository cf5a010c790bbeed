import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatIssues } from './issue.ts';
import { parseConfig } from './load.ts';
import { parseYaml } from './yaml.ts';

async function problemsOf(text: string): Promise<readonly string[]> {
  const config = await parseConfig(text, { file: 'f.yaml', flags: {}, env: {} });
  return config.ok ? [] : formatIssues(config.error).split('\n');
}

test('a key that is there twice is named, at any depth, wherever it stands the second time', async () => {
  assert.deepEqual(await problemsOf('log: { level: info }\nmetrics:\n  listen: 127.0.0.1:1\n  listen: 127.0.0.1:2\nlog: {}\n'), [
    'f.yaml:5:1: not valid YAML: Map keys must be unique',
    'f.yaml:4:3: not valid YAML: Map keys must be unique',
  ]);
  assert.equal(parseYaml('"a": 1\na: 2\n', 'f.yaml').ok, false);
  assert.equal(parseYaml('a: 1\nA: 2\nb: { a: 3 }\n', 'f.yaml').ok, true);
});

test('what is nested too deep is told so, once for each place and not for each level', async () => {
  for (const text of ['['.repeat(20_000), '- '.repeat(20_000), '{"a":'.repeat(20_000), `a: ${'['.repeat(20_000)}${']'.repeat(20_000)}`]) {
    const problems = await problemsOf(text);
    assert.ok(problems.length <= 20, `${problems.length}`);
    assert.match(problems[0] ?? '', /^f\.yaml:1:\d+: not valid YAML: nested too deep$/);
  }
});

test('aliases that stand for very much are refused', async () => {
  const levels = Array.from({ length: 9 }, (_, level) => `l${level + 1}: &l${level + 1} [${`*l${level},`.repeat(10)}]\n`);
  const problems = await problemsOf(`l0: &l0 [x]\n${levels.join('')}`);
  assert.match(problems[0] ?? '', /^f\.yaml:1:1: not valid YAML: Excessive alias count/);
});

test('of very many problems some are told, and how many more there are', async () => {
  const wrong = await problemsOf(`workloadApi: { endpoint: "unix:///a" }
inbound:
  - listen: 127.0.0.1:1
    to: 127.0.0.1:2
    allow:
${'      - nonsense\n'.repeat(5000)}`);
  assert.equal(wrong.length, 101);
  assert.equal(wrong[99], 'f.yaml:105:9 inbound[0].allow[99]: "nonsense": a SPIFFE ID begins with "spiffe://"');
  assert.equal(wrong[100], 'f.yaml:1:1: has 4900 more problems');
  const unknown = await problemsOf(Array.from({ length: 50_000 }, (_, index) => `key${index}: 1\n`).join(''));
  assert.ok(unknown.length < 110, `${unknown.length}`);
  assert.match(unknown.at(-1) ?? '', /has 499\d\d more problems$/);
  assert.match(unknown[0] ?? '', /^f\.yaml:1:1 key0: is not known here/);
  // More than there may be arguments of a call, as which zod hands them on.
  assert.deepEqual(await problemsOf(`inbound:\n${'  - {}\n'.repeat(150_000)}`), [
    'f.yaml:1:1: has more problems than can be told: is it a configuration at all?',
  ]);
});

test('one rule that is wrong among thousands is named with line and column, and nothing else is', async () => {
  const good = '      - { peer: "spiffe://example.org/web", methods: [GET], paths: [/items/*] }\n';
  const bad =
    '      - { peer: "spiffe://example.org/web", paths: [/a, /b//c], windows: [{ from: "9:00", to: "17:00", timeZone: Europe/Bonn }] }\n';
  const text = `workloadApi: { endpoint: "unix:///a" }
inbound:
  - listen: 127.0.0.1:1
    to: 127.0.0.1:2
    protocol: http
    allow:
${good.repeat(3000)}${bad}${good.repeat(2000)}`;
  assert.deepEqual(await problemsOf(text), [
    'f.yaml:3007:57 inbound[0].allow[3000].paths[1]: "/b//c": no request has such a path: the path has an empty segment',
    'f.yaml:3007:83 inbound[0].allow[3000].windows[0].from: "9:00" is no time of a day, such as "09:00"',
    'f.yaml:3007:114 inbound[0].allow[3000].windows[0].timeZone: "Europe/Bonn" is no time zone that is known here, such as "Europe/Berlin" or "UTC"',
  ]);
});

test('a rule that can never match or never hold is a problem, with its place', async () => {
  const told = async (rule: string): Promise<string> => {
    const text = `workloadApi: { endpoint: "unix:///a" }\ninbound:\n  - listen: 127.0.0.1:1\n    to: 127.0.0.1:2\n    protocol: http\n    allow:\n      - { peer: "spiffe://a/b", ${rule} }\n`;
    return (await problemsOf(text)).join('\n');
  };
  for (const [rule, problem] of [
    ['methods: []', /^f\.yaml:7:42 .*methods: an empty list of methods matches nothing/],
    ['methods: [CONNECT]', /^f\.yaml:7:43 .*methods\[0\]: "CONNECT" is forwarded with http\.extendedConnect alone$/],
    ['methods: [TRACE]', /^f\.yaml:7:43 .*methods\[0\]: "TRACE" is never forwarded$/],
    ['methods: [BREW]', /^f\.yaml:7:43 .*methods\[0\]: "BREW" is not a method that is forwarded$/],
    ['paths: [/a/../b]', /^f\.yaml:7:41 .*no request has such a path: the path has a dot segment$/],
    ['paths: [/%61dmin]', /^f\.yaml:7:41 .*no request has such a path/],
    ['paths: [/x%c0%af]', /^f\.yaml:7:41 .*no request has such a path/],
    ['paths: ["/a?b"]', /^f\.yaml:7:41 .*the query takes no part/],
    ['paths: ["/a*"]', /^f\.yaml:7:41 .*a wildcard stands for whole segments/],
    ['paths: ["/**/a"]', /^f\.yaml:7:41 .*can only be the last segment$/],
    ['paths: ["*"]', /^f\.yaml:7:41 .*write "\/\*\*"/],
    ['hosts: [EXAMPLE]', /^f\.yaml:7:41 .*write "example"$/],
    ['hosts: ["a:80"]', /^f\.yaml:7:41 .*the port takes no part/],
    ['hosts: ["127.1"]', /^f\.yaml:7:41 .*no request has such a host/],
    ['hosts: ["[::ffff:1.2.3.4]"]', /^f\.yaml:7:41 .*no request has such a host/],
    ['windows: []', /^f\.yaml:7:42 .*an empty list of windows matches nothing/],
    ['windows: [{ from: "09:00", to: "09:00", timeZone: UTC }]', /^f\.yaml:7:64 .*never opens/],
    ['windows: [{ days: [], from: "09:00", to: "10:00", timeZone: UTC }]', /^f\.yaml:7:51 .*never opens$/],
    ['windows: [{ from: "09:00", to: "10:00", timeZone: Mars/Base }]', /^f\.yaml:7:83 .*no time zone/],
    ['notBefore: 2027-02-01T00:00:00Z, notAfter: 2027-02-01T00:00:00Z', /^f\.yaml:7:76 .*never holds$/],
    ['notAfter: 2027-02-30T00:00:00Z', /^f\.yaml:7:43 .*is not a time with an offset/],
  ] as const)
    assert.match(await told(rule), problem, rule);
});
