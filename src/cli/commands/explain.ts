import { formatIssues, judge, type RawConfig } from '../../config/issue.ts';
import { loadLocatedConfig } from '../../config/load.ts';
import { questionSchema } from '../../config/questions.ts';
import { systemClock } from '../../lib/clock.ts';
import { EXIT_FAILED, EXIT_OK, EXIT_USAGE, type CommandEnvironment } from '../environment.ts';
import { answerQuestion, describeAnswer, putQuestion } from '../question.ts';

/** `scute explain`: what a policy says of a peer, or of a request, and why. `flags` is the question, unjudged. */
export async function explainCommand(
  file: string,
  flags: Readonly<Record<string, string>>,
  { env, stdout, stderr }: CommandEnvironment,
): Promise<number> {
  const raw: RawConfig = { value: flags, locate: () => ({ source: 'command line', line: undefined, column: undefined }) };
  const asked = judge(questionSchema, raw);
  const loaded = await loadLocatedConfig({ file, flags: {}, env });
  if (!asked.ok || !loaded.ok) {
    stderr(`${formatIssues([...(asked.ok ? [] : asked.error), ...(loaded.ok ? [] : loaded.error)])}\n`);
    return EXIT_USAGE;
  }
  const put = putQuestion(loaded.value.value, asked.value, systemClock.now());
  if (!put.ok) {
    stderr(`${formatIssues(put.error.map(({ key, message }) => ({ ...raw.locate([], 'value'), path: key, message })))}\n`);
    return EXIT_USAGE;
  }
  const answer = answerQuestion(put.value);
  const { expect } = asked.value;
  const isExpected = expect === undefined || (expect === 'allow') === answer.allowed;
  const lines = describeAnswer(put.value, answer, loaded.value.locate);
  stdout(`${[...lines, ...(isExpected ? [] : [`expected  ${expect}`])].join('\n')}\n`);
  return isExpected ? EXIT_OK : EXIT_FAILED;
}
