/** Ways to write paths, hosts and methods so that one reader takes them for something else than another. */
import { Draws } from '../../fuzz/random.ts';

/** A request, in bytes of HTTP/1.1 that need not be valid; one character is one byte. */
export interface Spelling {
  readonly method: string;
  readonly target: string;
  readonly host: string;
  readonly fields: readonly (readonly [name: string, value: string])[];
}

const SEED = 20_261_130;
const DRAWN = 600;

/** Of text of which each character is one byte. */
const hex = (text: string): string => Buffer.from(text, 'latin1').toString('hex').replaceAll(/../g, '%$&');
const upperHex = (text: string): string => hex(text).toUpperCase();

/** Other ways to write one character of ASCII, some for decoders that nobody should have. */
const ENCODINGS: readonly ((char: string) => string)[] = [
  hex,
  upperHex,
  (char) => hex(char).replace('%', '%25'),
  (char) => hex(char).replace('%', '%2525'),
  (char) => `%u00${char.charCodeAt(0).toString(16)}`,
  (char) => `%U00${char.charCodeAt(0).toString(16)}`,
  (char) => `%u{${char.charCodeAt(0).toString(16)}}`,
  (char) => `\\u00${char.charCodeAt(0).toString(16)}`,
  (char) => `\\x${char.charCodeAt(0).toString(16)}`,
  (char) => `&#${char.charCodeAt(0)};`,
  // UTF-8 that is too long, in two to six bytes.
  ...[2, 3, 4, 5, 6].flatMap((length) => [
    (char: string) => hex(overlong(char.charCodeAt(0), length)),
    (char: string) => upperHex(overlong(char.charCodeAt(0), length)),
  ]),
  (char) => overlong(char.charCodeAt(0), 2),
  // Beyond two bytes, what is cut off to one byte reads as it.
  (char) => hex(Buffer.from(String.fromCharCode(0x100 + char.charCodeAt(0))).toString('latin1')),
  (char) => hex(Buffer.from(fullwidth(char)).toString('latin1')),
  (char) => Buffer.from(fullwidth(char)).toString('latin1'),
  (char) => hex(String.fromCharCode(0x80 | char.charCodeAt(0))),
  (char) => char.toUpperCase(),
];

function overlong(code: number, length: number): string {
  const bytes: number[] = [];
  let rest = code;
  for (let index = 1; index < length; index++, rest >>= 6) bytes.unshift(0x80 | (rest & 0x3f));
  return String.fromCharCode(((0xff00 >> length) & 0xff) | rest, ...bytes);
}

function fullwidth(char: string): string {
  return String.fromCodePoint(char.charCodeAt(0) + 0xfee0);
}

/** What may stand for a slash, or come to nothing, ahead of a segment. */
const SEPARATORS = [
  '/', '//', '///', '/./', '/.//', '/././', '/x/../', '/x/y/../../', '/x/./../', '/../', '/../../', '/x/%2e%2e/', '/x/.%2e/', '/x/%2E./', '/%2e/',
  '/%2e%2e/', '/;/', '/;x=y/', '/;x=/../y/', '/x/..;/', '/x/..;a=b/', '/..;/', '/.;/', '\\', '/\\', '\\/', '\\\\', '/.\\', '/x\\..\\', '/x/..\\',
  '/%5c', '%5c', '/%5C', '%2f', '%2F', '/%2f', '/%2F', '%2f%2f', '/%252f', '/x/..%2f', '/x/..%2F', '/x%2f../', '/x%2f..%2f', '/x%5c..%5c',
  '/x/..%5c', '/x/%2e%2e%2f', '/x/%252e%252e/', '/x/..%252f', '/x/..%c0%af', '/x/..%C0%AF', '/x/%c0%ae%c0%ae/', '/x/%C0%AE%C0%AE/', '/%c0%ae/',
  '/%c0%af', '%c0%af', '/%e0%80%af', '/%f0%80%80%af', '/x/%e0%80%ae%e0%80%ae/', '/x/..%c1%9c', '/x/..%c0%9v', '/x/..%c1%1c', '/%ef%bc%8f',
  '/x/%ef%bc%8e%ef%bc%8e/', '/%e2%88%95', '/x/..%00/', '/x/%00../', '/%00/', '/x/..%01/', '/x/..%09/', '/%09/', '/\t/', '/x/.\t./', '/%20/', '/ /',
  '/x/.. /', '/x/..%20/', '/x/. ./', '/%0a/', '/%0d%0a/', '/x/..%0d/', '/%7f/', '/%ff/', '/x/..%ff/', '/x/...//', '/.../', '/x/....//', '/x/..?/../',
  '/?/../', '/?/', '/#/../', '/x#/../', '/*/../', '/~/../', '/:/../', '/x/..:/', '/@/../', '/+/../', '/x/+../', '/x/..+/', '/$/../', '/&/../',
  '/files/../', '/files//../', '/files/', '/files/./', '/files/x/../', '/files/%2e/', '/files//', '/files/;/', '/files/%2f', '/files/..%2f', '/files../',
  '/admin/../', '/admins/../', '/index.php/../', '', '.', './', '../', ':/', '*/', 'x/../', '/%', '/%2', '/%%', '/%zz/../', '/http://x/../', '/%68ttp:/',
]; // prettier-ignore

const WORDS = ['admin', '%61dmin', '%61%64%6d%69%6e', 'admi%6E', 'adm%69n', '%2561dmin', 'a%64min', 'admin%', 'Admin'];

/** What may come to nothing behind a segment, or end it. */
const TAILS = [
  '', '/', '//', '/.', '/./', '/..', '/../admin', '/../admin/', '/x/..', '/x/../', '/x/../users', '.', '..', './', '...', '%20', '%20/', ' ', ' /',
  '\t', '%09', '%00', '%00/', '%00.html', ';', ';/', ';x=y', ';x=y/', ';x=y/users', ';jsessionid=1', '?', '?x', '??', '?/../x', '?x=/..', '#', '#x', '#/..',
  '%23', '%23x', '%3f', '%3F', '%3fx', '%3b', '%3bx=y', '%3B', '%2f', '%2F', '%2fusers', '%2f/', '/%2f', '%5c', '\\', '\\users', '/%2e', '/%2e/',
  '/%2e%2e/admin', '/x/%2e%2e', '/x/%2e%2e/users', '.json', '.html', '.php', '/index.html', '/users', '/users/', '/users;x', '/users%20', '/%75sers',
  '/users%00', '//users', '/./users', '/x/../users', '~', '::$DATA', ':80', ':', '%3a', '%0a', '%0d', '%0d%0a', '%7f', '%80', '%ff', '%c2%a0',
  '%c2%85', '%e2%80%8b', '%e3%80%80', '%ef%bb%bf', '+', '*', '**', '/*', '/**', ',', '!', '$', '&', '&x', "'", '"', '(', ')', '=', '=x', '@', '@x', '<',
  '>', '[', ']', '^', '`', '{', '|', '}', '%', '%2', '%zz', '%c0%80', '%c0%af', '%c0%afusers', '%c1%9c', '%e0%80%af', '%u002f', '%u2215', '%ef%bc%8f', '%2e',
  '%2e/', '/%20', '/ ', '/+', '%26', '%3d', '%40', '%21', '%2a', '%2c', '%2b', '\x85', '\xa0', '\xe9', '%e9',
]; // prettier-ignore

/** Of `/admin` and what lies below it. All of them, and paths that only look like it. */
export function pathTargets(): readonly string[] {
  const draws = new Draws(SEED);
  const targets: string[] = [];
  const word = 'admin';
  for (const tail of ['', '/', '/users']) {
    for (const encode of ENCODINGS) {
      // Each character, each pair of neighbours, and all of them.
      for (let length = 1; length <= word.length; length = length === 2 ? word.length : length + 1) {
        for (let at = 0; at + length <= word.length; at++) {
          const encoded = word
            .slice(at, at + length)
            .split('')
            .map(encode)
            .join('');
          targets.push(`/${word.slice(0, at)}${encoded}${word.slice(at + length)}${tail}`);
        }
      }
    }
  }
  // The slash and the dots themselves, in every encoding.
  for (const encode of ENCODINGS) {
    for (const [dots, slash] of [
      ['..', encode('/')],
      [encode('.').repeat(2), '/'],
      [encode('.').repeat(2), encode('/')],
      [`.${encode('.')}`, '/'],
    ])
      targets.push(`/x/${dots}${slash}admin`, `/x/y/${dots}/${dots}${slash}admin/`, `/files/x/${dots}${slash}admin/users`);
    targets.push(`${encode('/')}admin`, `/${encode('/')}admin`, `/admin${encode('/')}`, `/admin${encode('/')}users`);
    targets.push(`/${encode('.')}/admin`, `/admin/${encode('.')}`);
  }
  for (const separator of SEPARATORS) {
    for (const tail of ['', '/', '/users', '?x=1']) targets.push(`${separator}admin${tail}`);
    targets.push(`${separator}x${separator}..${separator}admin`, `/admin${separator}users`, `/x${separator}admin`);
  }
  for (const each of WORDS.slice(0, 3)) for (const tail of TAILS) targets.push(`/${each}${tail}`);
  for (const tail of TAILS) targets.push(`/files/admin${tail}`, `/open${tail}/x`);
  for (let index = 0; index < DRAWN; index++) {
    const [first, second] = [draws.of(SEPARATORS), draws.of(SEPARATORS)];
    const name = draws.once(2)
      ? draws.of(WORDS)
      : word
          .split('')
          .map((char) => (draws.once(3) ? draws.of(ENCODINGS)(char) : char))
          .join('');
    targets.push(`${first}${draws.once(2) ? `x${second}..${draws.of(SEPARATORS)}` : ''}${name}${draws.of(TAILS)}${draws.of(TAILS)}`);
  }
  const all = [...new Set(targets)];
  // In absolute form, too.
  const absolute = all.filter((target, index) => target.startsWith('/') && index % 24 === 0);
  return [...all, ...absolute.map((target) => `http://open.example${target}`)];
}

/** Of hosts that are denied, and of others that look like them. `target` is for absolute form. */
export function hostSpellings(): readonly Spelling[] {
  const names: string[] = [];
  for (const name of ['secret.example', '127.0.0.2']) {
    const changed = [
      name,
      name.toUpperCase(),
      name.replace(/^./, (first) => first.toUpperCase()),
      `${name}.`,
      `${name}..`,
      `.${name}`,
      `x.${name}`,
      `${name}.x`,
    ];
    for (const encode of ENCODINGS)
      for (const at of [0, 3, name.indexOf('.'), name.length - 1])
        changed.push(name.slice(0, at) + encode(name[at] ?? '') + name.slice(at + 1));
    changed.push(
      `user@${name}`,
      `user:pass@${name}`,
      `open.example@${name}`,
      `${name}@open.example`,
      `${name}#open.example`,
      `${name}/`,
      `${name}/x`,
    );
    changed.push(
      `${name}?`,
      `${name}\\`,
      `${name}\\open.example`,
      `open.example,${name}`,
      `${name},open.example`,
      `${name} open.example`,
      `open.example ${name}`,
    );
    changed.push(
      `${name}\t`,
      ` ${name}`,
      `${name}%00`,
      `${name}%20`,
      `${name}%2e`,
      `${name};`,
      `[${name}]`,
      `${name}_`,
      `-${name}`,
      `${name}:`,
      `"${name}"`,
    );
    names.push(...changed);
  }
  // An address that parsers of URLs read in many ways (WHATWG URL, section 3.5).
  names.push(
    '127.2',
    '127.0.2',
    '2130706434',
    '0x7f000002',
    '0x7f.0.0.2',
    '0X7F.2',
    '0177.0.0.2',
    '127.0.0.02',
    '127.0.0.0x2',
    '017700000002',
    '127.00.00.02',
  );
  names.push(
    '[::ffff:127.0.0.2]',
    '[::ffff:7f00:2]',
    '[0:0:0:0:0:ffff:7f00:0002]',
    '[::127.0.0.2]',
    '[::1]',
    '[::1%25lo]',
    '[::1%lo]',
    '[fe80::1%eth0]',
    '[v1.x]',
  );
  names.push(
    'open.example',
    'OPEN.example',
    'open.example.',
    'localhost',
    '127.0.0.1',
    'a',
    'xn--secret-9za.example',
    'secretexample',
    'secret-example',
    '',
  );
  const spellings: Spelling[] = [];
  for (const name of new Set(names)) {
    const isPlain = /^[\w.]+$/.test(name);
    for (const port of ['', ':', ':80', ':443', ':0', ':00080', ':65536', ':x', ':80:80']) {
      if (port !== '' && !/^(?:secret\.example\.?|127\.0\.0\.2|open\.example|127\.2)$/i.test(name)) continue;
      spellings.push({ method: 'GET', target: '/', host: `${name}${port}`, fields: [] });
      for (const scheme of isPlain ? ['http', 'HTTPS'] : ['http'])
        spellings.push({ method: 'GET', target: `${scheme}://${name}${port}/`, host: `${name}${port}`, fields: [] });
      if (!isPlain) continue;
      spellings.push({ method: 'GET', target: `http://${name}${port}`, host: 'open.example', fields: [] });
      spellings.push({ method: 'GET', target: 'http://open.example/', host: `${name}${port}`, fields: [] });
    }
    spellings.push({ method: 'GET', target: `//${name}/`, host: 'open.example', fields: [] });
    if (!isPlain) continue;
    // What a parser of URLs takes for another host.
    for (const target of [
      `///${name}/`,
      `/\\${name}/`,
      `\\\\${name}/`,
      `//user@${name}/`,
      `//${name}:80/x`,
      `/x@${name}`,
      `@${name}/`,
      `:80@${name}/`,
    ])
      spellings.push({ method: 'GET', target, host: 'open.example', fields: [] });
    spellings.push({ method: 'GET', target: '/', host: 'open.example', fields: [['Host', name]] });
  }
  return spellings;
}

/** Fields by which applications take a request for another one. */
export function overrideSpellings(): readonly Spelling[] {
  const spellings: Spelling[] = [];
  const names = ['X-HTTP-Method-Override', 'X-HTTP-Method', 'X-Method-Override'];
  const paths = ['X-Original-URL', 'X-Rewrite-URL'];
  const written = (name: string): readonly string[] => [
    name,
    name.toLowerCase(),
    name.toUpperCase(),
    name.replaceAll('-', '_'),
    name.replace('-', '_'),
    name.replaceAll('-', '.'),
    name.replace(/-([^-]*)$/, '_$1'),
    `${name} `,
  ];
  for (const name of names)
    for (const field of written(name))
      for (const method of ['POST', 'GET'])
        for (const value of ['DELETE', 'delete', ' DELETE', 'DELETE '])
          spellings.push({ method, target: '/open', host: 'open.example', fields: [[field, value]] });
  for (const name of paths)
    for (const field of written(name))
      for (const value of ['/admin', '/admin/', '/admin/users', '/admin?x', 'http://open.example/admin'])
        spellings.push({ method: 'GET', target: '/open', host: 'open.example', fields: [[field, value]] });
  for (const method of ['DELETE', 'delete', 'Delete', 'DELETE\t', 'DELETEX'])
    spellings.push({ method, target: '/open', host: 'open.example', fields: [] });
  return spellings;
}
