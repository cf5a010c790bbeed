import assert from 'node:assert/strict';
import { cp, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { runChild } from '../../support/child.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import { needs, part } from '../parts.ts';
import { checkConfigurations, deploy, judgeManifests, manifestsOf, podOf, prepareCharts } from './stage.ts';

/** What Kustomize builds of a copy of deploy/kustomize/example, in which a test may change files. */
async function build(t: TestContext, change: (folder: string) => Promise<void> = async () => undefined): Promise<string> {
  const folder = await temporaryFolder(t);
  await cp(join(deploy, 'kustomize'), folder, { recursive: true });
  await change(folder);
  const { code, stdout, stderr } = await runChild([part('k8s-judge'), 'kustomize', join(folder, 'example')]);
  assert.equal(code, 0, stderr);
  return stdout;
}

test('the component puts Scute first into a workload, and Kubernetes takes it', needs('k8s-judge'), async (t) => {
  const text = await build(t);
  const manifests = manifestsOf(text);
  const pod = podOf(manifests.find(({ kind }) => kind === 'Deployment') ?? assert.fail());

  assert.deepEqual(
    pod?.initContainers?.map(({ name }) => name),
    ['scute', 'schema'],
  );
  assert.deepEqual(
    pod.containers.map(({ name }) => name),
    ['app'],
  );
  assert.match(pod.initContainers[0]?.image ?? '', /^registry\.example\/scute@sha256:a{64}$/);
  for (const { kind, problem, restricted, unknown } of await judgeManifests(text))
    assert.deepEqual([problem, restricted, unknown], ['', '', false], kind);
  assert.equal((await checkConfigurations(t, manifests)).length, 1);
});

test('each kind of workload gets it, and none without the label', needs('k8s-judge'), async (t) => {
  const kinds = ['Deployment', 'StatefulSet', 'DaemonSet', 'Job', 'CronJob'];
  const text = await build(t, async (folder) => {
    const template = { spec: { containers: [{ name: 'app', image: 'app' }] } };
    const manifests = ['enabled', 'disabled'].flatMap((scute) =>
      kinds.map((kind) => ({
        apiVersion: kind.endsWith('Job') ? 'batch/v1' : 'apps/v1',
        kind,
        metadata: { name: `${kind.toLowerCase()}-${scute}`, labels: { scute } },
        spec: kind === 'CronJob' ? { schedule: '@daily', jobTemplate: { spec: { template } } } : { template },
      })),
    );
    await writeFile(join(folder, 'example/server.yaml'), manifests.map((each) => JSON.stringify(each)).join('\n---\n'));
  });
  const made = manifestsOf(text).filter((each) => podOf(each) !== undefined);

  assert.equal(made.length, 2 * kinds.length);
  for (const manifest of made) {
    const names = podOf(manifest)?.initContainers?.map(({ name }) => name);
    assert.deepEqual(names, manifest.metadata.name.endsWith('-enabled') ? ['scute'] : undefined, manifest.metadata.name);
  }
  assert.deepEqual(
    (await judgeManifests(text)).filter(({ problem }) => problem !== ''),
    [],
  );
});

test('a grace period of the workload stays, and patches of the kustomization have the last word', needs('k8s-judge'), async (t) => {
  const text = await build(t, async (folder) => {
    const server = join(folder, 'example/server.yaml');
    await writeFile(server, (await readFile(server, 'utf8')).replace(/(terminationGracePeriodSeconds:) 45.*/, '$1 7200'));
    const file = join(folder, 'example/kustomization.yaml');
    const patch = '- { op: replace, path: /spec/template/spec/automountServiceAccountToken, value: true }';
    await writeFile(file, `${await readFile(file, 'utf8')}patches: [{ target: { kind: Deployment }, patch: "${patch}" }]\n`);
  });
  const pod = manifestsOf(text).flatMap((each) => podOf(each) ?? [])[0] ?? assert.fail();

  assert.equal(pod.terminationGracePeriodSeconds, 7200);
  assert.equal(pod.automountServiceAccountToken, true);
});

test('without an image by its digest, nothing is fetched from anywhere', needs('k8s-judge'), async (t) => {
  const text = await build(t, async (folder) => {
    const file = join(folder, 'example/kustomization.yaml');
    await writeFile(file, (await readFile(file, 'utf8')).replace(/\nimages:[\s\S]*/, '\n'));
  });

  // RFC 6761, section 6.4: .invalid is never a name that resolves.
  assert.match(text, /image: scute\.invalid\/scute\n/);
});

test('the component and the chart put in the same', needs('k8s-judge', 'helm4'), async (t) => {
  const charts = await prepareCharts(t);
  const ofChart = manifestsOf(await charts.render('helm4', 'no-guards')).flatMap((each) => podOf(each) ?? [])[0];
  const ofComponent = manifestsOf(await build(t)).flatMap((each) => podOf(each) ?? [])[0];
  assert.ok(ofChart && ofComponent);
  const scute = ofChart.initContainers?.[0];

  assert.deepEqual(ofComponent.initContainers?.[0], { ...scute, ports: scute?.ports?.filter(({ name }) => name === 'scute-metrics') });
  assert.deepEqual(
    ofComponent.volumes,
    ofChart.volumes?.map((volume) => (volume.configMap === undefined ? volume : { ...volume, configMap: { name: 'scute-config' } })),
  );
  assert.equal(ofComponent.automountServiceAccountToken, false);
  assert.equal(ofComponent.terminationGracePeriodSeconds, ofChart.terminationGracePeriodSeconds);
});
