import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ENABLE_CONNECT_PROTOCOL, INITIAL_WINDOW_SIZE, Settings, settingsPayload } from './settings.ts';

const take = (settings: Settings, isClient: boolean, ...pairs: readonly (readonly [number, number])[]) => {
  const payload = settingsPayload(pairs);
  return settings.take(payload, 0, payload.length, isClient)?.detail;
};

test('a server that offers extended CONNECT cannot take it back, and what a client says of it means nothing', () => {
  const server = new Settings();
  assert.equal(take(server, false, [ENABLE_CONNECT_PROTOCOL, 0]), undefined);
  assert.equal(server.enablesConnect, false);
  assert.equal(take(server, false, [ENABLE_CONNECT_PROTOCOL, 1]), undefined);
  assert.equal(take(server, false, [INITIAL_WINDOW_SIZE, 1], [ENABLE_CONNECT_PROTOCOL, 1]), undefined);
  assert.equal(server.enablesConnect, true);
  assert.match(String(take(server, false, [ENABLE_CONNECT_PROTOCOL, 0])), /ENABLE_CONNECT_PROTOCOL that may not be/);
  assert.match(String(take(new Settings(), false, [ENABLE_CONNECT_PROTOCOL, 1], [ENABLE_CONNECT_PROTOCOL, 0])), /may not be/);

  const client = new Settings();
  for (const value of [1, 0, 1]) assert.equal(take(client, true, [ENABLE_CONNECT_PROTOCOL, value]), undefined);
  for (const isClient of [true, false]) assert.match(String(take(new Settings(), isClient, [ENABLE_CONNECT_PROTOCOL, 2])), /may not be/);
});
