/** What Scute and go-spiffe say of the same tokens, and each of what the other issues. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Draws } from '../../fuzz/random.ts';
import { drawToken, FUZZ_BUNDLES, verdictOn } from '../../fuzz/tokens.ts';
import { runChild } from '../../support/child.ts';
import { scuteIn } from '../../support/command.ts';
import { startDevDomain } from '../../support/dev-domain.ts';
import { AUDIENCE } from '../../support/tokens/tokens.ts';
import { needs, part } from '../parts.ts';
import { runGo } from '../peers.ts';

const CASES = 6000;
const SEED = 1;

interface GoAnswer {
  readonly id?: string;
  readonly error?: string;
}

async function askGo(
  bundles: Readonly<Record<string, string>>,
  tokens: readonly string[],
): Promise<{ readonly answers: readonly GoAnswer[]; readonly began_ms: number }> {
  const documents = Object.fromEntries(Object.entries(bundles).map(([name, text]) => [name, JSON.parse(text) as unknown]));
  const input = `${[documents, ...tokens].map((line) => JSON.stringify(line)).join('\n')}\n`;
  const { stdout, stderr } = await runChild([part('go-spiffe'), 'validate', '-audience', AUDIENCE], { input });
  const said = JSON.parse(stdout) as { readonly answers: readonly GoAnswer[]; readonly began_ms: number };
  assert.equal(said.answers.length, tokens.length, `${stdout.slice(0, 500)} ${stderr.slice(0, 500)}`);
  return said;
}

/** What Scute refuses and go-spiffe takes, by Scute's reason: each on purpose, as CONTRIBUTING.md says. */
const STRICTER: ReadonlySet<string> = new Set([
  'token_header', // headers that the standard does not permit
  'token_malformed', // base64 that is not strict, claims that are there twice, text that is no UTF-8
  'token_expired', // half a minute of leeway, and not a whole one
  'token_not_yet_valid',
  'token_subject', // a trust domain is no workload
]);

test(`Scute takes no token that go-spiffe refuses, but for a missing kid (${CASES} tokens)`, needs('go-spiffe'), async () => {
  const nowMs = Date.now();
  const drawn = Array.from({ length: CASES }, (_, at) => drawToken(new Draws(SEED + at), nowMs));
  // At their time: their leeway is half a minute more than ours.
  const { answers: theirs, began_ms: atMs } = await askGo(
    FUZZ_BUNDLES,
    drawn.map(({ text }) => text),
  );
  const seen = { both: 0, withoutKeyId: 0, neither: 0 };
  const stricter = new Set<string>();
  for (const [at, { text, hasKeyId }] of drawn.entries()) {
    const ours = await verdictOn(text, atMs);
    const their = theirs[at] ?? {};
    if (ours === 'ok') {
      if (their.error === undefined) seen.both += 1;
      else {
        assert.ok(!hasKeyId && /token header missing key id/.test(their.error), `${text}: ${their.error}`);
        seen.withoutKeyId += 1;
      }
    } else if (their.error === undefined) {
      assert.ok(STRICTER.has(ours), `${text}: ${ours}`);
      stricter.add(ours);
    } else seen.neither += 1;
  }
  assert.ok(seen.both > CASES / 10 && seen.neither > CASES / 10 && seen.withoutKeyId > CASES / 100, JSON.stringify(seen));
  assert.deepEqual([...stricter].toSorted(), [...STRICTER].toSorted());
});

test(
  'scute jwt validates what go-spiffe fetched, and the embedded trust domain issues what go-spiffe takes',
  needs('go-spiffe'),
  async (t) => {
    const id = 'spiffe://example.org/web';
    const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { web: [id] } });
    const env = { SPIFFE_ENDPOINT_SOCKET: spiffe.endpoint('web') };

    const said = await runGo('fetch', '-socket', spiffe.endpoint('web'), '-audience', AUDIENCE);
    assert.ok(JSON.stringify(said).includes(id), JSON.stringify(said));

    const fetched = await scuteIn({ env }, 'jwt', 'fetch', '--audience', AUDIENCE);
    const domains = spiffe.answers('web').jwtBundles.get();
    assert.ok(domains?.kind === 'message');
    const bundles = Object.entries(domains.message.bundles).map(([name, jwks]) => [
      name.replace('spiffe://', ''),
      Buffer.from(jwks).toString(),
    ]);
    const { answers } = await askGo(Object.fromEntries(bundles) as Record<string, string>, [fetched.stdout.trim()]);
    assert.deepEqual(answers, [{ id }]);
  },
);
