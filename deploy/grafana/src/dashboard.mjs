// The dashboard, row by row. Its JSON is in the classic model, which every Grafana imports.
import * as sdk from '@grafana/grafana-foundation-sdk/dashboard';
import { bus } from './bus.mjs';
import { certificates } from './certificates.mjs';
import { cloud } from './cloud.mjs';
import { links } from './links.mjs';
import { overview } from './overview.mjs';
import { process } from './process.mjs';
import { proof } from './proof.mjs';
import { rotations } from './rotations.mjs';
import { sources } from './sources.mjs';
import { marks, variables } from './variables.mjs';

/** @type {[string, import('@grafana/grafana-foundation-sdk/cog').Builder<sdk.Panel>[]][]} */
const rows = [
  ['', overview], // stands at the top without a title
  ['Certificates', certificates],
  ['Rotations', rotations],
  ['Proof and drift', proof],
  ['Cloud', cloud],
  ['Sources and predecessors', sources],
  ['NATS', bus],
  ['Daemons', process],
];

/** @returns {sdk.Dashboard} */
export const build = () => {
  const d = new sdk.DashboardBuilder('rotatord')
    .uid('rotatord')
    .description('Certificates that rotatord rotates: how long they have left, where they are served, what is done and what fails.')
    .tags(['rotatord', 'certificates'])
    .time({ from: 'now-6h', to: 'now' })
    .refresh('1m')
    .timezone('browser')
    .tooltip(sdk.DashboardCursorSync.Crosshair)
    .links(links)
    .variables(variables)
    .annotations(marks);
  for (const [title, panels] of rows) {
    if (title) d.withRow(new sdk.RowBuilder(title));
    panels.forEach((panel) => d.withPanel(panel));
  }
  return finished(d.build());
};

/**
 * Numbers the panels, and takes away defaults of the builders that newer Grafanas know no more.
 * @param {sdk.Dashboard} built
 */
const finished = (built) => {
  built.panels?.forEach((panel, i) => {
    panel.id = i + 1;
    if ('options' in panel) delete panel.options.footer;
  });
  built.templating.list?.forEach((variable) => {
    delete variable.auto;
    delete variable.auto_min;
    delete variable.auto_count;
  });
  // Toggles and links belong where one sees them, not into a menu.
  built.annotations.list?.forEach((mark) => delete mark.placement);
  built.links?.forEach((link) => delete link.placement);
  return built;
};
