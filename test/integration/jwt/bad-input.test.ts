/** What comes that is wrong, each through a listener: a reason of its own, counted, told to nobody who could learn from it, and others go on. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ListenerList } from '../../../src/admin/api-types.ts';
import { api } from '../../support/admin/api.ts';
import { API, WEB } from '../../support/data-path.ts';
import { startDevDomainWith } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { JWT, requestLines, startTokenStage, VERSIONS, type FieldLines } from '../../support/tokens/token-stage.ts';
import { AUDIENCE, testKey, token } from '../../support/tokens/tokens.ts';

const LEEWAY_SECONDS = 30;
/** A claim that makes a token of 100 KB; Node's client of HTTP/2 sends no more than 64 KB of fields. */
const longClaim = (version: string): string => 'x'.repeat(version === 'HTTP/1.1' ? 75_000 : 40_000);
const NO_TOKEN = { status: 401, challenge: 'Bearer', body: 'scute: a token is needed\n' };
const INVALID = { status: 401, challenge: 'Bearer error="invalid_token"', body: 'scute: the token is not accepted\n' };
const MANY = { status: 400, challenge: 'Bearer error="invalid_request"', body: 'scute: there is more than one token\n' };

for (const [version, connect, application] of VERSIONS) {
  test(`${version}: each bad token has its reason, is counted, and leaves others alone`, async (t) => {
    const clock = new FakeClock();
    const spiffe = await startDevDomainWith(t, { clock: new FakeClock() }, [
      { name: 'example.org', svidLife: '10h', workloads: { web: [WEB], api: [API] } },
    ]);
    const stage = await startTokenStage(t, {
      application,
      jwt: JWT,
      spiffe,
      sidecar: { clock },
      http: { maxHeadBytes: 262_144 },
      file: { admin: { listen: '127.0.0.1:0' } },
    });
    const ask = await connect(t, stage);
    const nowMs = clock.now();
    const now = Math.floor(nowMs / 1000);
    const made = (claims: object = {}, by = stage.key): string => token({ key: by, nowMs, claims: { ...claims } });
    const good = made();
    const bearer = (text: string): FieldLines => [['Authorization', `Bearer ${text}`]];
    const bad: readonly (readonly [string, FieldLines, typeof INVALID])[] = [
      ['token_missing', [], NO_TOKEN],
      ['token_audience', bearer(made({ aud: ['other'] })), INVALID],
      ['token_untrusted_domain', bearer(made({ sub: 'spiffe://unknown.test/web' })), INVALID],
      // A second beyond the leeway, and a second less is good (below).
      ['token_expired', bearer(made({ exp: now - LEEWAY_SECONDS - 1 })), INVALID],
      ['token_not_yet_valid', bearer(made({ nbf: now + LEEWAY_SECONDS + 2 })), INVALID],
      ['token_too_long', bearer(made({ x: longClaim(version) })), INVALID],
      ['token_repeated', Array.from({ length: 10 }, () => bearer(good)).flat(), MANY],
      ['token_repeated', [...bearer(good), ['Authorization', 'Basic d2ViOnNlY3JldA==']], MANY],
      ['token_malformed', bearer(Array.from({ length: 10 }, () => good).join(', Bearer ')), INVALID],
      ['token_signature', bearer(made({}, testKey('one'))), INVALID],
      ['token_unknown_key', bearer(made({}, testKey('other'))), INVALID],
      ['token_subject', bearer(made({ sub: 'https://example.org/web' })), INVALID],
      ['token_algorithm', bearer(token({ key: stage.key, nowMs, header: { alg: 'none' } })), INVALID],
      ['token_header', bearer(token({ key: stage.key, nowMs, header: { crit: ['exp'] } })), INVALID],
    ];
    const counted = (result: string): Promise<number> => stage.sidecar.metric('scute_jwt_tokens_total', { listener: 'in', result });

    for (const [at, [reason, fields, answer]] of bad.entries()) {
      const before = await counted(reason);
      assert.deepEqual(await ask(fields), answer, reason);
      assert.equal(await counted(reason), before + 1, reason);
      await eventually(() => assert.equal(requestLines(stage.sidecar).filter(({ result }) => result === 'token_refused').length, at + 1));
      const told = requestLines(stage.sidecar).findLast(({ result }) => result === 'token_refused');
      assert.deepEqual([told?.['reason'], told?.['subject']], [reason, undefined]);
      assert.equal((await ask(bearer(good))).status, 200);
    }
    assert.equal((await ask(bearer(made({ exp: now - LEEWAY_SECONDS + 2 })))).status, 200);
    assert.equal(stage.seen.length, bad.length + 1);
    assert.ok((await stage.sidecar.metric('scute_http_requests_total', { result: 'token_refused' })) >= bad.length);
    const { items } = await api<ListenerList>(stage.sidecar, 'listeners');
    const tokens = items.find(({ name }) => name === 'in')?.tokens;
    assert.deepEqual([tokens?.accepted, tokens?.refused[0]], [bad.length + 1, { reason: 'token_repeated', count: 2 }]);
    assert.deepEqual(tokens?.refused.map(({ reason }) => reason).toSorted(), [...new Set(bad.map(([reason]) => reason))].toSorted());
    assert.equal(tokens.lastRefusedAt, new Date(nowMs).toISOString());
    const log = JSON.stringify(stage.sidecar.log());
    for (const part of good.split('.').slice(1)) assert.ok(!log.includes(part));
  });

  test(`${version}: a token that is longer than a head may be is refused with the head`, async (t) => {
    const stage = await startTokenStage(t, { application, jwt: JWT });
    const ask = await connect(t, stage);
    const long = token({ key: stage.key, claims: { aud: [AUDIENCE], x: longClaim(version) } });

    const { status, challenge } = await ask([['Authorization', `Bearer ${long}`]]).catch(() => ({ status: 431, challenge: undefined }));

    assert.deepEqual([status, challenge, stage.seen.length], [431, undefined, 0]);
    await eventually(async () => {
      const refused = await stage.sidecar.metric('scute_http_requests_total', { result: 'head_too_large' });
      const faults = await stage.sidecar.metric('scute_http2_faults_total', {});
      assert.ok(refused + faults >= 1);
    });
  });
}
