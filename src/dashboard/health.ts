/** What is wrong, and what comes next. Pure: what the first screen says is decided here. */
import type { Certificate, Listener, Overview, Readiness, Rotations, SdsStream, Token, TrustDomain } from '../admin/api-types.ts';
import { links } from './routes.ts';
import { briefly, duration, list, number, parseTime, plural, sentence } from './words.ts';

/** `red`: a person must act now. `amber`: a person should look. */
export type Level = 'red' | 'amber';

export interface Attention {
  /** Stays the same while the thing does. */
  readonly key: string;
  readonly level: Level;
  readonly what: string;
  readonly why: string;
  readonly todo: string;
  readonly link?: { readonly to: string; readonly text: string };
}

/** What is known; undefined what has not been answered yet. */
export interface Facts {
  readonly nowMs: number;
  readonly overview: Overview;
  readonly readiness: Readiness | undefined;
  readonly svids: readonly Certificate[] | undefined;
  readonly domains: readonly TrustDomain[] | undefined;
  readonly sds: readonly SdsStream[] | undefined;
  readonly tokens: readonly Token[] | undefined;
  readonly listeners: readonly Listener[] | undefined;
  readonly rotations: Rotations | undefined;
}

const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;
/** What was refused before is over. */
const REFUSED_LATELY_MS = 5 * MINUTE;
/** So long the Workload API may take at the start before somebody should look. */
const PATIENCE_MS = 30_000;
/** Renewal is due at half of its life, and Scute asks for it at two thirds. When so little is left, it will not come by itself. */
const URGENT_SHARE = 1 / 6;
const OVERDUE_SHARE = 1 / 3;
/** An authority must have a successor when a quarter of its life, or so much, is left. */
const SUCCESSOR_SHARE = 1 / 4;
const SUCCESSOR_MS = 14 * DAY;
const LAST_CALL_SHARE = 1 / 16;
const LAST_CALL_MS = DAY;

/** The worst first. */
export function attention(facts: Facts): readonly Attention[] {
  const found = [
    ...ofIdentity(facts),
    ...ofChecks(facts),
    ...ofTrust(facts),
    ...ofTokens(facts),
    ...ofSds(facts),
    ...ofConfiguration(facts),
  ];
  return [...found.filter(({ level }) => level === 'red'), ...found.filter(({ level }) => level === 'amber')];
}

function ofIdentity({ nowMs, overview, svids }: Facts): Attention[] {
  const { identity } = overview;
  if (identity.state === 'none')
    return [
      {
        key: 'identity',
        level: 'red',
        what: 'The Workload API gives this workload no identity.',
        why: `Scute accepts and opens no connections. ${sentence(identity.reason ?? '')}`.trim(),
        todo: 'Check the registration of this workload at the SPIFFE server, and the selectors that the agent sees.',
      },
    ];
  if (identity.state === 'waiting') {
    const waitedMs = nowMs - (parseTime(overview.startedAt) ?? nowMs);
    if (waitedMs < PATIENCE_MS) return [];
    return [
      {
        key: 'identity',
        level: 'red',
        what: `No SVID has arrived for ${duration(waitedMs)}.`,
        why: 'Scute accepts and opens no connections before it has one.',
        todo: 'Check that the SPIFFE agent runs, that its socket is the one in workloadApi.endpoint, and that this workload is registered.',
        link: { to: links.configuration, text: 'Configuration' },
      },
    ];
  }
  return (svids ?? []).flatMap((svid): Attention[] => {
    const share = shareLeft(svid, nowMs);
    const ends = parseTime(svid.notAfter);
    if (share === undefined || ends === undefined || share >= OVERDUE_SHARE) return ofFindings(svid);
    const of = svid.spiffeId ?? 'our SVID';
    const link = { to: links.certificate(svid.id), text: 'The SVID' };
    const todo = 'Check that the SPIFFE agent runs and can reach its server. Scute takes the next SVID as soon as the agent has it.';
    const used = usedBy(
      svid.listeners.map(({ name }) => name),
      svid.files,
    );
    if (ends <= nowMs)
      return [
        {
          key: svid.id,
          level: 'red',
          what: `The SVID of ${of} has expired, ${briefly(nowMs - ends)} ago.`,
          why: `${used} Peers refuse it, and Scute opens no connections with it.`,
          todo,
          link,
        },
      ];
    const isUrgent = share < URGENT_SHARE;
    return [
      {
        key: svid.id,
        level: isUrgent ? 'red' : 'amber',
        what: `The SVID of ${of} expires in ${duration(ends - nowMs)}, and its renewal is late.`,
        why: `${used} When it expires, peers refuse it.`,
        todo,
        link,
      },
    ];
  });
}

function usedBy(listeners: readonly string[], files: readonly string[]): string {
  if (listeners.length === 0 && files.length > 0) return `It is in the files of ${list(files)}.`;
  if (listeners.length === 0) return 'No listener presents it.';
  return listeners.length === 1 ? `The listener ${listeners[0]} presents it.` : `The listeners ${list(listeners)} present it.`;
}

function ofFindings(svid: Certificate): Attention[] {
  const refused = svid.findings.filter(({ verdict }) => verdict === 'refused');
  const [first] = refused;
  if (first === undefined) return [];
  return [
    {
      key: `finding ${svid.id}`,
      level: 'amber',
      what: `Other implementations may refuse the SVID of ${svid.spiffeId ?? 'this workload'}.`,
      why: `${sentence(first.problem)}${first.clause === null ? '' : ` (${first.clause})`}`,
      todo: 'Change the profile of the certificates that your SPIFFE server issues.',
      link: { to: links.certificate(svid.id), text: 'The SVID' },
    },
  ];
}

/** What a failing check means, for those that say it. The rest speaks by its detail. */
const CHECKS: Readonly<Record<string, { readonly what: string; readonly why: string; readonly todo: string; readonly level?: Level }>> = {
  application: {
    what: 'The application does not run.',
    why: 'This Scute is there for it.',
    todo: 'If it waits, mend what is not ready. If it ended, read its own output: Scute ends with its exit code.',
    level: 'red',
  },
  self_test: {
    what: 'The TLS self-test has not passed.',
    why: 'Scute must refuse a forged SVID before it accepts anybody.',
    todo: 'If this lasts for more than some seconds, restart Scute and read its log.',
  },
  listeners: { what: 'A listener is not bound.', why: 'Nobody can connect to it.', todo: 'Check that its address is free.' },
  identity: {
    what: 'A listener has no SVID to present.',
    why: 'It accepts connections and resets them.',
    todo: 'Check which identity the listener asks for, and which the Workload API gives.',
  },
  identity_valid: {
    what: 'The SVID of a listener is not valid.',
    why: 'It accepts connections and resets them.',
    todo: 'Check that the SPIFFE agent runs and renews, and that the clock of this machine is right.',
  },
  tokens: {
    what: 'There is no valid token for an outbound listener, or for a set of files.',
    why: 'Requests of the listener are answered with a 503, and the files stay as they were, until there is one.',
    todo: 'The reason says whether the agent or the token endpoint gives none.',
  },
  jwt_bundles: {
    what: 'No JWT bundles have arrived.',
    why: 'Requests with a token are answered 503.',
    todo: 'Check that the SPIFFE agent serves JWT bundles to this workload.',
  },
  federation: {
    what: 'A bundle endpoint could not be read.',
    why: 'The bundle that is held stays in force. When that domain rotates its authorities, its peers are refused.',
    todo: 'Check the endpoint and the way to it.',
  },
  revocations: {
    what: 'The deny list is missing or wrong.',
    why: 'The list before stays in force. What was added since is not denied.',
    todo: 'Mend the file. Scute reads it again by itself.',
  },
  sds_matchers: {
    what: 'A policy cannot be said in the matchers of Envoy.',
    why: 'The secret that needs them is withheld.',
    todo: 'Write the rule so that matchers can say it.',
  },
  application_exposure: {
    what: 'The application can be reached around Scute.',
    why: 'Whoever connects there needs no identity.',
    todo: 'Let the application listen on 127.0.0.1 alone.',
  },
  policy_enforced: {
    what: 'Audit admits callers that the policy would deny.',
    why: 'What is in audit is counted and logged, but not refused.',
    todo: 'Add rules for the callers that may connect, then enforce.',
  },
};

function ofChecks({ overview, readiness, tokens }: Facts): Attention[] {
  // Said better by the identity itself.
  const isToldAbove = overview.identity.state !== 'held';
  return (readiness?.checks ?? []).flatMap(({ name, ok, blocks, detail }): Attention[] => {
    if (ok || (isToldAbove && name.startsWith('identity'))) return [];
    // Said of each token below.
    if (name === 'tokens' && tokens !== undefined) return [];
    if (name === 'not_stopping')
      return [
        {
          key: name,
          level: 'amber',
          what: 'Scute is stopping.',
          why: 'Open connections finish. New ones are not accepted.',
          todo: 'Nothing, if somebody asked for it.',
        },
      ];
    const known = Object.hasOwn(CHECKS, name) ? CHECKS[name] : undefined;
    return [
      {
        key: name,
        level: known?.level ?? (blocks ? 'red' : 'amber'),
        what: known?.what ?? `The readiness check ${name} fails.`,
        why: [known?.why, sentence(detail ?? '')].filter((text) => text !== undefined && text !== '').join(' '),
        todo: known?.todo ?? 'Read the log of Scute.',
        ...(name === 'policy_enforced' ? { link: { to: links.policy, text: 'What audit admits' } } : {}),
        ...(name === 'federation' ? { link: { to: links.trust(), text: 'Trust domains' } } : {}),
      },
    ];
  });
}

function ofTrust({ nowMs, overview, domains }: Facts): Attention[] {
  if (overview.identity.state !== 'held') return [];
  return (domains ?? []).flatMap((domain): Attention[] => {
    const name = domain.trustDomain;
    const link = { to: links.trust(name), text: 'Its authorities' };
    const lastMs = parseTime(domain.lastExpiry);
    const from = domain.source === 'bundle_endpoint' ? 'its bundle endpoint' : "this machine's Workload API";
    if (domain.source === null || domain.authorities === 0)
      return [
        {
          key: `trust ${name}`,
          level: domain.isOwn ? 'red' : 'amber',
          what: `There is no authority of ${name}.`,
          why: `Every peer of ${name} is refused.`,
          todo: domain.source === null ? 'Check its bundle endpoint.' : `Check the bundle of ${name} at its source, ${from}.`,
          link,
        },
      ];
    if (lastMs === undefined) return [];
    const lifeMs = lastMs - (parseTime(domain.lastBegin) ?? -Infinity);
    const leftMs = lastMs - nowMs;
    if (leftMs >= Math.min(lifeMs * SUCCESSOR_SHARE, SUCCESSOR_MS)) return [];
    const isExpired = leftMs <= 0;
    const isLastCall = isExpired || leftMs < Math.min(lifeMs * LAST_CALL_SHARE, LAST_CALL_MS);
    const which = domain.authorities === 1 ? 'The authority' : 'The last authority';
    return [
      {
        key: `trust ${name}`,
        level: isLastCall ? 'red' : 'amber',
        what: isExpired
          ? `${which} of ${name} has expired, ${briefly(-leftMs)} ago.`
          : `${which} of ${name} expires in ${duration(leftMs)}, and no newer one has been announced.`,
        why: isExpired ? `Every peer of ${name} is refused.` : `When it expires, every peer of ${name} is refused.`,
        todo: `Ask the operators of ${name} to publish the next authority. Its bundle comes from ${from}.`,
        link,
      },
    ];
  });
}

/** What a token is without, and whose keys vouch for none. */
function ofTokens({ nowMs, overview, domains, tokens, listeners }: Facts): Attention[] {
  if (overview.identity.state !== 'held') return [];
  // Of a partner that signs no tokens there need be none.
  const withoutKeys = (domains ?? []).filter(({ jwtAuthorities, isOwn, notes }) => jwtAuthorities === 0 && (isOwn || notes.length > 0));
  return [
    ...(tokens ?? []).flatMap((token) => ofToken(token, nowMs)),
    ...withoutKeys.map(ofKeys),
    ...(listeners ?? []).flatMap((listener) => ofRefusedTokens(listener, nowMs)),
  ];
}

function ofRefusedTokens({ name, tokens }: Listener, nowMs: number): Attention[] {
  const lastMs = parseTime(tokens?.lastRefusedAt);
  if (tokens === null || lastMs === undefined || nowMs - lastMs > REFUSED_LATELY_MS) return [];
  const reasons = tokens.refused.slice(0, 3).map(({ reason, count }) => `${number(count)} × ${reason}`);
  return [
    {
      key: `refused tokens ${name}`,
      level: 'amber',
      what: `Requests to ${name} are refused for their tokens.`,
      why: `Since the start: ${list(reasons)}. The last one ${briefly(nowMs - lastMs)} ago.`,
      todo: 'Read the lines “request finished” in the log: they have the caller and what was wrong, and never the token.',
      link: { to: links.connections(name), text: 'Who is connected' },
    },
  ];
}

function ofToken({ source, listeners, files, expiresAt, nextFetchAt, problem }: Token, nowMs: number): Attention[] {
  if (problem === null) return [];
  // The first one is being fetched.
  if (problem.reason === 'identity_not_ready' && nextFetchAt === null) return [];
  const why = `${sentence(problem.detail)} (${problem.reason})`;
  const names = listeners.map(({ name }) => name);
  const told = (when: string): string =>
    [
      ...(names.length === 0 ? [] : [`The requests of ${list(names)} are answered with a 503${when}.`]),
      ...(files.length === 0 ? [] : [`The files of ${list(files)} stay as they were, with a token that is of no use${when}.`]),
    ].join(' ');
  const todo = 'The reason says whether the agent or the token endpoint gives none. Scute tries again by itself.';
  const endsMs = parseTime(expiresAt);
  const isHeld = endsMs !== undefined && endsMs > nowMs;
  return [
    {
      key: `token ${source}`,
      level: isHeld ? 'amber' : 'red',
      what: isHeld
        ? `The token ${source} expires in ${duration(endsMs - nowMs)}, and is not renewed.`
        : `There is no valid token ${source}.`,
      why: `${told(isHeld ? ' when it expires' : '')} ${why}`,
      todo,
    },
  ];
}

function ofKeys({ trustDomain, isOwn, notes }: TrustDomain): Attention {
  const [note] = notes;
  return {
    key: `keys ${trustDomain}`,
    level: isOwn ? 'red' : 'amber',
    what: `There is no key for tokens of ${trustDomain}.`,
    why: `Every token of ${trustDomain} is refused.${note === undefined ? '' : ` ${sentence(note)}`}`,
    todo: `Ask the operators of ${trustDomain} which keys its JWT bundle should have.`,
    link: { to: links.trust(trustDomain), text: 'Its authorities' },
  };
}

function ofSds({ sds }: Facts): Attention[] {
  const rejected = (sds ?? []).flatMap(({ node, subscriptions }) =>
    subscriptions.filter(({ status }) => status === 'rejected').map(({ name, detail }) => ({ node, name, detail })),
  );
  const [first] = rejected;
  if (first === undefined) return [];
  return [
    {
      key: 'sds',
      level: 'amber',
      what: `${plural(rejected.length, 'secret was', 'secrets were')} rejected over SDS.`,
      why: `The client uses the version before, until that expires. ${first.node === '' ? 'A client' : first.node} says of ${first.name}: ${first.detail ?? 'nothing'}`,
      todo: "Read the log of the client, and compare the secret's name with its configuration.",
      link: { to: links.envoy, text: 'SDS subscribers' },
    },
  ];
}

function ofConfiguration({ overview }: Facts): Attention[] {
  const { lastReload } = overview;
  if (lastReload === null) return [];
  const link = { to: links.configuration, text: 'Configuration' };
  if (!lastReload.ok)
    return [
      {
        key: 'reload',
        level: 'amber',
        what: 'The configuration file has a mistake.',
        why: `The configuration before stays in force. ${sentence(lastReload.problems[0] ?? '')}`,
        todo: 'Mend the file. Scute reads it again by itself.',
        link,
      },
    ];
  if (lastReload.needRestart.length === 0) return [];
  return [
    {
      key: 'restart',
      level: 'amber',
      what: 'A change of the configuration needs a restart.',
      why: `Not in force: ${list(lastReload.needRestart.slice(0, 5))}.`,
      todo: 'Restart Scute when it suits.',
      link,
    },
  ];
}

/** How much of its life is left now: 1 before, 0 after. Undefined where it has no end. */
export function shareLeft(certificate: Pick<Certificate, 'notBefore' | 'notAfter'>, nowMs: number): number | undefined {
  const [begin, end] = [parseTime(certificate.notBefore), parseTime(certificate.notAfter)];
  if (begin === undefined || end === undefined || end <= begin) return undefined;
  return Math.min(Math.max((end - nowMs) / (end - begin), 0), 1);
}

export interface Headline {
  readonly level: Level | 'well' | 'waiting';
  /** Whether all is well. It changes only when that does, so that it can be read aloud. */
  readonly sentence: string;
  /** When something happened last, and happens next. */
  readonly next: string;
}

/** The first sentence of the first screen. */
export function headline({ nowMs, overview, rotations }: Facts, found: readonly Attention[]): Headline {
  const [worst] = found;
  const reds = found.filter(({ level }) => level === 'red').length;
  const next = whatIsNext(nowMs, rotations);
  if (worst?.level === 'red')
    return { level: 'red', sentence: reds === 1 ? 'Act now: one thing is broken.' : `Act now: ${reds} things are broken.`, next };
  if (overview.identity.state === 'waiting')
    return { level: 'waiting', sentence: 'Waiting for the first SVID.', next: 'The Workload API has not answered yet. Connections wait.' };
  if (worst !== undefined)
    return {
      level: 'amber',
      sentence: `Every certificate works. ${found.length === 1 ? 'One thing' : `${found.length} things`} to look at.`,
      next,
    };
  return { level: 'well', sentence: 'All is well: every certificate is fresh.', next };
}

function whatIsNext(nowMs: number, rotations: Rotations | undefined): string {
  const last = rotations?.past.find(({ change }) => change === 'svid_rotated');
  const due = rotations?.due.find(({ what }) => what === 'svid_renewal');
  const lastMs = parseTime(last?.at);
  const dueMs = parseTime(due?.at);
  return [
    dueMs === undefined || dueMs <= nowMs ? '' : `Next rotation in about ${briefly(dueMs - nowMs)}.`,
    lastMs === undefined ? '' : `Last one ${briefly(nowMs - lastMs)} ago.`,
  ]
    .filter((text) => text !== '')
    .join(' ');
}
