/** Probes of an application that listens where a kubelet cannot reach it. Pure. */
import * as z from 'zod';
import * as field from '../fields.ts';
import { addressesOverlap, formatAddress, isLocal, type Address } from '../units.ts';

/** One question to the application, the same each time. */
export interface ProbeConfig {
  /** Where the metrics listener answers it. */
  readonly path: string;
  /** On this machine. */
  readonly to: Address;
  /** What the application is asked for: path, and query if there is one (RFC 9112, section 3.2.1). */
  readonly target: string;
}

const MOST_PROBES = 16;
/** Of the metrics listener itself. */
const TAKEN: ReadonlySet<string> = new Set(['/metrics', '/livez', '/readyz']);

const probe = z.strictObject({
  path: field.urlPath
    .refine((path) => !TAKEN.has(path), `is taken: the metrics listener itself answers ${[...TAKEN].join(', ')}`)
    .meta({ description: 'the path of the metrics listener that answers it, such as `/app/ready`' }),
  to: field.targetAddress
    .refine(isLocal, 'must be an address on this machine: a loopback address or a Unix socket')
    // Two spellings of one address could not be told apart from two addresses.
    .refine((to) => to.kind === 'unix' || !to.host.startsWith('::ffff:'), 'is IPv4 written as IPv6: write it as IPv4')
    .meta({ description: 'the application: a loopback address or `unix:///path`, and no listener of Scute' }),
  target: z
    .string()
    .regex(/^\/[\x21\x22\x24-\x7e]{0,1023}$/, 'must be a path, with a query if there is one, such as /healthz?full=1')
    .meta({ description: 'what it is asked for: a path, and a query if there is one' }),
});

export const probes = z
  .array(probe)
  .max(MOST_PROBES)
  .refine((all) => new Set(all.map(({ path }) => path)).size === all.length, 'has a path twice')
  .prefault([])
  .meta({
    description:
      'questions to an application on a loopback address that a kubelet may ask: a GET of a fixed target, answered with the status that came, without its body, within a second; 16 at most',
  });

/** Why nobody may be asked there: whoever reaches the metrics listener would speak with our identity, or have it ask itself. */
export function probeProblem(to: Address, bound: readonly { readonly address: Address; readonly label: string }[]): string | undefined {
  const own = bound.find(({ address }) => addressesOverlap(address, to));
  return own && `${formatAddress(to)} is ${own.label} of this configuration, and must be the application`;
}
