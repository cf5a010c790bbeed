import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { askProbe } from '../kubernetes/kubelet.ts';
import { manifestsOf, podOf, prepareCharts, type Probe } from '../kubernetes/stage.ts';
import { needs } from '../parts.ts';
import { asRoot } from './container.ts';
import { ask, imageOfFile, launchStage } from './container-stage.ts';

const image = imageOfFile();

/** Asks as often as a kubelet does until `isEnough`. Gives what each probe found; fails when the kubelet would restart the container. */
async function askOften(port: number, probe: Probe, isEnough: (found: readonly boolean[]) => boolean): Promise<readonly boolean[]> {
  const { periodSeconds = 10, failureThreshold = 3 } = probe;
  const found: boolean[] = [];
  for (;;) {
    const next = pause(periodSeconds * 1000);
    found.push(await askProbe(port, probe));
    if (isEnough(found)) return found;
    assert.ok(found.length < failureThreshold || found.slice(-failureThreshold).includes(true), 'the kubelet would restart it');
    await next;
  }
}

test(
  'with a hundredth of a core it is ready late, and the probes of the chart never restart it, nor while it has requests',
  { ...needs('helm4', 'buildah', 'runc'), ...asRoot },
  async (t) => {
    const charts = await prepareCharts(t);
    const [pod] = manifestsOf(await charts.render('helm4', 'default')).flatMap((each) => podOf(each) ?? []);
    const { startupProbe = {}, livenessProbe = {} } = pod?.initContainers?.[0] ?? assert.fail();
    const stage = await launchStage(t, image(), { memoryMib: 128, cpuPercent: 1 });

    const starting = await askOften(stage.metricsPort, startupProbe, (found) => found.at(-1) === true);
    const enough = new AbortController();
    let answered = 0;
    const load = (async () => {
      // With so little time for it, a handshake may take longer than Scute waits. That is not what is asked here.
      while (!enough.signal.aborted)
        await ask(stage, 1).then(
          () => (answered += 1),
          () => undefined,
        );
    })();
    const living = await askOften(stage.metricsPort, livenessProbe, (found) => found.length === 3);
    enough.abort();
    await load;

    t.diagnostic(`up by the start-up probe number ${starting.length}; ${answered} requests answered meanwhile`);
    assert.ok(starting.includes(false));
    assert.ok(answered > 0);
    // Half a dozen in a row would have to fail.
    assert.deepEqual(living, [true, true, true]);
    stage.container.signal('SIGTERM');
    assert.deepEqual(await stage.container.exited, { code: 0, signal: null });
  },
);
