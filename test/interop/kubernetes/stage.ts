import assert from 'node:assert/strict';
import { cp, glob, mkdir, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parseAllDocuments, parse } from 'yaml';
import { loadConfig } from '../../../src/config/load.ts';
import { formatIssues } from '../../../src/config/issue.ts';
import { type Finished, runChild } from '../../support/child.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import { part } from '../parts.ts';

export const deploy = fileURLToPath(new URL('../../../deploy/', import.meta.url));
const HELM_DEPLOY = join(deploy, 'helm');

export type Helm = 'helm3' | 'helm4';
export const HELMS: readonly Helm[] = ['helm3', 'helm4'];
/** What is needed to render and to judge. */
export const JUDGES = [...HELMS, 'k8s-judge', 'kubernetes-validate'] as const;
/** In which Kubernetes is rendered, where a test does not say. */
export const KUBERNETES = '1.36.0';

/** The names of the files of values that the chart is tried with: NAME of ci/NAME-values.yaml. */
export async function valueFiles(): Promise<readonly string[]> {
  const names: string[] = [];
  for await (const file of glob('scute/ci/*-values.yaml', { cwd: HELM_DEPLOY })) names.push(basename(file, '-values.yaml'));
  return names.toSorted();
}

/** A manifest, of which each test looks at what it is about. */
export interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly spec?: unknown;
  readonly data?: Readonly<Record<string, string>>;
}

export interface Probe {
  readonly httpGet?: { readonly path: string; readonly port: string | number; readonly scheme?: string };
  readonly exec?: { readonly command: readonly string[] };
  readonly tcpSocket?: object;
  readonly periodSeconds?: number;
  readonly timeoutSeconds?: number;
  readonly failureThreshold?: number;
}

export interface Container {
  readonly name: string;
  readonly image: string;
  readonly args?: readonly string[];
  readonly command?: readonly string[];
  readonly restartPolicy?: string;
  readonly ports?: readonly { readonly name: string; readonly containerPort: number }[];
  readonly startupProbe?: Probe;
  readonly readinessProbe?: Probe;
  readonly livenessProbe?: Probe;
  readonly lifecycle?: { readonly preStop?: { readonly sleep?: { readonly seconds: number } } };
  readonly securityContext?: { readonly runAsUser?: number; readonly readOnlyRootFilesystem?: boolean };
  readonly volumeMounts?: readonly { readonly name: string; readonly mountPath: string; readonly readOnly?: boolean }[];
  readonly resources?: unknown;
}

export interface Volume {
  readonly name: string;
  readonly csi?: { readonly driver: string; readonly readOnly?: boolean };
  readonly configMap?: { readonly name: string };
  readonly emptyDir?: object;
}

export interface Pod {
  readonly initContainers?: readonly Container[];
  readonly containers: readonly Container[];
  readonly volumes?: readonly Volume[];
  readonly terminationGracePeriodSeconds?: number;
  readonly automountServiceAccountToken?: boolean;
  readonly restartPolicy?: string;
}

export function manifestsOf(text: string): readonly Manifest[] {
  return parseAllDocuments(text).flatMap((document) => {
    assert.deepEqual(document.errors, []);
    const manifest = document.toJS() as Manifest | null;
    return manifest === null ? [] : manifest;
  });
}

/** The pods that a manifest makes; undefined if it makes none. */
export function podOf({ kind, spec }: Manifest): Pod | undefined {
  const has = spec as {
    readonly template?: { readonly spec: Pod };
    readonly jobTemplate?: { readonly spec: { readonly template: { readonly spec: Pod } } };
  };
  if (kind === 'CronJob') return has.jobTemplate?.spec.template.spec;
  return has?.template?.spec;
}

export interface Charts {
  /** The folder of the chart `scute`, whose dependency is there. */
  readonly chart: string;
  run(helm: Helm, ...args: readonly string[]): Promise<Finished>;
  /** What `helm template` prints; it must succeed. `values` is put over a file of values. */
  render(helm: Helm, file: string, options?: RenderOptions): Promise<string>;
}

export interface RenderOptions {
  readonly values?: object;
  readonly kubernetes?: string;
}

/** The charts in a folder of their own, as one has them after `helm dependency build`. */
export async function prepareCharts(t: TestContext): Promise<Charts> {
  const folder = await temporaryFolder(t);
  await cp(HELM_DEPLOY, join(folder, 'helm'), { recursive: true });
  const chart = join(folder, 'helm/scute');
  const env = { HOME: folder, PATH: process.env['PATH'] ?? '' };
  const run: Charts['run'] = (helm, ...args) => runChild([part(helm), ...args], { env, cwd: folder });
  const built = await run('helm4', 'dependency', 'build', chart, '--skip-refresh');
  assert.equal(built.code, 0, built.stderr);
  let count = 0;
  return {
    chart,
    run,
    async render(helm, file, { values, kubernetes = KUBERNETES } = {}) {
      const over = join(folder, `values-${(count += 1)}.json`);
      await writeFile(over, JSON.stringify(values ?? {}));
      const done = await run(helm, 'template', 'example', chart, '-f', valuesPath(chart, file), '-f', over, '--kube-version', kubernetes);
      if (done.code !== 0) throw new Error(done.stderr);
      return done.stdout;
    },
  };
}

export function valuesPath(chart: string, file: string): string {
  return join(chart, `ci/${file}-values.yaml`);
}

export interface Decoded {
  readonly kind: string;
  readonly name: string;
  readonly problem: string;
  readonly restricted: string;
  readonly unknown: boolean;
}

/** What the Go libraries of Kubernetes say of each manifest. */
export async function judgeManifests(text: string): Promise<readonly Decoded[]> {
  const { code, stdout, stderr } = await runChild([part('k8s-judge'), 'decode'], { input: text });
  assert.equal(code, 0, stderr);
  return JSON.parse(stdout) as readonly Decoded[];
}

/** The configurations in ConfigMaps, judged as `scute check` does, with policy files where the pod has them. */
export async function checkConfigurations(t: TestContext, manifests: readonly Manifest[]): Promise<readonly object[]> {
  const checked: object[] = [];
  const folder = await temporaryFolder(t);
  const maps = manifests.filter(({ kind }) => kind === 'ConfigMap');
  for (const { metadata, data = {} } of maps) {
    const text = data['scute.yaml'];
    if (text === undefined) continue;
    const policy = join(folder, metadata.name, 'policy');
    await mkdir(policy, { recursive: true });
    for (const [file, content] of Object.entries(maps.find((map) => map.metadata.name === `${metadata.name}-policy`)?.data ?? {}))
      await writeFile(join(policy, file), content);
    const file = join(folder, metadata.name, 'scute.yaml');
    await writeFile(file, text.replaceAll('/etc/scute/policy', policy));
    const loaded = await loadConfig({ file, flags: {}, env: {} });
    assert.ok(loaded.ok, loaded.ok ? '' : formatIssues(loaded.error));
    checked.push(parse(text) as object);
  }
  return checked;
}
