/** What the SPIRE agent's own tests of its SDS server say, case by case: what a bootstrap written for it relies on. */
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { create, toBinary, type MessageInitShape } from '@bufbuild/protobuf';
import { createTestAuthority } from '../../test/support/pki.ts';
import { PLAIN_OPTIONS, readSecret, type ReadSecret } from '../../test/support/secrets.ts';
import { heldSnapshot, svidOf } from '../../test/support/snapshots.ts';
import { DiscoveryRequestSchema } from '../gen/discovery_pb.ts';
import { fetchSecrets } from './fetch.ts';
import { buildCatalogue, type CatalogueOptions, type Secret } from './secrets.ts';
import { NEW_STREAM, stepSotw, type StreamEffect, type StreamOptions } from './stream-state.ts';
import { decodeSotwRequest, SECRET_TYPE } from './wire.ts';

const WORKLOAD = 'spiffe://domain.test/workload';
const own = createTestAuthority({ trustDomain: 'domain.test' });
const other = createTestAuthority({ trustDomain: 'otherdomain.test' });
const snapshot = heldSnapshot([svidOf(own, WORKLOAD)], [other, own]);

type NodeInit = MessageInitShape<typeof DiscoveryRequestSchema>['node'];

function envoy(minorNumber: number, metadata?: Record<string, boolean | string | number>): NodeInit {
  return {
    id: 'envoy',
    userAgentName: 'envoy',
    userAgentVersionType: { case: 'userAgentBuildVersion', value: { version: { majorNumber: 1, minorNumber } } },
    ...(metadata !== undefined && { metadata }),
  };
}

const OLD = envoy(17);
const NEW = envoy(18);

/** What comes of a request: `name: what it is` for each secret in order, or why there is none. */
interface Case {
  readonly name: string;
  readonly names: readonly string[];
  readonly node: NodeInit;
  readonly options?: Partial<CatalogueOptions>;
  readonly disable?: boolean;
  readonly gives: readonly string[];
}

const BUNDLES = {
  spiffe: (name: string, ...domains: string[]) => `${name}: spiffe ${domains.join(' ')}`,
  ca: (name: string, domain: string) => `${name}: ca ${domain}`,
};
const [TD, OTHER_TD] = ['spiffe://domain.test', 'spiffe://otherdomain.test'];
const OWN_SPIFFE = BUNDLES.spiffe(TD, 'domain.test');
const OWN_CA = BUNDLES.ca(TD, 'domain.test');
const KEY = 'disable_spiffe_cert_validation';
const ALL_NAMED: Partial<CatalogueOptions> = { defaultBundleName: 'ALL' };

const CASES: readonly Case[] = [
  {
    name: 'A.7.1: no names, old',
    names: [],
    node: OLD,
    gives: [OWN_CA, BUNDLES.ca(OTHER_TD, 'otherdomain.test'), `${WORKLOAD}: certificate`],
  },
  {
    name: 'A.7.2: no names, new',
    names: [],
    node: NEW,
    gives: [OWN_SPIFFE, BUNDLES.spiffe(OTHER_TD, 'otherdomain.test'), `${WORKLOAD}: certificate`],
  },
  { name: 'A.7.3: own trust domain, old', names: [TD], node: OLD, gives: [OWN_CA] },
  { name: 'A.7.3: own trust domain, new', names: [TD], node: NEW, gives: [OWN_SPIFFE] },
  { name: 'A.7.4: own trust domain, an empty node', names: [TD], node: {}, gives: [OWN_SPIFFE] },
  { name: 'A.7.5: ROOTCA', names: ['ROOTCA'], node: NEW, gives: [BUNDLES.spiffe('ROOTCA', 'domain.test')] },
  { name: 'A.7.6: federated trust domain, old', names: [OTHER_TD], node: OLD, gives: [BUNDLES.ca(OTHER_TD, 'otherdomain.test')] },
  { name: 'A.7.6: federated trust domain, new', names: [OTHER_TD], node: NEW, gives: [BUNDLES.spiffe(OTHER_TD, 'otherdomain.test')] },
  { name: 'A.7.7: certificate by SPIFFE ID, old', names: [WORKLOAD], node: OLD, gives: [`${WORKLOAD}: certificate`] },
  { name: 'A.7.7: certificate by SPIFFE ID, new', names: [WORKLOAD], node: NEW, gives: [`${WORKLOAD}: certificate`] },
  // Internal there; here a name that is not served: the stream goes on, and the log says why.
  { name: 'A.7.8: ALL, old: refused', names: ['ALL'], node: OLD, gives: ['no ALL: pooled_bundles'] },
  { name: 'A.7.9: ALL, new', names: ['ALL'], node: NEW, gives: [BUNDLES.spiffe('ALL', 'domain.test', 'otherdomain.test')] },
  { name: 'A.7.10: default, old', names: ['default'], node: OLD, gives: ['default: certificate'] },
  // InvalidArgument there, which closes the stream; strictUnknownNames does that.
  {
    name: 'A.7.11: an unknown SPIFFE ID',
    names: ['spiffe://domain.test/other'],
    node: NEW,
    gives: ['no spiffe://domain.test/other: not_held'],
  },
  { name: 'A.7.12: the configuration disables the validator', names: [TD], node: NEW, disable: true, gives: [OWN_CA] },
  {
    name: 'A.7.13: the bundle is called ALL, disabled: default',
    names: ['default'],
    node: NEW,
    disable: true,
    options: ALL_NAMED,
    gives: ['default: certificate'],
  },
  {
    name: 'A.7.14: the bundle is called ALL, disabled: ALL',
    names: ['ALL'],
    node: NEW,
    disable: true,
    options: ALL_NAMED,
    gives: [BUNDLES.ca('ALL', 'domain.test')],
  },
  { name: 'A.7.15: metadata true', names: [TD], node: envoy(18, { [KEY]: true }), gives: [OWN_CA] },
  { name: 'A.7.16: metadata "true"', names: [TD], node: envoy(18, { [KEY]: 'true' }), gives: [OWN_CA] },
  { name: 'A.7.17: metadata false', names: [TD], node: envoy(18, { [KEY]: false }), gives: [OWN_SPIFFE] },
  { name: 'A.7.18: metadata that is no truth value', names: [TD], node: envoy(18, { [KEY]: 'perhaps' }), gives: [OWN_SPIFFE] },
  { name: 'A.7.19: disabled, and metadata "true"', names: [TD], node: envoy(18, { [KEY]: 'true' }), disable: true, gives: [OWN_CA] },
  { name: 'A.7.20: disabled, metadata "false"', names: [TD], node: envoy(18, { [KEY]: 'false' }), disable: true, gives: [OWN_SPIFFE] },
  { name: 'A.7.21: disabled, metadata false', names: [TD], node: envoy(18, { [KEY]: false }), disable: true, gives: [OWN_SPIFFE] },
  {
    name: 'A.7.22: disabled, metadata that is no truth value',
    names: [TD],
    node: envoy(18, { [KEY]: 'perhaps' }),
    disable: true,
    gives: [OWN_CA],
  },
  { name: 'A.7.23: disabled, metadata of another kind', names: [TD], node: envoy(18, { [KEY]: 0 }), disable: true, gives: [OWN_CA] },
];

function request(names: readonly string[], node: NodeInit, responseNonce = '', disable = false) {
  const message = create(DiscoveryRequestSchema, {
    resourceNames: [...names],
    ...(node !== undefined && { node }),
    typeUrl: SECRET_TYPE,
    responseNonce,
  });
  const decoded = decodeSotwRequest(toBinary(DiscoveryRequestSchema, message), { disableSpiffeCertValidation: disable });
  if (!decoded.ok) throw new Error(decoded.error);
  return decoded.value.request;
}

function streamOptions(disable = false, strictUnknownNames = false): StreamOptions {
  return { noncePrefix: 'n', defaultForm: disable ? 'root_ca' : 'spiffe', strictUnknownNames, maxNames: 10 };
}

function catalogue(options: Partial<CatalogueOptions> = {}) {
  return buildCatalogue(snapshot, { ...PLAIN_OPTIONS, ...options }, Date.now());
}

function describe(secret: Secret): string {
  const read: ReadSecret = readSecret(secret.encode());
  if (read.certificate !== undefined) return `${read.name}: certificate`;
  if (read.spiffe !== undefined) {
    assert.deepEqual([read.trustedCa, read.crl, read.matchers], [undefined, undefined, undefined]);
    return `${read.name}: spiffe ${Object.keys(read.spiffe).join(' ')}`;
  }
  assert.equal(read.trustedCa, read.trustedCa === own.pem ? own.pem : other.pem);
  return `${read.name}: ca ${read.trustedCa === own.pem ? 'domain.test' : 'otherdomain.test'}`;
}

function outcome(effects: readonly StreamEffect[]): string[] {
  return effects.flatMap((effect) => {
    if (effect.kind === 'respond') return effect.response.secrets.map(describe);
    if (effect.kind === 'missing') return effect.names.map(({ name, reason }) => `no ${name}: ${reason}`);
    return [effect.kind];
  });
}

suite('StreamSecrets', () => {
  for (const { name, names, node, options, disable, gives } of CASES) {
    test(name, () => {
      const event = { kind: 'request', request: request(names, node, '', disable) } as const;

      const { effects } = stepSotw(NEW_STREAM, event, catalogue(options), streamOptions(disable));

      assert.deepEqual(outcome(effects), gives);
    });
  }
});

suite('FetchSecrets', () => {
  for (const { name, names, node, options, disable, gives } of CASES) {
    test(name, () => {
      const form = request(names, node, '', disable).node?.form ?? 'spiffe';

      const { secrets, missing } = fetchSecrets(catalogue(options), names, form);

      assert.deepEqual([...secrets.map(describe), ...missing.map(({ name, reason }) => `no ${name}: ${reason}`)], gives);
    });
  }
});

test('every word that the agent reads as true or false counts, and no other', () => {
  const forms = (words: readonly string[], disable: boolean) =>
    new Set(words.map((word) => request([TD], envoy(18, { [KEY]: word }), '', disable).node?.form));

  assert.deepEqual(forms(['1', 't', 'T', 'TRUE', 'true', 'True'], false), new Set(['root_ca']));
  assert.deepEqual(forms(['0', 'f', 'F', 'FALSE', 'false', 'False'], true), new Set(['spiffe']));
  assert.deepEqual(forms(['', 'yes', 'no', 'tRUE', ' true', '00', '2'], false), new Set(['spiffe']));
  assert.deepEqual(forms(['', 'yes', 'no', 'fALSE', ' false', '00', '2'], true), new Set(['root_ca']));
});

test('F.5.11: metadata of every other kind is no answer', () => {
  for (const value of [null, 0, 1, {}, { value: true }, [], [true]]) {
    for (const [disable, form] of [
      [true, 'root_ca'],
      [false, 'spiffe'],
    ] as const)
      assert.equal(request([TD], { metadata: { [KEY]: value } }, '', disable).node?.form, form, JSON.stringify(value));
  }
});

test('the version of Envoy: 1.17 and before do not know the validator, all later ones do', () => {
  const formOf = (majorNumber: number, minorNumber: number) =>
    request([TD], { userAgentVersionType: { case: 'userAgentBuildVersion', value: { version: { majorNumber, minorNumber } } } }).node?.form;

  assert.deepEqual(
    [formOf(0, 99), formOf(1, 17), formOf(1, 18), formOf(1, 40), formOf(2, 0)],
    ['root_ca', 'root_ca', 'spiffe', 'spiffe', 'spiffe'],
  );
  assert.equal(request([TD], { userAgentVersionType: { case: 'userAgentVersion', value: '1.2' } }).node?.form, 'spiffe');
});

test('A.7 KeepNodeInformation: an ACK without node, and the next update still goes by the node', () => {
  const options = streamOptions();
  const first = stepSotw(NEW_STREAM, { kind: 'request', request: request(['ROOTCA'], OLD) }, catalogue(), options);
  const nonce = first.state.nonce;
  const written = stepSotw(first.state, { kind: 'written' }, catalogue(), options);
  const acknowledged = stepSotw(
    written.state,
    { kind: 'request', request: request(['ROOTCA', TD], undefined, nonce) },
    catalogue(),
    options,
  );

  assert.deepEqual(outcome(acknowledged.effects), ['accepted', OWN_CA]);
});

test('A.7 ErrInSubscribe, strict: an unknown name ends the stream, and its text lists the names in order', () => {
  const event = { kind: 'request', request: request(['z', 'default', 'a"b'], NEW) } as const;

  const [end, ...others] = stepSotw(NEW_STREAM, event, catalogue(), streamOptions(false, true)).effects;

  assert.deepEqual(others, []);
  assert.ok(end?.kind === 'end');
  assert.match(end.detail, /"a\\"b", "z"$/);
});
