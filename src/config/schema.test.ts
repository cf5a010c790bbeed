import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Policy } from '../policy/policy.ts';
import { requireSpiffeId } from '../spiffe/spiffe-id.ts';
import type { Config } from './config.ts';
import { formatIssues, judge } from './issue.ts';
import { createConfigSchema } from './schema.ts';

function admits(policy: Policy, peer: string): boolean {
  return policy.forPeer(requireSpiffeId(peer)).judgeConnection(0).allowed;
}

const INBOUND = { listen: '127.0.0.1:8443', to: '127.0.0.1:8080', allow: ['spiffe://example.org/web'] };
const OUTBOUND = { listen: '127.0.0.1:5432', to: 'db.internal:5432', expect: ['spiffe://example.org/db'] };
const BASE = { workloadApi: { endpoint: 'unix:///agent.sock' } };

const schema = createConfigSchema({ groupId: (name) => (name === 'web' ? 33 : undefined) });

function judged(value: unknown) {
  return judge(schema, { value, locate: () => ({ source: 'test', line: undefined, column: undefined }) });
}

function accepted(value: object): Config {
  const config = judged({ ...BASE, ...value });
  if (!config.ok) throw new Error(formatIssues(config.error));
  return config.value;
}

/** The problems as `path: message`. */
function problems(value: unknown): string[] {
  const config = judged(value);
  assert.ok(!config.ok, 'was accepted');
  return config.error.map(({ path, message }) => `${path}: ${message}`);
}

function problemsOf(inbound: object): string[] {
  return problems({ ...BASE, inbound: [{ ...INBOUND, ...inbound }] });
}

function problemsOfOutbound(outbound: object): string[] {
  return problems({ ...BASE, outbound: [{ ...OUTBOUND, ...outbound }] });
}

test('defaults are filled in', () => {
  const config = accepted({ inbound: [INBOUND] });

  const [listener] = config.inbound;
  assert.equal(listener?.name, 'inbound-0');
  assert.equal(listener.protocol, 'tcp');
  assert.deepEqual(listener.alpn, []);
  assert.deepEqual(listener.identity, { by: 'default' });
  assert.equal(listener.socketMode, 0o600);
  assert.deepEqual(listener.limits, {
    connectTimeoutMs: 5000,
    handshakeTimeoutMs: 5000,
    idleTimeoutMs: 3_600_000,
    maxLifetimeMs: undefined,
    maxConnections: 10_000,
    maxHandshakes: 1000,
    maxWaiting: 16_384,
    tcpKeepAliveMs: 60_000,
  });
  assert.deepEqual(config.log, { level: 'info', format: 'auto' });
  assert.equal(config.drainTimeoutMs, 30_000);
  assert.equal(config.metrics, undefined);
  assert.equal(config.admin, undefined);
});

test('a listener takes the limits that it does not set from the top level', () => {
  const limits = { handshakeTimeout: '1s', idleTimeout: '2s', maxLifetime: '3s' };

  const config = accepted({ limits, inbound: [{ ...INBOUND, limits: { idleTimeout: 'off', maxConnections: 7 } }] });

  const own = config.inbound[0]?.limits;
  assert.equal(own?.handshakeTimeoutMs, 1000);
  assert.equal(own.idleTimeoutMs, undefined);
  assert.equal(own.maxLifetimeMs, 3000);
  assert.equal(own.maxConnections, 7);
});

test('a deny list has an absolute path, whatever folder a process is started in', () => {
  assert.deepEqual(accepted({ inbound: [INBOUND], revocations: { file: '/etc/scute/revoked.yaml' } }).revocations, {
    file: '/etc/scute/revoked.yaml',
  });
  assert.equal(accepted({ inbound: [INBOUND] }).revocations, undefined);
  for (const file of ['revoked.yaml', './revoked.yaml', '', '/', '/etc/\u001b[2J'])
    assert.deepEqual(problems({ ...BASE, inbound: [INBOUND], revocations: { file } }), [
      'revocations.file: must be an absolute path, without control characters',
    ]);
  assert.deepEqual(problems({ ...BASE, inbound: [INBOUND], revocations: {} }), ['revocations.file: is required']);
});

test('patterns, SPIFFE IDs, modes and groups come out parsed', () => {
  const config = accepted({
    inbound: [
      { ...INBOUND, listen: 'unix:///a.sock', socketMode: '0660', socketGroup: 'web', identity: { id: 'spiffe://example.org/api' } },
    ],
  });

  const [listener] = config.inbound;
  assert.ok(listener !== undefined);
  assert.ok(admits(listener.policy, 'spiffe://example.org/web'));
  assert.ok(!admits(listener.policy, 'spiffe://example.org/other'));
  assert.deepEqual(listener.identity, { by: 'id', id: 'spiffe://example.org/api' });
  assert.equal(listener.socketMode, 0o660);
  assert.equal(listener.socketGid, 33);
});

test('the configuration cannot be changed, however deep', () => {
  const config = accepted({ inbound: [INBOUND], metrics: { listen: '127.0.0.1:9090' } });

  for (const value of [
    config,
    config.inbound,
    config.inbound[0],
    config.inbound[0]?.limits,
    config.inbound[0]?.policy,
    config.inbound[0]?.policy.spec.allow,
    config.metrics?.listen,
  ]) {
    assert.ok(Object.isFrozen(value));
  }
});

test('an empty allow list is legal and admits nobody', () => {
  const config = accepted({ inbound: [{ ...INBOUND, allow: [] }] });

  assert.ok(config.inbound[0] !== undefined);
  assert.ok(!admits(config.inbound[0].policy, 'spiffe://example.org/web'));
});

test('a missing allow list is an error, not a list of all or of none', () => {
  const { allow: _, ...without } = INBOUND;

  assert.deepEqual(problems({ ...BASE, inbound: [without] }), ['inbound[0].allow: is required']);
  assert.equal(problemsOf({ allow: null }).length, 1);
});

test('unknown keys are errors at every level, with the likely name', () => {
  assert.deepEqual(problems({ ...BASE, inbound: [{ ...INBOUND, alow: [] }] }), ['inbound[0].alow: is not known here: did you mean allow?']);
  assert.match(
    problems({ ...BASE, inbound: [INBOUND], metrics: { listen: '127.0.0.1:1', tls: true } })[0] ?? '',
    /^metrics\.tls: is not known here: there is listen/,
  );
  assert.match(problemsOf({ limits: { maxconnection: 1 } })[0] ?? '', /did you mean maxConnections/);
  assert.equal(problemsOf(JSON.parse('{"__proto__": {"allow": []}}')).length, 1);
  assert.equal(problemsOf({ constructor: 1 }).length, 1);
});

test('plain text does not leave the machine unless unsafeTarget says so', () => {
  for (const to of ['10.0.0.1:8080', 'app.internal:8080', '[2001:db8::1]:80', '[::ffff:10.0.0.1]:80']) {
    assert.match(problemsOf({ to })[0] ?? '', /^inbound\[0\]\.to: .*unsafeTarget/);
    assert.ok(accepted({ inbound: [{ ...INBOUND, to, unsafeTarget: true }] }));
  }
  for (const to of ['127.0.0.1:1', '127.9.9.9:1', '[::1]:1', 'localhost:1', 'unix:///app.sock'])
    assert.ok(accepted({ inbound: [{ ...INBOUND, to }] }));
});

test('an identity is not lent to other machines unless unsafeListen says so', () => {
  for (const listen of ['0.0.0.0:1', '[::]:1', '10.0.0.1:1']) {
    assert.match(problemsOfOutbound({ listen })[0] ?? '', /^outbound\[0\]\.listen: .*unsafeListen/);
    assert.ok(accepted({ outbound: [{ ...OUTBOUND, listen, unsafeListen: true }] }));
  }
});

test('an outbound listener must say who the server is', () => {
  assert.match(problemsOfOutbound({ expect: undefined })[0] ?? '', /^outbound\[0\]\.expect: is required/);
  assert.match(problemsOfOutbound({ expect: [] })[0] ?? '', /^outbound\[0\]\.expect: is empty/);
  assert.match(
    problemsOfOutbound({ expect: ['spiffe://example.org/**'] })[0] ?? '',
    /^outbound\[0\]\.expect\[0\]: .*unsafeAllowAnyInTrustDomain/,
  );
  assert.match(problemsOfOutbound({ unsafeAllowAnyInTrustDomain: 'example.org' })[0] ?? '', /replaces expect/);
});

test('unsafeAllowAnyInTrustDomain accepts the servers of that trust domain and no others', () => {
  const { expect: _, ...rest } = OUTBOUND;

  const [listener] = accepted({ outbound: [{ ...rest, unsafeAllowAnyInTrustDomain: 'example.org' }] }).outbound;

  assert.ok(listener !== undefined);
  assert.ok(admits(listener.policy, 'spiffe://example.org/any'));
  assert.ok(!admits(listener.policy, 'spiffe://partner.example/any'));
});

test('the admin API is bound to this machine only', () => {
  for (const listen of ['0.0.0.0:1', '[::]:1', '10.0.0.1:1'])
    assert.match(problems({ ...BASE, inbound: [INBOUND], admin: { listen } })[0] ?? '', /^admin\.listen: /);
  assert.ok(accepted({ inbound: [INBOUND], admin: { listen: 'unix:///admin.sock' } }));
});

test('two listeners cannot have one address, whatever they are for', () => {
  const taken = [
    { inbound: [INBOUND, { ...INBOUND, to: '127.0.0.1:1' }] },
    { inbound: [INBOUND], outbound: [{ ...OUTBOUND, listen: '127.0.0.1:8443' }] },
    { inbound: [{ ...INBOUND, listen: '0.0.0.0:8443' }], metrics: { listen: '127.0.0.1:8443' } },
    { inbound: [{ ...INBOUND, listen: 'unix:///a' }], admin: { listen: 'unix:///a' } },
  ];
  for (const value of taken) assert.match(problems({ ...BASE, ...value })[0] ?? '', /listen: .* is taken by inbound\[0\]/);
  assert.ok(
    accepted({
      inbound: [
        { ...INBOUND, listen: '127.0.0.1:0' },
        { ...INBOUND, listen: '127.0.0.1:0' },
      ],
    }),
  );
});

test('two listeners cannot have one name, given or by position', () => {
  const other = { ...INBOUND, listen: '127.0.0.1:8444' };
  assert.match(
    problems({
      ...BASE,
      inbound: [
        { ...INBOUND, name: 'a' },
        { ...other, name: 'a' },
      ],
    })[0] ?? '',
    /^inbound\[1\]\.name: .* taken by inbound\[0\]/,
  );
  assert.match(
    problems({ ...BASE, inbound: [{ ...INBOUND, name: 'inbound-1' }, other] })[0] ?? '',
    /^inbound\[1\]: .* taken by inbound\[0\]/,
  );
  assert.match(
    problems({ ...BASE, inbound: [{ ...INBOUND, name: 'a' }], outbound: [{ ...OUTBOUND, name: 'a' }] })[0] ?? '',
    /^outbound\[0\]\.name/,
  );
});

test('a listener cannot forward to itself', () => {
  assert.match(problemsOf({ to: '127.0.0.1:8443' })[0] ?? '', /itself/);
  assert.match(problemsOf({ listen: '0.0.0.0:8443', to: 'localhost:8443' })[0] ?? '', /itself/);
  assert.match(problemsOfOutbound({ listen: 'unix:///a', to: 'unix:///a' })[0] ?? '', /itself/);
});

test('a mode or a group of a TCP listener is an error', () => {
  assert.match(problemsOf({ socketMode: '0600' })[0] ?? '', /^inbound\[0\]\.socketMode: is for Unix sockets/);
  assert.match(
    problems({ ...BASE, inbound: [INBOUND], metrics: { listen: '127.0.0.1:1', socketGroup: 1 } })[0] ?? '',
    /^metrics\.socketGroup/,
  );
});

test('a mode that is not octal text, or a group that does not exist, is an error', () => {
  for (const socketMode of [600, 0o600, '0999', '600 ', '04755', 'rw', ''])
    assert.match(problemsOf({ listen: 'unix:///a', socketMode })[0] ?? '', /octal mode in quotes/);
  assert.match(problemsOf({ listen: 'unix:///a', socketGroup: 'nosuch' })[0] ?? '', /there is no group "nosuch"/);
  assert.equal(problemsOf({ listen: 'unix:///a', socketGroup: -1 }).length, 1);
});

test('every kind of bad value is an error that names its place', () => {
  const bad = [
    { listen: 8443 },
    { listen: 'example.org:1' },
    { to: '127.0.0.1:0' },
    { to: '0.0.0.0:80' },
    { allow: 'spiffe://example.org/web' },
    { allow: [1] },
    { allow: ['spiffe://Example.org/a'] },
    { allow: ['*'] },
    { allow: ['spiffe://*/a'] },
    { protocol: 'udp' },
    { alpn: 'h2' },
    { alpn: [''] },
    { alpn: ['h2', 'h2'] },
    { alpn: ['a'.repeat(256)] },
    { identity: {} },
    { identity: { id: 'spiffe://example.org/a', hint: 'b' } },
    { identity: { id: 'web' } },
    { identity: { hint: '' } },
    { name: '' },
    { name: 'a b' },
    { name: 'é' },
    { name: 'a'.repeat(64) },
    { limits: { handshakeTimeout: 5 } },
    { limits: { handshakeTimeout: '0s' } },
    { limits: { handshakeTimeout: 'off' } },
    { limits: { maxConnections: 0 } },
    { limits: { maxConnections: 1.5 } },
    { limits: { maxConnections: Infinity } },
    { limits: { maxConnections: '5' } },
    { limits: [] },
    { unsafeTarget: 'yes' },
  ];
  for (const entry of bad) {
    const [key = ''] = Object.keys(entry);
    const found = problemsOf(entry);
    assert.ok(
      found.length > 0 && found.every((problem) => problem.startsWith(`inbound[0].${key}`)),
      `${JSON.stringify(entry)}: ${found.join()}`,
    );
  }
});

test('a server name is a DNS name, never an IP address', () => {
  for (const serverName of ['192.0.2.1', '::1', '[::1]', 'a b', '', 'db:5432'])
    assert.equal(problemsOfOutbound({ serverName }).length, 1, serverName);
  assert.equal(accepted({ outbound: [{ ...OUTBOUND, serverName: 'DB.example.org' }] }).outbound[0]?.serverName, 'db.example.org');
});

test('a configuration without listener or without Workload API is an error', () => {
  assert.deepEqual(problems(BASE), [': has nothing to do: it needs at least one inbound, outbound or files entry, sds or bundleEndpoint']);
  assert.deepEqual(problems({ inbound: [INBOUND] }), ['workloadApi.endpoint: is required, unless SPIFFE_ENDPOINT_SOCKET is set']);
});

test('what is no mapping at all is one error', () => {
  for (const value of [null, [], 'text', 5, true]) assert.equal(problems(value).length, 1);
});

test('all problems come at once, those of single fields and those between fields', () => {
  const found = problems({
    inbound: [
      { listen: '0.0.0.0:1', to: 'x', alow: [] },
      { ...INBOUND, listen: '127.0.0.1:1' },
    ],
    log: { level: 'loud' },
    bogus: 1,
  });

  const paths = found.map((problem) => problem.replace(/: .*/, '')).toSorted();
  assert.deepEqual(paths, [
    'bogus',
    'inbound[0].allow',
    'inbound[0].alow',
    'inbound[0].to',
    'inbound[1].listen',
    'log.level',
    'workloadApi.endpoint',
  ]);
});

test('the PROXY protocol is off, and nobody may announce an address, unless the configuration says so', () => {
  const [listener] = accepted({ inbound: [INBOUND] }).inbound;

  assert.deepEqual(listener?.proxyProtocol, { send: 'off', spiffeIdTlv: 0xd0, acceptFrom: [] });
});

test('who must announce an address is named by address or range, and is never everybody', () => {
  const [listener] = accepted({ inbound: [{ ...INBOUND, proxyProtocol: { acceptFrom: ['10.0.0.0/8', '2001:db8::7'] } }] }).inbound;
  assert.deepEqual(
    listener?.proxyProtocol.acceptFrom.map(({ text, bits }) => [text, bits]),
    [
      ['10.0.0.0/8', 8],
      ['2001:db8::7', 128],
    ],
  );

  const path = 'inbound[0].proxyProtocol.acceptFrom';
  for (const text of ['balancer.internal', '10.0.0.1/8', '10.0.0.0/33', '10.0.0.0/8/8', 'unix', '']) {
    const problem = `${path}[0]: ${JSON.stringify(text)} is not an IP address or a range such as 10.0.0.0/8`;
    assert.deepEqual(problemsOf({ proxyProtocol: { acceptFrom: [text] } }), [problem]);
  }
  for (const text of ['0.0.0.0/0', '::/0'])
    assert.deepEqual(problemsOf({ proxyProtocol: { acceptFrom: [text] } }), [`${path}[0]: "${text}" is every address`]);
  assert.deepEqual(problemsOf({ listen: 'unix:///run/in.sock', proxyProtocol: { acceptFrom: ['127.0.0.1'] } }), [
    `${path}: names addresses, and this listens on a Unix socket, where nobody has one`,
  ]);
});

test('the TLV with the SPIFFE ID is 0xD0 or in the range for applications', () => {
  for (const type of [0xd0, 0xe0, 0xef])
    assert.equal(accepted({ inbound: [{ ...INBOUND, proxyProtocol: { spiffeIdTlv: type } }] }).inbound[0]?.proxyProtocol.spiffeIdTlv, type);
  for (const type of [0x20, 0xcf, 0xd1, 0xf0, 0, -1, 0x1d0])
    assert.deepEqual(problemsOf({ proxyProtocol: { spiffeIdTlv: type } }), [
      'inbound[0].proxyProtocol.spiffeIdTlv: must be 0xD0, or 0xE0 to 0xEF',
    ]);
  assert.equal(problemsOf({ proxyProtocol: { send: 'v1' } }).length, 1);
});

test('an application that speaks h2c has peers that speak HTTP/2, and nothing that is for HTTP/1.1', () => {
  const spliced = { ...INBOUND, protocol: 'http', http: { application: 'h2c' } };
  const [inbound] = accepted({ inbound: [spliced] }).inbound;
  assert.deepEqual([inbound?.http?.application, inbound?.alpn], ['h2c', ['h2']]);

  assert.deepEqual(problems({ ...BASE, inbound: [{ ...spliced, alpn: ['h2', 'http/1.1'] }] }), [
    'inbound[0].alpn[1]: the application speaks h2c: requests of HTTP/1.1 are not translated for it, so peers must speak h2',
  ]);
  assert.deepEqual(problems({ ...BASE, inbound: [{ ...spliced, alpn: [] }] }), [
    'inbound[0].alpn: the application speaks h2c, which is for peers that agree on h2: leave it out',
  ]);
  assert.deepEqual(problems({ ...BASE, inbound: [{ ...spliced, http: { application: 'h2c', upgrades: ['tcp'] } }] }), [
    'inbound[0].http.upgrades: is for HTTP/1.1, which nobody speaks before an application that speaks h2c; over HTTP/2, extendedConnect takes them',
  ]);
  assert.deepEqual(problems({ ...BASE, inbound: [{ ...INBOUND, http: { application: 'h2c' } }] }), [
    'inbound[0].http: is for protocol: http',
  ]);
});

test('outbound, an application that speaks h2c has a server that must speak HTTP/2, and one that speaks HTTP/1.1 offers none', () => {
  const spliced = { ...OUTBOUND, protocol: 'http', http: { application: 'h2c' } };
  const [outbound] = accepted({ outbound: [spliced] }).outbound;
  assert.deepEqual([outbound?.http?.application, outbound?.http?.maxConcurrentStreams, outbound?.alpn], ['h2c', 100, ['h2']]);
  assert.deepEqual(accepted({ outbound: [{ ...OUTBOUND, protocol: 'http' }] }).outbound[0]?.alpn, []);

  assert.deepEqual(problems({ ...BASE, outbound: [{ ...spliced, alpn: [] }] }), [
    'outbound[0].alpn: the application speaks h2c, which is for peers that agree on h2: leave it out',
  ]);
  assert.deepEqual(problems({ ...BASE, outbound: [{ ...spliced, alpn: ['h2', 'http/1.1'] }] }), [
    'outbound[0].alpn[1]: the application speaks h2c: requests of HTTP/1.1 are not translated for it, so peers must speak h2',
  ]);
  assert.deepEqual(problems({ ...BASE, outbound: [{ ...spliced, http: { application: 'h2c', upgrades: ['tcp'] } }] }), [
    'outbound[0].http.upgrades: is for HTTP/1.1, which nobody speaks before an application that speaks h2c; over HTTP/2, extendedConnect takes them',
  ]);
  assert.deepEqual(problems({ ...BASE, outbound: [{ ...OUTBOUND, protocol: 'http', alpn: ['http/1.1', 'h2'] }] }), [
    'outbound[0].alpn[1]: the application speaks HTTP/1.1, and so does what is sent to the server: with http.application: h2c it is HTTP/2 on both sides',
  ]);
});

test('WebSockets over HTTP/2 are for our own reader, and nothing but an option offers them; a rule may then name CONNECT', () => {
  const http = { application: 'h2c', extendedConnect: true, upgrades: ['tcp'] };
  const [inbound] = accepted({ ...BASE, inbound: [{ ...INBOUND, protocol: 'http', http }] }).inbound;
  const [outbound] = accepted({ outbound: [{ ...OUTBOUND, protocol: 'http', http }] }).outbound;
  for (const listener of [inbound, outbound])
    assert.deepEqual([listener?.http?.extendedConnect, listener?.http?.upgrades], [true, ['tcp']]);

  const [translated] = accepted({ ...BASE, inbound: [{ ...INBOUND, protocol: 'http', http: { extendedConnect: true } }] }).inbound;
  assert.deepEqual([translated?.http?.extendedConnect, translated?.http?.application], [true, 'http/1.1']);
  assert.deepEqual(problemsOf({ protocol: 'http', http: { extendedConnect: true, translation: 'http-proxy' } }), [
    'inbound[0].http.extendedConnect: is for http.application: h2c, and for translation: scute',
  ]);
  assert.deepEqual(problems({ ...BASE, outbound: [{ ...OUTBOUND, protocol: 'http', http: { extendedConnect: true } }] }), [
    'outbound[0].http.extendedConnect: is for http.application: h2c',
  ]);
  const connects = { peer: 'spiffe://example.org/web', methods: ['GET', 'CONNECT'] };
  assert.ok(accepted({ ...BASE, inbound: [{ ...INBOUND, protocol: 'http', http, allow: [connects], deny: [connects] }] }));
  assert.deepEqual(problemsOf({ protocol: 'http', http: { extendedConnect: true }, deny: [connects] }), [
    'inbound[0].deny[0].methods[1]: "CONNECT" is forwarded with http.extendedConnect alone',
  ]);
  assert.deepEqual(problemsOf({ protocol: 'http', http: { application: 'h2c', translation: 'http-proxy' } }), [
    'inbound[0].http.translation: is for applications that speak HTTP/1.1',
  ]);
  assert.deepEqual(problemsOf({ protocol: 'http', http: { application: 'h2c' }, deny: [connects] }), [
    'inbound[0].deny[0].methods[1]: "CONNECT" is forwarded with http.extendedConnect alone',
  ]);
  assert.deepEqual(problems({ ...BASE, outbound: [{ ...OUTBOUND, protocol: 'http', expect: [connects] }] }), [
    'outbound[0].expect[0].methods[1]: "CONNECT" is forwarded with http.extendedConnect alone',
  ]);
});

test('an inbound listener forwards bytes unless it says http, which has limits of its own', () => {
  const [bytes] = accepted({ ...BASE, inbound: [INBOUND] }).inbound;
  const [plain] = accepted({ ...BASE, inbound: [{ ...INBOUND, protocol: 'http' }] }).inbound;
  const [set] = accepted({
    ...BASE,
    inbound: [
      { ...INBOUND, protocol: 'http', http: { xfcc: 'sanitize', spiffeIdHeader: 'X-Peer', maxBodyBytes: 10, responseTimeout: 'off' } },
    ],
  }).inbound;

  assert.equal(bytes?.http, undefined);
  assert.deepEqual(plain?.http, {
    application: 'http/1.1',
    translation: 'scute',
    xfcc: 'sanitize-set',
    spiffeIdHeader: undefined,
    maxConcurrentStreams: 100,
    upgrades: [],
    extendedConnect: false,
    limits: {
      maxHeadBytes: 32_768,
      maxFields: 1000,
      maxBodyBytes: undefined,
      headTimeoutMs: 10_000,
      minBodyBytesPerSecond: 240,
      responseTimeoutMs: 60_000,
      upstreamIdleTimeoutMs: 1500,
    },
  });
  assert.deepEqual([set?.http?.xfcc, set?.http?.spiffeIdHeader], ['sanitize', 'X-Peer']);
  assert.deepEqual([set?.http?.limits.maxBodyBytes, set?.http?.limits.responseTimeoutMs], [10, undefined]);
});

test('settings of HTTP are for HTTP, which is version 2 and 1.1, and no field that has a meaning carries the SPIFFE ID', () => {
  assert.match(problemsOf({ http: {} }).join(), /inbound\[0\]\.http: is for protocol: http/);
  assert.match(
    problemsOf({ protocol: 'http', alpn: ['h2', 'h2c'] }).join(),
    /alpn\[1\]: protocol: http speaks h2 and http\/1\.1, and not "h2c"/,
  );
  const alpnOf = (more: object): readonly string[] | undefined =>
    accepted({ ...BASE, inbound: [{ ...INBOUND, ...more }] }).inbound[0]?.alpn;
  assert.deepEqual(alpnOf({ protocol: 'http' }), ['h2', 'http/1.1']);
  assert.deepEqual(alpnOf({}), []);
  for (const alpn of [[], ['h2'], ['http/1.1'], ['http/1.1', 'h2']]) assert.deepEqual(alpnOf({ protocol: 'http', alpn }), alpn);
  for (const name of ['Host', 'content-length', 'Connection', 'X-Forwarded-Client-Cert', 'X_Peer', 'a b', '']) {
    assert.match(problemsOf({ protocol: 'http', http: { spiffeIdHeader: name } }).join(), /inbound\[0\]\.http\.spiffeIdHeader/, name);
  }
});

test('what a connection may be switched to is named one by one, and never carries requests', () => {
  const http = (upgrades: readonly unknown[]): object => ({ protocol: 'http', http: { upgrades } });
  const upgradesOf = (upgrades: readonly string[]): readonly string[] | undefined =>
    accepted({ ...BASE, inbound: [{ ...INBOUND, ...http(upgrades) }] }).inbound[0]?.http?.upgrades;
  assert.deepEqual(upgradesOf(['tcp', 'SPDY/3.1', 'WebSocket', 'connect-udp']), ['tcp', 'SPDY/3.1', 'connect-udp']);

  for (const name of 'h2c H2C h2c-14 h2C/1 h2 H2 h2/2.0 h3 HTTP http HTTP/1.1 HTTP/2.0 https S-HTTP/1.0 TLS tls TLS/1.0 tls/1.3'.split(' '))
    assert.deepEqual(problemsOf(http(['tcp', name])), ['inbound[0].http.upgrades[1]: would carry requests past the one who judges them']);
  for (const name of ['*', 'HTTP/*', 'TLS/*', 'tcp*'])
    assert.match(problemsOf(http([name])).join(), /inbound\[0\]\.http\.upgrades\[0\]: .*"\*" stands for nothing here/, name);
  for (const name of ['', 'a b', 'tcp, udp', 'tcp/', '/1', 'a/b/c', 'tcp\r\nX: y', 'tcp:1', '\u00e9', 'x'.repeat(65), 7])
    assert.match(problemsOf(http([name])).join(), /inbound\[0\]\.http\.upgrades\[0\]: /, String(name));
  assert.match(problemsOf(http(['tcp', 'TCP'])).join(), /inbound\[0\]\.http\.upgrades: has a protocol twice/);
  assert.match(problemsOfOutbound(http(['TLS/1.2'])).join(), /^outbound\[0\]\.http\.upgrades\[0\]: would carry requests/);
});

test('sds is enough to run: it listens on a Unix socket of its owner, with the names of the SPIRE agent', () => {
  const config = accepted({ sds: { listen: 'unix:///run/sds.sock' } });

  assert.deepEqual(config.sds, {
    listen: { kind: 'unix', path: '/run/sds.sock' },
    socketMode: 0o600,
    socketGid: undefined,
    identity: { by: 'default' },
    defaultSvidName: 'default',
    defaultBundleName: 'ROOTCA',
    defaultAllBundlesName: 'ALL',
    disableSpiffeCertValidation: false,
    strictUnknownNames: false,
    crls: false,
    matchers: [],
    limits: {
      maxConnections: 256,
      maxStreams: 10_000,
      maxStreamsPerConnection: 1000,
      maxNames: 1000,
      maxRequestBytes: 262_144,
      maxSubscriptionBytes: 1_048_576,
      maxRequestRate: 200,
    },
    authorization: undefined,
  });
});

test('checks of Envoy are answered where sds.authorization is there, with limits of its own, and need an inbound listener', () => {
  const sds = { listen: 'unix:///run/sds.sock', authorization: {} };

  assert.deepEqual(accepted({ sds, inbound: [INBOUND] }).sds?.authorization, {
    maxConcurrentChecks: 1024,
    maxConcurrentChecksPerConnection: 512,
    maxRequestBytes: 262_144,
    requestTimeoutMs: 5000,
  });
  for (const without of [{}, { inbound: [] }, { outbound: [OUTBOUND] }])
    assert.match(problems({ ...BASE, sds, ...without }).join(), /^sds\.authorization: has nothing to answer by/);
  for (const limits of [{ maxConcurrentChecks: 0 }, { requestTimeout: '0s' }, { failOpen: true }])
    assert.match(problems({ ...BASE, sds: { ...sds, authorization: limits }, inbound: [INBOUND] }).join(), /^sds\.authorization/);
});

test('sds on TCP is for loopback alone, and called unsafe', () => {
  assert.match(problems({ ...BASE, sds: { listen: '127.0.0.1:1' } })[0] ?? '', /sds\.listen: would hand private keys to every local user/);
  assert.match(problems({ ...BASE, sds: { listen: '0.0.0.0:1', unsafeTcp: true } })[0] ?? '', /can be reached from other machines/);
  assert.equal(accepted({ sds: { listen: '127.0.0.1:1', unsafeTcp: true } }).sds?.listen.kind, 'tcp');
});

test('matchers of sds are for a name that is served: a trust domain is written as it must be', () => {
  for (const secret of [
    'spiffe://EXAMPLE.org',
    'spiffe://*',
    'spiffe://example.org:8443',
    'spiffe://example.org/',
    'spiffe://a@b',
    'rootca',
  ])
    assert.match(
      problems({ ...BASE, sds: { listen: 'unix:///run/sds.sock', matchers: [{ secret, allow: [] }] } }).join('\n'),
      /is not the name of a trust bundle/,
      secret,
    );
});

test('matchers of sds are of a bundle, once each, and of a listener that there is or of a list', () => {
  const withMatchers = (...matchers: object[]) =>
    problems({ ...BASE, inbound: [{ ...INBOUND, name: 'api' }], sds: { listen: 'unix:///run/sds.sock', matchers } }).join('\n');

  const good = [
    { secret: 'ROOTCA', listener: 'api' },
    { secret: 'ALL', allow: [] },
  ];
  accepted({ inbound: [{ ...INBOUND, name: 'api' }], sds: { listen: 'unix:///run/sds.sock', matchers: good } });
  assert.match(withMatchers({ secret: 'ROOTCA', listener: 'other' }), /there is no inbound listener "other"/);
  assert.match(withMatchers({ secret: 'ROOTCA' }), /needs either listener or allow/);
  assert.match(withMatchers({ secret: 'ROOTCA', listener: 'api', allow: [] }), /needs either listener or allow/);
  assert.match(withMatchers({ secret: 'ROOTCA', allow: [] }, { secret: 'ROOTCA', allow: [] }), /has matchers already/);
  for (const secret of ['default', 'hint:x', 'spiffe://example.org/web', 'ROOTCAA'])
    assert.match(withMatchers({ secret, allow: [] }), /is not the name of a trust bundle/, secret);
  assert.match(withMatchers({ secret: 'ROOTCA', allow: ['nonsense'] }), /^sds\.matchers\[0\]\.allow\[0\]: [^\n]*$/);
});

test('a list of matchers has peers and times, and nothing that Envoy could not be told', () => {
  const peer = 'spiffe://example.org/web';
  const withList = (...allow: unknown[]) => ({ ...BASE, sds: { listen: 'unix:///run/sds.sock', matchers: [{ secret: 'ROOTCA', allow }] } });
  const windows = [{ from: '09:00', to: '17:00', timeZone: 'UTC' }];
  const times = { notBefore: '2026-01-01T00:00:00Z', notAfter: '2027-01-01T00:00:00Z', windows };

  const policy = accepted(withList(peer, { peer, ...times })).sds?.matchers[0]?.policy;
  assert.deepEqual(policy?.spec.allow, [
    peer,
    { peer, windows, notBeforeMs: Date.parse(times.notBefore), notAfterMs: Date.parse(times.notAfter) },
  ]);
  for (const more of [{ methods: ['GET'] }, { paths: ['/a'] }, { hosts: ['a'] }, { mode: 'audit' }])
    assert.match(problems(withList({ peer, ...more })).join('\n'), /allow\[0\]\.\w+: is not known here: there is peer, notBefore/);
  assert.match(
    problems(withList({ peer, notAfter: times.notBefore, notBefore: times.notAfter })).join('\n'),
    /allow\[0\]\.notAfter: the rule ends/,
  );
});

const RELATION = { trustDomain: 'partner.test', url: 'https://partner.test/bundle', profile: 'https_web' };
const SPIFFE_RELATION = {
  ...RELATION,
  profile: 'https_spiffe',
  endpointSpiffeId: 'spiffe://partner.test/endpoint',
  bundleFile: 'bundle.json',
};
const ENDPOINT = { listen: '0.0.0.0:8543', profile: 'https_spiffe' };

function problemsOfRelation(relation: object, more: object = {}): string[] {
  return problems({ ...BASE, inbound: [INBOUND], federation: [relation], ...more });
}

test('relations to other trust domains have what their profile needs', () => {
  const { federation } = accepted({ inbound: [INBOUND], federation: [RELATION, { ...SPIFFE_RELATION, trustDomain: 'other.test' }] });

  assert.deepEqual(federation, [
    { trustDomain: 'partner.test', url: 'https://partner.test/bundle', profile: { kind: 'https_web', caFile: undefined } },
    {
      trustDomain: 'other.test',
      url: 'https://partner.test/bundle',
      profile: { kind: 'https_spiffe', endpointSpiffeId: 'spiffe://partner.test/endpoint', bundleFile: 'bundle.json' },
    },
  ]);
  // Somebody else may vouch for an endpoint of another trust domain.
  const { bundleFile: _file, ...without } = SPIFFE_RELATION;
  accepted({ inbound: [INBOUND], federation: [{ ...without, trustDomain: 'other.test' }] });
  assert.deepEqual(problemsOfRelation(without), [
    'federation[0].bundleFile: is required: "spiffe://partner.test/endpoint" is of the trust domain whose bundle is fetched',
  ]);
  assert.deepEqual(problemsOfRelation({ ...RELATION, profile: 'https_spiffe' }), [
    'federation[0].endpointSpiffeId: is required: the SPIFFE ID that the endpoint must have',
  ]);
  assert.deepEqual(problemsOfRelation({ ...SPIFFE_RELATION, caFile: 'ca.pem' }), ['federation[0].caFile: is for https_web']);
  assert.deepEqual(problemsOfRelation({ ...SPIFFE_RELATION, profile: 'https_web' }), [
    'federation[0].endpointSpiffeId: is for https_spiffe',
    'federation[0].bundleFile: is for https_spiffe',
  ]);
  assert.deepEqual(problemsOfRelation({ ...RELATION, profil: 1 }), ['federation[0].profil: is not known here: did you mean profile?']);
});

test('the URL of a bundle endpoint is https, without user info and fragment', () => {
  for (const url of [
    'http://partner.test/',
    'partner.test',
    'https://',
    'https://a:b@partner.test/',
    'https://a@partner.test/',
    'https://partner.test/#x',
    'file:///x',
  ])
    assert.match(problemsOfRelation({ ...RELATION, url })[0] ?? '', /^federation\[0\]\.url: /, url);
});

test('a relation is to another trust domain, and there is one to each', () => {
  assert.deepEqual(
    problemsOfRelation(
      { ...RELATION, trustDomain: 'example.org' },
      { inbound: [{ ...INBOUND, identity: { id: 'spiffe://example.org/us' } }] },
    ),
    ['federation[0].trustDomain: "example.org" is our own trust domain, as an identity of this configuration says'],
  );
  assert.deepEqual(
    problemsOfRelation(
      { ...RELATION, trustDomain: 'example.org' },
      { bundleEndpoint: { ...ENDPOINT, identity: { id: 'spiffe://example.org/us' } } },
    ),
    ['federation[0].trustDomain: "example.org" is our own trust domain, as an identity of this configuration says'],
  );
  assert.deepEqual(problems({ ...BASE, inbound: [INBOUND], federation: [RELATION, RELATION] }), [
    'federation[1].trustDomain: "partner.test" has an endpoint already',
  ]);
});

test('a bundle endpoint has what its profile needs, and a place of its own', () => {
  const { bundleEndpoint } = accepted({ bundleEndpoint: ENDPOINT });
  assert.deepEqual(bundleEndpoint, {
    listen: { kind: 'tcp', host: '0.0.0.0', port: 8543 },
    path: '/',
    identity: { by: 'default' },
    profile: { kind: 'https_spiffe' },
    refreshHintMs: 300_000,
  });
  const problemsOfEndpoint = (more: object): string[] => problems({ ...BASE, bundleEndpoint: { ...ENDPOINT, ...more } });
  assert.deepEqual(problemsOfEndpoint({ profile: 'https_web' }), [
    'bundleEndpoint.certFile: is required for https_web',
    'bundleEndpoint.keyFile: is required for https_web',
  ]);
  assert.deepEqual(problemsOfEndpoint({ certFile: 'a', keyFile: 'b' }), [
    'bundleEndpoint.certFile: is for https_web',
    'bundleEndpoint.keyFile: is for https_web',
  ]);
  assert.deepEqual(problemsOfEndpoint({ listen: 'unix:///run/bundle.sock' }), [
    'bundleEndpoint.listen: "unix:///run/bundle.sock" is not a TCP address: write IP:PORT',
  ]);
  for (const path of ['', 'bundle', '/a?b', '/%61', '/ä'])
    assert.match(problemsOfEndpoint({ path })[0] ?? '', /^bundleEndpoint\.path: must be a path/, path);
  assert.deepEqual(problems({ ...BASE, inbound: [INBOUND], bundleEndpoint: { ...ENDPOINT, listen: '127.0.0.1:8443' } }), [
    'bundleEndpoint.listen: 127.0.0.1:8443 is taken by inbound[0], which listens on 127.0.0.1:8443',
  ]);
});

test('a time is one of RFC 3339, with an offset', () => {
  const notAfter = (text: string) => {
    const [listener] = accepted({ inbound: [{ ...INBOUND, allow: [{ peer: 'spiffe://example.org/web', notAfter: text }] }] }).inbound;
    return listener?.policy.rules[0]?.notAfterMs;
  };
  assert.equal(notAfter('2027-01-31T09:00:00+01:00'), Date.UTC(2027, 0, 31, 8));
  assert.equal(notAfter('2028-02-29t23:59:59.5z'), Date.UTC(2028, 1, 29, 23, 59, 59, 500));
  for (const text of [
    '2027-01-31T09:00:00',
    '2027-01-31',
    '2027-02-29T00:00:00Z',
    '2027-13-01T00:00:00Z',
    '2027-00-01T00:00:00Z',
    '2027-01-01T24:00:00Z',
    '2027-01-01T00:00:60Z',
    '2027-01-01T00:00:00+24:00',
    '2027-01-01 00:00:00Z',
    '27-01-01T00:00:00Z',
    'tomorrow',
    '',
  ])
    assert.match(
      problemsOf({ allow: [{ peer: 'spiffe://example.org/web', notAfter: text }] }).join(),
      /allow\[0\]\.notAfter: .* is not a time with an offset from UTC/,
      text,
    );
});

test('a rule for a method that is never forwarded is an error, for it would match nothing', () => {
  const listener = (methods: readonly string[]) => ({ protocol: 'http', allow: [{ peer: 'spiffe://example.org/web', methods }] });
  accepted({ inbound: [{ ...INBOUND, ...listener(['GET', 'M-SEARCH', 'QUERY']) }] });
  assert.deepEqual(problemsOf(listener(['GET', 'GETT', 'get', 'TRACE'])).toSorted(), [
    'inbound[0].allow[0].methods[1]: "GETT" is not a method that is forwarded',
    'inbound[0].allow[0].methods[2]: "get" is no method, such as "GET"',
    'inbound[0].allow[0].methods[3]: "TRACE" is never forwarded',
  ]);
});

test('what becomes of open connections depends on the protocol if nobody says, and unsafeKeep and keep are not mixed up', () => {
  for (const [protocol, onExpiry] of [
    ['tcp', 'keep'],
    ['http', 'drain'],
  ]) {
    const { inbound, outbound } = accepted({ inbound: [{ ...INBOUND, protocol }], outbound: [{ ...OUTBOUND, protocol }] });
    for (const listener of [...inbound, ...outbound]) {
      const { onPolicyChange, onAuthorityRemoved, onPeerExpiry, onOwnExpiry } = listener;
      assert.deepEqual([onPolicyChange, onAuthorityRemoved, onPeerExpiry, onOwnExpiry], ['close', 'close', onExpiry, onExpiry]);
    }
  }
  for (const [key, value] of [
    ['onPolicyChange', 'keep'],
    ['onAuthorityRemoved', 'keep'],
    ['onPeerExpiry', 'unsafeKeep'],
    ['onOwnExpiry', 'unsafeKeep'],
    ['onPolicyChange', 'Drain'],
    ['onOwnExpiry', null],
  ] as const) {
    assert.match(problemsOf({ [key]: value })[0] ?? '', new RegExp(`^inbound\\[0\\]\\.${key}: `));
  }
});

const WEB = { listen: 'unix:///run/partner.sock', protocol: 'http', to: 'https://api.partner.example', webPki: true };

test('webPki leads to a host of the public web, and has an empty policy, which admits no SPIFFE ID', () => {
  const targets = [
    ['https://api.partner.example', 'api.partner.example', 443],
    ['https://API.partner.example:8443/', 'api.partner.example', 8443],
    ['https://192.0.2.7', '192.0.2.7', 443],
    ['https://[2001:db8::7]:444', '2001:db8::7', 444],
  ] as const;
  for (const [to, host, port] of targets) {
    const [listener] = accepted({ outbound: [{ ...WEB, to }] }).outbound;
    assert.deepEqual(listener?.to, { kind: 'tcp', host, port, scheme: 'https' });
    assert.deepEqual(listener.webPki, { caFile: undefined });
    assert.equal(admits(listener.policy, 'spiffe://example.org/db'), false);
  }
});

test('with webPki nothing is said of SPIFFE, and without it no server is of the web', () => {
  const web = (more: object): string[] => problems({ ...BASE, outbound: [{ ...WEB, ...more }] });
  for (const [key, value] of Object.entries({
    expect: ['spiffe://example.org/db'],
    deny: [],
    policyFile: 'policy.yaml',
    unsafeAllowAnyInTrustDomain: 'example.org',
    identity: { hint: 'internal' },
    serverName: 'other.example',
  }))
    assert.ok(
      web({ [key]: value }).some((problem) => problem.startsWith(`outbound[0].${key}: is for servers with a SPIFFE ID`)),
      key,
    );
  assert.deepEqual(web({ alpn: ['h2'] }), ['outbound[0].alpn: is chosen by webPki: servers are asked in what the application speaks']);
  assert.deepEqual(web({ protocol: 'tcp' }), ['outbound[0].webPki: is for protocol: http']);
  assert.match(web({ to: 'api.partner.example:443' })[0] ?? '', /^outbound\[0\]\.to: .* is not https:\/\/HOST/);
  assert.match(web({ webPki: false })[0] ?? '', /^outbound\[0\]\.webPki: must be true/);
  assert.match(problemsOfOutbound({ protocol: 'http', to: 'https://db.example' })[0] ?? '', /^outbound\[0\]\.to: .* set webPki/);
  for (const to of [
    'https://',
    'https://a.example/path',
    'https://u@a.example',
    'https://a.example?q',
    'https://a.example:0',
    'https://0.0.0.0',
    'https://unix:/x',
  ])
    assert.match(web({ to })[0] ?? '', /^outbound\[0\]\.to: /, to);
});
