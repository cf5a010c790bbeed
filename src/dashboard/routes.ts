/** Where things are: the part of the address after `#`. Pure. */

export interface Route {
  /** The first part: `certificates`. Empty for the overview. */
  readonly page: string;
  /** The second, decoded: what of it. */
  readonly id: string | undefined;
  readonly query: URLSearchParams;
}

export function parseRoute(hash: string): Route {
  const [path = '', query = ''] = hash.replace(/^#?\/?/, '').split('?', 2);
  const [page = '', id] = path.split('/', 2);
  return { page, id: id === undefined || id === '' ? undefined : decode(id), query: new URLSearchParams(query) };
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function at(page: string, id?: string | null): string {
  return id == null ? `#/${page}` : `#/${page}/${encodeURIComponent(id)}`;
}

export const links = {
  overview: '#/',
  certificates: (kind?: string): string =>
    kind === undefined ? at('certificates') : `${at('certificates')}?kind=${encodeURIComponent(kind)}`,
  certificate: (id: string): string => at('certificates', id),
  trust: (domain?: string | null): string => at('trust', domain),
  connections: (listener?: string): string =>
    listener === undefined ? at('connections') : `${at('connections')}?listener=${encodeURIComponent(listener)}`,
  peer: (spiffeId: string): string => at('peers', spiffeId),
  refusals: at('refusals'),
  policy: at('policy'),
  envoy: at('envoy'),
  time: at('time'),
  configuration: at('configuration'),
} as const;

/** Relative, so that it works behind whatever leads here. */
export function apiPath(resource: string, parameters: Readonly<Record<string, string | number | null | undefined>> = {}): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) if (value != null && value !== '') search.set(name, String(value));
  const text = search.toString();
  return text === '' ? `api/v1/${resource}` : `api/v1/${resource}?${text}`;
}
