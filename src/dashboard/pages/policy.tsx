import type { JSX } from 'preact';
import { usePolicy } from '../facts.ts';
import { useNow } from '../live.ts';
import { CopyButton, Loading, Nothing, Panel, SpiffeId, Table, Tag, Time, Unread, Words } from '../parts.tsx';
import type { PolicyListener, PolicyRefusal } from '../policy-types.ts';
import { number, plural, sentence } from '../words.ts';

interface Line {
  readonly listener: PolicyListener;
  readonly rule: PolicyListener['rules'][number];
}

function linesOf(listeners: readonly PolicyListener[]): readonly Line[] {
  return listeners.flatMap((listener) => listener.rules.map((rule) => ({ listener, rule })));
}

/** Each rule with how often it decided. */
export function PolicyTable({ listeners, most }: { readonly listeners: readonly PolicyListener[]; readonly most: number }): JSX.Element {
  const lines = linesOf(listeners);
  return (
    <Table<Line>
      caption="Rules"
      items={lines.slice(0, most)}
      keyOf={({ listener, rule }) => `${listener.direction} ${listener.name} ${rule.effect} ${rule.index}`}
      columns={[
        {
          title: 'rule',
          isTitle: true,
          cell: ({ rule }) => (
            <>
              <code class="rule">{rule.text.replace(/ \(audit\)$/, '')}</code> {rule.effect === 'deny' ? <Tag>deny</Tag> : null}{' '}
              {rule.mode === 'audit' ? <Tag tone="amber">audit</Tag> : null}
            </>
          ),
        },
        ...(listeners.length > 1 ? [{ title: 'listener', cell: ({ listener }: Line) => listener.name }] : []),
        { title: 'connections', isNumber: true, cell: ({ rule }) => (rule.connections === null ? '–' : number(rule.connections)) },
      ]}
    />
  );
}

export function Policy(): JSX.Element {
  const { data, problem } = usePolicy();
  return (
    <>
      <h1 tabIndex={-1}>Policy</h1>
      {data === undefined ? problem === undefined ? <Loading /> : <Unread problem={problem} /> : null}
      {data?.listeners.length === 0 ? <Nothing>No listener has a policy.</Nothing> : null}
      {data?.listeners.map((listener) => (
        <OfListener key={`${listener.direction} ${listener.name}`} of={listener} />
      ))}
    </>
  );
}

function OfListener({ of }: { readonly of: PolicyListener }): JSX.Element {
  const copy = of.rules_to_copy.join('\n');
  const unlisted = of.not_listed.passed + of.not_listed.refused;
  return (
    <Panel title={of.name} about={`${of.direction} · ${of.mode === 'audit' ? 'everything in audit' : 'enforced'}`}>
      {of.rules.length === 0 ? <Nothing>There are no rules: nobody is allowed.</Nothing> : <PolicyTable listeners={[of]} most={500} />}
      {of.rules_omitted === 0 ? null : <p class="soft">{plural(of.rules_omitted, 'more rule')} are not shown.</p>}
      {of.would_deny.length === 0 ? null : (
        <>
          <h3>Admitted by audit alone</h3>
          <p class="soft">The policy would refuse these, if it were enforced.</p>
          <RefusalTable items={of.would_deny} isAudit />
          {copy === '' ? null : (
            <details class="allow">
              <summary>The rules that would allow all of them</summary>
              <pre tabIndex={0}>{copy}</pre>
              <CopyButton text={copy}>Copy rules</CopyButton>
            </details>
          )}
        </>
      )}
      {of.denied.length === 0 ? null : (
        <>
          <h3>Refused</h3>
          <RefusalTable items={of.denied} isAudit={false} />
        </>
      )}
      {of.omitted + unlisted === 0 ? null : (
        <p class="soft">
          {of.omitted === 0 ? '' : `${plural(of.omitted, 'more')} known but not in this answer. `}
          {unlisted === 0 ? '' : `${plural(unlisted, 'time')} something else, which is not known by itself any more.`}
        </p>
      )}
    </Panel>
  );
}

function RefusalTable({ items, isAudit }: { readonly items: readonly PolicyRefusal[]; readonly isAudit: boolean }): JSX.Element {
  const now = useNow();
  return (
    <Table<PolicyRefusal>
      caption={isAudit ? 'Admitted by audit alone' : 'Refused'}
      items={items}
      keyOf={({ peer, method, path, host, reason }) => JSON.stringify([peer, method, path, host, reason])}
      columns={[
        { title: 'peer', isTitle: true, cell: ({ peer }) => <SpiffeId id={peer} /> },
        {
          title: 'asked for',
          cell: ({ method, path, host }) =>
            method === null ? (
              <span class="soft">a connection</span>
            ) : (
              <code>
                <bdi>{`${method} ${path ?? ''}${host === null ? '' : ` of ${host}`}`}</bdi>
              </code>
            ),
        },
        {
          title: 'why',
          cell: ({ near, rule, reason, rule_to_allow: toAllow, no_rule: none, allowed_now: isAllowed }) => (
            <>
              {near === null ? (
                <span>{rule === null ? reason : <code class="rule">{rule.text}</code>}</span>
              ) : (
                <Words>{sentence(near.text)}</Words>
              )}
              {isAllowed ? <Tag tone="good">allowed now</Tag> : null}
              {toAllow === null ? (
                none === null ? null : (
                  <p class="soft">{sentence(none)}</p>
                )
              ) : (
                <details class="allow">
                  <summary>The rule that would allow it</summary>
                  <pre tabIndex={0}>{toAllow}</pre>
                  <CopyButton text={toAllow}>Copy rule</CopyButton>
                </details>
              )}
            </>
          ),
        },
        { title: 'times', isNumber: true, cell: ({ passed, refused }) => number(isAudit ? passed : refused) },
        { title: 'last', isNumber: true, cell: ({ last_at: last }) => <Time at={last} now={now} /> },
      ]}
    />
  );
}
