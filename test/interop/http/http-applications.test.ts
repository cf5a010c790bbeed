/** Applications that we did not write and that know nothing of Scute, with curl as the client over both versions of HTTP. */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { pipeline } from 'node:stream';
import { gunzipSync, createGzip } from 'node:zlib';
import type { DevDomain } from '../../../src/devdomain/dev-domain.ts';
import { runChild } from '../../support/child.ts';
import { startDevDomain } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { needs, part } from '../parts.ts';
import { runPython, startPython } from '../peers.ts';
import { startNginx } from '../proxies.ts';
import { issueFiles, listen, startInbound, temporaryFolder, type PemFiles, type RunningSide } from '../stage.ts';

const WEB = 'spiffe://example.org/web';
const API = 'spiffe://example.org/api';
const NAME = 'api.example';
const MIB = 1024 * 1024;

/** curl's flag, and how curl and Scute call it. */
const VERSIONS = [
  { flag: '--http1.1', spoken: '1.1' },
  { flag: '--http2', spoken: '2' },
] as const;

interface Fetched {
  readonly status: number;
  readonly fields: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

interface Site {
  readonly spiffe: DevDomain;
  readonly side: RunningSide;
  readonly files: PemFiles;
  readonly folder: string;
  /** One request by curl. The path comes last; `input` is its standard input. */
  readonly fetch: (path: string, flags?: readonly string[], input?: Buffer) => Promise<Fetched>;
}

async function startSite(t: TestContext, to: string, { flag, spoken }: (typeof VERSIONS)[number]): Promise<Site> {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { api: [{ id: API, dnsNames: [NAME] }], web: [WEB] } });
  const side = await startInbound(t, {
    endpoint: spiffe.endpoint('api'),
    to,
    allow: [WEB],
    alpn: ['h2', 'http/1.1'],
    listener: { protocol: 'http', http: { spiffeIdHeader: 'X-Peer' } },
  });
  const files = await issueFiles(t, spiffe, WEB);
  const folder = await temporaryFolder(t);
  const identity = ['--cert', files.chain, '--key', files.key, '--cacert', files.authorities];
  const where = ['--connect-to', `${NAME}:443:127.0.0.1:${side.port}`];
  const common = [flag, '--silent', '--show-error', '--max-time', '60', ...identity, ...where];
  return {
    spiffe,
    side,
    files,
    folder,
    async fetch(path, flags = [], input = Buffer.alloc(0)) {
      const [head, body] = [join(folder, 'head'), join(folder, 'body')];
      await writeFile(body, '');
      const argv = [...common, '--dump-header', head, '--output', body, '--write-out', '%{http_code} %{http_version}', ...flags];
      const { code, stdout, stderr } = await runChild([part('curl'), ...argv, `https://${NAME}${path}`], { env: {}, input });
      assert.equal(code, 0, stderr);
      const [status, version] = stdout.split(' ');
      assert.equal(version, spoken);
      const lines = (await readFile(head, 'latin1')).trimEnd().split('\r\n\r\n').at(-1)?.split('\r\n').slice(1) ?? [];
      const fields = Object.fromEntries(
        lines.map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 2)]),
      );
      return { status: Number(status), fields, body: await readFile(body) };
    },
  };
}

const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');
const PAGE = Buffer.from(`<html>${'<p>the same again</p>'.repeat(500)}</html>`);

for (const version of VERSIONS) {
  test(
    `a static site of nginx is served over HTTP/${version.spoken}: pages, ranges, conditions, gzip, large files`,
    needs('nginx', 'curl'),
    async (t) => {
      const folder = await temporaryFolder(t);
      const large = randomBytes(32 * MIB);
      await mkdir(join(folder, 'docs'));
      await writeFile(join(folder, 'index.html'), PAGE);
      await writeFile(join(folder, 'docs', 'index.html'), 'docs');
      await writeFile(join(folder, 'large.bin'), large);
      const port = await startNginx(t, (own) => [
        `listen 127.0.0.1:${own};`,
        `root ${folder};`,
        'sendfile on;',
        'gzip on;',
        'gzip_types text/html;',
        'gzip_min_length 100;',
        'absolute_redirect off;',
      ]);
      const { fetch } = await startSite(t, `127.0.0.1:${port}`, version);

      const page = await fetch('/');
      assert.deepEqual([page.status, page.body.equals(PAGE), page.fields['content-length']], [200, true, String(PAGE.length)]);
      const packed = await fetch('/', ['-H', 'Accept-Encoding: gzip']);
      assert.deepEqual([packed.fields['content-encoding'], gunzipSync(packed.body).equals(PAGE)], ['gzip', true]);
      const head = await fetch('/large.bin', ['--head']);
      assert.deepEqual([head.status, head.fields['content-length']], [200, String(large.length)]);
      const whole = await fetch('/large.bin');
      assert.ok(whole.body.equals(large));

      const range = await fetch('/large.bin', ['--range', '1000000-1999999']);
      assert.deepEqual([range.status, range.fields['content-range']], [206, `bytes 1000000-1999999/${large.length}`]);
      assert.ok(range.body.equals(large.subarray(1_000_000, 2_000_000)));
      const ranges = await fetch('/large.bin', ['--range', '0-3,10-13']);
      assert.equal(ranges.status, 206);
      assert.match(ranges.fields['content-type'] ?? '', /^multipart\/byteranges; boundary=/);
      assert.ok(ranges.body.includes(large.subarray(0, 4)) && ranges.body.includes(large.subarray(10, 14)));
      assert.equal((await fetch('/large.bin', ['--range', '99999999999-'])).status, 416);

      const etag = page.fields['etag'] ?? '';
      const unchanged = await fetch('/', ['-H', `If-None-Match: ${etag}`]);
      assert.deepEqual([unchanged.status, unchanged.fields['etag'], unchanged.body.length], [304, etag, 0]);
      const since = (await stat(join(folder, 'index.html'))).mtime.toUTCString();
      assert.equal((await fetch('/', ['-H', `If-Modified-Since: ${since}`])).status, 304);
      assert.equal((await fetch('/', ['-H', 'If-Match: "other"'])).status, 412);

      const moved = await fetch('/docs');
      assert.deepEqual([moved.status, moved.fields['location']], [301, '/docs/']);
      assert.equal((await fetch('/docs/')).body.toString(), 'docs');
      assert.equal((await fetch('/missing')).status, 404);
      assert.equal((await fetch('/', ['--data', 'x=y'])).status, 405);
    },
  );

  for (const server of ['gunicorn', 'waitress'] as const) {
    test(
      `a WSGI site on ${server} is served over HTTP/${version.spoken}: forms, files, chunks, streams`,
      needs('python', 'curl'),
      async (t) => {
        const peer = await startPython(t, 'wsgi_site', [server]);
        const { listening } = await peer.first('listening');
        const { fetch, folder } = await startSite(t, String(listening), version);
        const json = async (path: string, flags: readonly string[] = [], input?: Buffer): Promise<unknown> => {
          const { status, body } = await fetch(path, flags, input);
          assert.equal(status, 200);
          return JSON.parse(body.toString());
        };
        const bytes = randomBytes(5 * MIB);
        const file = join(folder, 'upload');
        await writeFile(file, bytes);

        assert.deepEqual(await json('/form', ['--data', 'a=1&b=two', '--data-urlencode', 'c=ü &=']), { a: ['1'], b: ['two'], c: ['ü &='] });
        assert.deepEqual(
          await json('/upload', ['--form', 'note=hello', '--form', `file=@${file};filename=x.bin;type=application/octet-stream`]),
          {
            note: { filename: null, sha256: sha256(Buffer.from('hello')) },
            file: { filename: 'x.bin', sha256: sha256(bytes) },
          },
        );
        assert.deepEqual(await json('/put', ['-T', file]), { bytes: bytes.length, sha256: sha256(bytes), length: String(bytes.length) });
        const { length: _, ...unknown } = (await json('/put', ['-T', '-'], bytes)) as { readonly length: unknown };
        assert.deepEqual(unknown, { bytes: bytes.length, sha256: sha256(bytes) });
        assert.equal((await fetch('/stream')).body.toString(), Array.from({ length: 200 }, (_, number) => `line ${number}\n`).join(''));
        const who = (await json('/who', ['-H', 'X-Peer: forged', '-H', 'X_Peer: forged'])) as Readonly<Record<string, string>>;
        assert.deepEqual([who['HTTP_X_PEER'], who['HTTP_HOST']], [WEB, NAME]);
        assert.match(who['HTTP_X_FORWARDED_CLIENT_CERT'] ?? '', new RegExp(`^By=${API};Hash=[0-9a-f]{64};URI=${WEB}$`));
        assert.equal((await fetch('/moved')).fields['location'], `http://${NAME}/who`);
        assert.equal((await fetch('/missing')).status, 404);
        assert.equal((await fetch('/who', ['--head'])).status, 200);
      },
    );
  }

  test(`a Node server is served over HTTP/${version.spoken}: gzip, events, uploads`, needs('curl'), async (t) => {
    const to = await listen(
      t,
      createServer((request, response) => {
        if (request.url === '/gzip') {
          response.writeHead(200, { 'content-encoding': 'gzip' });
          const gzip = createGzip();
          pipeline(gzip, response, () => undefined);
          gzip.end(PAGE);
        } else if (request.url === '/events') {
          response.writeHead(200, { 'content-type': 'text/event-stream' });
          let number = 0;
          const timer = setInterval(() => {
            response.write(`data: ${number}\n\n`);
            if (++number < 5) return;
            clearInterval(timer);
            response.end();
          }, 20);
        } else request.pipe(response.writeHead(200, { trailer: 'X-Sum' }));
      }),
    );
    const { fetch, folder } = await startSite(t, to, version);
    const bytes = randomBytes(5 * MIB);
    await writeFile(join(folder, 'upload'), bytes);

    assert.ok((await fetch('/gzip', ['--compressed'])).body.equals(PAGE));
    assert.equal(
      (await fetch('/events', ['--no-buffer'])).body.toString(),
      [0, 1, 2, 3, 4].map((number) => `data: ${number}\n\n`).join(''),
    );
    assert.ok((await fetch('/echo', ['-T', join(folder, 'upload')])).body.equals(bytes));
    assert.ok((await fetch('/echo', ['-T', '-'], bytes)).body.equals(bytes));
  });
}

test(
  'a server of WebSockets of Python is reached by a client of Python, with messages of 0 bytes to 16 MiB',
  needs('python'),
  async (t) => {
    const server = await startPython(t, 'websocket_peer', ['serve']);
    const { listening } = await server.first('listening');
    const { side, files } = await startSite(t, String(listening), VERSIONS[0]);

    const said = await runPython('websocket_peer', 'call', side.address, NAME, files.chain, files.key, files.authorities);

    assert.deepEqual(said, { status: 101, echoed: Array.from({ length: 10 }, () => true), code: 1000 });
    assert.equal((await server.first('opened'))['opened'], WEB);
    await eventually(() =>
      assert.ok(side.scute.log().some(({ path, status, result }) => path === '/socket' && status === 101 && result === 'forwarded')),
    );
  },
);
