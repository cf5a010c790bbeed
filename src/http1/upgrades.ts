/** What a connection may be switched to by `Upgrade` (RFC 9110, section 7.8). Pure. */
import { withoutSpaces } from './fields.ts';

/** May be asked for whatever is configured. */
export const WEBSOCKET = 'websocket';

/**
 * The protocol that an `Upgrade` with this value asks for, as it is written to the other side; undefined if it is none of
 * those, or a list: which of a list would be taken, only the other side knows. Compared in any case, versions too.
 */
export function findUpgrade(value: string, configured: readonly string[]): string | undefined {
  const wanted = value.toLowerCase();
  return wanted === WEBSOCKET ? WEBSOCKET : configured.find((protocol) => protocol.toLowerCase() === wanted);
}

/** More than anybody offers. */
const MAX_OFFERS = 64;

/** Those of a list that could be asked for, each once. */
export function findUpgrades(list: string, configured: readonly string[]): readonly string[] {
  return [...new Set(list.split(',', MAX_OFFERS).flatMap((value) => findUpgrade(withoutSpaces(value), configured) ?? []))];
}

/** Field lines. */
export function upgradeLines(protocols: readonly string[], closes: boolean): string {
  return `Connection: ${closes ? 'close, ' : ''}Upgrade\r\nUpgrade: ${protocols.join(', ')}\r\n`;
}
