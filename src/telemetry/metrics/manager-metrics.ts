import type { Define } from './text-format.ts';

/** Of what a service manager such as systemd is told. */
export interface ManagerMetrics {
  readonly messages: { ok: number; failed: number };
}

export function registerManagerMetrics(counter: Define): ManagerMetrics {
  const metrics: ManagerMetrics = { messages: { ok: 0, failed: 0 } };
  counter('systemd_notifications_total', 'What systemd was told, or could not be told', ['result'], (add) => {
    add({ result: 'ok' }, metrics.messages.ok);
    add({ result: 'failed' }, metrics.messages.failed);
  });
  return metrics;
}
