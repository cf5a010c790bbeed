import { spawnSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Peer } from '../peer.ts';

const STREAM_MODULE = '/usr/lib/nginx/modules/ngx_stream_module.so';

/** nginx's stream module with one worker and an access log. */
export const nginx: Peer = {
  name: 'nginx',
  install: 'apt-get install nginx libnginx-mod-stream',
  note: 'nginx 1.22 cannot see the SANs of a certificate: it checks the chain alone, and has no metrics of TCP',
  version: () =>
    existsSync(STREAM_MODULE) ? /nginx\/(\S+)/.exec(spawnSync('nginx', ['-v'], { encoding: 'utf8' }).stderr ?? '')?.[1] : undefined,
  prepare: (task) => {
    const { certificates } = task;
    const file = join(task.directory, 'nginx.conf');
    writeFileSync(
      file,
      `load_module ${STREAM_MODULE};
daemon off;
worker_processes 1;
pid ${join(task.directory, 'nginx.pid')};
error_log ${join(task.directory, 'nginx-error.log')} warn;
events { worker_connections 18000; }
stream {
  log_format connection '$time_iso8601 $remote_addr:$remote_port $upstream_addr "$ssl_client_s_dn" $ssl_client_serial $ssl_protocol $status $bytes_received $bytes_sent $session_time';
  access_log ${join(task.directory, 'nginx-access.log')} connection buffer=64k flush=1s;
  server {
    listen 127.0.0.1:${task.port} ssl backlog=4096;
    ssl_certificate ${certificates.serverChain};
    ssl_certificate_key ${certificates.serverKey};
    ssl_client_certificate ${certificates.authorities};
    ssl_verify_client on;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_ecdh_curve X25519:prime256v1;
    ssl_session_tickets off;
    ssl_session_cache none;
    tcp_nodelay on;
    proxy_pass ${task.application};
    proxy_timeout 10m;
  }
}
`,
    );
    return {
      argv: ['nginx', '-p', task.directory, '-e', join(task.directory, 'nginx-error.log'), '-c', file],
      outputFile: join(task.directory, 'nginx.log'),
    };
  },
};
