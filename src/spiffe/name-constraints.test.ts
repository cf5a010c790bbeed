import assert from 'node:assert/strict';
import { test } from 'node:test';
import { requireCertificate } from '../../test/support/pki/bundles.ts';
import { element, oid, sequence, set, utf8 } from '../../test/support/pki/der-writer.ts';
import {
  COMMON_NAME,
  createTestAuthority,
  directoryName,
  distinguishedName,
  dnsName,
  emailName,
  ipName,
  ORGANISATION,
  registeredIdName,
  uriName,
  type CertificateOptions,
  type NameConstraintLists,
} from '../../test/support/pki/pki.ts';
import { parseCertificate } from './x509/certificate.ts';
import { allowedComparisons, nameConstraintProblem } from './name-constraints.ts';

const root = createTestAuthority();

function problemOf(lists: NameConstraintLists, leaf: CertificateOptions): string | undefined {
  const constraints = requireCertificate(root.intermediate({ nameConstraints: lists }).der).extensions.nameConstraints;
  assert.ok(constraints);
  return nameConstraintProblem(constraints, [requireCertificate(root.issue(leaf).der)], allowedComparisons());
}

function permits(base: Uint8Array, leaf: CertificateOptions): boolean {
  return problemOf({ permitted: [base] }, leaf) === undefined;
}

function excludes(base: Uint8Array, leaf: CertificateOptions): boolean {
  return problemOf({ excluded: [base] }, leaf) !== undefined;
}

test('a URI is judged by its host: exactly, or below a base with a leading dot (RFC 5280 4.2.1.10)', () => {
  for (const [base, host, isWithin] of [
    ['example.org', 'example.org', true],
    ['EXAMPLE.org', 'example.org', true],
    ['example.org', 'a.example.org', false],
    ['example.org', 'badexample.org', false],
    ['.example.org', 'a.example.org', true],
    ['.example.org', 'a.b.example.org', true],
    ['.example.org', 'example.org', false],
    ['.example.org', 'badexample.org', false],
  ] as const) {
    assert.equal(permits(uriName(base), { uriSans: [`spiffe://${host}/a`] }), isWithin, `permitted ${base}, ${host}`);
    assert.equal(excludes(uriName(base), { uriSans: [`spiffe://${host}/a`] }), isWithin, `excluded ${base}, ${host}`);
  }
});

test('an empty URI base permits nothing and excludes everything', () => {
  assert.equal(permits(uriName(''), {}), false);
  assert.equal(excludes(uriName(''), {}), true);
});

test('a URI whose host is an address, or that has none, breaks every URI constraint', () => {
  for (const uri of ['spiffe://10.0.0.1/a', 'urn:x:y', 'https://[::1]/', 'https:///a']) {
    assert.equal(permits(uriName('.example'), { uriSans: [uri] }), false, uri);
    assert.equal(excludes(uriName('.example'), { uriSans: [uri] }), true, uri);
  }
});

test('user info and ports do not hide the host of a URI', () => {
  assert.equal(excludes(uriName('bad.example'), { uriSans: ['https://good.example@bad.example:443/'] }), true);
  assert.equal(excludes(uriName('bad.example'), { uriSans: ['https://BAD.example?x'] }), true);
});

test('a DNS base is the name and everything below it', () => {
  for (const [base, name, isWithin] of [
    ['example.org', 'example.org', true],
    ['example.org', 'A.Example.org', true],
    ['EXAMPLE.org', 'a.b.example.org', true],
    ['example.org', 'badexample.org', false],
    ['example.org', 'org', false],
    ['', 'anything', true],
  ] as const) {
    assert.equal(permits(dnsName(base), { dnsSans: [name] }), isWithin, `permitted ${base}, ${name}`);
    assert.equal(excludes(dnsName(base), { dnsSans: [name] }), isWithin, `excluded ${base}, ${name}`);
  }
});

test('a wildcard is permitted if all that it may stand for is, and excluded if any of that is', () => {
  for (const [base, name, isPermitted, isExcluded] of [
    ['example.com', '*.example.com', true, true],
    ['bar.example.com', '*.example.com', false, true],
    ['BAR.example.com', '*.EXAMPLE.com', false, true],
    ['a.bar.example.com', '*.example.com', false, true],
    ['bar.example.com', '*.bar.example.com', true, true],
    ['bar.example.com', '*.foo.example.com', false, false],
    ['bar.example.com', '*.ar.example.com', false, false],
    ['bar.example.com', '*.com', false, true],
    ['', '*.example.com', true, true],
  ] as const) {
    assert.equal(permits(dnsName(base), { dnsSans: [name] }), isPermitted, `permitted ${base}, ${name}`);
    assert.equal(excludes(dnsName(base), { dnsSans: [name] }), isExcluded, `excluded ${base}, ${name}`);
  }
});

test('a DNS name that is malformed, or of which only a part is a wildcard, breaks every DNS constraint, and is free without', () => {
  for (const name of [
    '*',
    '*.',
    '*.*.example.com',
    '**.example.com',
    'a.*.example.com',
    'f*.example.com',
    '*foo.example.com',
    '.example.com',
    'example.com.',
    'a..example.com',
    '',
    'a b.example.com',
    'a\0.example.com',
    '-a.example.com',
    'a-.example.com',
    'a/b.example.com',
    `${'a'.repeat(64)}.example.com`,
    `${'a.'.repeat(125)}example.com`,
  ]) {
    assert.match(problemOf({ excluded: [dnsName('elsewhere.example')] }, { dnsSans: [name] }) ?? '', /cannot be judged/, name);
    assert.match(problemOf({ permitted: [dnsName('')] }, { dnsSans: [name] }) ?? '', /cannot be judged/, name);
    assert.equal(problemOf({ excluded: [ipName([10, 0, 0, 0, 255, 0, 0, 0])] }, { dnsSans: [name] }), undefined, name);
  }
  for (const name of ['xn--bcher-kva.example', '_service.example', '1.example', `${'a'.repeat(63)}.example`])
    assert.equal(problemOf({ excluded: [dnsName('elsewhere.example')] }, { dnsSans: [name] }), undefined, name);
});

test('names outside ASCII, which could be read in several ways, are not names', () => {
  for (const name of ['b\u00fccher.example', 'example\u3002org'].map((text) => Buffer.from(text)))
    for (const tag of [0x81, 0x82, 0x86])
      assert.throws(() => requireCertificate(root.issue({ otherSans: [element(tag, name)] }).der), /bytes outside ASCII/);
});

test('a URI whose host is malformed breaks every URI constraint', () => {
  for (const uri of [
    'spiffe://example.org./a',
    'spiffe://.example.org/a',
    'spiffe://a..example.org/a',
    'https://*.example.org/',
    'https://example%2eorg/',
    'https://good.example\\@bad.example/',
    'https://good.example /',
    'https://0x7f.1/',
    'https://2130706433/',
    'https://a@b@good.example/',
  ]) {
    assert.match(problemOf({ permitted: [uriName('.example')] }, { uriSans: [uri] }) ?? '', /cannot be judged/, uri);
    assert.match(problemOf({ excluded: [uriName('elsewhere.example')] }, { uriSans: [uri] }) ?? '', /cannot be judged/, uri);
  }
  assert.equal(problemOf({ excluded: [uriName('elsewhere.example')] }, { uriSans: ['spiffe://prod_1.k8s.2/a'] }), undefined);
});

test('a malformed constraint refuses all, whether or not there is such a name', () => {
  for (const base of [
    ...['*.example.org', '.example.org', 'example.org.', 'a..b', 'a b', '*'].map(dnsName),
    ...[
      'spiffe://example.org',
      'example.org/',
      '*.example.org',
      '..example.org',
      'example.org.',
      '.',
      '10.0.0.1',
      'a@example.org',
      'example.org:443',
    ].map(uriName),
    ...[
      'invalid@invalid@example.org',
      '@example.org',
      'a@',
      'a@.example.org',
      '*@example.org.',
      '"a b"@example.org',
      '.',
      '*.example.org',
    ].map(emailName),
    ipName([]),
    ipName([10, 0, 0, 1]),
    ipName([10, 0, 0, 0, 255, 0, 255, 0]),
    ipName([10, 0, 0, 0, 0, 255, 0, 0]),
    ipName([10, 0, 0, 0, 253, 0, 0, 0]),
    ipName([...Array.from({ length: 31 }, () => 0), 1]),
    ipName(Array.from({ length: 16 }, () => 0)),
  ])
    for (const lists of [{ permitted: [base] }, { excluded: [base] }, { excluded: [base], critical: false }])
      assert.match(
        problemOf(lists, { subject: '', uriSans: [], dnsSans: ['a.example'] }) ?? '',
        /which is malformed$/,
        base.toString('latin1'),
      );
});

test('a directory base is the beginning of a name, whatever its case and spaces', () => {
  const base = directoryName(distinguishedName([ORGANISATION, 'scute  TEST']));

  assert.equal(permits(base, { subject: 'Workload' }), true);
  assert.equal(excludes(base, { subject: 'Workload' }), true);
  assert.equal(permits(base, { subject: distinguishedName([COMMON_NAME, 'Workload']) }), false);
  assert.equal(permits(base, { subject: '' }), true);
  assert.equal(permits(base, { subject: '', otherSans: [directoryName(distinguishedName([ORGANISATION, 'Other']))] }), false);
});

test('a directory name is the same however it is written (RFC 5280 7.1)', () => {
  const base = directoryName(distinguishedName([ORGANISATION, 'Caf\u00e9 Bad']));
  const written = (tag: number, value: Buffer): Buffer => sequence(set(sequence(oid(ORGANISATION), element(tag, value))));
  for (const subject of [
    written(0x0c, Buffer.from('CAFE\u0301  bad')),
    written(0x0c, Buffer.from('caf\u00e9\u00a0bad')),
    written(0x0c, Buffer.from('Caf\u00e9 B\u200bad')),
    written(0x0c, Buffer.from('Caf\u00e9 \u200b Bad')),
    written(0x0c, Buffer.from('Cafe\u200d\u0301 Bad\u00ad ')),
    written(0x0c, Buffer.from('\uff23af\u00e9 Bad\0')),
    written(0x14, Buffer.from('caf\u00e9 bad', 'latin1')),
    written(0x1c, Buffer.concat(Array.from('Caf\u00e9 Bad', (character) => Buffer.from([0, 0, 0, character.charCodeAt(0)])))),
    written(0x1e, Buffer.from('Caf\u00e9 Bad', 'utf16le').swap16()),
  ])
    assert.equal(excludes(base, { subject }), true, subject.toString('hex'));
  assert.equal(excludes(base, { subject: written(0x0c, Buffer.from('Caf\u00e9 Good')) }), false);
});

test('a text with more marks in a row than any script has makes no name, even with what is not seen between them', () => {
  const errorOf = (text: string): string | undefined => {
    const parsed = parseCertificate(root.issue({ subject: distinguishedName([ORGANISATION, text]) }).der);
    return parsed.ok ? undefined : parsed.error;
  };
  const marks = (count: number): string => '\u0315\u0327'.repeat(count / 2);

  for (const text of [marks(32), marks(7000), `e${marks(7000)}`, `e${`${marks(20)}\u200d`.repeat(500)}`])
    assert.match(errorOf(text) ?? '', /more than 30 marks in a row/);
  for (const text of [`e${marks(30)}`.repeat(100), `e${'\0'.repeat(40)}`]) assert.equal(errorOf(text), undefined);
});

test('a text that is malformed makes no name', () => {
  for (const [tag, hex] of [
    [0x0c, '4163ff'],
    [0x0c, 'c0ae'],
    [0x0c, 'eda080'],
    [0x1c, '00110000'],
    [0x1c, '000000'],
    [0x1e, '000041'],
  ] as const) {
    const name = sequence(set(sequence(oid(ORGANISATION), element(tag, Buffer.from(hex, 'hex')))));
    for (const options of [{ subject: name }, { otherSans: [directoryName(name)] }]) {
      const parsed = parseCertificate(root.issue(options).der);
      assert.deepEqual(parsed, { ok: false, error: 'not a well-formed certificate: a malformed text in a name' }, hex);
    }
  }
});

test('a mailbox is judged by host or whole, in the subject as well', () => {
  const inSubject: CertificateOptions = { subject: distinguishedName(['1.2.840.113549.1.9.1', 'a@bad.example']) };

  assert.equal(excludes(emailName('bad.example'), inSubject), true);
  assert.equal(excludes(emailName('bad.example'), { otherSans: [emailName('a@bad.example')] }), true);
  assert.equal(permits(emailName('a@good.example'), { otherSans: [emailName('a@GOOD.example')] }), true);
  assert.equal(permits(emailName('a@good.example'), { otherSans: [emailName('b@good.example')] }), false);
  assert.equal(permits(emailName('.good.example'), { otherSans: [emailName('b@x.good.example')] }), true);
  assert.equal(excludes(emailName('.bad.example'), { otherSans: [emailName('b@bad.example')] }), false);
  assert.equal(permits(emailName('a@good.example'), { otherSans: [emailName('A@good.example')] }), false);
  assert.equal(excludes(emailName('a@bad.example'), { otherSans: [emailName('A@BAD.example')] }), true);
  assert.equal(permits(emailName(''), { otherSans: [emailName('a@good.example')] }), false);
  assert.equal(excludes(emailName(''), { otherSans: [emailName('a@good.example')] }), true);
});

test('a mailbox that is malformed, or needs quotes or more than ASCII, breaks every constraint on mailboxes', () => {
  const international = element(0xa0, oid('1.3.6.1.5.5.7.8.9'), element(0xa0, utf8('b\u00fccher@elsewhere.example')));
  for (const name of [
    ...[
      'a',
      '@good.example',
      'a@',
      'a@@good.example',
      'a@bad.example@good.example',
      '"a@b"@good.example',
      'a b@good.example',
      'a@[10.0.0.1]',
      `${'a'.repeat(65)}@good.example`,
    ].map(emailName),
    ...['a@good.example.', 'a@.good.example', 'a@*.good.example', 'a@good..example'].map(emailName),
    international,
  ]) {
    assert.match(
      problemOf({ permitted: [emailName('good.example')] }, { otherSans: [name] }) ?? '',
      /cannot be judged/,
      name.toString('latin1'),
    );
    assert.match(
      problemOf({ excluded: [emailName('x.example')] }, { otherSans: [name] }) ?? '',
      /cannot be judged/,
      name.toString('latin1'),
    );
  }
  assert.equal(problemOf({ excluded: [emailName('x.example')] }, { otherSans: [emailName("o'hara+a.b@good.example")] }), undefined);
});

test('an address is judged by network and mask', () => {
  const base = ipName([10, 1, 0, 0, 255, 255, 0, 0]);

  assert.equal(permits(base, { otherSans: [ipName([10, 1, 2, 3])] }), true);
  assert.equal(permits(base, { otherSans: [ipName([10, 2, 2, 3])] }), false);
  assert.equal(permits(base, { otherSans: [ipName(Array.from({ length: 16 }, () => 0))] }), false);
});

test('an IPv4 address that is written as one of IPv6 is excluded with it, and not permitted with it', () => {
  const mapped = [...Array.from({ length: 10 }, () => 0), 255, 255];
  const [four, six] = [
    ipName([10, 1, 0, 0, 255, 255, 0, 0]),
    ipName([...mapped, 10, 1, 0, 0, ...Array.from({ length: 14 }, () => 255), 0, 0]),
  ];
  const [plain, written] = [{ otherSans: [ipName([10, 1, 2, 3])] }, { otherSans: [ipName([...mapped, 10, 1, 2, 3])] }];

  for (const base of [four, six]) for (const leaf of [plain, written]) assert.equal(excludes(base, leaf), true);
  assert.deepEqual(
    [four, six].map((base) => [permits(base, plain), permits(base, written)]),
    [
      [true, false],
      [false, true],
    ],
  );
});

test('an address base may have any prefix, that of no bits and that of all', () => {
  for (const [mask, isWithin] of [
    [[0, 0, 0, 0], true],
    [[255, 255, 255, 254], false],
    [[255, 128, 0, 0], true],
    [[255, 255, 255, 255], false],
  ] as const) {
    assert.equal(permits(ipName([10, 1, 2, 3, ...mask]), { otherSans: [ipName([10, 1, 2, 4])] }), isWithin, mask.join('.'));
    assert.equal(excludes(ipName([10, 1, 2, 3, ...mask]), { otherSans: [ipName([10, 1, 2, 4])] }), isWithin, mask.join('.'));
  }
});

test('a kind of name that is not constrained is free', () => {
  assert.equal(permits(dnsName('example.org'), { uriSans: ['spiffe://elsewhere.example/a'] }), true);
});

test('what is excluded stays so, even if it is permitted too', () => {
  assert.match(problemOf({ permitted: [uriName('example.org')], excluded: [uriName('example.org')] }, {}) ?? '', /excludes/);
});

test('a constraint on a kind of name that is not understood refuses if it is critical, or if such a name is there', () => {
  const base = registeredIdName('1.2.3');

  assert.match(problemOf({ excluded: [base] }, {}) ?? '', /not understood/);
  assert.equal(problemOf({ excluded: [base], critical: false }, {}), undefined);
  assert.match(problemOf({ permitted: [base], critical: false }, { otherSans: [base] }) ?? '', /does not permit/);
});

test('thousands of names against thousands of constraints are refused, not compared', () => {
  const many = Array.from({ length: 2000 }, (_, index) => `h${index}.example`);

  assert.match(problemOf({ excluded: many.map(dnsName) }, { dnsSans: many.map((name) => `x${name}`) }) ?? '', /too many/);
});
