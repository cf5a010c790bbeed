import assert from 'node:assert/strict';
import { once } from 'node:events';
import { get, type IncomingMessage } from 'node:http';
import { mkdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { type Child, type Exit, startChild } from '../../support/child.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import type { Container, Manifest, Pod, Probe } from './stage.ts';

const BUNDLE = fileURLToPath(new URL('../../../dist/scute.js', import.meta.url));
/** What the image runs; the arguments are the pod's. */
const ENTRYPOINT = [process.execPath, '--disable-sigusr1', BUNDLE];

export interface PlayedPod {
  /** What happened, in its order. */
  readonly events: readonly string[];
  /** Resolves when the containers of the pod run, and its startup probes have succeeded. */
  readonly started: Promise<void>;
  /** Whether every readiness probe says yes, now. */
  ready(): Promise<boolean>;
  container(name: string): Child | undefined;
  /** Writes other files into a ConfigMap, as a kubelet swaps them. */
  replace(configMap: string, data: Readonly<Record<string, string>>): Promise<void>;
  /** As when it is deleted: preStop, SIGTERM, and sidecars last. Resolves to how each container ended. */
  delete(): Promise<ReadonlyMap<string, Exit>>;
  /** When every container but sidecars has ended by itself, as in a Job. */
  readonly completed: Promise<ReadonlyMap<string, Exit>>;
}

export interface PlayOptions {
  /** What the CSI driver mounts: `unix:///…/spire-agent.sock`. */
  readonly workloadApi: string;
  /** What `preStop.sleep` does, if the test wants to say how long that is. */
  readonly sleep?: ((seconds: number) => Promise<void>) | undefined;
}

/** As a kubelet: a connection of its own, and no answer within the time is a failure. */
export async function askProbe(port: number, { httpGet, timeoutSeconds = 1 }: Probe): Promise<boolean> {
  assert.ok(httpGet);
  const signal = AbortSignal.timeout(timeoutSeconds * 1000);
  const request = get({ host: '127.0.0.1', port, path: httpGet.path, agent: false, signal });
  try {
    const [response] = (await once(request, 'response', { signal })) as [IncomingMessage];
    response.resume();
    return response.statusCode !== undefined && response.statusCode >= 200 && response.statusCode < 400;
  } catch {
    return false;
  } finally {
    request.destroy();
  }
}

/**
 * Plays what a kubelet does with a pod, with its containers as processes of this machine: volumes are folders, and the paths at which they are mounted are
 * replaced, in arguments and in ConfigMaps, by those. Sidecars start in their order, each after the startup probe of the one before (KEP-753); they end when
 * all others have, in reverse.
 */
export async function playPod(
  t: TestContext,
  pod: Pod,
  manifests: readonly Manifest[],
  { workloadApi, sleep = (seconds) => pause(seconds * 1000) }: PlayOptions,
): Promise<PlayedPod> {
  const folder = await temporaryFolder(t);
  const events: string[] = [];
  const running = new Map<string, Child>();
  const volumes = new Map<string, string>();
  for (const volume of pod.volumes ?? []) {
    const path = volume.csi === undefined ? join(folder, volume.name) : dirname(workloadApi.slice('unix://'.length));
    if (volume.csi === undefined) await mkdir(path);
    volumes.set(volume.name, path);
  }
  const mounts = [...(pod.initContainers ?? []), ...pod.containers].flatMap(({ volumeMounts = [] }) => volumeMounts);
  const onThisMachine = (text: string): string =>
    mounts
      .toSorted((one, other) => other.mountPath.length - one.mountPath.length)
      .reduce(
        (replaced, { mountPath, name }) => replaced.replaceAll(mountPath, volumes.get(name) ?? assert.fail(`there is no volume ${name}`)),
        text,
      );
  let swaps = 0;
  /** As the kubelet: new files in a folder of their own, to which `..data` is then turned. */
  const swap = async (path: string, data: Readonly<Record<string, string>>): Promise<void> => {
    const fresh = `..${(swaps += 1)}`;
    await mkdir(join(path, fresh));
    for (const [name, text] of Object.entries(data)) {
      await writeFile(join(path, fresh, name), onThisMachine(text));
      await symlink(join('..data', name), join(path, name)).catch(() => undefined);
    }
    await symlink(fresh, join(path, '..data_tmp'));
    await rename(join(path, '..data_tmp'), join(path, '..data'));
  };
  for (const { name, configMap } of pod.volumes ?? []) {
    if (configMap === undefined) continue;
    const map = manifests.find(({ kind, metadata }) => kind === 'ConfigMap' && metadata.name === configMap.name);
    await swap(volumes.get(name) ?? '', map?.data ?? assert.fail(`there is no ConfigMap ${configMap.name}`));
  }
  t.after(async () => {
    for (const child of running.values()) await child.stop();
    await rm(folder, { recursive: true, force: true });
  });

  const isSidecar = ({ restartPolicy }: Container): boolean => restartPolicy === 'Always';
  const portOf = (container: Container, port: string | number): number =>
    typeof port === 'number'
      ? port
      : (container.ports?.find(({ name }) => name === port)?.containerPort ?? assert.fail(`there is no port ${port}`));
  const probed = (container: Container, probe: Probe): Promise<boolean> => askProbe(portOf(container, probe.httpGet?.port ?? ''), probe);
  const start = async (container: Container): Promise<void> => {
    const command = container.name === 'scute' ? ENTRYPOINT : (container.command ?? assert.fail('what the image runs is not known'));
    const [program = '', ...args] = [...command, ...(container.args ?? [])].map(onThisMachine);
    running.set(container.name, await startChild([program, ...args], { env: { PATH: process.env['PATH'] ?? '' }, cwd: '/' }));
    events.push(`${container.name} started`);
    const { startupProbe } = container;
    if (startupProbe === undefined) return;
    for (let failures = 0; !(await probed(container, startupProbe)); failures += 1) {
      if (failures >= (startupProbe.failureThreshold ?? 3)) throw new Error(`${container.name} would be restarted`);
      if (isDeleted) return;
      await pause((startupProbe.periodSeconds ?? 10) * 1000);
    }
    events.push(`${container.name} has come up`);
  };
  let isDeleted = false;
  const started = (async () => {
    for (const container of pod.initContainers ?? []) {
      await start(container);
      if (isSidecar(container)) continue;
      const { code } = (await running.get(container.name)?.exited) ?? {};
      if (code !== 0) throw new Error(`${container.name} ended with ${code}`);
      events.push(`${container.name} ended`);
    }
    for (const container of pod.containers) if (!isDeleted) await start(container);
  })();
  started.catch(() => undefined);

  const exits = new Map<string, Exit>();
  const ended = async (name: string): Promise<void> => {
    const exit = await running.get(name)?.exited;
    if (exit === undefined) return;
    exits.set(name, exit);
    events.push(`${name} ended`);
  };
  const endSidecars = async (): Promise<void> => {
    for (const { name } of (pod.initContainers ?? []).filter(isSidecar).toReversed()) {
      running.get(name)?.signal('SIGTERM');
      await ended(name);
    }
  };
  const mainEnded = started.then(() => Promise.all(pod.containers.map(({ name }) => ended(name))));
  const completed = mainEnded.then(async () => {
    await endSidecars();
    return exits;
  });
  completed.catch(() => undefined);
  return {
    events,
    started,
    completed,
    container: (name) => running.get(name),
    async ready() {
      const all = [...(pod.initContainers ?? []), ...pod.containers].filter(({ readinessProbe }) => readinessProbe !== undefined);
      const said = await Promise.all(all.map((container) => probed(container, container.readinessProbe ?? {})));
      return said.every(Boolean);
    },
    async replace(configMap, data) {
      const volume = pod.volumes?.find((each) => each.configMap?.name === configMap);
      await swap(volumes.get(volume?.name ?? '') ?? assert.fail(`nobody mounts ${configMap}`), data);
    },
    async delete() {
      isDeleted = true;
      await Promise.all(
        pod.containers.map(async ({ name, lifecycle }) => {
          const seconds = lifecycle?.preStop?.sleep?.seconds;
          if (seconds !== undefined) {
            events.push(`${name} sleeps before its end`);
            await sleep(seconds);
          }
          running.get(name)?.signal('SIGTERM');
        }),
      );
      return completed;
    },
  };
}
