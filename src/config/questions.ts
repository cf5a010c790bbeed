/** Questions to a policy, as `scute explain` and `scute policy test` take them. */
import * as z from 'zod';
import { pathOf } from '../spiffe/spiffe-id.ts';
import * as field from './fields.ts';

const visible = z.string().regex(/^[\x21-\x7e]+$/, 'must be visible ASCII characters');

const fields = {
  listener: field.listenerName.optional(),
  peer: field.spiffeId.refine((id) => pathOf(id) !== '', 'is a trust domain, which no workload is called'),
  method: visible.optional(),
  path: z
    .string()
    .regex(/^(?:\/|\*$)/, 'must begin with "/"')
    // oxlint-disable-next-line no-control-regex -- these end a request target, or a line
    .regex(/^[^\x00-\x20\x7f]*$/, 'must have no spaces and control characters, which no request target has')
    .optional(),
  host: visible.optional(),
  subject: field.spiffeId.refine((id) => pathOf(id) !== '', 'is a trust domain, which no workload is called').optional(),
  at: field.timestamp.optional(),
};

const expect = z.enum(['allow', 'deny']);

/** One question. What is left out is not asked about; `listener` may be left out where there is one, and `at` is now. */
export const questionSchema = z.strictObject({ ...fields, expect: expect.optional() });
export type RawQuestion = z.output<typeof questionSchema>;

/** A table of questions with the answers that are expected; `rule` is the rule that must decide, as logs name it. */
export const questionTableSchema = z
  .array(z.strictObject({ ...fields, expect, rule: z.string().min(1).optional() }))
  .refine((questions) => questions.length > 0, 'has no question, so it tests nothing');
export type ExpectedQuestion = z.output<typeof questionTableSchema>[number];
