/**
 * `--work jwt`: what it costs to validate the JWT-SVID of each request, known and unknown. Scute stands beside itself and Envoy's filter
 * `jwt_authn`, and its validator alone beside that of go-spiffe.
 */
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { get, type IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { create } from '@bufbuild/protobuf';
import type { DevDomain } from '../src/devdomain/dev-domain.ts';
import { JWTBundlesResponseSchema } from '../src/gen/workload_pb.ts';
import { findPart, part } from '../test/interop/parts.ts';
import { jwk, jwks, testKey, token } from '../test/support/tokens/tokens.ts';
import type { Job } from './load.ts';
import type { ToValidate } from './jwt-validator.ts';
import { median } from './median.ts';
import type { Beside, BesideItself } from './overhead.ts';
import type { Peer } from './peer.ts';
import { envoyWith } from './peers/envoy.ts';
import { metricsSocket, scuteWith } from './peers/scute.ts';
import { endAll, PROXY_CORE, spawnPinned } from './process.ts';
import { compare, type Row } from './report.ts';
import { runWork, type Measured } from './run-work.ts';
import type { Subject, Work } from './work.ts';
import { HTTP1, rates, REQUESTS } from './works.ts';

/** Of what comes through without, with a token that is known. */
const LEAST_RATIO = 0.9;
const TRUST_DOMAIN = 'bench.test';
const AUDIENCE = 'orders';
const SUBJECT = 'spiffe://bench.test/caller';
const LIFE_SECONDS = 6 * 3600;
/** Callers whose tokens are known, each over a connection of its own. */
const KNOWN = 64;
/** More than anybody remembers, one after the other: each is verified anew. */
const UNKNOWN = 25_000;
const VALIDATED = 5000;
/** Of the tokens of one job, those that were what they should be. */
const LEAST_SHARE = 0.98;

export const JWT_WORK = {
  name: 'jwt',
  what: `http1 with a JWT-SVID validated on each request: one of ${KNOWN} that are known, and one that is not; beside Scute that looks at none, and at requests that have none; validators alone`,
} as const;

const WORK = { ...JWT_WORK, ...HTTP1 };
const KNOWN_LINE = { ...REQUESTS, variant: 'known' };
const UNKNOWN_LINE = { ...REQUESTS, variant: 'unknown' };
const VALIDATE_LINE = { variant: 'validate', unit: 'tokens/cpu-s', better: 'higher' } as const;

/** In each round all of them, in turns. */
export async function runJwt({
  rounds,
  load,
  certificates,
  version,
  signal,
  domain,
}: BesideItself & { readonly domain: DevDomain }): Promise<readonly Beside[]> {
  const directory = mkdtempSync(join(tmpdir(), 'scute-bench-jwt-'));
  try {
    const material = writeMaterial(directory);
    const bundles = { [`spiffe://${TRUST_DOMAIN}`]: Buffer.from(material.jwks) };
    domain.answers('server').jwtBundles.set({ kind: 'message', message: create(JWTBundlesResponseSchema, { bundles }) });
    let socket = '';
    const peers = peersOf(material, (directory) => (socket = metricsSocket(directory)));
    const measure = async (subject: Subject, job: Partial<Job>, result: 'known' | 'verified'): Promise<number> => {
      const before = subject.peer === peers[0] ? await tokensOf(socket) : undefined;
      const { values } = await rates(subject, [{ connections: KNOWN, ...job }]);
      if (before !== undefined) requireMostly(result, before, await tokensOf(socket));
      return values[0] ?? Number.NaN;
    };
    const work: Work = {
      ...WORK,
      lines: [KNOWN_LINE, UNKNOWN_LINE],
      keep: true,
      measure: async (subject) => {
        const known = await measure(subject, {}, 'known');
        // Who looks at no token has the same to do.
        const more = subject.peer.job?.subject === undefined ? {} : { tokenFile: material.unknown, newTokens: true };
        return { values: [known, await measure(subject, more, 'verified')] };
      },
    };
    const named = (name: string, of = version) => ({ name, version: of, notes: {} });
    const theirs = peers.slice(1).map((peer) => named(peer.name, peer.version()));
    const measured = await runWork(work, { peers, rounds, load, certificates, signal });
    const rows = measured.flatMap((line) => compare(line, named('scute'), theirs));
    const validated = await validators(material, rounds, signal);
    return [
      ...rows.map((row) => ({ row, problem: problemOf(row) })),
      ...compare(validated, named('scute'), [named('go-spiffe', '2.x')]).map((row) => ({ row: { ...row, tls: '' }, problem: undefined })),
    ];
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

type Counts = Readonly<Record<'known' | 'verified', number>>;

/** What became of tokens so far. */
async function tokensOf(socketPath: string): Promise<Counts> {
  const [response] = (await once(get({ socketPath, path: '/metrics' }), 'response')) as [IncomingMessage];
  const metrics = await text(response);
  const count = (result: string): number =>
    Number(new RegExp(`^scute_jwt_tokens_total\\{listener="inbound",result="${result}"\\} (\\d+)$`, 'm').exec(metrics)?.[1]);
  return { known: count('known'), verified: count('verified') };
}

/** Tokens that were verified although they should be known, or the other way round, would be another measurement. */
function requireMostly(result: keyof Counts, before: Counts, after: Counts): void {
  const [known, verified] = [after.known - before.known, after.verified - before.verified];
  // Each is verified before it is known.
  const others = result === 'known' ? verified - KNOWN : known;
  const share = 1 - others / (known + verified);
  if (!(share > LEAST_SHARE)) throw new Error(`of ${known + verified} tokens ${known} were known and ${verified} verified`);
}

function problemOf({ variant, peer, ratio }: Row): string | undefined {
  if (variant !== KNOWN_LINE.variant || peer !== 'without' || ratio >= LEAST_RATIO) return undefined;
  return `${JWT_WORK.name} ${variant}: ${ratio} of what comes through without, and ${LEAST_RATIO} is the least`;
}

interface Material {
  readonly jwks: string;
  /** Files with a token a line. */
  readonly known: string;
  readonly unknown: string;
  readonly validated: string;
}

function writeMaterial(directory: string): Material {
  const key = testKey('bench');
  const now = Math.floor(Date.now() / 1000);
  const write = (name: string, count: number): string => {
    const each = Array.from({ length: count }, (_, at) =>
      token({ key, claims: { sub: SUBJECT, aud: [AUDIENCE], iat: now, exp: now + LIFE_SECONDS, jti: `${name} ${at}` } }),
    );
    const file = join(directory, name);
    writeFileSync(file, `${each.join('\n')}\n`);
    return file;
  };
  return {
    jwks: jwks(jwk(key)),
    known: write('known', KNOWN),
    unknown: write('unknown', UNKNOWN),
    validated: write('validated', VALIDATED),
  };
}

function peersOf({ jwks: keys, known }: Material, startsIn: (directory: string) => void): readonly Peer[] {
  const served = (directory: string): object => ({ metrics: { listen: `unix://${metricsSocket(directory)}` } });
  const withToken = { tokenFile: known, subject: SUBJECT };
  const scute = (name: string, job: Peer['job'], more: object = {}, lookedAtBy = served): Peer => ({
    ...scuteWith(name, lookedAtBy, (peer) => [peer], more),
    ...(job !== undefined && { job }),
  });
  const envoy = envoyWith([jwtFilter(keys)], withToken);
  return [
    scute('scute', withToken, { jwt: { audiences: [AUDIENCE] } }, (directory) => {
      startsIn(directory);
      return served(directory);
    }),
    scute('without', { tokenFile: known }),
    scute('tokenless', undefined),
    ...(envoy.version() === undefined ? [] : [envoy]),
  ];
}

/** Does what Scute does: the audience, the time, the subject in a field of its own, the token goes no further; verified tokens are kept. */
function jwtFilter(keys: string): object {
  return {
    name: 'jwt',
    typed_config: {
      '@type': 'type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication',
      providers: {
        spiffe: {
          audiences: [AUDIENCE],
          local_jwks: { inline_string: keys },
          claim_to_headers: [{ header_name: 'x-spiffe-jwt-subject', claim_name: 'sub' }],
          clock_skew_seconds: 30,
          jwt_cache_config: { jwt_cache_size: 1000 },
        },
      },
      rules: [{ match: { prefix: '/' }, requires: { provider_name: 'spiffe' } }],
    },
  };
}

/** Both on the core of the proxies, one after the other, in a process of its own each time. */
async function validators(material: Material, rounds: number, signal: AbortSignal): Promise<Measured> {
  const ours: number[] = [];
  const theirs: number[] = [];
  const hasGo = !('missing' in findPart('go-spiffe'));
  for (let round = 0; round < rounds; round++) {
    signal.throwIfAborted();
    ours.push((VALIDATED * 1e6) / (await scuteValidates(material, signal)));
    if (hasGo) theirs.push((VALIDATED * 1e6) / goValidates(material));
  }
  if (median(ours) <= 0) throw new Error('no token was validated');
  return {
    work: { ...WORK, lines: [VALIDATE_LINE], keep: true, measure: () => Promise.reject(new Error('it is measured')) },
    line: VALIDATE_LINE,
    values: new Map([
      ['scute', ours],
      ['go-spiffe', theirs],
    ]),
    tls: new Map(),
    lateRounds: new Map(),
  };
}

async function scuteValidates({ jwks: keys, validated: tokenFile }: Material, signal: AbortSignal): Promise<number> {
  const child = spawnPinned(PROXY_CORE, [process.execPath, join(import.meta.dirname, 'jwt-validator.ts')], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  try {
    const ask: ToValidate = { trustDomain: TRUST_DOMAIN, jwks: keys, tokenFile, audience: AUDIENCE, subject: SUBJECT };
    child.send(ask);
    const [{ cpuUs }] = (await once(child, 'message', { signal })) as [{ readonly cpuUs: number }];
    return cpuUs;
  } finally {
    await endAll(child);
  }
}

function goValidates({ jwks: keys, validated }: Material): number {
  const tokens = readFileSync(validated, 'utf8').trim().split('\n');
  // As Scute's, once before it counts: there is nothing that would be compiled, but memory to be had.
  const input = [{ [TRUST_DOMAIN]: JSON.parse(keys) as unknown }, ...tokens].map((line) => JSON.stringify(line)).join('\n');
  const said = execFileSync('taskset', ['-c', PROXY_CORE, part('go-spiffe'), 'validate', '-audience', AUDIENCE], {
    input: `${input}\n`,
    env: { ...process.env, GOMAXPROCS: '1' },
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
  });
  const { answers, cpu_us: cpuUs } = JSON.parse(said) as { readonly answers: readonly { readonly id?: string }[]; readonly cpu_us: number };
  if (answers.length !== tokens.length || answers.some(({ id }) => id !== SUBJECT)) throw new Error('go-spiffe refused a good token');
  if (!(cpuUs > 0)) throw new Error('the go-spiffe at hand does not say what it took: run "node test/interop/setup.ts"');
  return cpuUs;
}
