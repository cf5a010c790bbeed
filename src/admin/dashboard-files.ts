import { join } from 'node:path';

/** What a browser loads beside the page itself. */
export interface DashboardFiles {
  /** Of a sidecar. */
  readonly script: string;
  /** Of the fleet. */
  readonly fleet: string;
  readonly style: string;
}

let made: Promise<DashboardFiles> | undefined;

/**
 * The dashboard as browsers take it, bundled from `src/dashboard` the first time. So it is when Scute runs from its sources;
 * `npm run build` puts what this gives in the place of this file, and what is shipped bundles nothing. Rejects without esbuild.
 */
export function dashboardFiles(): Promise<DashboardFiles> {
  made ??= bundleDashboard()
    .then(({ files }) => files)
    .catch((cause: unknown) => {
      made = undefined;
      throw cause;
    });
  return made;
}

/** `inputs` are the files that it was made of, from the working directory. */
export async function bundleDashboard(): Promise<{ readonly files: DashboardFiles; readonly inputs: readonly string[] }> {
  const { build, stop } = await import('esbuild');
  const folder = join(import.meta.dirname, '..', 'dashboard');
  try {
    const { outputFiles, metafile } = await build({
      entryPoints: { script: join(folder, 'main.tsx'), fleet: join(folder, 'fleet/main.tsx'), style: join(folder, 'style.css') },
      outdir: folder,
      write: false,
      metafile: true,
      bundle: true,
      minify: true,
      format: 'esm',
      target: ['chrome123', 'firefox120', 'safari17.5'],
      jsx: 'automatic',
      jsxImportSource: 'preact',
      legalComments: 'eof',
      logLevel: 'silent',
    });
    const text = (end: string): string => outputFiles.find(({ path }) => path.endsWith(end))?.text ?? '';
    const files = { script: text('script.js'), fleet: text('fleet.js'), style: text('style.css') };
    return { files, inputs: Object.keys(metafile.inputs) };
  } finally {
    // A process of its own, which nobody needs any more.
    await stop();
  }
}
