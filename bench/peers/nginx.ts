import { spawnSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Peer, Task } from '../peer.ts';

const STREAM_MODULE = '/usr/lib/nginx/modules/ngx_stream_module.so';

const NO_SAN = 'cannot see the SANs of a certificate: it checks the chain alone';

/** nginx with one worker and an access log: its stream module, or its http module with `stub_status`. */
export const nginx: Peer = {
  name: 'nginx',
  install: 'apt-get install nginx libnginx-mod-stream',
  notes: {
    tcp: `nginx 1.22 ${NO_SAN}, and has no metrics of TCP`,
    http: `nginx 1.22 ${NO_SAN}, and tells the application the SHA-1 fingerprint and the subject instead`,
  },
  identity: ({ clientChain, serverId }) => {
    const { fingerprint, subject } = new X509Certificate(readFileSync(clientChain));
    const name = subject.split('\n').toReversed().join(',');
    return `By=${serverId};Hash=${fingerprint.replaceAll(':', '').toLowerCase()};Subject="${name}"`;
  },
  version: () =>
    existsSync(STREAM_MODULE) ? /nginx\/(\S+)/.exec(spawnSync('nginx', ['-v'], { encoding: 'utf8' }).stderr ?? '')?.[1] : undefined,
  prepare: (task) => {
    const file = join(task.directory, 'nginx.conf');
    writeFileSync(
      file,
      `load_module ${STREAM_MODULE};
daemon off;
worker_processes 1;
pid ${join(task.directory, 'nginx.pid')};
error_log ${join(task.directory, 'nginx-error.log')} warn;
events { worker_connections 18000; }
${task.protocol === 'tcp' ? stream(task) : http(task)}`,
    );
    return {
      argv: ['nginx', '-p', task.directory, '-e', join(task.directory, 'nginx-error.log'), '-c', file],
      outputFile: join(task.directory, 'nginx.log'),
    };
  },
};

function stream(task: Task): string {
  return `stream {
  log_format connection '$time_iso8601 $remote_addr:$remote_port $upstream_addr "$ssl_client_s_dn" $ssl_client_serial $ssl_protocol $status $bytes_received $bytes_sent $session_time';
  access_log ${join(task.directory, 'nginx-access.log')} connection buffer=64k flush=1s;
  server {
    listen 127.0.0.1:${task.port} ssl backlog=4096;
${tls(task)}
    tcp_nodelay on;
    proxy_pass ${task.to};
    proxy_timeout 10m;
  }
}
`;
}

function http(task: Task): string {
  const folder = (name: string): string => join(task.directory, name);
  return `http {
  log_format request escape=json '{"time":"$time_iso8601","downstream":"$remote_addr:$remote_port","connection":"$connection","peer":"$ssl_client_s_dn","serial":"$ssl_client_serial","method":"$request_method","path":"$uri","host":"$http_host","status":$status,"received":$request_length,"sent":$bytes_sent,"duration":$request_time}';
  access_log ${folder('nginx-access.log')} request buffer=64k flush=1s;
  client_body_temp_path ${folder('body')};
  proxy_temp_path ${folder('proxy')};
  fastcgi_temp_path ${folder('fastcgi')};
  uwsgi_temp_path ${folder('uwsgi')};
  scgi_temp_path ${folder('scgi')};
  keepalive_requests 1000000000;
  keepalive_timeout 10m;
  upstream application {
    server ${task.to};
    keepalive 1024;
    keepalive_requests 1000000000;
  }
  server {
    listen 127.0.0.1:${task.port} ssl http2 backlog=4096;
${tls(task)}
    tcp_nodelay on;
    client_max_body_size 0;
    location / {
      proxy_pass http://application;
      proxy_http_version 1.1;
      proxy_request_buffering off;
      proxy_buffers 8 64k;
      proxy_max_temp_file_size 0;
      proxy_set_header Host $http_host;
      proxy_set_header Connection "";
      proxy_set_header X-Forwarded-Client-Cert 'By=${task.certificates.serverId};Hash=$ssl_client_fingerprint;Subject="$ssl_client_s_dn"';
    }
  }
  server {
    listen unix:${folder('nginx.sock')};
    location / { stub_status; }
  }
}
`;
}

function tls({ certificates }: Task): string {
  return `    ssl_certificate ${certificates.serverChain};
    ssl_certificate_key ${certificates.serverKey};
    ssl_client_certificate ${certificates.authorities};
    ssl_verify_client on;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_ecdh_curve X25519:prime256v1;
    ssl_session_tickets off;
    ssl_session_cache none;`;
}
