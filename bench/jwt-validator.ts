/** Scute's validator inside `--work jwt`, in a process of its own. Started by jwt.ts. */
import { readFileSync } from 'node:fs';
import { verifyToken } from '../src/jwt/verify.ts';
import { parseJwtBundle } from '../src/spiffe/jwt-bundle.ts';
import { parseTrustDomain } from '../src/spiffe/trust-domain.ts';

/** What it has to verify; each token is verified once before it counts. */
export interface ToValidate {
  readonly trustDomain: string;
  readonly jwks: string;
  readonly tokenFile: string;
  readonly audience: string;
  readonly subject: string;
}

/** As many as connections bring at once. */
const AT_ONCE = 16;

process.on('message', (ask: ToValidate) => {
  void validate(ask).then((cpuUs) => process.send?.({ cpuUs }));
});
process.once('disconnect', () => process.exit());

/** Microseconds of CPU time, of all threads. */
async function validate({ trustDomain, jwks, tokenFile, audience, subject }: ToValidate): Promise<number> {
  const domain = parseTrustDomain(trustDomain);
  if (!domain.ok) throw new Error(domain.error);
  const bundle = parseJwtBundle(domain.value, Buffer.from(jwks));
  if (!bundle.ok) throw new Error(JSON.stringify(bundle.error));
  const bundles = new Map([[bundle.value.trustDomain, bundle.value]]);
  const tokens = readFileSync(tokenFile, 'utf8').trim().split('\n');
  const one = async (token: string): Promise<void> => {
    const verified = await verifyToken(token, { audiences: [audience], nowMs: Date.now() }, bundles);
    if (!verified.ok || verified.value.subject !== subject) throw new Error('a good token was refused');
  };
  const all = async (): Promise<void> => {
    for (let at = 0; at < tokens.length; at += AT_ONCE) await Promise.all(tokens.slice(at, at + AT_ONCE).map(one));
  };
  await all();
  const before = process.cpuUsage();
  await all();
  const { user, system } = process.cpuUsage(before);
  return user + system;
}
