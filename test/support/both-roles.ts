/**
 * One whole sidecar between a peer that a test makes up and an application that answers a line, in both roles: as server
 * (an inbound listener before the application) and as client (an outbound listener towards the peer). Whether a peer was
 * let in is read off the wire, why it was not off the log.
 */
import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { createSecureContext, type SecureContextOptions, type TLSSocket } from 'node:tls';
import type { TestContext } from 'node:test';
import { eventually } from './eventually.ts';
import { createTestAuthority, pemOf, type TestAuthority, type TestCertificate } from './pki/pki.ts';
import { startSidecar, type LogLine, type Sidecar, type SidecarOptions } from './sidecar.ts';
import { dial, startTcpServer } from './tcp.ts';
import { outcome, tlsClient, tlsServer, type Presented } from './tls-peer.ts';
import { FakeWorkloadApi, svidEntry, type BundleMap, type SvidEntry } from './workload-api.ts';

/** What Scute is to the peer: TLS server (inbound) or client (outbound). */
export type Role = 'server' | 'client';
export const ROLES: readonly Role[] = ['server', 'client'];

const QUESTION = 'question\n';
const ANSWER = 'answer\n';
const LISTENERS = { server: 'in', client: 'out' } as const;

/** What one connection with a peer came to. */
export interface Meeting {
  readonly peerReceived: string;
  /** The application, in either role: the one behind the inbound listener, or the one that called the outbound one. */
  readonly applicationReceived: string;
  /** Connections that the inbound application saw. */
  readonly applicationConnections: number;
  /** What Scute presented, as sent; empty if it came to no handshake. */
  readonly ours: readonly Buffer[];
  readonly line: LogLine;
}

export interface BothRoles {
  readonly api: FakeWorkloadApi;
  readonly sidecar: Sidecar;
  /** Changes what the Workload API says, and resolves when Scute has taken or refused it, with which of them. */
  readonly tell: (svids: readonly SvidEntry[], federated?: BundleMap, crls?: readonly Uint8Array[]) => Promise<'ok' | 'rejected'>;
  readonly meet: (role: Role, peer: Presented | undefined) => Promise<Meeting>;
  /** The peer and the application talked, and the peer was named in the log. */
  readonly admits: (role: Role, peer: TestCertificate, id: string) => Promise<Meeting>;
  /** The peer got no byte of the application and the application none of the peer nor even a connection; the log says why. */
  readonly refuses: (role: Role, peer: Presented | TestCertificate, reason: string) => Promise<Meeting>;
}

export interface BothRolesOptions {
  readonly federated?: BundleMap;
  /** Trust domains. */
  readonly alsoAllowed?: readonly string[];
  /** More settings of the file. */
  readonly file?: object;
  readonly sidecar?: SidecarOptions;
  /** What the peer speaks; by default what it likes best. */
  readonly tlsVersion?: 'TLSv1.2' | 'TLSv1.3';
}

/** Lets in every client of `example.org` and of the domains of `alsoAllowed`, and expects of a server to be `peer` of one of them. The sidecar is ready: it holds `svids`. */
export async function startBothRoles(
  t: TestContext,
  svids: readonly SvidEntry[],
  { federated, alsoAllowed = [], tlsVersion, file = {}, sidecar: options }: BothRolesOptions = {},
): Promise<BothRoles> {
  const peerTls: SecureContextOptions = tlsVersion === undefined ? {} : { minVersion: tlsVersion, maxVersion: tlsVersion };
  const api = await FakeWorkloadApi.start();
  t.after(() => api[Symbol.asyncDispose]());
  api.setX509(svids, federated);

  let applicationConnections = 0;
  let applicationReceived = '';
  const application = await startTcpServer(t, (socket) => {
    applicationConnections += 1;
    converse(socket, (text) => {
      applicationReceived += text;
    });
  });
  const server = await startPeerServer(t, peerTls);
  const domains = ['example.org', ...alsoAllowed];
  const allow = domains.map((domain) => `spiffe://${domain}/**`);
  const expect = domains.map((domain) => `spiffe://${domain}/peer`);
  const config = {
    workloadApi: { endpoint: api.endpoint },
    inbound: [{ name: LISTENERS.server, listen: '127.0.0.1:0', to: application.address, allow }],
    outbound: [{ name: LISTENERS.client, listen: '127.0.0.1:0', to: server.address, serverName: 'peer.test', expect }],
    ...file,
  };
  const sidecar = await startSidecar(t, config, options);

  const asServer = async (peer: Presented | undefined): Promise<Omit<Meeting, 'line'>> => {
    const [connections, received] = [applicationConnections, applicationReceived.length];
    const socket = tlsClient(t, sidecar.address(LISTENERS.server), peer, peerTls);
    let ours: readonly Buffer[] = [];
    socket.once('secureConnect', () => {
      ours = chainOf(socket);
      socket.write(QUESTION);
    });
    const { text } = await outcome(socket);
    return {
      peerReceived: text,
      applicationReceived: applicationReceived.slice(received),
      applicationConnections: applicationConnections - connections,
      ours,
    };
  };

  const asClient = async (peer: Presented): Promise<Omit<Meeting, 'line'>> => {
    server.become(peer);
    const caller = await dial(t, sidecar.address(LISTENERS.client));
    const chunks: Buffer[] = [];
    caller.on('data', (chunk: Buffer) => chunks.push(chunk));
    caller.on('end', () => caller.end());
    caller.write(QUESTION);
    await new Promise((resolve) => caller.once('close', resolve));
    const { received, ours } = await server.left();
    return { peerReceived: received, applicationReceived: Buffer.concat(chunks).toString(), applicationConnections: 0, ours };
  };

  const meet: BothRoles['meet'] = async (role, peer) => {
    const earlier = new Set(sidecar.log());
    if (role === 'client') assert.ok(peer, 'a TLS server has a certificate');
    const met = role === 'server' ? await asServer(peer) : await asClient(peer as Presented);
    const line = await sidecar.connection((each) => !earlier.has(each) && each['listener'] === LISTENERS[role]);
    return { ...met, line };
  };

  return {
    api,
    sidecar,
    meet,
    async tell(newSvids, newFederated, crls) {
      const before = await updateCounts(sidecar);
      api.setX509(newSvids, newFederated, crls);
      return eventually(async () => {
        const [taken, refused] = (await updateCounts(sidecar)).map((count, index) => count - (before[index] ?? 0));
        assert.equal((taken ?? 0) + (refused ?? 0), 1);
        return taken === 1 ? 'ok' : 'rejected';
      });
    },
    async admits(role, peer, id) {
      const meeting = await meet(role, present(peer));
      const { line, peerReceived, applicationReceived } = meeting;
      assert.equal(line['reason'], 'finished', `as ${role}: ${String(line['detail'])}`);
      assert.equal(line['peer_id'], id);
      assert.deepEqual([peerReceived, applicationReceived], role === 'server' ? [ANSWER, QUESTION] : [QUESTION, ANSWER]);
      return meeting;
    },
    async refuses(role, peer, reason) {
      const meeting = await meet(role, 'chainPem' in peer ? present(peer) : peer);
      const { line, peerReceived, applicationReceived, applicationConnections: connected } = meeting;
      assert.equal(line['verdict'], 'deny', `as ${role}: ${JSON.stringify(line)}`);
      assert.equal(line['reason'], reason, `as ${role}: ${String(line['detail'])}`);
      assert.deepEqual([peerReceived, applicationReceived, connected], ['', '', 0]);
      return meeting;
    },
  };
}

/** `certificate` and what stands between it and its root. */
export function present({ chainPem, keyPem }: TestCertificate): Presented {
  return { cert: chainPem, key: keyPem };
}

/** `leaf` with these certificates instead of its own intermediates, in this order. */
export function presentWith(leaf: TestCertificate, ...others: readonly Uint8Array[]): Presented {
  return { cert: [leaf.der, ...others].map((der) => pemOf('CERTIFICATE', der)).join(''), key: leaf.keyPem };
}

/** An SVID of ours, and the entry of the Workload API that gives it. */
export function ownSvid(authority: TestAuthority, id: string): { readonly entry: SvidEntry; readonly leaf: TestCertificate } {
  const leaf = authority.issue({ id });
  return { leaf, entry: svidEntry(authority, leaf, id) };
}

/** Authorities as a bundle map has them. */
export function bundleMap(...authorities: readonly TestAuthority[]): BundleMap {
  return Object.fromEntries(authorities.map(({ trustDomain, der }) => [`spiffe://${trustDomain}`, der]));
}

/** Answers of the Workload API that were taken, and that were rejected. */
function updateCounts(sidecar: Sidecar): Promise<readonly number[]> {
  return Promise.all(['ok', 'rejected'].map((result) => sidecar.metric('scute_x509_svid_updates_total', { result })));
}

interface PeerServer {
  readonly address: string;
  /** What the next connections are shown. */
  become(peer: Presented): void;
  /** When all connections are over: what they said, since last asked. */
  left(): Promise<{ readonly received: string; readonly ours: readonly Buffer[] }>;
}

/** A TLS server that greets at once, so that a byte of its before the verdict would be seen. */
async function startPeerServer(t: TestContext, tls: SecureContextOptions): Promise<PeerServer> {
  let context = createSecureContext();
  let received = '';
  let ours: readonly Buffer[] = [];
  let open = 0;
  const { address } = await tlsServer(
    t,
    present(createTestAuthority({ trustDomain: 'unused.test' }).issue()),
    (socket) => {
      open += 1;
      socket.once('close', () => {
        open -= 1;
      });
      ours = chainOf(socket);
      socket.write(ANSWER);
      converse(socket, (text) => {
        received += text;
      });
    },
    { ...tls, SNICallback: (_name, done) => done(null, context) },
  );
  return {
    address,
    become(peer) {
      context = createSecureContext({ ...peer });
    },
    left: () =>
      eventually(() => {
        assert.equal(open, 0, 'connections of the peer are still open');
        const seen = { received, ours };
        received = '';
        ours = [];
        return seen;
      }),
  };
}

/** Collects what the other side says and, once the question is complete, answers (a TLS peer did so already) and ends. */
function converse(socket: Socket, said: (text: string) => void): void {
  let text = '';
  socket.on('data', (chunk: Buffer) => {
    said(chunk.toString());
    text += chunk.toString();
    if (text !== QUESTION) return;
    if ('encrypted' in socket) socket.end();
    else socket.end(ANSWER);
  });
  socket.on('end', () => socket.end());
}

function chainOf(socket: TLSSocket): Buffer[] {
  const chain: Buffer[] = [];
  for (let sent = socket.getPeerX509Certificate(); sent !== undefined; sent = sent.issuerCertificate) chain.push(sent.raw);
  return chain;
}
