import type { FileSetConfig } from '../config/file-sets.ts';
import { readText } from '../config/whole-file.ts';
import type { IdentitySnapshot } from '../identity/snapshot.ts';
import type { IdentityView } from '../identity/store.ts';
import { createBackoff } from '../lib/backoff.ts';
import type { Clock } from '../lib/clock.ts';
import { err, ok, type Result } from '../lib/result.ts';
import type { FilesEvents } from '../telemetry/events/files-events.ts';
import { isToldLater, type FileSetInForce, type FileSetStatus, type SetFailure } from '../telemetry/log/files-records.ts';
import { materialOf, plainFiles, type EncodeProblem, type HeldJwt, type SetFile, type SetMaterial } from './encode.ts';
import { SetWriteError } from './folder.ts';
import type { Notifier } from './notifier.ts';
import type { SetWriter } from './writer.ts';

/** How often it is looked whether the files are still there, and time has changed what they should be. */
const LOOK_EVERY_MS = 5000;
const RETRY = { initialMs: 500, maxMs: 30_000 };
const MAX_PASSWORD_BYTES = 1024;

/** Tells when there is another token, or why there is none. */
export interface WatchedJwt extends HeldJwt {
  /** Returns the way to stop. */
  subscribe(changed: () => void): () => void;
}

export interface FileSetOptions {
  readonly config: FileSetConfig;
  readonly identity: IdentityView;
  /** For the `jwtSvids` of the set, in their order. */
  readonly tokens: readonly WatchedJwt[];
  readonly writer: SetWriter;
  readonly notifiers: readonly Notifier[];
  readonly events: FilesEvents;
  readonly clock: Clock;
  readonly random: () => number;
}

/** One set: keeps the files what the identity in force makes them. */
export class FileSet {
  readonly #options: FileSetOptions;
  /** What was made last, and of what. */
  #material:
    | {
        readonly of: readonly unknown[];
        readonly made: Result<SetMaterial, EncodeProblem>;
      }
    | undefined;
  #fingerprint: string | undefined;
  #inForce: FileSetInForce | undefined;
  #problem: SetFailure | undefined;
  #asked = false;
  #wake: () => void = () => {};

  constructor(options: FileSetOptions) {
    this.#options = options;
    options.events.set(options.config.name);
    this.#problem = { reason: 'no_svid', detail: 'no identity has come yet' };
  }

  get status(): FileSetStatus {
    const { config, notifiers } = this.#options;
    const { name, directory, identity } = config;
    return { name, directory, identity, inForce: this.#inForce, problem: this.#problem, notify: notifiers.map((each) => each.status) };
  }

  /** Keeps the files current until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { identity, tokens, writer, random, notifiers } = this.#options;
    const changed = (): void => {
      this.#asked = true;
      this.#wake();
    };
    const leaves = [identity.subscribe(changed), ...tokens.map((token) => token.subscribe(changed))];
    const telling = notifiers.map((notifier) => notifier.run(signal));
    const backoff = createBackoff({ ...RETRY, random });
    // What cannot be removed now is told when the set is written.
    await writer.tidy().catch(() => {});
    while (!signal.aborted) {
      this.#asked = false;
      await this.#bring();
      const isRetry = this.#problem !== undefined && !isToldLater(this.#problem.reason);
      if (!isRetry) backoff.reset();
      await this.#nap(isRetry ? backoff.next() : Math.min(LOOK_EVERY_MS, this.#changesInMs()), signal);
    }
    for (const leave of leaves) leave();
    await Promise.all(telling);
  }

  /** After `run` is over. */
  async cleanUp(): Promise<void> {
    if (this.#options.config.cleanUpOnStop) await this.#options.writer.cleanUp();
  }

  #changesInMs(): number {
    const made = this.#material?.made;
    return made?.ok === true ? Math.max(made.value.changesAtMs - this.#options.clock.now(), 0) : Infinity;
  }

  /** The files are made what they should be, if they are not. */
  async #bring(): Promise<void> {
    const { config, writer, notifiers, events, clock, identity } = this.#options;
    const { name, directory } = config;
    const snapshot = identity.current();
    const material = this.#materialOf(snapshot);
    if (!material.ok) {
      const { isEarly = false, ...problem } = material.error;
      this.#problem = problem;
      if (isEarly && this.#inForce === undefined) events.waiting(name);
      else events.failed(name, problem);
      return;
    }
    if (material.value.fingerprint === this.#fingerprint) {
      if (await writer.isIntact()) {
        this.#problem = undefined;
        events.unchanged(name);
        return;
      }
      if (this.#problem === undefined) events.damaged(name, directory);
    }
    const beganMs = clock.monotonic();
    const files = await this.#filesOf(material.value);
    if (!files.ok) return this.#failed(files.error);
    try {
      await writer.replace(files.value);
    } catch (cause) {
      if (!(cause instanceof SetWriteError)) throw cause;
      return this.#failed({ reason: cause.reason, detail: cause.message });
    }
    this.#problem = undefined;
    this.#fingerprint = material.value.fingerprint;
    this.#inForce = inForceOf(material.value, files.value, clock.now());
    events.replaced(name, this.#inForce, clock.monotonic() - beganMs, material.value.notes);
    for (const notifier of notifiers)
      notifier.replaced({ set: name, directory, spiffeId: material.value.svid.id, replacedAtMs: clock.monotonic() });
  }

  #failed(failure: SetFailure): void {
    this.#problem = failure;
    this.#options.events.failed(this.#options.config.name, failure);
  }

  #materialOf(snapshot: IdentitySnapshot | undefined): Result<SetMaterial, EncodeProblem> {
    const { config, clock, tokens } = this.#options;
    const nowMs = clock.now();
    const of = [snapshot, ...tokens.flatMap((token) => [token.current(), token.problem])];
    const known = this.#material;
    const isKnown = known !== undefined && known.of.every((each, index) => each === of[index]);
    if (isKnown && (!known.made.ok || nowMs < known.made.value.changesAtMs)) return known.made;
    const made = materialOf(snapshot, config, tokens, nowMs);
    this.#material = { of, made };
    return made;
  }

  async #filesOf(material: SetMaterial): Promise<Result<readonly SetFile[], EncodeProblem>> {
    const { config } = this.#options;
    if (config.format !== 'pkcs12') return plainFiles(material, config);
    const password = await readPassword(config.passwordFile ?? '');
    if (!password.ok) return password;
    const { storeFiles } = await import('./pkcs12.ts');
    return ok(await storeFiles(material, config.names, password.value));
  }

  async #nap(ms: number, signal: AbortSignal): Promise<void> {
    if (this.#asked) return;
    const awake = new AbortController();
    this.#wake = () => awake.abort();
    await this.#options.clock.sleep(ms, AbortSignal.any([signal, awake.signal]));
    this.#wake = () => {};
  }
}

function inForceOf({ svid, chain, bundles, trustDomain, expires }: SetMaterial, files: readonly SetFile[], nowMs: number): FileSetInForce {
  const [leaf] = chain;
  const certificates = [...(leaf === undefined ? [] : svid.chain), ...bundles.flatMap(({ authorities }) => authorities)];
  return {
    spiffeId: svid.id,
    trustDomain,
    leaf: leaf?.sha256,
    certificates: new Set(certificates.map(({ sha256 }) => sha256)),
    expires,
    writtenAtMs: nowMs,
    files: files.map(({ name }) => name),
  };
}

/** The first line, in visible ASCII: programs do not agree on how others become a key. */
async function readPassword(file: string): Promise<Result<string, EncodeProblem>> {
  const text = await readText(file, MAX_PASSWORD_BYTES);
  if (!text.ok) return err({ reason: 'bad_password', detail: `${file} ${text.error.message}` });
  const password = text.value.split('\n')[0]?.replace(/\r$/, '') ?? '';
  if (!/^[\x20-\x7e]{6,}$/.test(password))
    return err({ reason: 'bad_password', detail: `${file}:1:1: the password must be 6 characters or more, all of them visible ASCII` });
  return ok(password);
}
