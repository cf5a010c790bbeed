import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Ajv2020 } from 'ajv/dist/2020.js';

/** Fails unless `answer` is what the JSON Schema says of `definition`. */
export type AssertSchema = (definition: string, answer: unknown) => void;

/** By the JSON Schema of answers in that file of `configs/`. */
export function answerSchema(file: string): AssertSchema {
  const schema: object = JSON.parse(readFileSync(join(import.meta.dirname, '../../../configs', file), 'utf8'));
  const ajv = new Ajv2020({ strict: true, allErrors: true, validateFormats: false });
  ajv.addSchema(schema, 'api');
  return (definition, answer) => {
    const validate = ajv.getSchema(`api#/$defs/${definition}`);
    assert.ok(validate, `there is no ${definition} in the schema`);
    assert.ok(validate(answer), `${definition}: ${ajv.errorsText(validate.errors ?? null)}\n${JSON.stringify(answer, null, 2)}`);
  };
}
