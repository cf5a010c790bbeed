import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { envoyIdentity, type Peer, type Task } from '../peer.ts';

const NO_SAN =
  'has no fetch for SANs: the SPIFFE ID is looked for in the bytes of the certificate, which costs about the same but is no check to copy';

/** The fields of Scute's request line. */
const REQUEST_LINE =
  '{"time":"%T","listener":"%ft","downstream":"%ci:%cp","peer_id":"%[var(sess.peer),json]","method":"%HM","path":"%HPO",' +
  '"host":"%[capture.req.hdr(0),json]","status":%ST,"result":"%ts","received":%U,"sent":%B,"duration":%Ta}';

/** The certificate is looked into once a connection; each request is judged and labelled by what was found. */
function requestRules({ certificates }: Task): string {
  return `  tcp-request session set-var(sess.peer) str(${certificates.clientId}) if known
  tcp-request session set-var(sess.hash) ssl_c_der,sha2(256),hex,lower
  http-request deny deny_status 403 if !{ var(sess.peer) -m found }
  http-request capture req.hdr(host) len 64
  http-request set-header X-Forwarded-Client-Cert "By=${certificates.serverId};Hash=%[var(sess.hash)];URI=%[var(sess.peer)]"`;
}

/** HAProxy with one thread, its statistics socket and log on. */
export const haproxy: Peer = {
  name: 'haproxy',
  install: 'apt-get install haproxy',
  notes: {
    tcp: `haproxy 2.6 ${NO_SAN}`,
    http: `haproxy 2.6 ${NO_SAN}; done once a connection, and what the application is told of it is the one SPIFFE ID that is allowed`,
  },
  identity: envoyIdentity,
  version: () => /version (\S+?)-/.exec(spawnSync('haproxy', ['-v'], { encoding: 'utf8' }).stdout ?? '')?.[1],
  prepare: (task) => {
    const { certificates, protocol } = task;
    const file = join(task.directory, 'haproxy.cfg');
    const idInHex = Buffer.from(certificates.clientId).toString('hex').toUpperCase();
    writeFileSync(
      file,
      `global
  nbthread 1
  maxconn 9000
  log stdout len 4096 format raw local0
  stats socket ${join(task.directory, 'haproxy.sock')}
  tune.ssl.cachesize 0
  ssl-default-bind-curves X25519:P-256
  ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384
defaults
  mode ${protocol}
  log global
  ${protocol === 'tcp' ? 'option tcplog' : `log-format '${REQUEST_LINE}'`}
  option dontlognull
  maxconn 9000
  timeout connect 5s
  timeout client 10m
  timeout server 10m
frontend inbound
  bind 127.0.0.1:${task.port} backlog 4096 ssl crt ${certificates.serverChainAndKey} ca-file ${certificates.authorities} verify required no-tls-tickets ssl-min-ver TLSv1.2${protocol === 'http' ? ' alpn h2,http/1.1' : ''}
  acl known ssl_c_der,hex -m sub ${idInHex}
${protocol === 'tcp' ? '  tcp-request session reject if !known' : requestRules(task)}
  default_backend application
backend application
  server application ${task.to}${task.http2 ? ' proto h2' : ''}
`,
    );
    return { argv: ['haproxy', '-db', '-f', file], outputFile: join(task.directory, 'haproxy.log') };
  },
};
