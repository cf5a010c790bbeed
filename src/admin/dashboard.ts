import type { DashboardFiles } from './dashboard-files.ts';
import { plain, type Reply, type Routes } from './http.ts';

/** Everything comes from here, nothing stands in the page itself, and it stands in no other. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "connect-src 'self'",
  "img-src 'self' data:",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

const HEADERS = {
  'content-security-policy': POLICY,
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
};

const ICON =
  "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24'%3E%3Cpath d='M12 1.6l9 5.2v10.4l-9 5.2-9-5.2V6.8z' fill='%230c7a5b'/%3E%3Cpath d='M12 6l5.2 3v6L12 18l-5.2-3V9z' fill='%23fff'/%3E%3C/svg%3E";

const page = (script: string, api: string): string => `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Scute</title>
<link rel="icon" href="${ICON}">
<link rel="stylesheet" href="dashboard.css">
<script type="module" src="${script}"></script>
</head>
<body>
<div id="page"><p class="before">Loading the dashboard …</p></div>
<noscript><p class="before">The dashboard needs JavaScript. Without it, ${api} says the same.</p></noscript>
</body>
</html>
`;

/** When the first browser asks: nobody else needs it. */
async function load(): Promise<DashboardFiles> {
  const { dashboardFiles } = await import('./dashboard-files.ts');
  return dashboardFiles();
}

/** The dashboard of a sidecar at `/`. A link from anywhere may lead to it: what it shows, it asks of the API, which other pages may not. */
export function createDashboardRoutes(): Routes {
  return routes('dashboard.js', '/api/v1/', ({ script }) => script);
}

/** The same, of the fleet. */
export function createFleetPageRoutes(): Routes {
  return routes('fleet.js', '/api/v1/fleet/', ({ fleet }) => fleet);
}

function routes(name: string, api: string, scriptOf: (files: DashboardFiles) => string): Routes {
  const html = page(name, api);
  const file = (contentType: string, choose: (files: DashboardFiles) => string) => ({
    GET: async (): Promise<Reply> => {
      const files = await load().catch(() => undefined);
      if (files === undefined)
        return plain(503, 'the dashboard is missing: npm run build puts it beside the program; from the sources it needs esbuild');
      return { status: 200, body: choose(files), contentType, headers: HEADERS };
    },
  });
  return {
    '/': file('text/html; charset=utf-8', () => html),
    [`/${name}`]: file('text/javascript; charset=utf-8', scriptOf),
    '/dashboard.css': file('text/css; charset=utf-8', ({ style }) => style),
  };
}
