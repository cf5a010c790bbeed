/** `identity`: which SVID. Pure. */
import * as z from 'zod';
import type { SvidChoice } from '../../identity/snapshot.ts';
import * as field from '../fields.ts';

export const identity = z
  .strictObject({
    id: field.spiffeId.optional().meta({ description: 'the SVID with this SPIFFE ID' }),
    hint: z.string().min(1).max(1024).optional().meta({ description: 'the SVID with this hint' }),
  })
  .refine((choice) => (choice.id === undefined) !== (choice.hint === undefined), 'needs either id or hint')
  .transform((choice): SvidChoice => {
    if (choice.id !== undefined) return { by: 'id', id: choice.id };
    return choice.hint === undefined ? { by: 'default' } : { by: 'hint', hint: choice.hint };
  })
  .optional()
  .meta({ description: 'which of several SVIDs to present; the first that the Workload API gives if left out. Never another one instead' });
