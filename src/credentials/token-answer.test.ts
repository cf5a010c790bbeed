import assert from 'node:assert/strict';
import { test } from 'node:test';
import { errorIn, headProblem, tokenIn } from './token-answer.ts';

const NOW = Date.UTC(2027, 0, 1);
const GOOD = { access_token: 'opaque', token_type: 'Bearer', expires_in: 3600 };
const body = (value: unknown): Buffer => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value));
const jwt = (claims: object): string => `e30.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.c2ln`;

function reasonOf(value: unknown): string {
  const read = tokenIn(body(value), NOW);
  return read.ok ? `ok ${read.value.expiresAtMs - NOW}` : read.error.reason;
}

test('a token is taken as long as it says how long it lives and can stand in a field', () => {
  assert.equal(reasonOf(GOOD), 'ok 3600000');
  assert.equal(reasonOf({ ...GOOD, token_type: 'bearer' }), 'ok 3600000');
  assert.equal(reasonOf({ ...GOOD, expires_in: '60' }), 'ok 60000');
  for (const access_token of ['', undefined, 7, 'two words', 'a\r\nX-Admin: 1', 'a\u0000', 'é', 'a'.repeat(16_385)])
    assert.equal(reasonOf({ ...GOOD, access_token }), 'bad_answer', JSON.stringify(access_token));
  for (const token_type of [undefined, '', 'mac', 'DPoP', 'N_A', 7, 'Bearer '])
    assert.equal(reasonOf({ ...GOOD, token_type }), 'bad_token_type');
  for (const expires_in of [undefined, null, 0, -1, 0.5, '', '1e9', 'soon', 1e12, [3600], true])
    assert.equal(reasonOf({ ...GOOD, expires_in }), 'bad_expiry', JSON.stringify(expires_in));
  for (const text of ['', 'null', '[]', '"token"', '{', '<html>', '\ufeff{}', Buffer.from([0xff, 0xfe]).toString('latin1')])
    assert.equal(reasonOf(text), 'bad_answer', text);
});

test('a token that is a JWT is not good for longer than it says itself', () => {
  assert.equal(reasonOf({ ...GOOD, access_token: jwt({ exp: NOW / 1000 + 60 }) }), 'ok 60000');
  assert.equal(reasonOf({ ...GOOD, access_token: jwt({ exp: NOW / 1000 + 7200 }) }), 'ok 3600000');
  assert.equal(reasonOf({ ...GOOD, access_token: jwt({ exp: NOW / 1000 - 1 }) }), 'ok -1000');
  for (const access_token of [jwt({}), jwt({ exp: 'soon' }), 'a.b.c', 'a..c'])
    assert.equal(reasonOf({ ...GOOD, access_token }), 'ok 3600000');
});

test('an id_token beside it may be from anybody and for anybody, but must be one', () => {
  const foreign = jwt({ iss: 'https://login.example', aud: 'somebody', sub: 'x', exp: NOW / 1000 - 60 });
  for (const id_token of [foreign, 'e30.a2V5.aXY.dGV4dA.dGFn']) assert.equal(reasonOf({ ...GOOD, id_token }), 'ok 3600000', id_token);
  for (const id_token of [
    7,
    null,
    '',
    'opaque',
    'a.b.c',
    'e30.W10.c2ln',
    'e30.e30',
    'e30.e30.c2ln.',
    'e30.e30.c2l n',
    'W10.a2V5.aXY.dGV4dA.dGFn',
    {},
  ])
    assert.equal(reasonOf({ ...GOOD, id_token }), 'bad_answer', JSON.stringify(id_token));
});

test('what was issued in exchange must be an access token, whatever it is called besides', () => {
  const type = (name: string): string => `urn:ietf:params:oauth:token-type:${name}`;
  for (const issued_token_type of [type('access_token'), type('jwt')]) assert.equal(reasonOf({ ...GOOD, issued_token_type }), 'ok 3600000');
  for (const issued_token_type of [type('id_token'), type('refresh_token'), type('saml2'), '', 7, null])
    assert.equal(reasonOf({ ...GOOD, issued_token_type }), 'bad_token_type', JSON.stringify(issued_token_type));
});

test('what is no success is told apart by the head, and by errors that are known', () => {
  const head = (status: number, type?: string) =>
    headProblem({ status, headers: type === undefined ? {} : { 'content-type': type } })?.reason;
  const json = 'application/json;charset=UTF-8';
  assert.equal(head(200, json), undefined);
  assert.equal(head(400, json), undefined);
  assert.equal(head(302, json), 'redirected');
  assert.equal(head(307), 'redirected');
  assert.equal(head(503, json), 'server_error');
  assert.equal(head(200, 'text/html'), 'bad_content_type');
  assert.equal(head(200), 'bad_content_type');
  assert.equal(head(404, 'text/html'), 'bad_status');

  const error = (value: unknown) => errorIn({ status: 401, headers: {}, body: body(value) });
  assert.deepEqual(error({ error: 'invalid_client', error_description: 'the assertion eyJhbGciOi… is wrong' }), {
    reason: 'refused',
    detail: 'the token endpoint answered 401: invalid_client',
  });
  assert.match(
    error({ error: 'invalid_client', error_description: 'AADSTS700213: No matching' }).detail,
    /invalid_client \(AADSTS700213\)$/,
  );
  assert.match(error({ error: jwt({}) }).detail, /401: an error of its own$/);
  assert.equal(error({ message: 'no' }).reason, 'bad_status');
  assert.equal(error('<html>').reason, 'bad_status');
});

test('nothing of what an endpoint says is told', () => {
  const secret = 'c2VjcmV0';
  for (const value of [
    { ...GOOD, access_token: `${secret} ${secret}` },
    { ...GOOD, access_token: secret, token_type: secret },
    { ...GOOD, access_token: secret, expires_in: secret },
    secret,
  ]) {
    const read = tokenIn(body(value), NOW);
    assert.ok(!read.ok && !read.error.detail.includes(secret));
  }
  assert.ok(!errorIn({ status: 400, headers: {}, body: body({ error: secret, error_description: secret }) }).detail.includes(secret));
});
