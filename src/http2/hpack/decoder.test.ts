import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { hpackInteger } from '../../../test/support/http/http2-frames.ts';
import { HpackDecoder, HpackError, type HpackLimits, type HpackProblem } from './decoder.ts';
import { DynamicTable } from './dynamic-table.ts';
import type { HpackField } from './field.ts';

const LIMITS: HpackLimits = { maxTableSize: 4096, maxFieldSectionSize: 65_536, maxFields: 100 };

const decoder = (limits: Partial<HpackLimits> = {}): HpackDecoder => new HpackDecoder({ ...LIMITS, ...limits });
const hex = (text: string): Buffer => Buffer.from(text.replaceAll(' ', ''), 'hex');

const FIRST: HpackField[] = [
  [':method', 'GET'],
  [':scheme', 'http'],
  [':path', '/'],
  [':authority', 'www.example.com'],
];
const SECOND: HpackField[] = [...FIRST, ['cache-control', 'no-cache']];
const THIRD: HpackField[] = [
  [':method', 'GET'],
  [':scheme', 'https'],
  [':path', '/index.html'],
  [':authority', 'www.example.com'],
  ['custom-key', 'custom-value'],
];
const FOUND: HpackField[] = [
  [':status', '302'],
  ['cache-control', 'private'],
  ['date', 'Mon, 21 Oct 2013 20:13:21 GMT'],
  ['location', 'https://www.example.com'],
];
const NOT_MODIFIED: HpackField[] = [[':status', '307'], ...FOUND.slice(1)];
const OK: HpackField[] = [
  [':status', '200'],
  ['cache-control', 'private'],
  ['date', 'Mon, 21 Oct 2013 20:13:22 GMT'],
  ['location', 'https://www.example.com'],
  ['content-encoding', 'gzip'],
  ['set-cookie', 'foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1'],
];

/** RFC 7541, appendices C.2 to C.6: blocks of one connection each, and what they say. */
const EXAMPLES: readonly { readonly name: string; readonly tableSize?: number; readonly blocks: readonly [string, HpackField[]][] }[] = [
  {
    name: 'C.2.1, a literal with indexing',
    blocks: [['400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572', [['custom-key', 'custom-header']]]],
  },
  { name: 'C.2.2, a literal without indexing', blocks: [['040c 2f73 616d 706c 652f 7061 7468', [[':path', '/sample/path']]]] },
  { name: 'C.2.3, one never indexed', blocks: [['1008 7061 7373 776f 7264 0673 6563 7265 74', [['password', 'secret', true]]]] },
  { name: 'C.2.4, an indexed field', blocks: [['82', [[':method', 'GET']]]] },
  {
    name: 'C.3, requests',
    blocks: [
      ['8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d', FIRST],
      ['8286 84be 5808 6e6f 2d63 6163 6865', SECOND],
      ['8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65', THIRD],
    ],
  },
  {
    name: 'C.4, requests with the Huffman code',
    blocks: [
      ['8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff', FIRST],
      ['8286 84be 5886 a8eb 1064 9cbf', SECOND],
      ['8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf', THIRD],
    ],
  },
  {
    name: 'C.5, responses, with a table of 256 bytes',
    tableSize: 256,
    blocks: [
      [
        '4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d',
        FOUND,
      ],
      ['4803 3330 37c1 c0bf', NOT_MODIFIED],
      [
        '88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31',
        OK,
      ],
    ],
  },
  {
    name: 'C.6, responses with the Huffman code, with a table of 256 bytes',
    tableSize: 256,
    blocks: [
      [
        '4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3',
        FOUND,
      ],
      ['4883 640e ffc1 c0bf', NOT_MODIFIED],
      [
        '88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07',
        OK,
      ],
    ],
  },
];

for (const { name, tableSize, blocks } of EXAMPLES) {
  test(`RFC 7541, appendix ${name}`, () => {
    const hpack = decoder({ maxTableSize: tableSize ?? 4096 });
    for (const [block, fields] of blocks) assert.deepEqual(hpack.decode(hex(block)), fields);
  });
}

const BIG = 'v'.repeat(4000);

/** What a decoder says in turn: fields, `too_large`, or the reason of an error. */
function say(hpack: HpackDecoder, block: string | Buffer): readonly HpackField[] | string {
  try {
    return hpack.decode(typeof block === 'string' ? hex(block) : block);
  } catch (error) {
    assert.ok(error instanceof HpackError, String(error));
    return error.reason;
  }
}

/** A literal without the Huffman code; `first` says its kind: `40` inserts it, `00` does not. */
function literal(first: string, name: string, value: string): Buffer {
  const text = (of: string): Buffer => Buffer.concat([hpackInteger(of.length, 7, 0), Buffer.from(of, 'latin1')]);
  return Buffer.concat([hex(first), text(name), text(value)]);
}

const ERRORS: Readonly<Record<HpackProblem, readonly (readonly [name: string, block: string])[]>> = {
  index: [
    ['index 0', '80'],
    ['the first beyond both tables', 'be'],
    ['far beyond both tables', 'ff ffff ff7f'],
    ['the name of a literal beyond both tables', '7e 0161'],
    ['the name of one without indexing beyond both tables', '0f 2f 0161'],
    ['the name of one never indexed beyond both tables', '1f 2f 0161'],
    ['after good fields', '8286 80'],
  ],
  integer: [
    ['an index of 2^32', 'ff 81ff ffff 0f'],
    ['an index of more than five bytes', 'ff ffff ffff ff01'],
    ['an index that is hidden behind zeros', 'ff 8080 8080 8000'],
    ['a length of 2^32', '00 7f 81ff ffff 0f'],
    ['a size of 2^35', '3f ffff ffff 7f'],
  ],
  huffman: [
    ['EOS', '00 84 ffff ffff 00'],
    ['EOS within a text', '00 85 1fff ffff ff 00'],
    ['padding of eight bits', '00 82 1fff 00'],
    ['padding of a whole byte and nothing else', '00 81 ff 00'],
    ['padding with a zero', '00 81 1e 00'],
    ['padding of zeros', '00 81 18 00'],
    ['a code that is cut short', '00 81 fe 00'],
    ['of a value that nobody would see', '0001 6182 1fff'],
  ],
  truncated: [
    ['an index without its last byte', 'ff 80'],
    ['a literal without a name', '40'],
    ['a literal without a value', '0001 61'],
    ['a text that is longer than the block', '0002 61'],
    ['a text of 4 GiB', '00 7f 80ff ffff 0f'],
    ['a size without its last byte', '3f'],
  ],
  table_size: [
    ['one more than the limit', '3f e21f'],
    ['2^32 - 1', '3f e0ff ffff 0f'],
    ['too much after a good one', '20 3f e21f'],
  ],
  size_update_late: [
    ['after a field', '82 20'],
    ['after a literal', '0001 6101 62 20'],
  ],
  size_update_missing: [],
};

for (const [reason, blocks] of Object.entries(ERRORS)) {
  for (const [name, block] of blocks) {
    test(`a block is refused as ${reason}: ${name}`, () => {
      const hpack = decoder();
      assert.equal(say(hpack, block), reason);
      // What it says next could be anything, so nothing is read any more.
      assert.equal(say(hpack, '82'), reason);
    });
  }
}

test('numbers of five bytes are read as they are', () => {
  const hpack = decoder({ maxTableSize: 2 ** 32 - 1 });
  assert.deepEqual(say(hpack, '3f e0ff ffff 0f 82'), [[':method', 'GET']]);
  assert.deepEqual(say(hpack, '3f 8080 8080 00 82'), [[':method', 'GET']], 'zeros at the end are allowed');
});

test('every beginning of a block is refused as truncated, or is a block of its own', () => {
  for (const { tableSize, blocks } of EXAMPLES) {
    for (const [number, [last, fields]] of blocks.entries()) {
      const whole = hex(last);
      for (let length = 0; length < whole.length; length++) {
        const hpack = decoder({ maxTableSize: tableSize ?? 4096 });
        for (const [block] of blocks.slice(0, number)) hpack.decode(hex(block));
        const said = say(hpack, whole.subarray(0, length));
        if (typeof said === 'string') assert.equal(said, 'truncated', `${last} to ${length}`);
        else assert.deepEqual(said, fields.slice(0, said.length), `${last} to ${length}`);
      }
    }
  }
});

test('a block is read where it lies, and keeps nothing of what lies around it', () => {
  const around = Buffer.concat([Buffer.alloc(9, 0xff), hex('0001 6101 62'), Buffer.alloc(9, 0xff)]);
  const hpack = decoder();
  const fields = hpack.decode(around, 9, 14);
  around.fill(0x63);
  assert.deepEqual(fields, [['a', 'b']]);
  assert.equal(hpack.decode(hex('0001 6101 62')), fields);
  assert.equal(say(decoder(), around.subarray(0, 0)).length, 0, 'no block, no field');
  assert.equal(say(decoder(), '00 01'), 'truncated');
});

test('all bytes come through, coded or not, and none of them means anything', () => {
  const every = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte)).toString('latin1');
  assert.deepEqual(say(decoder(), literal('00', '__proto__', every)), [['__proto__', every]]);
  const coded = hex('00 86 fd9f d3ec f49f 03 666f 6f');
  const [field] = say(decoder(), coded) as readonly HpackField[];
  assert.equal(field?.[1], 'foo');
});

test('a text may be much longer than its code', () => {
  // `0` has five bits.
  for (const eights of [1, 2047, 2048, 2049, 20_000]) {
    const block = Buffer.concat([hex('0001 61'), hpackInteger(eights * 5, 7, 0x80), Buffer.alloc(eights * 5)]);
    assert.deepEqual(say(decoder(), block), eights * 8 + 33 > LIMITS.maxFieldSectionSize ? 'too_large' : [['a', '0'.repeat(eights * 8)]]);
  }
});

suite('the table', () => {
  /** What stands in the table, by asking for it. */
  const table = (hpack: HpackDecoder, places: number): readonly HpackField[] | string =>
    say(hpack, Buffer.from(Array.from({ length: places }, (_, place) => 0xbe + place)));

  test('drops the oldest to make room, and no more than that', () => {
    // Each counts for 34 bytes.
    const hpack = decoder({ maxTableSize: 68 });
    for (const name of 'abcd') hpack.decode(literal('40', name, 'v'));
    assert.deepEqual(table(hpack, 2), [
      ['d', 'v'],
      ['c', 'v'],
    ]);
    assert.equal(table(hpack, 3), 'index');
  });

  test('a field that is too large for it leaves it empty, and is there all the same', () => {
    const hpack = decoder({ maxTableSize: 68 });
    hpack.decode(literal('40', 'a', 'v'));
    const large = 'w'.repeat(36);
    assert.deepEqual(hpack.decode(literal('40', 'b', large)), [['b', large]]);
    assert.equal(table(hpack, 1), 'index');
  });

  test('one that fits to the byte stays', () => {
    const hpack = decoder({ maxTableSize: 68 });
    hpack.decode(literal('40', 'b', 'w'.repeat(35)));
    assert.deepEqual(table(hpack, 1), [['b', 'w'.repeat(35)]]);
  });

  test('a new field may have the name of one that it drops', () => {
    const hpack = decoder({ maxTableSize: 68 });
    for (const name of 'ab') hpack.decode(literal('40', name, 'v'));
    // Index 63, the older one.
    assert.deepEqual(hpack.decode(hex('7f 00 0177')), [['a', 'w']]);
    assert.deepEqual(table(hpack, 2), [
      ['a', 'w'],
      ['b', 'v'],
    ]);
  });

  test('has its order after thousands of insertions', () => {
    const hpack = decoder({ maxTableSize: 34 * 100 });
    for (let number = 0; number < 5000; number++) hpack.decode(literal('40', String.fromCharCode(number & 0xff), 'v'));
    const newest = table(hpack, 60) as readonly HpackField[];
    assert.deepEqual(
      newest.map(([name]) => name.charCodeAt(0)),
      Array.from({ length: 60 }, (_, back) => (4999 - back) & 0xff),
    );
    // The hundredth is the last: index 161, then 162.
    assert.notEqual(say(hpack, 'ff22'), 'index');
    assert.equal(say(hpack, 'ff23'), 'index');
  });

  test('keeps no places of fields that are gone, on a connection that inserts for ever', () => {
    const table = new DynamicTable(4096);
    const field: HpackField = ['a', 'v'];
    const before = process.memoryUsage().heapUsed;
    // 80 MB of places.
    for (let number = 0; number < 10_000_000; number++) table.insert(field);
    assert.ok(process.memoryUsage().heapUsed - before < 40_000_000);
    assert.equal(table.at(119), field);
    assert.equal(table.at(120), undefined);
  });

  test('is emptied by an update to 0, may be larger again, and never beyond the limit', () => {
    const hpack = decoder({ maxTableSize: 100 });
    hpack.decode(literal('40', 'a', 'v'));
    assert.deepEqual(say(hpack, '20 82'), [[':method', 'GET']]);
    hpack.decode(literal('40', 'b', 'v'));
    assert.deepEqual(say(hpack, '3f45 82'), [[':method', 'GET']], 'an update to 100');
    hpack.decode(literal('40', 'c', 'v'));
    assert.deepEqual(table(hpack, 1), [['c', 'v']]);
    assert.equal(table(hpack, 2), 'index');
  });

  test('begins with 4096 bytes, however large it may become', () => {
    const hpack = decoder({ maxTableSize: 65_536 });
    hpack.decode(literal('40', 'a', BIG));
    hpack.decode(literal('40', 'b', BIG));
    assert.equal(table(hpack, 2), 'index');
    const larger = decoder({ maxTableSize: 65_536 });
    assert.deepEqual(say(larger, '3fe1ff03'), [], 'an update to 65,536');
    larger.decode(literal('40', 'a', BIG));
    larger.decode(literal('40', 'b', BIG));
    assert.deepEqual(table(larger, 2), [
      ['b', BIG],
      ['a', BIG],
    ]);
  });
});

suite('after the limit was lowered', () => {
  test('the next block must begin with an update to it or less', () => {
    for (const block of ['', '82', '3f45 82', '3f46 82', '40 0161 0162']) {
      const hpack = decoder();
      hpack.limitTableSize(99);
      assert.equal(say(hpack, block), block.startsWith('3f') ? 'table_size' : 'size_update_missing', block);
    }
    for (const block of ['20 82', '3f44 82', '3f44 20 3f44 82']) {
      const hpack = decoder();
      hpack.limitTableSize(99);
      assert.deepEqual(say(hpack, block), [[':method', 'GET']], block);
      assert.deepEqual(say(hpack, '82'), [[':method', 'GET']], 'once is enough');
    }
  });

  test('and raised again, the first update says the lowest', () => {
    const limits = (): HpackDecoder => {
      const hpack = decoder();
      for (const bytes of [1000, 0, 4096]) hpack.limitTableSize(bytes);
      return hpack;
    };
    assert.deepEqual(say(limits(), '20 3fe11f 82'), [[':method', 'GET']]);
    assert.equal(say(limits(), '3fe11f 82'), 'size_update_missing');
    assert.equal(say(limits(), '3f45 82'), 'size_update_missing', 'between the two');
    assert.equal(say(limits(), '82'), 'size_update_missing');
  });

  test('to what an encoder uses anyway, no update is needed', () => {
    const hpack = decoder();
    hpack.decode(hex('20'));
    hpack.limitTableSize(50);
    assert.deepEqual(say(hpack, '82'), [[':method', 'GET']]);
    assert.equal(say(hpack, '3f 14 82'), 'table_size', '51');
  });

  test('and raised before any block, what was never undercut needs none', () => {
    const hpack = decoder();
    hpack.limitTableSize(8192);
    hpack.limitTableSize(4096);
    assert.deepEqual(say(hpack, '82'), [[':method', 'GET']]);
  });
});

suite('a field section that is too large', () => {
  test('is told, to the byte and to the field, and the connection goes on', () => {
    // `:method` and `GET`: 42 bytes.
    assert.deepEqual(say(decoder({ maxFieldSectionSize: 84 }), '82 82').length, 2);
    for (const hpack of [decoder({ maxFieldSectionSize: 83 }), decoder({ maxFields: 1 })]) {
      assert.equal(say(hpack, '82 82'), 'too_large');
      assert.equal(say(hpack, '82 82'), 'too_large');
      assert.deepEqual(say(hpack, '82'), [[':method', 'GET']]);
    }
  });

  test('is inserted all the same, before and after the limit', () => {
    const hpack = decoder({ maxFieldSectionSize: 100 });
    const block = Buffer.concat([literal('40', 'a', 'v'), literal('00', 'long', BIG), literal('40', 'b', 'v'), literal('40', '', 'w')]);
    assert.equal(say(hpack, block), 'too_large');
    assert.deepEqual(say(hpack, 'be bf'), [
      ['', 'w'],
      ['b', 'v'],
    ]);
    assert.deepEqual(say(hpack, 'c0'), [['a', 'v']]);
  });

  test('is read to its end: what is wrong there is wrong', () => {
    for (const [reason, blocks] of Object.entries(ERRORS)) {
      for (const [name, block] of blocks) {
        // Updates come at the beginning, or are late.
        if (/^(?:20 )?3f/.test(block)) continue;
        const hpack = decoder({ maxFields: 0 });
        assert.equal(say(hpack, Buffer.concat([hex('82'), hex(block)])), reason, name);
      }
    }
  });

  test('costs no more than its bytes, if each of them stands for 4 KiB', () => {
    const hpack = decoder({ maxFieldSectionSize: 16_384 });
    hpack.decode(literal('40', 'a', BIG));
    const bomb = Buffer.alloc(1_000_000, 0xbe);
    const before = process.memoryUsage().heapUsed;
    assert.equal(say(hpack, bomb), 'too_large');
    // 4 GB if it were built.
    assert.ok(process.memoryUsage().heapUsed - before < 50_000_000);
    assert.deepEqual(say(hpack, 'be'), [['a', BIG]]);
  });
});

suite('a block that comes again', () => {
  const blocks = {
    indexed: hex('82 84 be'),
    literal: literal('00', 'grpc-timeout', '1S'),
    neverIndexed: literal('10', 'authorization', 'x'),
  };
  const withEntry = (limits: Partial<HpackLimits> = {}): HpackDecoder => {
    const hpack = decoder(limits);
    hpack.decode(literal('40', 'a', 'v'));
    return hpack;
  };

  for (const [name, block] of Object.entries(blocks)) {
    test(`gives the same frozen array: ${name}`, () => {
      const hpack = withEntry();
      const first = hpack.decode(block);
      assert.ok(Object.isFrozen(first));
      assert.equal(hpack.decode(Buffer.from(block)), first);
      assert.equal(hpack.decode(Buffer.concat([hex('20'), block]), 1), first);
    });
  }

  test('gives another one on another connection', () => {
    assert.notEqual(decoder().decode(hex('82')), decoder().decode(hex('82')));
  });

  const CHANGES: Readonly<Record<string, (hpack: HpackDecoder) => void>> = {
    'an insertion': (hpack) => void hpack.decode(literal('40', 'b', 'w')),
    'an insertion in a message that is too large': (hpack) =>
      assert.equal(hpack.decode(Buffer.concat([literal('00', 'x', BIG), literal('40', 'b', 'w')])), 'too_large'),
    'an insertion that is too large for the table': (hpack) => void hpack.decode(literal('40', 'b', 'w'.repeat(70))),
    'an update of the size': (hpack) => void hpack.decode(hex('20')),
    'an update to the size that it has': (hpack) => void hpack.decode(hex('3f45')),
    'a lower limit': (hpack) => hpack.limitTableSize(20),
  };
  for (const [name, change] of Object.entries(CHANGES)) {
    test(`is read anew after ${name}`, () => {
      const hpack = withEntry({ maxTableSize: 100, maxFieldSectionSize: 1000 });
      const before = hpack.decode(hex('82'));
      const entry = hpack.decode(hex('be'));
      assert.deepEqual(entry, [['a', 'v']]);
      change(hpack);
      const after = name === 'a lower limit' ? hpack.decode(hex('20 82')) : hpack.decode(hex('82'));
      assert.notEqual(after, before);
      const said = say(hpack, 'be');
      if (name.endsWith('that it has')) assert.deepEqual(said, entry);
      else assert.notDeepEqual(said, entry);
      assert.notEqual(said, entry);
    });
  }

  test('does its insertion each time', () => {
    const hpack = decoder();
    const block = literal('40', 'a', 'v');
    const first = hpack.decode(block);
    assert.ok(!Object.isFrozen(first));
    assert.notEqual(hpack.decode(block), first);
    assert.deepEqual(say(hpack, 'be bf'), [
      ['a', 'v'],
      ['a', 'v'],
    ]);
  });

  test('is needed with its update after the limit was lowered, although it was known without', () => {
    for (const block of ['', '82']) {
      const hpack = decoder();
      hpack.decode(hex(block));
      hpack.limitTableSize(0);
      assert.equal(say(hpack, block), 'size_update_missing');
    }
  });

  test('is not known any more when the connection is lost', () => {
    const hpack = decoder();
    hpack.decode(hex('82'));
    assert.equal(say(hpack, '80'), 'index');
    assert.equal(say(hpack, '82'), 'index');
  });

  test('stays known while thousands that never come again pass, which are forgotten', () => {
    const hpack = decoder();
    const often = hpack.decode(hex('82'));
    const first = hpack.decode(literal('00', 'x-request', 'first'));
    for (let number = 0; number < 10_000; number++) {
      hpack.decode(literal('00', 'x-request', String(number)));
      assert.equal(hpack.decode(hex('82')), often);
    }
    assert.notEqual(hpack.decode(literal('00', 'x-request', 'first')), first);
  });

  test('is forgotten with the table, however long ago it came', () => {
    for (let others = 0; others < 400; others += 7) {
      const hpack = withEntry();
      assert.deepEqual(hpack.decode(hex('be')), [['a', 'v']]);
      for (let number = 0; number < others; number++) hpack.decode(literal('00', 'x-request', String(number)));
      hpack.decode(literal('40', 'b', 'w'));
      assert.deepEqual(hpack.decode(hex('be')), [['b', 'w']], `after ${others} others`);
    }
  });

  test('is not kept if it is long, or has very many fields', () => {
    const long = literal('00', 'x', 'v'.repeat(3000));
    const many = Buffer.alloc(1000, 0x82);
    const hpack = decoder({ maxFields: 1000 });
    for (const block of [long, many]) assert.notEqual(hpack.decode(block), hpack.decode(block));
  });
});
