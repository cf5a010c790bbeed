import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { runChild } from '../../support/child.ts';
import { part } from '../parts.ts';
import { prepareCharts } from './stage.ts';

// The expressions run in the API server's own code (k8s.io/apiserver), with its limits on what they may cost.

/** A pod, of which a test changes anything. */
// oxlint-disable-next-line typescript/no-explicit-any -- forty changes that no API server would take: types would be in the way of each
export type Loose = Record<string, any>;

export interface Case {
  readonly pod: Loose;
  readonly oldPod?: Loose;
  readonly operation?: 'CREATE' | 'UPDATE' | 'CONNECT';
  readonly subresource?: string;
  /** What CONNECT carries, by its subresource: PodExecOptions and the like. The pod is only named then. */
  readonly options?: object;
  /** What is written instead of a pod, whose namespace it is in. */
  readonly configMap?: Loose;
  /** The verbs that who writes it has for it. */
  readonly verbs?: readonly string[];
  readonly namespaceLabels?: Readonly<Record<string, string>>;
}

export interface Admitted {
  readonly pod: Loose;
  readonly refused: readonly string[];
  readonly broken: string;
}

const CHOSEN = { 'scute-injection': 'enabled' };

/** What policies of `injection` say, with these values over those of `ci/injection-values.yaml`. */
export async function admission(t: TestContext, values: object = {}): Promise<(...cases: readonly Case[]) => Promise<readonly Admitted[]>> {
  const charts = await prepareCharts(t);
  const policies = await charts.render('helm4', 'injection', { values });
  const ofInjection = policies
    .split(/^---$/m)
    .filter((document) => document.includes('AdmissionPolicy'))
    .join('\n---\n');
  return async (...cases) => {
    const all = cases.map((each) => ({ operation: 'CREATE', subresource: '', namespaceLabels: CHOSEN, ...each }));
    const { code, stdout, stderr } = await runChild([part('k8s-judge'), 'admit'], {
      input: JSON.stringify({ policies: ofInjection, cases: all }),
    });
    assert.equal(code, 0, stderr);
    return JSON.parse(stdout) as readonly Admitted[];
  };
}

/** As the API server has one when it asks policies: with its defaults, and the token that its own admission mounts. */
export function application(): Loose {
  const token = { name: 'kube-api-access-x7x7x', mountPath: '/var/run/secrets/kubernetes.io/serviceaccount', readOnly: true };
  return {
    metadata: {
      name: 'app',
      namespace: 'shop',
      annotations: { 'scute-injection': 'disabled' },
      labels: { 'sidecar.scute/inject': 'false' },
    },
    spec: {
      restartPolicy: 'Always',
      dnsPolicy: 'ClusterFirst',
      schedulerName: 'default-scheduler',
      terminationGracePeriodSeconds: 30,
      securityContext: {},
      containers: [
        {
          name: 'app',
          image: 'app',
          imagePullPolicy: 'Always',
          resources: {},
          terminationMessagePath: '/dev/termination-log',
          volumeMounts: [token],
        },
      ],
      volumes: [{ name: token.name, projected: { sources: [{ serviceAccountToken: { path: 'token' } }] } }],
    },
  };
}
