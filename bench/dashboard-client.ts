/** Who looks at Scute: a page that stands open, and a Prometheus. They run in the benchmark's own process, on the load's core. */
import { once } from 'node:events';
import { Agent, request, type IncomingMessage, type RequestOptions } from 'node:http';
import { createInterface } from 'node:readline';
import type { StreamEvent, StreamTopic } from '../src/admin/api-types.ts';
import { QUESTIONS, type Question } from '../src/dashboard/questions.ts';

/** What was answered so far. */
export interface Seen {
  readonly events: number;
  readonly answers: number;
  readonly scrapes: number;
  readonly bytes: number;
}

export interface Watching {
  /** Throws if anything was not answered as it should. */
  seen(): Seen;
  stop(): void;
}

/** All that the first page and the head of each ask for, and the first page of connections as the page of one peer has it. */
const ASKED: readonly Question[] = [...Object.values(QUESTIONS), { path: 'api/v1/connections?limit=25', topics: ['peers', 'traffic'] }];
const EVERY_MS = 1000;
const SCRAPE_EVERY_MS = 1000;
/** A browser has six connections to one origin, and one is the stream's. */
const BROWSER_CONNECTIONS = 5;

/** What a browser and Prometheus say beside. */
const BROWSER = {
  'user-agent': 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36',
  accept: '*/*',
  'accept-encoding': 'gzip, deflate, br, zstd',
  'accept-language': 'en',
  'sec-fetch-site': 'same-origin',
  'sec-fetch-mode': 'cors',
  'sec-fetch-dest': 'empty',
};
const PROMETHEUS = {
  host: 'localhost',
  'user-agent': 'Prometheus/3.7.3',
  accept: 'application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1',
  'accept-encoding': 'gzip',
};

/** Opens a page on the admin listener of that port, and scrapes the metrics listener of that socket, until it is stopped. */
export function watch({ adminPort, metricsSocket }: { readonly adminPort: number; readonly metricsSocket: string }): Watching {
  const stop = new AbortController();
  const seen = { events: 0, answers: 0, scrapes: 0, bytes: 0 };
  let problem: unknown;
  const fail = (cause: unknown): void => {
    if (!stop.signal.aborted) problem ??= cause;
  };
  const browser = new Agent({ keepAlive: true, maxSockets: BROWSER_CONNECTIONS });
  const prometheus = new Agent({ keepAlive: true, maxSockets: 1 });
  const page = (path: string): RequestOptions => ({ host: '127.0.0.1', port: adminPort, path: `/${path}`, headers: BROWSER });
  const read = async (options: RequestOptions, count: 'answers' | 'scrapes'): Promise<void> => {
    const response = await answerOf({ ...options, signal: stop.signal });
    for await (const part of response) seen.bytes += (part as Buffer).length;
    seen[count] += 1;
  };

  const questions = ASKED.map((question) => new Asking(question, () => read({ ...page(question.path), agent: browser }, 'answers'), fail));
  const listen = async (): Promise<void> => {
    const stream = await answerOf({ ...page('api/v1/stream'), agent: false, signal: stop.signal });
    for await (const line of createInterface({ input: stream })) {
      if (!line.startsWith('data: ')) continue;
      seen.events += 1;
      const { revisions } = JSON.parse(line.slice('data: '.length)) as StreamEvent;
      for (const question of questions) question.changed(Object.keys(revisions) as StreamTopic[]);
    }
    throw new Error('the stream ended');
  };
  listen().catch(fail);
  const scraping = setInterval(() => {
    read({ socketPath: metricsSocket, path: '/metrics', headers: PROMETHEUS, agent: prometheus }, 'scrapes').catch(fail);
  }, SCRAPE_EVERY_MS);

  return {
    seen: () => {
      if (problem !== undefined) throw problem;
      return { ...seen };
    },
    stop: () => {
      stop.abort();
      clearInterval(scraping);
      for (const question of questions) question.stop();
      browser.destroy();
      prometheus.destroy();
    },
  };
}

/** One question of a page, asked when `Resource` of src/dashboard/live.ts would: at a change, not twice at once, nor before its time. */
class Asking {
  readonly #question: Question;
  readonly #ask: () => Promise<void>;
  readonly #fail: (cause: unknown) => void;
  #isNews = false;
  #isAsking = false;
  #askedMs = -Infinity;
  #timer: NodeJS.Timeout | undefined;

  constructor(question: Question, ask: () => Promise<void>, fail: (cause: unknown) => void) {
    this.#question = question;
    this.#ask = ask;
    this.#fail = fail;
  }

  changed(topics: readonly StreamTopic[]): void {
    if (!topics.some((topic) => this.#question.topics.includes(topic))) return;
    this.#isNews = true;
    this.#schedule();
  }

  stop(): void {
    clearTimeout(this.#timer);
  }

  #schedule(): void {
    if (!this.#isNews || this.#isAsking || this.#timer !== undefined) return;
    const dueMs = this.#askedMs + (this.#question.everyMs ?? EVERY_MS);
    this.#timer = setTimeout(() => void this.#asked(), Math.max(dueMs - performance.now(), 0));
  }

  async #asked(): Promise<void> {
    this.#timer = undefined;
    this.#isNews = false;
    this.#isAsking = true;
    try {
      await this.#ask();
    } catch (cause) {
      this.#fail(cause);
      return;
    }
    this.#isAsking = false;
    this.#askedMs = performance.now();
    this.#schedule();
  }
}

async function answerOf(options: RequestOptions): Promise<IncomingMessage> {
  const [response] = (await once(request(options).end(), 'response')) as [IncomingMessage];
  if (response.statusCode === 200) return response;
  response.destroy();
  throw new Error(`${options.path ?? ''} was answered with ${response.statusCode}`);
}
