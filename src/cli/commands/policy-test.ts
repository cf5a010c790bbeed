import { formatIssues, formatPath, formatPlace, type ConfigIssue } from '../../config/issue.ts';
import { loadLocatedConfig, loadLocatedYaml } from '../../config/load.ts';
import { questionTableSchema, type ExpectedQuestion } from '../../config/questions.ts';
import { systemClock } from '../../lib/clock.ts';
import { EXIT_FAILED, EXIT_OK, EXIT_USAGE, type CommandEnvironment } from '../environment.ts';
import { answerQuestion, describeAnswer, putQuestion, type Answer, type Put } from '../question.ts';

/** `scute policy test`: whether a configuration answers a table of questions as that expects. None is put unless all can be. */
export async function testPolicy(file: string, table: string, { env, stdout, stderr }: CommandEnvironment): Promise<number> {
  const [loaded, questions] = await Promise.all([loadLocatedConfig({ file, flags: {}, env }), loadLocatedYaml(table, questionTableSchema)]);
  if (!loaded.ok || !questions.ok) {
    stderr(`${formatIssues([...(loaded.ok ? [] : loaded.error), ...(questions.ok ? [] : questions.error)])}\n`);
    return EXIT_USAGE;
  }
  // One now for all.
  const nowMs = systemClock.now();
  const problems: ConfigIssue[] = [];
  const all: { readonly put: Put; readonly expected: ExpectedQuestion; readonly index: number }[] = [];
  for (const [index, expected] of questions.value.value.entries()) {
    const put = putQuestion(loaded.value.value, expected, nowMs);
    if (put.ok) all.push({ put: put.value, expected, index });
    else
      for (const { key, message } of put.error)
        problems.push({ ...questions.value.locate([index, key], 'value'), path: formatPath([index, key]), message });
  }
  if (problems.length > 0) {
    stderr(`${formatIssues(problems)}\n`);
    return EXIT_USAGE;
  }
  let failed = 0;
  for (const { put, expected, index } of all) {
    const answer = answerQuestion(put);
    const wrong = differenceOf(expected, answer);
    if (wrong === undefined) continue;
    failed++;
    const lines = describeAnswer(put, answer, loaded.value.locate).map((line) => `  ${line}\n`);
    stdout(`${formatPlace(questions.value.locate([index], 'value'))}: ${wrong}\n${lines.join('')}`);
  }
  stdout(`${all.length - failed} passed, ${failed} failed\n`);
  return failed === 0 ? EXIT_OK : EXIT_FAILED;
}

function differenceOf({ expect, rule }: ExpectedQuestion, answer: Answer): string | undefined {
  if ((expect === 'allow') !== answer.allowed) return `expected ${expect}`;
  const decided = 'explanation' in answer ? answer.explanation.verdict.rule : undefined;
  if (rule !== undefined && rule !== decided) return `expected ${expect} by ${JSON.stringify(rule)}`;
  return undefined;
}
