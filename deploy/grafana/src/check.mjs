// node src/check.mjs: fails unless rotatord.json is what the sources build, the sources are
// well typed, and the JSON is what Grafana itself means by a dashboard and its panels.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { exit } from 'node:process';
import { fileURLToPath } from 'node:url';
import { build } from './dashboard.mjs';

const home = fileURLToPath(new URL('..', import.meta.url));

/** @param {string} text */
const fail = (text) => {
  console.error(text);
  exit(1);
};

/** @param {...string} args */
const tsc = (...args) => {
  try {
    execFileSync(path.join(home, 'node_modules/.bin/tsc'), args, { cwd: home, stdio: 'pipe' });
  } catch (/** @type {any} */ e) {
    fail(`tsc ${args.join(' ')}:\n${e.stdout}`);
  }
};

// Grafana's types write the values of enums as names; JSON has the values. What the Prometheus
// data source reads of an annotation is not part of the general type.
const preamble = `import type { AnnotationQuery, Dashboard, DataQuery } from '@grafana/schema';
type Plain<T> = unknown extends T ? T : T extends string ? \`\${T}\` : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;
type Query = DataQuery & { expr: string; legendFormat: string; interval: string; range: boolean; instant?: boolean; editorMode: 'code' };
type Mark = AnnotationQuery<Query> & { titleFormat: string; textFormat: string; useValueForTime?: boolean };
type OfPrometheus = Omit<Dashboard, 'annotations'> & { annotations: { list: Mark[] } };
`;

/** The kinds of panel whose options Grafana's package describes, by the names of their files. @type {Record<string, string>} */
const described = {
  stat: 'Stat', table: 'Table', timeseries: 'TimeSeries', 'state-timeline': 'StateTimeline', 'status-history': 'StatusHistory', bargauge: 'BarGauge',
};

/** @param {import('@grafana/grafana-foundation-sdk/dashboard').Dashboard} dashboard */
const asTypeScript = (dashboard) => {
  const lines = [preamble, `export const dashboard: Plain<OfPrometheus> = ${JSON.stringify(dashboard, null, 1)};`];
  for (const [kind, name] of Object.entries(described)) {
    const module = `@grafana/schema/dist/esm/raw/composable/${kind.replace('-', '')}/panelcfg/x/${name}PanelCfg_types.gen`;
    lines.unshift(`import type * as ${name} from '${module}';`);
  }
  for (const panel of dashboard.panels ?? []) {
    if (panel.type === 'row' || !('fieldConfig' in panel)) continue;
    const name = described[panel.type];
    if (!name) fail(`panel ${panel.title}: nothing describes the kind ${panel.type}`);
    lines.push(`export const options${panel.id}: Plain<${name}.Options> = ${JSON.stringify(panel.options)};`);
    if (name !== 'Stat' && name !== 'BarGauge') {
      lines.push(`export const custom${panel.id}: Partial<Plain<${name}.FieldConfig>> = ${JSON.stringify(panel.fieldConfig?.defaults?.custom ?? {})};`);
    }
  }
  return lines.join('\n');
};

const committed = fs.readFileSync(path.join(home, 'rotatord.json'), 'utf8');
if (committed !== `${JSON.stringify(build(), null, 2)}\n`) {
  fail('rotatord.json is not what the sources build: npm run build');
}
tsc('-p', 'tsconfig.json');

const scratch = fs.mkdtempSync(path.join(home, 'node_modules', '.check-'));
try {
  const file = path.join(scratch, 'dashboard.ts');
  fs.writeFileSync(file, asTypeScript(JSON.parse(committed)));
  tsc('--noEmit', '--strict', '--skipLibCheck', '--target', 'esnext', '--module', 'esnext', '--moduleResolution', 'bundler', '--types', 'node', file);
} finally {
  fs.rmSync(scratch, { recursive: true });
}
console.log('rotatord.json: as built, and a dashboard');
