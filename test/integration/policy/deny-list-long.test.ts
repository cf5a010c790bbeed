/** A deny list of a million lines: what it costs those who are served meanwhile. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { API, startInbound } from '../../support/data-path.ts';
import { startDenyFile } from '../../support/policy/deny-file.ts';
import { eventually } from '../../support/eventually.ts';
import { startEcho } from '../../support/tcp.ts';
import { outcome } from '../../support/tls-peer.ts';
import { watchTurns } from '../../support/turns.ts';

const LINES = 1_000_000;
/** 20 is what is meant, and 10 what it takes; a parser that takes it all at once needs thousands. */
const LONGEST_TURN_MS = 60;

/** A third of the lines of each kind. `offset` tells one such list from another. */
function longList(offset: number): string {
  const digest = (index: number): string => createHash('sha256').update(String(index)).digest('hex');
  const third = Array.from({ length: LINES / 3 }, (_, index) => offset + index);
  return [
    'ids:',
    ...third.map((index) => `  - spiffe://example.org/ns/namespace-${index % 1000}/sa/service-${index}`),
    'certificates:',
    ...third.map((index) => `  - ${digest(index)}`),
    'serials:',
    ...third.map((index) => `  - ${digest(index).slice(0, 32)}@ca29fec0f50cb36b9b212f37b4fae80b15700434`),
    '...\n',
  ].join('\n');
}

test('a list of a million lines takes effect without stopping anybody, and one wrong line of them changes nothing', async (t) => {
  const list = await startDenyFile(t);
  const application = await startEcho(t);
  const { sidecar, connect } = await startInbound(t, application.address, { file: list.file });
  const [first, second] = [longList(0), longList(200_000)];
  const broken = second.replace('service-400000\n', 'service-400000/\n');
  const pause = async (text: string, isRead: () => Promise<void>): Promise<number> => {
    await list.replace(text);
    const turns = watchTurns();
    const begin = performance.now();
    await eventually(isRead, { withinMs: 120_000 });
    const longest = turns.stop();
    t.diagnostic(
      `${Math.round(text.length / 1e6)} MB in ${Math.round(performance.now() - begin)} ms, longest turn ${longest.toFixed(1)} ms`,
    );
    return longest;
  };
  const reloads = (result: 'ok' | 'failed', times: number) => async (): Promise<void> => {
    assert.equal(
      sidecar.log().filter(({ message }) => message.startsWith(`deny list ${result === 'ok' ? 'reloaded' : 'not'}`)).length,
      times,
    );
    await Promise.resolve();
  };

  const pauses = [
    await pause(first, reloads('ok', 1)),
    await pause(second, reloads('ok', 2)),
    await pause(broken, reloads('failed', 1)),
    await pause(second.replace('ids:', `ids:\n  - ${API.replace('api', 'web')}`), reloads('ok', 3)),
  ];

  assert.ok(Math.max(...pauses) < LONGEST_TURN_MS, `${Math.max(...pauses)} ms`);
  const told = sidecar.log().filter(({ message }) => message.startsWith('deny list'));
  assert.deepEqual(
    told.map((line) => [line['entries'], line['added'], line['removed']]),
    [
      [0, undefined, undefined],
      [999_999, 999_999, 0],
      [999_999, 600_000, 600_000],
      [undefined, undefined, undefined],
      [1_000_000, 1, 0],
    ],
  );
  assert.equal((told[2]?.['differences'] as string[] | undefined)?.length, 40);
  assert.match(String(told[3]?.['problems']), /revoked\.yaml:200002:5: "spiffe:.*a path does not end with/);
  assert.equal(await sidecar.metric('scute_deny_list_entries'), 1_000_000);
  const refused = await connect();
  assert.equal((await outcome(refused)).text, '');
  assert.equal((await sidecar.connection())['reason'], 'revoked');
});
