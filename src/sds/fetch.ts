import type { Catalogue, Secret } from './secrets.ts';
import type { SdsName } from '../telemetry/log/sds-records.ts';
import { WILDCARD } from './stream-state.ts';
import type { ValidationForm } from './validation-form.ts';

export interface Fetched {
  readonly secrets: readonly Secret[];
  readonly missing: readonly SdsName[];
}

/** What one unary request is answered: no names, or `*`, are everything there is. Each name once, in the order of the request. */
export function fetchSecrets(catalogue: Catalogue, names: readonly string[], form: ValidationForm): Fetched {
  const asked = new Set(names.filter((name) => name !== '' && name !== WILDCARD));
  const wanted = asked.size === 0 || names.includes(WILDCARD) ? new Set([...catalogue.names(), ...asked]) : asked;
  const secrets: Secret[] = [];
  const missing: SdsName[] = [];
  for (const name of wanted) {
    const looked = catalogue.lookup(name, form);
    if (looked.found) secrets.push(looked.secret);
    else if (asked.has(name)) missing.push({ name, reason: looked.reason, detail: looked.detail });
  }
  return { secrets, missing };
}
