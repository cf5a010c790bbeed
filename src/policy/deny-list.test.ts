import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createTestAuthority, keyIdOf, type TestCertificate } from '../../test/support/pki/pki.ts';
import { parseCertificate, type Certificate } from '../spiffe/x509/certificate.ts';
import { requireSpiffeId } from '../spiffe/spiffe-id.ts';
import { DenyListBuilder, EMPTY_DENY_LIST, MAX_DENY_PATTERNS, type DenyKind, type DenyList } from './deny-list.ts';
import { parsePattern, type Pattern } from './pattern.ts';

const ID = requireSpiffeId('spiffe://example.org/ns/shop/web');
const root = createTestAuthority();
const intermediate = root.intermediate();
const leaf = intermediate.issue({ id: ID });
const path = [leaf, intermediate, root].map(read);

function read({ der }: Pick<TestCertificate, 'der'>): Certificate {
  const parsed = parseCertificate(der);
  assert.ok(parsed.ok, parsed.ok ? '' : parsed.error);
  return parsed.value;
}

function listOf(...entries: readonly (readonly [DenyKind, string])[]): DenyList {
  const builder = new DenyListBuilder();
  for (const [index, [kind, value]] of entries.entries()) assert.equal(builder.add(kind, value, index + 1), undefined, value);
  return done(builder.build('revoked.yaml'));
}

function done<T>(steps: Generator<void, T>): T {
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
  }
}

function patternOf(entry: string): Pattern {
  const parsed = parsePattern(entry);
  assert.ok(parsed.ok, entry);
  return parsed.value;
}

const keyId = (certificate: TestCertificate): string => keyIdOf(certificate.keys.publicKey).toString('hex');

test('a SPIFFE ID is named by itself and by patterns, and no other is', () => {
  for (const entry of [ID, 'spiffe://example.org/ns/*/web', 'spiffe://example.org/ns/shop/**', 'spiffe://example.org/**']) {
    const said = listOf(['ids', entry]).refusal(ID, path) ?? '';
    assert.ok(said.startsWith(`${ID} is on the deny list`) && said.includes(entry) && said.endsWith('(revoked.yaml:1)'), said);
  }
  const others = ['spiffe://example.org/ns/shop/web2', 'spiffe://example.org/ns/*', 'spiffe://example.com/**', `${ID}/**`];
  assert.equal(listOf(...others.map((other) => ['ids', other] as const)).refusal(ID, path), undefined);
});

test('a pattern is named as a whole by an entry that names all whom it names, and by no other', () => {
  for (const [entry, covered, others] of [
    ['ns/*', ['ns/shop', 'ns/*'], ['*/shop', 'ns/**', 'ns/*/*', '**', 'ns/shop/web']],
    ['ns/**', ['ns/shop', 'ns/*', 'ns/**', 'ns/*/**', 'ns/shop/*/**'], ['*', '**', '*/**', 'ns']],
    ['*/shop/**', ['ns/shop/web', '*/shop/*', 'ns/shop/**'], ['**', '*/**', 'ns/shop', '*/*/web']],
    ['**', ['ns', '*', '**', '*/**', 'ns/*/web'], []],
    ['ns/shop', ['ns/shop'], ['ns/*', 'ns/**']],
  ] as const) {
    const list = listOf(['ids', `spiffe://example.org/${entry}`]);
    for (const [paths, wanted] of [
      [covered, true],
      [others, false],
    ] as const)
      for (const path of paths) assert.equal(list.namesAll(patternOf(`spiffe://example.org/${path}`)), wanted, `${entry} and ${path}`);
    assert.ok(!list.namesAll(patternOf('spiffe://example.com/ns/*')));
  }
});

test('every certificate of the path is named by its hash, and by its serial number and the key of its issuer', () => {
  const issuers = [intermediate, root, root];
  for (const [index, certificate] of path.entries()) {
    const issuer = issuers[index] ?? root;
    for (const entry of [
      ['certificates', certificate.sha256],
      ['serials', `${certificate.serial}@${keyId(issuer)}`],
      ['serials', `000${certificate.serial.toUpperCase()}@${keyId(issuer).toUpperCase()}`],
    ] as const) {
      const said = listOf(entry).refusal(ID, path) ?? '';
      assert.ok(said.startsWith(index === 0 ? 'its certificate is' : 'the certificate of "'), said);
    }
    // The same number of another issuer is another certificate.
    assert.equal(listOf(['serials', `${certificate.serial}@${keyId(leaf)}`]).refusal(ID, path), undefined);
  }
});

test('a serial number is a number, whatever zeros stand ahead of it in the certificate or in the list', () => {
  const small = intermediate.issue({ id: ID, serial: '0a' });
  const itsPath = [small, intermediate, root].map(read);
  for (const serial of ['a', '0A', '00:0a'])
    assert.notEqual(listOf(['serials', `${serial}@${keyId(intermediate)}`]).refusal(ID, itsPath), undefined, serial);
  assert.equal(listOf(['serials', `a0@${keyId(intermediate)}`]).refusal(ID, itsPath), undefined);
});

test('what a leaf says of the key of its issuer counts for nothing', () => {
  const claimed = Buffer.from('d4'.repeat(20), 'hex');
  const lying = intermediate.issue({ id: ID, authorityKeyId: claimed });
  const itsPath = [lying, intermediate, root].map(read);

  assert.notEqual(listOf(['serials', `${lying.serial}@${keyId(intermediate)}`]).refusal(ID, itsPath), undefined);
  assert.equal(listOf(['serials', `${lying.serial}@${claimed.toString('hex')}`]).refusal(ID, itsPath), undefined);
});

test('another certificate of the issuer, with another key identifier or none, does not save what its key signed', () => {
  for (const subjectKeyId of [Buffer.from('d4'.repeat(20), 'hex'), null]) {
    const shown = root.crossSign(intermediate, { subjectKeyId });
    assert.notEqual(listOf(['serials', `${leaf.serial}@${keyId(intermediate)}`]).refusal(ID, [leaf, shown, root].map(read)), undefined);
    // And what that certificate says of itself counts too.
    const said = listOf(['serials', `${leaf.serial}@${'d4'.repeat(20)}`]).refusal(ID, [leaf, shown, root].map(read));
    assert.equal(said === undefined, subjectKeyId === null);
  }
});

test('an authority that another one signed is named by its serial number and the issuer that it states', () => {
  const authority = read(intermediate);
  assert.ok(listOf(['serials', `${intermediate.serial}@${keyId(root)}`]).namesAuthority(authority));
  assert.ok(!listOf(['serials', `${intermediate.serial}@${keyId(intermediate)}`]).namesAuthority(authority));
  assert.ok(listOf(['certificates', authority.sha256]).namesAuthority(authority));
  assert.ok(listOf(['serials', `${root.serial}@${keyId(root)}`]).namesAuthority(read(root)));
  const silent = createTestAuthority({ authorityKeyId: null, subjectKeyId: null });
  assert.ok(listOf(['serials', `${silent.serial}@${keyId(silent)}`]).namesAuthority(read(silent)), 'it signed itself, with that key');
});

test('a serial number that looks like a hash, and a hash that looks like a serial number, name nothing else', () => {
  const [first] = path;
  assert.ok(first !== undefined);
  const odd = root.issue({ id: ID, serial: `1${'a'.repeat(63)}` });
  const itsPath = [odd, root].map(read);
  assert.equal(listOf(['certificates', `1${'a'.repeat(63)}`]).refusal(ID, itsPath), undefined);
  assert.equal(listOf(['serials', `${first.sha256}@${keyId(intermediate)}`]).refusal(ID, path), undefined);
  assert.notEqual(listOf(['serials', `1${'a'.repeat(63)}@${keyId(root)}`]).refusal(ID, itsPath), undefined);
});

test('the difference between lists is told by entries, a bounded number of them', () => {
  const old = listOf(['ids', ID], ['ids', 'spiffe://example.org/a/*']);
  const fresh = listOf(['ids', 'spiffe://example.org/a/*'], ['serials', '01@ab'], ['serials', '01@cd'], ['certificates', 'ab'.repeat(32)]);

  assert.deepEqual(done(fresh.notIn(old, 2)), { count: 3, first: ['1@ab', '1@cd'] });
  assert.deepEqual(done(old.notIn(fresh, 2)), { count: 1, first: [ID] });
  assert.deepEqual(done(fresh.notIn(fresh, 2)), { count: 0, first: [] });
  assert.deepEqual(done(EMPTY_DENY_LIST.notIn(fresh, 2)), { count: 0, first: [] });
});

test('an entry that is too long, and one pattern too many, is not taken', () => {
  const builder = new DenyListBuilder();
  const [most, more] = ['ab'.repeat(64), 'ab'.repeat(65)];
  assert.equal(builder.add('serials', `${most}@${most}`, 1), undefined);
  assert.match(builder.add('serials', `${more}@${most}`, 2) ?? '', /^must be a serial number/);
  assert.match(builder.add('serials', `${most}@${more}`, 3) ?? '', /^the key identifier of the issuer/);

  for (let count = 0; count < MAX_DENY_PATTERNS; count++)
    assert.equal(builder.add('ids', `spiffe://example.org/w${count}/*`, 4), undefined);
  assert.equal(builder.add('ids', 'spiffe://example.org/more/*', 5), 'there are more than 100000 entries with "*"');
  assert.equal(builder.add('ids', 'spiffe://example.org/more', 6), undefined);
});
