import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import type { ServerResponse } from 'node:http';
import { join } from 'node:path';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import type * as api from '../../../src/fleet/api-types.ts';
import { startChild } from '../../support/child.ts';
import { scute } from '../../support/command.ts';
import { eventually } from '../../support/eventually.ts';
import { createTestAuthority } from '../../support/pki/pki.ts';
import {
  assertFleetSchema,
  json,
  NOW_SECONDS,
  startFleet,
  startStandIn,
  vector,
  type Play,
  type Series,
} from '../../support/admin/prometheus.ts';
import { freePort } from '../../support/tcp.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';

const EXPIRY = 'scute_x509_svid_expiration_timestamp_seconds';
const BEGIN = 'scute_x509_svid_not_before_timestamp_seconds';
const LISTS = ['certificates', 'groups?by=issuer', 'sidecars', 'unreachable', 'authorities', 'lagging'];
const HOSTILE = '</script><img src=x onerror=alert(1)>"\u202e\u2028&';

function svid(index: number, value: number, labels: Readonly<Record<string, string>> = {}): Series {
  const name = String(index).padStart(5, '0');
  return {
    labels: { __name__: EXPIRY, job: 'scute', instance: `10.0.0.1:${name}`, spiffe_id: `spiffe://example.org/${name}`, ...labels },
    value,
  };
}

/** Plays the questions of which pages are made, and no others, of the series that it is given. */
function playPages(series: readonly Series[]): Play {
  return ({ promql }, response) => {
    const values = (fits: (value: number) => boolean): readonly Series[] =>
      series.filter(({ value }) => fits(Number(value))).toSorted((one, other) => Number(one.value) - Number(other.value));
    const numberOf = (text = ''): number => Number(text.replace('Inf', 'Infinity'));
    const [, most, above] = /^bottomk\((\d+), [^ ]+ > (\S+)\)$/.exec(promql) ?? [];
    if (most !== undefined) return vector(response, values((value) => value > numberOf(above)).slice(0, Number(most)));
    const [, mostTied, tied] = /^bottomk\((\d+), [^ ]+ == (\S+)\)$/.exec(promql) ?? [];
    if (mostTied !== undefined) return vector(response, values((value) => value === numberOf(tied)).slice(0, Number(mostTied)));
    const [, counted] = /^count\([^ ]+ == (\S+)\)$/.exec(promql) ?? [];
    if (counted !== undefined) return vector(response, [{ labels: {}, value: values((value) => value === numberOf(counted)).length }]);
    // What the certificates of a page began with: half an hour before they end.
    assert.ok(promql.startsWith(`${BEGIN}{} and (`), promql);
    vector(
      response,
      series.slice(0, 2000).map(({ labels, value }) => ({ labels: { ...labels, __name__: BEGIN }, value: Number(value) - 1800 })),
    );
  };
}

async function everyPage(
  get: (resource: string) => Promise<api.FleetPage<api.FleetCertificate>>,
  limit: number,
): Promise<readonly api.FleetPage<api.FleetCertificate>[]> {
  const pages: api.FleetPage<api.FleetCertificate>[] = [];
  let cursor: string | null = '-Infinity';
  while (cursor !== null) {
    const page = await get(`certificates?limit=${limit}&cursor=${encodeURIComponent(cursor)}`);
    pages.push(page);
    cursor = page.nextCursor;
    assert.ok(pages.length < 1000);
  }
  return pages;
}

test('certificates come soonest to expire first, with what is left of their life and where they are', async (t) => {
  const prometheus = await startStandIn(t);
  const fleet = await startFleet(t, prometheus.url);
  const place = { cluster: 'one', namespace: 'shop', pod: 'api-1', node: 'n7', hint: 'inner', issuer_key_id: 'aa' };
  prometheus.play(playPages([svid(2, NOW_SECONDS + 900), svid(1, NOW_SECONDS + 360, place), svid(3, NOW_SECONDS - 1)]));

  const page = await fleet.get<api.FleetPage<api.FleetCertificate>>('certificates');

  assert.deepEqual(
    page.items.map(({ spiffeId, remainingShare, stuck }) => [spiffeId.slice(-1), remainingShare, stuck]),
    [
      ['3', 0, true],
      ['1', 0.2, true],
      ['2', 0.5, false],
    ],
  );
  assert.deepEqual(page.items[1], {
    spiffeId: 'spiffe://example.org/00001',
    trustDomain: 'example.org',
    hint: 'inner',
    issuerKeyId: 'aa',
    notBefore: new Date((NOW_SECONDS - 1440) * 1000).toISOString(),
    notAfter: new Date((NOW_SECONDS + 360) * 1000).toISOString(),
    remainingShare: 0.2,
    stuck: true,
    sidecar: { job: 'scute', instance: '10.0.0.1:00001', place: { cluster: 'one', namespace: 'shop', pod: 'api-1', node: 'n7' } },
  });
  assert.deepEqual([page.now, page.nextCursor, page.omitted], [new Date(NOW_SECONDS * 1000).toISOString(), null, 0]);
});

test('pages have everything once, whatever expires at the same moment; of more than a thousand at one moment the rest is counted', async (t) => {
  const prometheus = await startStandIn(t);
  const fleet = await startFleet(t, prometheus.url);
  // In heaps of 1, 2, 3 … at one moment each, and one of 60.
  const heaps = [...Array.from({ length: 12 }, (_, index) => index + 1), 60, 1];
  const series = heaps.flatMap((size, heap) => Array.from({ length: size }, (_, index) => svid(heap * 100 + index, NOW_SECONDS + heap)));
  prometheus.play(playPages(series.toReversed()));
  for (const limit of [1, 3, 10, 500]) {
    const pages = await everyPage((resource) => fleet.get(resource), limit);
    assert.deepEqual(
      pages.flatMap(({ items }) => items.map(({ spiffeId }) => spiffeId)),
      series.map(({ labels }) => labels['spiffe_id']),
      `limit ${limit}`,
    );
    assert.ok(pages.every(({ omitted }) => omitted === 0));
  }

  const [many, late] = [Array.from({ length: 1234 }, (_, index) => svid(index, NOW_SECONDS)), svid(9999, NOW_SECONDS + 1)];
  prometheus.play(playPages([late, ...many]));
  const [first, second, ...more] = await everyPage((resource) => fleet.get(resource), 20);
  assert.deepEqual([first?.items.length, first?.omitted, second?.items.length, more.length], [1000, 234, 1, 0]);
});

/** What Prometheus, or whoever took its place, may do; and what is said of it. */
const BAD: readonly (readonly [string, api.FleetProblemReason, (response: ServerResponse) => void])[] = [
  ['HTML', 'not_json', (response) => response.writeHead(200, { 'content-type': 'text/html' }).end('<h1>It works!</h1>')],
  ['HTML that says it is JSON', 'not_json', (response) => response.writeHead(200, { 'content-type': 'application/json' }).end('<h1>')],
  ['JSON of something else', 'not_prometheus', (response) => json(response, 200, { ok: true })],
  ['an array', 'not_prometheus', (response) => json(response, 200, [])],
  ['null', 'not_prometheus', (response) => json(response, 200, null)],
  ['a matrix', 'not_prometheus', (response) => json(response, 200, { status: 'success', data: { resultType: 'matrix', result: [] } })],
  ['no labels', 'not_prometheus', (response) => sample(response, { value: [1, '1'] })],
  ['a label that is no text', 'not_prometheus', (response) => sample(response, { metric: { job: 1 }, value: [1, '1'] })],
  ['a value that is no text', 'not_prometheus', (response) => sample(response, { metric: {}, value: [1, 1] })],
  ['a value that is no number', 'not_prometheus', (response) => sample(response, { metric: {}, value: [1, '1; drop'] })],
  ['a histogram', 'not_prometheus', (response) => sample(response, { metric: {}, histogram: [1, {}] })],
  [
    'half an answer',
    'unreachable',
    (response) =>
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': 9999 }).write('{"status"', () => response.destroy()),
  ],
  ['no answer', 'unreachable', (response) => response.destroy()],
  ['what is packed', 'not_json', (response) => response.writeHead(200, { 'content-type': 'application/json' }).end(gzipSync('{}'))],
  ['an error of its own', 'refused_query', (response) => json(response, 422, { status: 'error', errorType: 'execution', error: 'no' })],
  ['a proxy that fails', 'bad_status', (response) => response.writeHead(502).end('bad gateway')],
  [
    'that it speaks another protocol',
    'bad_status',
    (response) => response.socket?.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n'),
  ],
  ['that it wants a token', 'unauthorized', (response) => json(response, 401, { status: 'error' })],
  ['that it wants another token', 'unauthorized', (response) => response.writeHead(403).end()],
  [
    'too many series',
    'too_many_series',
    (response) =>
      vector(
        response,
        Array.from({ length: 2001 }, (_, index) => svid(index, 1)),
      ),
  ],
  ['a gigabyte', 'too_large', gigabyte],
  ['nothing for long', 'timeout', (response) => response.writeHead(200, { 'content-type': 'application/json' }).write('{')],
  ['a head without end', 'unreachable', (response) => response.socket?.write(`HTTP/1.1 200 OK\r\na: ${'a'.repeat(100_000)}`)],
];

function sample(response: ServerResponse, each: object): void {
  json(response, 200, { status: 'success', data: { resultType: 'vector', result: [each] } });
}

/** As fast as it is taken, until nobody takes it. */
function gigabyte(response: ServerResponse): void {
  const chunk = Buffer.alloc(65_536, ' ');
  let left = 2 ** 30;
  const more = (): void => {
    while (left > 0 && !response.destroyed) {
      left -= chunk.length;
      if (!response.write(chunk)) return void response.once('drain', more);
    }
    response.end();
  };
  response.writeHead(200, { 'content-type': 'application/json' });
  more();
}

for (const [what, reason, play] of BAD) {
  test(`when Prometheus answers ${what}, each answer says ${reason}, and is one`, async (t) => {
    const prometheus = await startStandIn(t);
    // Only what is to be cut off by time has little of it.
    const fleet = await startFleet(t, prometheus.url, { limits: { timeoutMs: reason === 'timeout' ? 200 : 600_000 } });
    prometheus.play((_, response) => play(response));

    for (const list of LISTS) {
      const answer = await fleet.ask(`/api/v1/fleet/${list}`);
      const told: unknown = JSON.parse(answer.body);
      assertFleetSchema('FleetRefusal', told);
      assert.deepEqual([answer.status, (told as api.FleetRefusal).error], [502, reason], list);
    }
    const overview = await fleet.get<api.FleetOverview>('overview');
    for (const part of [overview.counts, overview.firstExpiry, overview.remainingLife, overview.versions])
      assert.deepEqual([part.value, part.problem?.reason], [null, reason]);
    assert.equal(overview.now, null);
    assert.equal((await fleet.get<api.FleetIndex>('')).version, 1);
    assert.equal(fleet.said.length, 1);
    assert.match(fleet.said[0] ?? '', new RegExp(`^no answer from Prometheus: ${reason}: `));
  });
}

test('a Prometheus that is not there is said to be so, and one that comes back is asked', async (t) => {
  const prometheus = await startStandIn(t);
  const nowhere = await startFleet(t, `http://127.0.0.1:${await freePort()}/`);
  const answer = await nowhere.ask('/api/v1/fleet/sidecars');
  assert.deepEqual([answer.status, (JSON.parse(answer.body) as api.FleetRefusal).error], [502, 'unreachable']);

  const fleet = await startFleet(t, prometheus.url);
  prometheus.play((_, response) => response.writeHead(500).end());
  await fleet.get('overview');
  prometheus.play((_, response) => vector(response, []));
  await eventually(async () => {
    assert.equal((await fleet.get<api.FleetOverview>('overview')).counts.problem, null);
  });
  assert.deepEqual(fleet.said, ['no answer from Prometheus: bad_status: it answers 500', 'Prometheus answers again']);
});

test('one question that fails leaves the others', async (t) => {
  const prometheus = await startStandIn(t);
  const fleet = await startFleet(t, prometheus.url);
  prometheus.play(({ promql }, response) =>
    promql.startsWith('topk')
      ? vector(response, [
          { labels: { version: '1.0.0' }, value: 3 },
          { labels: { version: '2.0.0' }, value: 17 },
        ])
      : json(response, 503, { status: 'error', errorType: 'timeout', error: HOSTILE }),
  );
  const overview = await fleet.get<api.FleetOverview>('overview');
  assert.deepEqual(overview.versions.value, [
    { version: '2.0.0', sidecars: 17 },
    { version: '1.0.0', sidecars: 3 },
  ]);
  assert.equal(overview.counts.problem?.reason, 'refused_query');
  assert.ok(overview.now !== null);
});

for (const value of ['NaN', '+Inf', '-1', '0.5'])
  test(`a count of ${value} is no count, and not taken for none`, async (t) => {
    const prometheus = await startStandIn(t);
    const fleet = await startFleet(t, prometheus.url);
    prometheus.play((_, response) => vector(response, [{ labels: { parts: '3' }, value }]));

    const { counts, remainingLife, versions } = await fleet.get<api.FleetOverview>('overview');
    for (const part of [counts, remainingLife, versions]) assert.deepEqual([part.value, part.problem?.reason], [null, 'not_prometheus']);

    // In lists likewise: what is counted beside a row that is as it should be.
    prometheus.play(({ promql }, response) =>
      /^count(?:\(| by)/.test(promql)
        ? vector(response, [{ labels: {}, value }])
        : vector(
            response,
            Array.from({ length: 3 }, (_, index) => svid(index, NOW_SECONDS)),
          ),
    );
    for (const list of ['certificates?limit=2', 'groups?by=issuer', 'sidecars', 'authorities']) {
      const answer = await fleet.ask(`/api/v1/fleet/${list}`);
      assert.deepEqual([answer.status, (JSON.parse(answer.body) as api.FleetRefusal).error], [502, 'not_prometheus'], list);
    }
  });

test('what labels say is text: in JSON nothing that markup would heed, in PromQL nothing but a string', async (t) => {
  const prometheus = await startStandIn(t);
  const fleet = await startFleet(t, prometheus.url);
  prometheus.play(playPages([svid(1, NOW_SECONDS, { spiffe_id: `spiffe://${HOSTILE}/a`, cluster: HOSTILE, node: 'a'.repeat(9000) })]));
  const { body } = await fleet.ask('/api/v1/fleet/certificates');
  assert.doesNotMatch(body, /[<>&\u2028]/);
  const { items } = JSON.parse(body) as api.FleetPage<api.FleetCertificate>;
  assert.equal(items[0]?.sidecar.place.cluster, HOSTILE);
  assert.equal(items[0]?.sidecar.place.node.length, 2048);

  prometheus.play((_, response) => vector(response, []));
  const label = '"} or vector(1) # \\ \n';
  const trustDomain = 'a.b|c").*\n{';
  await fleet.ask(`/api/v1/fleet/certificates?${new URLSearchParams({ cluster: label, trustDomain }).toString()}`);
  const asked = prometheus.questions.at(-1)?.promql ?? '';
  const [, cluster, domain] =
    /^bottomk\(51, \w+\{cluster=("(?:[^"\\]|\\.)*"), spiffe_id=~("(?:[^"\\]|\\.)*")\} > -Inf\)$/.exec(asked) ?? [];
  assert.equal(JSON.parse(cluster ?? ''), label);
  assert.equal(JSON.parse(domain ?? ''), String.raw`spiffe://a\.b\|c"\)\.\*` + '\n' + String.raw`\{(/.*)?`);
});

test('a question mark within a parameter is a part of it: RFC 3986, section 3.4', async (t) => {
  const prometheus = await startStandIn(t);
  const fleet = await startFleet(t, prometheus.url);

  await fleet.ask('/api/v1/fleet/certificates?cluster=one?two');

  assert.match(prometheus.questions.at(-1)?.promql ?? '', /\{cluster="one\?two"\}/);
});

test('a redirect is not followed, and the token goes nowhere else', async (t) => {
  const [prometheus, elsewhere] = [await startStandIn(t), await startStandIn(t)];
  const tokenFile = join(await temporaryFolder(t), 'token');
  await writeFile(tokenFile, 'secret-token\n');
  const fleet = await startFleet(t, prometheus.url, { tokenFile });
  for (const status of [301, 302, 303, 307, 308]) {
    prometheus.play((_, response) => response.writeHead(status, { location: elsewhere.url }).end());
    const answer = await fleet.ask(`/api/v1/fleet/certificates?limit=${status}`);
    assert.equal((JSON.parse(answer.body) as api.FleetRefusal).error, 'redirected');
  }
  assert.deepEqual([prometheus.questions.length, elsewhere.questions.length], [5, 0]);
});

test('the token is read anew for each question, is sent as a bearer token, and is told to nobody else', async (t) => {
  const prometheus = await startStandIn(t);
  const tokenFile = join(await temporaryFolder(t), 'token');
  await writeFile(tokenFile, 'first.token==\n');
  const fleet = await startFleet(t, `${prometheus.url}under/`, { tokenFile });
  await fleet.get('certificates?limit=1');
  await writeFile(tokenFile, 'second');
  await fleet.get('certificates?limit=2');
  assert.deepEqual(
    prometheus.questions.map(({ authorization, path, method }) => [authorization, path, method]),
    [
      ['Bearer first.token==', '/under/api/v1/query', 'POST'],
      ['Bearer second', '/under/api/v1/query', 'POST'],
    ],
  );

  for (const [text, limit] of [
    ['two words', 3],
    ['', 4],
    ['a\r\nx-more: 1', 5],
    ['x'.repeat(20_000), 6],
  ] as const) {
    await writeFile(tokenFile, text);
    const answer = await fleet.ask(`/api/v1/fleet/certificates?limit=${limit}`);
    assert.equal((JSON.parse(answer.body) as api.FleetRefusal).error, 'bad_file');
    assert.ok(text === '' || !answer.body.includes(text.slice(0, 8)));
  }
  assert.equal(prometheus.questions.length, 2, 'nothing is asked without the token that should be there');
  assert.doesNotMatch(fleet.said.join(), /first|second|words|more/);
});

test('over https Prometheus is verified, by the authorities of a file if there is one', async (t) => {
  const authority = createTestAuthority();
  const prometheus = await startStandIn(t, authority.issue({ dnsSans: ['localhost'] }));
  const folder = await temporaryFolder(t);
  const [right, wrong, none] = [join(folder, 'right.pem'), join(folder, 'wrong.pem'), join(folder, 'none.pem')];
  await writeFile(right, authority.pem);
  await writeFile(wrong, createTestAuthority().pem);
  await writeFile(none, 'no certificate');
  const told = async (url: string, caFile: string | undefined): Promise<string> => {
    const fleet = await startFleet(t, url, { caFile });
    const answer = await fleet.ask('/api/v1/fleet/certificates');
    return answer.status === 200 ? 'answered' : (JSON.parse(answer.body) as api.FleetRefusal).error;
  };
  assert.equal(await told(prometheus.url, right), 'answered');
  assert.equal(await told(prometheus.url, wrong), 'tls_failed');
  assert.equal(await told(prometheus.url, undefined), 'tls_failed');
  assert.equal(await told(prometheus.url.replace('localhost', '127.0.0.1'), right), 'tls_failed');
  assert.equal(await told(prometheus.url, none), 'bad_file');
  assert.equal(await told(prometheus.url, join(folder, 'missing.pem')), 'bad_file');
  assert.equal(prometheus.questions.length, 1);
});

test('without such a file its authorities are those of the public web, also where Node is told to leave them to OpenSSL', async (t) => {
  const authority = createTestAuthority();
  const prometheus = await startStandIn(t, authority.issue({ dnsSans: ['localhost'] }));
  const file = join(await temporaryFolder(t), 'ca.pem');
  await writeFile(file, authority.pem);
  const main = join(import.meta.dirname, '../../../src/main.ts');
  for (const [name, option, status] of [
    ['NODE_EXTRA_CA_CERTS', '--use-bundled-ca', 200],
    ['NODE_EXTRA_CA_CERTS', '--use-openssl-ca', 200],
    ['SSL_CERT_FILE', '--use-openssl-ca', 502],
  ] as const) {
    const argv = [
      process.execPath,
      '--disable-sigusr1',
      option,
      main,
      'fleet',
      '--prometheus',
      prometheus.url,
      '--listen',
      '127.0.0.1:0',
    ] as const;
    await using fleet = await startChild(argv, { env: { [name]: file } });
    const { text: url } = await fleet.line(/^http:/);
    const answer = await fetch(`${url}api/v1/fleet/certificates`);
    assert.equal(answer.status, status, `${name} ${option}: ${await answer.text()}`);
  }
});

test('many who ask the same are one question, at most four are asked at once, and too many at once are told so', async (t) => {
  const prometheus = await startStandIn(t);
  const fleet = await startFleet(t, prometheus.url);
  const held: ServerResponse[] = [];
  prometheus.play((_, response) => void held.push(response));
  const same = Array.from({ length: 20 }, () => fleet.ask('/api/v1/fleet/certificates'));
  const others = Array.from({ length: 40 }, (_, index) => fleet.ask(`/api/v1/fleet/certificates?limit=${index + 100}`));
  const busy = await eventually(async () => {
    const answer = await fleet.ask('/api/v1/fleet/certificates?limit=400');
    assert.equal(answer.status, 503);
    return JSON.parse(answer.body) as api.FleetRefusal;
  });
  assert.equal(busy.error, 'busy');
  await eventually(() => Promise.resolve(assert.equal(held.length, 4)));

  // From now on it answers.
  let most = 0;
  let open = held.length;
  prometheus.play((_, response) => {
    open += 1;
    most = Math.max(most, open);
    setImmediate(() => {
      open -= 1;
      vector(response, []);
    });
  });
  for (const response of held) {
    open -= 1;
    vector(response, []);
  }
  assert.ok((await Promise.all(same)).every(({ status }) => status === 200));
  const statuses = (await Promise.all(others)).map(({ status }) => status);
  assert.ok(statuses.every((status) => status === 200 || status === 503));
  assert.ok(most <= 4);
  assert.equal(prometheus.questions.filter(({ parameters }) => parameters.get('query')?.startsWith('bottomk(51,') === true).length, 1);
});

test('questions are bounded for Prometheus, too, and those of one page are about one moment', async (t) => {
  const prometheus = await startStandIn(t);
  const fleet = await startFleet(t, prometheus.url);
  prometheus.play(playPages([svid(1, NOW_SECONDS)]));
  await fleet.get('certificates');
  const [first, second] = prometheus.questions;
  assert.deepEqual([...(first?.parameters.keys() ?? [])], ['query', 'timeout', 'limit']);
  assert.deepEqual([first?.parameters.get('timeout'), first?.parameters.get('limit')], ['10s', '2000']);
  assert.equal(second?.parameters.get('time'), String(NOW_SECONDS));
});

test('a stop does not wait for Prometheus', async (t) => {
  const prometheus = await startStandIn(t);
  const fleet = await startFleet(t, prometheus.url, { limits: { timeoutMs: 3_600_000 } });
  const asked = new Promise<ServerResponse>((resolve) => prometheus.play((_, response) => resolve(response)));
  const answer = fleet.ask('/api/v1/fleet/certificates');
  const response = await asked;
  const left = once(response, 'close');
  await fleet.stop();
  await left;
  assert.equal((await answer).status, 502);
});

test('the fleet is read as the admin listener is: not by pages of others, not under foreign names, not with words that it does not know', async (t) => {
  const prometheus = await startStandIn(t);
  const fleet = await startFleet(t, prometheus.url);
  const refused = async (path: string, options: Parameters<typeof fleet.ask>[1], status: number, error: string): Promise<void> => {
    const answer = await fleet.ask(path, options);
    const told: unknown = JSON.parse(answer.body);
    assertFleetSchema('FleetRefusal', told);
    assert.deepEqual([answer.status, (told as api.FleetRefusal).error], [status, error], path);
    assert.match(String(answer.headers['content-security-policy']), /frame-ancestors 'none'/);
  };
  const path = '/api/v1/fleet/certificates';
  await refused(path, { headers: [['origin', 'http://attacker.example']] }, 403, 'foreign_origin');
  await refused(path, { headers: [['sec-fetch-site', 'cross-site']] }, 403, 'cross_site');
  await refused(path, { headers: [['host', 'attacker.example']] }, 421, 'foreign_host');
  await refused(path, { method: 'POST' }, 405, 'bad_method');
  await refused('/api/v1/fleet/../overview', {}, 404, 'not_found');
  for (const search of [
    'limit=0',
    'limit=501',
    'limit=x',
    'cursor=x',
    'cursor=1)%20or%20vector(1',
    'cursor=',
    'stuck=1',
    'trustdomain=a',
    'cluster=a&cluster=b',
    `spiffeId=${'a'.repeat(2049)}`,
  ])
    await refused(`${path}?${search}`, {}, 400, 'bad_request');
  await refused('/api/v1/fleet/groups', {}, 400, 'bad_request');
  await refused('/api/v1/fleet/groups?by=constructor', {}, 400, 'bad_request');
  assert.equal(prometheus.questions.length, 0);
  assert.equal(fleet.said.length, 6, 'each reason is said once');
});

test('scute fleet refuses what would let others in or a token out: exit code 64, one sentence, and no secret in it', async (t) => {
  const folder = await temporaryFolder(t);
  const tokenFile = join(folder, 'token');
  await writeFile(tokenFile, 'secret');
  const wrong: readonly (readonly [readonly string[], RegExp])[] = [
    [[], /required option '--prometheus <url>'/],
    [['--prometheus', 'prometheus:9090'], /neither https:\/\/ nor http:\/\//],
    [['--prometheus', 'file:///etc/passwd'], /neither https:\/\/ nor http:\/\//],
    [['--prometheus', 'nonsense'], /not a URL/],
    [['--prometheus', 'https://me:hunter2@prometheus.example'], /has credentials/],
    [['--prometheus', 'https://hunter2@prometheus.example'], /has credentials/],
    [['--prometheus', 'https://@prometheus.example'], /has credentials/],
    [['--prometheus', 'https://prometheus.example/?token=hunter2'], /has a query/],
    [['--prometheus', 'http://prometheus.example', '--token-file', tokenFile], /in plain text/],
    [['--prometheus', 'http://10.0.0.1:9090', '--token-file', tokenFile], /in plain text/],
    [['--prometheus', 'http://127.0.0.1:9090', '--ca-file', tokenFile], /--ca-file is for https/],
    [['--prometheus', 'http://127.0.0.1:9090', '--listen', '0.0.0.0:9470'], /Unix socket or loopback/],
    [['--prometheus', 'http://127.0.0.1:9090', '--listen', 'nonsense'], /--listen/],
  ];
  for (const [args, expected] of wrong) {
    const { code, stdout, stderr } = await scute('fleet', ...args);
    assert.deepEqual([code, stdout], [64, ''], args.join(' '));
    assert.match(stderr, expected);
    assert.doesNotMatch(stderr, /hunter2/);
  }
});
