/** Long policies: what it costs those who are served meanwhile. */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { API, presented, startInbound, WEB, type InboundStage } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { startHttpApplication, startHttpInbound, send } from '../../support/http/http-stage.ts';
import { listText, policyText, startPolicyFile } from '../../support/policy/policy-file.ts';
import { startEcho } from '../../support/tcp.ts';
import { outcome, tlsClient } from '../../support/tls-peer.ts';
import { watchTurns } from '../../support/turns.ts';

const LINES = 1_000_000;
const RULES = 10_000;
/** 20 is what is meant; all of it at once takes seconds. */
const LONGEST_TURN_MS = 60;

/** Does something that is told in the log of the stage, and says how long the longest turn was until then. */
async function pause(t: TestContext, { sidecar }: InboundStage, what: string, change: () => Promise<void>): Promise<number> {
  const told = (): number => sidecar.log().filter(({ message }) => message.startsWith('policy file')).length;
  const before = told();
  await change();
  const turns = watchTurns();
  const begin = performance.now();
  await eventually(() => Promise.resolve(assert.equal(told(), before + 1)), { withinMs: 120_000 });
  const longest = turns.stop();
  t.diagnostic(`${what}: ${Math.round(performance.now() - begin)} ms, longest turn ${longest.toFixed(1)} ms`);
  return longest;
}

/** A text, and not its lines: a million strings would be looked at by each collection meanwhile. */
function ids(offset: number): string {
  return listText(
    Array.from({ length: LINES }, (_, index) => `spiffe://example.org/ns/namespace-${index % 1000}/sa/service-${offset + index}`),
  );
}

test('a list of a million IDs takes effect without stopping anybody, and one wrong line of them changes nothing', async (t) => {
  const file = await startPolicyFile(t, policyText([WEB, { idsFile: 'ids.txt' }]));
  await file.replace(listText([]), 'ids.txt');
  const application = await startEcho(t);
  const stage = await startInbound(t, application.address, { listener: { allow: undefined, policyFile: file.path } });
  const change = (what: string, text: string): Promise<number> =>
    pause(t, stage, `${what}, ${Math.round(text.length / 1e6)} MB`, () => file.replace(text, 'ids.txt'));
  const second = ids(200_000);

  const pauses = [
    await change('a million', ids(0)),
    await change('a million others', second),
    await change('one wrong of a million', second.replace('service-600000\n', 'service-600000/\n')),
    await change('one more', `${API}\n${second}`),
  ];

  const told = stage.sidecar.log().filter(({ message }) => message.startsWith('policy file'));
  assert.deepEqual(
    told.map((line) => [line['entries'], line['added'], line['removed']]),
    [
      [2, undefined, undefined],
      [1_000_002, 1_000_000, 0],
      [1_000_002, 200_000, 200_000],
      [undefined, undefined, undefined],
      [1_000_003, 1, 0],
    ],
  );
  assert.equal((told[2]?.['differences'] as string[] | undefined)?.length, 40);
  assert.match(String(told[3]?.['problems']), /ids\.txt:400001:1: "spiffe:.*a path does not end with/);
  const admitted = tlsClient(t, stage.address, presented(await stage.spiffe.issue(API)));
  admitted.end('x');
  assert.equal((await outcome(admitted)).text, 'x');
  assert.ok(Math.max(...pauses) < LONGEST_TURN_MS, `${Math.max(...pauses)} ms`);
});

test(`a policy of ${RULES} rules takes effect without stopping anybody`, async (t) => {
  const rules = (offset: number): readonly object[] =>
    Array.from({ length: RULES }, (_, index) => ({
      peer: `spiffe://example.org/ns/n${offset + index}/sa/*`,
      methods: ['GET', 'HEAD'],
      paths: [`/a${offset + index}/*`, `/b${offset + index}/**`],
      notAfter: '2027-01-31T09:00:00+01:00',
    }));
  const file = await startPolicyFile(t, policyText(rules(0)));
  const application = await startHttpApplication(t, (_, response) => response.end('served'));
  const stage = await startHttpInbound(t, application.address, { listener: { allow: undefined, policyFile: file.path } });
  const change = (what: string, text: string): Promise<number> =>
    pause(t, stage, `${what}, ${(text.length / 1e6).toFixed(1)} MB`, () => file.replace(text));
  const broken = policyText([...rules(0).slice(1), { peer: WEB, paths: ['/a/../b'] }]);

  const pauses = [
    await change('half others', policyText(rules(RULES / 2))),
    await change('one wrong', broken),
    await change('one more', policyText([...rules(RULES / 2), { peer: WEB, paths: ['/items'] }])),
  ];

  const told = stage.sidecar.log().filter(({ message }) => message.startsWith('policy file'));
  assert.deepEqual(
    told.map((line) => [line['entries'], line['added'], line['removed']]),
    [
      [RULES, undefined, undefined],
      [RULES, RULES / 2, RULES / 2],
      [undefined, undefined, undefined],
      [RULES + 1, 1, 0],
    ],
  );
  assert.match(String(told[2]?.['problems']), /policy\.yaml:1:\d+ allow\[9999\]\.paths\[0\]/);
  assert.match(await (await send(stage, 'GET /items HTTP/1.1\r\nHost: a\r\n\r\n')).until('served'), /^HTTP\/1\.1 200/);
  assert.ok(Math.max(...pauses) < LONGEST_TURN_MS, `${Math.max(...pauses)} ms`);
});
