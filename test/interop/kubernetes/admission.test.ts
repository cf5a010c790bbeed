import assert from 'node:assert/strict';
import { test } from 'node:test';
import { needs } from '../parts.ts';
import { admission, application, type Case, type Loose } from './admission.ts';

/** What the API server fills in of what the policy put there. */
function withDefaults(pod: Loose): Loose {
  const stored = structuredClone(pod);
  const [scute] = stored['spec'].initContainers;
  scute.terminationMessagePath = '/dev/termination-log';
  scute.terminationMessagePolicy = 'File';
  for (const probe of [scute.startupProbe, scute.livenessProbe, scute.readinessProbe]) probe.successThreshold = 1;
  for (const { configMap } of stored['spec'].volumes) if (configMap !== undefined) configMap.defaultMode = 420;
  return stored;
}

test('a pod gets Scute first, whatever it says of itself, and nothing else of it changes', needs('helm4', 'k8s-judge'), async (t) => {
  const admit = await admission(t);
  const other = application();
  other['spec'].initContainers = [{ name: 'first', image: 'first', resources: {} }];
  other['spec'].terminationGracePeriodSeconds = 3600;
  const bare = application();
  delete bare['spec'].volumes;
  delete bare['spec'].containers[0].volumeMounts;

  for (const pod of [application(), other, bare]) {
    const [done] = await admit({ pod });
    assert.ok(done);
    assert.equal(done.broken, '');
    assert.deepEqual(done.refused, []);
    const { initContainers, volumes, terminationGracePeriodSeconds, ...rest } = done.pod['spec'];
    const { initContainers: before = [], volumes: had = [], terminationGracePeriodSeconds: grace, ...others } = pod['spec'];
    assert.equal(initContainers[0].name, 'scute');
    assert.equal(initContainers[0].ports.length, 2);
    assert.deepEqual(initContainers.slice(1), before);
    assert.deepEqual(volumes.slice(0, had.length), had);
    assert.equal(volumes.length, had.length + 4);
    assert.equal(terminationGracePeriodSeconds, Math.max(grace, 40));
    assert.deepEqual(rest, others);
  }
});

test('injecting twice changes nothing, and what the API server makes of it is let in', needs('helm4', 'k8s-judge'), async (t) => {
  const admit = await admission(t);
  const [once] = await admit({ pod: application() });
  assert.ok(once);

  const [again, stored] = await admit({ pod: once.pod }, { pod: withDefaults(once.pod) });

  assert.deepEqual(again, once);
  assert.deepEqual(stored, { ...once, pod: withDefaults(once.pod) });
});

test('a namespace without the label is left alone', needs('helm4', 'k8s-judge'), async (t) => {
  const admit = await admission(t);
  const pod = application();

  for (const namespaceLabels of [{}, { 'scute-injection': 'disabled' }]) {
    const [done] = await admit({ pod, namespaceLabels });
    assert.deepEqual(done?.pod['spec'], pod['spec']);
    assert.deepEqual(done?.refused, []);
  }
});

const EVIL = 'registry.example/evil';

/** Each is a way to have the identity without Scute, or to be reached around it; and what says no. */
const EVASIONS: readonly (readonly [what: string, change: (spec: Loose, scute: Loose) => void, says: RegExp])[] = [
  ['no Scute', (spec) => delete spec['initContainers'], /first init container must be Scute/],
  [
    'another container first',
    (spec) => spec['initContainers'].unshift({ name: 'first', image: EVIL }),
    /first init container must be Scute/,
  ],
  ['no sidecar, but one that ends', (_, scute) => delete scute['restartPolicy'], /restartPolicy Always/],
  ['another image', (_, scute) => (scute['image'] = EVIL), /The image of the container scute must be registry\.example\/scute@sha256/],
  ['the image by tag', (_, scute) => (scute['image'] = 'registry.example/scute:latest'), /The image of the container scute must be/],
  ['other arguments', (_, scute) => (scute['args'] = ['run', '--unsafe']), /must have the arguments run -c/],
  ['more arguments', (_, scute) => scute['args'].push('--allow', 'spiffe://example.org/**'), /must have the arguments run -c/],
  ['no arguments', (_, scute) => delete scute['args'], /must have the arguments run -c/],
  ['a command', (_, scute) => (scute['command'] = ['/usr/local/bin/node', '-e', '0']), /no command/],
  ['a working directory', (_, scute) => (scute['workingDir'] = '/run/scute'), /working directory/],
  [
    'code by the environment',
    (_, scute) => (scute['env'] = [{ name: 'NODE_OPTIONS', value: '--require /run/scute/evil.js' }]),
    /no environment/,
  ],
  ['the environment of a ConfigMap', (_, scute) => (scute['envFrom'] = [{ configMapRef: { name: 'evil' } }]), /no environment/],
  [
    'a hook that runs a command',
    (_, scute) => (scute['lifecycle'] = { postStart: { exec: { command: ['node', '-e', '0'] } } }),
    /no lifecycle hooks/,
  ],
  ...['startupProbe', 'livenessProbe', 'readinessProbe'].map(
    (probe) =>
      [
        `a ${probe} that runs a command`,
        (_: Loose, scute: Loose) => (scute[probe] = { exec: { command: ['node', '-e', '0'] } }),
        /no probe that runs a command/,
      ] as const,
  ),
  ['a terminal', (_, scute) => (scute['stdin'] = scute['tty'] = true), /no terminal/],
  [
    'another mount',
    (_, scute) => scute['volumeMounts'].push({ name: 'evil', mountPath: '/opt/scute' }),
    /must have the mounts that scute-injection gives it/,
  ],
  ['a mount less', (_, scute) => scute['volumeMounts'].pop(), /must have the mounts/],
  ['a mount twice instead of another', (_, scute) => (scute['volumeMounts'][3] = scute['volumeMounts'][2]), /must have the mounts/],
  ['part of a volume', (_, scute) => (scute['volumeMounts'][1].subPath = 'evil'), /must have the mounts/],
  ['a volume to write to', (_, scute) => (scute['volumeMounts'][0].readOnly = false), /must have the mounts/],
  ['mounts that come to others', (_, scute) => (scute['volumeMounts'][2].mountPropagation = 'Bidirectional'), /must have the mounts/],
  ['a device', (_, scute) => (scute['volumeDevices'] = [{ name: 'disk', devicePath: '/dev/disk' }]), /must have the mounts/],
  ['a device by a claim', (_, scute) => (scute['resources'].claims = [{ name: 'disk' }]), /must have the mounts/],
  [
    'a file of the kubelet over the program',
    (_, scute) => (scute['terminationMessagePath'] = '/opt/scute/launch.cjs'),
    /no terminationMessagePath but \/dev\/termination-log/,
  ],
  ['another configuration', (spec) => (volume(spec, 'scute-config')['configMap'].name = 'evil'), /The volume scute-config must be the one/],
  [
    'part of a configuration',
    (spec) => (volume(spec, 'scute-config')['configMap'].items = [{ key: 'evil', path: 'scute.yaml' }]),
    /The volume scute-config must be/,
  ],
  ['a configuration from elsewhere', (spec) => replace(spec, 'scute-config', { emptyDir: {} }), /The volume scute-config must be/],
  ['another Workload API', (spec) => replace(spec, 'scute-workload-api', { emptyDir: {} }), /The volume scute-workload-api must be/],
  [
    'one of another driver',
    (spec) => (volume(spec, 'scute-workload-api')['csi'].driver = 'csi.evil'),
    /The volume scute-workload-api must be/,
  ],
  [
    'one that is asked for something',
    (spec) => (volume(spec, 'scute-workload-api')['csi'].volumeAttributes = { as: 'evil' }),
    /The volume scute-workload-api must be/,
  ],
  ['the token after all', (spec) => replace(spec, 'scute-no-token', { projected: { sources: [] } }), /The volume scute-no-token must be/],
  [
    'an application that mounts the Workload API',
    (spec) => spec['containers'][0].volumeMounts.push({ name: 'scute-workload-api', mountPath: '/w' }),
    /Only the container scute may mount/,
  ],
  [
    'an init container that mounts it',
    (spec) => spec['initContainers'].push({ name: 'second', image: EVIL, volumeMounts: [{ name: 'scute-workload-api', mountPath: '/w' }] }),
    /Only the container scute may mount/,
  ],
  [
    'an application that mounts the configuration',
    (spec) => spec['containers'][0].volumeMounts.push({ name: 'scute-config', mountPath: '/c' }),
    /Only the container scute may mount/,
  ],
  [
    'another volume of the driver',
    (spec) => spec['volumes'].push({ name: 'mine', csi: { driver: 'csi.spiffe.io', readOnly: true } }),
    /no other volume of csi\.spiffe\.io/,
  ],
  ['another user', (_, scute) => (scute['securityContext'].runAsUser = 1000), /must have the security context/],
  ['another group', (_, scute) => (scute['securityContext'].runAsGroup = 0), /must have the security context/],
  ['no group', (_, scute) => delete scute['securityContext'].runAsGroup, /must have the security context/],
  ['root', (_, scute) => (scute['securityContext'].runAsNonRoot = false), /must have the security context/],
  ['no security context', (_, scute) => delete scute['securityContext'], /must have the security context/],
  ['privileges', (_, scute) => (scute['securityContext'].privileged = true), /must have the security context/],
  ['privileges later', (_, scute) => (scute['securityContext'].allowPrivilegeEscalation = true), /must have the security context/],
  ['a capability', (_, scute) => (scute['securityContext'].capabilities.add = ['SYS_PTRACE']), /must have the security context/],
  ['capabilities that stay', (_, scute) => (scute['securityContext'].capabilities = {}), /must have the security context/],
  ['files to write to', (_, scute) => (scute['securityContext'].readOnlyRootFilesystem = false), /must have the security context/],
  ['every system call', (_, scute) => (scute['securityContext'].seccompProfile.type = 'Unconfined'), /must have the security context/],
  [
    'no profile of AppArmor',
    (_, scute) => (scute['securityContext'].appArmorProfile = { type: 'Unconfined' }),
    /must have the security context/,
  ],
  [
    'no profile of AppArmor for the pod',
    (spec) => (spec['securityContext'].appArmorProfile = { type: 'Unconfined' }),
    /Scute would have it too/,
  ],
  ...['type', 'user', 'role'].map(
    (key) =>
      [
        `a ${key} of SELinux for the pod`,
        (spec: Loose) => (spec['securityContext'].seLinuxOptions = { [key]: 'spc' }),
        /Scute would have it too/,
      ] as const,
  ),
  [
    'root among the files of Scute',
    (spec) => {
      spec['containers'][0].securityContext = { runAsUser: 0, allowPrivilegeEscalation: false };
      spec['containers'][0].volumeMounts.push({ name: 'scute-run', mountPath: '/run/scute' });
    },
    /A container that mounts scute-run must have runAsNonRoot: true/,
  ],
  [
    'root among the files of Scute, though the pod says otherwise',
    (spec) => {
      spec['securityContext'].runAsNonRoot = true;
      spec['containers'][0].securityContext = { runAsNonRoot: false, allowPrivilegeEscalation: false };
      spec['containers'][0].volumeMounts.push({ name: 'scute-run', mountPath: '/run/scute' });
    },
    /A container that mounts scute-run must have runAsNonRoot: true/,
  ],
  [
    'who may become root among the files of Scute',
    (spec) => {
      spec['containers'][0].securityContext = { runAsNonRoot: true };
      spec['containers'][0].volumeMounts.push({ name: 'scute-run', mountPath: '/run/scute', readOnly: true });
    },
    /A container that mounts scute-run must have runAsNonRoot: true/,
  ],
  ['a label of SELinux', (_, scute) => (scute['securityContext'].seLinuxOptions = { type: 'spc_t' }), /must have the security context/],
  [
    "an application of Scute's user",
    (spec) => (spec['containers'][0].securityContext = { runAsUser: 64532 }),
    /No other container may run as user 64532/,
  ],
  [
    "an init container of Scute's user",
    (spec) => spec['initContainers'].push({ name: 'second', image: EVIL, securityContext: { runAsUser: 64532 } }),
    /No other container may run as user 64532/,
  ],
  [
    "an application of the pod's user, which is Scute's",
    (spec) => {
      spec['securityContext'] = { runAsUser: 64532 };
      spec['containers'][0].securityContext = { runAsNonRoot: true };
    },
    /No other container may run as user 64532/,
  ],
  ['all of /proc', (_, scute) => (scute['securityContext'].procMount = 'Unmasked'), /must have the security context/],
  ['a port of the node', (_, scute) => (scute['ports'][0].hostPort = 9090), /must not take ports of the node/],
  ['the network of the node', (spec) => (spec['hostNetwork'] = true), /lead around Scute, or into its process/],
  ['the processes of the node', (spec) => (spec['hostPID'] = true), /lead around Scute, or into its process/],
  ['shared memory of the node', (spec) => (spec['hostIPC'] = true), /lead around Scute, or into its process/],
  [
    'files of Scute on the disk of the node',
    (spec) => replace(spec, 'scute-run', { emptyDir: {} }),
    /The volume scute-run must be the one/,
  ],
  ['one namespace of processes', (spec) => (spec['shareProcessNamespace'] = true), /lead around Scute, or into its process/],
  ['nothing in it', (spec) => (spec['initContainers'][0] = { name: 'scute' }), /first init container must be Scute/],
];

function volume(spec: Loose, name: string): Loose {
  return spec['volumes'].find((each: Loose) => each['name'] === name);
}

function replace(spec: Loose, name: string, by: Loose): void {
  spec['volumes'] = spec['volumes'].map((each: Loose) => (each['name'] === name ? { name, ...by } : each));
}

test(
  'a pod that tries to have the identity without Scute is refused, when it is made and when it is changed',
  needs('helm4', 'k8s-judge'),
  async (t) => {
    const admit = await admission(t);
    const [good] = await admit({ pod: application() });
    assert.ok(good);
    const stored = withDefaults(good.pod);
    const evil = EVASIONS.map(([, change]) => {
      const pod = structuredClone(stored);
      change(pod['spec'], pod['spec'].initContainers[0]);
      return pod;
    });

    const made = await admit(...evil.map((pod) => ({ pod })));
    const changed = await admit(...evil.map((pod) => ({ pod, oldPod: stored, operation: 'UPDATE' as const })));

    for (const [index, [what, , says]] of EVASIONS.entries()) {
      // Where there is none, or it is not where it must be, the one policy puts it there, and nothing is left to evade.
      if (what === 'no Scute') assert.equal(made[index]?.pod['spec'].initContainers[0].name, 'scute');
      else assert.match(`${made[index]?.refused.join()} ${made[index]?.broken}`, says, what);
      assert.match(`${changed[index]?.refused.join()} ${changed[index]?.broken}`, says, `${what}, changed`);
    }
  },
);

test('a pod with a Scute of its own is not taken for one of ours', needs('helm4', 'k8s-judge'), async (t) => {
  const admit = await admission(t);
  const pod = application();
  pod['spec'].initContainers = [{ name: 'scute', image: EVIL, restartPolicy: 'Always', resources: {} }];

  const [done] = await admit({ pod });

  assert.deepEqual(done?.pod['spec'], pod['spec']);
  assert.match(done?.refused.join() ?? '', /The image of the container scute must be/);
});

test("the node's own profile of seccomp is the one that was given", needs('helm4', 'k8s-judge'), async (t) => {
  const seccompProfile = { type: 'Localhost', localhostProfile: 'profiles/scute.json' };
  const admit = await admission(t, { 'scute-sidecar': { seccompProfile } });
  const [good] = await admit({ pod: application() });
  assert.ok(good);
  assert.deepEqual(good.refused, []);
  const pod = structuredClone(good.pod);
  pod['spec'].initContainers[0].securityContext.seccompProfile.localhostProfile = 'profiles/evil.json';

  const [other] = await admit({ pod });

  assert.match(other?.refused.join() ?? '', /must have the security context/);
});

test('where the cluster gives users, none is asked for', needs('helm4', 'k8s-judge'), async (t) => {
  const admit = await admission(t, { 'scute-sidecar': { runAsUser: null, runAsGroup: null } });
  const pod = application();
  pod['spec'].securityContext = { runAsUser: 64532 };

  const [done] = await admit({ pod });

  assert.deepEqual([done?.refused, done?.broken], [[], '']);
});

test("a container may have a user of its own in a pod of Scute's", needs('helm4', 'k8s-judge'), async (t) => {
  const admit = await admission(t);
  const pod = application();
  pod['spec'].securityContext = { runAsUser: 64532 };
  pod['spec'].containers[0].securityContext = { runAsUser: 1000 };

  const [done] = await admit({ pod });

  assert.deepEqual([done?.refused, done?.broken], [[], '']);
});

test('an application that cannot be root may connect to a Unix socket of Scute', needs('helm4', 'k8s-judge'), async (t) => {
  const admit = await admission(t);
  const mounting = (ofPod: Loose, ofContainer: Loose): Case => {
    const pod = application();
    pod['spec'].securityContext = ofPod;
    const [app] = pod['spec'].containers;
    app.securityContext = { allowPrivilegeEscalation: false, ...ofContainer };
    app.volumeMounts.push({ name: 'scute-run', mountPath: '/run/scute' });
    return { pod };
  };

  // The level is what OpenShift gives a pod.
  for (const done of await admit(
    mounting({ runAsNonRoot: true, seLinuxOptions: { level: 's0:c1,c2' } }, {}),
    mounting({}, { runAsNonRoot: true }),
  ))
    assert.deepEqual([done.refused, done.broken], [[], '']);
});

test(
  'who may write any ConfigMap of the namespace may not write that of Scute, which is the identity',
  needs('helm4', 'k8s-judge'),
  async (t) => {
    const admit = await admission(t, { injection: { scute: { policies: { 'allow.yaml': { allow: [] } } } } });
    const write = (name: string, operation: 'CREATE' | 'UPDATE', more: Partial<Case> = {}): Case => ({
      pod: application(),
      configMap: { metadata: { name, namespace: 'shop' }, data: { 'scute.yaml': '' } },
      operation,
      verbs: ['get', 'list', 'watch', 'create', 'update', 'patch', 'delete', 'deletecollection'],
      ...more,
    });
    const ofScute = ['injected-scute', 'injected-scute-policy'].flatMap((name) => [write(name, 'CREATE'), write(name, 'UPDATE')]);

    const refused = await admit(...ofScute);
    const admitted = await admit(
      ...ofScute.map((each) => ({ ...each, verbs: ['configure'] })),
      ...ofScute.map((each) => ({ ...each, namespaceLabels: {} })),
      write('mine', 'CREATE'),
      write('mine', 'UPDATE'),
    );

    assert.equal(refused.length, 4);
    for (const { refused: says, broken } of refused) {
      assert.match(says.join(), /^Who writes injected-scute and injected-scute-policy has the identity .* the verb configure/);
      assert.equal(broken, '');
    }
    for (const done of admitted) assert.deepEqual([done.refused, done.broken], [[], '']);
  },
);

test('an ephemeral container gets neither the Workload API nor a look into Scute', needs('helm4', 'k8s-judge'), async (t) => {
  const admit = await admission(t);
  const [good] = await admit({ pod: application() });
  assert.ok(good);
  const oldPod = withDefaults(good.pod);
  const debugging = (container: Loose): Case => {
    const pod = structuredClone(oldPod);
    pod['spec'].ephemeralContainers = [{ name: 'debug', image: EVIL, ...container }];
    return { pod, oldPod, operation: 'UPDATE', subresource: 'ephemeralcontainers' };
  };

  const [plain, mounting, targeting, ofApplication] = await admit(
    debugging({}),
    debugging({ volumeMounts: [{ name: 'scute-workload-api', mountPath: '/w' }] }),
    debugging({ targetContainerName: 'scute' }),
    debugging({ targetContainerName: 'app' }),
  );

  assert.deepEqual(plain?.refused, []);
  assert.match(mounting?.refused.join() ?? '', /Only the container scute may mount/);
  assert.match(targeting?.refused.join() ?? '', /must not target the container scute/);
  assert.deepEqual(ofApplication?.refused, []);
});

test('a pod that was there before may lose its finalizers, and nothing else of it may change', needs('helm4', 'k8s-judge'), async (t) => {
  const admit = await admission(t);
  const oldPod = application();
  const released = structuredClone(oldPod);
  released['metadata'].finalizers = [];
  released['metadata'].labels = {};
  const changed = structuredClone(oldPod);
  changed['spec'].containers[0].image = EVIL;

  const [first, second] = await admit({ pod: released, oldPod, operation: 'UPDATE' }, { pod: changed, oldPod, operation: 'UPDATE' });

  assert.deepEqual(first?.refused, []);
  assert.match(second?.refused.join() ?? '', /first init container must be Scute/);
});
