import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { TLSSocket } from 'node:tls';
import type { LiveRules } from '../../../src/config/policy/live-rules.ts';
import type { DevDomain } from '../../../src/devdomain/dev-domain.ts';
import { API, presented, startInbound, startOutbound, WEB } from '../data-path.ts';
import { startDevDomainWith } from '../dev-domain.ts';
import { eventually } from '../eventually.ts';
import { FakeClock } from '../fake-clock.ts';
import type { Sidecar } from '../sidecar.ts';
import { dial } from '../tcp.ts';
import { tlsClient, tlsServer, type Presented } from '../tls-peer.ts';
import type { Socket } from 'node:net';

const HOUR_MS = 3_600_000;
export const DRAIN_MS = 30_000;
export const DIRECTIONS = ['inbound', 'outbound'] as const;
export type Direction = (typeof DIRECTIONS)[number];

/** A sidecar whose clock moves by hand, between a client and a server of which one is its peer. */
export interface LiveStage {
  readonly sidecar: Sidecar;
  readonly spiffe: DevDomain;
  readonly clock: FakeClock;
  readonly address: string;
  /** Inbound, what the peer presents. */
  readonly peer: Presented;
  /** The serial number of the peer's SVID. */
  readonly serial: Uint8Array;
  readonly reload: (listener: object) => Promise<void>;
  /** A connection of the client, open. */
  readonly connect: () => Promise<Socket>;
}

/** What may change under an open connection. */
export interface LiveChange {
  readonly key: keyof LiveRules;
  readonly reason: string;
  readonly keep: 'unsafeKeep' | 'keep';
  /** Its peer is no longer let in; else it only is not as it was. */
  readonly shutsOut: boolean;
  /** Which of the two sides has an SVID that expires first. */
  readonly short?: 'peer' | 'own';
  /** Resolves when it was found. */
  readonly happens: (stage: LiveStage) => Promise<void>;
}

export const CHANGES: readonly LiveChange[] = [
  {
    key: 'onPolicyChange',
    reason: 'policy',
    keep: 'unsafeKeep',
    shutsOut: true,
    happens: (stage) => stage.reload({ allow: ['spiffe://example.org/other'] }),
  },
  { key: 'onAuthorityRemoved', reason: 'authority_removed', keep: 'unsafeKeep', shutsOut: true, happens: removeAuthority },
  { key: 'onPeerExpiry', reason: 'peer_svid_expired', keep: 'keep', shutsOut: false, short: 'peer', happens: expire },
  { key: 'onOwnExpiry', reason: 'own_svid_expired', keep: 'keep', shutsOut: false, short: 'own', happens: expire },
];

/** The root of our trust domain is another one, and whatever the old one issued is not trusted any more. */
async function removeAuthority({ spiffe, sidecar }: LiveStage): Promise<void> {
  const trusted = (): Promise<number> => sidecar.metric('scute_x509_authority_expiration_timestamp_seconds');
  const one = await trusted();
  await spiffe.rotateRoot('example.org');
  await eventually(async () => assert.ok((await trusted()) > 1.5 * one));
  await spiffe.retireRoots('example.org');
  await eventually(async () => assert.ok((await trusted()) < 1.5 * one));
  await nextTurn();
}

async function expire({ clock }: LiveStage): Promise<void> {
  clock.advance(HOUR_MS + 2000);
  await nextTurn();
}

/** Starts it with `[key]: value`; `serve` is the application, or the server behind an outbound listener. */
export async function startLive(
  t: TestContext,
  options: {
    readonly direction: Direction;
    readonly change?: LiveChange | undefined;
    readonly listener: object;
    readonly application: string;
    readonly server: (socket: TLSSocket) => void;
    /** Instead of one that serves `server`: where it listens. */
    readonly startServer?: (who: Presented) => Promise<string>;
    readonly file?: object;
  },
): Promise<LiveStage> {
  const { direction, change, listener, application, server, file } = options;
  const clock = new FakeClock();
  const svidLife = change?.short === 'own' ? '1h' : '10h';
  const spiffe = await startDevDomainWith(t, { clock: new FakeClock() }, [
    { name: 'example.org', svidLife, workloads: { web: [WEB], api: [API] } },
  ]);
  const settings = {
    spiffe,
    sidecar: { clock },
    listener: { limits: { idleTimeout: 'off' }, ...listener },
    file: { drainTimeout: `${DRAIN_MS}ms`, ...file },
  };
  const issued = await spiffe.issue(direction === 'inbound' ? WEB : API, { lifeMs: change?.short === 'peer' ? HOUR_MS : 5 * HOUR_MS });
  const peer = presented(issued);
  const { serial } = issued;
  if (direction === 'inbound') {
    const { sidecar, address, with: settingsWith } = await startInbound(t, application, settings);
    const reload = (more: object): Promise<void> => sidecar.reload(settingsWith(more));
    return { sidecar, spiffe, clock, address, peer, serial, reload, connect: () => Promise.resolve(tlsClient(t, address, peer)) };
  }
  const to = options.startServer === undefined ? (await tlsServer(t, peer, server)).address : await options.startServer(peer);
  const { sidecar, address, with: settingsWith } = await startOutbound(t, to, settings);
  const reload = ({ allow, ...more }: { readonly allow?: object }): Promise<void> =>
    sidecar.reload(settingsWith({ ...(allow && { expect: allow }), ...more }));
  return { sidecar, spiffe, clock, address, peer, serial, reload, connect: () => dial(t, address) };
}
