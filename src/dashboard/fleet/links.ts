/** Where things of the fleet are. Pure. */

/** By what certificates can be chosen, and how that is said. */
export const FILTERS = {
  trustDomain: 'trust domain',
  spiffeId: 'SPIFFE ID',
  issuer: 'issuer',
  cluster: 'cluster',
  namespace: 'namespace',
  pod: 'pod',
  node: 'node',
  job: 'job',
  instance: 'instance',
} as const;

export type FilterName = keyof typeof FILTERS;
export type Chosen = Readonly<Partial<Record<FilterName | 'stuck', string>>>;

export const FILTER_NAMES = Object.keys(FILTERS) as readonly FilterName[];

export const fleetLinks = {
  overview: '#/',
  certificates: (chosen: Chosen = {}): string => to('certificates', chosen),
  groups: (by: string): string => to('groups', { by }),
  sidecars: (chosen: Chosen = {}): string => to('sidecars', chosen),
  trust: '#/trust',
} as const;

function to(page: string, query: Readonly<Record<string, string | undefined>>): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value !== undefined) search.set(name, value);
  const text = search.toString();
  return text === '' ? `#/${page}` : `#/${page}?${text}`;
}
