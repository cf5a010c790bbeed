import { codeOf } from '../lib/errors.ts';

/**
 * Binds by `bind`. `::` takes IPv4 as well, so it is every address; where the kernel has no IPv6, as on some nodes, every address is 0.0.0.0. Only that
 * is mended: an address that was named is that one, or an error.
 */
export async function bindAny<W extends { readonly host: string }>(where: W, bind: (where: W) => Promise<void>): Promise<void> {
  try {
    await bind(where);
  } catch (cause) {
    const code = codeOf(cause);
    if (where.host !== '::' || (code !== 'EAFNOSUPPORT' && code !== 'EADDRNOTAVAIL')) throw cause;
    await bind({ ...where, host: '0.0.0.0' });
  }
}
