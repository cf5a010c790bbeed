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
  ])
    assert.ok(!comparableHost(authority).ok, authority);
});
