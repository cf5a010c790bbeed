/** What is used of http-proxy 1.18.1, which has no types of its own. `http2-engine.ts` alone imports it. */
declare module 'http-proxy' {
  import type { Agent, ClientRequest, IncomingMessage } from 'node:http';

  namespace HttpProxy {
    /** What the `stream` pass needs of a request. */
    interface Incoming {
      readonly method: string;
      readonly url: string;
      readonly headers: object;
      readonly socket: { readonly destroyed: boolean };
      on(event: 'aborted' | 'error', listener: (error: Error) => void): unknown;
      /** Called with the request to the target, to write the body to it. */
      pipe(request: ClientRequest): unknown;
    }
    /** What it needs of a response that its caller writes by itself. */
    interface Outgoing {
      readonly headersSent: boolean;
      readonly finished: boolean;
    }
    interface Options {
      readonly target: { readonly protocol: string; readonly host: string; readonly port: number };
      readonly agent: Agent;
      /** The object that is made the options of Node's request. */
      readonly ssl: object;
      readonly selfHandleResponse: boolean;
      /** Do not take the URL apart. */
      readonly toProxy: boolean;
    }
    type Failed<I> = (error: Error, incoming: I) => void;
    type Pass = (this: void, ...args: never) => unknown;
  }

  class HttpProxy<I extends HttpProxy.Incoming, O extends HttpProxy.Outgoing> {
    /** Run in turn on each request. */
    webPasses: HttpProxy.Pass[];
    on(event: 'proxyRes', listener: (response: IncomingMessage, incoming: I, outgoing: O) => void): this;
    web(incoming: I, outgoing: O, options: HttpProxy.Options, failed: HttpProxy.Failed<I>): void;
  }
  export = HttpProxy;
}

declare module 'http-proxy/lib/http-proxy/passes/web-incoming.js' {
  import type HttpProxy from 'http-proxy';

  const passes: Readonly<Record<'deleteLength' | 'timeout' | 'XHeaders' | 'stream', HttpProxy.Pass>>;
  export default passes;
}
