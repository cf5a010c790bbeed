import type { JSX } from 'preact';
import type { SdsStream, SdsSubscription } from '../../admin/api-types.ts';
import { useSds } from '../facts.ts';
import { useNow, usePages } from '../live.ts';
import { type Column, Listed, Nothing, Panel, Table, Tag, Time, Words } from '../parts.tsx';
import { plural } from '../words.ts';

interface Line {
  readonly stream: SdsStream;
  readonly subscription: SdsSubscription;
}

function State({ of }: { readonly of: SdsSubscription }): JSX.Element {
  if (of.missing !== null) return <Tag>missing: {of.missing}</Tag>;
  if (of.status === 'rejected')
    return (
      <>
        <Tag tone="amber">rejected</Tag> {of.detail === null ? null : <Words>{of.detail}</Words>}
      </>
    );
  if (of.status === 'accepted') return <Tag tone="good">{of.current === false ? 'accepted, not the newest' : 'accepted'}</Tag>;
  return <Tag>{of.status === 'sent' ? 'sent, no answer yet' : 'nothing sent'}</Tag>;
}

const NODE: Column<Line> = {
  title: 'node',
  isTitle: true,
  cell: ({ stream: { node, connection } }) => (node === '' ? `connection ${connection}` : <Words>{node}</Words>),
};

export function SubscriberTable({
  items,
  isBrief = false,
}: {
  readonly items: readonly SdsStream[];
  readonly isBrief?: boolean;
}): JSX.Element {
  const lines = items.flatMap((stream) => stream.subscriptions.map((subscription) => ({ stream, subscription })));
  return (
    <Table<Line>
      caption="Subscribers"
      items={isBrief ? lines.slice(0, 6) : lines}
      keyOf={({ stream, subscription }) => `${stream.stream} ${subscription.name}`}
      columns={[
        ...(isBrief ? [NODE] : []),
        { title: 'secret', isTitle: !isBrief, cell: ({ subscription: { name } }) => <Words>{name}</Words> },
        { title: 'version', cell: ({ subscription: { version } }) => <code>{version === null ? '–' : `${version.slice(0, 8)}…`}</code> },
        { title: 'state', cell: ({ subscription }) => <State of={subscription} /> },
      ]}
    />
  );
}

export function Envoy(): JSX.Element {
  const now = useNow();
  const { data } = useSds();
  const streams = usePages<SdsStream>('sds', { limit: 50 }, ['sds', 'identity']);
  return (
    <>
      <h1 tabIndex={-1}>SDS subscribers</h1>
      {data?.address === null ? (
        <Nothing>SDS is not configured: there is no sds in the configuration.</Nothing>
      ) : (
        <Panel title="Streams" about={data === undefined ? undefined : `served at ${data.address}`}>
          <Listed of={streams} empty="No client is connected.">
            {(items) =>
              items.map((stream) => (
                <section key={stream.stream} class="stream" aria-label={`Stream ${stream.stream}`}>
                  <h3>
                    <Words>{stream.node === '' ? `Connection ${stream.connection}` : stream.node}</Words>
                  </h3>
                  <p class="soft">
                    {stream.userAgent === '' ? 'says nothing of itself' : <Words>{stream.userAgent}</Words>} · {stream.protocol}
                    {stream.aggregated ? ', aggregated' : ''} · {plural(stream.responses, 'response')} · opened{' '}
                    <Time at={stream.openedAt} now={now} />
                  </p>
                  <SubscriberTable items={[stream]} />
                  {stream.subscriptionsOmitted === 0 ? null : (
                    <p class="soft">{plural(stream.subscriptionsOmitted, 'more name')} not shown.</p>
                  )}
                </section>
              ))
            }
          </Listed>
        </Panel>
      )}
    </>
  );
}
