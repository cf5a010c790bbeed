import { once } from 'node:events';
import type { TestContext } from 'node:test';
import type { ConnectionOptions, TLSSocket, TlsOptions } from 'node:tls';
import type { DevDomain, IssuedPem } from '../../src/devdomain/dev-domain.ts';
import { startDevDomain } from './dev-domain.ts';
import { startSidecar, type Sidecar, type SidecarOptions } from './sidecar.ts';
import { tlsClient, tlsServer, type Presented } from './tls-peer.ts';

export const WEB = 'spiffe://example.org/web';
export const API = 'spiffe://example.org/api';

/** What a peer that holds this SVID presents. */
export function presented(svid: IssuedPem): Presented {
  return { cert: svid.chainPem, key: svid.keyPem };
}

/** The trust domain example.org with one workload on each side. */
export function startExampleDomain(t: TestContext): Promise<DevDomain> {
  return startDevDomain(t, { name: 'example.org', workloads: { web: [WEB], api: [API] } });
}

export interface StageOptions {
  /** Instead of a trust domain of its own. */
  readonly spiffe?: DevDomain;
  /** More settings of the listener: limits, alpn, allow and so on. */
  readonly listener?: object;
  /** More settings of the file. */
  readonly file?: object;
  readonly sidecar?: SidecarOptions;
}

export interface InboundStage {
  readonly spiffe: DevDomain;
  readonly sidecar: Sidecar;
  readonly address: string;
  /** What the admitted peer, web, presents. */
  readonly web: Presented;
  /** The configuration as it was given, with other settings for the listener. */
  readonly with: (listener: object) => object;
  /** A connection of web after its handshake. */
  readonly connect: (options?: ConnectionOptions) => Promise<TLSSocket>;
}

/** One sidecar with an inbound listener `in` before the application at `to`, which admits web. */
export async function startInbound(t: TestContext, to: string, options: StageOptions = {}): Promise<InboundStage> {
  const spiffe = options.spiffe ?? (await startExampleDomain(t));
  const config = (more: object): object => ({
    workloadApi: { endpoint: spiffe.endpoint('api') },
    inbound: [{ name: 'in', listen: '127.0.0.1:0', to, allow: [WEB], ...options.listener, ...more }],
    ...options.file,
  });
  const sidecar = await startSidecar(t, config({}), options.sidecar);
  const web = presented(await spiffe.issue(WEB));
  const address = sidecar.address('in');
  return {
    spiffe,
    sidecar,
    address,
    web,
    with: config,
    async connect(more) {
      const socket = tlsClient(t, address, web, more);
      await once(socket, 'secureConnect');
      return socket;
    },
  };
}

export interface OutboundStage {
  readonly spiffe: DevDomain;
  readonly sidecar: Sidecar;
  readonly address: string;
  readonly with: (listener: object) => object;
}

/** One sidecar with an outbound listener `out` that leads to `to` and accepts api there. */
export async function startOutbound(
  t: TestContext,
  to: string,
  options: StageOptions & { readonly spiffe: DevDomain },
): Promise<OutboundStage> {
  const { spiffe } = options;
  const config = (more: object): object => ({
    workloadApi: { endpoint: spiffe.endpoint('web') },
    outbound: [{ name: 'out', listen: '127.0.0.1:0', to, expect: [API], ...options.listener, ...more }],
    ...options.file,
  });
  const sidecar = await startSidecar(t, config({}), options.sidecar);
  return { spiffe, sidecar, address: sidecar.address('out'), with: config };
}

/** A TLS server that is api, and an outbound sidecar that leads to it. */
export async function startOutboundToApi(
  t: TestContext,
  serve: (socket: TLSSocket) => void,
  options: StageOptions & { readonly tls?: TlsOptions } = {},
): Promise<OutboundStage & { readonly server: Awaited<ReturnType<typeof tlsServer>> }> {
  const spiffe = options.spiffe ?? (await startExampleDomain(t));
  const server = await tlsServer(t, presented(await spiffe.issue(API)), serve, options.tls);
  return { ...(await startOutbound(t, server.address, { ...options, spiffe })), server };
}

export interface PairStage {
  readonly spiffe: DevDomain;
  readonly inbound: Sidecar;
  readonly outbound: Sidecar;
  /** Where the calling application connects. */
  readonly address: string;
}

/** Two sidecars, from a caller that is web to the application at `to`, which is api. */
export async function startPair(
  t: TestContext,
  to: string,
  options: { readonly spiffe?: DevDomain; readonly inbound?: object; readonly outbound?: object; readonly file?: object } = {},
): Promise<PairStage> {
  const spiffe = options.spiffe ?? (await startExampleDomain(t));
  const { sidecar: inbound, address: middle } = await startInbound(t, to, {
    spiffe,
    ...(options.inbound && { listener: options.inbound }),
    ...(options.file && { file: options.file }),
  });
  const { sidecar: outbound, address } = await startOutbound(t, middle, {
    spiffe,
    ...(options.outbound && { listener: options.outbound }),
    ...(options.file && { file: options.file }),
  });
  return { spiffe, inbound, outbound, address };
}
