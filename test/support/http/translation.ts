import type { Translation } from '../../../src/config/config.ts';

/**
 * What carries the requests of HTTP/2 peers to applications that speak HTTP/1.1 in this run: `test/interop/http/http-proxy.test.ts` has
 * the same tests run with the other one.
 */
export const TRANSLATION: Translation = process.env['SCUTE_TEST_TRANSLATION'] === 'http-proxy' ? 'http-proxy' : 'scute';

/** What is expected, where the two differ: nghttp2 and Node's HTTP/1.1 have ways of their own. */
export function byTranslation<T>(own: T, node: T): T {
  return TRANSLATION === 'scute' ? own : node;
}
