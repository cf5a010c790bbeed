import assert from 'node:assert/strict';
import { chmod, readFile } from 'node:fs/promises';
import { connect as connectTcp, type Socket } from 'node:net';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { connect, type ConnectionOptions } from 'node:tls';
import { X509Certificate } from 'node:crypto';
import type { DevDomain } from '../../../src/devdomain/dev-domain.ts';
import { startDevDomain } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { folderInMemory } from '../../support/files/files.ts';
import { startSidecar, type Sidecar } from '../../support/sidecar.ts';

export const SERVER = 'spiffe://example.org/server';
const ROTATIONS = 100;

export interface FilesStage {
  readonly spiffe: DevDomain;
  /** Where the set goes; there already. */
  readonly directory: string;
  /** Beside it, for what the program needs. */
  readonly folder: string;
  readonly unsafeDisk: boolean;
  /** A Scute that writes the set and tells the program, as `settings` say. */
  startWriter(settings: object): Promise<Sidecar>;
}

/** A trust domain with a server whose SVID goes into files. */
export async function startFilesStage(t: TestContext): Promise<FilesStage> {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { server: [SERVER] } });
  const { folder, unsafeDisk } = await folderInMemory(t);
  // Programs may read it as another user than that of the test.
  await chmod(folder, 0o755);
  const directory = join(folder, 'set');
  const startWriter = (settings: object): Promise<Sidecar> =>
    startSidecar(t, {
      workloadApi: { endpoint: spiffe.endpoint('server') },
      files: [{ directory, unsafeDisk, notifyDelay: '1ms', ...settings }],
    });
  return { spiffe, directory, folder, unsafeDisk, startWriter };
}

/** How a client gets as far as TLS: some protocols say something first. */
export type Opening = (socket: Socket) => Promise<void>;

/** One connection that verifies chain and SPIFFE ID. Resolves to the serial number of what the server showed, when it has also said `answer`. */
export async function visit(port: number, ca: string, options: ConnectionOptions, { opening, ask, answer }: Exchange): Promise<string> {
  const raw = connectTcp(port, '127.0.0.1');
  try {
    await opening?.(raw);
    return await new Promise<string>((resolve, reject) => {
      let said = '';
      raw.once('error', reject);
      const socket = connect({
        ...options,
        socket: raw,
        ca,
        checkServerIdentity: (_, { subjectaltname }) =>
          subjectaltname === `URI:${SERVER}` ? undefined : new Error(`it is ${subjectaltname}`),
      });
      const serial = (): string => socket.getPeerX509Certificate()?.serialNumber ?? '';
      let shown = '';
      socket.once('secureConnect', () => {
        shown = serial();
        socket.write(ask);
      });
      socket.on('data', (chunk: Buffer) => {
        said += chunk.toString('latin1');
        if (said.includes(answer)) resolve(shown);
      });
      socket.once('error', reject);
      socket.once('close', () => reject(new Error(`closed after ${JSON.stringify(said)}`)));
    });
  } finally {
    raw.destroy();
  }
}

export interface Exchange {
  readonly opening?: Opening;
  readonly ask: string | Buffer;
  readonly answer: string;
}

/** Rotates again and again while clients come without a pause. Each rotation must reach the program, and no client may fail. */
export async function rotateUnderLoad(stage: FilesStage, once: (ca: string) => Promise<string>): Promise<void> {
  const { spiffe, directory } = stage;
  const ca = await readFile(join(directory, 'svid_bundle.pem'), 'utf8');
  const failures: unknown[] = [];
  let visits = 0;
  const over = new AbortController();
  const clients = [1, 2].map(async () => {
    while (!over.signal.aborted) {
      await once(ca).then(
        () => (visits += 1),
        (failure: unknown) => failures.push(failure),
      );
    }
  });
  try {
    let last = '';
    for (let rotation = 1; rotation <= ROTATIONS; rotation += 1) {
      await spiffe.rotate();
      await eventually(async () => {
        const { serialNumber } = new X509Certificate(await readFile(join(directory, 'svid.pem')));
        assert.notEqual(serialNumber, last);
        assert.equal(await once(ca), serialNumber);
        last = serialNumber;
      });
      assert.deepEqual(failures, [], `rotation ${rotation}, after ${visits} visits`);
    }
  } finally {
    over.abort();
    await Promise.all(clients);
  }
  assert.ok(visits >= ROTATIONS, `${visits} visits`);
}
