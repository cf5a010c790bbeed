import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ResponseCourse } from './response-course.ts';

const GET = { method: 'GET', asksSwitch: false };
const SWITCH = { method: 'GET', asksSwitch: true };
const SHORT = 'the body is shorter than Content-Length says';
const LONG = 'the body is longer than Content-Length says';

const final = (announced?: number, status = 200): { status: number; announced: number | undefined } => ({ status, announced });

test('a body is exactly as long as it was announced, however it ends', () => {
  const whole = new ResponseCourse();
  assert.equal(whole.head(final(5), GET, false), undefined);
  assert.equal(whole.content(4, false), undefined);
  assert.equal(whole.content(1, true), undefined);

  const long = new ResponseCourse();
  long.head(final(5), GET, false);
  assert.equal(long.content(6, false), LONG);

  for (const end of ['head', 'content', 'trailers'] as const) {
    const short = new ResponseCourse();
    const problem = short.head(final(5), GET, end === 'head');
    if (end === 'content') assert.equal(short.content(4, true), SHORT);
    else assert.equal(end === 'head' ? problem : short.trailers([['x', 'y']], true, 10), SHORT);
  }
  const unannounced = new ResponseCourse();
  unannounced.head(final(), GET, false);
  assert.equal(unannounced.content(1_000_000, false), undefined);
  assert.equal(unannounced.content(0, true), undefined);
});

test('what has no body may announce one, and have none', () => {
  for (const [head, request] of [
    [final(5), { ...GET, method: 'HEAD' }],
    [final(5, 304), GET],
    [final(undefined, 204), GET],
  ] as const) {
    assert.equal(new ResponseCourse().head(head, request, true), undefined);
    const course = new ResponseCourse();
    assert.equal(course.head(head, request, false), undefined);
    assert.equal(course.content(1, false), LONG);
  }
});

test('interim responses never end a response, and their number has an end', () => {
  const course = new ResponseCourse();
  assert.equal(course.head(final(undefined, 103), GET, true), '103 ends the response');
  for (let said = 0; said < 64; said++) assert.equal(course.head(final(undefined, 103), GET, false), undefined);
  assert.equal(course.head(final(undefined, 103), GET, false), 'too many interim responses');
  assert.equal(course.head(final(), GET, false), undefined);
});

test('a stream is switched by a success alone, and has no length and no trailers then', () => {
  const switched = new ResponseCourse();
  assert.equal(switched.head(final(), SWITCH, false), undefined);
  assert.equal(switched.isSwitched, true);
  assert.equal(switched.trailers([], true, 10), 'trailers on a stream that was switched to another protocol');

  const refused = new ResponseCourse();
  assert.equal(refused.head(final(2, 403), SWITCH, false), undefined);
  assert.equal(refused.isSwitched, false);
  assert.equal(refused.content(2, true), undefined);

  assert.equal(new ResponseCourse().head(final(2), SWITCH, false), 'a CONNECT that succeeds has no Content-Length');
});

test('trailers end the response, and say nothing that would frame it anew', () => {
  const course = new ResponseCourse();
  course.head(final(), GET, false);
  assert.equal(course.trailers([], false, 10), 'trailers that do not end the response');
  assert.equal(course.trailers([['content-length', '0']], true, 10), 'a trailer that would frame the message anew');
  assert.equal(course.trailers([['grpc-status', '0']], true, 10), undefined);
});
