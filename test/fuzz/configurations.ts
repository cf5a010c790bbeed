/** Configurations and their parts, nearly good: the readers answer with problems of their own, and never throw, whatever the bytes. */
import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { DenyLineReader } from '../../src/config/policy/deny-lines.ts';
import { IdsLineReader } from '../../src/config/policy/ids-file.ts';
import { formatIssues, judge, type ConfigIssue } from '../../src/config/issue.ts';
import { parsePolicyText } from '../../src/config/policy/policy-text.ts';
import { overlay } from '../../src/config/policy/precedence.ts';
import { questionTableSchema } from '../../src/config/questions.ts';
import { planReload } from '../../src/config/reload.ts';
import { createConfigSchema } from '../../src/config/schema.ts';
import type { Config } from '../../src/config/config.ts';
import { parseYaml } from '../../src/config/yaml.ts';
import { answerQuestion, describeAnswer, putQuestion } from '../../src/cli/question.ts';
import { describeConfig } from '../../src/cli/commands/check.ts';
import { atOnce } from '../../src/lib/at-once.ts';
import { err, ok, type Result } from '../../src/lib/result.ts';
import type { IdList } from '../../src/policy/id-list.ts';
import { factsOf } from '../../src/policy/judge.ts';
import { compilePolicy } from '../../src/policy/policy.ts';
import { comparableHost, comparablePath } from '../../src/policy/request.ts';
import { parseHostPattern, parsePathPattern } from '../../src/policy/request-pattern.ts';
import type { RuleSpec } from '../../src/policy/rule.ts';
import { DAYS, isOpen, nextLook, parseWindow } from '../../src/policy/time-window.ts';
import { parseBundleDocument } from '../../src/spiffe/bundle-document.ts';
import { parseSpiffeId, pathOf, trustDomainOf } from '../../src/spiffe/spiffe-id.ts';
import { selfTestCertificates } from '../../src/tls/self-test-certificates.ts';
import { pathTargets } from '../support/policy/spellings.ts';
import type { Draws } from './random.ts';

const read = (name: string): string => readFileSync(new URL(`../../configs/${name}`, import.meta.url), 'utf8');

const QUESTIONS = read('policy/questions.yaml');
const CONFIGS = [
  read('full.yaml'),
  read('minimal.yaml'),
  read('spire.yaml'),
  `workloadApi: { endpoint: unix:///run/agent.sock }
inbound:
  - listen: 127.0.0.1:8443
    to: 127.0.0.1:8080
    protocol: http
    policyMode: audit
    allow:
      - &a spiffe://example.org/web
      - { peer: "spiffe://example.org/**", methods: [GET, HEAD], paths: [/items/*, "/files/**"], hosts: ["*.shop.example", "[::1]"] }
      - peer: spiffe://example.org/ns/*/sa/b
        notBefore: 2027-01-31T09:00:00+01:00
        notAfter: 2027-04-01T00:00:00Z
        windows: [{ days: [mon, sun], from: "22:00", to: "06:30", timeZone: Europe/Berlin }, { from: "00:00", to: "24:00", timeZone: UTC }]
        mode: audit
    deny: [{ peer: spiffe://example.org/web, paths: [/admin, /admin/**] }]
outbound: [{ listen: "unix:///run/o.sock", to: "db:5432", expect: [*a], limits: { idleTimeout: off, handshakeTimeout: 1h30m } }]
`,
];
const DENY_LIST = `# revoked
ids:
  - spiffe://example.org/web # gone
  - "spiffe://example.org/ns/*"
certificates:
  - '${'ab'.repeat(32)}'
serials:
  - 0a:ff@${'cd'.repeat(20)}
...
`;
const AUTHORITY = Buffer.from(selfTestCertificates().authority);
const JWK = new X509Certificate(AUTHORITY).publicKey.export({ format: 'jwk' });
const BUNDLE = JSON.stringify({
  spiffe_sequence: 12,
  spiffe_refresh_hint: 300,
  keys: [
    { ...JWK, use: 'x509-svid', x5c: [AUTHORITY.toString('base64')] },
    { ...JWK, use: 'jwt-svid', kid: 'a' },
  ],
});

const POLICY = `# shared
allow:
  - spiffe://example.org/web
  - { peer: "spiffe://example.org/ns/*", methods: [GET, HEAD], paths: [/orders/**], notAfter: 2027-01-31T09:00:00+01:00 }
  - { idsFile: partners.txt, mode: audit }
deny:
  - { idsFile: gone.txt, hosts: [shop.example] }
mode: enforce
...
`;
const LIST = `# partners
spiffe://example.org/a
  spiffe://partner.example/b # and a comment

...
`;

/** What changes the meaning of YAML, JSON or a rule. */
const NASTY: readonly string[] = [
  '\n', '\r', '\r\n', '\t', ' ', '  ', '    ', '\0', '\x7f', '\x85', '\u2028', '\ufeff', '\ufffd', '\ud800', '\u{1f422}', ':', ': ', '- ', '? ', '#', ' # ',
  ',', '[', ']', '{', '}', '[]', '{}', '"', "'", '\\', '\\x', '\\u', '|', '>', '|+\n', '>-\n', '&a ', '*a', '*b', '<<: *a', '!', '!!', '!!str ', '!!binary ',
  '!<x> ', '%', '%YAML 1.1\n---\n', '---\n', '...\n', '@', '`', '~', 'null', 'true', 'yes', 'off', '0', '-1', '1e999', '.inf', '.nan', '0x10', '0o17', '1_000',
  '9007199254740993', '2027-02-30', '2027-01-31T09:00:00+01:00', '0000-01-01T00:00:00Z', '9999-12-31T23:59:59.999999999-23:59', '24:00', '25:00', '5s', '99d',
  '1h1h', '0ms', '*', '**', '/**', '/*', '/', '//', '/a//b', '/%', '/%2f', '/%c0%af', '/%61', '/%e9', '?x', 'spiffe://', 'spiffe://example.org', 'spiffe://a/**',
  'spiffe://*/a', 'spiffe://example.org/../a', 'SPIFFE://example.org/a', 'GET', 'get', 'CONNECT', 'Europe/Berlin', 'Europe/Bonn', '+01:00', 'Etc/GMT+25',
  'mon', 'Mon', 'audit', 'enforce', 'tcp', 'http', '__proto__', '"__proto__": {}', 'constructor', 'toString', 'hasOwnProperty', 'length', 'unix:///a',
  '[::1]:1', '0.0.0.0:0', ':80', '127.0.0.1:65536', '*.example', '[::ffff:1.2.3.4]', '127.1', 'a..b', 'xn--', 'x'.repeat(300), '['.repeat(200), '- '.repeat(200),
  '"a": '.repeat(100), '{"a":'.repeat(100), '*a, *a, ',
]; // prettier-ignore

const KEYS = [
  'workloadApi', 'endpoint', 'inbound', 'outbound', 'listen', 'to', 'allow', 'deny', 'expect', 'policyFile', 'idsFile', 'peer', 'methods', 'paths', 'hosts', 'notBefore', 'notAfter',
  'windows', 'days', 'from', 'timeZone', 'mode', 'policyMode', 'protocol', 'http', 'alpn', 'limits', 'metrics', 'admin', 'sds', 'federation', 'bundleEndpoint',
  'revocations', 'file', 'log', 'level', 'drainTimeout', 'name', 'identity', 'proxyProtocol', 'acceptFrom', 'send', 'unsafeTarget', 'unsafeListen',
  'unsafeAllowAnyInTrustDomain', 'matchers', 'secret', 'listener', 'method', 'path', 'host', 'at', 'rule', '__proto__', 'constructor', '', '0',
]; // prettier-ignore

const PATHS = pathTargets();

const LISTED = listOf(Buffer.from('spiffe://example.org/a\n...\n'));
const SHARED = compilePolicy({ allow: ['spiffe://example.org/web'] });
assert.ok(SHARED.ok && LISTED.ok);

const schema = createConfigSchema({
  groupId: (name) => (name === 'scute' ? 7 : undefined),
  files: { resolve: (file) => `/fuzz/${file}`, policyOf: () => SHARED.value, idsOf: () => LISTED.value },
});
const SOURCES = { file: 'fuzz.yaml', flags: {}, env: { SPIFFE_ENDPOINT_SOCKET: 'unix:///run/agent.sock' } };

function configOf(text: string): Result<Config, readonly ConfigIssue[]> {
  const raw = parseYaml(text, SOURCES.file);
  return raw.ok ? judge(schema, overlay(raw.value, SOURCES)) : raw;
}

const GOOD = CONFIGS.map((text) => {
  const config = configOf(text);
  assert.ok(config.ok, config.ok ? '' : formatIssues(config.error));
  return config.value;
});

/** The subjects, each of which must be met and must take some of its cases. */
export const SUBJECTS = [
  'configuration',
  'questions',
  'policy file',
  'deny list',
  'list of IDs',
  'rule',
  'window',
  'request',
  'SPIFFE ID',
  'bundle',
] as const;
export type Subject = (typeof SUBJECTS)[number];

/** One case: the same for the same number. Throws with the input if a reader does. Answers whether it was good. */
export function checkConfiguration(draws: Draws): { readonly subject: Subject; readonly isGood: boolean } {
  const subject = draws.of(SUBJECTS);
  return { subject, isGood: CHECKS[subject](draws) };
}

const CHECKS: Readonly<Record<Subject, (draws: Draws) => boolean>> = {
  configuration(draws) {
    const text = draws.once(3) ? written(draws, 0) : mutated(draws, draws.of(CONFIGS));
    return told(text, () => {
      const config = configOf(text);
      if (!config.ok) return located(config.error);
      assert.ok(describeConfig(config.value).length > 0);
      planReload(draws.of(GOOD), config.value);
      planReload(config.value, draws.of(GOOD));
      return true;
    });
  },
  questions(draws) {
    const text = draws.once(3) ? written(draws, 0) : mutated(draws, QUESTIONS);
    return told(text, () => {
      const raw = parseYaml(text, SOURCES.file);
      if (!raw.ok) return located(raw.error);
      const table = judge(questionTableSchema, raw.value);
      if (!table.ok) return located(table.error);
      const config = draws.of(GOOD);
      for (const question of table.value) {
        const put = putQuestion(config, question, draws.below(4e12));
        if (put.ok) assert.ok(describeAnswer(put.value, answerQuestion(put.value), (...where) => raw.value.locate(...where)).length > 0);
      }
      return true;
    });
  },
  'deny list'(draws) {
    const bytes = Buffer.from(mutated(draws, DENY_LIST), draws.once(2) ? 'utf8' : 'latin1');
    return told(bytes.toString('latin1'), () => {
      const whole = new DenyLineReader('fuzz.yaml');
      whole.push(bytes);
      const issues = whole.finish();
      const inParts = new DenyLineReader('fuzz.yaml');
      for (let at = 0; at < bytes.length;) {
        const end = at + 1 + draws.below(40);
        if (!inParts.push(bytes.subarray(at, end))) break;
        at = end;
      }
      assert.deepEqual(inParts.finish(), issues);
      if (issues.length > 0) return located(issues);
      for (const steps = whole.builder.build('fuzz.yaml'); steps.next().done !== true;);
      return true;
    });
  },
  'policy file'(draws) {
    const text = draws.once(3) ? `${written(draws, 0)}\n...\n` : mutated(draws, POLICY);
    return told(text, () => {
      const parsed = parsePolicyText(text, '/fuzz/policy.yaml');
      if (!parsed.ok) return located(parsed.error);
      const { spec, places } = parsed.value;
      assert.equal(places.allow.length, spec.allow.length * 2);
      const compiled = compilePolicy(spec, { idsOf: () => LISTED.value });
      return compiled.ok || sentences(compiled.error.map(({ message }) => message));
    });
  },
  'list of IDs'(draws) {
    const bytes = Buffer.from(mutated(draws, LIST), draws.once(2) ? 'utf8' : 'latin1');
    return told(bytes.toString('latin1'), () => {
      const whole = listOf(bytes);
      const inParts = listOf(bytes, () => 1 + draws.below(40));
      if (!whole.ok) {
        assert.deepEqual(inParts, whole);
        return located(whole.error);
      }
      assert.ok(inParts.ok);
      assert.equal(inParts.value.size, whole.value.size);
      return true;
    });
  },
  rule(draws) {
    const spec = drawRule(draws);
    return told(JSON.stringify(spec), () => {
      const compiled = compilePolicy({ allow: [spec, 'spiffe://example.org/**'], deny: draws.once(2) ? [spec] : [] });
      if (!compiled.ok) return sentences(compiled.error.map(({ message }) => message));
      const policy = compiled.value;
      const facts = factsOf(policy, 'GET', draws.of(PATHS), draws.of(['a', 'shop.example', '']));
      const peer = parseSpiffeId('spiffe://example.org/web');
      assert.ok(peer.ok);
      const nowMs = draws.below(5e12) - 5e11;
      policy.forPeer(peer.value).judgeConnection(nowMs);
      if (typeof facts !== 'string') policy.forPeer(peer.value).judge(facts, nowMs);
      assert.ok(policy.nextLook(nowMs) > nowMs);
      return true;
    });
  },
  window(draws) {
    const spec = drawWindow(draws);
    return told(JSON.stringify(spec), () => {
      const window = parseWindow(spec);
      if (!window.ok) return sentences(window.error.map(({ message }) => message));
      const nowMs = draws.below(5e12) - 5e11;
      isOpen(window.value, nowMs);
      const next = nextLook(window.value, nowMs);
      assert.ok(next > nowMs && next <= nowMs + 86_400_000);
      return true;
    });
  },
  request(draws) {
    const path = draws.once(2) ? draws.of(PATHS) : mutated(draws, draws.of(PATHS));
    const host = mutated(draws, draws.of(['shop.example:443', '[2001:db8::1]:80', '127.0.0.1', 'a.b-c.example.']));
    return told(`${path} ${host}`, () => {
      const comparable = comparablePath(path);
      // What is compared is compared with itself as it is.
      if (comparable.ok) assert.deepEqual(comparablePath(comparable.value), comparable);
      const name = comparableHost(host);
      if (name.ok) assert.deepEqual(comparableHost(name.value), name);
      const pattern = parsePathPattern(path);
      if (pattern.ok) assert.ok(comparable.ok);
      parseHostPattern(host);
      return comparable.ok;
    });
  },
  'SPIFFE ID'(draws) {
    const text = mutated(draws, draws.of(['spiffe://example.org/web', 'spiffe://a.b_c-d/ns/x/sa/y', 'spiffe://example.org']));
    return told(text, () => {
      const id = parseSpiffeId(text);
      if (!id.ok) return sentences([id.error]);
      assert.equal(`spiffe://${trustDomainOf(id.value)}${pathOf(id.value)}`, text);
      return true;
    });
  },
  bundle(draws) {
    const text = mutated(draws, BUNDLE);
    return told(text, () => {
      const document = parseBundleDocument(Buffer.from(text, draws.once(2) ? 'utf8' : 'latin1'));
      return document.ok || sentences([document.error.message]);
    });
  },
};

/** Says what the input was, where a reader throws. */
function told(input: string, check: () => boolean): boolean {
  try {
    return check();
  } catch (cause) {
    throw new Error(`${JSON.stringify(input.slice(0, 4000))}: ${String((cause as Error).stack)}`, { cause });
  }
}

/** Each problem has its place and says what it is, in one line without control characters. */
function located(issues: readonly ConfigIssue[]): false {
  assert.ok(issues.length > 0);
  for (const { line, column, message } of issues) {
    assert.ok(line === undefined || (line >= 1 && (column ?? 0) >= 1));
    assert.ok(message.length > 0);
  }
  assert.equal(formatIssues(issues).split('\n').length, issues.length, formatIssues(issues));
  return false;
}

function sentences(messages: readonly string[]): false {
  assert.ok(messages.length > 0 && messages.every((message) => message.length > 0));
  return false;
}

/** A text with some characters changed, or hardly any. */
function mutated(draws: Draws, text: string): string {
  let changed = text;
  for (let count = draws.below(6); count > 0; count--) {
    const at = draws.below(changed.length + 1);
    const end = Math.min(changed.length, at + draws.below(draws.once(3) ? 200 : 4));
    switch (draws.below(6)) {
      case 0:
        changed = changed.slice(0, at) + changed.slice(end);
        break;
      case 1:
        changed = changed.slice(0, at) + changed.slice(at, end).repeat(2 + draws.below(3)) + changed.slice(end);
        break;
      case 2:
        changed = changed.slice(0, at) + String.fromCharCode(draws.below(256)) + changed.slice(at + 1);
        break;
      case 3: {
        const from = draws.below(changed.length + 1);
        changed = changed.slice(0, at) + changed.slice(from, from + draws.below(100)) + changed.slice(end);
        break;
      }
      case 4:
        changed = draws.once(4) ? changed.slice(0, at) : changed.slice(0, at) + draws.of(KEYS) + changed.slice(end);
        break;
      default:
        changed = changed.slice(0, at) + draws.of(NASTY) + changed.slice(end);
    }
  }
  return changed;
}

/** By a grammar: keys that there are, with values that they may not have. In JSON, or as YAML has it. */
function written(draws: Draws, depth: number): string {
  switch (draws.below(depth > 6 ? 3 : 6)) {
    case 0:
      return JSON.stringify(draws.of(NASTY));
    case 1:
      return draws.of(NASTY);
    case 2:
      return draws.of(['1', '"spiffe://example.org/web"', '/a', 'GET', '127.0.0.1:8080', 'unix:///a', '5s', '[]', '{}', 'null']);
    case 3:
      return `[${Array.from({ length: draws.below(4) }, () => written(draws, depth + 1)).join(', ')}]`;
    default:
      return `{${Array.from({ length: draws.below(6) }, () => `${JSON.stringify(draws.of(KEYS))}: ${written(draws, depth + 1)}`).join(', ')}}`;
  }
}

function drawRule(draws: Draws): RuleSpec {
  const some = (good: readonly string[]): readonly string[] =>
    Array.from({ length: draws.below(3) + (draws.once(20) ? 0 : 1) }, () => (draws.once(6) ? draws.of(NASTY) : draws.of(good)));
  return {
    peer: draws.once(4)
      ? mutated(draws, 'spiffe://example.org/ns/*/sa/**')
      : draws.of(['spiffe://example.org/web', 'spiffe://example.org/**']),
    ...(draws.once(2) ? {} : { methods: some(['GET', 'POST', 'M-SEARCH']) }),
    ...(draws.once(2) ? {} : { paths: draws.once(3) ? some(PATHS) : some(['/', '/a/*', '/a/**', '/**']) }),
    ...(draws.once(2) ? {} : { hosts: some(['a', '*.shop.example', '[::1]']) }),
    ...(draws.once(3) ? { notBeforeMs: draws.below(4e12) } : {}),
    ...(draws.once(3) ? { notAfterMs: draws.below(4e12) } : {}),
    ...(draws.once(3) ? { windows: Array.from({ length: 1 + draws.below(2) }, () => drawWindow(draws)) } : {}),
    ...(draws.once(3) ? { mode: 'audit' } : {}),
  };
}

function drawWindow(draws: Draws): Parameters<typeof parseWindow>[0] {
  const time = (): string => {
    if (draws.once(8)) return draws.of(NASTY);
    return `${String(draws.below(26)).padStart(2, '0')}:${String(draws.below(62)).padStart(2, '0')}`;
  };
  const zone = draws.of(['UTC', 'Europe/Berlin', 'America/St_Johns', 'Pacific/Chatham', 'europe/berlin']);
  return {
    ...(draws.once(2) ? {} : { days: DAYS.filter(() => draws.once(2)) }),
    from: time(),
    to: time(),
    timeZone: draws.once(6) ? draws.of(NASTY) : zone,
  };
}

/** A list as its file is read: whole, or in parts of such sizes. */
function listOf(bytes: Buffer, size: () => number = () => bytes.length): Result<IdList, readonly ConfigIssue[]> {
  const reader = new IdsLineReader('fuzz.txt');
  for (let at = 0; at < bytes.length;) {
    const end = at + size();
    if (!reader.push(bytes.subarray(at, end))) break;
    at = end;
  }
  const issues = reader.finish();
  return issues.length > 0 ? err(issues) : ok(atOnce(reader.builder.build('fuzz.txt', '', undefined)));
}
