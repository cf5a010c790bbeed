import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { KEY_TYPES, type KeyType } from '../../src/devdomain/key-pair.ts';
import { type Finished, runChild } from '../support/child.ts';
import { startDevDomain } from '../support/dev-domain.ts';
import { needs, part, pythonPrograms } from './parts.ts';

const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n/g;

/** One SVID of each key type, as PEM files: leaf, intermediates, roots. */
async function issueOfEachKind(t: TestContext, intermediates: number): Promise<readonly IssuedFiles[]> {
  const folder = await mkdtemp(join(tmpdir(), 'scute-issued-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const domains = KEY_TYPES.map((keyType) => ({ name: `${keyType}.example`, keyType, intermediates }));
  const spiffe = await startDevDomain(t, ...domains);
  return Promise.all(
    KEY_TYPES.map(async (keyType) => {
      const id = `spiffe://${keyType}.example/billing/api`;
      const plain = await spiffe.issue(id);
      const named = await spiffe.issue(id, { dnsNames: ['api.billing.example', 'billing.example'] });
      const own = join(folder, keyType);
      await mkdir(own);
      const write = async (name: string, text: string): Promise<string> => {
        await writeFile(join(own, name), text);
        return join(own, name);
      };
      const all = [
        ...plain.chainPem.matchAll(CERTIFICATE),
        ...named.certPem.matchAll(CERTIFICATE),
        ...plain.bundlePem.matchAll(CERTIFICATE),
      ];
      for (const [index, [pem]] of all.entries()) await write(`single-${index}.pem`, pem);
      return {
        keyType,
        folder: own,
        leaves: [await write('leaf.pem', plain.certPem), await write('named.pem', named.certPem)],
        intermediates: await write('intermediates.pem', plain.chainPem.slice(plain.certPem.length)),
        roots: await write('roots.pem', plain.bundlePem),
      };
    }),
  );
}

interface IssuedFiles {
  readonly keyType: KeyType;
  readonly folder: string;
  readonly leaves: readonly string[];
  readonly intermediates: string;
  readonly roots: string;
}

async function singles(files: readonly IssuedFiles[]): Promise<string[]> {
  const names = await Promise.all(
    files.map(async ({ folder }) => (await readdir(folder)).filter((name) => name.startsWith('single-')).map((name) => join(folder, name))),
  );
  return names.flat().toSorted();
}

for (const intermediates of [0, 1, 2]) {
  const below = `${intermediates} intermediates`;

  test(`openssl takes what scute dev issues with ${below}, strictly and for both purposes`, needs('openssl'), async (t) => {
    const issued = await issueOfEachKind(t, intermediates);

    for (const { keyType, leaves, intermediates: untrusted, roots } of issued) {
      for (const leaf of leaves) {
        for (const purpose of ['sslserver', 'sslclient']) {
          const chain = intermediates === 0 ? [] : ['-untrusted', untrusted];
          const result = await runChild(
            [part('openssl'), 'verify', '-x509_strict', '-purpose', purpose, '-CAfile', roots, ...chain, leaf],
            { env: {} },
          );

          assert.equal(result.code, 0, `${keyType} ${purpose}: ${result.stdout}${result.stderr}`);
        }
      }
    }
  });

  test(`zlint finds nothing in what scute dev issues with ${below}`, needs('zlint'), async (t) => {
    const files = await singles(await issueOfEachKind(t, intermediates));

    for (const file of files) {
      const { code, stdout, stderr } = await runChild([part('zlint'), '-includeSources', 'RFC5280', file]);

      assert.equal(code, 0, `${file}: ${stderr}`);
      const lints = JSON.parse(stdout) as Record<string, { result: string; details?: string }>;
      assert.ok(Object.keys(lints).length > 50, 'zlint ran');
      const findings = Object.entries(lints).filter(([, { result }]) => !['pass', 'NA', 'NE'].includes(result));
      assert.deepEqual(findings, [], file);
    }
  });

  test(`pkilint finds nothing in what scute dev issues with ${below}`, needs('pkilint', 'python'), async (t) => {
    const files = await singles(await issueOfEachKind(t, intermediates));

    const reports = await pkilint('certificate', files);

    for (const { file, report } of reports) {
      const findings = report.results.flatMap(({ finding_descriptions: found }) => found);
      // It takes every URI for one of a web server: a SPIFFE ID is not what it expects.
      assert.deepEqual(
        findings.filter(({ code }) => code !== 'pkix.invalid_uri_syntax'),
        [],
        file,
      );
    }
  });
}

for (const intermediates of [0, 1]) {
  test(
    `revocation lists are good, and are heeded, with ${intermediates} intermediates`,
    needs('openssl', 'pkilint', 'python'),
    async (t) => {
      const folder = await mkdtemp(join(tmpdir(), 'scute-revoked-'));
      t.after(() => rm(folder, { recursive: true, force: true }));
      const files: string[] = [];
      for (const keyType of KEY_TYPES) {
        const name = `${keyType}.example`;
        const id = `spiffe://${name}/web`;
        const spiffe = await startDevDomain(t, { name, keyType, intermediates, workloads: { [keyType]: [id] } });
        const [kept, revoked] = [await spiffe.issue(id), await spiffe.issue(id)];
        await spiffe.revoke(name, revoked.serial);
        const answer = spiffe.answers(keyType).x509Svids.get();
        const [crl] = answer?.kind === 'message' ? answer.message.crl : [];
        assert.ok(crl !== undefined, 'the revocation list is handed out');
        const write = async (file: string, content: string | Uint8Array): Promise<string> => {
          const path = join(folder, `${keyType}-${file}`);
          await writeFile(path, content);
          return path;
        };
        files.push(await write('list.crl', crl));
        const pem = `-----BEGIN X509 CRL-----\n${Buffer.from(crl).toString('base64').replace(/.{64}/g, '$&\n')}\n-----END X509 CRL-----\n`;
        const check = async (chainPem: string, certPem: string): Promise<Finished> => {
          const trust = ['-CAfile', await write('roots.pem', kept.bundlePem), '-CRLfile', await write('list.pem', pem)];
          const chain = ['-untrusted', await write('chain.pem', chainPem), await write('leaf.pem', certPem)];
          return runChild([part('openssl'), 'verify', '-x509_strict', '-crl_check', ...trust, ...chain], { env: {} });
        };

        const good = await check(kept.chainPem, kept.certPem);
        const bad = await check(revoked.chainPem, revoked.certPem);

        assert.equal(good.code, 0, `${keyType}: ${good.stderr}`);
        assert.match(bad.stderr, /certificate revoked/, keyType);
      }

      for (const { file, report } of await pkilint('crl', files)) {
        assert.deepEqual(
          report.results.flatMap(({ finding_descriptions: found }) => found),
          [],
          file,
        );
      }
    },
  );
}

async function pkilint(kind: 'certificate' | 'crl', files: readonly string[]): Promise<readonly PkilintReport[]> {
  const { code, stdout, stderr } = await runChild([part('python'), join(pythonPrograms, 'lint.py'), kind, ...files]);
  assert.equal(code, 0, stderr);
  const reports = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as PkilintReport);
  assert.deepEqual(
    reports.map(({ file }) => file),
    files,
  );
  return reports;
}

/** What `lint_pkix_cert -f JSON` writes, and of which file. */
interface PkilintReport {
  readonly file: string;
  readonly report: { readonly results: readonly { readonly finding_descriptions: readonly { readonly code: string }[] }[] };
}
