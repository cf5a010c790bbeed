import type { JSX } from 'preact';
import type { Certificate, Connection, Peer, Refusal } from '../../admin/api-types.ts';
import { CertificateCard } from '../certificate.tsx';
import { useListeners } from '../facts.ts';
import { useNow, usePages } from '../live.ts';
import { Choices, Listed, Panel, Search, SpiffeId, Table, Tag, Time, Words } from '../parts.tsx';
import { links, type Route } from '../routes.ts';
import { briefly, bytes, number, parseTime } from '../words.ts';
import { RefusalList } from './refusals.tsx';

export function PeerTable({ items, isBrief = false }: { readonly items: readonly Peer[]; readonly isBrief?: boolean }): JSX.Element {
  const now = useNow();
  return (
    <Table<Peer>
      caption="Peers"
      items={items}
      keyOf={({ spiffeId }) => spiffeId}
      columns={[
        {
          title: 'SPIFFE ID',
          isTitle: true,
          cell: ({ spiffeId, audited }) => (
            <>
              <SpiffeId id={spiffeId} /> {audited === 0 ? null : <Tag tone="amber">audit</Tag>}
            </>
          ),
        },
        ...(isBrief
          ? []
          : [
              { title: 'listener', cell: ({ listeners }: Peer) => listeners.map(({ name }) => name).join(', ') },
              { title: 'rule', cell: ({ rules }: Peer) => <Rules of={rules} /> },
            ]),
        { title: 'open', isNumber: true, cell: ({ connections }) => number(connections) },
        ...(isBrief
          ? []
          : [
              { title: 'in', isNumber: true, cell: ({ bytesFromDownstream }: Peer) => bytes(bytesFromDownstream) },
              { title: 'out', isNumber: true, cell: ({ bytesToDownstream }: Peer) => bytes(bytesToDownstream) },
            ]),
        {
          title: 'their SVID ends',
          isNumber: true,
          cell: ({ certificate, notAfter }) => {
            const end = parseTime(notAfter);
            return <a href={links.certificate(certificate)}>{end === undefined ? '–' : end <= now ? 'expired' : briefly(end - now)}</a>;
          },
        },
      ]}
    />
  );
}

function Rules({ of }: { readonly of: readonly string[] }): JSX.Element {
  return of.length === 0 ? (
    <span class="soft">decided by request</span>
  ) : (
    <>
      {of.slice(0, 3).map((rule) => (
        <code key={rule} class="rule">
          {rule}
        </code>
      ))}
      {of.length > 3 ? <span class="soft">and {of.length - 3} more</span> : null}
    </>
  );
}

/** All that are connected, by identity. */
export function Connections({ route }: { readonly route: Route }): JSX.Element {
  const search = route.query.get('search') ?? '';
  const listener = route.query.get('listener') ?? '';
  const peers = usePages<Peer>('peers', { search, listener }, ['peers', 'traffic']);
  const { data } = useListeners();
  const names = [...new Set(data?.items.map(({ name }) => name))];
  const to = (query: Readonly<Record<string, string>>): string => {
    const given = Object.entries(query).filter(([, value]) => value !== '');
    return given.length === 0 ? links.connections() : `${links.connections()}?${new URLSearchParams(given).toString()}`;
  };
  return (
    <>
      <h1 tabIndex={-1}>Connections</h1>
      <Panel title="Peers" about="by identity, newest first">
        <div class="tools">
          <Search
            label="Find a SPIFFE ID"
            value={search}
            onChange={(text) => {
              location.replace(to({ search: text, listener }));
            }}
          />
          {names.length < 2 ? null : (
            <Choices
              label="Listener"
              choices={[
                { text: 'All listeners', to: to({ search }), isChosen: listener === '' },
                ...names.map((name) => ({ text: name, to: to({ search, listener: name }), isChosen: listener === name })),
              ]}
            />
          )}
        </div>
        <Listed of={peers} empty={search === '' ? 'No peer is connected.' : 'No connected peer has this in its SPIFFE ID.'}>
          {(items) => <PeerTable items={items} />}
        </Listed>
      </Panel>
      <Panel title="Open connections" about={listener === '' ? 'of all listeners' : `of ${listener}`}>
        <ConnectionList spiffeId={undefined} listener={listener === '' ? undefined : listener} />
      </Panel>
    </>
  );
}

function ConnectionList({ spiffeId, listener }: { spiffeId: string | undefined; listener: string | undefined }): JSX.Element {
  const now = useNow();
  const open = usePages<Connection>('connections', { spiffeId, listener, limit: 25 }, ['peers', 'traffic']);
  return (
    <Listed of={open} empty="There are no open connections.">
      {(items) => (
        <Table<Connection>
          caption="Open connections"
          items={items}
          keyOf={({ id }) => id}
          columns={[
            {
              title: 'peer',
              isTitle: true,
              cell: ({ peer, id, audited, denied }) => (
                <>
                  {peer === null ? <span class="soft">not known yet</span> : spiffeId === undefined ? <SpiffeId id={peer} /> : `no. ${id}`}{' '}
                  {audited === null ? null : <Tag tone="amber">audit: {audited}</Tag>} {denied === null ? null : <Tag>refused</Tag>}
                </>
              ),
            },
            { title: 'listener', cell: ({ listener: { name } }) => name },
            {
              title: 'from',
              cell: ({ downstreamAddress, via }) => (
                <code>
                  {downstreamAddress}
                  {via === null ? '' : ` via ${via}`}
                </code>
              ),
            },
            { title: 'TLS', cell: ({ tls }) => (tls === null ? '–' : `${tls.version}${tls.alpn === null ? '' : `, ${tls.alpn}`}`) },
            { title: 'rule', cell: ({ rule }) => (rule === null ? <span class="soft">–</span> : <code class="rule">{rule}</code>) },
            { title: 'since', isNumber: true, cell: ({ since }) => <Time at={since} now={now} /> },
            { title: 'in', isNumber: true, cell: ({ bytesFromDownstream }) => bytes(bytesFromDownstream) },
            { title: 'out', isNumber: true, cell: ({ bytesToDownstream }) => bytes(bytesToDownstream) },
          ]}
        />
      )}
    </Listed>
  );
}

/** Everything that is known of one SPIFFE ID. */
export function PeerPage({ spiffeId }: { readonly spiffeId: string }): JSX.Element {
  const certificates = usePages<Certificate>('certificates', { spiffeId, limit: 6 }, ['identity', 'peers', 'refusals']);
  const refusals = usePages<Refusal>('refusals', { limit: 256 }, ['refusals']);
  return (
    <>
      <h1 tabIndex={-1} class="id">
        <Words>{spiffeId}</Words>
      </h1>
      <Panel title="Certificates" about="ours, or shown to us, newest first">
        <Listed of={certificates} empty="No certificate of this SPIFFE ID is remembered.">
          {(items) => (
            <div class="cards">
              {items.map((certificate) => (
                <CertificateCard key={certificate.id} of={certificate} />
              ))}
            </div>
          )}
        </Listed>
      </Panel>
      <Panel title="Open connections">
        <ConnectionList spiffeId={spiffeId} listener={undefined} />
      </Panel>
      <Panel title="Refusals" about="of the last 256">
        <Listed of={refusals} empty="None.">
          {(items) => <RefusalList items={items.filter(({ peer }) => peer === spiffeId)} most={50} />}
        </Listed>
      </Panel>
    </>
  );
}
