import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Peer } from '../peer.ts';

/** HAProxy with one thread, its statistics socket and tcplog on. */
export const haproxy: Peer = {
  name: 'haproxy',
  install: 'apt-get install haproxy',
  note: 'haproxy 2.6 has no fetch for SANs: the SPIFFE ID is looked for in the bytes of the certificate, which costs about the same but is no check to copy',
  version: () => /version (\S+?)-/.exec(spawnSync('haproxy', ['-v'], { encoding: 'utf8' }).stdout ?? '')?.[1],
  prepare: (task) => {
    const { certificates } = task;
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
  mode tcp
  log global
  option tcplog
  option dontlognull
  maxconn 9000
  timeout connect 5s
  timeout client 10m
  timeout server 10m
frontend inbound
  bind 127.0.0.1:${task.port} backlog 4096 ssl crt ${certificates.serverChainAndKey} ca-file ${certificates.authorities} verify required no-tls-tickets ssl-min-ver TLSv1.2
  acl known ssl_c_der,hex -m sub ${idInHex}
  tcp-request session reject if !known
  default_backend application
backend application
  server application ${task.application}
`,
    );
    return { argv: ['haproxy', '-db', '-f', file], outputFile: join(task.directory, 'haproxy.log') };
  },
};
