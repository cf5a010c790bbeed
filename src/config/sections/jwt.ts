/** The keys for JWT-SVIDs. Pure. */
import * as z from 'zod';
import { foldName } from '../../http1/fields.ts';
import { OVERRIDES, XFCC } from '../../http1/identity-fields.ts';
import type { JwtConfig } from '../config.ts';
import * as field from '../fields.ts';

/** Of which the caller's token must have one. */
const MAX_AUDIENCES = 64;

const audience = z
  .string()
  .min(1)
  .max(2048)
  // oxlint-disable-next-line no-control-regex -- control characters are what is looked for
  .regex(/^[^\u0000-\u001f\u007f]+$/, 'must have no control characters');

/** `jwt` of an inbound listener. */
export const inboundJwt = z
  .strictObject({
    audiences: z
      .array(audience)
      .min(1)
      .max(MAX_AUDIENCES)
      .refine((names) => new Set(names).size === names.length, 'has an audience twice')
      .meta({ description: 'who we are to callers: a token must be for one of these' }),
    header: field.fieldName.prefault('Authorization').meta({
      description: 'the field with the token: `Authorization` with the scheme `Bearer`, or one that has the token alone',
    }),
    require: z.enum(['always', 'ifPresent']).prefault('always').meta({
      description:
        'whether each request must have a token: with `ifPresent`, one without is judged by its TLS peer alone. A token that is there and does not verify is refused either way',
    }),
    subjectHeader: field.fieldName.prefault('X-Spiffe-Jwt-Subject').meta({
      description: 'name of a field for the SPIFFE ID of the token, removed from what peers send',
    }),
    unsafeForwardToken: z.boolean().prefault(false).meta({
      description: 'leave the token in the request: the application, and whoever reads its log, can then use it as the caller',
    }),
  })
  .superRefine(({ header, subjectHeader }, context) => {
    const taken = [XFCC, header, ...OVERRIDES].map(foldName);
    if (taken.includes(foldName(subjectHeader)))
      context.addIssue({
        code: 'custom',
        path: ['subjectHeader'],
        message: 'is the name of a field with another meaning',
        input: subjectHeader,
      });
    if ([XFCC, ...OVERRIDES].map(foldName).includes(foldName(header)))
      context.addIssue({ code: 'custom', path: ['header'], message: 'is the name of a field with another meaning', input: header });
  })
  .transform(({ audiences, header, require, subjectHeader, unsafeForwardToken }): JwtConfig => ({
    audiences,
    header,
    isRequired: require === 'always',
    subjectHeader,
    forwardsToken: unsafeForwardToken,
  }));
