/** `--work rules`: what rules for requests cost. Scute stands beside itself. */
import { metricsSocket, scuteWith } from './peers/scute.ts';
import { compare } from './report.ts';
import { runWork } from './run-work.ts';
import type { Beside, BesideItself } from './overhead.ts';
import type { Work } from './work.ts';
import { HTTP1, rates, REQUESTS } from './works.ts';

/** Of what comes through with a rule that only names the peer. */
const LEAST_RATIO = 0.95;
const RULES = 1000;

export const RULES_WORK = {
  name: 'rules',
  what: `http1 with ${RULES} rules of methods and paths for the peer, the last of which allows it, beside Scute with one that only names the peer`,
} as const;

const LINE = { ...REQUESTS, variant: '' };

/** In each round with and without, in turns. */
export async function runRules({ rounds, load, certificates, version, signal }: BesideItself): Promise<readonly Beside[]> {
  const lookedAtBy = (directory: string): object => ({ metrics: { listen: `unix://${metricsSocket(directory)}` } });
  const ruled = scuteWith('scute', lookedAtBy, (peer) => [
    ...Array.from({ length: RULES - 1 }, (_, index) => ({ peer, methods: ['GET', 'HEAD'], paths: [`/service${index}/*/items`] })),
    { peer, methods: ['GET'], paths: ['/api/*/orders/*'] },
  ]);
  const without = scuteWith('without', lookedAtBy);
  const work: Work = {
    ...RULES_WORK,
    ...HTTP1,
    lines: [LINE],
    keep: true,
    measure: (subject) => rates(subject, [{ connections: 64 }]),
  };
  const measured = await runWork(work, { peers: [ruled, without], rounds, load, certificates, signal });
  const named = (name: string) => ({ name, version, notes: {} });
  return measured
    .flatMap((line) => compare(line, named('scute'), [named('without')]))
    .map((row) => ({
      row,
      problem:
        row.ratio < LEAST_RATIO
          ? `${RULES_WORK.name}: ${row.ratio} of what comes through without, and ${LEAST_RATIO} is the least`
          : undefined,
    }));
}
