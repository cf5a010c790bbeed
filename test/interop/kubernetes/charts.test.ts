import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { parse } from 'yaml';
import { runChild } from '../../support/child.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import { needs, part } from '../parts.ts';
import {
  checkConfigurations,
  deploy,
  HELMS,
  JUDGES,
  judgeManifests,
  KUBERNETES,
  manifestsOf,
  podOf,
  prepareCharts,
  valueFiles,
  valuesPath,
  type Decoded,
  type Manifest,
} from './stage.ts';

/** No library here knows these kinds: they are custom resources of SPIRE's controller manager. */
const UNKNOWN = new Set(['ClusterSPIFFEID']);
/** Custom resources, for which kubernetes-validate has no schema. */
const CUSTOM = new Set([...UNKNOWN, 'PodMonitor', 'PrometheusRule']);

for (const file of await valueFiles()) {
  test(
    `values "${file}": both Helms render the same, Kubernetes takes it strictly, pods are restricted, and Scute takes its configuration`,
    needs(...JUDGES),
    async (t) => {
      const charts = await prepareCharts(t);
      const kubernetes = file === 'kubernetes-1.29' ? '1.29.0' : KUBERNETES;
      const rendered: string[] = [];
      for (const helm of HELMS) {
        const lint = await charts.run(helm, 'lint', charts.chart, '-f', valuesPath(charts.chart, file), '--kube-version', kubernetes);
        assert.equal(lint.code, 0, lint.stderr);
        rendered.push(await charts.render(helm, file, { kubernetes }));
      }
      const [text = '', other = ''] = rendered;
      const manifests = manifestsOf(text);
      assert.deepEqual(manifests, manifestsOf(other));
      assert.ok(manifests.length > 0);

      const judged = await judgeManifests(text);
      assert.deepEqual(
        judged.filter(({ problem, restricted }) => problem !== '' || restricted !== ''),
        [],
      );
      assert.deepEqual(
        judged.filter(({ kind, unknown }) => unknown !== UNKNOWN.has(kind)),
        [],
      );
      const folder = await temporaryFolder(t);
      const plain = join(folder, 'manifests.yaml');
      await writeFile(
        plain,
        manifests
          .filter(({ kind }) => !CUSTOM.has(kind))
          .map((each) => JSON.stringify(each))
          .join('\n---\n'),
      );
      const version = /^\d+\.\d+/.exec(kubernetes)?.[0] ?? '';
      const validated = await runChild([part('kubernetes-validate'), '--strict', '--kubernetes-version', version, plain]);
      assert.equal(validated.code, 0, validated.stdout + validated.stderr);

      const configurations = await checkConfigurations(t, manifests);
      assert.doesNotMatch(JSON.stringify(configurations), /unsafe/);
      for (const manifest of manifests) if (podOf(manifest) !== undefined) mustGuard(manifest);
    },
  );
}

test('those who judge the manifests see what is wrong', needs(...JUDGES), async (t) => {
  const charts = await prepareCharts(t);
  const text = await charts.render('helm4', 'default');
  const wrong: readonly (readonly [from: RegExp, to: string, by: (judged: Decoded) => string, says: RegExp])[] = [
    [
      /terminationGracePeriodSeconds/,
      'terminationGracePeriod',
      ({ problem }) => problem,
      /unknown field "spec\.template\.spec\.terminationGracePeriod"/,
    ],
    [/policyTypes: \[Ingress\]/, 'policyTypes: Ingress', ({ problem }) => problem, /policyTypes/],
    [
      /allowPrivilegeEscalation: false/,
      'allowPrivilegeEscalation: true',
      ({ restricted }) => restricted,
      /allowPrivilegeEscalation != false/,
    ],
    [/runAsNonRoot: true/g, 'runAsNonRoot: false', ({ restricted }) => restricted, /runAsNonRoot != true/],
  ];
  for (const [from, to, by, says] of wrong) {
    const judged = await judgeManifests(text.replace(from, to));
    assert.match(judged.map(by).join(), says);
  }
  const ofOthers = `${await charts.render('helm4', 'monitoring')}\n---\n${await charts.render('helm4', 'injection')}`;
  for (const [from, to] of [
    ['podMetricsEndpoints:', 'podMetricEndpoints:'],
    ['sampleLimit:', 'sampleLimits:'],
    ['  groups:', '  group:'],
    ['failurePolicy:', 'failPolicy:'],
    ['validationActions: [Deny]', 'validationAction: [Deny]'],
    ['reinvocationPolicy:', 'reinvocation:'],
  ] as const) {
    assert.ok(ofOthers.includes(from), from);
    const judged = await judgeManifests(ofOthers.replace(from, to));
    assert.match(judged.map(({ problem }) => problem).join(), /unknown field/, from);
  }
  const folder = await temporaryFolder(t);
  const file = join(folder, 'manifests.yaml');
  const deployments = manifestsOf(text.replace('terminationGracePeriodSeconds', 'terminationGracePeriod')).filter(
    ({ kind }) => kind === 'Deployment',
  );
  await writeFile(file, deployments.map((each) => JSON.stringify(each)).join('\n---\n'));
  assert.notEqual((await runChild([part('kubernetes-validate'), '--strict', '--kubernetes-version', '1.36', file])).code, 0);
});

/** What holds of every pod, whatever is set. */
function mustGuard(manifest: Manifest): void {
  const pod = podOf(manifest);
  assert.ok(pod);
  const [scute] = pod.initContainers ?? pod.containers;
  assert.equal(scute?.name, 'scute');
  const isGateway = pod.initContainers === undefined;
  assert.equal(scute.restartPolicy, isGateway ? undefined : 'Always');
  assert.match(scute.image, /@sha256:[0-9a-f]{64}$/);
  assert.equal(scute.livenessProbe?.httpGet?.path, '/livez');
  assert.equal(scute.startupProbe?.periodSeconds, 1);
  assert.equal(scute.startupProbe.failureThreshold, 300);
  // The kubelet ends a sidecar after the application; a gateway is what there is to end.
  assert.deepEqual(scute.lifecycle, isGateway ? { preStop: { sleep: { seconds: 5 } } } : undefined);
  assert.equal(pod.automountServiceAccountToken, false);
  const all = [...(pod.initContainers ?? []), ...pod.containers];
  const mounts = (name: string): readonly string[] =>
    all.filter(({ volumeMounts = [] }) => volumeMounts.some((mount) => mount.name === name)).map((container) => container.name);
  for (const name of ['scute-workload-api', 'scute-config', 'scute-no-token']) assert.deepEqual(mounts(name), ['scute'], name);
  for (const mount of scute.volumeMounts ?? []) {
    assert.ok(!('subPath' in mount));
    assert.equal(mount.readOnly ?? false, mount.name !== 'scute-run', mount.name);
  }
  // An empty volume where the token of the service account would be.
  assert.equal(
    scute.volumeMounts?.find(({ name }) => name === 'scute-no-token')?.mountPath,
    '/var/run/secrets/kubernetes.io/serviceaccount',
  );
  assert.ok(pod.volumes?.find(({ name }) => name === 'scute-no-token')?.emptyDir);
  // Pod Security does not ask for it.
  assert.equal(scute.securityContext?.readOnlyRootFilesystem, true);
  assert.deepEqual(
    pod.volumes?.filter(({ csi }) => csi !== undefined).map(({ name, csi }) => [name, csi?.readOnly]),
    [['scute-workload-api', true]],
  );
  const others = pod.containers.filter(({ name }) => name !== 'scute');
  for (const { lifecycle, securityContext } of others) {
    const sleep = lifecycle?.preStop?.sleep?.seconds ?? 0;
    assert.ok((pod.terminationGracePeriodSeconds ?? 0) > sleep);
    assert.notEqual(securityContext?.runAsUser ?? -1, scute.securityContext?.runAsUser);
  }
}

/** A container of an application as the API server takes it. */
const APP = { name: 'app', image: `registry.example/app@sha256:${'a'.repeat(64)}` };

function workload(spec: object, scute: object = {}): object {
  const config = { inbound: [{ listen: '[::]:8443', to: '127.0.0.1:8080', allow: ['spiffe://example.org/web'] }] };
  return { workloads: { app: { template: { spec }, scute: { config, ...scute } } } };
}

const WRONG: readonly (readonly [what: string, values: object, says: RegExp])[] = [
  [
    'no digest',
    { 'scute-sidecar': { image: { digest: '' } } },
    /scute-sidecar\.image\.digest is "": set it to the digest of the image, sha256: and 64 hexadecimal digits/,
  ],
  [
    'no repository',
    { 'scute-sidecar': { image: { repository: '' } } },
    /scute-sidecar\.image\.repository is not set: name the registry and repository/,
  ],
  [
    'a tag as digest',
    { 'scute-sidecar': { image: { digest: 'latest' } } },
    /at '\/scute-sidecar\/image\/digest': 'latest' does not match pattern/,
  ],
  ['a wrong key', { 'scute-sidecar': { metricPort: 1 } }, /at '\/scute-sidecar': additional properties 'metricPort' not allowed/],
  ['a wrong key at the top', { workload: {} }, /at '': additional properties 'workload' not allowed/],
  [
    'a wrong key of the configuration',
    workload({ containers: [APP] }, { config: { inbound: [{ listen: '[::]:1', to: 'unix:///a', alow: [] }] } }),
    /at '\/workloads\/app\/scute\/config\/inbound\/0': additional properties 'alow' not allowed/,
  ],
  [
    'a key that the chart fills in',
    workload({ containers: [APP] }, { config: { metrics: {} } }),
    /additional properties 'metrics' not allowed/,
  ],
  [
    'an application by tag',
    workload({ containers: [{ ...APP, image: 'app:latest' }] }),
    /the image of the container app is "app:latest": name it by its digest/,
  ],
  [
    'too short a grace period',
    workload({ containers: [APP], terminationGracePeriodSeconds: 35 }),
    /terminationGracePeriodSeconds is 35, and stopping takes up to 35 s: preStop sleeps for 5 s, and Scute then drains for 30 s \(drainTimeout\)\. Make it longer than that, or leave it out/,
  ],
  [
    'too short a grace period for a preStop of its own',
    workload({ containers: [{ ...APP, lifecycle: { preStop: { sleep: { seconds: 60 } } } }], terminationGracePeriodSeconds: 90 }),
    /stopping takes up to 90 s: preStop sleeps for 60 s/,
  ],
  [
    'too short a grace period for a long drain',
    workload({ containers: [APP], terminationGracePeriodSeconds: 60 }, { config: { drainTimeout: '1m500ms', inbound: [] } }),
    /takes up to 66 s/,
  ],
  [
    'hostNetwork',
    workload({ containers: [APP], hostNetwork: true }),
    /hostNetwork is set, and the loopback of the node is that of every process on it/,
  ],
  [
    'one namespace of processes',
    workload({ containers: [APP], shareProcessNamespace: true }),
    /shareProcessNamespace is set, and the application could look into the process of Scute/,
  ],
  [
    'a volume with the Workload API',
    workload({ containers: [APP], volumes: [{ name: 'mine', csi: { driver: 'csi.spiffe.io', readOnly: true } }] }),
    /the volume mine is one of csi\.spiffe\.io: what mounts it can ask for the identity/,
  ],
  [
    'an application that mounts the Workload API',
    workload({ containers: [{ ...APP, volumeMounts: [{ name: 'scute-workload-api', mountPath: '/w' }] }] }),
    /the container app mounts scute-workload-api, which is for Scute alone/,
  ],
  ['an application called scute', workload({ containers: [{ ...APP, name: 'scute' }] }), /a container of the application is called scute/],
  [
    'the user of Scute',
    workload({ containers: [{ ...APP, securityContext: { runAsUser: 64532 } }] }),
    /the container app runs as user 64532, as Scute does/,
  ],
  [
    'the user of Scute for the pod',
    workload({ containers: [APP], securityContext: { runAsUser: 64532 } }),
    /the container app runs as user 64532, as Scute does/,
  ],
  [
    'a profile of the node that is not named',
    { 'scute-sidecar': { seccompProfile: { type: 'Localhost' } } },
    /scute-sidecar\.seccompProfile: type is Localhost, and localhostProfile is "": .* name a file in the folder seccomp of the kubelet/,
  ],
  [
    'a profile of the node that is named, and not taken',
    { 'scute-sidecar': { seccompProfile: { localhostProfile: 'profiles/scute.json' } } },
    /type is RuntimeDefault, and localhostProfile is "profiles\/scute\.json"/,
  ],
  [
    'a probe that is no GET',
    workload({ containers: [{ ...APP, readinessProbe: { tcpSocket: { port: 8080 } } }] }),
    /readinessProbe of the container app is a tcpSocket, .* make it an httpGet/,
  ],
  [
    'a probe with fields',
    workload({ containers: [{ ...APP, livenessProbe: { httpGet: { path: '/', port: 1, httpHeaders: [] } } }] }),
    /livenessProbe of the container app has httpHeaders, which Scute does not pass on/,
  ],
  [
    'a probe over TLS',
    workload({ containers: [{ ...APP, livenessProbe: { httpGet: { path: '/', port: 1, scheme: 'HTTPS' } } }] }),
    /is HTTPS, and Scute asks in plain HTTP/,
  ],
  [
    'a slow probe',
    workload({ containers: [{ ...APP, livenessProbe: { httpGet: { path: '/', port: 1 }, timeoutSeconds: 3 } }] }),
    /has timeoutSeconds 3, and Scute waits for one second/,
  ],
  [
    'a probe of a port without a number',
    workload({ containers: [{ ...APP, livenessProbe: { httpGet: { path: '/', port: 'web' } } }] }),
    /names the port "web", and the container has none of that name/,
  ],
  [
    'a CronJob without a schedule',
    { workloads: { app: { kind: 'CronJob', template: { spec: { containers: [APP] } } } } },
    /workloads\.app\.schedule is not set: a CronJob needs one/,
  ],
  [
    'no template',
    { workloads: { app: { scute: { config: { inbound: [] } } } } },
    /app: the template has no spec\.containers: give it the pod template of the application/,
  ],
  [
    'a template without a pod',
    { workloads: { app: { template: { metadata: { labels: { tier: 'data' } } } } } },
    /app: the template has no spec\.containers/,
  ],
  [
    'a workload of the name of the gateway',
    {
      gateway: { enabled: true, to: 'https://api.example', allow: ['spiffe://example.org/web'] },
      workloads: { gateway: { template: { spec: { containers: [APP] } } } },
    },
    /workloads\.gateway: there is a gateway of that name already/,
  ],
  [
    'a probe of a sidecar of the application that is no GET',
    workload({
      containers: [APP],
      initContainers: [{ ...APP, name: 'cache', restartPolicy: 'Always', startupProbe: { tcpSocket: { port: 6379 } } }],
    }),
    /startupProbe of the container cache is a tcpSocket/,
  ],
  [
    'a mount of what the author of an injected pod puts there',
    { injection: { enabled: true, scute: { extraVolumeMounts: [{ name: 'other', mountPath: '/other' }] } } },
    /injection\.scute\.extraVolumeMounts: the volumes of an injected pod are its author's/,
  ],
  [
    'injection into every namespace',
    { injection: { enabled: true, namespaceLabels: null } },
    /injection\.namespaceLabels is empty, which is every namespace, those of the cluster itself and of SPIRE too/,
  ],
  [
    'a gateway for nobody',
    { gateway: { enabled: true, to: 'https://api.example' } },
    /gateway\.allow is empty, and nobody would get through/,
  ],
  [
    'a gateway to nowhere',
    { gateway: { enabled: true, allow: ['spiffe://example.org/web'] } },
    /gateway\.to is "": set it to the server of the public web/,
  ],
];

test('what is wrong in values is a sentence that says what to do, with either Helm', needs(...HELMS), async (t) => {
  const charts = await prepareCharts(t);
  for (const helm of HELMS)
    for (const [what, values, says] of WRONG)
      await assert.rejects(charts.render(helm, 'default', { values }), { message: says }, `${helm}: ${what}`);
});

test('the library is a good chart by itself', needs(...HELMS), async (t) => {
  const charts = await prepareCharts(t);
  for (const helm of HELMS) {
    const { code, stdout, stderr } = await charts.run(helm, 'lint', join(charts.chart, '../scute-sidecar'), '--kube-version', KUBERNETES);
    assert.equal(code, 0, stdout + stderr);
  }
});

test('preStop.sleep and injection are refused where Kubernetes has them not', needs('helm4'), async (t) => {
  const charts = await prepareCharts(t);
  await assert.rejects(
    charts.render('helm4', 'default', { kubernetes: '1.29.3' }),
    /takes preStop\.sleep only behind a feature gate .* set scute-sidecar\.preStopSleep to 0/,
  );
  await assert.rejects(
    charts.render('helm4', 'injection', { kubernetes: '1.35.0' }),
    /has no MutatingAdmissionPolicy of admissionregistration\.k8s\.io\/v1, which came with 1\.36/,
  );
  await assert.rejects(charts.render('helm4', 'default', { kubernetes: '1.28.0' }), /chart requires kubeVersion: >=1\.29\.0-0/);
});

test('probes of the application lead through Scute, which asks what they asked', needs('helm4'), async (t) => {
  const charts = await prepareCharts(t);
  const manifests = manifestsOf(await charts.render('helm4', 'statefulset'));
  const set = manifests.find(({ kind }) => kind === 'StatefulSet');
  const [app] = (set && podOf(set))?.containers ?? [];
  const [config] = (await checkConfigurations(t, manifests)) as readonly { readonly metrics: { readonly probes: unknown } }[];

  assert.deepEqual(app?.startupProbe, {
    httpGet: { path: '/app/app/startup', port: 9090, scheme: 'HTTP' },
    failureThreshold: 30,
    timeoutSeconds: 2,
  });
  assert.deepEqual(app.readinessProbe, {
    httpGet: { path: '/app/app/readiness', port: 9090, scheme: 'HTTP' },
    periodSeconds: 3,
    timeoutSeconds: 2,
  });
  assert.deepEqual(app.livenessProbe, { exec: { command: ['/app', 'alive'] } });
  assert.deepEqual(config?.metrics.probes, [
    { path: '/app/app/startup', to: '127.0.0.1:8080', target: '/start' },
    { path: '/app/app/readiness', to: '127.0.0.1:8080', target: '/ready?full=1' },
  ]);
});

test('probes of a sidecar of the application lead through Scute as well', needs('helm4'), async (t) => {
  const charts = await prepareCharts(t);
  const cache = {
    ...APP,
    name: 'cache',
    restartPolicy: 'Always',
    startupProbe: { httpGet: { path: '/up', port: 6380 }, periodSeconds: 1 },
  };
  const once = { ...APP, name: 'once' };
  const values = workload({ containers: [APP], initContainers: [cache, once] });
  const manifests = manifestsOf(await charts.render('helm4', 'default', { values }));
  const app = manifests.find(({ kind, metadata }) => kind === 'Deployment' && metadata.name === 'app') ?? assert.fail();
  const [scute, ...others] = podOf(app)?.initContainers ?? [];
  const configurations = (await checkConfigurations(t, manifests)) as readonly { readonly metrics: { readonly probes?: unknown } }[];

  assert.equal(scute?.name, 'scute');
  const startupProbe = { httpGet: { path: '/app/cache/startup', port: 9090, scheme: 'HTTP' }, periodSeconds: 1, timeoutSeconds: 2 };
  assert.deepEqual(others, [{ ...cache, startupProbe }, once]);
  assert.deepEqual(
    configurations.flatMap(({ metrics }) => metrics.probes ?? []).filter((probe) => JSON.stringify(probe).includes('cache')),
    [{ path: '/app/cache/startup', to: '127.0.0.1:6380', target: '/up' }],
  );
});

test('no two workloads of a cluster have a ClusterSPIFFEID of one name, however long the others are', needs('helm4'), async (t) => {
  const charts = await prepareCharts(t);
  const names = async (release: string, namespace: string): Promise<readonly string[]> => {
    const given = ['-f', valuesPath(charts.chart, 'default'), '--kube-version', KUBERNETES, '--namespace', namespace];
    const { code, stdout, stderr } = await charts.run('helm4', 'template', release, charts.chart, ...given);
    assert.equal(code, 0, stderr);
    return manifestsOf(stdout)
      .filter(({ kind }) => kind === 'ClusterSPIFFEID')
      .map(({ metadata }) => metadata.name);
  };
  const all = [
    ...(await names('a-release-of-which-the-name-has-fifty-three-letters-1', 'a-namespace-of-some-length')),
    ...(await names('eu', 'shop-prod')),
    ...(await names('prod-eu', 'shop')),
  ];

  assert.equal(all.length, 6);
  assert.equal(new Set(all).size, 6, all.join());
  for (const name of all) assert.match(name, /^(?=.{1,253}$)[a-z0-9]+([-.][a-z0-9]+)*$/);
});

test('names that YAML takes for something else are names', needs('helm4', 'k8s-judge'), async (t) => {
  const charts = await prepareCharts(t);
  const values = join(await temporaryFolder(t), 'values.json');
  await writeFile(values, JSON.stringify({ workloads: { api: null, web: null, on: { template: { spec: { containers: [APP] } } } } }));
  const given = ['-f', valuesPath(charts.chart, 'default'), '-f', values, '--kube-version', KUBERNETES];

  const { code, stdout, stderr } = await charts.run('helm4', 'template', '2024', charts.chart, ...given);

  assert.equal(code, 0, stderr);
  const judged = await judgeManifests(stdout);
  assert.deepEqual(
    judged.filter(({ problem }) => problem !== ''),
    [],
  );
  assert.ok(judged.some(({ kind, name }) => kind === 'Deployment' && name === 'on'));
});

test('a grace period that nobody gives is longer than what stopping takes', needs('helm4'), async (t) => {
  const charts = await prepareCharts(t);
  const manifests = manifestsOf(await charts.render('helm4', 'long-drain'));
  const grace = (name: string): number | undefined =>
    manifests
      .filter(({ kind, metadata }) => kind === 'Deployment' && metadata.name === name)
      .map((each) => podOf(each)?.terminationGracePeriodSeconds)[0];

  assert.equal(grace('slow'), 7200);
  assert.equal(grace('slower'), 5 + 91 + 10);
});

test('the identity is given to the container scute alone, and to one service account of one namespace', needs('helm4'), async (t) => {
  const charts = await prepareCharts(t);
  const manifests = manifestsOf(await charts.render('helm4', 'default'));
  const ids = manifests.filter(({ kind }) => kind === 'ClusterSPIFFEID').map(({ spec }) => spec as Record<string, unknown>);

  assert.equal(ids.length, 2);
  for (const spec of ids) {
    assert.deepEqual(spec['workloadSelectorTemplates'], [
      'k8s:ns:{{ .PodMeta.Namespace }}',
      'k8s:sa:{{ .PodSpec.ServiceAccountName }}',
      'k8s:container-name:scute',
    ]);
    assert.deepEqual(spec['namespaceSelector'], { matchLabels: { 'kubernetes.io/metadata.name': 'default' } });
  }
});

test('network policies are for ingress alone: the ports of peers from anywhere, metrics from one namespace', needs('helm4'), async (t) => {
  const charts = await prepareCharts(t);
  const manifests = manifestsOf(await charts.render('helm4', 'checksum'));
  const [policy] = manifests.filter(({ kind }) => kind === 'NetworkPolicy');

  const { policyTypes, ingress } = (policy ?? assert.fail()).spec as Record<string, unknown>;
  assert.deepEqual(policyTypes, ['Ingress']);
  assert.deepEqual(ingress, [
    {
      ports: [
        { port: 8443, protocol: 'TCP' },
        { port: 8543, protocol: 'TCP' },
      ],
    },
    {
      from: [{ namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'monitoring' } } }],
      ports: [{ port: 15_090, protocol: 'TCP' }],
    },
  ]);
});

test('each policy of admission fails closed, is for what it is told, and is bound so that it refuses', needs('helm4'), async (t) => {
  const charts = await prepareCharts(t);
  const manifests = manifestsOf(await charts.render('helm4', 'injection'));
  const specsOf = (end: string): ReadonlyMap<string, Record<string, unknown>> =>
    new Map(
      manifests
        .filter(({ kind }) => kind.endsWith(end))
        .map(({ kind, metadata, spec }) => [`${kind.slice(0, -end.length)} ${metadata.name}`, spec as Record<string, unknown>]),
    );
  const policies = specsOf('AdmissionPolicy');
  const bindings = specsOf('AdmissionPolicyBinding');

  assert.deepEqual(
    [...policies.keys()],
    ['Mutating scute-injection', 'Validating scute-injected', 'Validating scute-configured', 'Validating scute-connect'],
  );
  assert.deepEqual([...bindings.keys()], [...policies.keys()]);
  for (const [name, { failurePolicy, matchConstraints }] of policies) {
    assert.equal(failurePolicy, 'Fail', name);
    // Nothing of the pod, by which it could opt out.
    const { namespaceSelector, resourceRules, ...others } = matchConstraints as Record<string, unknown>;
    assert.deepEqual(namespaceSelector, { matchLabels: { 'scute-injection': 'enabled' } }, name);
    assert.ok(resourceRules);
    assert.deepEqual(others, {}, name);
  }
  for (const [name, spec] of bindings) {
    const isValidating = name.startsWith('Validating');
    assert.deepEqual(spec, { policyName: name.split(' ')[1], ...(isValidating && { validationActions: ['Deny'] }) });
  }
});

test(
  'nothing is there that was not asked for: no policies of admission, no PodMonitor, no rules, no dashboard',
  needs('helm4'),
  async (t) => {
    const charts = await prepareCharts(t);

    const kinds = new Set(manifestsOf(await charts.render('helm4', 'default')).map(({ kind }) => kind));

    assert.deepEqual([...kinds].toSorted(), ['ClusterSPIFFEID', 'ConfigMap', 'Deployment', 'NetworkPolicy', 'Service', 'ServiceAccount']);
  },
);

test('the container asks for what the sizing page says, and has no limit of processor time', needs('helm4'), async (t) => {
  const charts = await prepareCharts(t);

  const [pod] = manifestsOf(await charts.render('helm4', 'default')).flatMap((each) => podOf(each) ?? []);

  assert.deepEqual(pod?.initContainers?.[0]?.resources, { requests: { cpu: '50m', memory: '96Mi' }, limits: { memory: '256Mi' } });
});

test('pods are replaced at a change of the configuration only where that is asked for', needs('helm4'), async (t) => {
  const charts = await prepareCharts(t);
  const sums = async (file: string, values: object = {}): Promise<string> =>
    JSON.stringify(
      manifestsOf(await charts.render('helm4', file, { values })).map(
        (each) => /"checksum\/scute":"(\w+)"/.exec(JSON.stringify(each))?.[1],
      ),
    );
  const changed = { 'scute-sidecar': { config: { log: { level: 'debug' } } } };

  assert.match(await sums('checksum'), /[0-9a-f]{64}/);
  assert.notEqual(await sums('checksum'), await sums('checksum', changed));
  assert.equal(await sums('default'), await sums('default', changed));
});

test('alert rules and the dashboard are those of deploy/, to the letter', needs('helm4'), async (t) => {
  const charts = await prepareCharts(t);
  const manifests = manifestsOf(await charts.render('helm4', 'monitoring'));

  assert.deepEqual(
    manifests.find(({ kind }) => kind === 'PrometheusRule')?.spec,
    parse(await readFile(join(deploy, 'prometheus/rules.yaml'), 'utf8')),
  );
  const dashboard = manifests.find(({ metadata }) => metadata.name === 'scute-dashboard');
  assert.deepEqual(
    JSON.parse(dashboard?.data?.['scute.json'] ?? ''),
    JSON.parse(await readFile(join(deploy, 'grafana/scute.json'), 'utf8')),
  );
});
