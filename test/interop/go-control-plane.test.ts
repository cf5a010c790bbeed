import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import type { DevDomain } from '../../src/devdomain/dev-domain.ts';
import { startDevDomain } from '../support/dev-domain.ts';
import { eventually } from '../support/eventually.ts';
import { useScute } from '../support/scute-process.ts';
import { needs } from './parts.ts';
import { startXds, type Said } from './peers.ts';
import { temporaryFolder } from './stage.ts';

const WEB = 'spiffe://example.org/web';
const API = 'spiffe://example.org/api';

interface Response {
  readonly type: string;
  readonly nonce: string;
  readonly version: string;
  /** `default certificate`. */
  readonly secrets: readonly string[];
  /** Delta: name to version. */
  readonly versions: Readonly<Record<string, string>>;
  readonly removed: readonly string[];
}

/** Scute behind a client that is made of go-control-plane's types, and that fails if a secret is not valid by its rules. */
async function start(t: TestContext, sds: object = {}, intermediates = 1) {
  const spiffe: DevDomain = await startDevDomain(
    t,
    { name: 'example.org', intermediates, federatesWith: ['partner.example'], workloads: { api: [{ id: API, hint: 'internal' }, WEB] } },
    { name: 'partner.example' },
  );
  const socket = `unix://${join(await temporaryFolder(t), 'sds.sock')}`;
  const config = { workloadApi: { endpoint: spiffe.endpoint('api') }, sds: { listen: socket, ...sds } };
  const scute = await useScute(t, { config });
  await scute.ready('sds');
  const peer = await startXds(t, socket);
  await peer.next('ready');
  const tell = (command: object): void => peer.child.write(`${JSON.stringify(command)}\n`);
  const respond = (said: Said): Response => {
    assert.ok(said['ended'] === undefined && said['error'] === undefined, JSON.stringify(said));
    const secrets = (said['secrets'] ?? []) as readonly { readonly name: string; readonly kind: string; readonly version?: string }[];
    return {
      type: String(said['type']),
      nonce: String(said['nonce']),
      version: String(said['version']),
      secrets: secrets.map(({ name, kind }) => `${name} ${kind}`),
      versions: Object.fromEntries(secrets.map(({ name, version = '' }) => [name, version])),
      removed: (said['removed'] ?? []) as readonly string[],
    };
  };
  return {
    spiffe,
    scute,
    tell,
    said: () => peer.said(),
    next: async () => respond(await peer.next('on')),
    ended: () => peer.next('ended'),
  };
}

for (const variant of ['sotw', 'ads'] as const) {
  test(
    `go-control-plane, ${variant}: every secret is valid; ACK, NACK, stale nonce, resubscription`,
    needs('go-control-plane'),
    async (t) => {
      const { spiffe, scute, tell, next } = await start(t);
      const names = [
        'default',
        'hint:internal',
        API,
        WEB,
        'ROOTCA',
        'ALL',
        'spiffe://example.org',
        'spiffe://partner.example',
        'file-root:/x',
      ];
      tell({ open: 's', variant });
      tell({ send: 's', names, node: 'go' });

      const first = await next();
      assert.deepEqual(
        first.secrets.toSorted(),
        [
          'ALL spiffe:2',
          'ROOTCA spiffe:1',
          'default certificate',
          'hint:internal certificate',
          `${API} certificate`,
          `${WEB} certificate`,
          'spiffe://example.org spiffe:1',
          'spiffe://partner.example spiffe:1',
        ].toSorted(),
      );
      tell({ send: 's', names, nonce: first.nonce, version: first.version });
      await spiffe.rotate('example.org');
      const second = await next();
      assert.deepEqual(
        second.secrets.toSorted(),
        ['default certificate', 'hint:internal certificate', `${API} certificate`, `${WEB} certificate`].toSorted(),
      );

      tell({ send: 's', names: ['ROOTCA'], nonce: first.nonce, version: first.version });
      tell({ send: 's', names, nonce: second.nonce, version: first.version, error: 'not today' });
      await scute.logged(
        (line) => line.message === 'secret rejected by the client' && line['detail'] === 'not today' && line['node'] === 'go',
      );
      await spiffe.rotate('example.org');
      const third = await next();
      assert.equal(third.secrets.length, 4, 'the stale request changed nothing, the rejected is replaced by the new');
      tell({ send: 's', names: ['ROOTCA'], nonce: third.nonce, version: third.version });
      tell({ send: 's', names: ['ROOTCA', 'default'], nonce: third.nonce, version: third.version });
      assert.deepEqual((await next()).secrets, ['default certificate']);
    },
  );
}

for (const variant of ['delta', 'delta-ads'] as const) {
  test(
    `go-control-plane, ${variant}: every secret is valid; ACK, NACK, stale nonce, resubscription`,
    needs('go-control-plane'),
    async (t) => {
      const { spiffe, scute, tell, next } = await start(t);
      tell({ open: 's', variant });
      tell({ send: 's', subscribe: ['default', 'ALL', 'nobody'], initial: { default: 'of another process', nobody: 'x' }, node: 'go' });

      const first = await next();
      assert.deepEqual(first.secrets.toSorted(), ['ALL spiffe:2', 'default certificate']);
      assert.deepEqual(first.removed, ['nobody']);
      tell({ send: 's', nonce: first.nonce });
      await spiffe.rotate('example.org');
      const second = await next();
      assert.deepEqual(second.secrets, ['default certificate']);
      assert.notEqual(second.versions['default'], first.versions['default']);

      tell({ send: 's', nonce: second.nonce, error: 'not today' });
      await scute.logged((line) => line.message === 'secret rejected by the client' && line['detail'] === 'not today');
      tell({ send: 's', nonce: first.nonce, subscribe: ['ROOTCA'] });
      assert.deepEqual((await next()).secrets, ['ROOTCA spiffe:1'], 'a stale nonce, but a subscription all the same');
      tell({ send: 's', subscribe: ['default'] });
      const again = await next();
      assert.deepEqual([again.secrets, again.versions['default']], [['default certificate'], second.versions['default']]);
      tell({ send: 's', unsubscribe: ['default', 'never'] });
      tell({ send: 's', subscribe: ['hint:internal'] });
      assert.deepEqual((await next()).secrets, ['hint:internal certificate']);
      await spiffe.withdraw('api');
      assert.deepEqual((await next()).removed.toSorted(), ['ALL', 'ROOTCA', 'hint:internal']);
    },
  );
}

for (const disableSpiffeCertValidation of [false, true]) {
  const form = disableSpiffeCertValidation ? 'plain authorities' : 'the SPIFFE validator';

  test(
    `go-control-plane: matchers, revocation lists, ALL and hints are valid on every kind of stream, with ${form}`,
    needs('go-control-plane'),
    async (t) => {
      const matchers = [{ secret: 'ROOTCA', allow: [WEB, 'spiffe://example.org/ns/*/sa/**', 'spiffe://partner.example/x'] }];
      const { spiffe, tell, next, ended } = await start(t, { disableSpiffeCertValidation, crls: true, matchers }, 0);
      for (const domain of ['example.org', 'partner.example']) await spiffe.revoke(domain, Buffer.from([1, 2, 3]));
      const names = ['ROOTCA', 'ALL', 'hint:internal', 'spiffe://partner.example'];
      const one = disableSpiffeCertValidation ? 'trusted_ca' : 'spiffe:1';
      const expected = [
        ...(disableSpiffeCertValidation ? [] : ['ALL spiffe:2 crls:2']),
        `ROOTCA ${one} matchers:2 crls:1`,
        'hint:internal certificate',
        `spiffe://partner.example ${one} crls:1`,
      ];

      await eventually(async () => {
        tell({ fetch: true, names });
        assert.deepEqual((await next()).secrets.toSorted(), expected);
      });
      for (const variant of ['sotw', 'ads', 'delta', 'delta-ads']) {
        tell({ open: variant, variant });
        tell({ send: variant, ...(variant.startsWith('delta') ? { subscribe: names } : { names }) });
        const { secrets, removed } = await next();
        assert.deepEqual(secrets.toSorted(), expected, variant);
        // All trust domains in one list of authorities are never sent.
        assert.deepEqual(removed, disableSpiffeCertValidation && variant.startsWith('delta') ? ['ALL'] : []);
      }
      tell({ fetch: true, names: ['ALL'] });
      if (disableSpiffeCertValidation) assert.equal((await ended())['ended'], 'NotFound');
      else assert.deepEqual((await next()).secrets, ['ALL spiffe:2 crls:2']);
      tell({ open: 'everything', variant: 'sotw' });
      tell({ send: 'everything' });
      assert.deepEqual((await next()).secrets, [
        `spiffe://example.org ${one} crls:1`,
        `spiffe://partner.example ${one} crls:1`,
        `${API} certificate`,
        `${WEB} certificate`,
      ]);
    },
  );
}

test(
  'go-control-plane: an aggregated stream that asks for listeners and clusters too is told that there are none',
  needs('go-control-plane'),
  async (t) => {
    const { spiffe, tell, next } = await start(t);
    const types = ['envoy.config.cluster.v3.Cluster', 'envoy.config.listener.v3.Listener'].map((name) => `type.googleapis.com/${name}`);

    for (const variant of ['ads', 'delta-ads']) {
      tell({ open: variant, variant });
      for (const type of types) {
        tell({ send: variant, type, node: 'go' });
        const answer = await next();
        assert.deepEqual([answer.type, answer.secrets, answer.removed], [type, [], []]);
        tell({ send: variant, type, nonce: answer.nonce, version: answer.version });
      }
      tell({ send: variant, names: ['default'], subscribe: ['default'] });
      const first = await next();
      assert.deepEqual(first.secrets, ['default certificate']);
      tell({ send: variant, names: ['default'], nonce: first.nonce, version: first.version });
      // Nothing but the certificate comes of a rotation.
      await spiffe.rotate('example.org');
      assert.deepEqual((await next()).secrets, ['default certificate']);
      tell({ send: variant, unsubscribe: ['default'] });
    }
  },
);

test('go-control-plane: Scute stops, and every stream is told UNAVAILABLE', needs('go-control-plane'), async (t) => {
  const { scute, tell, next, ended } = await start(t);
  for (const variant of ['sotw', 'delta']) {
    tell({ open: variant, variant });
    tell({ send: variant, names: ['default'], subscribe: ['default'] });
    await next();
  }

  const { code } = await scute.stop();

  assert.equal(code, 0);
  assert.deepEqual([(await ended())['ended'], (await ended())['ended']], ['Unavailable', 'Unavailable']);
});
