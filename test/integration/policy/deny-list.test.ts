/** The deny list over real TLS, in both roles: who is on it is refused, and its open connections end. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { bundleMap, ownSvid, present, presentWith, ROLES, startBothRoles, type Role } from '../../support/both-roles.ts';
import { startExampleDomain } from '../../support/data-path.ts';
import { startDenyFile, type DenyEntries } from '../../support/policy/deny-file.ts';
import { eventually } from '../../support/eventually.ts';
import { startHttpApplication } from '../../support/http/http-stage.ts';
import { ask } from '../../support/http/http.ts';
import { answerOk, startH2cApplication } from '../../support/http/h2c-application.ts';
import { startCaller, startHttp2ServerAs } from '../../support/http/h2c-outbound.ts';
import { connectClient, request } from '../../support/http/http2-stage.ts';
import { createTestAuthority, keyIdOf, type TestCertificate } from '../../support/pki/pki.ts';
import { startSidecar, type Sidecar } from '../../support/sidecar.ts';
import { closed, dial, startEcho } from '../../support/tcp.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import { tlsClient, tlsServer } from '../../support/tls-peer.ts';
import { FakeWorkloadApi } from '../../support/workload-api.ts';

const ID = 'spiffe://example.org/peer';
const root = createTestAuthority();
const own = ownSvid(root, 'spiffe://example.org/own');
const intermediate = root.intermediate();
const leaf = intermediate.issue({ id: ID });

const PARTNER = 'spiffe://partner.test/peer';
const partner = createTestAuthority({ trustDomain: 'partner.test' });
const partnerLeaf = partner.issue({ id: PARTNER });
/** The last with an application that speaks HTTP/2 itself. */
const PROTOCOLS = ['tcp', 'http/1.1', 'h2', 'h2c'] as const;

const hash = ({ der }: TestCertificate): string => createHash('sha256').update(der).digest('hex');
const keyId = (issuer: TestCertificate): string => keyIdOf(issuer.keys.publicKey).toString('hex');
const withColons = (hex: string): string => hex.replace(/..(?=.)/g, '$&:');

/** Lists that name the peer, by what they name it. */
const NAMED: readonly (readonly [string, DenyEntries])[] = [
  ['its SPIFFE ID', { ids: [ID] }],
  ['a pattern', { ids: ['spiffe://example.org/*'] }],
  ['the hash of its certificate', { certificates: [hash(leaf)] }],
  ['a hash in capitals with colons', { certificates: [withColons(hash(leaf)).toUpperCase()] }],
  ['its serial number', { serials: [`${leaf.serial}@${keyId(intermediate)}`] }],
  [
    'a serial number in capitals, with colons and zeros',
    { serials: [`00:00:${withColons(leaf.serial).toUpperCase()}@${withColons(keyId(intermediate))}`] },
  ],
  ['the hash of its intermediate', { certificates: [hash(intermediate)] }],
  ['the serial number of its intermediate', { serials: [`${intermediate.serial}@${keyId(root)}`] }],
  ['the hash of its authority', { certificates: [hash(root)] }],
  ['the serial number of its authority', { serials: [`${root.serial}@${keyId(root)}`] }],
];

/** Lists with nothing that is of the peer. */
const SPARED: DenyEntries = {
  ids: ['spiffe://example.org/peer/**', 'spiffe://example.org/*/*', 'spiffe://example.org/peers'],
  certificates: [hash(own.leaf)],
  // The same number of other issuers.
  serials: [`${leaf.serial}@${keyId(root)}`, `${intermediate.serial}@${keyId(intermediate)}`, `${leaf.serial}@${'ab'.repeat(20)}`],
};

/** Resolves when a list is in force that was not, or was found wrong. */
async function reloaded(sidecar: Sidecar, result: 'ok' | 'failed', times: number): Promise<void> {
  await eventually(async () => assert.equal(await sidecar.metric('scute_deny_list_reloads_total', { result }), times));
}

for (const role of ROLES) {
  for (const [by, entries] of NAMED) {
    test(`as ${role}: a peer that is named by ${by} is refused as revoked, and admitted once it is off the list`, async (t) => {
      const list = await startDenyFile(t, entries);
      const between = await startBothRoles(t, [own.entry], { file: list.file });

      const { line } = await between.refuses(role, leaf, 'revoked');

      assert.match(String(line['detail']), /is on the deny list.*revoked\.yaml:2\) \(claims to be spiffe:\/\/example\.org\/peer\)$/);
      assert.equal(await between.sidecar.metric('scute_tls_handshakes_total', { reason: 'revoked' }), 1);
      await list.become(SPARED);
      await reloaded(between.sidecar, 'ok', 1);
      await between.admits(role, leaf, ID);
    });
  }

  test(`as ${role}: a peer that was admitted before is refused from the next connection on, whatever of it was remembered`, async (t) => {
    const list = await startDenyFile(t, SPARED);
    const between = await startBothRoles(t, [own.entry], { file: list.file });
    for (const [index, [, entries]] of NAMED.entries()) {
      await between.admits(role, leaf, ID);
      await list.become(entries);
      await reloaded(between.sidecar, 'ok', 2 * index + 1);
      await between.refuses(role, leaf, 'revoked');
      await list.become(SPARED);
      await reloaded(between.sidecar, 'ok', 2 * index + 2);
    }
  });

  test(`as ${role}: a leaf that states another key of its issuer is named by the issuer on its path all the same`, async (t) => {
    const hidden = root.intermediate({ subjectKeyId: null });
    const lying = hidden.issue({ id: ID, authorityKeyId: Buffer.from('d4'.repeat(20), 'hex') });
    const list = await startDenyFile(t, { serials: [`${lying.serial}@${'d4'.repeat(20)}`] });
    const between = await startBothRoles(t, [own.entry], { file: list.file });
    await between.admits(role, lying, ID);

    await list.become({ serials: [`${lying.serial}@${keyId(hidden)}`] });
    await reloaded(between.sidecar, 'ok', 1);

    await between.refuses(role, lying, 'revoked');
  });

  test(`as ${role}: a peer whose intermediate is named is admitted with another certificate of that one`, async (t) => {
    const renewed = root.crossSign(intermediate);
    const list = await startDenyFile(t, {});
    const between = await startBothRoles(t, [own.entry], { file: list.file });
    await between.admits(role, leaf, ID);
    await list.become({ certificates: [hash(intermediate)] });
    await reloaded(between.sidecar, 'ok', 1);

    const { line } = await between.meet(role, presentWith(leaf, renewed.der));
    assert.equal(line['reason'], 'finished', String(line['detail']));
  });

  test(`as ${role}: an authority of a partner on the list takes nobody else with it`, async (t) => {
    const list = await startDenyFile(t, { certificates: [hash(partner)] });
    const between = await startBothRoles(t, [own.entry], { file: list.file, federated: bundleMap(partner), alsoAllowed: ['partner.test'] });

    await between.refuses(role, partnerLeaf, 'revoked');
    await between.admits(role, leaf, ID);
  });

  for (const protocol of PROTOCOLS) {
    // Towards servers HTTP/1.1 is spoken.
    if (role === 'client' && protocol === 'h2') continue;
    test(`as ${role}, over ${protocol}: live connections end when their peer comes onto the list, and the others stay`, async (t) => {
      const list = await startDenyFile(t, SPARED);
      const stage = await startLive(t, role, protocol, list.file);
      const staying = await stage.open(partnerLeaf);
      for (const [index, [by, entries]] of NAMED.entries()) {
        const losing = await stage.open(leaf);

        await list.become(entries);
        await losing.ended;

        await staying.talk();
        const line = await eventually(() => {
          const [found] = stage.sidecar
            .log()
            .filter(
              (each) =>
                each['close_reason'] === 'revoked' || (each.message === 'connection to the server ended' && each['reason'] === 'revoked'),
            )
            .slice(index);
          assert.ok(found !== undefined, by);
          return found;
        });
        assert.match(String(line['detail']), /is on the deny list/);
        await list.become(SPARED);
        await reloaded(stage.sidecar, 'ok', 2 * index + 2);
      }
      assert.equal(await stage.sidecar.metric('scute_connections_drained_total', { reason: 'revoked' }), NAMED.length);
    });
  }
}

interface Live {
  /** Something goes there and comes back. */
  talk(): Promise<void>;
  readonly ended: Promise<unknown>;
}

/** A sidecar that admits the peers of both trust domains, and connections with them. */
async function startLive(t: TestContext, role: Role, protocol: (typeof PROTOCOLS)[number], file: object) {
  const api = await FakeWorkloadApi.start();
  t.after(() => api[Symbol.asyncDispose]());
  api.setX509([own.entry], bundleMap(partner));
  const isH2c = protocol === 'h2c';
  const http = isH2c ? { http: { application: 'h2c' } } : {};
  const common = { protocol: protocol === 'tcp' ? 'tcp' : 'http', listen: '127.0.0.1:0', ...http };
  const everybody = ['spiffe://example.org/**', 'spiffe://partner.test/**'];
  const peers = [leaf, partnerLeaf];
  const application = await (isH2c
    ? startH2cApplication(t, answerOk)
    : protocol === 'tcp'
      ? startEcho(t)
      : startHttpApplication(t, (_, response) => response.end('!')));
  const servers = await Promise.all(
    peers.map((peer) =>
      isH2c
        ? startHttp2ServerAs(t, present(peer), answerOk)
        : tlsServer(t, present(peer), protocol === 'tcp' ? (socket) => void socket.pipe(socket) : answerHttp),
    ),
  );
  const sidecar = await startSidecar(t, {
    workloadApi: { endpoint: api.endpoint },
    ...file,
    inbound: [{ ...common, name: 'in', to: application.address, allow: everybody }],
    outbound: servers.map(({ address }, index) => ({ ...common, name: `out-${index}`, to: address, expect: [ID, PARTNER] })),
  });
  const open = async (peer: TestCertificate): Promise<Live> => {
    if (protocol === 'h2' || isH2c) {
      const client =
        role === 'server'
          ? await connectClient(t, sidecar.address('in'), present(peer))
          : await startCaller(t, sidecar.address(`out-${peers.indexOf(peer)}`));
      const talk = async (): Promise<void> => assert.equal((await request(client, { ':path': '/' })).status, 200);
      await talk();
      return { talk, ended: role === 'server' ? once(client, 'close') : Promise.resolve() };
    }
    const socket =
      role === 'server' ? tlsClient(t, sidecar.address('in'), present(peer)) : await dial(t, sidecar.address(`out-${peers.indexOf(peer)}`));
    const said = protocol === 'tcp' ? '!' : 'GET / HTTP/1.1\r\nHost: peer.test\r\n\r\n';
    const talk = async (): Promise<void> => {
      socket.write(said);
      const [answer] = (await once(socket, 'data')) as [Buffer];
      assert.match(answer.toString(), /^(!$|HTTP\/1\.1 200 )/);
    };
    await talk();
    socket.on('end', () => socket.end());
    // Over HTTP the application keeps its connection, and only that to the server is ended.
    return { talk, ended: role === 'client' && protocol !== 'tcp' ? Promise.resolve() : closed(socket) };
  };
  return { sidecar, open };
}

/** One response for each chunk: nobody sends more than one request at a time. */
function answerHttp(socket: Socket): void {
  socket.on('data', () => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n!'));
}

interface DumpedDenyList {
  readonly file: string;
  readonly entries: number;
  readonly read_at: string;
  readonly failed_at: string | null;
  readonly problems: readonly string[];
}

test('/config_dump says which deny list is in force, since when, and why a newer file is not', async (t) => {
  const spiffe = await startExampleDomain(t);
  const list = await startDenyFile(t, { ids: [ID] });
  const folder = await temporaryFolder(t);
  const admin = { kind: 'unix', path: join(folder, 'admin.sock') } as const;
  const base = {
    workloadApi: { endpoint: spiffe.endpoint('api') },
    sds: { listen: `unix://${join(folder, 'sds.sock')}` },
    admin: { listen: `unix://${admin.path}` },
  };
  const startedMs = Date.now();
  await startSidecar(t, { ...base, ...list.file });
  const dumped = async () =>
    (JSON.parse((await ask(admin, '/config_dump')).body) as { readonly deny_list: DumpedDenyList | null }).deny_list;
  const first = await dumped();
  assert.ok(first !== null);
  const { read_at: readAt, ...others } = first;
  assert.deepEqual(others, { file: list.path, entries: 1, failed_at: null, problems: [] });
  assert.ok(Date.parse(readAt) >= startedMs && Date.parse(readAt) <= Date.now(), readAt);

  await list.replace('ids: [');
  const failed = await eventually(async () => {
    const dump = await dumped();
    assert.notEqual(dump?.failed_at, null);
    return dump;
  });
  assert.deepEqual([failed?.entries, failed?.read_at], [1, readAt]);
  assert.ok(Date.parse(failed?.failed_at ?? '') >= Date.parse(readAt));
  assert.match(failed?.problems[0] ?? '', /^.*revoked\.yaml:1:/);

  await list.become({ ids: [ID, PARTNER] });
  await eventually(async () => assert.equal((await dumped())?.entries, 2));
  const healed = await dumped();
  assert.deepEqual([healed?.failed_at, healed?.problems], [null, []]);
  assert.ok(Date.parse(healed?.read_at ?? '') >= Date.parse(failed?.failed_at ?? ''));
});

test('without a deny list /config_dump has none', async (t) => {
  const spiffe = await startExampleDomain(t);
  const folder = await temporaryFolder(t);
  const admin = { kind: 'unix', path: join(folder, 'admin.sock') } as const;
  await startSidecar(t, {
    workloadApi: { endpoint: spiffe.endpoint('api') },
    sds: { listen: `unix://${join(folder, 'sds.sock')}` },
    admin: { listen: `unix://${admin.path}` },
  });

  assert.equal((JSON.parse((await ask(admin, '/config_dump')).body) as { readonly deny_list: unknown }).deny_list, null);
});
