import assert from 'node:assert/strict';
import { createPrivateKey } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import { API, presented, WEB } from '../support/data-path.ts';
import { startDevDomain } from '../support/dev-domain.ts';
import { eventually } from '../support/eventually.ts';
import { ask } from '../support/http/http.ts';
import { fetchSecrets, openDelta, openSotw, sdsClient } from '../support/sds.ts';
import { startScute } from '../support/scute-process.ts';
import { closed, dial, dialling, freePort, readAll, startEcho } from '../support/tcp.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { outcome, tlsClient } from '../support/tls-peer.ts';

for (const keyType of ['ec-p256', 'rsa-2048', 'ed25519'] as const) {
  test(`nothing that Scute ever writes holds a private key (${keyType}), whatever happens to it`, async (t) => {
    const spiffe = await startDevDomain(t, { name: 'example.org', keyType, workloads: { api: [API], web: [WEB] } });
    const keys: Buffer[] = [];
    const remember = (): void => {
      const answer = spiffe.answers('api').x509Svids.get();
      if (answer?.kind === 'message') keys.push(...answer.message.svids.map((svid) => Buffer.from(svid.x509SvidKey)));
    };
    remember();
    const application = await startEcho(t);
    const folder = await temporaryFolder(t);
    const admin = { kind: 'unix', path: `${folder}/admin.sock` } as const;
    const web = presented(await spiffe.issue(WEB));
    const scute = await startScute({
      config: {
        workloadApi: { endpoint: spiffe.endpoint('api') },
        inbound: [
          { name: 'in', listen: '127.0.0.1:0', to: application.address, allow: [WEB] },
          { name: 'down', listen: '127.0.0.1:0', to: `127.0.0.1:${await freePort()}`, allow: [WEB] },
        ],
        outbound: [{ name: 'out', listen: '127.0.0.1:0', to: application.address, expect: [WEB] }],
        metrics: { listen: '127.0.0.1:0' },
        admin: { listen: `unix://${admin.path}` },
        sds: { listen: `unix://${folder}/sds.sock` },
        log: { level: 'trace' },
      },
    });
    t.after(() => scute.stop());
    await scute.ready('in', 'out', 'metrics');
    const [address, metrics] = [await scute.address('in'), { kind: 'tcp', host: '127.0.0.1', port: await scute.port('metrics') } as const];
    const written: string[] = [];
    const look = async (): Promise<void> => {
      for (const [where, path] of [
        [metrics, '/metrics'],
        [metrics, '/readyz?verbose'],
        [admin, '/config_dump'],
        [admin, '/policy'],
        [admin, '/readyz?verbose'],
        [admin, '/'],
      ] as const)
        written.push((await ask(where, path)).body);
    };

    await look();
    // Whoever is given the key tells Scute of it, in every way that there is to tell something.
    const envoys = sdsClient(t, `unix://${folder}/sds.sock`);
    const stream = openSotw(envoys);
    stream.send({ resourceNames: ['default', 'ROOTCA'] });
    const given = await stream.next();
    assert.match(Buffer.concat(given.resources.map(({ value }) => Buffer.from(value))).toString('latin1'), /PRIVATE KEY/);
    stream.send({ resourceNames: ['default'], responseNonce: given.nonce, errorDetail: { code: 13, message: 'it is no good' } });
    // A client that repeats what it was given.
    const pem = `-----BEGIN PRIVATE KEY-----\n${keys[0]?.toString('base64')}\n-----END PRIVATE KEY-----`;
    const parrot = openSotw(envoys);
    parrot.send({ resourceNames: ['default', pem], node: { id: pem } });
    const { nonce } = await parrot.next();
    parrot.send({ resourceNames: ['default', pem], responseNonce: nonce, errorDetail: { code: 13, message: pem } });
    await scute.logged((line) => line.message === 'secret rejected by the client');
    // Likewise without the words around it, and over the services where names or types are wrong.
    const bare = keys[0]?.toString('base64') ?? '';
    for (const words of [bare, pem]) {
      const client = { node: { id: words, userAgentName: words }, errorDetail: { code: 13, message: words } };
      const again = openDelta(envoys);
      again.send({
        ...client,
        resourceNamesSubscribe: ['ROOTCA', words],
        initialResourceVersions: { [words]: words },
        responseNonce: words,
      });
      again.send({ ...client, responseNonce: (await again.next()).nonce });
      openSotw(envoys, true).send({ ...client, typeUrl: words });
      await fetchSecrets(envoys, { ...client, resourceNames: [words] });
      await fetchSecrets(envoys, { ...client, typeUrl: words });
    }
    await scute.logged((line) => line.message === 'SDS client refused' && line['reason'] === 'bad_request');
    const delta = openDelta(envoys);
    delta.send({ resourceNamesSubscribe: ['default', '*', 'unknown'] });
    await delta.next();
    await fetchSecrets(envoys, {});
    await look();
    const client = tlsClient(t, address, web);
    client.end('hello');
    await outcome(client);
    await outcome(tlsClient(t, address, undefined));
    await outcome(tlsClient(t, await scute.address('down'), web));
    const garbage = dialling(t, address);
    garbage.end('garbage');
    await closed(garbage);
    const caller = await dial(t, await scute.address('out'));
    caller.end('hello');
    await readAll(caller).catch(() => undefined);
    await spiffe.rotate();
    remember();
    // An answer whose key is of another certificate, one whose key is cut, and one that is garbage.
    const answer = spiffe.answers('api').x509Svids;
    const good = answer.get();
    assert.ok(good?.kind === 'message');
    const [first, last] = [keys[0] ?? Buffer.alloc(0), keys.at(-1) ?? Buffer.alloc(0)];
    for (const x509SvidKey of [first, last.subarray(0, -5), Buffer.from(`-----BEGIN PRIVATE KEY-----\n${last.toString('base64')}`)]) {
      answer.set({ kind: 'message', message: { ...good.message, svids: good.message.svids.map((svid) => ({ ...svid, x509SvidKey })) } });
      const rejected = written.length;
      await eventually(async () => {
        await look();
        assert.match(written.slice(rejected).join(''), /x509_svid_updates_total\{[^}]*result="rejected"/);
      });
    }
    await writeFile(scute.configFile ?? '', 'broken: [');
    scute.child.signal('SIGHUP');
    await scute.logged(({ message }) => message.startsWith('configuration not reloaded'));
    await look();
    await spiffe.withdraw('api');
    await scute.logged(({ message }) => message === 'identity withdrawn');
    await look();
    await scute.stop();
    written.push(scute.child.stdout(), scute.child.stderr());

    const everything = written.join('\n');
    assert.ok(everything.includes(API) && everything.includes('connection closed') && keys.length === 2);
    assert.doesNotMatch(everything, /PRIVATE KEY/);
    const lower = everything.toLowerCase();
    for (const secret of keys.flatMap(secretsOf)) {
      // Any quarter of it would be too much. Line breaks of PEM, and base64's three phases, are covered by short pieces.
      for (let at = 0; at + 12 <= secret.length; at += 4) {
        const piece = secret.subarray(at, at + 12);
        assert.ok(!lower.includes(piece.toString('hex')), 'a part of a key in hexadecimal');
        assert.ok(!everything.includes(Buffer.from(piece).toString('base64')), 'a part of a key in base64');
        assert.ok(!everything.includes([...piece].join(',')), 'a part of a key as a list of numbers');
        assert.ok(!everything.includes(piece.toString('latin1')), 'a part of a key as it is');
      }
    }
  });
}

/** The bytes of a key that nobody else knows: a PKCS #8 key holds the public key and names of algorithms too. */
function secretsOf(der: Buffer): Buffer[] {
  const jwk = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' }).export({ format: 'jwk' });
  const secrets = [jwk.d, jwk.p, jwk.q, jwk.dp, jwk.dq, jwk.qi];
  return secrets.flatMap((secret) => (typeof secret === 'string' ? [Buffer.from(secret, 'base64url')] : []));
}
