import type { JSX } from 'preact';
import type { Certificate, CertificateKind, CertificatePage } from '../../admin/api-types.ts';
import { CertificateName, Chain, kindName, Left, Life } from '../certificate.tsx';
import { useNow, usePages, useResource } from '../live.ts';
import { Choices, ClockTime, Facts, Listed, Loading, Nothing, Panel, Table, Tag, Time, Unread, Words } from '../parts.tsx';
import { apiPath, links, type Route } from '../routes.ts';
import { keyName, moment, plural, shortHex } from '../words.ts';

const KINDS: readonly (readonly [CertificateKind | undefined, string])[] = [
  [undefined, 'All'],
  ['svid', 'Ours'],
  ['intermediate', 'Intermediates'],
  ['authority', 'Authorities'],
  ['peer', 'Peers'],
  ['peer_intermediate', "Peers' intermediates"],
  ['refused', 'Refused'],
];

export function Certificates({ route }: { readonly route: Route }): JSX.Element {
  const now = useNow();
  const asked = route.query.get('kind');
  const [kind] = KINDS.find(([name]) => name === asked) ?? [undefined];
  const certificates = usePages<Certificate>('certificates', { kind, limit: 25 }, ['identity', 'trust', 'peers', 'refusals']);
  return (
    <>
      <h1 tabIndex={-1}>Certificates</h1>
      <Panel title="In sight" about="held, trusted, or shown by a peer">
        <div class="tools">
          <Choices label="Kind" choices={KINDS.map(([name, text]) => ({ text, to: links.certificates(name), isChosen: name === kind }))} />
        </div>
        <Listed of={certificates} empty="There is none.">
          {(items) => (
            <Table<Certificate>
              caption="Certificates"
              items={items}
              keyOf={({ id }) => id}
              columns={[
                { title: 'of', isTitle: true, cell: (certificate) => <CertificateName of={certificate} /> },
                {
                  title: 'kind',
                  cell: ({ kind: of, trustDomain }) => (of === 'authority' ? `Authority of ${trustDomain ?? ''}` : kindName(of)),
                },
                { title: 'key', cell: ({ keyType }) => keyName(keyType) },
                {
                  title: 'serial',
                  cell: ({ id, serial }) => (
                    <a class="mono" href={links.certificate(id)}>
                      {shortHex(serial, 12)}
                    </a>
                  ),
                },
                { title: 'findings', isNumber: true, cell: ({ findings }) => (findings.length === 0 ? '–' : findings.length) },
                { title: 'life', cell: (certificate) => <Life of={certificate} now={now} /> },
                { title: 'left', isNumber: true, cell: (certificate) => <Left of={certificate} now={now} isBrief /> },
              ]}
            />
          )}
        </Listed>
      </Panel>
    </>
  );
}

export function CertificateDetail({ id }: { readonly id: string }): JSX.Element {
  const { data, problem } = useResource<CertificatePage>(apiPath('certificates', { id }), [
    'identity',
    'trust',
    'peers',
    'sds',
    'refusals',
  ]);
  const certificate = data?.items.find((one) => one.id === id);
  // One heading, whatever comes below it: it may have the focus.
  return (
    <>
      <h1 tabIndex={-1}>{certificate === undefined ? 'Certificate' : kindName(certificate.kind)}</h1>
      {certificate !== undefined ? (
        <Detail of={certificate} />
      ) : data !== undefined ? (
        <Nothing>
          This certificate is not in sight any more: it was rotated, or its peer has left.{' '}
          <a href={links.certificates()}>All certificates</a>
        </Nothing>
      ) : problem === undefined ? (
        <Loading />
      ) : (
        <Unread problem={problem} />
      )}
    </>
  );
}

function Detail({ of }: { readonly of: Certificate }): JSX.Element {
  const now = useNow();
  return (
    <>
      <Panel title="Chain" about="the path to its authority, as it was verified">
        <Chain of={of} />
      </Panel>
      <Panel title="What it says" span="half">
        <Facts
          of={[
            ['SPIFFE ID', of.spiffeId === null ? '–' : <CertificateName key="id" of={of} />],
            ['subject', <Words key="subject">{of.subject === '' ? '–' : of.subject}</Words>],
            ['issuer', <Words key="issuer">{of.issuerName}</Words>],
            ['valid from', moment(of.notBefore)],
            ['valid to', moment(of.notAfter)],
            ['key', keyName(of.keyType)],
            ['signature', of.signatureAlgorithm],
            ['serial', <code key="serial">{of.serial}</code>],
            ['SHA-256', <code key="sha256">{of.sha256}</code>],
            ['subject key', <code key="ski">{of.subjectKeyId ?? '–'}</code>],
            ['authority key', <code key="aki">{of.issuerKeyId ?? '–'}</code>],
          ]}
        />
      </Panel>
      <Panel title="What is known of it" span="half">
        <Facts
          of={[
            ['received', <ClockTime key="received" at={of.receivedAt} />],
            ['from', of.source === 'workload_api' ? 'Workload API' : of.source === 'bundle_endpoint' ? 'bundle endpoint' : 'a peer'],
            ...(of.trustDomain === null
              ? []
              : [
                  [
                    'trust domain',
                    <a key="domain" href={links.trust(of.trustDomain)}>
                      {of.trustDomain}
                    </a>,
                  ] as const,
                ]),
            ...(of.hint === null || of.hint === '' ? [] : [['hint', <Words key="hint">{of.hint}</Words>] as const]),
            ...(of.generation === null ? [] : [['generation', of.generation] as const]),
            ...(of.rotations === null ? [] : [['rotated', plural(of.rotations, 'time')] as const]),
            ...(of.issued === null ? [] : [['signed', `${plural(of.issued, 'certificate')} of ours`] as const]),
            ['listeners', of.listeners.length === 0 ? 'none' : <ListenerLinks key="listeners" of={of} />],
            ...(of.peer === null
              ? []
              : ([
                  [
                    'verdict',
                    <Tag key="verdict" tone={of.peer.verdict === 'allow' ? 'good' : 'quiet'}>
                      {of.peer.verdict}
                    </Tag>,
                  ],
                  ...(of.peer.detail === null ? [] : [['why', <Words key="why">{of.peer.detail}</Words>] as const]),
                  ['handshakes', of.peer.handshakes],
                  ['open connections', of.peer.connections],
                  ['last seen', <Time key="seen" at={of.peer.lastSeenAt} now={now} />],
                ] as const)),
          ]}
        />
        {of.sdsSubscribers === 0 ? null : (
          <p class="soft">
            <a href={links.envoy}>{plural(of.sdsSubscribers, 'SDS subscriber')}</a> received it.
          </p>
        )}
        {of.files.length === 0 ? null : (
          <p class="soft">
            It is in the files of <Words>{of.files.join(', ')}</Words>.
          </p>
        )}
      </Panel>
      {of.findings.length === 0 ? null : (
        <Panel title="Findings" about="what the SPIFFE standards say of it">
          <ul class="plain">
            {of.findings.map(({ verdict, clause, problem }) => (
              <li key={problem}>
                <Tag>{verdict}</Tag> <Words>{problem}</Words> {clause === null ? null : <span class="soft">{clause}</span>}
              </li>
            ))}
          </ul>
        </Panel>
      )}
    </>
  );
}

function ListenerLinks({ of }: { readonly of: Certificate }): JSX.Element {
  return (
    <>
      {of.listeners.map(({ name }, index) => (
        <span key={name}>
          {index === 0 ? '' : ', '}
          <a href={links.connections(name)}>{name}</a>
        </span>
      ))}
    </>
  );
}
