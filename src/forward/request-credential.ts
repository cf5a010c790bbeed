/** A token that is put on requests before they go to a server. */
export interface RequestCredential {
  /** Of its field, as `Fields.readsAs` compares names. */
  readonly name: Uint8Array;
  /** A field of that name goes no further; else a request that has one goes as it is. */
  readonly replaces: boolean;
  /** The field line of a token that is valid now, with its CRLF; undefined if there is none. */
  line(): Buffer | undefined;
  /** For a request that finds none: `done` is told once, at once or later, why there is none, in words for the application; undefined if there is one now. */
  wait(done: (problem: string | undefined) => void): { abort(): void };
}
