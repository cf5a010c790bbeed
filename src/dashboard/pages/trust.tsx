import type { JSX } from 'preact';
import type { TrustDomain } from '../../admin/api-types.ts';
import { CertificateCard } from '../certificate.tsx';
import { useAuthorities, useDomains } from '../facts.ts';
import { useNow } from '../live.ts';
import { Facts, Loading, Nothing, Panel, Table, Tag, Time, Unread, Words } from '../parts.tsx';
import { links } from '../routes.ts';
import { briefly, number, parseTime, plural } from '../words.ts';

export function DomainTable({
  items,
  isBrief = false,
}: {
  readonly items: readonly TrustDomain[];
  readonly isBrief?: boolean;
}): JSX.Element {
  const now = useNow();
  const ends = (time: string | null): string => {
    const ms = parseTime(time);
    return ms === undefined ? '–' : ms <= now ? `${briefly(now - ms)} ago` : briefly(ms - now);
  };
  return (
    <Table<TrustDomain>
      caption="Trust domains"
      items={items}
      keyOf={({ trustDomain }) => trustDomain}
      columns={[
        {
          title: 'trust domain',
          isTitle: true,
          cell: ({ trustDomain, isOwn }) => (
            <>
              <a class="id" href={links.trust(trustDomain)}>
                <bdi>{trustDomain}</bdi>
              </a>{' '}
              {isOwn ? <Tag>ours</Tag> : null}
            </>
          ),
        },
        ...(isBrief ? [] : [{ title: 'bundle from', cell: ({ source }: TrustDomain) => sourceName(source) }]),
        { title: 'authorities', isNumber: true, cell: ({ authorities }) => number(authorities) },
        { title: 'last one ends', isNumber: true, cell: ({ lastExpiry }) => ends(lastExpiry) },
      ]}
    />
  );
}

function sourceName(source: TrustDomain['source']): string {
  return source === null ? 'nowhere yet' : source === 'workload_api' ? 'Workload API' : 'bundle endpoint';
}

export function Trust({ chosen }: { readonly chosen: string | undefined }): JSX.Element {
  const { data, problem } = useDomains();
  const domains = data?.items.filter(({ trustDomain }) => chosen === undefined || trustDomain === chosen) ?? [];
  return (
    <>
      <h1 tabIndex={-1}>{chosen === undefined ? 'Trust domains' : chosen}</h1>
      {data === undefined ? problem === undefined ? <Loading /> : <Unread problem={problem} /> : null}
      {data !== undefined && domains.length === 0 ? (
        <Nothing>{chosen === undefined ? 'No trust bundle has come yet.' : 'Scute does not know this trust domain.'}</Nothing>
      ) : null}
      {domains.map((domain) => (
        <Domain key={domain.trustDomain} of={domain} />
      ))}
    </>
  );
}

function Domain({ of }: { readonly of: TrustDomain }): JSX.Element {
  const now = useNow();
  const { data } = useAuthorities();
  const authorities = data?.items.filter(({ trustDomain }) => trustDomain === of.trustDomain) ?? [];
  const { endpoint } = of;
  return (
    <Panel
      title={of.trustDomain}
      about={`${of.isOwn ? 'ours · ' : ''}${plural(of.authorities, 'authority', 'authorities')} · bundle from ${of.source === 'workload_api' ? 'the ' : ''}${sourceName(of.source)}`}
    >
      {authorities.length === 0 ? (
        <Nothing>There is no authority: nobody of this trust domain is trusted.</Nothing>
      ) : (
        <div class="cards">
          {authorities.map((authority) => (
            <CertificateCard key={authority.id} of={authority} />
          ))}
        </div>
      )}
      {of.jwtAuthorities === null ? null : (
        <Facts
          of={[
            [
              'keys for tokens',
              <Words key="jwt">
                {of.jwtAuthorities === 0
                  ? 'none: no token of this trust domain is accepted'
                  : `${of.jwtAuthorities}: ${of.jwtKeyIds.join(', ')}`}
              </Words>,
            ],
          ]}
        />
      )}
      {endpoint === null ? null : (
        <Facts
          of={[
            ['bundle endpoint', <code key="url">{endpoint.url}</code>],
            ['last read', <Time key="last" at={endpoint.lastSuccessAt} now={now} />],
            ['next', <Time key="next" at={endpoint.nextRefreshAt} now={now} />],
            ['sequence', endpoint.sequence ?? '–'],
            ...(endpoint.problem === null ? [] : [['problem', <Words key="problem">{endpoint.problem.detail}</Words>] as const]),
          ]}
        />
      )}
      {of.notes.length === 0 ? null : (
        <ul class="soft plain">
          {of.notes.map((note) => (
            <li key={note}>
              <Words>{note}</Words>
            </li>
          ))}
        </ul>
      )}
    </Panel>
  );
}
