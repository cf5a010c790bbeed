import type { JSX } from 'preact';
import type { Overview as OverviewAnswer } from '../../admin/api-types.ts';
import { Chain } from '../certificate.tsx';
import {
  useDomains,
  useLatestPeers,
  useLatestRefusals,
  useListeners,
  usePolicy,
  useReadiness,
  useRotations,
  useSds,
  useSvids,
  useTokens,
} from '../facts.ts';
import type { Attention, Headline } from '../health.ts';
import { useNow } from '../live.ts';
import { Facts, Loading, Nothing, Panel, Time, Unread } from '../parts.tsx';
import { Health } from '../shell.tsx';
import { links } from '../routes.ts';
import { Timeline } from '../timeline.tsx';
import { plural } from '../words.ts';
import { PeerTable } from './connections.tsx';
import { CheckList } from './configuration.tsx';
import { SubscriberTable } from './envoy.tsx';
import { ListenerTable, TokenTable } from './listeners.tsx';
import { PolicyTable } from './policy.tsx';
import { RefusalList } from './refusals.tsx';
import { DomainTable } from './trust.tsx';

const FEW = 5;

export function Overview({
  overview,
  found,
  head,
}: {
  overview: OverviewAnswer;
  found: readonly Attention[];
  head: Headline;
}): JSX.Element {
  return (
    <>
      <Health found={found} head={head} />
      <Identity overview={overview} />
      <When />
      <Trust />
      <Listeners />
      <Application overview={overview} />
      <Tokens />
      <Refusals />
      <Peers overview={overview} />
      <Sds />
      <Policy />
      <Checks />
    </>
  );
}

function Identity({ overview }: { readonly overview: OverviewAnswer }): JSX.Element {
  const { data, problem } = useSvids();
  const { state } = overview.identity;
  const items = data?.items ?? [];
  const [first, ...others] = items.toSorted(
    (one, other) => Number(other.id === overview.identity.certificate) - Number(one.id === overview.identity.certificate),
  );
  if (data === undefined && state === 'held')
    return <Panel title="Identity">{problem === undefined ? <Loading /> : <Unread problem={problem} />}</Panel>;
  if (first === undefined)
    return (
      <Panel title="Identity">
        <Nothing>
          {state === 'waiting' ? 'No SVID yet. This page shows it as soon as it comes.' : 'This workload holds no identity.'}
        </Nothing>
      </Panel>
    );
  return (
    <Panel
      title="Identity"
      about={others.length === 0 ? 'the default SVID, and what signed it' : `the default SVID; ${plural(others.length, 'other')} below`}
      more={{ to: links.certificates(), text: 'All certificates' }}
    >
      <Chain of={first} />
      {others.slice(0, FEW).map((svid) => (
        <Chain key={svid.id} of={svid} />
      ))}
    </Panel>
  );
}

function When(): JSX.Element | null {
  const { data } = useRotations();
  if (data === undefined || data.past.length + data.due.length === 0) return null;
  return (
    <Panel title="Time" about="what happened, what is due" more={{ to: links.time, text: 'As a list' }} span="two">
      <Timeline of={data} />
    </Panel>
  );
}

function Trust(): JSX.Element | null {
  const { data } = useDomains();
  if (data === undefined || data.items.length === 0) return null;
  return (
    <Panel title="Trust" about={plural(data.items.length, 'trust domain')} more={{ to: links.trust(), text: 'Authorities' }} span="third">
      <DomainTable items={data.items.slice(0, FEW)} isBrief />
    </Panel>
  );
}

function Listeners(): JSX.Element | null {
  const { data } = useListeners();
  if (data === undefined || data.items.length === 0) return null;
  return (
    <Panel title="Listeners">
      <ListenerTable items={data.items} />
    </Panel>
  );
}

function Refusals(): JSX.Element {
  const { data, problem } = useLatestRefusals();
  return (
    <Panel title="Refusals" about="the latest" more={{ to: links.refusals, text: 'All refusals' }} span="half">
      {data === undefined ? (
        problem === undefined ? (
          <Loading />
        ) : (
          <Unread problem={problem} />
        )
      ) : (
        <RefusalList items={data.items} most={FEW} />
      )}
    </Panel>
  );
}

function Peers({ overview }: { readonly overview: OverviewAnswer }): JSX.Element {
  const { data, problem } = useLatestPeers();
  return (
    <Panel
      title="Peers"
      about={plural(overview.connections, 'open connection')}
      more={{ to: links.connections(), text: 'All connections' }}
      span="half"
    >
      {data === undefined ? (
        problem === undefined ? (
          <Loading />
        ) : (
          <Unread problem={problem} />
        )
      ) : data.items.length === 0 ? (
        <Nothing>No peer is connected.</Nothing>
      ) : (
        <PeerTable items={data.items} isBrief />
      )}
    </Panel>
  );
}

const STATES = { waiting: 'waits to be started', running: 'runs', ended: 'ended' } as const;

function Application({ overview: { application } }: { readonly overview: OverviewAnswer }): JSX.Element | null {
  const now = useNow();
  if (application === null) return null;
  const { program, state, since, pid, result, exitCode } = application;
  return (
    <Panel title="Application" about={STATES[state]} span="half">
      <Facts
        of={[
          ['Program', <code>{program}</code>],
          ['Since', <Time at={since} now={now} />],
          ...(pid === null ? [] : [['Process', String(pid)] as const]),
          ...(result === null ? [] : [['Result', result] as const]),
          ...(exitCode === null ? [] : [['Exit code', String(exitCode)] as const]),
        ]}
      />
    </Panel>
  );
}

function Tokens(): JSX.Element | null {
  const now = useNow();
  const { data } = useTokens();
  if (data === undefined || data.items.length === 0) return null;
  return (
    <Panel title="Tokens" about={plural(data.items.length, 'token')}>
      <TokenTable items={data.items} now={now} />
    </Panel>
  );
}

function Sds(): JSX.Element | null {
  const { data } = useSds();
  if (data === undefined || data.address === null) return null;
  return (
    <Panel title="SDS" about={plural(data.items.length, 'subscriber')} more={{ to: links.envoy, text: 'All subscribers' }} span="half">
      {data.items.length === 0 ? (
        <Nothing>
          Served at <code>{data.address}</code>. No client is connected.
        </Nothing>
      ) : (
        <SubscriberTable items={data.items.slice(0, FEW)} isBrief />
      )}
    </Panel>
  );
}

function Policy(): JSX.Element | null {
  const { data } = usePolicy();
  const listeners = data?.listeners.filter(({ rules }) => rules.length > 0) ?? [];
  if (listeners.length === 0) return null;
  const rules = listeners.reduce((sum, each) => sum + each.rules.length + each.rules_omitted, 0);
  const inAudit = listeners.reduce((sum, each) => sum + each.audit_rules, 0);
  return (
    <Panel
      title="Policy"
      about={`${plural(rules, 'rule')}${inAudit === 0 ? '' : `, ${inAudit} in audit`}`}
      more={{ to: links.policy, text: 'Policy' }}
      span="half"
    >
      <PolicyTable listeners={listeners} most={FEW} />
    </Panel>
  );
}

function Checks(): JSX.Element | null {
  const { data } = useReadiness();
  if (data === undefined) return null;
  return (
    <Panel title="Checks" about={data.ready ? 'ready' : 'not ready'} more={{ to: links.configuration, text: 'Configuration' }} span="half">
      <CheckList checks={data.checks} />
    </Panel>
  );
}
