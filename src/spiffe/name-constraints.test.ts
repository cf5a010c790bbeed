import assert from 'node:assert/strict';
import { test } from 'node:test';
import { requireCertificate } from '../../test/support/bundles.ts';
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
} from '../../test/support/pki.ts';
import { nameConstraintProblem } from './name-constraints.ts';

const root = createTestAuthority();

function problemOf(lists: NameConstraintLists, leaf: CertificateOptions): string | undefined {
  const constraints = requireCertificate(root.intermediate({ nameConstraints: lists }).der).extensions.nameConstraints;
  assert.ok(constraints);
  return nameConstraintProblem(constraints, [requireCertificate(root.issue(leaf).der)]);
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
    ['.example.org', 'a.example.org', true],
    ['example.org', 'badexample.org', false],
    ['', 'anything', true],
  ] as const) {
    assert.equal(permits(dnsName(base), { dnsSans: [name] }), isWithin, `permitted ${base}, ${name}`);
    assert.equal(excludes(dnsName(base), { dnsSans: [name] }), isWithin, `excluded ${base}, ${name}`);
  }
});

test('a directory base is the beginning of a name, whatever its case and spaces', () => {
  const base = directoryName(distinguishedName([ORGANISATION, 'scute  TEST']));

  assert.equal(permits(base, { subject: 'Workload' }), true);
  assert.equal(excludes(base, { subject: 'Workload' }), true);
  assert.equal(permits(base, { subject: distinguishedName([COMMON_NAME, 'Workload']) }), false);
  assert.equal(permits(base, { subject: '' }), true);
  assert.equal(permits(base, { subject: '', otherSans: [directoryName(distinguishedName([ORGANISATION, 'Other']))] }), false);
});

test('a mailbox is judged by host or whole, in the subject as well', () => {
  const inSubject: CertificateOptions = { subject: distinguishedName(['1.2.840.113549.1.9.1', 'a@bad.example']) };

  assert.equal(excludes(emailName('bad.example'), inSubject), true);
  assert.equal(excludes(emailName('bad.example'), { otherSans: [emailName('a@bad.example')] }), true);
  assert.equal(permits(emailName('a@good.example'), { otherSans: [emailName('a@GOOD.example')] }), true);
  assert.equal(permits(emailName('a@good.example'), { otherSans: [emailName('b@good.example')] }), false);
  assert.equal(permits(emailName('.good.example'), { otherSans: [emailName('b@x.good.example')] }), true);
});

test('an address is judged by network and mask', () => {
  const base = ipName([10, 1, 0, 0, 255, 255, 0, 0]);

  assert.equal(permits(base, { otherSans: [ipName([10, 1, 2, 3])] }), true);
  assert.equal(permits(base, { otherSans: [ipName([10, 2, 2, 3])] }), false);
  assert.equal(permits(base, { otherSans: [ipName(Array.from({ length: 16 }, () => 0))] }), false);
  assert.equal(excludes(base, { otherSans: [ipName([10, 1, 2])] }), true);
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
