/**
 * Comes before http-proxy among the imports, which are run in their order: http-proxy takes `util._extend` when it is loaded and calls it
 * for each request, and at the first call Node would warn that it is deprecated.
 */
import util from 'node:util';

const extend: unknown = Reflect.get(util, '_extend');
Reflect.set(util, '_extend', Object.assign);

/** Called once http-proxy is loaded. */
export function giveExtendBack(): void {
  Reflect.set(util, '_extend', extend);
}
