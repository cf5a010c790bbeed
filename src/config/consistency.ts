/** What a configuration must fulfil over and above its single fields. These checks also run on what is incomplete, so that all problems come at once. */
import type * as z from 'zod';
import { parseSpiffeId, pathOf, trustDomainOf, type SpiffeId } from '../spiffe/spiffe-id.ts';
import type { TrustDomain } from '../spiffe/trust-domain.ts';
import { foldName } from '../http1/fields.ts';
import { METHODS } from '../http1/request-head.ts';
import type { Policy } from '../policy/policy.ts';
import { HTTP_PROTOCOLS, PEER_PROTOCOLS } from './config.ts';
import { describeUseProblems, type PolicyUse } from './policy/policy-use.ts';
import { probeProblem } from './sections/probes.ts';
import { addressesOverlap, formatAddress, formatTarget, isLocal, isWebAddress, type Address } from './units.ts';

type Report = Pick<z.RefinementCtx, 'addIssue'>;

/** For `superRefine`: fields with problems of their own may be missing or hold anything, so the checks look before they use one. */
export const evenIfIncomplete = { when: () => true };

/** A Unix socket alone has a mode and a group. */
export function checkSocket(entry: unknown, report: Report): void {
  const listen = addressAt(entry, 'listen');
  if (listen?.kind !== 'tcp') return;
  for (const key of ['socketMode', 'socketGroup']) {
    if (at(entry, key) !== undefined) problem(report, [key], 'is for Unix sockets, and this listens on TCP');
  }
}

export function checkInbound(entry: unknown, report: Report): void {
  checkSocket(entry, report);
  checkProtocol(entry, report, 'inbound');
  checkRules(entry, report, ['allow', 'deny'], seesConnect(entry));
  checkPolicyFile(entry, report, 'inbound', ['allow', 'deny', 'policyMode']);
  if (at(entry, 'allow') === undefined && at(entry, 'policyFile') === undefined) problem(report, ['allow'], 'is required');
  checkTokens(entry, report);
  checkLoop(entry, report);
  const acceptFrom = listAt(at(entry, 'proxyProtocol'), 'acceptFrom') ?? [];
  if (acceptFrom.length > 0 && addressAt(entry, 'listen')?.kind === 'unix') {
    problem(report, ['proxyProtocol', 'acceptFrom'], 'names addresses, and this listens on a Unix socket, where nobody has one');
  }
  const to = addressAt(entry, 'to');
  if (to !== undefined && !isLocal(to) && at(entry, 'unsafeTarget') !== true) {
    problem(
      report,
      ['to'],
      `${formatAddress(to)} is not on this machine, and plain text would leave it: use a loopback address or a Unix socket, or set unsafeTarget`,
    );
  }
}

function takesConnect(entry: unknown): boolean {
  return at(at(entry, 'http'), 'extendedConnect') === true;
}

/** An application that speaks HTTP/1.1 gets a GET of it, and that is what is judged. */
function seesConnect(entry: unknown): boolean {
  return takesConnect(entry) && at(at(entry, 'http'), 'application') === 'h2c';
}

/** Nothing may be agreed on that is not spoken then. */
function checkProtocol(entry: unknown, report: Report, direction: 'inbound' | 'outbound'): void {
  if (at(entry, 'protocol') !== 'http') {
    for (const key of ['http', 'jwt']) if (at(entry, key) !== undefined) problem(report, [key], 'is for protocol: http');
    return;
  }
  for (const [index, protocol] of (listAt(entry, 'alpn') ?? []).entries()) {
    if (typeof protocol === 'string' && !HTTP_PROTOCOLS.includes(protocol)) {
      problem(report, ['alpn', index], `protocol: http speaks ${HTTP_PROTOCOLS.join(' and ')}, and not ${JSON.stringify(protocol)}`);
    } else if (at(at(entry, 'http'), 'application') === 'h2c' && typeof protocol === 'string' && !PEER_PROTOCOLS.h2c.includes(protocol)) {
      problem(
        report,
        ['alpn', index],
        'the application speaks h2c: requests of HTTP/1.1 are not translated for it, so peers must speak h2',
      );
    }
  }
  if (at(at(entry, 'http'), 'application') === 'h2c' && listAt(entry, 'alpn')?.length === 0) {
    problem(report, ['alpn'], 'the application speaks h2c, which is for peers that agree on h2: leave it out');
  }
  const upgrades = listAt(at(entry, 'http'), 'upgrades') ?? [];
  const isH2c = at(at(entry, 'http'), 'application') === 'h2c';
  if (isH2c && upgrades.length > 0 && !takesConnect(entry)) {
    problem(
      report,
      ['http', 'upgrades'],
      'is for HTTP/1.1, which nobody speaks before an application that speaks h2c; over HTTP/2, extendedConnect takes them',
    );
  }
  const isByProxy = at(at(entry, 'http'), 'translation') === 'http-proxy';
  if (!isH2c && takesConnect(entry) && (direction === 'outbound' || isByProxy)) {
    problem(report, ['http', 'extendedConnect'], `is for http.application: h2c${isByProxy ? ', and for translation: scute' : ''}`);
  }
  if (isH2c && isByProxy) {
    problem(report, ['http', 'translation'], 'is for applications that speak HTTP/1.1');
  }
}

/**
 * Of connections that are forwarded as bytes, nobody sees requests: a rule that asked for one would hold for all, or for none.
 * One for methods that are never forwarded would match nothing. `takesConnect`: an extended CONNECT is forwarded.
 */
function checkRules(entry: unknown, report: Report, lists: readonly string[], takesConnect: boolean): void {
  const protocol = at(entry, 'protocol');
  for (const list of lists) {
    for (const [index, rule] of (listAt(entry, list) ?? []).entries()) {
      for (const [place, method] of (listAt(rule, 'methods') ?? []).entries()) {
        // Those that are no methods at all have been named already.
        if (typeof method !== 'string' || !/^[A-Z-]+$/.test(method) || method === 'TRACE') continue;
        if (method === 'CONNECT') {
          if (!takesConnect) problem(report, [list, index, 'methods', place], '"CONNECT" is forwarded with http.extendedConnect alone');
        } else if (!METHODS.has(method))
          problem(report, [list, index, 'methods', place], `${JSON.stringify(method)} is not a method that is forwarded`);
      }
      if (protocol !== 'tcp') continue;
      for (const key of ['methods', 'paths', 'hosts'])
        if (at(rule, key) !== undefined) problem(report, [list, index, key], 'is for protocol: http, and here nobody sees requests');
    }
  }
}

/** Whose token a request has, nobody says where nobody looks; and a field has one meaning. */
function checkTokens(entry: unknown, report: Report): void {
  const jwt = at(entry, 'jwt');
  if (jwt === undefined) {
    for (const list of ['allow', 'deny', 'expect'])
      for (const [index, rule] of (listAt(entry, list) ?? []).entries())
        if (at(rule, 'subject') !== undefined)
          problem(report, [list, index, 'subject'], 'is for inbound listeners with jwt, and here nobody looks at tokens');
    return;
  }
  const spiffeIdHeader = at(at(entry, 'http'), 'spiffeIdHeader');
  for (const key of ['header', 'subjectHeader']) {
    const name = at(jwt, key);
    if (typeof name === 'string' && typeof spiffeIdHeader === 'string' && foldName(name) === foldName(spiffeIdHeader))
      problem(report, ['jwt', key], 'is spiffeIdHeader, which speaks of the TLS peer');
  }
}

/** For `superRefine` of what a policy file holds. What is special to a listener, `policy-use.ts` knows. */
export function checkPolicy(policy: unknown, report: Report): void {
  checkRules(policy, report, ['allow', 'deny'], true);
}

/** A policy comes from one place alone, and must be one for this listener. */
function checkPolicyFile(entry: unknown, report: Report, direction: PolicyUse['direction'], keys: readonly string[]): void {
  const file = at(entry, 'policyFile');
  if (file === undefined) return;
  for (const key of keys) if (at(entry, key) !== undefined) problem(report, [key], 'is replaced by policyFile: set one of the two');
  const policy = at(file, 'policy') as Policy | undefined;
  if (policy === undefined) return;
  const protocol = at(entry, 'protocol') === 'http' ? 'http' : 'tcp';
  const [first, ...more] = describeUseProblems(
    policy,
    { listener: 'this', direction, protocol, hasTokens: at(entry, 'jwt') !== undefined },
    String(at(file, 'file')),
  );
  if (first !== undefined) problem(report, ['policyFile'], `${first}${more.length === 0 ? '' : `, and ${more.length} more`}`);
}

function checkAudit(entry: unknown, report: Report): void {
  for (const list of ['expect', 'deny']) {
    for (const [index, rule] of (listAt(entry, list) ?? []).entries()) {
      if (at(rule, 'mode') === 'audit')
        problem(report, [list, index, 'mode'], 'is for inbound: outbound, an audit would send data to whoever answers');
    }
  }
}

/** A server that agrees to h2 is spoken HTTP/2 with. */
function checkOfferedToServer(entry: unknown, report: Report): void {
  if (at(entry, 'protocol') !== 'http') return;
  if (at(at(entry, 'http'), 'application') === 'h2c') return;
  const index = (listAt(entry, 'alpn') ?? []).indexOf('h2');
  if (index !== -1 && at(entry, 'webPki') === undefined) {
    problem(
      report,
      ['alpn', index],
      'the application speaks HTTP/1.1, and so does what is sent to the server: with http.application: h2c it is HTTP/2 on both sides',
    );
  }
}

export function checkOutbound(entry: unknown, report: Report): void {
  checkSocket(entry, report);
  checkProtocol(entry, report, 'outbound');
  checkRules(entry, report, ['expect', 'deny'], seesConnect(entry));
  checkAudit(entry, report);
  checkTokens(entry, report);
  checkPolicyFile(entry, report, 'outbound', ['expect', 'deny', 'unsafeAllowAnyInTrustDomain']);
  checkLoop(entry, report);
  const listen = addressAt(entry, 'listen');
  if (listen !== undefined && !isLocal(listen) && at(entry, 'unsafeListen') !== true) {
    problem(
      report,
      ['listen'],
      `${formatAddress(listen)} would lend this identity to other machines: use a Unix socket or a loopback address, or set unsafeListen`,
    );
  }
  checkOfferedToServer(entry, report);
  for (const key of ['jwt', 'credential'])
    if (at(entry, key) !== undefined && at(entry, 'protocol') !== 'http') problem(report, [key], 'is for protocol: http');
  if (at(entry, 'jwt') !== undefined && at(entry, 'credential') !== undefined)
    problem(report, ['credential'], 'stands beside jwt: set one of the two');
  if (at(entry, 'webPki') === undefined) checkExpect(entry, report);
  else checkWebPki(entry, report);
  const to = addressAt(entry, 'to');
  if (to !== undefined && isWebAddress(to) && at(entry, 'webPki') === undefined)
    problem(report, ['to'], `${formatTarget(to)} is a server of the public web: set webPki, or write HOST:PORT and whom to expect`);
}

/** What is said of servers with a SPIFFE ID, and would look as if it counted. */
const OF_SPIFFE = ['expect', 'deny', 'policyFile', 'unsafeAllowAnyInTrustDomain', 'identity', 'serverName'] as const;

/** A server is judged by the public web or by SPIFFE, and never by both. */
function checkWebPki(entry: unknown, report: Report): void {
  for (const key of OF_SPIFFE)
    if (at(entry, key) !== undefined) problem(report, [key], 'is for servers with a SPIFFE ID, and with webPki none is looked at');
  if (at(entry, 'protocol') !== 'http') problem(report, ['webPki'], 'is for protocol: http');
  if ((listAt(entry, 'alpn') ?? []).length > 0)
    problem(report, ['alpn'], 'is chosen by webPki: servers are asked in what the application speaks');
  const to = addressAt(entry, 'to');
  if (to !== undefined && !isWebAddress(to)) problem(report, ['to'], `${formatAddress(to)} is not https://HOST, as webPki needs it`);
}

function checkExpect(entry: unknown, report: Report): void {
  const expect = at(entry, 'expect');
  const anyIn = at(entry, 'unsafeAllowAnyInTrustDomain');
  if (expect !== undefined && anyIn !== undefined) {
    problem(report, ['unsafeAllowAnyInTrustDomain'], 'replaces expect: set one of the two');
  }
  if (expect === undefined && anyIn === undefined && at(entry, 'policyFile') === undefined) {
    problem(report, ['expect'], 'is required: the SPIFFE IDs that the server must have');
  }
  if (!Array.isArray(expect)) return;
  if (expect.length === 0) problem(report, ['expect'], 'is empty, and no server could ever be reached');
  for (const [index, rule] of expect.entries()) {
    const pattern = at(rule, 'peer') ?? rule;
    if (typeof pattern === 'string' && /^spiffe:\/\/[^/]+\/\*\*$/.test(pattern)) {
      problem(
        report,
        ['expect', index],
        `${JSON.stringify(pattern)} is any server of the trust domain: if that is meant, set unsafeAllowAnyInTrustDomain instead`,
      );
    }
  }
}

export function checkSds(entry: unknown, report: Report): void {
  if (addressAt(entry, 'listen')?.kind === 'tcp' && at(entry, 'unsafeTcp') !== true) {
    problem(report, ['listen'], 'would hand private keys to every local user: use a Unix socket, or set unsafeTcp');
  }
  const names = new Set<unknown>();
  for (const [index, matchers] of (listAt(entry, 'matchers') ?? []).entries()) {
    const secret = at(matchers, 'secret');
    if (names.has(secret)) problem(report, ['matchers', index, 'secret'], `${JSON.stringify(secret)} has matchers already`);
    names.add(secret);
    // Its list is there unread where something is wrong with it.
    const list = at(matchers, 'policy') ?? at(matchers, 'allow');
    if ((at(matchers, 'listener') === undefined) === (list === undefined))
      problem(report, ['matchers', index], 'needs either listener or allow');
    // A wrong name would leave the right one without matchers, and everybody admitted.
    const isBundle =
      secret === at(entry, 'defaultBundleName') ||
      secret === at(entry, 'defaultAllBundlesName') ||
      (typeof secret === 'string' && isTrustDomainId(secret));
    if (typeof secret === 'string' && !isBundle)
      problem(report, ['matchers', index, 'secret'], `${JSON.stringify(secret)} is not the name of a trust bundle`);
  }
}

/** What each profile needs, and what is for the other (SPIFFE Federation, section 5.2). */
export function checkFederation(entry: unknown, report: Report): void {
  const profile = at(entry, 'profile');
  const id = at(entry, 'endpointSpiffeId');
  if (profile === 'https_web') {
    for (const key of ['endpointSpiffeId', 'bundleFile']) if (at(entry, key) !== undefined) problem(report, [key], 'is for https_spiffe');
  } else if (profile === 'https_spiffe') {
    if (at(entry, 'caFile') !== undefined) problem(report, ['caFile'], 'is for https_web');
    if (id === undefined) problem(report, ['endpointSpiffeId'], 'is required: the SPIFFE ID that the endpoint must have');
    // Nothing else could vouch for the first connection.
    if (
      typeof id === 'string' &&
      parseSpiffeId(id).ok &&
      trustDomainOf(id as SpiffeId) === at(entry, 'trustDomain') &&
      at(entry, 'bundleFile') === undefined
    )
      problem(report, ['bundleFile'], `is required: ${JSON.stringify(id)} is of the trust domain whose bundle is fetched`);
  }
}

export function checkBundleEndpoint(entry: unknown, report: Report): void {
  const profile = at(entry, 'profile');
  for (const key of ['certFile', 'keyFile']) {
    const file = at(entry, key);
    if (profile === 'https_web' && file === undefined) problem(report, [key], 'is required for https_web');
    if (profile === 'https_spiffe' && file !== undefined) problem(report, [key], 'is for https_web');
  }
}

/** A relation is to another trust domain, and there is one bundle of each. */
function checkRelations(config: unknown, report: Report): void {
  const listeners = [
    ...(listAt(config, 'inbound') ?? []),
    ...(listAt(config, 'outbound') ?? []),
    at(config, 'sds'),
    at(config, 'bundleEndpoint'),
  ];
  const own = new Set(
    listeners
      .map((entry) => at(at(entry, 'identity'), 'id'))
      .filter((id): id is SpiffeId => typeof id === 'string' && parseSpiffeId(id).ok)
      .map(trustDomainOf),
  );
  const seen = new Set<unknown>();
  for (const [index, relation] of (listAt(config, 'federation') ?? []).entries()) {
    const domain = at(relation, 'trustDomain');
    if (typeof domain !== 'string') continue;
    const path = ['federation', index, 'trustDomain'];
    if (own.has(domain as TrustDomain))
      problem(report, path, `${JSON.stringify(domain)} is our own trust domain, as an identity of this configuration says`);
    if (seen.has(domain)) problem(report, path, `${JSON.stringify(domain)} has an endpoint already`);
    seen.add(domain);
  }
}

/** Each has a name of its own, and listeners name only those that there are. */
function checkCredentials(config: unknown, report: Report): void {
  const names = new Set<unknown>();
  for (const [index, credential] of (listAt(config, 'credentials') ?? []).entries()) {
    const name = at(credential, 'name');
    if (names.has(name)) problem(report, ['credentials', index, 'name'], `the name ${JSON.stringify(name)} is taken`);
    names.add(name);
  }
  for (const [index, listener] of (listAt(config, 'outbound') ?? []).entries()) {
    const name = at(at(listener, 'credential'), 'name');
    if (typeof name === 'string' && !names.has(name))
      problem(report, ['outbound', index, 'credential', 'name'], `there is no credential ${JSON.stringify(name)}`);
  }
}

function isTrustDomainId(text: string): boolean {
  const id = parseSpiffeId(text);
  return id.ok && pathOf(id.value) === '';
}

/** Checks that need to see all listeners: names and addresses are unique, and there is something to do. */
export function checkListeners(config: unknown, report: Report): void {
  if (typeof config !== 'object' || config === null || Array.isArray(config)) return;
  const inbound = listAt(config, 'inbound');
  const outbound = listAt(config, 'outbound');
  const files = listAt(config, 'files');
  if (
    [inbound, outbound, files].every((list) => list?.length === 0) &&
    at(config, 'sds') === undefined &&
    at(config, 'bundleEndpoint') === undefined
  )
    problem(report, [], 'has nothing to do: it needs at least one inbound, outbound or files entry, sds or bundleEndpoint');
  if (at(at(config, 'workloadApi'), 'endpoint') === undefined) {
    problem(report, ['workloadApi', 'endpoint'], 'is required, unless SPIFFE_ENDPOINT_SOCKET is set');
  }

  checkRelations(config, report);
  checkFileSets(config, report);
  checkCredentials(config, report);
  const names = new Map<string, string>();
  const bound: { readonly address: Address; readonly label: string }[] = [];
  const see = (entry: unknown, path: readonly (string | number)[], label: string): void => {
    const listen = addressAt(entry, 'listen');
    if (listen === undefined) return;
    const other = bound.find(({ address }) => addressesOverlap(address, listen));
    if (other !== undefined)
      problem(
        report,
        [...path, 'listen'],
        `${formatAddress(listen)} is taken by ${other.label}, which listens on ${formatAddress(other.address)}`,
      );
    bound.push({ address: listen, label });
  };
  for (const [direction, entries] of [
    ['inbound', inbound ?? []],
    ['outbound', outbound ?? []],
  ] as const) {
    for (const [index, entry] of entries.entries()) {
      const label = `${direction}[${index}]`;
      const own = at(entry, 'name');
      const name = typeof own === 'string' ? own : `${direction}-${index}`;
      const other = names.get(name);
      if (other === undefined) names.set(name, label);
      else
        problem(
          report,
          own === undefined ? [direction, index] : [direction, index, 'name'],
          `the name ${JSON.stringify(name)} is taken by ${other}`,
        );
      see(entry, [direction, index], label);
    }
  }
  for (const key of ['metrics', 'admin', 'sds', 'bundleEndpoint']) see(at(config, key), [key], key);
  for (const [index, probe] of (listAt(at(config, 'metrics'), 'probes') ?? []).entries()) {
    const to = addressAt(probe, 'to');
    const wrong = to && probeProblem(to, bound);
    if (wrong !== undefined) problem(report, ['metrics', 'probes', index, 'to'], wrong);
  }
  if (at(at(config, 'sds'), 'authorization') !== undefined && inbound?.length === 0)
    problem(report, ['sds', 'authorization'], 'has nothing to answer by: it needs at least one inbound entry, whose policy is asked about');
  for (const [index, matchers] of (listAt(at(config, 'sds'), 'matchers') ?? []).entries()) {
    const listener = at(matchers, 'listener');
    if (typeof listener === 'string' && names.get(listener)?.startsWith('inbound') !== true)
      problem(report, ['sds', 'matchers', index, 'listener'], `there is no inbound listener ${JSON.stringify(listener)}`);
    const named = (inbound ?? []).find((entry, position) => (at(entry, 'name') ?? `inbound-${position}`) === listener);
    if (at(named, 'jwt') !== undefined)
      problem(report, ['sds', 'matchers', index, 'listener'], `${JSON.stringify(listener)} asks for tokens (jwt), which matchers cannot`);
  }
}

/** Each set has a directory to itself, and none is in that of another: what is not of a set is taken for what a crash left, or in the way. */
function checkFileSets(config: unknown, report: Report): void {
  const names = new Map<string, string>();
  const directories = new Map<string, string>();
  for (const [index, entry] of (listAt(config, 'files') ?? []).entries()) {
    // It becomes one when the whole is known to be good.
    const set = typeof entry === 'function' ? (entry as (at: number) => unknown)(index) : entry;
    const label = `files[${index}]`;
    const own = at(set, 'name');
    const name = typeof own === 'string' ? own : `files-${index}`;
    const other = names.get(name);
    if (other === undefined) names.set(name, label);
    else problem(report, ['files', index], `the name ${JSON.stringify(name)} is taken by ${other}`);
    const directory = at(set, 'directory');
    if (typeof directory !== 'string') continue;
    for (const [path, owner] of directories) {
      if (path === directory) problem(report, ['files', index, 'directory'], `${directory} is the directory of ${owner}`);
      else if (directory.startsWith(`${path}/`) || path.startsWith(`${directory}/`))
        problem(report, ['files', index, 'directory'], `${directory} and ${path} of ${owner} are one within the other`);
    }
    directories.set(directory, label);
  }
}

/** A listener that forwards to itself would open connections until something gives way. */
function checkLoop(entry: unknown, report: Report): void {
  const listen = addressAt(entry, 'listen');
  const to = addressAt(entry, 'to');
  if (listen !== undefined && to !== undefined && addressesOverlap(listen, to)) {
    problem(report, ['to'], `${formatAddress(to)} is this listener itself`);
  }
}

function problem(report: Report, path: (string | number)[], message: string): void {
  report.addIssue({ code: 'custom', path, message });
}

function at(value: unknown, key: string): unknown {
  return typeof value === 'object' && value !== null && Object.hasOwn(value, key) ? Reflect.get(value, key) : undefined;
}

function listAt(value: unknown, key: string): readonly unknown[] | undefined {
  const list = at(value, key);
  return Array.isArray(list) ? list : undefined;
}

/** The address at `key`, if its own schema accepted it. */
function addressAt(value: unknown, key: string): Address | undefined {
  const address = at(value, key);
  const kind = at(address, 'kind');
  return kind === 'tcp' || kind === 'unix' ? (address as Address) : undefined;
}
