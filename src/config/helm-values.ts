/** The values of the charts in `deploy/helm` as JSON Schemas, around that of the configuration. Pure; `generate.ts` writes them. */

/** What of JSON Schema (draft 7, which Helm reads) is needed here. */
export interface ValueSchema {
  readonly $schema?: string;
  readonly $ref?: string;
  readonly definitions?: Readonly<Record<string, ValueSchema>>;
  readonly type?: string | readonly string[];
  readonly description?: string;
  readonly pattern?: string;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly enum?: readonly unknown[];
  readonly properties?: Readonly<Record<string, ValueSchema>>;
  readonly propertyNames?: ValueSchema;
  readonly additionalProperties?: ValueSchema | boolean;
  readonly required?: readonly string[];
  readonly items?: ValueSchema;
  readonly anyOf?: readonly ValueSchema[];
}

/** Keys of the configuration that the chart fills in, or that are for another command. */
const OF_THE_CHART = ['workloadApi', 'metrics', 'exec'];

const text = (description: string, pattern?: string): ValueSchema => ({ type: 'string', description, ...(pattern && { pattern }) });
const flag = (description: string): ValueSchema => ({ type: 'boolean', description });
const whole = (minimum: number, maximum: number, description: string): ValueSchema => ({ type: 'integer', minimum, maximum, description });
const listOf = (items: ValueSchema, description: string): ValueSchema => ({ type: 'array', items, description });
const oneOf = (values: readonly string[], description: string): ValueSchema => ({ type: 'string', enum: values, description });
/** As Kubernetes has it: what is in it, its API server judges. */
const ofKubernetes = (description: string): ValueSchema => ({ type: 'object', description });
const texts = (description: string): ValueSchema => ({ type: 'object', additionalProperties: { type: 'string' }, description });

/** No key but these: Helm names the wrong one, and where it is. */
function closed(properties: Readonly<Record<string, ValueSchema>>, description: string): ValueSchema {
  return { type: 'object', description, additionalProperties: false, properties };
}

/** Null takes a default away. */
const orNull = ({ type, ...schema }: ValueSchema): ValueSchema => ({ ...schema, type: [String(type), 'null'] });

const SIDECAR: Readonly<Record<string, ValueSchema>> = {
  image: closed(
    {
      repository: text('registry and repository, such as `registry.example/scute`'),
      digest: text('`sha256:` and 64 hexadecimal digits; a tag will not do', '^(sha256:[0-9a-f]{64})?$'),
      pullPolicy: oneOf(['IfNotPresent', 'Always', 'Never'], 'when the node fetches it'),
    },
    'the image of Scute',
  ),
  config: { $ref: '#/definitions/config' },
  policies: {
    type: 'object',
    description: 'policy files by name, in `/etc/scute/policy`; a list is one of SPIFFE IDs, for `idsFile`',
    propertyNames: { pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,200}$' },
    additionalProperties: { anyOf: [{ $ref: '#/definitions/policy' }, listOf({ type: 'string', pattern: '^spiffe://' }, 'SPIFFE IDs')] },
  },
  csi: closed(
    { driver: text('the name of the CSI driver'), socket: text('the name of the socket in its volume', '^[A-Za-z0-9._-]+$') },
    'where the Workload API comes from',
  ),
  metricsPort: whole(1, 65_535, 'port of metrics and probes'),
  startupPath: oneOf(['/readyz', '/livez'], 'what must answer before the application is started'),
  probesThrough: oneOf(['scute', 'kubelet'], 'who asks the application for its probes'),
  preStopSleep: whole(0, 3600, 'seconds that the application goes on before it is asked to end; 0: no preStop'),
  runAsUser: orNull(whole(1, 4_294_967_294, 'the user of Scute; null where the cluster gives one')),
  runAsGroup: orNull(whole(1, 4_294_967_294, 'its group; null where the cluster gives one')),
  seccompProfile: closed(
    { type: oneOf(['RuntimeDefault', 'Localhost'], 'whose profile it is'), localhostProfile: text('its file, for Localhost') },
    'which system calls there are',
  ),
  resources: ofKubernetes('requests and limits'),
  checksum: flag('replace pods when the configuration changes'),
  extraVolumeMounts: listOf(ofKubernetes('a volumeMount'), 'in the container of Scute'),
};

/** By path from the root of the project. `config` is the schema of the configuration in draft 7, `policy` that of a policy file. */
export function helmValueSchemas(config: ValueSchema, policy: ValueSchema): ReadonlyMap<string, ValueSchema> {
  const kept = Object.entries(config.properties ?? {}).filter(([key]) => !OF_THE_CHART.includes(key));
  const partial = closed(Object.fromEntries(kept), 'the configuration of Scute, without what the chart fills in: `workloadApi`, `metrics`');
  const own = closed(SIDECAR, 'what this sidecar sets itself, over `scute-sidecar`');
  const global: ValueSchema = { type: 'object', description: 'of Helm: values for all charts of a release' };
  const shared = closed({ ...SIDECAR, global }, 'what every sidecar of the release has, unless it says otherwise itself');
  const workload = orNull(
    closed(
      {
        kind: oneOf(['Deployment', 'StatefulSet', 'DaemonSet', 'Job', 'CronJob'], 'what runs its pods'),
        replicas: whole(0, 10_000, 'how many pods'),
        schedule: text('of a CronJob'),
        template: ofKubernetes('the pod template of the application'),
        scute: own,
      },
      'a workload with Scute beside it',
    ),
  );
  const monitored = { enabled: flag('whether it is there'), labels: texts('labels by which it is found') };
  const example = closed(
    {
      global,
      'scute-sidecar': shared,
      workloads: {
        type: 'object',
        description: 'by name',
        propertyNames: { pattern: '^[a-z]([a-z0-9-]{0,50}[a-z0-9])?$' },
        additionalProperties: workload,
      },
      gateway: closed(
        {
          enabled: flag('whether it is there'),
          replicas: whole(0, 10_000, 'how many pods'),
          port: whole(1, 65_535, 'where peers connect with TLS'),
          allow: { $ref: '#/definitions/config/properties/inbound/items/properties/allow' },
          to: text('the one server of the public web: `https://HOST`', '^(https://[^/]+/?)?$'),
          scute: own,
        },
        'a pod of Scute alone, before one server of the public web',
      ),
      clusterSpiffeId: closed(
        {
          enabled: flag('whether they are there'),
          className: text('of SPIRE’s controller manager'),
          template: text('of the SPIFFE ID, in the language of the controller manager'),
        },
        'which pods have an identity',
      ),
      networkPolicy: closed(
        { enabled: flag('whether they are there'), metricsNamespace: text('the namespace that may scrape') },
        'who reaches the pods',
      ),
      injection: closed(
        {
          enabled: flag('whether the policies are there'),
          namespaceLabels: texts('of the namespaces'),
          name: text('of the ConfigMaps: NAME-scute and NAME-scute-policy', '^[a-z]([a-z0-9-]{0,50}[a-z0-9])?$'),
          scute: own,
          exec: oneOf(['application', 'none', 'any'], 'where `kubectl exec` and `attach` may go: not into Scute, nowhere, everywhere'),
          portForward: flag('whether `kubectl port-forward` may reach the loopback of pods, around Scute'),
        },
        'policies of admission that put Scute into pods',
      ),
      monitoring: closed(
        {
          podMonitor: closed({ ...monitored, interval: text('between two scrapes') }, 'for the Prometheus operator'),
          rules: closed(monitored, 'alert rules, for the Prometheus operator'),
          dashboard: closed(monitored, 'for a Grafana that reads ConfigMaps'),
        },
        'what watches Scute',
      ),
    },
    'values of the chart scute',
  );
  const around = {
    $schema: 'http://json-schema.org/draft-07/schema#',
    definitions: { config: forHelm(partial), policy: forHelm(policy) },
  };
  return new Map([
    ['deploy/helm/scute-sidecar/values.schema.json', { ...around, ...shared }],
    ['deploy/helm/scute/values.schema.json', { ...around, ...example }],
  ]);
}

/** The same with patterns that Go reads, too: it knows no \\u, and no repetition beyond a thousand. Scute judges what they let through. */
function forHelm(schema: ValueSchema): ValueSchema {
  return JSON.parse(
    JSON.stringify(schema, (key, value: unknown) =>
      key === 'pattern' && typeof value === 'string'
        ? value
            .replaceAll(/\\u00([0-9a-f]{2})/g, '\\x$1')
            .replaceAll(/\{0,\d{4,}\}/g, '*')
            .replaceAll(/\{1,\d{4,}\}/g, '+')
        : value,
    ),
  ) as ValueSchema;
}
