/** The fleet: what `/api/v1/fleet/` says of every sidecar that a Prometheus scrapes, for people. It reads, and changes nothing. */
import { render, type JSX } from 'preact';
import { useEffect } from 'preact/hooks';
import type { FleetOverview } from '../../fleet/api-types.ts';
import type { Attention, Headline } from '../health.ts';
import { Unread } from '../parts.tsx';
import { apiPath, type Route } from '../routes.ts';
import { Mark, skip, Theme, useHeadOf, useRoute } from '../shell.tsx';
import { plural } from '../words.ts';
import { useAsked, useFleetNow } from './asked.ts';
import { fleetAttention, fleetHeadline } from './health.ts';
import { fleetLinks } from './links.ts';
import { CertificatesPage, GroupsPage, Overview, SidecarsPage, TrustPage } from './pages.tsx';

const PAGES: readonly (readonly [string, string, string])[] = [
  ['', 'Overview', fleetLinks.overview],
  ['certificates', 'Certificates', fleetLinks.certificates()],
  ['groups', 'Groups', fleetLinks.groups('trust_domain')],
  ['sidecars', 'Sidecars', fleetLinks.sidecars()],
  ['trust', 'Trust', fleetLinks.trust],
];

const ASKING: Headline = { level: 'waiting', sentence: 'Asking Prometheus …', next: '' };

function App(): JSX.Element {
  const route = useRoute();
  const { data: overview, problem } = useAsked<FleetOverview>(apiPath('fleet/overview'));
  const now = useFleetNow(overview?.now);
  // What is chosen makes another list, in which the link that was followed may not be.
  useHeadOf(`${route.page}?${route.query.toString()}`);
  if (overview === undefined && problem !== undefined)
    return (
      <main class="alone">
        <h1 tabIndex={-1}>Scute fleet</h1>
        <Unread problem={problem} />
      </main>
    );
  // The panels ask meanwhile.
  const found = overview === undefined ? [] : fleetAttention(overview);
  const head = overview === undefined ? ASKING : fleetHeadline(overview, found, now);
  return (
    <>
      <Titled route={route} head={head} />
      <a class="skip" href="#content" onClick={skip}>
        To the content
      </a>
      <Head overview={overview} found={found} head={head} />
      <nav class="menu" aria-label="Pages">
        {PAGES.map(([page, text, to]) => (
          <a key={page} href={to} aria-current={page === route.page ? 'page' : undefined}>
            {text}
          </a>
        ))}
      </nav>
      {problem === undefined ? null : (
        <p class="lost" role="alert">
          <b>{problem}.</b> What stands below is from before. This page asks again by itself.
        </p>
      )}
      <main id="content">
        <Content overview={overview} route={route} found={found} head={head} now={now} />
      </main>
      <p class="hidden" role="status">
        {head.sentence}
      </p>
    </>
  );
}

function Titled({ route, head }: { readonly route: Route; readonly head: Headline }): null {
  const [, title] = PAGES.find(([page]) => page === route.page && page !== '') ?? [];
  useEffect(() => {
    document.documentElement.dataset['level'] = head.level;
    document.title = `${head.level === 'red' ? '(!) ' : ''}${title === undefined ? '' : `${title} · `}Scute fleet`;
  }, [head.level, title]);
  return null;
}

function Head(props: {
  readonly overview: FleetOverview | undefined;
  readonly found: readonly Attention[];
  readonly head: Headline;
}): JSX.Element {
  const { overview, found, head } = props;
  return (
    <header>
      <a class="mark" href={fleetLinks.overview} aria-label="Overview">
        <Mark />
      </a>
      <p class="who">
        <span class="strong">Fleet</span>
        <span class="soft">as Prometheus knows it {overview === undefined ? null : <bdi>at {overview.prometheus}</bdi>}</span>
      </p>
      <a class={`pill ${head.level === 'well' ? 'good' : head.level === 'waiting' ? 'quiet' : head.level}`} href={fleetLinks.overview}>
        {found.length === 0 ? (head.level === 'waiting' ? 'waiting' : 'all is well') : `${plural(found.length, 'thing')} to look at`}
      </a>
      <Theme />
    </header>
  );
}

function Content(props: {
  readonly overview: FleetOverview | undefined;
  readonly route: Route;
  readonly found: readonly Attention[];
  readonly head: Headline;
  readonly now: number;
}): JSX.Element {
  const { overview, route, found, head, now } = props;
  switch (route.page) {
    case '':
      return <Overview overview={overview} found={found} head={head} now={now} />;
    case 'certificates':
      return <CertificatesPage route={route} now={now} />;
    case 'groups':
      return <GroupsPage route={route} now={now} />;
    case 'sidecars':
      return <SidecarsPage now={now} />;
    case 'trust':
      return <TrustPage now={now} />;
    default:
      return (
        <>
          <h1 tabIndex={-1}>There is no such page.</h1>
          <p>
            <a href={fleetLinks.overview}>Overview</a>
          </p>
        </>
      );
  }
}

const page = document.getElementById('page');
if (page !== null) {
  page.replaceChildren();
  render(<App />, page);
}
