import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { needs } from '../parts.ts';
import { admission, application, type Case } from './admission.ts';

const PARTS = needs('helm4', 'k8s-judge');
const SHELL = { command: ['/bin/sh'], stdin: true, stdout: true, tty: true };

function connect(subresource: string, options: object, more: Partial<Case> = {}): Case {
  return { pod: application(), operation: 'CONNECT', subresource, options, ...more };
}

/** What kubectl is told; an empty text if the API server goes on to the kubelet. */
async function told(t: TestContext, injection: object, ...cases: readonly Case[]): Promise<readonly string[]> {
  const admit = await admission(t, { injection });
  return (await admit(...cases)).map(({ refused, broken }) => [...refused, broken].join(''));
}

/** An ephemeral container that a pod with Scute is given. */
async function debugging(t: TestContext): Promise<Case> {
  const admit = await admission(t);
  const [good] = await admit({ pod: application() });
  const oldPod = good?.pod ?? assert.fail();
  const pod = structuredClone(oldPod);
  pod['spec'].ephemeralContainers = [{ name: 'debug', image: 'debug' }];
  return { pod, oldPod, operation: 'UPDATE', subresource: 'ephemeralcontainers' };
}

test('nobody runs anything in the container scute, or listens to it, and every other container is left alone', PARTS, async (t) => {
  const [inScute, attached, ...others] = await told(
    t,
    {},
    connect('exec', { container: 'scute', ...SHELL }),
    connect('attach', { container: 'scute', stdin: true }),
    connect('exec', { container: 'app', ...SHELL }),
    connect('attach', { container: 'app', stdout: true }),
    connect('exec', { container: 'debug', ...SHELL }),
    connect('exec', { container: 'scute-of-mine', ...SHELL }),
  );

  for (const text of [inScute, attached])
    assert.equal(text, 'What runs in the container scute has its private key: name another container (kubectl exec -c NAME).');
  assert.deepEqual(others, ['', '', '', '']);
});

test('a container that is not named is not guessed: it may be Scute’s', PARTS, async (t) => {
  const all = await told(
    t,
    {},
    connect('exec', SHELL),
    connect('exec', { container: '', ...SHELL }),
    connect('attach', {}),
    connect('attach', { container: '' }),
  );

  for (const text of all) assert.match(text, /name another container \(kubectl exec -c NAME\)/);
});

test('a value that was taken out is the default, not a way in', PARTS, async (t) => {
  const all = await told(t, { exec: null, portForward: null }, connect('exec', { container: 'scute' }), connect('portforward', {}));

  assert.match(all[0] ?? '', /has its private key/);
  assert.match(all[1] ?? '', /reaches the loopback/);
});

test('nobody forwards a port, whether the request says which or not', PARTS, async (t) => {
  const all = await told(t, {}, connect('portforward', {}), connect('portforward', { ports: [8080] }));

  for (const text of all) assert.match(text, /^kubectl port-forward reaches the loopback of the pod/);
});

test('pods of other namespaces are left alone', PARTS, async (t) => {
  const elsewhere = { namespaceLabels: { team: 'other' } };
  const all = await told(
    t,
    {},
    connect('exec', { container: 'scute', ...SHELL }, elsewhere),
    connect('attach', { container: 'scute' }, elsewhere),
    connect('portforward', {}, elsewhere),
  );

  assert.deepEqual(all, ['', '', '']);
});

test('exec: none leaves nothing that runs something in a pod', PARTS, async (t) => {
  const all = await told(
    t,
    { exec: 'none' },
    connect('exec', { container: 'app', ...SHELL }),
    connect('attach', { container: 'app' }),
    await debugging(t),
  );

  for (const text of all) assert.match(text, /^kubectl exec, attach and debug are off in this namespace/);
});

test('exec: any and portForward: true let be what they name, and nothing else', PARTS, async (t) => {
  const cases = [
    connect('exec', { container: 'scute', ...SHELL }),
    connect('attach', {}),
    connect('portforward', { ports: [8080] }),
    await debugging(t),
  ];
  const refused = async (injection: object): Promise<readonly boolean[]> => (await told(t, injection, ...cases)).map((text) => text !== '');

  assert.deepEqual(await refused({ exec: 'any' }), [false, false, true, false]);
  assert.deepEqual(await refused({ portForward: true }), [true, true, false, false]);
  assert.deepEqual(await refused({ exec: 'none', portForward: true }), [true, true, false, true]);
  assert.deepEqual(await refused({ exec: 'any', portForward: true }), [false, false, false, false]);
});
