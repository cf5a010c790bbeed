import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bindAny } from './any-address.ts';

/** What is tried, in order, where each address of `failing` fails with its code. */
async function tried(
  host: string,
  failing: Readonly<Record<string, string>>,
): Promise<{ readonly hosts: readonly string[]; readonly code: string | undefined }> {
  const hosts: string[] = [];
  try {
    await bindAny({ host }, (where) => {
      hosts.push(where.host);
      const code = failing[where.host];
      return code === undefined ? Promise.resolve() : Promise.reject(Object.assign(new Error(code), { code }));
    });
    return { hosts, code: undefined };
  } catch (cause) {
    return { hosts, code: (cause as { code?: string }).code };
  }
}

test('every address is that of IPv4 where there is no IPv6, and nothing else is mended', async () => {
  assert.deepEqual(await tried('::', {}), { hosts: ['::'], code: undefined });
  for (const code of ['EAFNOSUPPORT', 'EADDRNOTAVAIL'])
    assert.deepEqual(await tried('::', { '::': code }), { hosts: ['::', '0.0.0.0'], code: undefined });
  assert.deepEqual(await tried('::', { '::': 'EAFNOSUPPORT', '0.0.0.0': 'EADDRINUSE' }), { hosts: ['::', '0.0.0.0'], code: 'EADDRINUSE' });
  assert.deepEqual(await tried('::', { '::': 'EADDRINUSE' }), { hosts: ['::'], code: 'EADDRINUSE' });
  for (const code of ['EAFNOSUPPORT', 'EADDRNOTAVAIL']) assert.deepEqual(await tried('::1', { '::1': code }), { hosts: ['::1'], code });
});
