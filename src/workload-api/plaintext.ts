import type { Socket } from 'node:net';
import { ChannelCredentials, credentials, type CallCredentials, type ChannelOptions, type experimental } from '@grpc/grpc-js';
import type { Clock, Timer } from '../lib/clock.ts';

type ConnectorArguments = Parameters<ChannelCredentials['_createSecureConnector']>;

/** Time for a connection to end in order: gRPC's last frames are on their way. */
const CLOSING_MS = 1000;

/**
 * Plaintext for one channel, as the Workload API has it, that remembers the channel's sockets. A closed gRPC channel waits for its peer before
 * it lets go of a connection; one whose peer never answers (a frozen agent, or something that is none) would stay open for good, one more
 * with each attempt.
 */
export class PlaintextChannel extends ChannelCredentials {
  readonly #plain = credentials.createInsecure();
  readonly #sockets = new Set<Socket>();
  #released = false;
  #closing: Timer | undefined;

  override _isSecure(): boolean {
    return false;
  }

  override _equals(other: ChannelCredentials): boolean {
    return other === this;
  }

  override _createSecureConnector(
    target: ConnectorArguments[0],
    options: ChannelOptions,
    calls?: CallCredentials,
  ): experimental.SecureConnector {
    // oxlint-disable-next-line no-underscore-dangle -- how gRPC names what credentials implement
    const connector = this.#plain._createSecureConnector(target, options, calls);
    return {
      connect: (socket) => {
        this.#keep(socket);
        return connector.connect(socket);
      },
      waitForReady: () => connector.waitForReady(),
      getCallCredentials: () => connector.getCallCredentials(),
      destroy: () => connector.destroy(),
    };
  }

  /** The channel has been closed: what is still connected after a moment is cut. */
  release(clock: Clock): void {
    this.#released = true;
    if (this.#sockets.size === 0) return;
    this.#closing = clock.after(CLOSING_MS, () => {
      for (const socket of this.#sockets) socket.destroy();
    });
  }

  #keep(socket: Socket): void {
    if (this.#released) socket.destroy();
    this.#sockets.add(socket);
    socket.once('close', () => {
      this.#sockets.delete(socket);
      if (this.#sockets.size === 0) this.#closing?.cancel();
    });
  }
}
