/** Certificates, keys and lists that Scute takes though they are unusual: Envoy must take whatever it is sent of them, and let good peers in. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { IdentitySnapshot } from '../../../src/identity/snapshot.ts';
import { buildTrustBundle } from '../../../src/spiffe/trust-bundle.ts';
import { buildX509Svid } from '../../../src/spiffe/x509-svid.ts';
import { bundleOf } from '../../support/pki/bundles.ts';
import { element, explicit, implicit, integer, oid, sequence, set } from '../../support/pki/der-writer.ts';
import { eventually } from '../../support/eventually.ts';
import {
  COMMON_NAME,
  createTestAuthority,
  directoryName,
  emailName,
  ipName,
  uriName,
  type AuthorityOptions,
  type CertificateOptions,
  type CrlOptions,
  type Extension,
  type TestAuthority,
} from '../../support/pki/pki.ts';
import { startSds } from '../../support/sds.ts';
import { heldSnapshot } from '../../support/pki/snapshots.ts';
import { NO_MATCHERS, startInboundEnvoy, visit } from './stage.ts';
import { needs } from '../parts.ts';

const API = 'spiffe://example.org/api';
const domain = bundleOf('example.org', []).trustDomain;
const HALF = Buffer.from([0x30, 3, 2, 1]);
const extension = (type: string, value: Uint8Array, critical = false): Extension => ({ oid: type, critical, value });
const bmpName = sequence(set(sequence(oid(COMMON_NAME), element(0x1e, Buffer.from('Wurzel ä', 'utf16le').swap16()))));
const ofAnotherCertificate = extension('2.5.29.35', sequence(explicit(1, directoryName(sequence())), implicit(2, Buffer.from([5]))));

interface Odd {
  readonly what: string;
  readonly authority?: AuthorityOptions;
  readonly leaf?: CertificateOptions;
  /** Beside the authority. */
  readonly more?: readonly (AuthorityOptions & { readonly times?: number })[];
  readonly crls?: readonly CrlOptions[];
}

const MATERIAL: readonly Odd[] = [
  ...(['p384', 'p521', 'rsa4096', 'ed25519'] as const).flatMap((key): Odd[] => [
    { what: `a leaf key ${key}`, leaf: { key } },
    { what: `an authority key ${key}`, authority: { key } },
  ]),
  { what: 'an authority key RSA-1024 beside', more: [{ key: 'rsa1024' }] },
  { what: 'an authority on secp256k1 beside', more: [{ key: 'secp256k1' }] },
  { what: 'an authority signed with SHA-1', authority: { key: 'rsa2048', signature: 'rsa-sha1' } },
  { what: 'RSASSA-PSS', authority: { key: 'rsa2048', signature: 'rsa-pss-sha256' }, leaf: { signature: 'rsa-pss-sha256' } },
  { what: 'an authority three times', more: [{ subject: 'again', times: 3 }] },
  { what: 'an expired authority beside', more: [{ notBefore: 0, notAfter: 1e12 }] },
  { what: 'an authority of the future beside', more: [{ notBefore: Date.now() + 1e9, notAfter: Date.now() + 2e9 }] },
  {
    what: 'what is no authority beside',
    more: [
      { isCa: false, keyUsage: ['digitalSignature'] },
      { isCa: null, subject: 'v3' },
    ],
  },
  { what: 'an authority of another trust domain beside', more: [{ trustDomain: 'evil.example' }] },
  { what: 'another key of the same name', authority: { subject: 'one' }, more: [{ subject: 'one' }] },
  { what: 'a BMPString as the name', authority: { subject: bmpName }, leaf: { subject: bmpName } },
  { what: 'no name', authority: { subject: '' }, leaf: { subject: '', sanCritical: true } },
  { what: 'serial number 0', authority: { serial: '00' }, leaf: { serial: '00' } },
  { what: 'a long serial number', authority: { serial: `7f${'ff'.repeat(40)}` }, leaf: { serial: `7f${'fe'.repeat(40)}` } },
  { what: 'no key identifiers', authority: { subjectKeyId: null }, leaf: { subjectKeyId: null, authorityKeyId: null } },
  { what: 'no end', authority: { notAfter: 253_402_300_799_000 }, leaf: { notAfter: 253_402_300_799_000 } },
  { what: 'name constraints', authority: { nameConstraints: { permitted: [uriName('example.org')] } } },
  { what: 'names of other kinds', leaf: { dnsSans: ['a.example'], otherSans: [ipName([127, 0, 0, 1]), emailName('a@b.example')] } },
  { what: 'malformed extensions that mean nothing', leaf: { extensions: [extension('2.5.29.18', HALF), extension('1.2.3', HALF)] } },
  { what: 'an authority of 100 KB', authority: { extensions: [extension('1.2.3', Buffer.alloc(100_000))] } },
  { what: '100 KB of authorities', more: Array.from({ length: 200 }, (_, index) => ({ subject: `Root ${index}` })) },
  { what: 'two lists', crls: [{}, { revoked: ['05'] }] },
  { what: 'a list without end', crls: [{ nextUpdate: null, authorityKeyId: null }] },
  { what: 'a list with a malformed distribution point', crls: [{ extensions: [extension('2.5.29.28', HALF)] }] },
  {
    what: 'a list of user certificates alone',
    crls: [{ extensions: [extension('2.5.29.28', sequence(implicit(1, Buffer.from([0xff]))))] }],
  },
  {
    what: 'a list with a critical extension of an entry',
    crls: [{ revoked: [{ serial: '05', extensions: [extension('1.2.3', element(0x05), true)] }] }],
  },
  { what: 'a part of a list', crls: [{ extensions: [extension('2.5.29.27', integer(1), true)] }] },
  { what: 'a list of version 1 with extensions', crls: [{ version: null }] },
  { what: 'a list that names another key', crls: [{ authorityKeyId: Buffer.from('another') }] },
  { what: 'a list that names another certificate', crls: [{ authorityKeyId: null, extensions: [ofAnotherCertificate] }] },
  { what: 'a list of whom may not sign lists', authority: { keyUsage: ['keyCertSign'] }, crls: [{}] },
  { what: 'a list, and an authority beside that has none', more: [{ subject: 'listless' }], crls: [{}] },
  { what: 'a list, and a weak authority beside that has none', more: [{ subject: 'weak', key: 'rsa1024' }], crls: [{}] },
];

/** What is taken of it, by the code that takes what the Workload API sends. */
function build({ authority: options = {}, leaf: leafOptions, more = [], crls = [] }: Odd) {
  const authority: TestAuthority = createTestAuthority(options);
  const leaf = authority.issue({ ...leafOptions, id: API });
  const others = more.flatMap(({ times = 1, ...other }) => Array.from({ length: times }, () => createTestAuthority(other).der));
  const bundle = buildTrustBundle(
    domain,
    Buffer.concat([authority.der, ...others]),
    crls.map((each) => authority.crl(each)),
  );
  assert.ok(bundle.ok, bundle.ok ? '' : bundle.error.message);
  const svid = buildX509Svid({ spiffeId: API, chainDer: leaf.chainDer, keyDer: leaf.keyDer, hint: '' }, bundle.value, Date.now());
  assert.ok(svid.ok, svid.ok ? '' : svid.error.message);
  const snapshot: IdentitySnapshot = { ...heldSnapshot([svid.value]), bundles: new Map([[domain, bundle.value]]) };
  return { snapshot, serial: leaf.serial, peer: authority.issue({ id: 'spiffe://example.org/web' }) };
}

const plain = (serial = ''): string => serial.toLowerCase().replace(/^0+(?=.)/, '');

for (const disableSpiffeCertValidation of [false, true]) {
  const form = disableSpiffeCertValidation ? 'plain authorities' : 'the SPIFFE validator';

  test(`R23: of the unusual that Scute takes, Envoy rejects nothing and refuses no good peer, with ${form}`, needs('envoy'), async (t) => {
    const sds = await startSds(t, { sds: { crls: true, disableSpiffeCertValidation } });
    sds.publish(build({ what: 'the usual' }).snapshot);
    const { envoy, port } = await startInboundEnvoy(t, { socket: sds.path }, 'inbound.yaml', { replace: NO_MATCHERS });

    for (const odd of MATERIAL) {
      const { snapshot, serial, peer } = build(odd);
      sds.publish(snapshot);
      await eventually(async () => {
        const { reply, certificate } = await visit(port, peer);
        assert.deepEqual([reply, plain(certificate?.serialNumber)], ['HELLO', plain(serial)], odd.what);
      });
      assert.equal(await envoy.stat(/update_rejected/), 0, odd.what);
    }

    const stapled = build({ what: 'must-staple', leaf: { extensions: [extension('1.3.6.1.5.5.7.1.24', sequence(integer(5)))] } });
    sds.publish(stapled.snapshot);
    await eventually(() => assert.match(JSON.stringify(sds.log()), /must be shown with an OCSP response/));
    await eventually(async () => assert.equal((await visit(port, stapled.peer)).reply, 'HELLO'));
    assert.equal(await envoy.stat(/update_rejected/), 0);
  });
}
