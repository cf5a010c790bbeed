import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { createRandom } from '../../test/support/random.ts';
import { catalogueOf } from '../../test/support/secrets.ts';
import type { Catalogue } from './secrets.ts';
import {
  changesDelta,
  changesSotw,
  kindsDue,
  listNames,
  NEW_STREAM,
  stepDelta,
  stepSotw,
  type DeltaRequest,
  type NodeInfo,
  type SecretResponse,
  type SotwRequest,
  type Step,
  type StreamEffect,
  type StreamEvent,
  type StreamOptions,
  type StreamState,
} from './stream-state.ts';

const OPTIONS: StreamOptions = { noncePrefix: 'n', defaultForm: 'spiffe', strictUnknownNames: false, maxNames: 10 };
const ENVOY: NodeInfo = { id: 'envoy-1', userAgent: 'envoy/1.40.0', form: 'spiffe' };

/** A stream whose responses go out at once, unless held back. */
class Driver<Request> {
  state: StreamState = NEW_STREAM;
  catalogue: Catalogue | undefined;
  readonly effects: StreamEffect[] = [];
  isReading = true;
  readonly #stepper: (state: StreamState, event: StreamEvent<Request>, catalogue: Catalogue | undefined, options: StreamOptions) => Step;
  readonly #complete: (request: Partial<Request>) => Request;
  readonly #options: StreamOptions;

  constructor(step: Driver<Request>['stepper'], complete: (request: Partial<Request>) => Request, options: Partial<StreamOptions> = {}) {
    this.#stepper = step;
    this.#complete = complete;
    this.#options = { ...OPTIONS, ...options };
  }

  get stepper() {
    return this.#stepper;
  }

  /** What is sent in answer. */
  request(request: Partial<Request>): SecretResponse | undefined {
    return this.step({ kind: 'request', request: this.#complete(request) });
  }

  publish(versions: Readonly<Record<string, string>>): SecretResponse | undefined {
    this.catalogue = catalogueOf(versions, (this.catalogue?.generation ?? 0) + 1);
    return this.step({ kind: 'catalogue' });
  }

  written(): SecretResponse | undefined {
    return this.step({ kind: 'written' });
  }

  kinds(): string {
    return kindsDue(this.state, this.catalogue, this.#options);
  }

  /** The effects so far of one kind, and forgets them. */
  take<K extends StreamEffect['kind']>(kind: K): (StreamEffect & { kind: K })[] {
    const found = this.effects.filter((effect): effect is StreamEffect & { kind: K } => effect.kind === kind);
    this.effects.splice(0, this.effects.length, ...this.effects.filter((effect) => effect.kind !== kind));
    return found;
  }

  step(event: StreamEvent<Request>): SecretResponse | undefined {
    const before = JSON.stringify([this.state.names.size, this.state.sent.size, this.state.nonce]);
    const held = this.state;
    const { state, effects } = this.#stepper(this.state, event, this.catalogue, this.#options);
    // A step makes a new state; the old one stays as it was.
    assert.equal(JSON.stringify([held.names.size, held.sent.size, held.nonce]), before);
    this.state = state;
    const responses: SecretResponse[] = [];
    for (const effect of effects) {
      if (effect.kind === 'respond') responses.push(effect.response);
      else this.effects.push(effect);
    }
    assert.ok(responses.length <= 1, 'one event, at most one response');
    if (responses.length > 0 && this.isReading)
      assert.equal(this.written(), undefined, 'a response that has gone out is not followed by another');
    return responses[0];
  }
}

function sotw(options: Partial<StreamOptions> = {}, versions?: Readonly<Record<string, string>>): Driver<SotwRequest> {
  const driver = new Driver<SotwRequest>(
    stepSotw,
    (request) => ({ node: ENVOY, names: [], nonce: '', error: undefined, ...request }),
    options,
  );
  if (versions !== undefined) driver.publish(versions);
  return driver;
}

function delta(options: Partial<StreamOptions> = {}, versions?: Readonly<Record<string, string>>): Driver<DeltaRequest> {
  const complete = (request: Partial<DeltaRequest>): DeltaRequest => ({
    node: ENVOY,
    subscribe: [],
    unsubscribe: [],
    initialVersions: new Map(),
    nonce: '',
    error: undefined,
    ...request,
  });
  const driver = new Driver<DeltaRequest>(stepDelta, complete, options);
  if (versions !== undefined) driver.publish(versions);
  return driver;
}

const ERROR = { code: 13, message: 'key and certificate do not match' };

/** `a@1 b@1` for the secrets of a response, `-c` for what it removes. */
function said(response: SecretResponse | undefined): string {
  if (response === undefined) return 'nothing';
  const parts = [...response.secrets.map(({ name, version }) => `${name}@${version}`), ...response.removed.map((name) => `-${name}`)];
  return parts.length === 0 ? 'empty' : parts.join(' ');
}

/** Numbers that only look random, the same in each run. */
function numbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
    return Math.floor((state / 2_147_483_648) * below);
  };
}

suite('state of the world', () => {
  test('F.5.2: two names of one thing in one request are two secrets', () => {
    const stream = sotw({}, { default: '1', 'spiffe://d/w': '1' });

    assert.equal(said(stream.request({ names: ['spiffe://d/w', 'default'] })), 'spiffe://d/w@1 default@1');
  });

  test('F.5.3: an unknown name beside a known one does not hold it up, and is sent when it appears', () => {
    const stream = sotw({}, { a: '1' });

    const first = stream.request({ names: ['file-root:/x', 'a'] });
    assert.equal(said(first), 'a@1');
    assert.deepEqual(
      stream.take('missing').map(({ names }) => names.map(({ name, reason }) => [name, reason])),
      [[['file-root:/x', 'unknown_name']]],
    );
    assert.equal(said(stream.request({ names: ['file-root:/x', 'a'], nonce: first?.nonce ?? '' })), 'nothing');
    assert.equal(said(stream.publish({ a: '1', 'file-root:/x': '7' })), 'file-root:/x@7');
    assert.deepEqual(stream.take('end'), []);
  });

  test('F.5.3: a stream of unknown names alone is told nothing, and lives', () => {
    const stream = sotw({}, { a: '1' });

    assert.equal(said(stream.request({ names: ['b'] })), 'nothing');
    assert.equal(said(stream.publish({ a: '2' })), 'nothing');
    assert.equal(stream.take('missing').length, 1, 'said once');
    assert.equal(said(stream.publish({ b: '1' })), 'b@1');
  });

  test('F.5.4: a first request is fresh, whatever version and nonce it carries', () => {
    const stream = sotw({}, { a: '1' });

    assert.equal(said(stream.request({ names: ['a'], nonce: 'of another process' })), 'a@1');
    assert.deepEqual(stream.take('stale'), []);
  });

  test('F.5.4: an error in a first request is told, as one about nothing of this stream', () => {
    const stream = sotw({}, { a: '1' });

    assert.equal(said(stream.request({ names: ['a'], nonce: 'of another process', error: ERROR })), 'a@1');

    assert.deepEqual(stream.take('rejected'), [{ kind: 'rejected', versions: new Map(), ...ERROR }]);
    assert.equal(stream.state.sent.get('a')?.status, 'sent');
  });

  test('an empty name, and the one for everything, are no names', () => {
    const stream = sotw({}, { a: '1' });

    assert.equal(said(stream.request({ names: ['', 'a', ''] })), 'a@1');
    assert.deepEqual([...stream.state.names], ['a']);
    assert.equal(said(stream.request({ names: ['*', 'a'] })), 'a@1');
    assert.deepEqual([[...stream.state.names], stream.state.wildcard], [['a'], 'explicit']);
    assert.deepEqual(stream.effects, []);
  });

  test('names besides everything are told of, too', () => {
    const stream = sotw({}, { a: '1' });
    const catalogue = catalogueOf({ a: '1', alias: '1' });
    stream.catalogue = { ...catalogue, names: () => ['a'] };

    assert.equal(said(stream.request({ names: ['*', 'alias'] })), 'a@1 alias@1');
  });

  test('an answer that comes while another response is on its way counts', () => {
    const stream = sotw({}, { a: '1' });
    stream.isReading = false;
    const nonce = stream.request({ names: ['a'] })?.nonce ?? '';

    stream.request({ names: ['a'], nonce, error: ERROR });
    stream.request({ names: ['a'], nonce: 'invented' });

    assert.deepEqual([stream.take('rejected').length, stream.take('stale').length], [1, 1]);
  });

  test('which requests change what is asked for: others, and an empty list once something was named', () => {
    const held = (names: readonly string[]): StreamState => {
      const stream = sotw();
      stream.request({ names });
      return stream.state;
    };
    const changes = (before: readonly string[], after: readonly string[]): boolean =>
      changesSotw(held(before), { node: ENVOY, names: after, nonce: 'n1', error: undefined });

    for (const [before, after] of [
      [
        ['a', 'b'],
        ['b', 'a', 'b', ''],
      ],
      [[], []],
      [['*'], ['*', '']],
    ] as const)
      assert.equal(changes(before, after), false, JSON.stringify([before, after]));
    for (const [before, after] of [
      [['a'], ['a', 'b']],
      [['a', 'b'], ['a']],
      [
        ['a', 'b'],
        ['b', 'c'],
      ],
      [['a'], []],
      [['a'], ['*', 'a']],
      [['*'], []],
      [[], ['*']],
      [[], ['a']],
    ] as const)
      assert.equal(changes(before, after), true, JSON.stringify([before, after]));
  });

  test('F.5.4: the nonces of two streams differ', () => {
    const [one, other] = [sotw({ noncePrefix: 'x-' }, { a: '1' }), sotw({ noncePrefix: 'y-' }, { a: '1' })];

    assert.notEqual(one.request({ names: ['a'] })?.nonce, other.request({ names: ['a'] })?.nonce);
  });

  test('F.5.5: a list that gets shorter, is exchanged, repeats a name, or is emptied', () => {
    const stream = sotw({}, { a: '1', b: '1', c: '1' });
    let nonce = stream.request({ names: ['a', 'b'] })?.nonce ?? '';

    assert.equal(said(stream.request({ names: ['a'], nonce })), 'nothing');
    const exchanged = stream.request({ names: ['b', 'c'], nonce });
    assert.equal(said(exchanged), 'b@1 c@1', 'b was let go, so it is sent anew');
    nonce = exchanged?.nonce ?? '';
    const again = stream.request({ names: ['a', 'a'], nonce });
    assert.equal(said(again), 'a@1');
    nonce = again?.nonce ?? '';
    assert.equal(said(stream.request({ names: [], nonce })), 'nothing', 'not everything');
    assert.equal(said(stream.publish({ a: '2', b: '2', c: '2' })), 'nothing');
  });

  test('F.5.5: [a,b] to [a,a] drops b', () => {
    const stream = sotw({}, { a: '1', b: '1' });
    const nonce = stream.request({ names: ['a', 'b'] })?.nonce ?? '';

    stream.request({ names: ['a', 'a'], nonce });

    assert.equal(said(stream.publish({ a: '1', b: '2' })), 'nothing');
    assert.equal(said(stream.publish({ a: '2', b: '2' })), 'a@2');
  });

  test('F.5.5: the same names in another order are the same', () => {
    const stream = sotw({}, { a: '1', b: '1' });
    const nonce = stream.request({ names: ['a', 'b'] })?.nonce ?? '';

    assert.equal(said(stream.request({ names: ['b', 'a', 'b'], nonce })), 'nothing');
  });

  test('F.5.5: a name that is removed and added again is sent again', () => {
    const stream = sotw({}, { a: '1', b: '1' });
    const nonce = stream.request({ names: ['a', 'b'] })?.nonce ?? '';

    stream.request({ names: ['a'], nonce });

    assert.equal(said(stream.request({ names: ['a', 'b'], nonce })), 'b@1');
  });

  test('F.5.6: a NACK is answered with nothing, however often it comes', () => {
    const stream = sotw({}, { a: '1' });
    const nonce = stream.request({ names: ['a'] })?.nonce ?? '';

    assert.equal(said(stream.request({ names: ['a'], nonce, error: ERROR })), 'nothing');
    assert.equal(said(stream.request({ names: ['a'], nonce, error: ERROR })), 'nothing');

    const [first, second] = stream.take('rejected');
    assert.deepEqual([...(first?.versions ?? [])], [['a', '1']]);
    assert.deepEqual([...(second?.versions ?? ['none'])], [], 'it was answered already');
    assert.deepEqual([first?.message, second?.message], [ERROR.message, ERROR.message]);
    assert.deepEqual(stream.state.sent.get('a'), { version: '1', status: 'rejected', detail: ERROR.message });
  });

  test('F.5.6: what was rejected is not sent again when something else changes, but new content is', () => {
    const stream = sotw({}, { a: '1', b: '1' });
    const nonce = stream.request({ names: ['a', 'b'] })?.nonce ?? '';
    stream.request({ names: ['a', 'b'], nonce, error: ERROR });

    assert.equal(said(stream.publish({ a: '1', b: '2' })), 'b@2');
    assert.equal(said(stream.publish({ a: '2', b: '2' })), 'a@2');
  });

  test('F.5.6: a NACK may change the subscription', () => {
    const stream = sotw({}, { a: '1', b: '1' });
    const nonce = stream.request({ names: ['a'] })?.nonce ?? '';

    assert.equal(said(stream.request({ names: ['a', 'b'], nonce, error: ERROR })), 'b@1');
  });

  test('a version is never what makes a NACK or a stale request', () => {
    const stream = sotw({}, { a: '1' });
    const nonce = stream.request({ names: ['a'] })?.nonce ?? '';

    stream.request({ names: ['a'], nonce });
    stream.request({ names: ['a'], nonce });

    assert.equal(stream.take('accepted').length, 1, 'once');
    assert.equal(stream.state.sent.get('a')?.status, 'accepted');
  });

  test('a request about an older response changes nothing: it comes again with the answer to the newest', () => {
    const stream = sotw({}, { a: '1', b: '1' });
    const old = stream.request({ names: ['a'] })?.nonce ?? '';
    const fresh = stream.publish({ a: '2', b: '1' })?.nonce ?? '';

    assert.equal(said(stream.request({ names: ['b'], nonce: old })), 'nothing');
    assert.equal(said(stream.request({ names: ['b'], nonce: 'invented' })), 'nothing');
    assert.equal(stream.take('stale').length, 2);
    assert.equal(said(stream.publish({ a: '3', b: '1' })), 'a@3');
    assert.notEqual(fresh, old);
  });

  test('an empty nonce after a response is a change of the subscription alone', () => {
    const stream = sotw({}, { a: '1', b: '1' });
    stream.request({ names: ['a'] });

    assert.equal(said(stream.request({ names: ['b'] })), 'b@1');
    assert.equal(said(stream.request({ names: ['b'] })), 'nothing');
  });

  test('where nothing was ever sent, no nonce is stale', () => {
    const stream = sotw({}, { a: '1' });
    stream.request({ names: ['b'] });

    assert.equal(said(stream.request({ names: ['a', 'b'], nonce: 'of another process' })), 'a@1');
  });

  test('F.5.8: the same content is not sent twice', () => {
    const stream = sotw({}, { a: '1' });
    stream.request({ names: ['a'] });

    assert.equal(said(stream.publish({ a: '1' })), 'nothing');
    assert.equal(said(stream.publish({ a: '2' })), 'a@2');
  });

  test('F.5.8, F.5.12: a slow reader is sent the newest of what it missed, once', () => {
    const stream = sotw({}, { a: '1', b: '1' });
    stream.isReading = false;
    stream.request({ names: ['a', 'b'] });

    for (let version = 2; version < 100; version += 1) assert.equal(said(stream.publish({ a: String(version), b: '1' })), 'nothing');
    assert.equal(said(stream.written()), 'a@99');
    assert.equal(said(stream.written()), 'nothing');
  });

  test('F.5.12: what a slow reader asks for meanwhile is not lost', () => {
    const stream = sotw({}, { a: '1', b: '1' });
    stream.isReading = false;
    const nonce = stream.request({ names: ['a'] })?.nonce ?? '';

    assert.equal(said(stream.request({ names: ['a', 'b'], nonce })), 'nothing');
    assert.equal(said(stream.written()), 'b@1');
  });

  test('F.5.10: an identity that is withdrawn ends nothing, and is sent when it comes back another', () => {
    const stream = sotw({}, { a: '1', b: '1' });
    stream.request({ names: ['a', 'b'] });

    assert.equal(said(stream.publish({ b: '1' })), 'nothing');
    assert.equal(said(stream.publish({ b: '1' })), 'nothing');
    assert.deepEqual(
      stream.take('withdrawn').map(({ names }) => names.map(({ name }) => name)),
      [['a']],
    );
    assert.equal(said(stream.publish({ a: '1', b: '1' })), 'nothing', 'the client still has it');
    assert.equal(said(stream.publish({ b: '1' })), 'nothing');
    assert.equal(said(stream.publish({ a: '2', b: '1' })), 'a@2');
  });

  test('F.5.10: what is withdrawn is told apart from what was never there, each time, and with the reason that it has then', () => {
    const stream = sotw({}, { a: '1', b: '1' });
    stream.request({ names: ['a', 'b', 'z'] });
    const effects = (): string[] =>
      stream.effects
        .splice(0)
        .map((effect) => ('names' in effect ? `${effect.kind} ${effect.names.map(({ name }) => name).join()}` : effect.kind));
    const told = (versions: Readonly<Record<string, string>>): string[] => {
      stream.publish(versions);
      return effects();
    };
    assert.deepEqual(effects(), ['missing z']);

    stream.catalogue = catalogueOf({ b: '1', z: '1' });
    stream.request({ names: ['a', 'b', 'y', 'z'] });
    assert.deepEqual(effects(), ['missing y', 'withdrawn a']);
    assert.deepEqual([...stream.state.missing.keys()], ['a', 'y']);
    assert.deepEqual(told({ a: '1', z: '1' }), ['withdrawn b']);
    assert.deepEqual([...stream.state.missing.keys()], ['b', 'y'], 'as many as before, and others');
    assert.deepEqual(told({ a: '1', b: '1', z: '1' }), []);
    assert.deepEqual(told({ a: '1', z: '1' }), ['withdrawn b'], 'once more');

    const gone = catalogueOf({ a: '1', z: '1' });
    stream.catalogue = {
      ...gone,
      lookup: (name, form) => (name === 'b' ? { found: false, reason: 'not_valid', detail: 'it has expired' } : gone.lookup(name, form)),
    };
    stream.request({ names: ['a', 'b', 'y', 'z'] });
    assert.deepEqual(
      stream.take('missing').map(({ names }) => names.map(({ name, reason }) => [name, reason])),
      [[['b', 'not_valid']]],
      'it was withdrawn before',
    );
    assert.deepEqual(stream.effects, []);
  });

  test('F.5.11: a node that comes with the first request alone is remembered', () => {
    const stream = sotw({}, {});
    stream.request({ names: ['a'], node: { ...ENVOY, form: 'root_ca' } });
    stream.request({ names: ['a', 'b'], node: undefined });

    assert.equal(stream.state.node?.form, 'root_ca', 'though nothing was sent yet');
  });

  test('F.5.11: a stream without a node is served', () => {
    const stream = sotw({}, { a: '1' });

    assert.equal(said(stream.request({ names: ['a'], node: undefined })), 'a@1');
  });

  test('before the first answer of the Workload API nothing is said, and then everything', () => {
    const stream = sotw();

    assert.equal(said(stream.request({ names: ['a', 'b'] })), 'nothing');
    assert.deepEqual(stream.effects, []);
    assert.equal(said(stream.publish({ a: '1' })), 'a@1');
  });

  test('the request that comes first: a catalogue alone sends nothing', () => {
    const stream = sotw();

    assert.equal(said(stream.publish({ a: '1' })), 'nothing');
    assert.equal(said(stream.request({ names: ['a'] })), 'a@1');
  });

  test('no names in the first request are everything, also what comes later', () => {
    const stream = sotw({}, { a: '1', b: '1' });

    const first = stream.request({ names: [] });
    assert.equal(said(first), 'a@1 b@1');
    assert.equal(said(stream.request({ names: [], nonce: first?.nonce ?? '' })), 'nothing', 'the ACK still means everything');
    assert.equal(said(stream.publish({ a: '1', b: '1', c: '1' })), 'c@1');
    assert.equal(said(stream.publish({ b: '1', c: '1' })), 'nothing');
    assert.equal(said(stream.publish({ b: '1', c: '1' })), 'nothing');
    assert.equal(stream.take('withdrawn').length, 1);
  });

  test('a wildcard is left by asking for names, and an empty list is then nothing', () => {
    const stream = sotw({}, { a: '1', b: '1' });
    const first = stream.request({ names: [] })?.nonce ?? '';

    const named = stream.request({ names: ['a'], nonce: first });
    assert.equal(said(named), 'a@1');
    assert.equal(said(stream.publish({ a: '1', b: '2' })), 'nothing');
    stream.request({ names: [], nonce: named?.nonce ?? '' });
    assert.equal(said(stream.publish({ a: '2', b: '3' })), 'nothing');
  });

  test('an explicit wildcard is ended by an empty list', () => {
    const stream = sotw({}, { a: '1' });
    const first = stream.request({ names: ['*'] });
    assert.equal(said(first), 'a@1');

    stream.request({ names: [], nonce: first?.nonce ?? '' });

    assert.equal(said(stream.publish({ a: '2' })), 'nothing');
  });

  test('everything, where there is nothing, is an empty answer, once', () => {
    const stream = sotw({}, {});

    const first = stream.request({ names: [] });
    assert.equal(said(first), 'empty');
    assert.equal(said(stream.request({ names: [], nonce: first?.nonce ?? '' })), 'nothing');
    assert.equal(said(stream.publish({})), 'nothing');
  });

  test('strict: an unknown name ends the stream, as does a withdrawn one', () => {
    const unknown = sotw({ strictUnknownNames: true }, { a: '1' });
    assert.equal(said(unknown.request({ names: ['a', 'z', 'b"'] })), 'nothing');
    const [end] = unknown.take('end');
    assert.equal(end?.reason, 'unknown_names');
    assert.match(end?.detail ?? '', /"b\\"", "z"/);

    assert.equal(unknown.take('missing').length, 0);
    const rejecting = sotw({ strictUnknownNames: true }, { a: '1' });
    const nonce = rejecting.request({ names: ['a'] })?.nonce ?? '';
    rejecting.request({ names: ['a', 'z'], nonce, error: ERROR });
    assert.deepEqual([rejecting.take('rejected').length, rejecting.take('end').length], [1, 1], 'what else it says is told');

    const withdrawn = sotw({ strictUnknownNames: true }, { a: '1' });
    withdrawn.request({ names: ['a'] });
    withdrawn.publish({});
    assert.equal(withdrawn.take('end').length, 1);
  });

  test('strict: who asks for everything asks for nothing by name, and goes on though something of it is not valid', () => {
    const stream = sotw({ strictUnknownNames: true });
    stream.catalogue = { ...catalogueOf({ a: '1' }), names: () => ['a', 'expired'] };

    assert.equal(said(stream.request({ names: [] })), 'a@1');
    assert.deepEqual(stream.take('end'), []);
  });

  test('of types of which there never is anything, each request for something new is answered with nothing', () => {
    const stream = sotw({ answersEmpty: true }, {});

    const first = stream.request({ names: ['a'] });
    assert.equal(said(first), 'empty');
    assert.equal(said(stream.request({ names: ['a'], nonce: first?.nonce ?? '' })), 'nothing');
    assert.equal(said(stream.request({ names: ['a', 'b'], nonce: first?.nonce ?? '' })), 'empty');
  });

  test('bundles are not held back with certificates', () => {
    const stream = sotw({ holdsCertificates: true }, { certificate: '1', bundle: '1' });

    assert.equal(said(stream.request({ names: ['certificate'] })), 'nothing');
    assert.equal(said(stream.request({ names: ['bundle'] })), 'bundle@1');
  });

  test('too many names end the stream', () => {
    const stream = sotw({ maxNames: 3 }, { a: '1' });

    assert.equal(said(stream.request({ names: ['a', 'b', 'c'] })), 'a@1');
    stream.request({ names: ['a', 'b', 'c', 'd'], error: ERROR });
    assert.deepEqual(stream.take('end'), [
      { kind: 'end', reason: 'too_many_names', detail: '4 names on one stream: 3 are allowed', isPooled: false },
    ]);
    assert.equal(stream.take('rejected').length, 1, 'what else it says is told');
  });

  test('a text that lists names has twenty of them, each of 200 letters, and says how many more there are', () => {
    const names = (count: number): string[] => Array.from({ length: count }, (_, index) => `${index}`);
    assert.match(listNames(names(20)), /^"0", .*"19"$/);
    assert.match(listNames(names(21)), /^"0", .*"19" and 1 more$/);
    assert.equal(listNames(['x'.repeat(200)]), `"${'x'.repeat(200)}"`);
    assert.equal(listNames(['x'.repeat(201)]), `"${'x'.repeat(200)}…"`);
    assert.equal(listNames(['a\n"']), '"a\\n\\""');
  });

  test('a version is that of the content: the same from another process, another for other content', () => {
    const [one, other] = [sotw({ noncePrefix: 'x' }, { a: '1', b: '2' }), sotw({ noncePrefix: 'y' }, { b: '2', a: '1' })];

    const version = one.request({ names: ['a', 'b'] })?.version;
    assert.equal(other.request({ names: ['b', 'a'] })?.version, version);
    assert.notEqual(one.publish({ a: '1', b: '3' })?.version, version);
    assert.equal(sotw({}, { a: 'digest' }).request({ names: ['a'] })?.version, 'digest');
  });

  test('in one response bundles come before certificates', () => {
    const stream = sotw({}, { certificate: '1', bundle: '1' });

    assert.equal(said(stream.request({ names: ['certificate', 'bundle'] })), 'bundle@1 certificate@1');
  });

  test('certificate and bundle of one snapshot go out together', () => {
    const stream = sotw({}, { certificate: '1', bundle: '1' });
    stream.request({ names: ['certificate', 'bundle'] });

    assert.equal(said(stream.publish({ certificate: '2', bundle: '2' })), 'bundle@2 certificate@2');
  });

  test('memory is bounded: of responses that nobody answers the last few are remembered', () => {
    const stream = sotw({}, { a: '0' });
    stream.request({ names: ['a'] });

    for (let version = 1; version < 1000; version += 1) stream.publish({ a: String(version) });

    assert.ok(stream.state.outstanding.size <= 8);
  });

  test('memory is bounded: of names that are exchanged beside a wildcard, while nothing is read, the last are remembered', () => {
    const stream = sotw({}, { a: '1' });
    stream.isReading = false;
    stream.request({ names: ['*'] });
    for (let round = 0; round < 50; round += 1) {
      stream.request({ names: ['*', ...Array.from({ length: 9 }, (_, index) => `${round}-${index}`)] });
      assert.ok(stream.state.unanswered.size <= 10, `${stream.state.unanswered.size} names`);
    }
    assert.deepEqual(stream.take('end'), []);
  });

  test('what a stream is due is known before it is sent', () => {
    const stream = sotw({}, { certificate: '1', bundle: '1' });
    stream.request({ names: ['certificate', 'bundle'] });
    assert.equal(stream.kinds(), 'none');

    for (const [versions, kinds] of [
      [{ certificate: '2', bundle: '1' }, 'certificates'],
      [{ certificate: '1', bundle: '2' }, 'bundles'],
      [{ certificate: '2', bundle: '2' }, 'both'],
    ] as const) {
      stream.catalogue = catalogueOf(versions);
      assert.equal(stream.kinds(), kinds);
    }
  });

  test('a stream is due nothing before anything is there, before it asks, and for what it was told is missing', () => {
    const stream = sotw();
    assert.equal(stream.kinds(), 'none');
    stream.request({ names: ['a', 'b'] });
    assert.equal(stream.kinds(), 'none', 'the Workload API has not answered');
    stream.publish({ a: '1' });

    const without: Catalogue = { ...catalogueOf({}), lookup: () => ({ found: false, reason: 'not_held', detail: 'we do not hold it' }) };
    assert.equal(kindsDue({ ...stream.state, missing: new Map([['b', 'not_held']]), sent: new Map() }, without, OPTIONS), 'none');
    assert.equal(kindsDue(stream.state, without, OPTIONS), 'bundles', 'what was sent is gone');
  });

  test('names that nothing is called are not looked up again, however many, to know what is due', () => {
    const stream = sotw({}, { a: '1' });
    stream.request({ names: ['a', 'x', 'y'] });
    const looked: string[] = [];
    const next = catalogueOf({ a: '2' }, 2);
    const counting: Catalogue = {
      ...next,
      lookup(name, form) {
        looked.push(name);
        return next.lookup(name, form);
      },
    };
    assert.equal(kindsDue(stream.state, counting, OPTIONS), 'certificates');
    assert.deepEqual(looked, ['a']);
  });

  test('a certificate that is held back is due, also to a client that asks for the one that it has', () => {
    const held = { ...OPTIONS, holdsCertificates: true };
    const catalogue = catalogueOf({ a: '1' });
    const ask = (subscribe: string[]): StreamEvent<DeltaRequest> => ({
      kind: 'request',
      request: { node: ENVOY, subscribe, unsubscribe: [], initialVersions: new Map(), nonce: '', error: undefined },
    });
    const first = stepDelta(NEW_STREAM, ask(['a']), catalogue, held);
    assert.deepEqual(first.effects, []);
    assert.equal(kindsDue(first.state, catalogue, OPTIONS), 'certificates');

    const sent = stepDelta(stepDelta(first.state, { kind: 'catalogue' }, catalogue, OPTIONS).state, { kind: 'written' }, catalogue, held);
    const again = stepDelta(sent.state, ask(['a']), catalogue, held);
    assert.deepEqual(again.effects, []);
    assert.equal(kindsDue(again.state, catalogue, OPTIONS), 'certificates');
    assert.equal(stepDelta(again.state, { kind: 'catalogue' }, catalogue, OPTIONS).effects.length, 1);
  });

  test('what waits for certificates is due with them: everything once more, and that a name is still missing', () => {
    const stream = delta({}, { a: '1' });
    stream.request({ subscribe: ['*', 'z'] });
    const held = { ...OPTIONS, holdsCertificates: true };
    const ask = (subscribe: string[]): StreamState =>
      stepDelta(
        stream.state,
        { kind: 'request', request: { node: ENVOY, subscribe, unsubscribe: [], initialVersions: new Map(), nonce: '', error: undefined } },
        stream.catalogue,
        held,
      ).state;

    assert.equal(kindsDue(ask(['*']), stream.catalogue, OPTIONS), 'both', 'that there is no more is told as well');
    assert.equal(kindsDue(ask(['z', 'a']), stream.catalogue, OPTIONS), 'both');
  });

  test('in the end the client holds the newest of everything that it asks for, whatever it asks on the way', () => {
    const names = ['a', 'b', 'c', '*', ''];
    const random = numbers(11);
    const some = (): string[] => Array.from({ length: random(4) }, () => names[random(names.length)] ?? '');
    for (let run = 0; run < 300; run += 1) {
      const stream = sotw({ maxNames: 100 });
      stream.isReading = false;
      const held = new Map<string, string>();
      const take = (response: SecretResponse | undefined): void => {
        for (const { name, version } of response?.secrets ?? []) held.set(name, version);
        assert.deepEqual(response?.removed ?? [], []);
      };
      let versions: Record<string, string> = {};
      for (let event = 0; event < 20; event += 1) {
        const kind = random(4);
        if (kind === 0) take(stream.request({ names: some(), nonce: random(3) === 0 ? '' : stream.state.nonce }));
        else if (kind === 1) {
          versions = Object.fromEntries(['a', 'b', 'c'].filter(() => random(2) === 0).map((name) => [name, String(random(3))]));
          take(stream.publish(versions));
        } else take(stream.written());
        if (stream.state.wildcard === 'none') for (const name of held.keys()) if (!stream.state.names.has(name)) held.delete(name);
      }
      while (stream.state.isWriting) take(stream.written());
      if (stream.catalogue === undefined) continue;
      for (const [name, version] of Object.entries(versions)) {
        const isAsked = stream.state.names.has(name) || stream.state.wildcard !== 'none';
        assert.equal(isAsked ? held.get(name) : version, version, `run ${run}: ${name}`);
      }
    }
  });
});

suite('delta', () => {
  test('F.5.7: what is subscribed to is sent, what is not there is said to be removed, and pushed when it appears', () => {
    const stream = delta({}, { a: '1' });

    assert.equal(said(stream.request({ subscribe: ['a', 'b'] })), 'a@1 -b');
    assert.equal(said(stream.publish({ a: '1', b: '1' })), 'b@1');
    assert.deepEqual(stream.take('end'), []);
  });

  test('F.5.7: a subscription to what the client holds already is answered', () => {
    const stream = delta({}, { a: '1', b: '1' });
    const first = stream.request({ subscribe: ['a', 'b'] });

    assert.equal(said(stream.request({ subscribe: ['a'], nonce: first?.nonce ?? '' })), 'a@1');
    assert.equal(said(stream.request({ subscribe: ['z'] })), '-z');
    assert.equal(said(stream.request({ subscribe: ['z'] })), '-z', 'again, as it was asked again');
  });

  test('F.5.7: to unsubscribe from what was never subscribed to means nothing', () => {
    const stream = delta({}, { a: '1' });
    stream.request({ subscribe: ['a'] });

    assert.equal(said(stream.request({ unsubscribe: ['z'] })), 'nothing');
    assert.equal(said(stream.publish({ a: '2', z: '1' })), 'a@2');
  });

  test('F.5.7: the subscription counts though the nonce is stale', () => {
    const stream = delta({}, { a: '1', b: '1' });
    const old = stream.request({ subscribe: ['a'] })?.nonce ?? '';
    stream.publish({ a: '2', b: '1' });

    assert.equal(said(stream.request({ subscribe: ['b'], nonce: old })), 'b@1');
    assert.equal(said(stream.request({ unsubscribe: ['a'], nonce: 'invented' })), 'nothing');
    assert.equal(said(stream.publish({ a: '3', b: '1' })), 'nothing');
  });

  test('F.5.7: a nonce of ours that is not the last one is no stale one in delta, an invented one is', () => {
    const stream = delta({}, { a: '1', b: '1' });
    const old = stream.request({ subscribe: ['a'] })?.nonce ?? '';
    stream.publish({ a: '2', b: '1' });

    stream.request({ nonce: old });
    assert.deepEqual([stream.take('accepted').length, stream.take('stale').length], [1, 0]);
    stream.request({ nonce: 'invented' });
    assert.deepEqual(stream.take('stale'), [{ kind: 'stale', nonce: 'invented' }]);
    stream.request({ nonce: stream.state.nonce });
    stream.request({});
    assert.deepEqual([stream.take('accepted').length, stream.take('stale').length], [1, 0]);
  });

  test('F.5.6: a NACK may change the subscription', () => {
    const stream = delta({}, { a: '1', b: '1' });
    const nonce = stream.request({ subscribe: ['a'] })?.nonce ?? '';

    assert.equal(said(stream.request({ subscribe: ['b'], unsubscribe: ['a'], nonce, error: ERROR })), 'b@1');
    assert.equal(stream.take('rejected').length, 1);
    assert.equal(said(stream.publish({ a: '2', b: '1' })), 'nothing');
  });

  test('F.5.5: a subscription that is left, exchanged, repeated, emptied, and taken up again', () => {
    const stream = delta({}, { a: '1', b: '1', c: '1' });
    stream.request({ subscribe: ['a', 'b'] });

    assert.equal(said(stream.request({ unsubscribe: ['b'] })), 'nothing');
    assert.equal(said(stream.request({ subscribe: ['b', 'c'], unsubscribe: ['a'] })), 'b@1 c@1');
    assert.equal(said(stream.request({ subscribe: ['a', 'a'], unsubscribe: ['b', 'c'] })), 'a@1');
    assert.equal(said(stream.request({ unsubscribe: ['a'] })), 'nothing');
    assert.equal(said(stream.publish({ a: '2', b: '2', c: '2' })), 'nothing', 'nothing is not everything');
    assert.equal(said(stream.request({ subscribe: ['a'] })), 'a@2');
  });

  test('F.5.7: initial versions of what is not asked for are not remembered, whatever they are called', () => {
    const stream = delta();

    stream.request({ subscribe: ['a', 'b'], initialVersions: new Map(['b', 'c', '*', ''].map((name) => [name, '1'])) });

    assert.deepEqual([...stream.state.unanswered], ['a', 'b']);
    assert.equal(said(stream.publish({})), '-a -b');
  });

  test('which requests change what is asked for: all that name something', () => {
    const changes = (request: Partial<DeltaRequest>): boolean =>
      changesDelta(NEW_STREAM, {
        node: ENVOY,
        subscribe: [],
        unsubscribe: [],
        initialVersions: new Map([['a', '1']]),
        nonce: '',
        error: undefined,
        ...request,
      });

    assert.deepEqual([{ nonce: 'n1' }, { nonce: 'n1', error: ERROR }].map(changes), [false, false]);
    assert.deepEqual([{ subscribe: ['a'] }, { unsubscribe: ['a'] }, { subscribe: ['a'], unsubscribe: ['b'] }].map(changes), [
      true,
      true,
      true,
    ]);
  });

  test('F.5.7: initial versions that are equal, older, or of what is withdrawn: all are answered', () => {
    const stream = delta({}, { same: '2', older: '2' });

    const initialVersions = new Map([
      ['same', '2'],
      ['older', '1'],
      ['gone', '1'],
      ['not subscribed', '1'],
    ]);
    assert.equal(said(stream.request({ subscribe: ['same', 'older', 'gone'], initialVersions })), 'same@2 older@2 -gone');
  });

  test('F.5.7: with a wildcard, what the client claims to hold and is not there is said to be removed', () => {
    const stream = delta({}, { a: '1' });

    assert.equal(
      said(
        stream.request({
          initialVersions: new Map([
            ['a', '1'],
            ['gone', '1'],
          ]),
        }),
      ),
      'a@1 -gone',
    );
    assert.equal(said(stream.publish({ a: '1' })), 'nothing');
  });

  test('initial versions mean nothing in a later request', () => {
    const stream = delta({}, { a: '1' });
    stream.request({ subscribe: ['a'] });

    assert.equal(said(stream.request({ initialVersions: new Map([['gone', '1']]) })), 'nothing');
  });

  test('a name in both lists of one request is not subscribed to', () => {
    const stream = delta({}, { a: '1' });

    assert.equal(said(stream.request({ subscribe: ['a'], unsubscribe: ['a'] })), 'nothing');
    assert.equal(said(stream.publish({ a: '2' })), 'nothing');
  });

  test('F.5.6: what was rejected is not sent again, new content is, and so is what is asked for again', () => {
    const stream = delta({}, { a: '1' });
    const nonce = stream.request({ subscribe: ['a'] })?.nonce ?? '';

    assert.equal(said(stream.request({ nonce, error: ERROR })), 'nothing');
    assert.equal(said(stream.request({ nonce, error: ERROR })), 'nothing');
    assert.equal(said(stream.publish({ a: '1' })), 'nothing');
    assert.equal(said(stream.publish({ a: '2' })), 'a@2');
    assert.equal(said(stream.request({ subscribe: ['a'] })), 'a@2');
    assert.equal(stream.take('rejected').length, 2);
  });

  test('F.5.8: the same content is not sent twice', () => {
    const stream = delta({}, { a: '1' });
    stream.request({ subscribe: ['a'] });

    assert.equal(said(stream.publish({ a: '1' })), 'nothing');
  });

  test('F.5.9, F.5.10: what is withdrawn is removed, once, and sent when it comes back, even the same', () => {
    const stream = delta({}, { a: '1', b: '1' });
    stream.request({ subscribe: ['a', 'b'] });

    assert.equal(said(stream.publish({ b: '1' })), '-a');
    assert.equal(said(stream.publish({ b: '1' })), 'nothing');
    assert.equal(stream.take('withdrawn').length, 1);
    assert.equal(said(stream.publish({ a: '1', b: '1' })), 'a@1');
  });

  test('F.5.12: a slow reader is sent the newest: what came and went meanwhile is not told', () => {
    const stream = delta({}, { a: '1' });
    stream.isReading = false;
    stream.request({ subscribe: ['a', 'b'] });

    stream.publish({ a: '2' });
    stream.publish({ a: '3', b: '1' });
    stream.publish({ a: '3' });
    assert.equal(said(stream.written()), 'a@3');
    assert.equal(said(stream.written()), 'nothing');
  });

  test('F.5.12: what a slow reader subscribes to and leaves meanwhile is not sent', () => {
    const stream = delta({}, { a: '1', b: '1' });
    stream.isReading = false;
    stream.request({ subscribe: ['a'] });

    stream.request({ subscribe: ['b', 'z'] });
    stream.request({ unsubscribe: ['b', 'z'] });
    assert.equal(said(stream.written()), 'nothing');
  });

  test('F.5.12: what a slow reader asks for again is not lost when it asks for more', () => {
    const stream = delta({}, { a: '1', b: '1' });
    stream.isReading = false;
    stream.request({ subscribe: ['a'] });

    stream.request({ subscribe: ['a'] });
    stream.request({ subscribe: ['b'] });

    assert.equal(said(stream.written()), 'a@1 b@1');
  });

  test('F.5.12: what a slow reader leaves, time and again, is nothing', () => {
    const stream = delta({}, { a: '1' });
    stream.isReading = false;
    stream.request({ subscribe: ['a'] });

    for (let round = 0; round < 10; round += 1) {
      const names = Array.from({ length: 9 }, (_, index) => `${round}-${index}`);
      stream.request({ subscribe: names });
      stream.request({ unsubscribe: names });
      assert.equal(stream.state.unanswered.size, 0);
    }
    assert.deepEqual(stream.effects, []);
    assert.equal(said(stream.written()), 'nothing');
  });

  test('to leave everything before anything could be answered is to have asked for nothing', () => {
    const stream = delta();
    stream.request({ initialVersions: new Map([['gone', '1']]) });

    stream.request({ unsubscribe: ['*'] });

    assert.equal(said(stream.publish({ a: '1' })), 'nothing');
  });

  test('to leave something in the first request is not to ask for everything', () => {
    const stream = delta({}, { a: '1' });

    assert.equal(said(stream.request({ unsubscribe: ['z'] })), 'nothing');
    assert.equal(stream.state.wildcard, 'none');
  });

  test('before the first answer of the Workload API nothing is said, not even that something is missing', () => {
    const stream = delta();

    assert.equal(said(stream.request({ subscribe: ['a', 'b'], initialVersions: new Map([['b', '1']]) })), 'nothing');
    assert.equal(said(stream.publish({ a: '1' })), 'a@1 -b');
  });

  test('no names in the first request are everything; later such a request is nothing', () => {
    const stream = delta({}, { a: '1', b: '1' });

    const first = stream.request({});
    assert.equal(said(first), 'a@1 b@1');
    assert.equal(said(stream.request({ nonce: first?.nonce ?? '' })), 'nothing');
    assert.equal(said(stream.publish({ b: '2', c: '1' })), 'b@2 c@1 -a');

    const named = delta({}, { a: '1', b: '1' });
    named.request({ subscribe: ['a'] });
    assert.equal(said(named.request({})), 'nothing');
  });

  test('a wildcard can be unsubscribed from, and names that were asked for by name stay', () => {
    const stream = delta({}, { a: '1', b: '1' });
    stream.request({ subscribe: ['*', 'a'] });

    assert.equal(said(stream.request({ unsubscribe: ['*'] })), 'nothing');
    assert.equal(said(stream.publish({ a: '2', b: '2', c: '1' })), 'a@2');
  });

  test('the implicit wildcard, too, is unsubscribed from', () => {
    const stream = delta({}, { a: '1' });
    stream.request({});

    stream.request({ unsubscribe: ['*'] });

    assert.equal(said(stream.publish({ a: '2' })), 'nothing');
  });

  test('a name that is left, but is in the wildcard, is said to be there or not', () => {
    const stream = delta({}, { a: '1' });
    assert.equal(said(stream.request({ subscribe: ['*', 'a', 'z'] })), 'a@1 -z');
    assert.equal(stream.take('missing')[0]?.names[0]?.reason, 'unknown_name');

    assert.equal(said(stream.request({ unsubscribe: ['a', 'z'] })), 'a@1 -z');
  });

  test('everything, subscribed to again, is sent again', () => {
    const stream = delta({}, { a: '1' });
    stream.request({ subscribe: ['*'] });

    assert.equal(said(stream.request({ subscribe: ['*'] })), 'a@1');
  });

  test('everything, where there is nothing, is an empty answer, once', () => {
    const stream = delta({}, {});

    assert.equal(said(stream.request({})), 'empty');
    assert.equal(said(stream.publish({})), 'nothing');
  });

  test('to ask for everything and leave it in one request is answered with nothing', () => {
    const stream = delta({}, { a: '1' });

    assert.equal(said(stream.request({ subscribe: ['*'], unsubscribe: ['*'] })), 'nothing');
  });

  test('no name is both sent and removed, or twice in one response, whatever is asked', () => {
    const names = ['a', 'b', 'c', '*', ''];
    const random = numbers(7);
    const some = (): string[] => Array.from({ length: random(4) }, () => names[random(names.length)] ?? '');
    for (let run = 0; run < 300; run += 1) {
      const stream = delta({ maxNames: 100 });
      stream.isReading = false;
      const held = new Map<string, string>();
      const take = (response: SecretResponse | undefined): void => {
        if (response === undefined) return;
        const said = [...response.secrets.map(({ name }) => name), ...response.removed];
        assert.equal(new Set(said).size, said.length);
        assert.ok(!said.includes('*') && !said.includes(''));
        for (const { name, version } of response.secrets) held.set(name, version);
        for (const name of response.removed) held.delete(name);
      };
      let versions: Record<string, string> = {};
      for (let event = 0; event < 20; event += 1) {
        const kind = random(4);
        if (kind === 0) take(stream.request({ subscribe: some(), unsubscribe: some(), nonce: stream.state.nonce }));
        else if (kind === 1) {
          versions = Object.fromEntries(['a', 'b', 'c'].filter(() => random(2) === 0).map((name) => [name, String(random(3))]));
          take(stream.publish(versions));
        } else take(stream.written());
        // A client throws away what it no longer asks for.
        if (stream.state.wildcard === 'none') for (const name of held.keys()) if (!stream.state.names.has(name)) held.delete(name);
      }
      while (stream.state.isWriting) take(stream.written());
      if (stream.catalogue === undefined) continue;
      // In the end the client holds exactly what it asked for and what there is.
      for (const name of ['a', 'b', 'c']) {
        const isAsked = stream.state.names.has(name) || stream.state.wildcard !== 'none';
        if (isAsked) assert.equal(held.get(name), versions[name], `run ${run}: ${name}`);
      }
    }
  });

  test('strict: an unknown name ends the stream', () => {
    const stream = delta({ strictUnknownNames: true }, { a: '1' });

    stream.request({ subscribe: ['b'] });

    assert.equal(stream.take('end')[0]?.reason, 'unknown_names');
  });

  test('too many names end the stream, also one request at a time', () => {
    const stream = delta({ maxNames: 3 }, {});

    for (const name of ['a', 'b', 'c', 'd']) stream.request({ subscribe: [name] });

    assert.equal(stream.take('end')[0]?.reason, 'too_many_names');
  });

  test('memory is bounded: names that one request asks for and leaves are not remembered, though nothing is read', () => {
    const stream = delta({}, { a: '1' });
    stream.isReading = false;
    stream.request({});
    for (let round = 0; round < 50; round += 1) {
      const names = Array.from({ length: 20 }, (_, index) => `${round}-${index}`);
      stream.request({ subscribe: names, unsubscribe: names });
    }
    assert.equal(stream.state.unanswered.size, 0);
    assert.deepEqual(stream.take('end'), []);
  });

  test('memory is bounded: a client that leaves ever more names beside a wildcard, and reads nothing, is ended', () => {
    const stream = delta({}, { a: '1' });
    stream.isReading = false;
    stream.request({});
    for (let round = 0; round < 50 && stream.take('end').length === 0; round += 1) {
      const names = Array.from({ length: 5 }, (_, index) => `${round}-${index}`);
      stream.request({ subscribe: names });
      if (stream.effects.length === 0) stream.request({ unsubscribe: names });
      assert.ok(stream.state.unanswered.size <= 20, `${stream.state.unanswered.size} names`);
      assert.ok(round < 10, 'it should be over');
    }
  });

  test('what else is in the request that leaves too many names is told', () => {
    const stream = delta({ maxNames: 2 }, { a: '1' });
    stream.isReading = false;
    stream.request({});
    for (const names of [
      ['p', 'q'],
      ['r', 's'],
    ]) {
      stream.request({ subscribe: names });
      stream.request({ unsubscribe: names, error: ERROR });
    }
    assert.deepEqual([stream.take('rejected').length, stream.take('end').length], [2, 1]);
  });

  test('a client that reads may leave as many names at once as it may have, time and again', () => {
    const stream = delta({}, { a: '1' });
    stream.request({});
    for (let round = 0; round < 20; round += 1) {
      const names = (count: number): string[] => Array.from({ length: 10 }, (_, index) => `${count}-${index}`);
      stream.request({ subscribe: names(round), unsubscribe: names(round - 1) });
    }
    assert.deepEqual(stream.take('end'), []);
  });

  test('a client may hold more than it may ask for by name: what it claims is answered', () => {
    const stream = delta();
    const claimed = Array.from({ length: 15 }, (_, index) => `held-${index}`);
    stream.request({ initialVersions: new Map(claimed.map((name) => [name, '1'])) });
    stream.request({ subscribe: ['a'] });
    assert.equal(stream.publish({ a: '1' })?.removed.length, 15);
    assert.deepEqual(stream.take('end'), []);
  });

  test('what is gone is due with the bundles', () => {
    const stream = delta({}, { certificate: '1' });
    stream.request({ subscribe: ['certificate'] });
    stream.catalogue = catalogueOf({});

    assert.equal(stream.kinds(), 'bundles');
  });

  test('what a wildcard no longer holds is due with the bundles, though nothing else changes, and an empty catalogue as well', () => {
    const stream = delta({}, { a: '1', gone: '1' });
    stream.request({ subscribe: ['*'] });
    stream.catalogue = catalogueOf({ a: '1' });
    assert.equal(stream.kinds(), 'bundles');
    assert.equal(said(stream.publish({ a: '1' })), '-gone');
    assert.equal(stream.kinds(), 'none');

    const early = delta();
    early.request({ subscribe: ['*'] });
    early.catalogue = catalogueOf({});
    assert.equal(early.kinds(), 'bundles');
    assert.equal(said(early.publish({})), 'empty');
  });
});

suite('whatever was asked for and whatever there is', () => {
  const NAMES = ['a', 'b', 'bundle', '*'];
  const ERRORS = [undefined, undefined, ERROR];

  for (const [protocol, make] of [
    ['sotw', sotw],
    ['delta', delta],
  ] as const) {
    test(`${protocol}: a stream that lacks something is due it, so that whoever pushes never passes it by`, () => {
      const random = createRandom(7);
      const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)] as T;
      const some = (): string[] => NAMES.filter(() => random() < 0.3);
      for (let stream = 0; stream < 500; stream += 1) {
        const driver = make() as Driver<SotwRequest & DeltaRequest>;
        const said: string[] = [];
        for (let event = 0; event < 12; event += 1) {
          const nonce = pick(['', driver.state.nonce, 'other']);
          const kind = pick(['request', 'catalogue', 'read']);
          if (kind === 'request') {
            const request = { names: some(), subscribe: some(), unsubscribe: some(), nonce, error: pick(ERRORS) };
            const initialVersions = new Map(some().map((name) => [name, '1']));
            said.push(`request ${JSON.stringify(request)}`);
            driver.request({ ...request, initialVersions });
          } else if (kind === 'read') {
            driver.isReading = !driver.isReading;
            if (driver.isReading) driver.written();
          } else {
            const versions = Object.fromEntries(
              ['a', 'b', 'bundle', 'other'].filter(() => random() < 0.6).map((name) => [name, pick(['1', '2'])]),
            );
            said.push(`catalogue ${JSON.stringify(versions)}`);
            driver.catalogue = catalogueOf(versions, event, 'not_held');
            const due = driver.kinds();
            if (driver.step({ kind: 'catalogue' }) !== undefined) assert.notEqual(due, 'none', said.join('; '));
          }
        }
      }
    });
  }
});
