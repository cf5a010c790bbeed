import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

/** As the runtime specification of OCI has one, which containerd reads from the node's disk, and CRI-O likewise. */
export interface SeccompProfile {
  readonly defaultAction: string;
  readonly syscalls: readonly { readonly names: readonly string[]; readonly action: string; readonly args?: readonly object[] }[];
}

/** The one in deploy/, which nodes are given. */
export async function seccompProfile(): Promise<SeccompProfile> {
  return JSON.parse(
    await readFile(fileURLToPath(new URL('../../../deploy/seccomp/scute.json', import.meta.url)), 'utf8'),
  ) as SeccompProfile;
}
