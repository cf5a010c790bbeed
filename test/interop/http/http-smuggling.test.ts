import assert from 'node:assert/strict';
import { createHash, X509Certificate } from 'node:crypto';
import { test, type TestContext } from 'node:test';
import { WEB } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { BAD_BODIES, SMUGGLING } from '../../support/http/http-corpus.ts';
import { MIXTURES, type ExpectedRequest } from '../../support/http/http-mixtures.ts';
import { send, startHttpInbound } from '../../support/http/http-stage.ts';
import { readResponsesWithLlhttp } from '../../support/http/llhttp.ts';
import type { LogLine } from '../../support/sidecar.ts';
import { needs, type PartName } from '../parts.ts';
import { startWebServer, WEB_SERVERS, type SeenRequest, type WebServer, type WebServerName } from './web-servers.ts';

const PARTS: Readonly<Record<WebServerName, readonly PartName[]>> = {
  Node: [],
  Go: ['go-spiffe'],
  gunicorn: ['python'],
  waitress: ['python'],
  uvicorn: ['python'],
  nginx: ['nginx'],
};

for (const name of WEB_SERVERS) {
  test(`${name} and Scute agree on every request of the smuggling corpus, and on who sent it`, needs(...PARTS[name]), async (t) => {
    const watch = await startWatch(t, await startWebServer(t, name));
    let understood = 0;

    for (const [title, bytes] of SMUGGLING) {
      const { lines, seen, statuses } = await watch.exchange(bytes, []);
      const text = `${title}: ${JSON.stringify(bytes)}`;
      assert.deepEqual(statuses, [400], text);
      assert.deepEqual(
        lines.map(({ result }) => result),
        ['bad_request'],
        text,
      );
      assert.deepEqual(seen, [], text);
    }
    for (const [title, bytes] of BAD_BODIES) {
      const { lines, seen } = await watch.exchange(bytes, []);
      const text = `${title}: ${JSON.stringify(bytes)}`;
      // A server may answer before it has read the body, but none may find it whole.
      assert.equal(lines.length, 1, text);
      assert.deepEqual(seen, [], text);
    }
    for (const { name: title, bytes, whole, refused } of MIXTURES) {
      const { lines, seen, statuses } = await watch.exchange(bytes, whole);
      const text = `${title}: ${JSON.stringify(bytes.slice(0, 400))}`;
      // A server that refuses a request may end the connection with it, and reset it before its answer was read.
      const forwarded = lines.filter(({ result }) => result === 'forwarded' || result === 'upstream_failed');
      const isCut = forwarded.length < whole.length && Number(forwarded.at(-1)?.['status']) >= 400;
      assert.deepEqual(
        forwarded.map(({ method, path }) => `${String(method)} ${String(path)}`),
        whole.slice(0, isCut ? forwarded.length : undefined).map(({ method, target }) => `${method} ${loggedPath(target)}`),
        text,
      );
      assert.deepEqual(
        lines.slice(forwarded.length).map(({ result }) => result),
        refused && !isCut ? ['bad_request'] : [],
        text,
      );
      assert.deepEqual(
        statuses,
        lines.map(({ status }) => status),
        text,
      );
      // What a server refused itself, its application does not see.
      const served = whole.filter((_, index) => forwarded[index]?.['status'] === 200);
      assert.deepEqual(seen.map(essence), served.map(essence), text);
      if (served.length === whole.length) understood++;
    }
    assert.ok(understood > MIXTURES.length * 0.8, `${understood} of ${MIXTURES.length}`);
    await watch.finish();
  });
}

interface Exchange {
  /** What Scute logged of its requests. */
  readonly lines: readonly LogLine[];
  /** What the server took for whole. */
  readonly seen: readonly SeenRequest[];
  /** Of the responses that the client got, without interim ones. */
  readonly statuses: readonly number[];
}

/** Sends one case after the other, and tells of each what the server saw. All of it must have our identity fields, and no others. */
async function startWatch(t: TestContext, server: WebServer) {
  const stage = await startHttpInbound(t, server.address, { http: { spiffeIdHeader: 'X-Peer' } });
  const hash = new X509Certificate(stage.web.cert).fingerprint256.replaceAll(':', '').toLowerCase();
  const ours = [`x-forwarded-client-cert: By=spiffe://example.org/api;Hash=${hash};URI=${WEB}`, `x-peer: ${WEB}`];
  // However it is spelt.
  const identityIn = (pairs: SeenRequest['fields']): string[] =>
    pairs
      .map(([name, value]) => `${name.toLowerCase().replace(/[^a-z0-9]/g, '-')}: ${value}`)
      .filter((field) => /^x-(?:forwarded-client-cert|peer):/.test(field))
      .toSorted();
  let logged = 0;
  let told = 0;
  let brokenOff = 0;

  const exchange = async (bytes: string, whole: readonly ExpectedRequest[]): Promise<Exchange> => {
    const line = await send(stage, bytes);
    line.socket.end();
    const { text } = await line.over();
    const read = readResponsesWithLlhttp(
      Buffer.from(text, 'latin1'),
      whole.map(({ method }) => method),
      { ended: true },
    );
    assert.equal(read.problem, undefined, `${JSON.stringify(bytes)} was answered ${JSON.stringify(text)}`);
    const log = stage.sidecar.log();
    const lines = log.slice(logged).filter(({ message }) => message === 'request finished');
    logged = log.length;
    const served = lines.filter(({ result, status }) => result === 'forwarded' && status === 200).length;
    const seen: SeenRequest[] = [];
    await eventually(() => {
      // Those that were broken off come when they come.
      for (const request of server.seen().slice(told)) {
        told++;
        assert.deepEqual(identityIn(request.fields), ours, JSON.stringify(bytes));
        assert.deepEqual(identityIn(request.trailers), [], JSON.stringify(bytes));
        if (request.whole) seen.push(request);
        else brokenOff++;
      }
      return Promise.resolve(
        assert.ok(seen.length >= Math.min(whole.length, served), `${JSON.stringify(bytes)} was seen as ${JSON.stringify(seen)}`),
      );
    });
    return { lines, seen, statuses: read.messages.map(({ status }) => status).filter((status) => status >= 200) };
  };
  return {
    exchange,
    /** No request was seen that was not sent. */
    async finish(): Promise<void> {
      const { seen } = await exchange('GET /end HTTP/1.1\r\nHost: a\r\n\r\n', [{ method: 'GET', target: '/end', body: '' }]);
      assert.deepEqual(
        seen.map(({ target }) => target),
        ['/end'],
      );
      assert.ok(brokenOff <= BAD_BODIES.length, `${brokenOff}`);
    },
  };
}

function loggedPath(target: string): string {
  return target.replace(/\?.*/, '').slice(0, 1024);
}

function essence(request: SeenRequest | ExpectedRequest): string {
  const { method } = request;
  // ASGI does not tell an empty query from none.
  const target = request.target.replace(/\?$/, '');
  const { bytes, sha256 } = 'body' in request ? describeBody(request.body) : request;
  return `${method} ${target} ${bytes} ${sha256}`;
}

function describeBody(body: string): { readonly bytes: number; readonly sha256: string } {
  return { bytes: body.length, sha256: createHash('sha256').update(Buffer.from(body, 'latin1')).digest('hex') };
}
