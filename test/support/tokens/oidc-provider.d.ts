/** What the tests use of it: the package has no types of its own. */
declare module 'oidc-provider' {
  import type { RequestListener } from 'node:http';
  import type { TLSSocket } from 'node:tls';

  export interface Context {
    readonly oidc: {
      readonly client: { readonly clientId: string };
      readonly params: Readonly<Record<string, string | undefined>>;
      entity(name: string, token: object): void;
    };
    readonly socket: TLSSocket;
    body: unknown;
  }

  export interface StoredToken {
    readonly clientId: string;
    readonly scope?: string;
    readonly isValid: boolean;
    readonly expiration: number;
    save(): Promise<string>;
  }

  export class Provider {
    constructor(issuer: string, configuration: object);
    readonly ClientCredentials: {
      new (properties: object): StoredToken;
      find(value: string): Promise<StoredToken | undefined>;
    };
    callback(): RequestListener;
    registerGrantType(name: string, handler: (context: Context) => Promise<void>, parameters: readonly string[]): void;
  }

  export const errors: { readonly InvalidGrant: new (message: string) => Error };
}
