import packageJson from '../../../package.json' with { type: 'json' };

export const VERSION: string = packageJson.version;

/** One line for bug reports. */
export function describeVersion(): string {
  return `scute ${VERSION} (node ${process.versions.node}, openssl ${process.versions.openssl})`;
}
