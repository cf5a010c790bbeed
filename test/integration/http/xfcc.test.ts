/** F.5.14: what X-Forwarded-Client-Cert says to the application survives the letters that its syntax is made of, wherever a certificate has them. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test, type TestContext } from 'node:test';
import { buildIdentityFields } from '../../../src/http1/identity-fields.ts';
import { ownSvid, present } from '../../support/both-roles.ts';
import { startRawApplication } from '../../support/http/http-stage.ts';
import { createTestAuthority, type CertificateOptions } from '../../support/pki/pki.ts';
import { startSidecar } from '../../support/sidecar.ts';
import { outcome, tlsClient } from '../../support/tls-peer.ts';
import { FakeWorkloadApi } from '../../support/workload-api.ts';

const [WEB, API, ADMIN] = ['spiffe://example.org/web', 'spiffe://example.org/api', 'spiffe://example.org/admin'];
const own = createTestAuthority({ trustDomain: 'example.org' });
const LETTERS = [',', ';', '=', '"', '\\'];
const ALL = LETTERS.join('');

type Element = readonly (readonly [key: string, value: string])[];

/** As its readers do: elements end at a comma, pairs at a semicolon, and in quotes neither does. */
function parseXfcc(value: string): Element[] {
  const split = (text: string, at: string): string[] => text.match(new RegExp(`(?:"(?:\\\\.|[^"\\\\])*"|[^"${at}])+`, 'g')) ?? [];
  return split(value, ',').map((element) =>
    split(element, ';').map((pair) => {
      const text = pair.slice(pair.indexOf('=') + 1);
      const unquoted = /^"(.*)"$/.exec(text)?.[1]?.replaceAll(/\\(.)/g, '$1');
      return [pair.slice(0, pair.indexOf('=')), unquoted ?? text] as const;
    }),
  );
}

/** A sidecar of api before an application that answers with what it was sent. */
async function start(t: TestContext, http: object = {}) {
  const api = await FakeWorkloadApi.start();
  t.after(() => api[Symbol.asyncDispose]());
  api.setX509([ownSvid(own, API).entry]);
  const application = await startRawApplication(t, (received) =>
    received.endsWith('\r\n\r\n') ? 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok' : undefined,
  );
  const allow = ['spiffe://example.org/**'];
  const sidecar = await startSidecar(t, {
    workloadApi: { endpoint: api.endpoint },
    inbound: [{ name: 'in', listen: '127.0.0.1:0', to: application.address, protocol: 'http', http, allow }],
  });
  return {
    application,
    /** The XFCC fields that the application got of one request with this certificate. */
    async ask(certificate: ReturnType<typeof own.issue>, ...fields: readonly string[]): Promise<readonly string[]> {
      const before = application.received().length;
      const socket = tlsClient(t, sidecar.address('in'), present(certificate));
      socket.end(['GET / HTTP/1.1', 'Host: api', 'Connection: close', ...fields, '', ''].join('\r\n'));
      await outcome(socket);
      return [
        ...application
          .received()
          .slice(before)
          .matchAll(/^x-forwarded-client-cert: *(.*)\r$/gim),
      ].map(([, value]) => value ?? '');
    },
  };
}

const HOSTILE: Readonly<Record<string, CertificateOptions>> = {
  'in the subject': { id: WEB, subject: `a${ALL},URI=${ADMIN}` },
  'in a DNS name': { id: WEB, dnsSans: [`a${ALL}b`, `x,By=${API};URI=${ADMIN}`] },
  'in both, and in nothing else': { id: WEB, subject: `",URI=${ADMIN}`, dnsSans: [`",URI=${ADMIN}`] },
};

test(`F.5.14: ${ALL} in the subject or the DNS names of a certificate: the application reads one element, with the SPIFFE ID`, async (t) => {
  const stage = await start(t);
  for (const [where, options] of Object.entries(HOSTILE)) {
    const certificate = own.issue(options);

    const [value = '', ...more] = await stage.ask(certificate, `X-Forwarded-Client-Cert: URI=${ADMIN}`);

    assert.deepEqual(more, [], where);
    const hash = createHash('sha256').update(certificate.der).digest('hex');
    assert.deepEqual(
      parseXfcc(value),
      [
        [
          ['By', API],
          ['Hash', hash],
          ['URI', WEB],
        ],
      ],
      where,
    );
  }
});

test(`F.5.14: ${ALL} in a URI name: it is no SPIFFE ID, or not the only one, and nothing reaches the application`, async (t) => {
  const stage = await start(t);
  const uris = LETTERS.map((letter) => `${WEB}${letter}URI=${ADMIN}`);
  for (const uriSans of [...uris.map((uri) => [uri]), [WEB, `,URI=${ADMIN}`], [`${WEB}",URI="${ADMIN}`]])
    assert.deepEqual(await stage.ask(own.issue({ uriSans })), [], uriSans.join(' '));
  assert.equal(stage.application.connections(), 0);
});

test('F.5.14: what a trusted client says of another comes through quoted as it was, before our own element', async (t) => {
  const stage = await start(t, { xfcc: 'unsafe-append' });
  const theirs = `By=${ADMIN};Subject="a\\"b,c;d=e";URI="spiffe://other.example/x,y;z=1";DNS=a.example`;

  const [value = ''] = await stage.ask(own.issue({ id: WEB }), `X-Forwarded-Client-Cert: ${theirs}`);

  assert.ok(value.startsWith(`${theirs},By=`), value);
  const [first, ours, ...more] = parseXfcc(value);
  assert.deepEqual(first, [
    ['By', ADMIN],
    ['Subject', 'a"b,c;d=e'],
    ['URI', 'spiffe://other.example/x,y;z=1'],
    ['DNS', 'a.example'],
  ]);
  assert.deepEqual([ours?.at(-1), more], [['URI', WEB], []]);
});

test('F.5.14: a value that would have to be quoted is refused, should one ever come so far', () => {
  const caller = { peerId: WEB, ownId: API, leafSha256: 'ab'.repeat(32) };
  const build = (changes: Partial<typeof caller>) => (): unknown =>
    buildIdentityFields({ xfcc: 'sanitize-set', spiffeIdHeader: undefined }, { ...caller, ...changes }, () => false);
  assert.doesNotThrow(build({}));
  for (const letter of [...LETTERS, '\r', '\n', ' ', '\0']) {
    for (const key of ['peerId', 'ownId'] as const) assert.throws(build({ [key]: `${WEB}${letter}x` }), /cannot stand in a field/);
    assert.throws(build({ leafSha256: `${'ab'.repeat(31)}a${letter}` }), /is not a SHA-256/);
  }
});
