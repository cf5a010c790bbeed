import type { JSX } from 'preact';
import type { Refusal } from '../../admin/api-types.ts';
import { usePolicy } from '../facts.ts';
import { useNow, usePages } from '../live.ts';
import { CopyButton, Listed, Nothing, Panel, SpiffeId, Tag, Time, Words } from '../parts.tsx';
import { explanationOf, groupRefusals, type RefusalGroup } from '../refusal-groups.ts';
import { links } from '../routes.ts';
import { list, plural, reason, sentence } from '../words.ts';

export function Refusals(): JSX.Element {
  const refusals = usePages<Refusal>('refusals', { limit: 256 }, ['refusals']);
  return (
    <>
      <h1 tabIndex={-1}>Refusals</h1>
      <Panel title="Refused connections" about="the last 256, newest first; those that say the same are told once">
        <Listed of={refusals} empty="Nobody has been refused since the start.">
          {(items) => <RefusalList items={items} most={256} isLong />}
        </Listed>
      </Panel>
    </>
  );
}

export function RefusalList(props: { readonly items: readonly Refusal[]; readonly most: number; readonly isLong?: boolean }): JSX.Element {
  const groups = groupRefusals(props.items).slice(0, props.most);
  if (groups.length === 0) return <Nothing>Nobody has been refused.</Nothing>;
  return (
    <ul class="refusals">
      {groups.map((group) => (
        <Refused key={group.key} of={group} isLong={props.isLong ?? false} />
      ))}
    </ul>
  );
}

const SHOWN = 3;

function Refused({ of: { newest, count, from }, isLong }: { readonly of: RefusalGroup; readonly isLong: boolean }): JSX.Element {
  const now = useNow();
  const policy = usePolicy();
  const known = newest.reason === 'not_allowed' ? explanationOf(policy.data, newest) : undefined;
  const { means, todo } = reason(newest.reason);
  const others = from.length > SHOWN ? ` and ${plural(from.length - SHOWN, 'other')}` : '';
  return (
    <li>
      <p class="head">
        {newest.peer === null ? (
          <span class="strong">{plural(count, 'connection')} without a proven identity</span>
        ) : (
          <SpiffeId id={newest.peer} />
        )}
        <Tag>{newest.reason}</Tag>
        <span class="soft when">
          {count === 1 ? 'once' : `${count} times`}, {count === 1 ? '' : 'last '}
          <Time at={newest.at} now={now} />
        </span>
      </p>
      <p>{known?.near == null ? means : <Words>{sentence(known.near.text)}</Words>}</p>
      {isLong || known?.near == null ? (
        <p class="soft">
          <Words>{sentence(newest.detail)}</Words>
        </p>
      ) : null}
      <p class="soft">
        {isLong ? `${todo} ` : ''}
        On {newest.listener.name}, from {list(from.slice(0, SHOWN))}
        {others}. {newest.certificate === null ? null : <a href={links.certificate(newest.certificate)}>Its certificate</a>}
      </p>
      {known?.rule_to_allow == null ? null : (
        <details class="allow">
          <summary>The rule that would allow it</summary>
          <pre tabIndex={0}>{known.rule_to_allow}</pre>
          <CopyButton text={known.rule_to_allow}>Copy rule</CopyButton>
        </details>
      )}
    </li>
  );
}
