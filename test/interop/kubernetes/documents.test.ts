import assert from 'node:assert/strict';
import { chmod, cp, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { codeBlocks } from '../../support/documents.ts';
import { runChild } from '../../support/child.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import { needs, part } from '../parts.ts';
import { checkConfigurations, deploy, judgeManifests, KUBERNETES, manifestsOf, podOf, prepareCharts } from './stage.ts';

const DOCUMENT = 'docs/kubernetes.md';

const HELM = `#!/bin/sh
set -e
if [ "$1" != upgrade ]; then exec "$REAL_HELM" "$@"; fi
[ "$2" = --install ]
shift 2
exec "$REAL_HELM" template "$@" --kube-version ${KUBERNETES} >"$(mktemp "$SENT/XXXXXX.yaml")"
`;

/** What only asks or waits is let pass; whatever else it is told to do must be known here. */
const KUBECTL = `#!/bin/sh
set -e
case "$1 $2" in
'apply -k') exec "$JUDGE" kustomize "$3" >"$(mktemp "$SENT/XXXXXX.yaml")" ;;
'apply -f') [ "$3" = - ] && cat >"$(mktemp "$SENT/XXXXXX.yaml")" ;;
'wait --for='* | 'label namespace') ;;
*) echo "kubectl $* is not played" >&2; exit 1 ;;
esac
`;

/** A copy of what a clone has, with programs that send to a folder instead of a cluster. */
async function clone(
  t: TestContext,
): Promise<{ readonly folder: string; readonly sent: string; readonly run: (script: string) => Promise<void> }> {
  const folder = await temporaryFolder(t);
  const [bin, sent, work] = [join(folder, 'bin'), join(folder, 'sent'), join(folder, 'work')];
  for (const each of [bin, sent, work]) await mkdir(each);
  await cp(deploy, join(work, 'deploy'), { recursive: true });
  for (const [name, text] of [
    ['helm', HELM],
    ['kubectl', KUBECTL],
  ] as const) {
    await writeFile(join(bin, name), text);
    await chmod(join(bin, name), 0o755);
  }
  const env = { PATH: `${bin}:/usr/bin:/bin`, HOME: folder, REAL_HELM: part('helm4'), JUDGE: part('k8s-judge'), SENT: sent };
  return {
    folder: work,
    sent,
    async run(script) {
      const { code, stdout, stderr } = await runChild(['/bin/sh', '-e', '-u', '-c', script], { env, cwd: work });
      assert.equal(code, 0, `${script}\n${stdout}${stderr}`);
    },
  };
}

async function mustBeGood(t: TestContext, text: string): Promise<void> {
  const wrong = (await judgeManifests(text)).filter(
    ({ kind, problem, unknown }) => problem !== '' || (unknown && kind !== 'ClusterSPIFFEID'),
  );
  assert.deepEqual(wrong, []);
  await checkConfigurations(t, manifestsOf(text));
}

test('the commands for a cluster send what Kubernetes takes', needs('helm4', 'k8s-judge'), async (t) => {
  const { sent, run } = await clone(t);
  const blocks = codeBlocks(DOCUMENT).filter(({ info }) => info === 'sh cluster');
  assert.ok(blocks.length >= 5);

  for (const { text } of blocks) await run(text);

  const files = await readdir(sent);
  assert.equal(files.length, blocks.length);
  for (const file of files) await mustBeGood(t, await readFile(join(sent, file), 'utf8'));
});

test('the ClusterSPIFFEID that the document shows is the one that the chart renders', needs('helm4'), async (t) => {
  const [shown] = codeBlocks(DOCUMENT).filter(({ info }) => info === 'yaml spiffe-id');
  const charts = await prepareCharts(t);

  const rendered = manifestsOf(await charts.render('helm4', 'default'));

  const name = 'default.example.web';
  assert.deepEqual(
    manifestsOf(shown?.text ?? ''),
    rendered.filter(({ kind, metadata }) => kind === 'ClusterSPIFFEID' && metadata.name === name),
  );
});

/** The chart that the document shows, in a clone; its template as `change` makes it. */
async function shop(t: TestContext, change: (template: string) => string = (template) => template): Promise<string> {
  const { folder, sent, run } = await clone(t);
  const block = (info: string): string => codeBlocks(DOCUMENT).find((each) => each.info === info)?.text ?? assert.fail(info);
  const chart = join(folder, 'deploy/helm/shop');
  await mkdir(join(chart, 'templates'), { recursive: true });
  await writeFile(join(chart, 'Chart.yaml'), block('yaml chart'));
  await writeFile(join(chart, 'values.yaml'), block('yaml values'));
  await writeFile(join(chart, 'templates/shop.yaml'), change(block('yaml template')));
  await run('helm dependency build deploy/helm/shop && helm upgrade --install shop deploy/helm/shop');
  const [file = ''] = await readdir(sent);
  return readFile(join(sent, file), 'utf8');
}

test('the chart that the document shows renders a pod with Scute', needs('helm4', 'k8s-judge'), async (t) => {
  const text = await shop(t);

  await mustBeGood(t, text);
  const [pod] = manifestsOf(text).flatMap((each) => podOf(each) ?? []);
  assert.deepEqual(
    pod?.initContainers?.map(({ name }) => name),
    ['scute'],
  );
  assert.deepEqual(pod.containers[0]?.readinessProbe?.httpGet?.path, '/app/app/readiness');
});

test(
  'the NetworkPolicy of the library is for the pods that it is told of, and opens metrics where it is told',
  needs('helm4'),
  async (t) => {
    const specOf = async (change?: (template: string) => string): Promise<object> => {
      const policy = manifestsOf(await shop(t, change)).find(({ kind }) => kind === 'NetworkPolicy');
      return (policy ?? assert.fail()).spec as object;
    };
    const peers = { ports: [{ port: 8443, protocol: 'TCP' }] };
    const scraping = {
      from: [{ namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'monitoring' } } }],
      ports: [{ port: 9090, protocol: 'TCP' }],
    };
    const podSelector = { matchLabels: { app: 'shop' } };
    const without = (part: RegExp) => (template: string) => {
      assert.match(template, part);
      return template.replace(part, '');
    };

    assert.deepEqual(await specOf(), { podSelector, policyTypes: ['Ingress'], ingress: [peers, scraping] });
    assert.deepEqual(await specOf(without(/"metricsNamespace" "\w+"/)), { podSelector, policyTypes: ['Ingress'], ingress: [peers] });
    await assert.rejects(
      specOf(without(/"podLabels" \(.*?\)/)),
      /shop: scute-sidecar\.networkPolicy needs podLabels, the labels of the pods: without, it would be for every pod of the namespace/,
    );
  },
);
