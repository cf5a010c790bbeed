/** One story at a time, told to a client of each protocol: from real snapshots to the messages on the wire. */
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { createTestAuthority, type TestAuthority } from '../../test/support/pki/pki.ts';
import { bundleOf, heldSnapshot, svidOf } from '../../test/support/pki/snapshots.ts';
import { PROTOCOLS, XdsStory, type Told } from '../../test/support/xds-story.ts';
import type { HeldIdentity, IdentitySnapshot } from '../identity/snapshot.ts';

const [WEB, API, LATER] = ['spiffe://example.org/web', 'spiffe://example.org/api', 'spiffe://example.org/later'];
const [OWN, PARTNER] = ['spiffe://example.org', 'spiffe://partner.example'];
const own = createTestAuthority({ trustDomain: 'example.org' });
const partner = createTestAuthority({ trustDomain: 'partner.example' });

/** Each time with new certificates. */
const held = (...ids: readonly string[]): HeldIdentity => {
  const [first = WEB, ...others] = ids;
  return heldSnapshot([svidOf(own, first), ...others.map((id) => svidOf(own, id, { hint: id.slice(OWN.length + 1) }))], [own, partner]);
};
const first = held(WEB, API);
const emptied = (authority: TestAuthority) => ({ ...bundleOf(authority), authorities: [] });
const withBundles = (...bundles: readonly ReturnType<typeof bundleOf>[]): IdentitySnapshot => ({
  ...first,
  bundles: new Map(bundles.map((bundle) => [bundle.trustDomain, bundle])),
});
/** As after PermissionDenied. */
const NONE: IdentitySnapshot = { kind: 'none', reason: 'no identity issued', generation: 1, receivedAtMs: 0, bundles: new Map() };

/** What happens, and what is sent: to both, or to the client of the state of the world and to that of delta. */
type Act = readonly [happens: (client: XdsStory) => Told, sotw: string, delta?: string];

const STORIES: Readonly<Record<string, readonly Act[]>> = {
  'F.5.2: two aliases of one object in one request': [
    [(client) => client.ask(['ROOTCA', OWN, 'default', 'hint:api', API]), `ROOTCA ${OWN} default hint:api ${API}`],
  ],
  'F.5.2: an alias and the SPIFFE ID of one identity, together and one after the other': [
    [(client) => client.ask(['default', WEB]), `default ${WEB}`],
    [(client) => client.publish(held(WEB)), `default ${WEB}`],
    [(client) => client.ask([WEB]), 'nothing'],
    [(client) => client.ask([WEB, 'default']), 'default'],
  ],
  'F.5.3: an unknown name and a known one in one request, and it appears later': [
    [(client) => client.ask(['file-root:/x', LATER, 'default']), 'default', `default -file-root:/x -${LATER}`],
    [(client) => client.accept(), 'nothing'],
    [(client) => client.publish(held(WEB, LATER)), `${LATER} default`],
  ],
  'F.5.4: a first request with a version and a nonce of before, though the content is the same': [
    [(client) => client.ask(['default'], { nonce: 'n-7', version: versionOfFirst(), held: { default: versionOfFirst() } }), 'default'],
  ],
  'F.5.4: a first request with an error, of another stream': [
    [(client) => client.ask(['default'], { nonce: 'n-7', error: 'of another stream' }), 'default'],
  ],
  'F.5.5: [a,b] to [a], to [b,c], to [a,a], to []': [
    [(client) => client.ask([WEB, API]), `${WEB} ${API}`],
    [(client) => client.ask([WEB]), 'nothing'],
    [(client) => client.ask([API, 'ROOTCA']), `ROOTCA ${API}`],
    [(client) => client.ask([WEB, WEB]), WEB],
    [(client) => client.ask([]), 'nothing'],
    [(client) => client.publish(held(WEB, API)), 'nothing'],
  ],
  'F.5.5: a name that is removed and added again is sent again': [
    [(client) => client.ask([WEB, API]), `${WEB} ${API}`],
    [(client) => client.ask([WEB]), 'nothing'],
    [(client) => client.ask([WEB, API]), API],
    [(client) => client.ask([]), 'nothing'],
    [(client) => client.ask([WEB]), WEB],
  ],
  'F.5.6: two NACKs in a row without a change of the list, then new content': [
    [(client) => client.ask(['default', 'ROOTCA']), 'ROOTCA default'],
    [(client) => client.reject('no good'), 'nothing'],
    [(client) => client.reject('no good'), 'nothing'],
    [(client) => client.publish(first), 'nothing'],
    [(client) => client.publish(held(WEB)), 'default'],
  ],
  'F.5.6: a NACK with a change of the list': [
    [(client) => client.ask(['default']), 'default'],
    [(client) => client.ask(['default', 'ROOTCA'], { error: 'no good' }), 'ROOTCA'],
    [(client) => client.ask(['ROOTCA'], { error: 'no good' }), 'nothing'],
    [(client) => client.publish(held(WEB)), 'nothing'],
  ],
  'F.5.8: an identical snapshot is no push': [
    [(client) => client.ask(['default', 'ALL']), 'ALL default'],
    [(client) => client.publish({ ...first, generation: 2, receivedAtMs: 1 }), 'nothing'],
    [(client) => client.publish(withBundles(bundleOf(partner), bundleOf(own))), 'nothing'],
  ],
  'F.5.9: our own bundle is emptied, and comes back': [
    [(client) => client.ask(['ROOTCA', 'ALL', 'default']), 'ROOTCA ALL default'],
    [(client) => client.publish(withBundles(emptied(own), bundleOf(partner))), 'ALL', 'ALL -ROOTCA'],
    [(client) => client.publish(withBundles(emptied(own), emptied(partner))), 'nothing', '-ALL'],
    [(client) => client.publish(first), 'ALL', 'ROOTCA ALL'],
  ],
  'F.5.9: a federated bundle is emptied': [
    [(client) => client.ask([PARTNER, 'ROOTCA', 'ALL']), `${PARTNER} ROOTCA ALL`],
    [(client) => client.publish(withBundles(bundleOf(own), emptied(partner))), 'ALL', `ALL -${PARTNER}`],
  ],
  'F.5.9: a federated trust domain is removed': [
    [(client) => client.ask([PARTNER, 'ROOTCA', 'ALL']), `${PARTNER} ROOTCA ALL`],
    [(client) => client.publish(withBundles(bundleOf(own))), 'ALL', `ALL -${PARTNER}`],
  ],
  'F.5.10: one identity of two is removed, and returns': [
    [(client) => client.ask([WEB, API]), `${WEB} ${API}`],
    [(client) => client.publish(held(WEB)), WEB, `${WEB} -${API}`],
    [(client) => client.publish(held(WEB, API)), `${WEB} ${API}`],
  ],
  'F.5.10: PermissionDenied of the Workload API, then recovery': [
    [(client) => client.ask(['default', 'ROOTCA', WEB]), `ROOTCA default ${WEB}`],
    [(client) => client.publish(NONE), 'nothing', `-default -ROOTCA -${WEB}`],
    [(client) => client.publish(NONE), 'nothing'],
    [(client) => client.publish(held(WEB)), `default ${WEB}`, `ROOTCA default ${WEB}`],
  ],
  'F.5.10: PermissionDenied from the start: nothing is there yet, and then it is': [
    [(client) => client.publish(NONE), 'nothing'],
    [(client) => client.ask(['default']), 'nothing', '-default'],
    [(client) => client.publish(first), 'default'],
  ],
  'F.5.13: SPIFFE IDs and hints that are there twice: everything has each name once, and the first counts': [
    [(client) => client.publish(heldSnapshot([...first.svids, svidOf(own, WEB), svidOf(own, LATER, { hint: 'api' })], [own])), 'nothing'],
    [(client) => client.ask([]), `${OWN} ${WEB} ${API} ${LATER}`],
  ],
};

/** What a client holds that was connected before. */
function versionOfFirst(): string {
  const before = new XdsStory('sotw');
  before.publish(first);
  return before.ask(['default']).version;
}

for (const protocol of PROTOCOLS) {
  suite(protocol, () => {
    for (const [name, acts] of Object.entries(STORIES)) {
      test(`${protocol}, ${name}`, () => {
        const client = new XdsStory(protocol);
        client.publish(first);
        for (const [index, [happens, sotw, delta = sotw]] of acts.entries())
          assert.equal(happens(client).text, protocol === 'sotw' ? sotw : delta, `act ${index + 1}`);
      });
    }

    const OLD = {
      id: 'envoy',
      userAgentVersionType: { case: 'userAgentBuildVersion', value: { version: { majorNumber: 1, minorNumber: 17 } } },
    } as const;
    const forms = ({ secrets }: Told): string[] =>
      secrets.filter(({ certificate }) => certificate === undefined).map(({ spiffe }) => (spiffe === undefined ? 'root_ca' : 'spiffe'));
    const newAuthority = (): HeldIdentity => {
      const next = createTestAuthority({ trustDomain: 'example.org' });
      return heldSnapshot([svidOf(next, WEB)], [next]);
    };

    test(`${protocol}, F.5.11: a node on the first message alone is remembered, for updates and for names that come later`, () => {
      const client = new XdsStory(protocol);
      client.publish(first);

      assert.deepEqual(forms(client.ask(['ROOTCA'], { node: OLD })), ['root_ca']);
      client.accept();
      assert.deepEqual(forms(client.publish(newAuthority())), ['root_ca']);
      assert.deepEqual(forms(client.ask(['ROOTCA', OWN])), ['root_ca']);
      assert.equal(client.state.node?.id, 'envoy');
    });

    test(`${protocol}, F.5.11: a node that comes before anything could be answered is remembered`, () => {
      const client = new XdsStory(protocol);

      client.ask(['ROOTCA'], { node: OLD });
      client.ask(['ROOTCA', OWN]);

      assert.deepEqual(forms(client.publish(first)), ['root_ca', 'root_ca']);
    });

    for (const [disable, form] of [
      [false, 'spiffe'],
      [true, 'root_ca'],
    ] as const) {
      test(`${protocol}, F.5.11: without any node the configuration decides: ${form}`, () => {
        const client = new XdsStory(protocol, { disable });
        client.publish(first);

        assert.deepEqual(forms(client.ask(['ROOTCA'])), [form]);
        assert.deepEqual(forms(client.publish(newAuthority())), [form]);
      });
    }

    test(`${protocol}, F.5.13: of identities with one SPIFFE ID or one hint the first is sent`, () => {
      const client = new XdsStory(protocol);
      client.publish(heldSnapshot([...first.svids, svidOf(own, WEB), svidOf(own, LATER, { hint: 'api' })], [own]));

      const chains = client.ask([WEB, 'hint:api']).secrets.map(({ certificate }) => certificate?.chain);

      assert.deepEqual(
        chains,
        first.svids.map(({ chain }) => chain.map((certificate) => certificate.pem()).join('')),
      );
    });
  });
}
