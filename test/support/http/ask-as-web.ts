import assert from 'node:assert/strict';
import type { OutgoingHttpHeaders } from 'node:http2';
import type { TestContext } from 'node:test';
import { WEB, type InboundStage } from '../data-path.ts';
import { request, startClient } from './http2-stage.ts';

/**
 * One request over HTTP/2 of web, for `/one` with a query and with a forged identity, is answered with `ok`; the request and the connection
 * are logged and counted as what they were, whatever the application speaks.
 */
export async function askAsWeb(t: TestContext, stage: InboundStage, fields: OutgoingHttpHeaders): Promise<void> {
  const client = await startClient(t, stage);

  const answer = await request(client, { ':path': '/one?q=secret', 'x-forwarded-client-cert': 'forged', ...fields });

  assert.deepEqual([answer.status, answer.body.toString(), answer.reset], [200, 'ok', undefined]);
  const [line] = stage.sidecar.log().filter(({ message }) => message === 'request finished');
  assert.deepEqual(
    ['method', 'path', 'host', 'http_version', 'status', 'result', 'verdict', 'peer_id'].map((name) => line?.[name]),
    ['GET', '/one', 'api:443', '2', 200, 'forwarded', 'allow', WEB],
  );
  assert.equal(await stage.sidecar.metric('scute_http_requests_total', { listener: 'in', status: '200', result: 'forwarded' }), 1);
  client.close();
  const connection = await stage.sidecar.connection();
  assert.deepEqual([connection['alpn'], connection['close_reason']], ['h2', 'finished']);
  assert.ok(Number(connection['bytes_from_downstream']) > 50 && Number(connection['bytes_to_downstream']) > 50);
}
