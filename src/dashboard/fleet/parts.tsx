/** How certificates, sidecars and places of the fleet are drawn, everywhere alike. */
import type { JSX } from 'preact';
import type { FleetAuthority, FleetCertificate, FleetPage, SidecarName } from '../../fleet/api-types.ts';
import { Listed, Table, Tag } from '../parts.tsx';
import { briefly, number, parseTime, shortHex } from '../words.ts';
import type { FleetPaged } from './asked.ts';
import { fleetLinks } from './links.ts';

/** A name that somebody else chose: text, apart from the text around it. */
export function Name({ of, to, isCode = false }: { readonly of: string; readonly to: string; readonly isCode?: boolean }): JSX.Element {
  return (
    <a class={isCode ? 'id' : undefined} href={to}>
      <bdi>{of === '' ? 'none' : of}</bdi>
    </a>
  );
}

export function Key({ id }: { readonly id: string }): JSX.Element {
  return (
    <a class="mono" href={fleetLinks.certificates({ issuer: id })} title={id}>
      {id === '' ? 'none' : shortHex(id, 12)}
    </a>
  );
}

/** What a sidecar is called, and where it is. */
export function Where({ of }: { readonly of: SidecarName }): JSX.Element {
  const { cluster, namespace, pod, node } = of.place;
  const places = Object.entries({ cluster, namespace, pod, node }).filter(([, name]) => name !== '');
  return (
    <>
      <Name of={of.instance} to={fleetLinks.certificates({ job: of.job, instance: of.instance })} isCode />
      {places.length === 0 ? null : (
        <p class="soft">
          {places.map(([label, name], index) => (
            <span key={label}>
              {index === 0 ? '' : ' · '}
              <a href={fleetLinks.certificates({ [label]: name })} title={label}>
                <bdi>{name}</bdi>
              </a>
            </span>
          ))}
        </p>
      )}
    </>
  );
}

/** How long it still lives. */
export function Left({ end, now }: { readonly end: string | null; readonly now: number }): JSX.Element {
  const ms = parseTime(end);
  if (ms === undefined) return <span class="soft">–</span>;
  return <span>{ms <= now ? `expired ${briefly(now - ms)} ago` : briefly(ms - now)}</span>;
}

/** Its life as a bar, with a mark where renewal is due. */
function Life({ of, now }: { readonly of: FleetCertificate; readonly now: number }): JSX.Element | null {
  const [begin, end] = [parseTime(of.notBefore), parseTime(of.notAfter)];
  if (begin === undefined || end === undefined || end <= begin) return null;
  const share = Math.min(Math.max((end - now) / (end - begin), 0), 1);
  return (
    <div class={`life ${share === 0 ? 'red' : share < 1 / 4 ? 'amber' : 'good'}`} aria-hidden="true">
      <i style={{ width: `${share * 100}%` }} />
      <u />
    </div>
  );
}

export function CertificateTable({ items, now }: { readonly items: readonly FleetCertificate[]; readonly now: number }): JSX.Element {
  return (
    <Table<FleetCertificate>
      caption="Certificates"
      items={items}
      keyOf={({ sidecar, spiffeId, hint, issuerKeyId }) => JSON.stringify([sidecar, spiffeId, hint, issuerKeyId])}
      columns={[
        {
          title: 'SPIFFE ID',
          isTitle: true,
          cell: ({ spiffeId, hint }) => (
            <>
              <Name of={spiffeId} to={fleetLinks.certificates({ spiffeId })} isCode /> {hint === '' ? null : <Tag>{hint}</Tag>}
            </>
          ),
        },
        { title: 'where', cell: ({ sidecar }) => <Where of={sidecar} /> },
        { title: 'issuer', cell: ({ issuerKeyId }) => <Key id={issuerKeyId} /> },
        { title: 'life', cell: (certificate) => <Life of={certificate} now={now} /> },
        { title: 'left', isNumber: true, cell: ({ notAfter }) => <Left end={notAfter} now={now} /> },
      ]}
    />
  );
}

export function AuthorityTable({ items, now }: { readonly items: readonly FleetAuthority[]; readonly now: number }): JSX.Element {
  return (
    <Table<FleetAuthority>
      caption="Authorities"
      items={items}
      keyOf={({ trustDomain, subjectKeyId }) => JSON.stringify([trustDomain, subjectKeyId])}
      columns={[
        {
          title: 'trust domain',
          isTitle: true,
          cell: ({ trustDomain, newest }) => (
            <>
              <Name of={trustDomain} to={fleetLinks.certificates({ trustDomain })} isCode /> {newest ? <Tag>newest</Tag> : null}
            </>
          ),
        },
        { title: 'key', cell: ({ subjectKeyId }) => <Key id={subjectKeyId} /> },
        { title: 'trusted by', isNumber: true, cell: ({ trustedBy }) => number(trustedBy) },
        { title: 'signed', isNumber: true, cell: ({ issued }) => number(issued) },
        { title: 'left', isNumber: true, cell: ({ notAfter }) => <Left end={notAfter} now={now} /> },
      ]}
    />
  );
}

/** A page of a list, and what of it is left out; or, with `few`, its first items alone. */
export function FleetList<T>(props: {
  readonly name: string;
  readonly of: FleetPaged<T>;
  readonly empty: string;
  readonly few?: number | undefined;
  readonly children: (items: readonly T[]) => JSX.Element;
}): JSX.Element {
  const { name, of, empty, few, children } = props;
  const paged = few === undefined ? of : { ...of, newer: undefined, older: undefined };
  return (
    <>
      <Listed of={paged} empty={empty} turn={[`${name}: earlier and later`, 'Earlier', 'Later']}>
        {(items) => children(items.slice(0, few))}
      </Listed>
      {few === undefined ? <Omitted of={of.data} /> : null}
    </>
  );
}

function Omitted<T>({ of }: { readonly of: FleetPage<T> | undefined }): JSX.Element | null {
  if (of === undefined || of.omitted === 0) return null;
  return <p class="soft">{number(of.omitted)} more with the very same time are not shown: choose fewer.</p>;
}
