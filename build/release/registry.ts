/** Publishes an image by Debian's skopeo, which knows registries and who may write to them (`skopeo login`). With what cosign looks for beside it. */
import { execFile } from 'node:child_process';
import { hash, type KeyObject } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { isSignedBy, signText } from './signing.ts';

const run = promisify(execFile);
const SIGNED_TEXT = 'application/vnd.dev.cosign.simplesigning.v1+json';
const ENVELOPE = 'application/vnd.dsse.envelope.v1+json';
const SIGNATURE = 'dev.cosignproject.cosign/signature';
/** Plain HTTP is for registries of this machine. */
const OF_THIS_MACHINE = /^(?:127\.0\.0\.1|localhost|\[::1\]):\d+\//;

export interface SignedImage {
  readonly tag: string;
  /** `sha256:…`, of the image or of the index of images: what is signed, and all that is pushed. */
  readonly digest: string;
  /** A private key. */
  readonly key: KeyObject;
  /** What it was made of: a statement of in-toto in an envelope of DSSE, signed. */
  readonly provenance: string;
}

/** Pushes the image in `layout` to `repository` (`HOST[:PORT]/PATH`), with its signature and its provenance. Throws, before anything is pushed, where it is another image. */
async function publishImage(layout: string, repository: string, { tag, digest, key, provenance }: SignedImage): Promise<void> {
  const found = await digestOf(layout);
  if (found !== digest) throw new Error(`the image is ${found}, and ${digest} is to be published`);
  await copy(`oci:${layout}`, `docker://${repository}:${tag}`, repository);
  const text = signedText(repository, digest);
  await attach(repository, `${tagOf(digest)}.sig`, { mediaType: SIGNED_TEXT, text, annotations: { [SIGNATURE]: signText(key, text) } });
  // Its signature is within.
  await attach(repository, `${tagOf(digest)}.att`, { mediaType: ENVELOPE, text: provenance, annotations: { [SIGNATURE]: '' } });
}

/** The image as one file, from a folder of the OCI layout; the same each time. */
export async function archive(layout: string, file: string): Promise<void> {
  const same = ['--sort=name', '--mtime=@0', '--owner=0', '--group=0', '--numeric-owner', '--mode=u=rwX,go=rX'];
  await run('tar', [...same, '--create', '--file', file, '--directory', layout, '.']);
}

/** As `publishImage`, of what `archive` made. */
export async function publishArchive(file: string, repository: string, image: SignedImage): Promise<void> {
  const layout = await mkdtemp(join(tmpdir(), 'scute-layout-'));
  try {
    await run('tar', ['--extract', '--file', file, '--directory', layout]);
    await publishImage(layout, repository, image);
  } finally {
    await rm(layout, { recursive: true, force: true });
  }
}

/** Pulls the image of `digest` into `layout`, a folder to be made, once its signature is found good. Throws where it is not, or a byte of the image is another. */
export async function pullVerified(repository: string, digest: string, layout: string, key: KeyObject): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'scute-signature-'));
  try {
    await copy(`docker://${repository}:${tagOf(digest)}.sig`, `oci:${folder}`, repository);
    await checkSignature(folder, digest, key);
    await copy(`docker://${repository}@${digest}`, `oci:${layout}`, repository);
    const pulled = await digestOf(layout);
    if (pulled !== digest) throw new Error(`${repository} gave ${pulled} for ${digest}`);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function copy(from: string, to: string, repository: string): Promise<void> {
  const plain = OF_THIS_MACHINE.test(repository) ? ['--src-tls-verify=false', '--dest-tls-verify=false'] : [];
  // What an image must have is checked here, by its signature, and not by a policy of this machine.
  await run('skopeo', ['copy', '--insecure-policy', '--all', '--preserve-digests', '--quiet', ...plain, from, to]);
}

/** How the tags begin of what stands beside an image. */
function tagOf(digest: string): string {
  return digest.replace(':', '-');
}

interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** Of the one image, or the one index of images, in a layout. Throws where that is another: of all in a layout, skopeo takes this alone unseen. */
async function digestOf(layout: string): Promise<string> {
  const { manifests } = JSON.parse(await readFile(join(layout, 'index.json'), 'utf8')) as { manifests: Descriptor[] };
  const [one, ...more] = manifests;
  if (one === undefined || more.length > 0) throw new Error(`${layout} has ${manifests.length} images, not one`);
  const found = `sha256:${hash('sha256', await readFile(blobIn(layout, one.digest)))}`;
  if (found !== one.digest) throw new Error(`${layout} has ${found} under the digest ${one.digest}`);
  return found;
}

function blobIn(layout: string, digest: string): string {
  return join(layout, 'blobs', digest.replace(':', '/'));
}

/** What cosign signs of an image. */
function signedText(repository: string, digest: string): string {
  return JSON.stringify({
    critical: {
      identity: { 'docker-reference': repository },
      image: { 'docker-manifest-digest': digest },
      type: 'cosign container image signature',
    },
    optional: null,
  });
}

interface Attached {
  readonly mediaType: string;
  readonly text: string;
  readonly annotations: Readonly<Record<string, string>>;
}

/** Pushes a text as an image whose only layer it is. */
async function attach(repository: string, tag: string, attached: Attached): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'scute-attached-'));
  try {
    await writeAttached(folder, attached);
    await copy(`oci:${folder}`, `docker://${repository}:${tag}`, repository);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function writeAttached(layout: string, { mediaType: kind, text, annotations }: Attached): Promise<void> {
  await mkdir(join(layout, 'blobs/sha256'), { recursive: true });
  const blob = async (mediaType: string, content: string): Promise<Descriptor> => {
    const sha256 = hash('sha256', content);
    await writeFile(join(layout, 'blobs/sha256', sha256), content);
    return { mediaType, digest: `sha256:${sha256}`, size: Buffer.byteLength(content) };
  };
  const layer = { ...(await blob(kind, text)), annotations };
  const settings = { architecture: '', os: '', config: {}, rootfs: { type: 'layers', diff_ids: [layer.digest] } };
  const config = await blob('application/vnd.oci.image.config.v1+json', JSON.stringify(settings));
  const mediaType = 'application/vnd.oci.image.manifest.v1+json';
  const manifest = await blob(mediaType, JSON.stringify({ schemaVersion: 2, mediaType, config, layers: [layer] }));
  await writeFile(join(layout, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  await writeFile(join(layout, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [manifest] }));
}

async function checkSignature(layout: string, digest: string, key: KeyObject): Promise<void> {
  const blob = (of: string): Promise<string> => readFile(blobIn(layout, of), 'utf8');
  const { layers } = JSON.parse(await blob(await digestOf(layout))) as { layers: Descriptor[] };
  for (const { annotations, digest: layer } of layers) {
    const text = await blob(layer);
    if (!isSignedBy(key, text, annotations?.[SIGNATURE] ?? '')) continue;
    const { critical } = JSON.parse(text) as { critical: { image: Record<string, string> } };
    if (critical.image['docker-manifest-digest'] === digest) return;
  }
  throw new Error(`the image ${digest} is not signed by this key`);
}
