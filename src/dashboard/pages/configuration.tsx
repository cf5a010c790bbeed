import type { JSX } from 'preact';
import type { Overview, ReadinessCheck } from '../../admin/api-types.ts';
import { useListeners, useReadiness } from '../facts.ts';
import { useNow, useResource } from '../live.ts';
import { Facts, Loading, Panel, Tag, Time, Unread, Words } from '../parts.tsx';
import { duration, list, parseTime } from '../words.ts';
import { ListenerTable } from './listeners.tsx';

export function CheckList({ checks }: { readonly checks: readonly ReadinessCheck[] }): JSX.Element {
  return (
    <ul class="checks">
      {checks.map(({ name, ok, blocks, detail }) => (
        <li key={name}>
          <Tag tone={ok ? 'good' : blocks ? 'red' : 'amber'}>{ok ? 'ok' : blocks ? 'fails' : 'look'}</Tag>
          <span>
            <code>{name}</code>
            {detail === null ? null : (
              <span class="soft">
                {' '}
                <Words>{detail}</Words>
              </span>
            )}
          </span>
        </li>
      ))}
    </ul>
  );
}

export function Configuration({ overview }: { readonly overview: Overview }): JSX.Element {
  const now = useNow();
  const readiness = useReadiness();
  const listeners = useListeners();
  const dump = useResource<{ readonly config?: unknown }>('config_dump', ['configuration'], 3000);
  const started = parseTime(overview.startedAt);
  const { lastReload } = overview;
  return (
    <>
      <h1 tabIndex={-1}>Configuration</h1>
      <Panel title="Process" span="half">
        <Facts
          of={[
            ['Scute', overview.version],
            ['Node', overview.node],
            ['OpenSSL', overview.openssl],
            ['running for', started === undefined ? '–' : duration(now - started)],
            ['configuration read', lastReload === null ? 'at the start' : <Time key="reload" at={lastReload.at} now={now} />],
            ...(lastReload === null || lastReload.differences.length === 0
              ? []
              : [['changed', <Words key="changed">{list(lastReload.differences.slice(0, 20))}</Words>] as const]),
            ...(lastReload === null || lastReload.needRestart.length === 0
              ? []
              : [['needs a restart', <Words key="restart">{list(lastReload.needRestart.slice(0, 20))}</Words>] as const]),
            ...(lastReload === null || lastReload.problems.length === 0
              ? []
              : [['problems', <Words key="problems">{lastReload.problems.slice(0, 20).join(' ')}</Words>] as const]),
          ]}
        />
      </Panel>
      <Panel title="Checks" about={readiness.data === undefined ? undefined : readiness.data.ready ? 'ready' : 'not ready'} span="half">
        {readiness.data === undefined ? <Loading /> : <CheckList checks={readiness.data.checks} />}
      </Panel>
      {listeners.data === undefined || listeners.data.items.length === 0 ? null : (
        <Panel title="Listeners">
          <ListenerTable items={listeners.data.items} />
        </Panel>
      )}
      <Panel title="Effective configuration" about="file, flags, environment and defaults together; secrets are left out">
        {dump.data === undefined ? (
          dump.problem === undefined ? (
            <Loading />
          ) : (
            <Unread problem={dump.problem} />
          )
        ) : (
          <pre class="dump" tabIndex={0}>
            {JSON.stringify(dump.data.config, null, 2)}
          </pre>
        )}
      </Panel>
    </>
  );
}
