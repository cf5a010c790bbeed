/** Policies in files of their own, with the listeners that use them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { presented, startInbound, WEB, type StageOptions } from '../support/data-path.ts';
import { eventually } from '../support/eventually.ts';
import { wire } from '../support/http-stage.ts';
import { policyText, startPolicyFile } from '../support/policy-file.ts';
import { type LogLine, type Sidecar } from '../support/sidecar.ts';
import { startEcho } from '../support/tcp.ts';
import { outcome, tlsClient } from '../support/tls-peer.ts';

const OTHER = 'spiffe://example.org/other';

/** A listener that takes its policy from this file. */
function from(policyFile: string, more: object = {}): StageOptions {
  return { listener: { allow: undefined, policyFile, ...more } };
}

function told(sidecar: Sidecar): readonly LogLine[] {
  return sidecar.log().filter(({ message }) => message.startsWith('policy file'));
}

async function toldTimes(sidecar: Sidecar, times: number): Promise<LogLine> {
  return eventually(() => {
    const lines = told(sidecar);
    assert.equal(lines.length, times, JSON.stringify(lines));
    return Promise.resolve(lines.at(-1) as LogLine);
  });
}

test('a policy file says who may connect; when it changes, live connections are judged by it', async (t) => {
  const file = await startPolicyFile(t, policyText([WEB]));
  const application = await startEcho(t);
  const stage = await startInbound(t, application.address, from(file.path));
  const other = presented(await stage.spiffe.issue(OTHER));
  const socket = await stage.connect();
  assert.equal((await outcome(tlsClient(t, stage.address, other))).text, '');

  await file.replace(policyText([OTHER]));

  const line = await toldTimes(stage.sidecar, 2);
  assert.deepEqual(
    [line.message, line['file'], line['entries'], line['added'], line['removed'], line['differences']],
    ['policy file reloaded', file.path, 1, 1, 1, [`+ allow ${OTHER}`, `- allow ${WEB}`]],
  );
  await outcome(socket);
  assert.equal((await stage.sidecar.connection(({ reason }) => reason === 'policy'))['peer_id'], WEB);
  const admitted = wire(tlsClient(t, stage.address, other));
  admitted.socket.write('x');
  await admitted.until('x');
});
