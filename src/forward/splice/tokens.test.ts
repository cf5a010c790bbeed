import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  CANCEL,
  END_HEADERS,
  END_STREAM,
  frame,
  GET,
  HEADERS,
  headers,
  RST_STREAM,
  settings,
  uint32,
  type Field,
} from '../../../test/support/http/http2-frames.ts';
import { createRandom } from '../../../test/support/random.ts';
import { startMemorySplice } from '../../../test/support/http/memory-splice.ts';
import { forwarderOptions, PEER } from '../../../test/support/memory-forwarder.ts';
import { Fields, nameBytes } from '../../http1/fields.ts';
import { buildIdentityFields } from '../../http1/identity-fields.ts';
import { HpackDecoder } from '../../http2/hpack/decoder.ts';
import { ok } from '../../lib/result.ts';
import { requireSpiffeId } from '../../spiffe/spiffe-id.ts';
import { NO_BEARER, type Bearer } from '../bearer.ts';

const SUBJECT = 'x-subject';
const REFUSED: Bearer = { kind: 'refused', reason: 'token_malformed', detail: 'it is bad' };

function tokenOf(name: string): Bearer {
  const subject = requireSpiffeId(`spiffe://example.org/${name}`);
  const token = { subject, expiresMs: Infinity, notBeforeMs: undefined, issuedMs: undefined, authority: undefined };
  return { kind: 'token', token: token as unknown as (Bearer & { kind: 'token' })['token'], endsAtMs: Infinity };
}

/** A listener that looks at tokens: `known NAME` is verified already, `new NAME` is when it is told, `bad` is refused, and others are none. */
function startWithTokens(application: 'http1' | 'http2') {
  let guards = false;
  const verified = new Map<string, PromiseWithResolvers<Bearer>>();
  const caller = { peerId: PEER, ownId: PEER, leafSha256: '0'.repeat(64) };
  const identityWithout = (...names: string[]) =>
    buildIdentityFields({ xfcc: 'sanitize', spiffeIdHeader: undefined }, caller, () => guards, [SUBJECT, ...names]);
  const { judge } = forwarderOptions(() => false);
  const stage = startMemorySplice({
    http1: application === 'http1' ? { scratch: new Fields(40) } : undefined,
    identity: identityWithout(),
    judge: (_method, _target, _host, bearer) =>
      bearer?.kind === 'refused'
        ? ok({ allowed: false, peer: PEER, rule: undefined, reason: bearer.reason, detail: bearer.detail })
        : judge(),
    tokens: {
      header: nameBytes('authorization'),
      identity: identityWithout('authorization'),
      subjectHeader: SUBJECT,
      read([value = '']) {
        const [kind, name = ''] = value.split(' ');
        if (kind === 'known') return tokenOf(name);
        if (kind === 'bad') return REFUSED;
        if (kind !== 'new') return NO_BEARER;
        const waiting = Promise.withResolvers<Bearer>();
        verified.set(name, waiting);
        return waiting.promise;
      },
      problemOf: () => undefined,
    },
  });
  const decoder = new HpackDecoder({ maxTableSize: 4096, maxFieldSectionSize: 4096, maxFields: 40 });
  return {
    ...stage,
    greet: () => application === 'http2' && stage.applications[0]?.say(settings()),
    ask: (stream: number, path: string, ...more: readonly Field[]) =>
      stage.client.say(headers(stream, [...GET.filter(([name]) => name !== ':path'), [':path', path], ...more], END_STREAM | END_HEADERS)),
    guard: () => (guards = true),
    verify: async (name: string, bearer: Bearer = tokenOf(name)): Promise<void> => {
      verified.get(name)?.resolve(bearer);
      await new Promise((resolve) => setImmediate(resolve));
    },
    /** Of each request that the application has: its path, and its fields. */
    heads: (): readonly (readonly [string, ReadonlyMap<string, string>])[] => {
      if (application === 'http1') {
        const all = stage.applications.flatMap(({ written }) => Buffer.concat(written).toString('latin1').split('\r\n\r\n').slice(0, -1));
        return all.map((head) => {
          const [line = '', ...fields] = head.split('\r\n');
          const pairs = fields
            .map((each) => each.split(': ') as [string, string])
            .map(([name, value]) => [name.toLowerCase(), value] as const);
          return [line.split(' ')[1] ?? '', new Map(pairs)] as const;
        });
      }
      return stage
        .toApplication()
        .filter(({ type }) => type === HEADERS)
        .map(({ payload }) => {
          const section = decoder.decode(payload);
          assert.ok(section !== 'too_large');
          const fields = new Map(section.map(([name, value]) => [name, value] as const));
          return [fields.get(':path') ?? '', fields] as const;
        });
    },
  };
}

for (const application of ['http1', 'http2'] as const) {
  test(`a request that waited behind a token has no field that a later rule takes out (${application})`, async () => {
    const { ask, greet, guard, verify, heads } = startWithTokens(application);
    ask(1, '/warm');
    greet();
    ask(3, '/slow', ['authorization', 'new one'], ['x-original-url', '/admin']);
    ask(5, '/none', ['authorization', 'new two'], ['x-original-url', '/admin']);
    guard();
    await verify('one');
    await verify('two', NO_BEARER);

    assert.deepEqual(
      heads().map(([path, fields]) => [path, fields.get(SUBJECT), fields.get('x-original-url')]),
      [
        ['/warm', undefined, undefined],
        ['/slow', 'spiffe://example.org/one', undefined],
        ['/none', undefined, undefined],
      ],
    );
  });
}

test('who is known does not wait for the token of another one where the order of requests says nothing', async () => {
  const { ask, verify, heads } = startWithTokens('http1');
  ask(1, '/slow', ['authorization', 'new one']);
  ask(3, '/known', ['authorization', 'known two']);
  ask(5, '/none');
  assert.deepEqual(
    heads().map(([path, fields]) => [path, fields.get(SUBJECT)]),
    [
      ['/known', 'spiffe://example.org/two'],
      ['/none', undefined],
    ],
  );

  await verify('one');
  assert.deepEqual(
    heads().map(([path]) => path),
    ['/known', '/none', '/slow'],
  );
});

test('streams go to an application of HTTP/2 in their order, and a refusal to its client at once', async () => {
  const { ask, greet, verify, heads, records } = startWithTokens('http2');
  ask(1, '/warm');
  greet();
  ask(3, '/slow', ['authorization', 'new one']);
  ask(5, '/known', ['authorization', 'known two']);
  ask(7, '/bad', ['authorization', 'bad']);
  assert.deepEqual(
    records.map(({ target, result, status }) => [target, result, status]),
    [['/bad', 'token_refused', 401]],
  );

  await verify('one');
  assert.deepEqual(
    heads().map(([path]) => path),
    ['/warm', '/slow', '/known'],
  );
});

for (const application of ['http1', 'http2'] as const) {
  test(`each request names the subject of its own token, and no token goes on (${application})`, async () => {
    const { ask, greet, heads, verify } = startWithTokens(application);
    ask(1, '/one', ['authorization', 'known one'], [SUBJECT, 'spiffe://example.org/admin']);
    greet();
    ask(3, '/two', ['authorization', 'known two']);
    ask(5, '/again', ['authorization', 'known two'], ['x-more', 'yes']);
    ask(7, '/basic', ['authorization', 'Basic x']);
    ask(9, '/none', [SUBJECT, 'spiffe://example.org/admin']);
    ask(11, '/new', ['authorization', 'new one']);
    await verify('one');

    assert.deepEqual(
      heads().map(([path, fields]) => [path, fields.get(SUBJECT), fields.get('authorization')]),
      [
        ['/one', 'spiffe://example.org/one', undefined],
        ['/two', 'spiffe://example.org/two', undefined],
        ['/again', 'spiffe://example.org/two', undefined],
        ['/basic', undefined, 'Basic x'],
        ['/none', undefined, undefined],
        ['/new', 'spiffe://example.org/one', undefined],
      ],
    );
  });
}

for (const application of ['http1', 'http2'] as const) {
  test(`whatever comes in whichever order, what a rule takes out goes no further once it is there (${application})`, async () => {
    for (let seed = 1; seed <= 60; seed++) {
      const draws = createRandom(seed);
      const below = (end: number): number => Math.floor(draws() * end);
      const { ask, client, greet, guard, heads, verify, records } = startWithTokens(application);
      ask(1, '/warm');
      greet();
      const open: string[] = [];
      let before = Infinity;
      for (let stream = 3; stream < 60; stream += 2) {
        const draw = below(10);
        const token = draw < 4 ? `new t${stream}` : draw < 6 ? 'known k' : draw < 7 ? 'bad' : draw < 8 ? 'Basic x' : undefined;
        if (draw < 4) open.push(`t${stream}`);
        ask(stream, `/${stream}`, ['x-original-url', '/admin'], ...(token === undefined ? [] : [['authorization', token] as const]));
        if (below(4) === 0) client.say(frame(RST_STREAM, 0, stream, uint32(CANCEL)));
        if (before === Infinity && below(12) === 0) {
          before = heads().length;
          guard();
        }
        const name = open[below(open.length + 1)];
        if (name !== undefined) await verify(name, below(3) === 0 ? REFUSED : tokenOf(name));
      }
      for (const name of open) await verify(name);

      const late = heads().slice(before);
      assert.deepEqual(
        late.filter(([, fields]) => fields.has('x-original-url')),
        [],
        `seed ${seed}`,
      );
      for (const [path, fields] of heads()) {
        assert.doesNotMatch(fields.get('authorization') ?? '', /new|known|bad/, `seed ${seed}`);
        const subject = fields.get(SUBJECT);
        assert.ok(subject === undefined || subject.endsWith('/k') || subject.endsWith(`/t${path.slice(1)}`), `seed ${seed}`);
      }
      if (application === 'http2') {
        const numbers = heads()
          .slice(1)
          .map(([path]) => Number(path.slice(1)));
        assert.deepEqual(
          numbers,
          numbers.toSorted((a, b) => a - b),
          `seed ${seed}`,
        );
      }
      assert.ok(
        records.every(({ result }) => ['token_refused', 'downstream_closed'].includes(result)),
        `seed ${seed}`,
      );
    }
  });
}
