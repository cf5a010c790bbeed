/** What the pages that stand open most ask for, on which changes, and how often at most. Of the page, and of who measures what it costs. */
import type { StreamTopic } from '../admin/api-types.ts';
import { apiPath } from './routes.ts';

export interface Question {
  readonly path: string;
  /** It is asked again when one of them has changed. */
  readonly topics: readonly StreamTopic[];
  /** Not again before; 1000 if left out. */
  readonly everyMs?: number;
  /** A list of which all must be known: what is decided of it would be wrong of a part. */
  readonly isWhole?: boolean;
}

/** Of few-line lists. */
const LATEST = 5;

/** The head of every page and the whole of the first. */
export const QUESTIONS = {
  overview: { path: apiPath('overview'), topics: ['identity', 'trust', 'readiness', 'peers', 'refusals', 'sds', 'configuration'] },
  readiness: { path: apiPath('readiness'), topics: ['readiness'] },
  svids: { path: apiPath('certificates', { kind: 'svid' }), topics: ['identity', 'sds', 'configuration'], isWhole: true },
  authorities: { path: apiPath('certificates', { kind: 'authority', limit: 500 }), topics: ['identity', 'trust'], isWhole: true },
  domains: { path: apiPath('trust-domains', { limit: 500 }), topics: ['identity', 'trust'], isWhole: true },
  rotations: { path: apiPath('rotations'), topics: ['identity', 'trust'] },
  listeners: { path: apiPath('listeners'), topics: ['peers', 'traffic', 'identity', 'readiness'] },
  tokens: { path: apiPath('tokens'), topics: ['identity', 'readiness'] },
  sds: { path: apiPath('sds', { limit: 500 }), topics: ['sds', 'identity'], isWhole: true },
  latestRefusals: { path: apiPath('refusals'), topics: ['refusals'] },
  latestPeers: { path: apiPath('peers', { limit: LATEST }), topics: ['peers', 'traffic'] },
  // Judging what was refused takes the process some milliseconds, so it is asked more seldom.
  policy: { path: 'policy', topics: ['refusals', 'peers', 'traffic', 'configuration'], everyMs: 5000 },
} as const satisfies Readonly<Record<string, Question>>;
