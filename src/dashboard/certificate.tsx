/** A certificate, drawn the same way everywhere: who, how long it still lives, its life as a bar, who uses it, and to its right what signed it. */
import type { JSX } from 'preact';
import type { Certificate, CertificateKind } from '../admin/api-types.ts';
import { shareLeft } from './health.ts';
import { useNow, useResource } from './live.ts';
import { Loading, SpiffeId, Tag, Words } from './parts.tsx';
import type { CertificatePage } from '../admin/api-types.ts';
import { apiPath, links } from './routes.ts';
import { briefly, clock, duration, keyName, moment, parseTime, plural, shortHex, subjectName } from './words.ts';

const KINDS: Readonly<Record<CertificateKind, string>> = {
  svid: 'X.509-SVID',
  intermediate: 'Intermediate',
  authority: 'Authority',
  peer: 'X.509-SVID of a peer',
  peer_intermediate: 'Intermediate of a peer',
  refused: 'Refused certificate',
};

export function kindName(kind: CertificateKind): string {
  return KINDS[kind];
}

/** Who a certificate is for: what it proves, or what it says of itself. */
export function CertificateName({ of }: { readonly of: Certificate }): JSX.Element {
  const { kind, spiffeId, subject } = of;
  if (spiffeId !== null) {
    return kind === 'refused' ? (
      <span class="id">
        <bdi>{spiffeId}</bdi>
      </span>
    ) : (
      <SpiffeId id={spiffeId} />
    );
  }
  return <Words>{subjectName(subject)}</Words>;
}

type Mood = 'good' | 'amber' | 'red' | 'quiet';

/** Colour only where somebody has to look: of ours, by how much is left; of others it is theirs to look. */
function moodOf({ kind, validity }: Certificate, share: number | undefined): Mood {
  if (kind !== 'svid') return validity === 'valid' && share !== 0 ? 'good' : 'quiet';
  if (share === undefined) return 'good';
  return share < 1 / 6 ? 'red' : share < 1 / 3 ? 'amber' : 'good';
}

/** Its life as a bar: what is over is empty. SVIDs of ours have a mark where renewal is due. */
export function Life({ of, now }: { readonly of: Certificate; readonly now: number }): JSX.Element | null {
  const share = shareLeft(of, now);
  if (share === undefined) return null;
  const mood = moodOf(of, share);
  return (
    <div class={`life ${mood}`} aria-hidden="true">
      <i style={{ width: `${share * 100}%` }} />
      {of.kind === 'svid' ? <u title="Renewal is due" /> : null}
    </div>
  );
}

/** How long it still lives, in words. */
export function Left({ of, now, isBrief }: { readonly of: Certificate; readonly now: number; readonly isBrief?: boolean }): JSX.Element {
  const end = parseTime(of.notAfter);
  const begin = parseTime(of.notBefore);
  if (end === undefined) return <span>no end</span>;
  if (end <= now) return <span>expired {briefly(now - end)} ago</span>;
  if (begin !== undefined && begin > now) return <span>valid in {briefly(begin - now)}</span>;
  return <span>{isBrief === true ? briefly(end - now) : duration(end - now)}</span>;
}

function validity({ notBefore, notAfter }: Certificate): string {
  const [begin, end] = [parseTime(notBefore), parseTime(notAfter)];
  if (begin === undefined || end === undefined) return `valid ${moment(notBefore)} to ${moment(notAfter)}`;
  if (end - begin > 86_400_000) return `valid ${moment(notBefore).replace(/,.*/, '')} to ${moment(notAfter).replace(/,.*/, '')}`;
  return `valid ${clock(begin)} to ${clock(end)} UTC`;
}

/** Who uses it, in some words. */
function uses({ kind, listeners, sdsSubscribers, files, issued, peer }: Certificate): string {
  if (kind === 'authority') return issued === null || issued === 0 ? 'signed none of ours' : `signed ${issued} of ours`;
  if (peer !== null) {
    const open = peer.connections === 0 ? 'no open connections' : plural(peer.connections, 'open connection');
    return `${open} · ${plural(peer.handshakes, 'handshake')}`;
  }
  const presented = listeners.map(({ name }) => name).join(', ');
  return [
    presented === '' ? '' : `used by ${presented}`,
    sdsSubscribers === 0 ? '' : plural(sdsSubscribers, 'SDS subscriber'),
    files.length === 0 ? '' : `in the files of ${files.join(', ')}`,
  ]
    .filter((text) => text !== '')
    .join(' · ');
}

export function CertificateCard({ of, isFirst = false }: { readonly of: Certificate; readonly isFirst?: boolean }): JSX.Element {
  const now = useNow();
  const share = shareLeft(of, now);
  const mood = moodOf(of, share);
  const used = uses(of);
  const refused = of.findings.filter(({ verdict }) => verdict === 'refused').length;
  return (
    <article class={`certificate ${mood} ${isFirst ? 'first' : ''}`}>
      <p class="kind">
        <span>{of.kind === 'authority' ? `Authority of ${of.trustDomain ?? 'nobody'}` : KINDS[of.kind]}</span>
        {used === '' ? null : <span class="used">{used}</span>}
      </p>
      <p class="name">
        <CertificateName of={of} />
      </p>
      <p class="left">
        <Left of={of} now={now} />
        {of.validity === 'valid' && share !== 0 && of.notAfter !== null ? <small> left</small> : null}
      </p>
      <Life of={of} now={now} />
      <p class="soft">
        {validity(of)}
        {of.rotations !== null && of.rotations > 0 ? ` · rotated ${of.rotations === 1 ? 'once' : `${of.rotations} times`}` : ''}
      </p>
      <p class="soft foot">
        <a href={links.certificate(of.id)}>
          {keyName(of.keyType)} · serial {shortHex(of.serial, 12)}
        </a>
        {refused > 0 && of.kind !== 'svid' ? <Tag>{plural(refused, 'finding')}</Tag> : null}
      </p>
    </article>
  );
}

const LONGEST_CHAIN = 8;

/** The certificate, and to its right each that signed it, up to the authority. */
export function Chain({ of }: { readonly of: Certificate }): JSX.Element {
  return (
    <ol class="chain">
      <Links of={of} depth={0} />
    </ol>
  );
}

function Links({ of, depth }: { readonly of: Certificate; readonly depth: number }): JSX.Element {
  return (
    <>
      <li>
        <CertificateCard of={of} isFirst={depth === 0} />
      </li>
      {of.issuer === null || depth >= LONGEST_CHAIN ? null : <Above id={of.issuer} depth={depth + 1} />}
    </>
  );
}

function Above({ id, depth }: { readonly id: string; readonly depth: number }): JSX.Element {
  const { data } = useResource<CertificatePage>(apiPath('certificates', { id }), ['identity', 'trust']);
  const [issuer] = data?.items ?? [];
  if (data === undefined)
    return (
      <li>
        <Loading />
      </li>
    );
  if (issuer === undefined)
    return (
      <li>
        <article class="certificate quiet">
          <p class="kind">
            <span>Authority</span>
          </p>
          <p class="name">no longer in the trust bundle</p>
        </article>
      </li>
    );
  return <Links of={issuer} depth={depth} />;
}
