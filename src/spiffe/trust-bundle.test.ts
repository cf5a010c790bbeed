import assert from 'node:assert/strict';
import { test } from 'node:test';
import { requireTrustDomain } from '../../test/support/pki/bundles.ts';
import { createTestAuthority, type TestAuthority } from '../../test/support/pki/pki.ts';
import { parseCertificate } from './x509/certificate.ts';
import { parseCrl } from './x509/crl.ts';
import { buildTrustBundle, type AuthorityInDoubt } from './trust-bundle.ts';

const domain = requireTrustDomain('example.org');
const root = createTestAuthority();

function codeOf(der: Uint8Array, crls: readonly Uint8Array[] = []): string {
  const built = buildTrustBundle(domain, der, crls);
  return built.ok ? 'ok' : built.error.code;
}

test('an empty bundle is legal and has no authorities', () => {
  const built = buildTrustBundle(domain, Buffer.alloc(0));

  assert.ok(built.ok);
  assert.deepEqual(built.value, {
    trustDomain: 'example.org',
    authorities: [],
    crls: [],
    unmatchedCrls: [],
    intermediates: [],
    notes: [],
  });
});

test('authorities are kept in order, and one that is there twice is one', () => {
  const second = createTestAuthority();

  const built = buildTrustBundle(domain, Buffer.concat([root.der, second.der, root.der]));

  assert.ok(built.ok);
  assert.deepEqual(
    built.value.authorities.map((authority) => authority.serial),
    [root.serial, second.serial],
  );
  assert.ok(Object.isFrozen(built.value) && Object.isFrozen(built.value.authorities));
});

test('an authority with a key that is not relied on is noted, once', () => {
  const weak = createTestAuthority({ key: 'rsa1024' });

  const built = buildTrustBundle(domain, Buffer.concat([root.der, weak.der, weak.der]));

  assert.ok(built.ok);
  assert.equal(built.value.notes.length, 1);
  assert.match(built.value.notes[0] ?? '', /^bundle of example\.org: authority ".*" has an RSA key of 1024 bits, .*; it is not relied on$/);
});

test('an authority need not be self-signed', () => {
  assert.equal(codeOf(root.intermediate().der), 'ok');
});

test('a bundle with anything but whole certificates is refused', () => {
  assert.equal(codeOf(Buffer.concat([root.der, Buffer.from([0x30])])), 'bad_authority');
  assert.equal(codeOf(Buffer.concat([root.der, Buffer.from([0x30, 0])])), 'bad_authority');
  assert.equal(codeOf(Buffer.from(root.pem)), 'bad_authority');
});

test('a list that is not well-formed refuses the bundle: it may be the one that revokes somebody', () => {
  assert.equal(codeOf(root.der, [Buffer.from('garbage')]), 'bad_crl');
  assert.equal(codeOf(root.der, [root.crl().subarray(0, -1)]), 'bad_crl');
});

test('a list with the name of an authority and not its signature refuses the bundle', () => {
  assert.equal(codeOf(root.der, [root.crl({ badSignature: true })]), 'bad_crl');
  assert.equal(codeOf(root.der, [root.crl({ badSignature: true, authorityKeyId: null })]), 'bad_crl');
  assert.equal(codeOf(root.der, [root.crl({ signature: 'ecdsa-sha1' })]), 'bad_crl');
});

test('a list of an authority of the same name that names another key is of somebody else', () => {
  const gone = createTestAuthority();

  const built = buildTrustBundle(domain, root.der, [gone.crl(), root.crl()]);

  assert.ok(built.ok);
  assert.equal(built.value.crls.length, 1);
  assert.equal(built.value.unmatchedCrls.length, 1);
});

test('in a partner\u2019s bundle it is the authority that is not trusted, when a list may be of it and cannot be checked', () => {
  const [sound, twin] = [createTestAuthority(), createTestAuthority()];
  const imitation = createTestAuthority({ authorityKeyId: null, subjectKeyId: keyIdOf(root) });
  const der = Buffer.concat([sound.der, imitation.der, twin.der]);
  const serials = (crls: readonly Uint8Array[], from = der): readonly string[] => {
    const built = buildTrustBundle(domain, from, crls, parseCrl, 'leave_out');
    assert.ok(built.ok);
    return [...built.value.authorities.map(({ serial }) => serial), ...built.value.notes];
  };

  // Of ours, whose name and key identifier it has.
  assert.deepEqual(serials([root.crl()]), [
    sound.serial,
    twin.serial,
    `bundle of example.org: revocation list 1 of ${JSON.stringify('CN=Root example.org,O=Scute test')} has no good signature of that authority; 1 of its authorities are not trusted`,
  ]);
  assert.deepEqual(serials([sound.crl({ badSignature: true })]).slice(0, 2), [imitation.serial, twin.serial]);
  assert.deepEqual(serials([sound.crl(), twin.crl()]), [sound.serial, imitation.serial, twin.serial]);
  const crowd = Buffer.concat([
    ...Array.from({ length: 65 }, () => createTestAuthority().der),
    createTestAuthority({ subject: 'Other' }).der,
  ]);
  const [left, note, ...others] = serials([root.crl()], crowd);
  assert.equal(typeof left, 'string');
  assert.match(note ?? '', /more than 64 signature checks, .*; 65 of its authorities are not trusted$/);
  assert.deepEqual(others, []);
});

test('of a partner’s bundle that is too long nobody is trusted, and it is not read', () => {
  const notesOf = (der: Uint8Array, inDoubt: AuthorityInDoubt): readonly [number, readonly string[]] => {
    const built = buildTrustBundle(domain, der, [], parseCrl, inDoubt);
    assert.ok(built.ok);
    return [built.value.authorities.length, built.value.notes];
  };
  const crowd = Buffer.concat(Array.from({ length: 513 }, () => root.der));
  const long = createTestAuthority({ uriSans: Array.from({ length: 8000 }, () => 'a:b') });

  for (const der of [crowd, Buffer.alloc(3_500_000, Buffer.from([0x30, 0]))]) {
    const [trusted, notes] = notesOf(der, 'leave_out');
    assert.equal(trusted, 0);
    assert.match(
      notes.join(),
      /^bundle of example\.org: its [0-9]+ bytes are more than 524288, or more than 512 authorities; none of them is trusted$/,
    );
  }
  const [trusted, notes] = notesOf(Buffer.concat([long.der, root.der]), 'leave_out');
  assert.equal(trusted, 1);
  assert.match(notes.join(), /^bundle of example\.org, authority 1: [0-9]+ bytes, more than 32768; it is not trusted$/);
  // The bundle of our own SVIDs is the agent’s own.
  for (const der of [Buffer.concat([crowd, long.der]), Buffer.concat([long.der, root.der])])
    assert.deepEqual(notesOf(der, 'refuse'), [2, []]);
});

function keyIdOf(authority: TestAuthority): Buffer {
  const parsed = parseCertificate(authority.der);
  assert.ok(parsed.ok);
  return Buffer.from(parsed.value.subjectKeyId ?? '', 'hex');
}
