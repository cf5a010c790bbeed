/**
 * `npm run soak:image`: 100,000 short connections of each kind of work through one container of the image with a memory limit of 128 MiB, and
 * how much the kernel says that it holds, ten times on the way. The kernel kills it where that is more than the limit. Exit code 1 if it did, or
 * if resident memory of the last tenth is more than 10 MiB above that after the second. As root, with Buildah and runc.
 *
 * `--unpacked FOLDER` takes an image that is unpacked already, or leaves it there; `--node` and `--env` try other options and variables.
 */
import { existsSync } from 'node:fs';
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { nativeImage, startContainer, type Container, type UnpackedImage } from '../test/interop/image/container.ts';
import { MOST_CERTIFICATES, strangerFlight, strangersCall } from '../test/support/pki/strangers.ts';
import { startIdentities } from './certificates.ts';
import { startLoad, type Load } from './load.ts';
import { envoyIdentity, type CertificateFiles } from './peer.ts';
import { freePort, killAll } from './process.ts';

const PHASES = 10;
const CLIENTS = 16;
const PHASE_LIMIT_MS = 10 * 60_000;
const START_WITHIN_MS = 300_000;
const ALLOWED_MIB = 10;
const AGENT = '/run/agent';
const WORKS = ['tcp', 'http1', 'http2', 'strangers'] as const;
type Work = (typeof WORKS)[number];

const { values } = parseArgs({
  options: {
    connections: { type: 'string', default: '100000' },
    memory: { type: 'string', default: '128' },
    work: { type: 'string', default: WORKS.join(',') },
    unpacked: { type: 'string' },
    node: { type: 'string', multiple: true, default: [] },
    env: { type: 'string', multiple: true, default: [] },
  },
});
const each = Math.ceil(Number(values.connections) / PHASES);

/** What ends when all is over, in reverse. */
class Ending {
  readonly #steps: (() => unknown)[] = [];

  after(step: () => unknown): void {
    this.#steps.unshift(step);
  }

  async end(): Promise<void> {
    for (const step of this.#steps.splice(0)) await step();
  }
}

async function imageIn(folder: string): Promise<UnpackedImage> {
  const described = join(folder, 'config.json');
  if (existsSync(described))
    return { root: join(folder, 'root'), config: JSON.parse(await readFile(described, 'utf8')) as UnpackedImage['config'] };
  const image = await nativeImage(folder);
  await writeFile(described, JSON.stringify(image.config));
  return image;
}

/** With other options of Node before the image's. */
function entrypointOf({ config }: UnpackedImage): string[] {
  const [node = '', ...rest] = config.Entrypoint;
  return [node, ...values.node, ...rest];
}

async function call(work: Work, load: Load, port: number, certificates: CertificateFiles): Promise<void> {
  if (work === 'strangers') {
    const flights = [1, 8, 9, 120, MOST_CERTIFICATES].map((count) => strangerFlight(count, { id: certificates.clientId }));
    for (const flight of flights) await strangersCall(port, flight, each / flights.length, CLIENTS);
    return;
  }
  const limits = { warmUpMs: 0, windowMs: PHASE_LIMIT_MS, pids: [] };
  const files = { certFile: certificates.clientChain, keyFile: certificates.clientKey, caFile: certificates.authorities };
  const spoken = { protocol: work === 'tcp' ? 'frames' : work, identity: envoyIdentity(certificates), plain: false } as const;
  const job = { name: work, target: `127.0.0.1:${port}`, serverId: certificates.serverId, ...files, ...spoken, ...limits };
  await load.run({ ...job, work: 'count', connections: CLIENTS, total: each });
}

/** Whether memory stayed what it was. */
async function soak(work: Work, image: UnpackedImage, load: Load): Promise<boolean> {
  const ending = new Ending();
  try {
    const folder = await mkdtemp(join(tmpdir(), 'scute-soak-'));
    ending.after(() => rm(folder, { recursive: true, force: true }));
    const identities = await startIdentities(folder);
    const { certificates } = identities;
    ending.after(() => identities.stop());
    for (const path of [folder, join(folder, 'server.sock')]) await chmod(path, 0o777);
    const [port, metrics] = [await freePort(), await freePort()];
    const listener = { name: 'in', listen: `127.0.0.1:${port}`, allow: [certificates.clientId] };
    const served = work === 'http1' || work === 'http2' ? { to: load.applications.http, protocol: 'http' } : { to: load.applications.tcp };
    const config = {
      workloadApi: { endpoint: `unix://${AGENT}/server.sock` },
      inbound: [{ ...listener, ...served }],
      metrics: { listen: `127.0.0.1:${metrics}` },
    };
    await writeFile(join(folder, 'scute.yaml'), JSON.stringify(config), { mode: 0o644 });
    const container = await startContainer(ending, image, {
      entrypoint: entrypointOf(image),
      memoryMib: Number(values.memory),
      env: Object.fromEntries(values.env.map((pair) => pair.split('=', 2) as [string, string])),
      mounts: { '/etc/scute': folder, [AGENT]: folder },
    });
    await container.line(/"message":"identity updated"/, { withinMs: START_WITHIN_MS });
    process.stdout.write(`${work}, before: ${await described(container)}\n`);
    const residents: number[] = [];
    for (let phase = 1; phase <= PHASES; phase += 1) {
      const begun = performance.now();
      await Promise.race([call(work, load, port, certificates), died(container)]);
      const seconds = ((performance.now() - begun) / 1000).toFixed(0);
      residents.push((await container.memory()).residentMib);
      process.stdout.write(`${work}, ${phase * each} connections: ${await described(container)} (${seconds} s)\n`);
    }
    const grown = (residents.at(-1) ?? Infinity) - (residents[1] ?? 0);
    process.stdout.write(`${work}: grew by ${grown.toFixed(1)} MiB since the second tenth; ${ALLOWED_MIB} are allowed\n`);
    return grown <= ALLOWED_MIB;
  } finally {
    await ending.end();
  }
}

async function died(container: Container): Promise<never> {
  const { code, signal } = await container.exited;
  throw new Error(`the container ended with ${signal ?? code}\n${container.stderr()}`);
}

async function described(container: Container): Promise<string> {
  const { mostMib, residentMib } = await container.memory();
  return `${residentMib.toFixed(1)} MiB resident, ${mostMib.toFixed(1)} at most with the page cache`;
}

const works = values.work.split(',');
const unknown = works.filter((work) => !WORKS.some((known) => known === work));
if (unknown.length > 0) throw new Error(`${unknown.join(', ')}: there is ${WORKS.join(', ')}`);
const ending = new Ending();
try {
  const folder = values.unpacked ?? (await mkdtemp(join(tmpdir(), 'scute-soak-image-')));
  if (values.unpacked === undefined) ending.after(() => rm(folder, { recursive: true, force: true }));
  const image = await imageIn(folder);
  const load = await startLoad();
  ending.after(() => load.stop());
  for (const work of WORKS.filter((known) => works.includes(known))) if (!(await soak(work, image, load))) process.exitCode = 1;
} catch (cause) {
  process.stderr.write(`soak: ${String(cause)}\n`);
  process.exitCode = 1;
} finally {
  await ending.end();
  killAll();
}
