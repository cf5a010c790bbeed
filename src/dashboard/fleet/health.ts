/** What of the fleet is wrong. Pure: what the first screen says is decided here. */
import type { FleetCounts, FleetOverview, FleetProblem, FleetProblemReason } from '../../fleet/api-types.ts';
import type { Attention, Headline } from '../health.ts';
import { briefly, number, parseTime, plural, sentence } from '../words.ts';
import { fleetLinks } from './links.ts';

/** What to do about a Prometheus that is not understood. */
const ADVICE: Readonly<Record<FleetProblemReason, string>> = {
  unreachable: 'Check that Prometheus runs, and that it is reached from where scute fleet runs.',
  tls_failed: 'Give the authorities that signed its certificate by --ca-file, and the name that stands in it in --prometheus.',
  timeout: 'Prometheus is too busy, or knows too much: look at its own page.',
  unauthorized: 'Give a token that may ask by --token-file.',
  redirected: 'Give the address that it leads to in --prometheus, if you trust it.',
  bad_status: 'Look at the log of Prometheus, or of the proxy before it.',
  too_large: 'Something else than Prometheus listens there, or a proxy changes what it says.',
  too_many_series: 'Something else than Prometheus listens there, or a proxy changes what it says.',
  not_json: 'Give the address of Prometheus itself in --prometheus, with its path if it has one.',
  not_prometheus: 'Give the address of Prometheus itself in --prometheus, with its path if it has one.',
  refused_query: 'Raise the limit that it names, as query.max-samples.',
  bad_file: 'Mend the file. It is read again each time.',
  busy: 'Wait: this page asks again by itself.',
};

export function fleetAttention(overview: FleetOverview): readonly Attention[] {
  const found: Attention[] = [];
  const problem = problemOf(overview);
  if (problem !== null)
    found.push({
      key: 'Prometheus',
      level: 'red',
      what: overview.counts.problem === null ? 'Prometheus did not answer every question.' : 'Prometheus tells nothing of the fleet.',
      why: `${sentence(problem.detail)} What is not known cannot be watched.`,
      todo: ADVICE[problem.reason],
    });
  const counts = overview.counts.value;
  if (counts === null) return found;
  if (counts.expired > 0)
    found.push({
      key: 'expired',
      level: 'red',
      what: `${plural(counts.expired, 'certificate has', 'certificates have')} expired.`,
      why: 'Their workloads reach nobody, and nobody reaches them.',
      todo: 'Look at the SPIFFE agents of the nodes where they are.',
      link: { to: fleetLinks.certificates(), text: 'The first to expire' },
    });
  const late = counts.stuck - counts.expired;
  if (late > 0)
    found.push({
      key: 'stuck',
      level: 'amber',
      what: `${plural(late, 'certificate is', 'certificates are')} past three quarters of ${late === 1 ? 'its' : 'their'} life and not rotated.`,
      why: 'Rotation is due at half of it. What holds it back will let them expire.',
      todo: 'See what they have in common: a node, an issuer, a cluster.',
      link: { to: fleetLinks.certificates({ stuck: 'true' }), text: 'Stuck rotations' },
    });
  if (counts.lagging > 0)
    found.push({
      key: 'lagging',
      level: 'amber',
      what: `${plural(counts.lagging, 'sidecar trusts', 'sidecars trust')} only an old root.`,
      why: 'They refuse whoever is signed by the newest authority of that trust domain.',
      todo: 'Let the new root sign, and the old one go, only when it has come everywhere.',
      link: { to: fleetLinks.trust, text: 'Who they are' },
    });
  if (counts.notReady > 0)
    found.push({
      key: 'not ready',
      level: 'amber',
      what: `${plural(counts.notReady, 'sidecar is', 'sidecars are')} not ready.`,
      why: 'They get no traffic while a check fails.',
      todo: 'Each names the checks that fail.',
      link: { to: fleetLinks.sidecars(), text: 'Sidecars' },
    });
  if (counts.disconnected > 0)
    found.push({
      key: 'disconnected',
      level: 'amber',
      what: `${plural(counts.disconnected, 'sidecar has', 'sidecars have')} no agent.`,
      why: 'Without the Workload API nothing is rotated: what they hold lasts until it expires.',
      todo: 'Look at the SPIFFE agents of their nodes.',
      link: { to: fleetLinks.sidecars(), text: 'Sidecars' },
    });
  if (counts.unreachable > 0)
    found.push({
      key: 'unreachable',
      level: 'amber',
      what: `${plural(counts.unreachable, 'sidecar')} could not be scraped.`,
      why: 'Of them nothing is known, and their certificates are not counted here.',
      todo: 'If they were stopped, remove them from the targets of Prometheus.',
      link: { to: fleetLinks.sidecars(), text: 'Which they are' },
    });
  return found;
}

export function fleetHeadline(overview: FleetOverview, found: readonly Attention[], nowMs: number): Headline {
  const counts = overview.counts.value;
  const level = found.some((each) => each.level === 'red') ? 'red' : found.length > 0 ? 'amber' : 'well';
  if (counts === null) return { level, sentence: 'Nothing is known of the fleet.', next: '' };
  if (counts.sidecars === 0)
    return {
      level: level === 'well' ? 'waiting' : level,
      sentence: 'Prometheus knows no sidecar.',
      next: 'See deploy/prometheus for how it scrapes them.',
    };
  return { level, sentence: sentenceOf(counts, level), next: nextOf(overview, nowMs) };
}

function sentenceOf(counts: FleetCounts, level: Headline['level']): string {
  const all = `${plural(counts.certificates, 'certificate')} of ${plural(counts.sidecars, 'sidecar')}`;
  if (level === 'red') return `${all}: act now.`;
  return level === 'well' ? `All is well with ${all}.` : `${all}: something to look at.`;
}

function nextOf({ firstExpiry, counts }: FleetOverview, nowMs: number): string {
  const first = parseTime(firstExpiry.value);
  const expired = counts.value?.expired ?? 0;
  if (first === undefined) return '';
  return expired > 0
    ? `${number(expired)} expired, the first ${briefly(nowMs - first)} ago.`
    : `The first expires in ${briefly(first - nowMs)}, unless it is rotated.`;
}

function problemOf({ counts, firstExpiry, remainingLife, versions }: FleetOverview): FleetProblem | null {
  return counts.problem ?? firstExpiry.problem ?? remainingLife.problem ?? versions.problem;
}
