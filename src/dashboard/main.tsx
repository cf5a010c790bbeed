/** The dashboard: everything that `/api/v1/` says of one sidecar, for people. It reads, and changes nothing. */
import { render, type JSX } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import type { Overview as OverviewAnswer } from '../admin/api-types.ts';
import { useDomains, useListeners, useOverview, useReadiness, useRotations, useSds, useSvids, useTokens } from './facts.ts';
import { attention, headline, type Attention, type Headline } from './health.ts';
import { live, useLink, useNow } from './live.ts';
import { CertificateDetail, Certificates } from './pages/certificates.tsx';
import { Configuration } from './pages/configuration.tsx';
import { Connections, PeerPage } from './pages/connections.tsx';
import { Envoy } from './pages/envoy.tsx';
import { Overview } from './pages/overview.tsx';
import { Policy } from './pages/policy.tsx';
import { Refusals } from './pages/refusals.tsx';
import { TimePage } from './pages/time.tsx';
import { Trust } from './pages/trust.tsx';
import { Loading, SpiffeId, Unread } from './parts.tsx';
import { links, type Route } from './routes.ts';
import { Mark, skip, Theme, useHeadOf, useRoute } from './shell.tsx';
import { clock, duration, parseTime, plural } from './words.ts';

function App(): JSX.Element {
  const route = useRoute();
  const { data: overview, problem } = useOverview();
  useHeadOf(`${route.page}/${route.id ?? ''}`);
  if (overview === undefined)
    return (
      <main class="alone">
        <h1 tabIndex={-1}>Scute</h1>
        {problem === undefined ? <Loading /> : <Unread problem={problem} />}
      </main>
    );
  return <Known overview={overview} route={route} />;
}

function Known({ overview, route }: { readonly overview: OverviewAnswer; readonly route: Route }): JSX.Element {
  const now = useNow();
  const rotations = useRotations().data;
  const facts = {
    nowMs: now,
    overview,
    readiness: useReadiness().data,
    svids: useSvids().data?.items,
    domains: useDomains().data?.items,
    sds: useSds().data?.items,
    tokens: useTokens().data?.items,
    listeners: useListeners().data?.items,
    rotations,
  };
  const found = attention(facts);
  const head = headline(facts, found);
  const title = pageTitle(route);
  useEffect(() => {
    document.documentElement.dataset['level'] = head.level;
    document.title = `${head.level === 'red' ? '(!) ' : ''}${title === '' ? '' : `${title} · `}${overview.identity.spiffeId ?? 'Scute'}`;
  }, [head.level, title, overview.identity.spiffeId]);
  return (
    <>
      <a class="skip" href="#content" onClick={skip}>
        To the content
      </a>
      <Head overview={overview} found={found} head={head} now={now} />
      <Menu overview={overview} route={route} />
      <Lost now={now} />
      <Updated version={overview.version} />
      <main id="content">
        <Content overview={overview} route={route} found={found} head={head} />
      </main>
      {/* Read aloud when it changes: whether all is well, and never a countdown. */}
      <p class="hidden" role="status">
        {head.sentence} {found[0]?.level === 'red' ? found[0].key : ''}
      </p>
    </>
  );
}

function Head(props: {
  readonly overview: OverviewAnswer;
  readonly found: readonly Attention[];
  readonly head: Headline;
  readonly now: number;
}): JSX.Element {
  const { overview, found, head, now } = props;
  const started = parseTime(overview.startedAt);
  return (
    <header>
      <a class="mark" href={links.overview} aria-label="Overview">
        <Mark />
      </a>
      <p class="who">
        {overview.identity.spiffeId === null ? <span class="strong">Scute</span> : <SpiffeId id={overview.identity.spiffeId} />}
        <span class="soft">
          Scute {overview.version} {started === undefined ? '' : `· up ${duration(now - started)}`}
        </span>
      </p>
      <Pill found={found} head={head} />
      <Theme />
    </header>
  );
}

function Pill({ found, head }: { readonly found: readonly Attention[]; readonly head: Headline }): JSX.Element {
  const link = useLink();
  const reds = found.filter(({ level }) => level === 'red').length;
  if (link === 'lost') return <span class="pill quiet">not connected</span>;
  const text =
    head.level === 'red'
      ? `${plural(reds, 'thing')} to do now`
      : head.level === 'amber'
        ? `${plural(found.length, 'thing')} to look at`
        : head.level === 'waiting'
          ? 'waiting'
          : 'all is well';
  return (
    <a class={`pill ${head.level === 'well' ? 'good' : head.level === 'waiting' ? 'quiet' : head.level}`} href={links.overview}>
      {text}
    </a>
  );
}

function Menu({ overview, route }: { readonly overview: OverviewAnswer; readonly route: Route }): JSX.Element {
  const sds = useSds().data;
  const entries: readonly (readonly [string, string, string])[] = [
    ['', 'Overview', links.overview],
    ['certificates', 'Certificates', links.certificates()],
    ['trust', 'Trust', links.trust()],
    ['connections', 'Connections', links.connections()],
    ['refusals', 'Refusals', links.refusals],
    ...(overview.listeners === 0 ? [] : [['policy', 'Policy', links.policy] as const]),
    ...(sds === undefined || sds.address === null ? [] : [['envoy', 'SDS', links.envoy] as const]),
    ['time', 'Time', links.time],
    ['configuration', 'Configuration', links.configuration],
  ];
  const here = route.page === 'peers' ? 'connections' : route.page;
  return (
    <nav class="menu" aria-label="Pages">
      {entries.map(([page, text, to]) => (
        <a key={page} href={to} aria-current={page === here ? 'page' : undefined}>
          {text}
        </a>
      ))}
    </nav>
  );
}

/** The process, or the way to it, is gone; or too many pages listen. */
function Lost({ now }: { readonly now: number }): JSX.Element | null {
  const link = useLink();
  if (link === 'polling')
    return (
      <p class="lost quiet" role="status">
        As many pages listen as may. This one is refreshed every 5 s.
      </p>
    );
  if (link !== 'lost') return null;
  const heard = live.heardMs + live.offsetMs;
  return (
    <p class="lost" role="alert">
      <b>No connection to Scute since {clock(heard)} UTC.</b> What stands below is from then, {duration(now - heard)} ago. Check that the
      process runs, and that the port is still forwarded. This page connects again by itself.
    </p>
  );
}

/** The process was replaced by another version: this page is still that of the one before. */
function Updated({ version }: { readonly version: string }): JSX.Element | null {
  const [first] = useState(version);
  if (version === first) return null;
  return (
    <p class="lost quiet" role="status">
      Scute {version} answers now, and this page came from {first}.{' '}
      <button type="button" onClick={() => location.reload()}>
        Reload
      </button>
    </p>
  );
}

function pageTitle({ page, id }: Route): string {
  const names: Readonly<Record<string, string>> = {
    certificates: 'Certificates',
    trust: 'Trust',
    connections: 'Connections',
    refusals: 'Refusals',
    policy: 'Policy',
    envoy: 'SDS',
    time: 'Time',
    configuration: 'Configuration',
  };
  if (page === 'peers') return id ?? '';
  return Object.hasOwn(names, page) ? (names[page] ?? '') : '';
}

function Content(props: {
  readonly overview: OverviewAnswer;
  readonly route: Route;
  readonly found: readonly Attention[];
  readonly head: Headline;
}): JSX.Element {
  const { overview, route, found, head } = props;
  switch (route.page) {
    case '':
      return <Overview overview={overview} found={found} head={head} />;
    case 'certificates':
      return route.id === undefined ? <Certificates route={route} /> : <CertificateDetail key={route.id} id={route.id} />;
    case 'trust':
      return <Trust chosen={route.id} />;
    case 'connections':
      return <Connections route={route} />;
    case 'peers':
      return route.id === undefined ? <Connections route={route} /> : <PeerPage key={route.id} spiffeId={route.id} />;
    case 'refusals':
      return <Refusals />;
    case 'policy':
      return <Policy />;
    case 'envoy':
      return <Envoy />;
    case 'time':
      return <TimePage />;
    case 'configuration':
      return <Configuration overview={overview} />;
    default:
      return (
        <>
          <h1 tabIndex={-1}>There is no such page.</h1>
          <p>
            <a href={links.overview}>Overview</a>
          </p>
        </>
      );
  }
}

live.start();
const page = document.getElementById('page');
if (page !== null) {
  page.replaceChildren();
  render(<App />, page);
}
