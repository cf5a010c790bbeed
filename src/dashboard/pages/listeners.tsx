import type { JSX } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import type { Listener, Token } from '../../admin/api-types.ts';
import { SpiffeId, Table, Tag, Time } from '../parts.tsx';
import { links } from '../routes.ts';
import { bytes, number } from '../words.ts';

export function ListenerTable({ items }: { readonly items: readonly Listener[] }): JSX.Element {
  return (
    <Table<Listener>
      caption="Listeners"
      items={items}
      keyOf={({ direction, name }) => `${direction} ${name}`}
      columns={[
        {
          title: 'name',
          isTitle: true,
          cell: ({ name, direction }) => (
            <>
              <a class="strong" href={links.connections(name)}>
                {name}
              </a>{' '}
              <Tag>{direction}</Tag>
            </>
          ),
        },
        {
          title: 'from → to',
          cell: ({ address, to }) => (
            <code>
              {address ?? 'not bound'} → {to}
            </code>
          ),
        },
        { title: 'presents', cell: (listener) => <Presents of={listener} /> },
        {
          title: 'open',
          isNumber: true,
          cell: ({ connections: { open, waiting } }) => (waiting === 0 ? number(open) : `${number(open)}, ${number(waiting)} waiting`),
        },
        { title: 'opened', isNumber: true, cell: ({ connections: { opened } }) => number(opened) },
        { title: 'in', isNumber: true, cell: ({ bytes: { downstreamRead } }) => bytes(downstreamRead) },
        { title: 'out', isNumber: true, cell: ({ bytes: { downstreamWritten } }) => bytes(downstreamWritten) },
        { title: 'traffic, last minute', cell: (listener) => <Traffic of={listener} /> },
      ]}
    />
  );
}

/** A server of the public web is shown no certificate. */
function Presents({ of: { presents, to } }: { readonly of: Listener }): JSX.Element {
  if (presents !== null) return <SpiffeId id={presents} />;
  return to.startsWith('https://') ? <Tag>nothing: public web</Tag> : <Tag tone="red">nothing</Tag>;
}

export function TokenTable({ items, now }: { readonly items: readonly Token[]; readonly now: number }): JSX.Element {
  return (
    <Table<Token>
      caption="Tokens"
      items={items}
      keyOf={({ source }) => source}
      columns={[
        {
          title: 'source',
          isTitle: true,
          cell: ({ source, kind }) => (
            <>
              {source} <Tag>{kind === 'jwt_svid' ? 'JWT-SVID' : 'access token'}</Tag>
            </>
          ),
        },
        { title: 'audience', cell: ({ audience }) => (audience === null ? '–' : <code>{audience}</code>) },
        {
          title: 'used by',
          cell: ({ listeners, files }) => [...listeners.map(({ name }) => name), ...files.map((name) => `files of ${name}`)].join(', '),
        },
        {
          title: 'expires',
          cell: ({ expiresAt, problem }) =>
            expiresAt === null ? <Tag tone="red">{problem?.reason ?? 'none yet'}</Tag> : <Time at={expiresAt} now={now} />,
        },
      ]}
    />
  );
}

const POINTS = 30;
const EVERY_MS = 2000;
const [WIDTH, HEIGHT] = [120, 24];

/** Bytes of the last minute, from when the page was opened. */
function Traffic({ of }: { readonly of: Listener }): JSX.Element {
  const total = of.bytes.downstreamRead + of.bytes.downstreamWritten;
  const newest = useRef(total);
  newest.current = total;
  const [points, setPoints] = useState<readonly number[]>([]);
  useEffect(() => {
    let before = newest.current;
    const timer = setInterval(() => {
      const grown = Math.max(newest.current - before, 0);
      before = newest.current;
      setPoints((held) => [...held, grown].slice(-POINTS));
    }, EVERY_MS);
    return () => clearInterval(timer);
  }, []);
  const most = Math.max(...points, 1);
  const line = points.map(
    (point, index) => `${((POINTS - points.length + index) / (POINTS - 1)) * WIDTH} ${HEIGHT - 2 - (point / most) * (HEIGHT - 5)}`,
  );
  const rate = (points.at(-1) ?? 0) / (EVERY_MS / 1000);
  return (
    <span class="traffic">
      <svg width={WIDTH} height={HEIGHT} viewBox={`0 0 ${WIDTH} ${HEIGHT}`} aria-hidden="true">
        {line.length < 2 ? null : <polyline points={line.join(' ')} />}
      </svg>
      <span class="rate">{bytes(Math.round(rate))}/s</span>
    </span>
  );
}
