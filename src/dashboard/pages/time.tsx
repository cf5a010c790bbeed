import type { JSX } from 'preact';
import type { Due, Rotation } from '../../admin/api-types.ts';
import { useRotations } from '../facts.ts';
import { useNow } from '../live.ts';
import { Loading, Nothing, Panel, SpiffeId, Table, Time, Unread } from '../parts.tsx';
import { links } from '../routes.ts';
import { changeName, dueName, Timeline } from '../timeline.tsx';
import { moment } from '../words.ts';

function Of({ spiffeId, trustDomain }: { readonly spiffeId: string | null; readonly trustDomain: string | null }): JSX.Element {
  if (spiffeId !== null) return <SpiffeId id={spiffeId} />;
  if (trustDomain === null) return <span class="soft">–</span>;
  return (
    <a class="id" href={links.trust(trustDomain)}>
      {trustDomain}
    </a>
  );
}

function Which({ id }: { readonly id: string | null }): JSX.Element {
  return id === null ? <span class="soft">–</span> : <a href={links.certificate(id)}>certificate</a>;
}

/** The timeline as lists. */
export function TimePage(): JSX.Element {
  const now = useNow();
  const { data, problem } = useRotations();
  if (data === undefined)
    return (
      <>
        <h1 tabIndex={-1}>Time</h1>
        {problem === undefined ? <Loading /> : <Unread problem={problem} />}
      </>
    );
  return (
    <>
      <h1 tabIndex={-1}>Time</h1>
      <Panel title="Timeline">
        <Timeline of={data} />
      </Panel>
      <Panel title="What is due" about="if nothing comes before" span="half">
        {data.due.length === 0 ? (
          <Nothing>Nothing is known to come.</Nothing>
        ) : (
          <Table<Due>
            caption="What is due"
            items={data.due}
            keyOf={({ what, certificate, trustDomain }) => `${what} ${certificate ?? ''} ${trustDomain ?? ''}`}
            columns={[
              { title: 'what', isTitle: true, cell: ({ what }) => dueName(what) },
              { title: 'of', cell: (due) => <Of {...due} /> },
              { title: 'which', cell: ({ certificate }) => <Which id={certificate} /> },
              { title: 'when', isNumber: true, cell: ({ at }) => <Time at={at} now={now} /> },
            ]}
          />
        )}
      </Panel>
      <Panel title="What happened" about="the last 128 changes" span="half">
        {data.past.length === 0 ? (
          <Nothing>Nothing has changed yet.</Nothing>
        ) : (
          <Table<Rotation>
            caption="What happened"
            items={data.past}
            keyOf={({ at, change, certificate, replaced }) => `${at} ${change} ${certificate ?? ''} ${replaced ?? ''}`}
            columns={[
              { title: 'what', isTitle: true, cell: ({ change, at }) => <span title={moment(at)}>{changeName(change)}</span> },
              { title: 'of', cell: (rotation) => <Of {...rotation} /> },
              { title: 'which', cell: ({ certificate }) => <Which id={certificate} /> },
              { title: 'when', isNumber: true, cell: ({ at }) => <Time at={at} now={now} /> },
            ]}
          />
        )}
      </Panel>
    </>
  );
}
