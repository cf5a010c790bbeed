/** A container of the image beside an application and a trust domain of this machine. */
import assert from 'node:assert/strict';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, type TestContext } from 'node:test';
import { connect } from 'node:tls';
import type { DevDomain } from '../../../src/devdomain/dev-domain.ts';
import { presented, startExampleDomain, WEB } from '../../support/data-path.ts';
import { readyz } from '../../support/scute-process.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import type { Presented } from '../../support/tls-peer.ts';
import { needs } from '../parts.ts';
import { freePort, listen } from '../stage.ts';
import {
  asRoot,
  AGENT_FOLDER,
  nativeImage,
  startContainer,
  type Container,
  type ContainerOptions,
  type UnpackedImage,
} from './container.ts';

export const PARTS = { ...needs('buildah', 'runc'), ...asRoot };
const BUILD_WITHIN_MS = 900_000;
/** Kubernetes gives a start so long, by the probe that the docs name. */
export const START_WITHIN_MS = 300_000;
/** Callers that each wait for their answer. */
const CALLERS = 8;

/** The image, built before the tests of a file, and removed after them. */
export function imageOfFile(): () => UnpackedImage {
  let folder = '';
  let image: UnpackedImage | undefined;
  before(
    async () => {
      if (PARTS.skip !== undefined) return;
      folder = await mkdtemp(join(tmpdir(), 'scute-image-'));
      image = await nativeImage(folder);
    },
    { timeout: BUILD_WITHIN_MS },
  );
  after(() => rm(folder, { recursive: true, force: true }));
  return () => image ?? assert.fail('the image was not built');
}

export interface Stage {
  readonly container: Container;
  readonly spiffe: DevDomain;
  readonly port: number;
  readonly metricsPort: number;
  readonly web: Presented;
}

/** Whoever the container runs as may use what is mounted into it. */
export async function mountable(t: TestContext): Promise<string> {
  const folder = await temporaryFolder(t);
  await chmod(folder, 0o755);
  return folder;
}

export async function configFolder(t: TestContext, config: object): Promise<string> {
  const folder = await mountable(t);
  await writeFile(join(folder, 'scute.yaml'), JSON.stringify(config), { mode: 0o644 });
  return folder;
}

/** The Workload API's folder, open to the container's user as a CSI driver makes it. */
export async function agentFolder(spiffe: DevDomain): Promise<string> {
  const socket = spiffe.endpoint('api').slice('unix://'.length);
  await chmod(dirname(socket), 0o755);
  await chmod(socket, 0o666);
  return dirname(socket);
}

export interface StageOptions extends ContainerOptions {
  /** More of its configuration. */
  readonly config?: object;
}

/** Starts one, and does not wait until it is ready. */
export async function launchStage(t: TestContext, image: UnpackedImage, { config, ...options }: StageOptions = {}): Promise<Stage> {
  const spiffe = await startExampleDomain(t);
  const application = createServer((_, answer) => answer.end('hello'));
  // Scute may still hold some when a test fails.
  t.after(() => application.closeAllConnections());
  const to = await listen(t, application);
  const [port, metricsPort] = [await freePort(), await freePort()];
  const etc = await configFolder(t, {
    workloadApi: { endpoint: `unix://${AGENT_FOLDER}/api.sock` },
    inbound: [{ name: 'in', listen: `127.0.0.1:${port}`, to, protocol: 'http', allow: [WEB] }],
    metrics: { listen: `127.0.0.1:${metricsPort}` },
    ...config,
  });
  const mounts = { '/etc/scute': etc, [AGENT_FOLDER]: await agentFolder(spiffe) };
  const container = await startContainer(t, image, { ...options, mounts: { ...mounts, ...options.mounts } });
  return { container, spiffe, port, metricsPort, web: presented(await spiffe.issue(WEB)) };
}

export async function startStage(t: TestContext, image: UnpackedImage, options: StageOptions = {}): Promise<Stage> {
  const stage = await launchStage(t, image, options);
  await stage.container.line(/"message":"identity updated"/, { withinMs: START_WITHIN_MS });
  await readyz(stage.metricsPort, { withinMs: START_WITHIN_MS });
  return stage;
}

/** So many requests, each on a connection of its own. */
export async function ask({ port, web }: Stage, times: number): Promise<void> {
  let left = times;
  const caller = async (): Promise<void> => {
    while (left > 0) {
      left -= 1;
      const socket = connect({ host: '127.0.0.1', port, ...web, rejectUnauthorized: false });
      socket.write('GET / HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n');
      const chunks: Buffer[] = [];
      for await (const chunk of socket) chunks.push(chunk as Buffer);
      assert.match(Buffer.concat(chunks).toString(), /^HTTP\/1\.1 200 [^]*hello$/);
    }
  };
  await Promise.all(Array.from({ length: CALLERS }, caller));
}

export async function ended(container: Container): Promise<string> {
  assert.deepEqual(await container.stop(), { code: 0, signal: null });
  return container.stderr();
}
