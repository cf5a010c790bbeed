import { err, ok, type Result } from '../lib/result.ts';

export const DAYS = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'] as const;
export type Day = (typeof DAYS)[number];

/** A recurring window as written. */
export interface WindowSpec {
  readonly days?: readonly Day[] | undefined;
  /** `HH:MM`, inclusive. */
  readonly from: string;
  /** `HH:MM` up to `24:00`, exclusive. At or before `from`: on the next day. */
  readonly to: string;
  /** An IANA name, such as `Europe/Berlin` or `UTC`. */
  readonly timeZone: string;
}

/** A recurring window, compiled. */
export interface TimeWindow {
  readonly zone: TimeZone;
  /** Of the days on which it begins, Monday first. */
  readonly days: readonly boolean[];
  readonly fromMinute: number;
  readonly toMinute: number;
}

/** The clock on the wall of one place. */
export interface TimeZone {
  readonly name: string;
  /** What the clock there is ahead of UTC at `nowMs`, in milliseconds. */
  offsetMs(nowMs: number): number;
}

export interface WindowProblem {
  readonly key: keyof WindowSpec;
  readonly message: string;
}

const MINUTE_MS = 60_000;
const DAY_MINUTES = 1440;
/** Clocks are only ever changed at a multiple of it, everywhere and since 1972, so that what they show is asked once in it. */
const QUARTER_MS = 15 * MINUTE_MS;

/** Reads a window. The errors name the key that is wrong. */
export function parseWindow({ days, from, to, timeZone }: WindowSpec): Result<TimeWindow, readonly WindowProblem[]> {
  const problems: WindowProblem[] = [];
  const fromMinute = parseTime(from);
  const toMinute = parseTime(to);
  const zone = parseTimeZone(timeZone);
  if (fromMinute === undefined || fromMinute === DAY_MINUTES)
    problems.push({ key: 'from', message: `${JSON.stringify(from)} is no time of a day, such as "09:00"` });
  if (toMinute === undefined)
    problems.push({ key: 'to', message: `${JSON.stringify(to)} is no time of a day, such as "17:30" or "24:00"` });
  if (zone === undefined)
    problems.push({
      key: 'timeZone',
      message: `${JSON.stringify(timeZone)} is no time zone that is known here, such as "Europe/Berlin" or "UTC"`,
    });
  if (days?.length === 0) problems.push({ key: 'days', message: 'a window without days never opens' });
  if (fromMinute !== undefined && fromMinute === toMinute)
    problems.push({ key: 'to', message: `a window from ${from} to ${to} never opens; a whole day is from 00:00 to 24:00` });
  if (problems.length > 0 || fromMinute === undefined || toMinute === undefined || zone === undefined) return err(problems);
  return ok({ zone, days: DAYS.map((day) => days === undefined || days.includes(day)), fromMinute, toMinute });
}

/**
 * Whether the clock on the wall there shows a time within the window. So a window that lies in the hour that is left out in
 * spring does not open that day, and one in the hour that comes twice in autumn opens twice.
 */
export function isOpen({ zone, days, fromMinute, toMinute }: TimeWindow, nowMs: number): boolean {
  const wall = Math.floor((nowMs + zone.offsetMs(nowMs)) / MINUTE_MS);
  const minute = modulo(wall, DAY_MINUTES);
  // 1970-01-01 was a Thursday.
  const today = modulo(Math.floor(wall / DAY_MINUTES) + 3, 7);
  if (fromMinute < toMinute) return days[today] === true && minute >= fromMinute && minute < toMinute;
  // It belongs to the day on which it begins.
  return (days[today] === true && minute >= fromMinute) || (days[modulo(today - 1, 7)] === true && minute < toMinute);
}

/** A time after `nowMs` and not later than the next one at which the window opens or closes: then it is to be asked again. */
export function nextLook({ zone, fromMinute, toMinute }: TimeWindow, nowMs: number): number {
  const quarter = (Math.floor(nowMs / QUARTER_MS) + 1) * QUARTER_MS;
  const wallMs = nowMs + zone.offsetMs(nowMs);
  const until = (minute: number): number => {
    const aheadMs = modulo(minute * MINUTE_MS - wallMs, DAY_MINUTES * MINUTE_MS);
    return nowMs + (aheadMs === 0 ? DAY_MINUTES * MINUTE_MS : aheadMs);
  };
  return Math.min(quarter, until(fromMinute), until(toMinute % DAY_MINUTES), until(0));
}

/** As many windows as there may be, they are of few time zones, and the clock of one is large and slow to ask. */
const timeZones = new Map<string, TimeZone>();

/** A time zone by its name; undefined if there is none such. Of one name it is the same each time. */
export function parseTimeZone(name: string): TimeZone | undefined {
  const known = timeZones.get(name) ?? openTimeZone(name);
  if (known !== undefined) timeZones.set(name, known);
  return known;
}

function openTimeZone(name: string): TimeZone | undefined {
  let format: Intl.DateTimeFormat;
  try {
    format = new Intl.DateTimeFormat('en-GB', { timeZone: name, hourCycle: 'h23', ...FIELDS });
  } catch {
    return undefined;
  }
  let askedFor = Number.NaN;
  let answer = 0;
  return {
    name,
    offsetMs(nowMs) {
      const quarter = Math.floor(nowMs / QUARTER_MS);
      if (quarter !== askedFor) {
        answer = wallTimeOf(format, quarter * QUARTER_MS) - quarter * QUARTER_MS;
        askedFor = quarter;
      }
      return answer;
    },
  };
}

const FIELDS = {
  year: 'numeric',
  month: 'numeric',
  day: 'numeric',
  hour: 'numeric',
  minute: 'numeric',
  second: 'numeric',
  era: 'short',
} as const;

/** What the clock shows, as if it were UTC. */
function wallTimeOf(format: Intl.DateTimeFormat, ms: number): number {
  const shown = new Map(format.formatToParts(ms).map(({ type, value }) => [type, value]));
  const part = (type: Intl.DateTimeFormatPartTypes): number => Number(shown.get(type));
  const year = shown.get('era') === 'BC' ? 1 - part('year') : part('year');
  return Date.UTC(year, part('month') - 1, part('day'), part('hour'), part('minute'), part('second'));
}

function parseTime(text: string): number | undefined {
  const parts = /^([01]\d|2[0-4]):([0-5]\d)$/.exec(text);
  if (parts === null) return undefined;
  const minute = Number(parts[1]) * 60 + Number(parts[2]);
  return minute > DAY_MINUTES ? undefined : minute;
}

function modulo(value: number, by: number): number {
  return ((value % by) + by) % by;
}
