import assert from 'node:assert/strict';
import { rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { policyPageSchema } from '../../../src/config/policy/policy-page.ts';
import { startDenyFile } from '../../support/policy/deny-file.ts';
import { startDevDomain } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { ask } from '../../support/ext-authz.ts';
import { ask as askHttp } from '../../support/http/http.ts';
import { useScute } from '../../support/scute-process.ts';
import { sdsClient } from '../../support/sds.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';

const API = 'spiffe://example.org/api';
const WEB = 'spiffe://example.org/web';

test('checks go by the listeners that run: their policies as they are reloaded, their identities, and the deny list', async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { api: [API] } });
  const denied = await startDenyFile(t);
  const folder = await temporaryFolder(t);
  const [socket, admin] = [join(folder, 'sds.sock'), join(folder, 'admin.sock')];
  const configOf = (allow: readonly unknown[], name = 'app'): object => ({
    workloadApi: { endpoint: spiffe.endpoint('api') },
    sds: { listen: `unix://${socket}`, authorization: {} },
    ...denied.file,
    admin: { listen: `unix://${admin}` },
    inbound: [
      { name, listen: '127.0.0.1:0', to: '127.0.0.1:1', protocol: 'http', allow },
      { name: 'other', listen: '127.0.0.1:0', to: '127.0.0.1:2', allow: [WEB], identity: { id: 'spiffe://example.org/other' } },
    ],
    outbound: [{ name: 'out', listen: '127.0.0.1:0', to: '127.0.0.1:3', expect: [WEB] }],
  });
  const scute = await useScute(t, { config: configOf([{ peer: WEB, methods: ['GET'] }]) });
  await scute.ready('app', 'sds');
  const client = sdsClient(t, `unix://${socket}`);
  const [pem = ''] = (await spiffe.issue(WEB)).chainPem.split(/(?<=-----END CERTIFICATE-----\n)/);
  const leaf = Buffer.from(pem.replaceAll(/-----[^-]*-----|\s/g, ''), 'base64');
  const asked = (listener: string, method = 'GET'): Promise<string> => ask(client, { leaf, listener, http: { method } });
  const reload = async (config: object): Promise<void> => {
    assert.ok(scute.configFile !== undefined);
    await writeFile(`${scute.configFile}.new`, JSON.stringify(config));
    await rename(`${scute.configFile}.new`, scute.configFile);
    scute.child.signal('SIGHUP');
  };
  const no = (reason: string, who = WEB): string => `7 403 scute: ${reason}: ${who} may not do this`;

  assert.equal(await asked('app'), 'OK');
  assert.equal(await asked('app', 'POST'), no('not_allowed'));
  // As of the listener's own requests.
  const { body } = await askHttp({ kind: 'unix', path: admin }, '/policy');
  const [app] = policyPageSchema.parse(JSON.parse(body)).listeners;
  assert.deepEqual(
    app?.denied.map(({ peer, method, reason, passed, refused }) => [peer, method, reason, passed, refused]),
    [[WEB, 'POST', 'not_allowed', 0, 1]],
  );
  assert.equal(await asked('other'), no('identity_not_ready', 'the peer'));
  assert.equal(await asked('out'), no('unknown_listener', 'the peer'));

  // It goes on under the name that it runs under.
  await reload(configOf([{ peer: WEB, methods: ['POST'] }], 'renamed'));
  await eventually(async () => assert.equal(await asked('app', 'POST'), 'OK'));
  assert.equal(await asked('app'), no('not_allowed'));
  assert.equal(await asked('renamed'), no('unknown_listener', 'the peer'));

  const page = await askHttp({ kind: 'unix', path: admin }, '/metrics');
  const rules = [...page.body.matchAll(/^scute_ext_authz_checks_total\{listener="app".*rule="([^"]+)"\}/gm)].map(([, rule]) => rule);
  assert.deepEqual(rules, [`${WEB} POST`], 'rules that are gone are forgotten');

  await denied.become({ ids: [WEB] });
  await eventually(async () => assert.equal(await asked('app', 'POST'), no('revoked', 'the peer')));
});
