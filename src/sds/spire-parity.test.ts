/** What the SPIRE agent's own tests of its SDS server say, case by case: what a bootstrap written for it relies on. */
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { fromBinary } from '@bufbuild/protobuf';
import { createTestAuthority } from '../../test/support/pki/pki.ts';
import { secretsOf } from '../../test/support/sds.ts';
import { PLAIN_OPTIONS, type ReadSecret } from '../../test/support/secrets.ts';
import { heldSnapshot, svidOf } from '../../test/support/pki/snapshots.ts';
import { XdsStory, type NodeInit, type Told } from '../../test/support/xds-story.ts';
import { DiscoveryResponseSchema } from '../gen/discovery_pb.ts';
import type { HeldIdentity } from '../identity/snapshot.ts';
import { fetchSecrets } from './fetch.ts';
import { buildCatalogue, type CatalogueOptions } from './secrets.ts';
import type { ValidationForm } from './validation-form.ts';
import { encodeSotwResponse, SECRET_TYPE } from './wire.ts';

const WORKLOAD = 'spiffe://domain.test/workload';
const own = createTestAuthority({ trustDomain: 'domain.test' });
const other = createTestAuthority({ trustDomain: 'otherdomain.test' });
const snapshot = heldSnapshot([svidOf(own, WORKLOAD)], [other, own]);

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
  /** In A.7. */
  readonly row: number;
  readonly name: string;
  readonly names: readonly string[];
  readonly node: NodeInit;
  readonly options?: Partial<CatalogueOptions>;
  readonly disable?: boolean;
  readonly gives: readonly string[];
  /** With strictUnknownNames, where that is another answer: the SPIRE agent's. */
  readonly strictly?: { readonly status: 'INTERNAL' | 'INVALID_ARGUMENT'; readonly names: string };
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
    row: 1,
    name: 'no names, old',
    names: [],
    node: OLD,
    gives: [OWN_CA, BUNDLES.ca(OTHER_TD, 'otherdomain.test'), `${WORKLOAD}: certificate`],
  },
  {
    row: 2,
    name: 'no names, new',
    names: [],
    node: NEW,
    gives: [OWN_SPIFFE, BUNDLES.spiffe(OTHER_TD, 'otherdomain.test'), `${WORKLOAD}: certificate`],
  },
  { row: 3, name: 'own trust domain, old', names: [TD], node: OLD, gives: [OWN_CA] },
  { row: 3, name: 'own trust domain, new', names: [TD], node: NEW, gives: [OWN_SPIFFE] },
  { row: 4, name: 'own trust domain, an empty node', names: [TD], node: {}, gives: [OWN_SPIFFE] },
  { row: 5, name: 'ROOTCA', names: ['ROOTCA'], node: NEW, gives: [BUNDLES.spiffe('ROOTCA', 'domain.test')] },
  { row: 6, name: 'federated trust domain, old', names: [OTHER_TD], node: OLD, gives: [BUNDLES.ca(OTHER_TD, 'otherdomain.test')] },
  { row: 6, name: 'federated trust domain, new', names: [OTHER_TD], node: NEW, gives: [BUNDLES.spiffe(OTHER_TD, 'otherdomain.test')] },
  { row: 7, name: 'certificate by SPIFFE ID, old', names: [WORKLOAD], node: OLD, gives: [`${WORKLOAD}: certificate`] },
  { row: 7, name: 'certificate by SPIFFE ID, new', names: [WORKLOAD], node: NEW, gives: [`${WORKLOAD}: certificate`] },
  {
    row: 8,
    name: 'ALL, old: not served, where the SPIRE agent ends the stream with Internal',
    names: ['ALL'],
    node: OLD,
    gives: ['no ALL: pooled_bundles'],
    strictly: { status: 'INTERNAL', names: '"ALL"' },
  },
  { row: 9, name: 'ALL, new', names: ['ALL'], node: NEW, gives: [BUNDLES.spiffe('ALL', 'domain.test', 'otherdomain.test')] },
  { row: 10, name: 'default, old', names: ['default'], node: OLD, gives: ['default: certificate'] },
  {
    row: 11,
    name: 'an unknown SPIFFE ID: not served, where the SPIRE agent ends the stream with InvalidArgument',
    names: ['spiffe://domain.test/other'],
    node: NEW,
    gives: ['no spiffe://domain.test/other: not_held'],
    strictly: { status: 'INVALID_ARGUMENT', names: '"spiffe://domain.test/other"' },
  },
  { row: 12, name: 'the configuration disables the validator', names: [TD], node: NEW, disable: true, gives: [OWN_CA] },
  {
    row: 13,
    name: 'the bundle is called ALL, disabled: default',
    names: ['default'],
    node: NEW,
    disable: true,
    options: ALL_NAMED,
    gives: ['default: certificate'],
  },
  {
    row: 14,
    name: 'the bundle is called ALL, disabled: ALL',
    names: ['ALL'],
    node: NEW,
    disable: true,
    options: ALL_NAMED,
    gives: [BUNDLES.ca('ALL', 'domain.test')],
  },
  { row: 15, name: 'metadata true', names: [TD], node: envoy(18, { [KEY]: true }), gives: [OWN_CA] },
  { row: 16, name: 'metadata "true"', names: [TD], node: envoy(18, { [KEY]: 'true' }), gives: [OWN_CA] },
  { row: 17, name: 'metadata false', names: [TD], node: envoy(18, { [KEY]: false }), gives: [OWN_SPIFFE] },
  { row: 18, name: 'metadata that is no truth value', names: [TD], node: envoy(18, { [KEY]: 'perhaps' }), gives: [OWN_SPIFFE] },
  { row: 19, name: 'disabled, and metadata "true"', names: [TD], node: envoy(18, { [KEY]: 'true' }), disable: true, gives: [OWN_CA] },
  { row: 20, name: 'disabled, metadata "false"', names: [TD], node: envoy(18, { [KEY]: 'false' }), disable: true, gives: [OWN_SPIFFE] },
  { row: 21, name: 'disabled, metadata false', names: [TD], node: envoy(18, { [KEY]: false }), disable: true, gives: [OWN_SPIFFE] },
  {
    row: 22,
    name: 'disabled, metadata that is no truth value',
    names: [TD],
    node: envoy(18, { [KEY]: 'perhaps' }),
    disable: true,
    gives: [OWN_CA],
  },
  { row: 23, name: 'disabled, metadata of another kind', names: [TD], node: envoy(18, { [KEY]: 0 }), disable: true, gives: [OWN_CA] },
];

/** What a node makes of the form, over the wire. */
function formOf(node: NodeInit, disable = false): ValidationForm | undefined {
  const story = new XdsStory('sotw', { disable });
  story.ask([TD], { node });
  return story.state.node?.form;
}

function describe(read: ReadSecret): string {
  if (read.certificate !== undefined) return `${read.name}: certificate`;
  if (read.spiffe !== undefined) {
    assert.deepEqual([read.trustedCa, read.crl, read.matchers], [undefined, undefined, undefined]);
    return `${read.name}: spiffe ${Object.keys(read.spiffe).join(' ')}`;
  }
  assert.equal(read.trustedCa, read.trustedCa === own.pem ? own.pem : other.pem);
  return `${read.name}: ca ${read.trustedCa === own.pem ? 'domain.test' : 'otherdomain.test'}`;
}

function outcome({ secrets, effects }: Told): string[] {
  const missing = effects.flatMap((effect) => (effect.kind === 'missing' ? effect.names : []));
  return [...secrets.map(describe), ...missing.map(({ name, reason }) => `no ${name}: ${reason}`)];
}

function storyOf({ options, disable }: Pick<Case, 'options' | 'disable'>, strict = false): XdsStory {
  const story = new XdsStory('sotw', { strict, disable: disable ?? false, catalogue: options ?? {} });
  story.publish(snapshot);
  return story;
}

suite('A.7 StreamSecrets', () => {
  for (const { row, name, strictly, gives, ...given } of CASES) {
    test(`A.7.${row}: ${name}`, () => {
      assert.deepEqual(outcome(storyOf(given).ask(given.names, { node: given.node })), gives);
    });

    if (strictly === undefined) continue;
    test(`A.7.${row}, strictUnknownNames: as from the SPIRE agent, ${strictly.status} for ${strictly.names}`, () => {
      const { effects } = storyOf(given, true).ask(given.names, { node: given.node });

      const detail = `not served: ${strictly.names}`;
      assert.deepEqual(effects, [{ kind: 'end', reason: 'unknown_names', detail, isPooled: strictly.status === 'INTERNAL' }]);
    });
  }

  test('A.7, strictUnknownNames: all other rows are the same', () => {
    for (const { row, strictly, names, node, gives, ...given } of CASES)
      if (strictly === undefined) assert.deepEqual(outcome(storyOf(given, true).ask(names, { node })), gives, `A.7.${row}`);
  });
});

suite('A.7 FetchSecrets', () => {
  for (const { row, name, names, node, options, disable = false, gives } of CASES) {
    test(`A.7 FetchSecrets ${row}: ${name}`, () => {
      const form = formOf(node, disable) ?? 'spiffe';
      const catalogue = buildCatalogue(snapshot, { ...PLAIN_OPTIONS, ...options }, Date.now());

      const { secrets, missing } = fetchSecrets(catalogue, names, form);
      const answer = fromBinary(DiscoveryResponseSchema, encodeSotwResponse({ version: '', nonce: '', secrets, removed: [] }, SECRET_TYPE));

      assert.deepEqual([...secretsOf(answer).map(describe), ...missing.map(({ name, reason }) => `no ${name}: ${reason}`)], gives);
      assert.deepEqual([answer.versionInfo, answer.nonce, answer.typeUrl], ['', '', SECRET_TYPE]);
    });
  }
});

suite('A.7, streams', () => {
  const rotated = (): HeldIdentity => heldSnapshot([svidOf(own, WORKLOAD)], [other, own]);
  const chainOf = ({ secrets }: Told): string | undefined => secrets[0]?.certificate?.chain;

  test('A.7 Streaming: a subscription, a response, an ACK, and the new certificate of an update', () => {
    const story = storyOf({});

    const first = story.ask(['default'], { node: NEW });
    assert.equal(story.accept({ node: NEW }).text, 'nothing');
    const second = story.publish(rotated());

    assert.deepEqual([first, second].map(outcome), [['default: certificate'], ['default: certificate']]);
    assert.notEqual(chainOf(first), chainOf(second));
    for (const { version, nonce } of [first, second]) assert.ok(version !== '' && nonce !== '');
    assert.ok(first.version !== second.version && first.nonce !== second.nonce);
  });

  test('A.7 StreamingKeepNodeInformation: an ACK without node, and the next update still goes by the node', () => {
    const story = storyOf({});

    assert.deepEqual(outcome(story.ask(['ROOTCA'], { node: OLD })), [BUNDLES.ca('ROOTCA', 'domain.test')]);
    story.accept();
    const next = createTestAuthority({ trustDomain: 'domain.test' });
    const [bundle] = story.publish(heldSnapshot([svidOf(next, WORKLOAD)], [next])).secrets;

    assert.deepEqual([bundle?.trustedCa, bundle?.spiffe], [next.pem, undefined]);
  });

  test('A.7 ApplicationDoesNotSpin: a NACK with an odd version is not answered, and the next update is delivered', () => {
    const story = storyOf({});
    const first = story.ask(['default'], { node: NEW });

    for (let count = 0; count < 3; count += 1) assert.equal(story.reject('no good', { node: NEW, version: 'odd' }).text, 'nothing');
    const second = story.publish(rotated());

    assert.deepEqual(outcome(second), ['default: certificate']);
    assert.notEqual(chainOf(first), chainOf(second));
  });

  test('A.7 RequestReceivedBeforeWorkloadUpdate: the response comes with the update', () => {
    const story = new XdsStory('sotw');

    assert.equal(story.ask(['default'], { node: NEW }).text, 'nothing');

    assert.deepEqual(outcome(story.publish(snapshot)), ['default: certificate']);
  });

  test('A.7 SubChanged: an ACK, then another list under the same nonce, and what is new in it is sent', () => {
    const story = storyOf({});
    const { nonce } = story.ask(['default'], { node: NEW });
    assert.equal(story.accept({ nonce }).text, 'nothing');

    assert.deepEqual(outcome(story.ask(['ROOTCA'], { nonce })), [BUNDLES.spiffe('ROOTCA', 'domain.test')]);
  });

  test('A.7 BadNonce: a request about another response is ignored with its names, and an update delivers the right content', () => {
    const story = storyOf({});
    story.ask(['default'], { node: NEW });

    assert.equal(story.ask(['ROOTCA'], { nonce: 'wrong' }).text, 'nothing');

    assert.deepEqual(outcome(story.publish(rotated())), ['default: certificate']);
  });

  test('A.7 BadNonce, differs: an empty nonce is a change of the subscription, which the SPIRE agent drops', () => {
    const story = storyOf({});
    story.ask(['default'], { node: NEW });

    assert.deepEqual(outcome(story.ask(['ROOTCA'], { nonce: '' })), [BUNDLES.spiffe('ROOTCA', 'domain.test')]);
  });

  test('A.7 Streaming, differs: an update with the same content is not sent again, which the SPIRE agent does', () => {
    const story = storyOf({});
    story.ask(['default', 'ALL'], { node: NEW });

    assert.equal(story.publish({ ...snapshot, generation: 2 }).text, 'nothing');
  });
});

test('A.7.18, A.7.22: every word that the agent reads as true or false counts, and no other', () => {
  const forms = (words: readonly string[], disable: boolean) => new Set(words.map((word) => formOf(envoy(18, { [KEY]: word }), disable)));

  assert.deepEqual(forms(['1', 't', 'T', 'TRUE', 'true', 'True'], false), new Set(['root_ca']));
  assert.deepEqual(forms(['0', 'f', 'F', 'FALSE', 'false', 'False'], true), new Set(['spiffe']));
  assert.deepEqual(forms(['', 'yes', 'no', 'tRUE', ' true', '00', '2'], false), new Set(['spiffe']));
  assert.deepEqual(forms(['', 'yes', 'no', 'fALSE', ' false', '00', '2'], true), new Set(['root_ca']));
});

test('A.7.23, F.5.11: metadata of every other kind is no answer', () => {
  for (const value of [null, 0, 1, {}, { value: true }, [], [true], ['true']]) {
    for (const [disable, form] of [
      [true, 'root_ca'],
      [false, 'spiffe'],
    ] as const)
      assert.equal(formOf({ metadata: { [KEY]: value } }, disable), form, JSON.stringify(value));
  }
  assert.equal(formOf({ metadata: { other: true } }), 'spiffe');
});

test('the version of Envoy: 1.17 and before do not know the validator, all later ones do', () => {
  const formBy = (majorNumber: number, minorNumber: number) =>
    formOf({ userAgentVersionType: { case: 'userAgentBuildVersion', value: { version: { majorNumber, minorNumber } } } });

  assert.deepEqual(
    [formBy(0, 99), formBy(1, 17), formBy(1, 18), formBy(1, 40), formBy(2, 0)],
    ['root_ca', 'root_ca', 'spiffe', 'spiffe', 'spiffe'],
  );
  assert.equal(formOf({ userAgentVersionType: { case: 'userAgentVersion', value: '1.2' } }), 'spiffe');
  assert.equal(formOf({ userAgentVersionType: { case: 'userAgentBuildVersion', value: {} } }), 'spiffe');
});

test('A.7.11, strictUnknownNames: the text lists the names in order, quoted', () => {
  const [end, ...others] = storyOf({}, true).ask(['z', 'default', 'a"b'], { node: NEW }).effects;

  assert.deepEqual(others, []);
  assert.ok(end?.kind === 'end');
  assert.match(end.detail, /^not served: "a\\"b", "z"$/);
});
