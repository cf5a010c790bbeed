/** Debian's registry on loopback, and small images to push there. */
import assert from 'node:assert/strict';
import { hash } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { ARCHITECTURES } from '../../../build/image/debian.ts';
import { startChild } from '../../support/child.ts';
import { eventually } from '../../support/eventually.ts';
import { freePort } from '../../support/tcp.ts';
import { part } from '../parts.ts';

export interface Registry {
  readonly address: string;
  /** Where its blobs lie, by digest. */
  blob(digest: string): string;
  /** Names of what was pushed. */
  repositories(): Promise<readonly string[]>;
}

/** It ends with the test or the file of tests, and its files lie in `folder`. */
export async function startRegistry(t: { after(done: () => unknown): void }, folder: string): Promise<Registry> {
  const address = `127.0.0.1:${await freePort()}`;
  const storage = join(folder, 'registry');
  const file = join(folder, 'registry.yml');
  await mkdir(storage);
  await writeFile(
    file,
    `version: 0.1\nlog: { level: error }\nstorage: { filesystem: { rootdirectory: ${storage} } }\nhttp: { addr: "${address}" }\n`,
  );
  const registry = await startChild([part('docker-registry'), 'serve', file], {
    env: { PATH: '/usr/bin:/bin', OTEL_TRACES_EXPORTER: 'none' },
  });
  t.after(() => registry.stop());
  await eventually(async () => assert.equal((await fetch(`http://${address}/v2/`)).status, 200));
  return {
    address,
    blob(digest) {
      const name = digest.slice('sha256:'.length);
      return join(storage, 'docker/registry/v2/blobs/sha256', name.slice(0, 2), name, 'data');
    },
    async repositories() {
      const answer = await fetch(`http://${address}/v2/_catalog`);
      return ((await answer.json()) as { repositories: string[] }).repositories;
    },
  };
}

interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
}

export interface SmallIndex {
  /** `sha256:…`, as the other two. */
  readonly digest: string;
  /** Of the image for each processor. */
  readonly manifests: readonly string[];
  readonly layers: readonly string[];
}

/** Writes an image layout with an index of an image for each processor that Scute has one for. Each has a layer with nothing in it. */
export async function writeSmallIndex(layout: string): Promise<SmallIndex> {
  await mkdir(join(layout, 'blobs/sha256'), { recursive: true });
  const blob = async (kind: string, content: string | Buffer): Promise<Descriptor> => {
    const sha256 = hash('sha256', content);
    await writeFile(join(layout, 'blobs/sha256', sha256), content);
    return { mediaType: `application/vnd.oci.image.${kind}`, digest: `sha256:${sha256}`, size: Buffer.byteLength(content) };
  };
  const document = async (kind: string, content: object): Promise<Descriptor> =>
    blob(kind, JSON.stringify({ schemaVersion: 2, mediaType: `application/vnd.oci.image.${kind}`, ...content }));
  const images = [];
  const layers = [];
  for (const [place, architecture] of ARCHITECTURES.entries()) {
    // An archive of tar ends with blocks of zeros.
    const tar = Buffer.alloc(1024 * (place + 1));
    const layer = await blob('layer.v1.tar+gzip', gzipSync(tar));
    const rootfs = { type: 'layers', diff_ids: [`sha256:${hash('sha256', tar)}`] };
    const config = await blob('config.v1+json', JSON.stringify({ architecture, os: 'linux', config: {}, rootfs }));
    images.push({ ...(await document('manifest.v1+json', { config, layers: [layer] })), platform: { architecture, os: 'linux' } });
    layers.push(layer.digest);
  }
  const index = await document('index.v1+json', { manifests: images });
  await writeFile(join(layout, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  await writeFile(join(layout, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [index] }));
  return { digest: index.digest, manifests: images.map(({ digest }) => digest), layers };
}

/** Changes one bit of a file. */
export async function flip(file: string, at?: number): Promise<void> {
  const bytes = await readFile(file);
  const place = at ?? bytes.length >> 1;
  bytes.writeUInt8(bytes.readUInt8(place) ^ 1, place);
  await writeFile(file, bytes);
}
