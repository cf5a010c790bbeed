/** What a check says when asked. */
export type CheckResult = { readonly ok: true; readonly detail?: string | undefined } | { readonly ok: false; readonly detail: string };

export interface CheckReport {
  readonly name: string;
  readonly ok: boolean;
  readonly detail: string | undefined;
  /** False: only told, whoever is ready stays so. */
  readonly blocks: boolean;
}

export interface ReadinessReport {
  readonly ready: boolean;
  /** In the order of registration. */
  readonly checks: readonly CheckReport[];
}

/** Named checks, asked anew each time: what was ready may stop being so. Only stopping is for ever. */
export interface Readiness {
  /** `name` is a metric label: snake_case, from a closed set. Returns the way to take it back. Throws if the name is taken. */
  register(name: string, check: () => CheckResult, options?: { readonly blocks?: boolean }): () => void;
  /** From here on never ready again. */
  stopping(): void;
  evaluate(): ReadinessReport;
}

const NOT_STOPPING = 'not_stopping';

export function createReadiness(): Readiness {
  const checks = new Map<string, { readonly check: () => CheckResult; readonly blocks: boolean }>();
  let isStopping = false;
  return {
    register(name, check, { blocks = true } = {}) {
      if (!/^[a-z][a-z0-9_]*$/.test(name) || name === NOT_STOPPING || checks.has(name)) {
        throw new Error(`readiness check ${JSON.stringify(name)} is not a new snake_case name`);
      }
      const own = { check, blocks };
      checks.set(name, own);
      return () => {
        if (checks.get(name) === own) checks.delete(name);
      };
    },
    stopping() {
      isStopping = true;
    },
    evaluate() {
      const reports: CheckReport[] = [];
      for (const [name, { check, blocks }] of checks) reports.push({ name, blocks, ...ask(check) });
      reports.push({ name: NOT_STOPPING, ok: !isStopping, detail: isStopping ? 'the process is stopping' : undefined, blocks: true });
      // Nobody has said yet what this process needs: then it is not ready.
      const isEmpty = ![...checks.values()].some((check) => check.blocks);
      if (isEmpty) reports.push({ name: 'starting', ok: false, detail: 'no checks are registered yet', blocks: true });
      return { ready: reports.every((report) => report.ok || !report.blocks), checks: reports };
    },
  };
}

function ask(check: () => CheckResult): { readonly ok: boolean; readonly detail: string | undefined } {
  try {
    const { ok, detail } = check();
    return { ok, detail };
  } catch {
    return { ok: false, detail: 'the check itself failed' };
  }
}

/** The answer to `/readyz`: the names of what fails. */
export function formatReadiness(report: ReadinessReport): string {
  if (report.ready) return 'ok\n';
  const failing = report.checks.filter((check) => check.blocks && !check.ok).map((check) => check.name);
  return `not ready: ${failing.join(', ')}\n`;
}

/** The answer to `/readyz?verbose`: one line a check, in the form that Kubernetes' own components use. */
export function formatReadinessVerbose(report: ReadinessReport): string {
  const lines = report.checks.map(({ name, ok, detail, blocks }) => {
    const text = detail === undefined ? '' : `: ${onOneLine(detail)}`;
    if (ok) return `[+]${name} ok${text}`;
    return blocks ? `[-]${name} failed${text}` : `[!]${name} warning${text}`;
  });
  return `${[...lines, report.ready ? 'readyz check passed' : 'readyz check failed'].join('\n')}\n`;
}

/** Details quote what came from outside; a line break in one must not look like another check. */
function onOneLine(text: string): string {
  // oxlint-disable-next-line no-control-regex -- control characters are what is looked for
  return text.replaceAll(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, ' ');
}
