import { request } from 'node:http';
import type { Address } from '../../../src/config/units.ts';

export interface AskOptions {
  readonly method?: string;
  /** Sent as they are, in this order; a name may come twice. Without `host`, one is added. */
  readonly headers?: readonly (readonly [string, string])[];
  /** Sends no Host header at all. */
  readonly withoutHost?: boolean;
  readonly body?: string | Buffer;
}

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}

/** One HTTP request on a connection of its own, with exactly these headers: browsers and `fetch` do not let Host and Origin be set. */
export function ask(address: Address, path: string, options: AskOptions = {}): Promise<Answer> {
  const { method = 'GET', headers = [], body } = options;
  const hasHost = headers.some(([name]) => name.toLowerCase() === 'host');
  const all = hasHost || options.withoutHost === true ? headers : [['host', 'localhost'] as const, ...headers];
  const length = body === undefined ? [] : [['content-length', String(Buffer.byteLength(body))] as const];
  return new Promise((resolve, reject) => {
    const sent = request(
      {
        ...(address.kind === 'unix' ? { socketPath: address.path } : { host: address.host, port: address.port }),
        method,
        path,
        headers: [...all, ...length].flat(),
        setHost: false,
        agent: false,
      },
      (response) => {
        let text = '';
        response.setEncoding('utf8');
        response.on('data', (chunk: string) => {
          text += chunk;
        });
        response.on('error', reject);
        response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body: text }));
      },
    );
    sent.on('error', reject);
    sent.end(body);
  });
}
