import assert from 'node:assert/strict';
import { test } from 'node:test';
import { API, presented, WEB } from '../../support/data-path.ts';
import { startDevDomain } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { connectClient, startClient, request } from '../../support/http/http2-stage.ts';
import { JWT, startTokenStage } from '../../support/tokens/token-stage.ts';
import { workloadApiClient } from '../../support/workload-api-client.ts';
import { AUDIENCE } from '../../support/tokens/tokens.ts';

test('while the JWT authority rotates under load, no request with a valid token is refused, and no removed key is accepted', async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { web: [WEB], api: [API] } });
  const stage = await startTokenStage(t, { jwt: JWT, spiffe, serves: false });
  const agent = workloadApiClient(t, spiffe.endpoint('web'));
  let client = await startClient(t, stage);
  const fetchOne = async (): Promise<string> => (await agent.call('fetchJWTSVID', { audience: [AUDIENCE] })).svids[0]?.svid ?? '';
  const ask = async (token: string): Promise<number> =>
    (await request(client, { ':method': 'GET', ':path': '/', ':authority': 'api', authorization: `Bearer ${token}` })).status;
  const keys = (): Promise<number> => stage.sidecar.metric('scute_jwt_authorities', { trust_domain: 'example.org' });

  const over = new AbortController();
  t.after(() => over.abort());
  let asked = 0;
  let current = await fetchOne();
  const load = (async (): Promise<void> => {
    while (!over.signal.aborted) {
      // Half of them are known, and half are new.
      const tokens = [current, current, ...(await Promise.all([fetchOne(), fetchOne()]))];
      assert.deepEqual(await Promise.all(tokens.map(ask)), [200, 200, 200, 200]);
      asked += tokens.length;
    }
  })();
  for (let rotation = 0; rotation < 5; rotation++) {
    const before = current;
    await spiffe.prepareRoot('example.org');
    // As a server does, which signs by an authority when its bundle has gone everywhere.
    await eventually(async () => assert.equal(await keys(), 2));
    await spiffe.activateRoot('example.org');
    current = await fetchOne();
    // The X.509 authority rotates with it, and takes connections along that were made by the one before.
    client = await connectClient(t, stage.address, presented(await spiffe.issue(WEB)));
    const seen = asked;
    await eventually(() => assert.ok(asked > seen + 8));
    await spiffe.retireRoots('example.org');
    await eventually(async () => assert.equal(await keys(), 1));
    assert.equal(await ask(before), 401);
  }
  over.abort();
  await load;
});
