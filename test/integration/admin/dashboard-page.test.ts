import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createAdminParts, startService } from '../../support/admin/admin.ts';
import { ask } from '../../support/http/http.ts';

const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

test('the dashboard comes from the admin listener alone, whoever links to it, and runs nothing that does not', async (t) => {
  const { adminServer, metricsServer } = await createAdminParts();
  const admin = await startService(t, adminServer());
  const metrics = await startService(t, metricsServer());

  for (const [path, type] of [
    ['/', 'text/html; charset=utf-8'],
    ['/dashboard.js', 'text/javascript; charset=utf-8'],
    ['/dashboard.css', 'text/css; charset=utf-8'],
  ] as const) {
    const { status, headers, body } = await ask(admin, path, { headers: [['sec-fetch-site', 'cross-site']] });
    assert.equal(status, 200, path);
    assert.ok(body.length > 500, path);
    assert.equal(headers['content-type'], type);
    assert.equal(headers['content-security-policy'], POLICY);
    assert.equal(headers['x-content-type-options'], 'nosniff');
    assert.equal(headers['referrer-policy'], 'no-referrer');
    assert.equal(headers['cross-origin-opener-policy'], 'same-origin');
    assert.equal(headers['cross-origin-resource-policy'], 'same-origin');
    assert.equal(headers['cache-control'], 'no-store');
    assert.equal(headers['access-control-allow-origin'], undefined);
    assert.equal((await ask(metrics, path)).status, 404, path);
  }
  const { body } = await ask(admin, '/');
  assert.doesNotMatch(body, /<script[^>]*>[^<]|<style|\son\w+=|\sstyle=/);
  assert.doesNotMatch(body, /(?:src|href)="(?:https?:)?\/\//);
});

test('a name that was made to point here gets no page', async (t) => {
  const { adminServer } = await createAdminParts();
  const admin = await startService(t, adminServer());

  assert.equal((await ask(admin, '/', { headers: [['host', 'attacker.example']] })).status, 421);
});
