import type { JSX } from 'preact';
import type {
  Dimension,
  FleetAuthority,
  FleetCertificate,
  FleetGroup,
  FleetLagging,
  FleetOverview,
  FleetSidecar,
  FleetUnreachable,
  Part,
} from '../../fleet/api-types.ts';
import type { Attention, Headline } from '../health.ts';
import { Choices, Loading, Nothing, Panel, Search, Table, Tag, Unread } from '../parts.tsx';
import type { Route } from '../routes.ts';
import { Health } from '../shell.tsx';
import { number, plural } from '../words.ts';
import { useFleetPages } from './asked.ts';
import { FILTER_NAMES, FILTERS, fleetLinks, type Chosen } from './links.ts';
import { AuthorityTable, CertificateTable, FleetList, Key, Left, Name, Where } from './parts.tsx';

const FEW = 10;
const MANY = 50;

interface Props {
  readonly now: number;
}

export function Overview(
  props: Props & { readonly overview: FleetOverview | undefined; readonly found: readonly Attention[]; readonly head: Headline },
): JSX.Element {
  const { overview, found, head, now } = props;
  const counts = overview?.counts.value ?? null;
  return (
    <>
      <Health found={found} head={head} />
      <Soonest now={now} />
      <Remaining of={overview?.remainingLife} />
      <Versions of={overview?.versions} />
      <Panel
        title="Trust domains"
        about="soonest to expire first"
        more={{ to: fleetLinks.groups('trust_domain'), text: 'Other groups' }}
        span="half"
      >
        <Groups by="trust_domain" now={now} few={FEW} />
      </Panel>
      <Panel title="Authorities" about="wherever they are trusted" more={{ to: fleetLinks.trust, text: 'All authorities' }} span="half">
        <Authorities now={now} few={FEW} />
      </Panel>
      {counts === null || counts.stuck <= counts.expired ? null : (
        <Panel
          title="Stuck rotations"
          about={plural(counts.stuck, 'certificate')}
          more={{ to: fleetLinks.certificates({ stuck: 'true' }), text: 'All of them' }}
        >
          <Certificates chosen={{ stuck: 'true' }} now={now} few={FEW} />
        </Panel>
      )}
    </>
  );
}

function Soonest({ now }: Props): JSX.Element {
  return (
    <Panel title="Certificates" about="soonest to expire first" more={{ to: fleetLinks.certificates(), text: 'All certificates' }}>
      <Certificates chosen={{}} now={now} few={FEW} />
    </Panel>
  );
}

function Certificates({ chosen, now, few }: Props & { readonly chosen: Chosen; readonly few?: number }): JSX.Element {
  const pages = useFleetPages<FleetCertificate>('certificates', { ...chosen, limit: few ?? MANY });
  return (
    <FleetList name="Certificates" of={pages} empty="There is none." few={few}>
      {(items) => <CertificateTable items={items} now={now} />}
    </FleetList>
  );
}

/** How many have how much of their life left. A healthy fleet has nothing below the half at which it is renewed. */
function Remaining({ of }: { readonly of: FleetOverview['remainingLife'] | undefined }): JSX.Element {
  const most = Math.max(1, ...(of?.value ?? []).map(({ certificates }) => certificates));
  return (
    <Panel title="Remaining life" about="certificates by the share of their life that is left" span="two">
      <Known of={of}>
        {(value) => (
          <ol class="bars">
            {value.map(({ tenth, certificates }) => (
              <li key={tenth}>
                <span>{tenth === 'expired' ? 'expired' : `${tenth * 10} to ${tenth * 10 + 10} %`}</span>
                <span class={`bar ${tenth === 'expired' ? 'red' : tenth < 2 ? 'amber' : ''}`} aria-hidden="true">
                  <i style={{ width: `${(certificates / most) * 100}%` }} />
                </span>
                <span class="n">{number(certificates)}</span>
              </li>
            ))}
          </ol>
        )}
      </Known>
    </Panel>
  );
}

function Versions({ of }: { readonly of: FleetOverview['versions'] | undefined }): JSX.Element {
  return (
    <Panel title="Versions" about="of Scute" span="third">
      <Known of={of}>
        {(value) =>
          value.length === 0 ? (
            <Nothing>None is known.</Nothing>
          ) : (
            <Table
              caption="Versions"
              items={value}
              keyOf={({ version }) => version}
              columns={[
                { title: 'version', isTitle: true, cell: ({ version }) => <bdi>{version}</bdi> },
                { title: 'sidecars', isNumber: true, cell: ({ sidecars }) => number(sidecars) },
              ]}
            />
          )
        }
      </Known>
    </Panel>
  );
}

/** A part of the overview: while it comes, and when it did not. */
function Known<T>({ of, children }: { readonly of: Part<T> | undefined; readonly children: (value: T) => JSX.Element }): JSX.Element {
  if (of === undefined) return <Loading />;
  return of.value === null ? <Unread problem={of.problem?.detail ?? ''} /> : children(of.value);
}

const DIMENSIONS: readonly (readonly [Dimension, string, keyof Chosen])[] = [
  ['trust_domain', 'Trust domains', 'trustDomain'],
  ['issuer', 'Issuers', 'issuer'],
  ['workload', 'Workloads', 'spiffeId'],
  ['cluster', 'Clusters', 'cluster'],
  ['namespace', 'Namespaces', 'namespace'],
  ['node', 'Nodes', 'node'],
];

function Groups({ by, now, few }: Props & { readonly by: Dimension; readonly few?: number }): JSX.Element {
  const pages = useFleetPages<FleetGroup>('groups', { by, limit: few ?? MANY });
  const filter = DIMENSIONS.find(([name]) => name === by)?.[2] ?? 'trustDomain';
  return (
    <FleetList name="Groups" of={pages} empty="There is none." few={few}>
      {(items) => (
        <Table<FleetGroup>
          caption="Groups"
          items={items}
          keyOf={({ name }) => name}
          columns={[
            {
              title: 'name',
              isTitle: true,
              cell: ({ name }) =>
                by === 'issuer' ? <Key id={name} /> : <Name of={name} to={fleetLinks.certificates({ [filter]: name })} isCode />,
            },
            { title: 'certificates', isNumber: true, cell: ({ certificates }) => number(certificates) },
            { title: 'stuck', isNumber: true, cell: ({ stuck }) => (stuck === 0 ? '–' : <Tag tone="amber">{number(stuck)}</Tag>) },
            { title: 'first ends', isNumber: true, cell: ({ firstExpiry }) => <Left end={firstExpiry} now={now} /> },
          ]}
        />
      )}
    </FleetList>
  );
}

export function GroupsPage({ route, now }: Props & { readonly route: Route }): JSX.Element {
  const asked = route.query.get('by');
  const [by, title] = DIMENSIONS.find(([name]) => name === asked) ?? ['trust_domain' as const, 'Trust domains'];
  return (
    <>
      <h1 tabIndex={-1}>{title}</h1>
      <Panel title="Certificates by what they have in common" about="the first to expire first">
        <div class="tools">
          <Choices label="By" choices={DIMENSIONS.map(([name, text]) => ({ text, to: fleetLinks.groups(name), isChosen: name === by }))} />
        </div>
        <Groups by={by} now={now} />
      </Panel>
    </>
  );
}

export function CertificatesPage({ route, now }: Props & { readonly route: Route }): JSX.Element {
  const chosen: Record<string, string> = {};
  for (const name of [...FILTER_NAMES, 'stuck'] as const) {
    const value = route.query.get(name);
    if (value !== null) chosen[name] = value;
  }
  const { stuck, ...others } = chosen;
  const isStuck = stuck === 'true';
  return (
    <>
      <h1 tabIndex={-1}>{isStuck ? 'Stuck rotations' : 'Certificates'}</h1>
      <Panel title="Certificates held" about={isStuck ? 'past three quarters of their life, and not rotated' : 'soonest to expire first'}>
        <div class="tools">
          <Choices
            label="Which"
            choices={[
              { text: 'All', to: fleetLinks.certificates(others), isChosen: !isStuck },
              { text: 'Stuck', to: fleetLinks.certificates({ ...others, stuck: 'true' }), isChosen: isStuck },
            ]}
          />
          <Search
            label="SPIFFE ID, whole"
            value={chosen['spiffeId'] ?? ''}
            onChange={(text) => {
              const { spiffeId: _, ...rest } = chosen;
              location.hash = fleetLinks.certificates(text === '' ? rest : { ...rest, spiffeId: text });
            }}
          />
        </div>
        {Object.keys(others).length === 0 ? null : (
          <ul class="chosen" aria-label="Only those with">
            {FILTER_NAMES.filter((name) => others[name] !== undefined).map((name) => {
              const { [name]: value = '', ...rest } = chosen;
              return (
                <li key={name}>
                  {FILTERS[name]} <bdi class="mono">{value === '' ? 'none' : value}</bdi>{' '}
                  <a href={fleetLinks.certificates(rest)}>any {FILTERS[name]}</a>
                </li>
              );
            })}
          </ul>
        )}
        <Certificates chosen={chosen} now={now} />
      </Panel>
    </>
  );
}

export function SidecarsPage({ now }: Props): JSX.Element {
  const sidecars = useFleetPages<FleetSidecar>('sidecars', { limit: MANY });
  const unreachable = useFleetPages<FleetUnreachable>('unreachable', { limit: MANY });
  return (
    <>
      <h1 tabIndex={-1}>Sidecars</h1>
      {(unreachable.data?.items.length ?? 0) === 0 ? null : (
        <Panel title="Not scraped" about="nothing is known of them">
          <FleetList name="Not scraped" of={unreachable} empty="">
            {(items) => (
              <Table<FleetUnreachable>
                caption="Not scraped"
                items={items}
                keyOf={({ sidecar }) => JSON.stringify(sidecar)}
                columns={[
                  { title: 'sidecar', isTitle: true, cell: ({ sidecar }) => <Where of={sidecar} /> },
                  { title: 'job', cell: ({ sidecar }) => <bdi>{sidecar.job}</bdi> },
                ]}
              />
            )}
          </FleetList>
        </Panel>
      )}
      <Panel title="Scraped" about="those without a certificate first, then as the first of theirs expires">
        <FleetList name="Sidecars" of={sidecars} empty="Prometheus knows no sidecar.">
          {(items) => (
            <Table<FleetSidecar>
              caption="Sidecars"
              items={items}
              keyOf={({ sidecar }) => JSON.stringify(sidecar)}
              columns={[
                { title: 'sidecar', isTitle: true, cell: ({ sidecar }) => <Where of={sidecar} /> },
                { title: 'version', cell: ({ version }) => <bdi>{version ?? 'unknown'}</bdi> },
                { title: 'state', cell: (sidecar) => <State of={sidecar} /> },
                { title: 'certificates', isNumber: true, cell: ({ certificates }) => number(certificates) },
                { title: 'first ends', isNumber: true, cell: ({ firstExpiry }) => <Left end={firstExpiry} now={now} /> },
              ]}
            />
          )}
        </FleetList>
        <p class="soft">
          Each has a dashboard of its own on its admin listener, which is reached from its own machine or pod alone: <code>ssh -L</code> or{' '}
          <code>kubectl port-forward</code>.
        </p>
      </Panel>
    </>
  );
}

function State({ of: { failing, connected } }: { readonly of: FleetSidecar }): JSX.Element {
  if (failing.length === 0 && connected !== false) return <Tag tone="good">ready</Tag>;
  return (
    <>
      {failing.map((check) => (
        <span key={check}>
          <Tag tone="amber">{check}</Tag>{' '}
        </span>
      ))}
      {connected === false ? <Tag tone="amber">no agent</Tag> : null}
    </>
  );
}

function Authorities({ now, few }: Props & { readonly few?: number }): JSX.Element {
  const pages = useFleetPages<FleetAuthority>('authorities', { limit: few ?? MANY });
  return (
    <FleetList name="Authorities" of={pages} empty="No authority is known." few={few}>
      {(items) => <AuthorityTable items={items} now={now} />}
    </FleetList>
  );
}

export function TrustPage({ now }: Props): JSX.Element {
  const lagging = useFleetPages<FleetLagging>('lagging', { limit: MANY });
  return (
    <>
      <h1 tabIndex={-1}>Trust</h1>
      <Panel title="Who trusts only an old root" about="the newest authority of that trust domain has not come to them">
        <FleetList name="Old roots" of={lagging} empty="Nobody: the newest authority of each trust domain is everywhere.">
          {(items) => (
            <Table<FleetLagging>
              caption="Who trusts only an old root"
              items={items}
              keyOf={({ sidecar, trustDomain }) => JSON.stringify([sidecar, trustDomain])}
              columns={[
                { title: 'sidecar', isTitle: true, cell: ({ sidecar }) => <Where of={sidecar} /> },
                {
                  title: 'trust domain',
                  cell: ({ trustDomain }) => <Name of={trustDomain} to={fleetLinks.certificates({ trustDomain })} isCode />,
                },
                { title: 'the last it trusts ends', isNumber: true, cell: ({ lastExpiry }) => <Left end={lastExpiry} now={now} /> },
              ]}
            />
          )}
        </FleetList>
      </Panel>
      <Panel title="Authorities" about="soonest to expire first">
        <Authorities now={now} />
      </Panel>
    </>
  );
}
