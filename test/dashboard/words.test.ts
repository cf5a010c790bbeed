import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { DENY_REASONS } from '../../src/policy/verdict.ts';
import { place, rows, ticks } from '../../src/dashboard/axis.ts';
import { groupRefusals } from '../../src/dashboard/refusal-groups.ts';
import { apiPath, links, parseRoute } from '../../src/dashboard/routes.ts';
import { briefly, bytes, duration, list, moment, number, reason, sentence, shortHex, subjectName } from '../../src/dashboard/words.ts';

const MINUTE = 60_000;
const DAY = 1440 * MINUTE;

test('durations are as exact as anybody needs them', () => {
  assert.deepEqual([-5, 999, 59_000, MINUTE, 51 * MINUTE + 12_000].map(duration), ['0 s', '0 s', '59 s', '1 min', '51 min 12 s']);
  assert.deepEqual([1360 * MINUTE, 47 * 60 * MINUTE, 6 * DAY, 340 * DAY, 1100 * DAY].map(duration), [
    '22 h 40 min',
    '47 h',
    '6 days',
    '11 months',
    '3 years',
  ]);
  assert.deepEqual([51 * MINUTE + 12_000, 1360 * MINUTE, 6 * DAY].map(briefly), ['51 min', '22 h', '6 days']);
});

test('numbers, bytes, lists, times and names are told as people write them', () => {
  assert.deepEqual([0, 999, 1000, 1_041_220].map(number), ['0', '999', '1,000', '1,041,220']);
  assert.deepEqual([0, 1023, 1024, 12_800, 5 << 20, 2 ** 50].map(bytes), ['0 B', '1023 B', '1.0 KiB', '13 KiB', '5.0 MiB', '1024 TiB']);
  assert.equal(list(['a', 'b', 'c']), 'a, b and c');
  assert.equal(moment('2026-11-30T10:02:11.000Z'), '30 Nov 2026, 10:02:11 UTC');
  assert.equal(moment('-000001-01-02T03:04:05.000Z'), '2 Jan -1, 03:04:05 UTC');
  assert.equal(moment(null), 'unknown');
  assert.equal(shortHex('014f672e'), '01 4f 67 2e');
  assert.equal(subjectName('O=Example,CN=a\\, \\<b\\>'), 'a, <b>');
  assert.equal(subjectName('O=Example'), 'O=Example');
  assert.equal(sentence(' the file is gone '), 'The file is gone.');
  assert.equal(sentence('in: not bound'), 'in: not bound.');
  assert.equal(sentence('spiffe://a/b is not allowed'), 'spiffe://a/b is not allowed.');
});

test('every reason of a refusal is explained', () => {
  for (const name of DENY_REASONS) assert.ok(reason(name).means.endsWith('.') && reason(name).todo.endsWith('.'), name);
  assert.deepEqual(reason('constructor'), { means: '', todo: '' });
});

test('an address leads back to what it was made of, whatever that is', () => {
  for (const id of ['svid:00ff', 'spiffe://example.org/a b', '<img src=x>', '%', '#?/&', 'ünï']) {
    assert.equal(parseRoute(links.peer(id)).id, id);
    assert.equal(parseRoute(links.certificate(id)).page, 'certificates');
  }
  assert.deepEqual({ ...parseRoute('#/peers/%E0%A4%A'), query: null }, { page: 'peers', id: '%E0%A4%A', query: null });
  assert.equal(parseRoute('#/connections?search=web%26x').query.get('search'), 'web&x');
  assert.equal(parseRoute('').page, '');
  assert.equal(apiPath('peers', { search: 'a&b', cursor: null, listener: undefined }), 'api/v1/peers?search=a%26b');
});

test('on the axis of time, later stands to the right, now where the past ends, and nothing outside', () => {
  const span = { pastMs: 120 * MINUTE, futureMs: 300 * DAY };
  const moments = [-200 * MINUTE, -120 * MINUTE, -MINUTE, 0, MINUTE, DAY, 300 * DAY, 400 * DAY];
  const places = moments.map((ms) => place(ms, span));

  assert.deepEqual(
    places,
    places.toSorted((one, other) => one - other),
  );
  assert.deepEqual([places[0], places[1], places[6], places[7]], [0, 0, 1, 1]);
  const marks = ticks(span, 0.07);
  assert.ok(marks.length > 5);
  for (const { at } of marks) assert.ok(marks.every((other) => other.at === at || Math.abs(other.at - at) >= 0.07));
  assert.deepEqual(rows([0.1, 0.15, 0.2, 0.3], 0.13, 2), [0, 1, undefined, 0]);
});

test('refusals that say the same are told once, the newest first', () => {
  const one = {
    connection: 1,
    at: null,
    listener: { name: 'in', direction: 'inbound' },
    downstreamAddress: '10.0.0.1:1',
    peer: null,
    certificate: null,
    reason: 'no_certificate',
    rule: null,
    detail: 'newest',
  } as const;
  const groups = groupRefusals([
    one,
    { ...one, downstreamAddress: '[::1]:2', detail: 'older' },
    { ...one, peer: 'spiffe://example.org/a', reason: 'not_allowed' },
    { ...one, downstreamAddress: '10.0.0.1:3' },
  ]);

  assert.deepEqual(
    groups.map(({ newest, count, from }) => [newest.reason, newest.detail, count, from]),
    [
      ['no_certificate', 'newest', 3, ['10.0.0.1', '::1']],
      ['not_allowed', 'newest', 1, ['10.0.0.1']],
    ],
  );
});

test('text of others never becomes markup: nothing in the dashboard writes HTML', () => {
  const folder = join(import.meta.dirname, '../../src/dashboard');
  const files = globSync('**/*.{ts,tsx}', { cwd: folder });
  assert.ok(files.includes('pages/refusals.tsx'));
  for (const file of files)
    assert.doesNotMatch(
      readFileSync(join(folder, file), 'utf8'),
      /innerHTML|InnerHTML|srcdoc|insertAdjacentHTML|document\.write|eval\(/,
      file,
    );
});
