import assert from 'node:assert/strict';
import { test } from 'node:test';
import { comparableHost, comparablePath } from './request.ts';

test('a path is compared without its query, its hex in upper case, and all else as it was sent', () => {
  for (const [target, path] of [
    ['/', '/'],
    ['/a/b/', '/a/b/'],
    ['/a?x=/../%2f', '/a'],
    ['/%e4%C3/%7b', '/%E4%C3/%7B'],
    ['/pkg.Service/Method', '/pkg.Service/Method'],
    ['/.well-known/x', '/.well-known/x'],
    ['/...', '/...'],
    ['/a:b@c,d=e+f~!$&()*', '/a:b@c,d=e+f~!$&()*'],
    ['*', '*'],
  ] as const)
    assert.deepEqual(comparablePath(target), { ok: true, value: path });
});

test('a path that servers read in more than one way is none', () => {
  const bad = [
    '',
    'a',
    '//',
    '/a//b',
    '/a//',
    '/.',
    '/..',
    '/./',
    '/a/./b',
    '/a/../b',
    '/a/..',
    '/a/.?x',
    '/\\',
    '/a;b',
    '/a#',
    '/a\x00',
    '/a b',
    '/ä',
    '/a\x7f',
  ];
  const encoded = ['%2f', '%5c', '%2e', '%25', '%00', '%61', '%41', '%30', '%2d', '%5f', '%7e', '%', '%4', '%zz', '%u0041', '%2', '%%'];
  for (const hex of encoded) bad.push(`/${hex}`, `/${hex.toUpperCase()}`, `/a/${hex}/b`, `/%e4${hex}`);
  for (const target of bad) assert.ok(!comparablePath(target).ok, target);
  // Overlong forms of "/", "." and "a", and what the worst decoders take for one.
  for (const hex of [
    '%c0%af',
    '%C0%AE',
    '%c1%a1',
    '%c1%1c',
    '%c0',
    '%e0%80%af',
    '%E0%81%A1',
    '%f0%80%80%af',
    '%f8%80%80%80%af',
    '%fc%80%80%80%80%af',
  ])
    assert.ok(!comparablePath(`/x${hex}`).ok, hex);
  for (const hex of ['%C3%A4', '%E0%A0%80', '%E4', '%E0', '%F0%9F%90%A2', '%F4%8F%BF%BF', '%ED%9F%BF', '%FC', '%F0', '%E0%20'])
    assert.deepEqual(comparablePath(`/x${hex}`), { ok: true, value: `/x${hex}` });
  // All of it in the query is nobody's business.
  for (const hex of encoded) assert.ok(comparablePath(`/?${hex}`).ok);
});

test('a host is compared in lower case, without port and final dot', () => {
  for (const [authority, host] of [
    ['API', 'api'],
    ['api:8080', 'api'],
    ['api:', 'api'],
    ['Api.Example.COM.:443', 'api.example.com'],
    ['127.0.0.1:1', '127.0.0.1'],
    ['[::1]:80', '[::1]'],
    ['[0:0::0:1]', '[::1]'],
    ['1.example', '1.example'],
    ['x1.0xg', 'x1.0xg'],
    ['a.2b', 'a.2b'],
  ] as const)
    assert.deepEqual(comparableHost(authority), { ok: true, value: host });
});

test('a host that servers read in more than one way is none', () => {
  for (const authority of [
    '',
    ':80',
    '.',
    '.:1',
    'a..b',
    'a..',
    '.a',
    '%61pi',
    'a%2eb',
    "a'b",
    'a,b',
    '[::1',
    '[x]',
    '[::1%25eth0]',
    '[v1.x]',
    '[127.0.0.1]',
    '[::ffff:127.0.0.1]',
    '[::ffff:7f00:1]',
    // 127.0.0.1 to those who read URLs as browsers do.
    '127.1',
    '127.1.',
    '2130706433',
    '0x7f000001',
    '0x7F.0.0.1',
    '0177.0.0.1',
    '127.0.0.01',
    '127.0.0.0x1',
    '127.0.0.1.0x',
    'a.0x',
    '1.2.3.4.5',
    // Another host to those who put it into a URL.
    'a:80@b',
    'a:1:2',
    '[::1]:80@b',
    'a:65536x',
  ])
    assert.ok(!comparableHost(authority).ok, authority);
});
