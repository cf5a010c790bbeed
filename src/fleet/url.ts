/** Where Prometheus is. Pure. */
import { isLocal } from '../config/units.ts';
import { err, ok, type Result } from '../lib/result.ts';

/** `withToken`: a token is sent there, which must not be read on the way. The error is a sentence, without what the URL may have let in. */
export function parsePrometheusUrl(text: string, { withToken }: { readonly withToken: boolean }): Result<URL, string> {
  const url = URL.parse(text);
  if (url === null) return err('it is not a URL: write such as https://prometheus.example:9090');
  if (url.protocol !== 'https:' && url.protocol !== 'http:') return err(`${url.protocol}// is neither https:// nor http://`);
  if (url.username !== '' || url.password !== '' || /^[^/?#]*\/\/[^/?#]*@/.test(text))
    return err('it has credentials, which others would read in logs and lists of processes: give a token by --token-file');
  if (url.search !== '' || url.hash !== '' || /[?#]/.test(text)) return err('it has a query or a fragment');
  const host = hostOf(url);
  if (withToken && url.protocol === 'http:' && !isLocal({ kind: 'tcp', host, port: 0 }))
    return err(`a token would go to ${host} in plain text: write https://`);
  return ok(url);
}

/** Without the brackets of IPv6. */
export function hostOf(url: URL): string {
  return url.hostname.replace(/^\[(.*)\]$/, '$1');
}
