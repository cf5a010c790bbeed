/** What the log and the dump say of SDS clients, and that no client can make them say anything else. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { describeSds } from '../../../src/sds/status.ts';
import { eventually } from '../../support/eventually.ts';
import { createTestAuthority } from '../../support/pki/pki.ts';
import { openDelta, openSotw, sdsClient, startSds } from '../../support/sds.ts';
import { heldSnapshot, svidOf } from '../../support/pki/snapshots.ts';

const [WEB, API] = ['spiffe://example.org/web', 'spiffe://example.org/api'];
const own = createTestAuthority({ trustDomain: 'example.org' });
const identity = (...ids: readonly string[]) => heldSnapshot([svidOf(own, WEB), ...ids.map((id) => svidOf(own, id))], [own]);

interface Dump {
  readonly streams: readonly {
    readonly node: string;
    readonly user_agent: string;
    readonly protocol: string;
    readonly subscriptions: readonly {
      readonly name: string;
      readonly version: string | null;
      readonly status: string;
      readonly detail: string | null;
      readonly missing: string | null;
    }[];
  }[];
}

const ENVOY = {
  id: 'envoy-1',
  userAgentName: 'envoy',
  userAgentVersionType: { case: 'userAgentBuildVersion', value: { version: { majorNumber: 1, minorNumber: 36, patch: 2 } } },
} as const;

test('lines about streams name the node, the secret, its version, and what Envoy says of it', async (t) => {
  const sds = await startSds(t);
  sds.publish(identity(API));
  const stream = openSotw(sdsClient(t, sds.target));
  const ask = { resourceNames: ['default', API, 'file-root:/x'], node: ENVOY };
  stream.send(ask);
  const first = await stream.next();
  stream.send({ ...ask, responseNonce: first.nonce });
  sds.publish(identity());
  const second = await stream.next();
  stream.send({ ...ask, responseNonce: second.nonce, errorDetail: { code: 13, message: 'Failed to load the private key' } });
  await eventually(() => assert.equal(sds.metrics.sds.rejected.sotw, 1));
  const sent = sds.server.streams()[0]?.state.sent.get('default')?.version;
  stream.call.cancel();
  await eventually(() => assert.ok(sds.log().some(({ message }) => message === 'SDS stream ended')));

  const of = { stream: 1, protocol: 'sotw', node: 'envoy-1', user_agent: 'envoy/1.36.2' };
  const lines = (message: string) =>
    sds
      .log()
      .filter((line) => line['message'] === message)
      .map(({ time: _time, message: _message, ...fields }) => fields);
  const [before, after] = lines('secret sent')
    .filter(({ name }) => name === 'default')
    .map(({ version }) => version);
  assert.ok(typeof before === 'string' && typeof after === 'string' && before !== after);
  assert.equal(after, sent);
  assert.deepEqual(lines('secret sent')[0], { level: 'debug', ...of, name: 'default', version: before });
  assert.deepEqual(lines('secret accepted')[0], { level: 'debug', ...of, name: 'default', version: before });
  assert.deepEqual(lines('secret rejected by the client'), [
    { level: 'warn', ...of, name: 'default', version: after, code: 13, detail: 'Failed to load the private key', count: 1 },
  ]);
  assert.deepEqual(lines('a secret that is asked for is not there'), [
    { level: 'warn', ...of, name: 'file-root:/x', reason: 'unknown_name', detail: 'nothing has this name', count: 1 },
  ]);
  assert.deepEqual(lines('a secret that was sent is withdrawn'), [
    { level: 'warn', ...of, name: API, reason: 'not_held', detail: `we do not hold ${API}`, count: 1 },
  ]);
  const [{ duration_ms: duration, bytes, ...push } = {}] = lines('secrets pushed');
  assert.deepEqual(push, { level: 'info', generation: 2, streams: 1, secrets: 1 });
  assert.ok(typeof duration === 'number' && duration >= 0 && typeof bytes === 'number' && bytes > 500);
  assert.deepEqual(lines('SDS stream ended'), [{ level: 'debug', ...of }]);
});

test('the dump shows who has which version, and whether it was accepted, rejected with which words, or is not answered yet', async (t) => {
  const sds = await startSds(t);
  sds.publish(identity(API));
  const client = sdsClient(t, sds.target);
  const sotw = openSotw(client);
  sotw.send({ resourceNames: ['default', 'ROOTCA'], node: ENVOY });
  const accepted = await sotw.next();
  sotw.send({ resourceNames: ['default', 'ROOTCA', API], responseNonce: accepted.nonce });
  const pending = await sotw.next();
  const delta = openDelta(client);
  delta.send({
    resourceNamesSubscribe: ['default', 'nobody'],
    node: { id: 'envoy-2', userAgentVersionType: { case: 'userAgentVersion', value: '9' } },
  });
  const rejected = await delta.next();
  delta.send({ responseNonce: rejected.nonce, errorDetail: { code: 13, message: 'no good' } });
  await eventually(() => assert.equal(sds.metrics.sds.rejected.delta, 1));

  const { streams } = describeSds(sds.server) as Dump;
  const sent = (at: number, name: string): string | null => streams[at]?.subscriptions.find((each) => each.name === name)?.version ?? null;
  assert.deepEqual(
    streams.map(({ node, user_agent, protocol, subscriptions }) => ({ node, user_agent, protocol, subscriptions })),
    [
      {
        node: 'envoy-1',
        user_agent: 'envoy/1.36.2',
        protocol: 'sotw',
        subscriptions: [
          { name: 'default', version: sent(0, 'default'), status: 'accepted', detail: null, missing: null },
          { name: 'ROOTCA', version: sent(0, 'ROOTCA'), status: 'accepted', detail: null, missing: null },
          { name: API, version: sent(0, API), status: 'sent', detail: null, missing: null },
        ],
      },
      {
        node: 'envoy-2',
        user_agent: '9',
        protocol: 'delta',
        subscriptions: [
          { name: 'default', version: rejected.resources[0]?.version ?? '', status: 'rejected', detail: 'no good', missing: null },
          { name: 'nobody', version: null, status: 'none', detail: null, missing: 'unknown_name' },
        ],
      },
    ],
  );
  assert.equal(sent(0, 'default'), sent(1, 'default'), 'a version is one of content, whichever stream');
  assert.match(pending.versionInfo, /^[0-9a-f]{32}$/);
});

/** The key that a client was given, as it might repeat it. */
const key = svidOf(own, WEB).key;
const pem = key.export({ type: 'pkcs8', format: 'pem' });
const base64 = key.export({ type: 'pkcs8', format: 'der' }).toString('base64');
const MESSAGE = 'the admission of everybody';
const FORGED = `{"level":"info","message":"${MESSAGE}"}`;

const HOSTILE: Readonly<Record<string, string>> = {
  'lines of its own': `x\n${FORGED}\r\n${FORGED}\u2028${FORGED}`,
  'the end of a field': `x","message":"${MESSAGE}","y":"`,
  'escapes of a terminal': `\u001b[2J\u001b]0;title\u0007\u001b[1A\u009b31m\u0000\u0008\u007f`,
  'letters that turn text around, and halves of letters': '\u202e\u2066gnirts\ud800 \udc00',
  'a megabyte': 'x'.repeat(350_000),
  'the key in PEM': `here: ${pem}`,
  'the key in PEM, in one line, at the end of much': `${'x'.repeat(990)}${pem.replaceAll('\n', '\\n')}`,
  'the key in base64': base64,
};

for (const format of ['json', 'pretty'] as const) {
  for (const [what, text] of Object.entries(HOSTILE)) {
    test(`a client that says ${what} as its node, its version, its names and its errors forges no line and tells no key: ${format}`, async (t) => {
      const sds = await startSds(t, {
        logFormat: format,
        sds: { limits: { maxRequestBytes: 4_194_304, maxSubscriptionBytes: 4_194_304 } },
      });
      sds.publish(identity());
      const client = sdsClient(t, sds.target);
      const node = { id: text, userAgentName: text, userAgentVersionType: { case: 'userAgentVersion', value: text } } as const;
      const errorDetail = { code: 13, message: text };

      const sotw = openSotw(client);
      sotw.send({ resourceNames: ['default', text], node });
      const first = await sotw.next();
      sotw.send({ resourceNames: ['default', text], responseNonce: first.nonce, errorDetail });
      const delta = openDelta(client);
      delta.send({ resourceNamesSubscribe: [text, 'ROOTCA'], node, initialResourceVersions: { [text]: text } });
      const second = await delta.next();
      delta.send({ responseNonce: second.nonce, errorDetail });
      delta.send({ responseNonce: text, errorDetail });
      await eventually(() => assert.deepEqual(sds.metrics.sds.rejected, { sotw: 1, delta: 2 }));
      const wrong = openSotw(client, true);
      wrong.send({ typeUrl: text, node });
      await wrong.ended;
      const dump = JSON.stringify(describeSds(sds.server));
      sotw.call.cancel();
      delta.call.cancel();
      await eventually(() => assert.deepEqual(sds.metrics.sds.streams, { sotw: 0, delta: 0 }));

      const log = sds.written();
      const lines = log.split('\n');
      assert.equal(lines.pop(), '');
      assert.ok(lines.length >= 6, log);
      for (const line of lines) {
        assert.ok(line.length < 6000, `${line.length} letters`);
        assert.doesNotMatch(line, /[\p{Cc}\u2028-\u202e\u2066-\u2069]/u);
        if (format === 'json') assert.notEqual((JSON.parse(line) as { message: string }).message, MESSAGE);
        else assert.match(line, /^\[\d\d:\d\d:\d\d\.\d{3}\] (?:DEBUG|INFO|WARN)(?: \(".*"\))?: /);
      }
      for (const told of [log, dump]) {
        assert.ok(told.length < 60_000);
        assert.doesNotMatch(told, /PRIVATE KEY/);
        for (let at = 0; at + 16 <= base64.length; at += 4) assert.ok(!told.includes(base64.slice(at, at + 16)), 'a part of the key');
      }
    });
  }
}
