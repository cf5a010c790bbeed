import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isOpen, nextLook, parseTimeZone, parseWindow, type TimeWindow, type WindowSpec } from './time-window.ts';

function window(spec: Partial<WindowSpec>): TimeWindow {
  const parsed = parseWindow({ from: '09:00', to: '17:00', timeZone: 'UTC', ...spec });
  assert.ok(parsed.ok);
  return parsed.value;
}

function at(iso: string): number {
  return Date.parse(iso);
}

test('a window is open from its first minute until before its last, on its days', () => {
  const week = window({ days: ['mon', 'tue', 'wed', 'thu', 'fri'] });
  assert.ok(!isOpen(week, at('2026-11-30T08:59:59.999Z')));
  assert.ok(isOpen(week, at('2026-11-30T09:00:00Z')));
  assert.ok(isOpen(week, at('2026-11-30T16:59:59.999Z')));
  assert.ok(!isOpen(week, at('2026-11-30T17:00:00Z')));
  assert.ok(!isOpen(week, at('2026-11-29T12:00:00Z')), 'a Sunday');
  assert.ok(isOpen(window({}), at('2026-11-29T12:00:00Z')));
  assert.ok(isOpen(window({ from: '00:00', to: '24:00' }), at('1969-12-31T23:59:00Z')));
});

test('a window over midnight belongs to the day on which it begins', () => {
  const friday = window({ days: ['fri'], from: '22:00', to: '06:00' });
  assert.ok(isOpen(friday, at('2026-12-04T22:00:00Z')));
  assert.ok(isOpen(friday, at('2026-12-05T05:59:00Z')), 'Saturday morning');
  assert.ok(!isOpen(friday, at('2026-12-04T05:59:00Z')), 'Friday morning');
  assert.ok(!isOpen(friday, at('2026-12-05T22:00:00Z')));
});

test('the clock on the wall decides: summer and winter', () => {
  const berlin = window({ timeZone: 'Europe/Berlin' });
  assert.ok(isOpen(berlin, at('2026-07-01T07:00:00Z')));
  assert.ok(!isOpen(berlin, at('2026-12-01T07:00:00Z')));
  assert.ok(isOpen(berlin, at('2026-12-01T08:00:00Z')));
});

test('in spring the hour that is left out opens nothing, and one that begins in it opens when the clock goes on', () => {
  // On 2026-03-29 in Berlin 02:00 is followed by 03:00, at 01:00 UTC.
  assert.ok(
    [0, 15, 30, 45, 60, 75].every(
      (minute) => !isOpen(window({ from: '02:00', to: '03:00', timeZone: 'Europe/Berlin' }), at('2026-03-29T00:30:00Z') + minute * 60_000),
    ),
  );
  const over = window({ from: '02:30', to: '04:00', timeZone: 'Europe/Berlin' });
  assert.ok(!isOpen(over, at('2026-03-29T00:59:59Z')));
  assert.ok(isOpen(over, at('2026-03-29T01:00:00Z')));
  assert.ok(!isOpen(over, at('2026-03-29T02:00:00Z')));
});

test('in autumn a window in the hour that comes twice opens twice', () => {
  // On 2026-10-25 in Berlin 03:00 is followed by 02:00, at 01:00 UTC.
  const twice = window({ from: '02:30', to: '02:45', timeZone: 'Europe/Berlin' });
  const open = (iso: string): boolean => isOpen(twice, at(iso));
  assert.deepEqual(
    ['00:29', '00:30', '00:45', '01:29', '01:30', '01:45'].map((time) => open(`2026-10-25T${time}:00Z`)),
    [false, true, false, false, true, false],
  );
});

for (const timeZone of [
  'UTC',
  'Europe/Berlin',
  'America/St_Johns',
  'Australia/Lord_Howe',
  'Asia/Kathmandu',
  'Pacific/Chatham',
  'Africa/Casablanca',
]) {
  test(`no window of ${timeZone} opens or closes before the next look at it`, () => {
    for (const [from, to] of [
      ['02:10', '02:50'],
      ['23:30', '00:30'],
      ['00:00', '24:00'],
    ] as const) {
      const of = window({ from, to, timeZone, days: ['sun'] });
      const fresh = window({ from, to, timeZone, days: ['sun'] });
      for (const begin of ['2026-03-28T12:00:00Z', '2026-10-24T12:00:00Z', '2026-04-04T00:00:00Z', '2026-10-31T12:00:00Z']) {
        const endMs = at(begin) + 36 * 3_600_000;
        for (let look = at(begin); look < endMs;) {
          const next = nextLook(of, look);
          assert.ok(next > look);
          const now = isOpen(of, look);
          for (let ms = look; ms < next; ms += 60_000 - (ms % 60_000)) assert.equal(isOpen(fresh, ms), now, new Date(ms).toISOString());
          look = next;
        }
      }
    }
  });
}

test('a time zone is a name that is known', () => {
  for (const name of ['Europe/Atlantis', '', 'Local', '../etc/passwd', 'GMT+25']) assert.equal(parseTimeZone(name), undefined, name);
  for (const name of ['UTC', 'America/New_York']) assert.ok(parseTimeZone(name) !== undefined, name);
});

test('windows of one time zone share its clock, which is asked once', () => {
  assert.equal(window({ timeZone: 'Asia/Tokyo' }).zone, window({ timeZone: 'Asia/Tokyo', from: '10:00' }).zone);
  const started = process.cpuUsage();
  const many = Array.from({ length: 10_000 }, () => window({ timeZone: 'Asia/Tokyo' }));
  for (let quarter = 0; quarter < 10; quarter++) for (const each of many) isOpen(each, at('2026-12-01T00:00:00Z') + quarter * 900_000);
  // By themselves they take seconds.
  assert.ok(process.cpuUsage(started).user < 500_000);
});
