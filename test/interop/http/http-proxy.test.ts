/** The tests of HTTP/2 peers once more, with http-proxy for what carries them to applications that speak HTTP/1.1. */
process.env['SCUTE_TEST_TRANSLATION'] = 'http-proxy';

await import('../../integration/http2/adversary.test.ts');
await import('../../integration/http2/failures.test.ts');
await import('../../integration/http2/forwarding.test.ts');
await import('../../integration/http2/lifecycle.test.ts');
await import('../../integration/http/dismissal.test.ts');
await import('../../integration/http/expected.test.ts');
await import('../../integration/http/hop-by-hop.test.ts');
await import('../../integration/http/keep-alive.test.ts');
await import('../../integration/jwt/inbound.test.ts');
await import('../../integration/policy/live-http.test.ts');
await import('../../integration/policy/requests.test.ts');
