// Where one reads on, and the names of all alerts.
import fs from 'node:fs';
import { DashboardLinkBuilder, DashboardLinkType } from '@grafana/grafana-foundation-sdk/dashboard';

const docs = 'https://github.com/rotatord/rotatord/blob/main/docs/';
export const runbooks = `${docs}runbooks/`;

/** @param {string} title @param {string} page */
const page = (title, page) =>
  new DashboardLinkBuilder(title).type(DashboardLinkType.Link).icon('doc').url(docs + page).targetBlank(true);

export const links = [
  page('Runbooks', 'runbooks/README.md'), page('Operate', 'operate.md'), page('Monitoring', 'monitoring.md'),
];

const rules = fs.readFileSync(new URL('../../prometheus/rotatord.rules.yaml', import.meta.url), 'utf8');

/** The alerts of deploy/prometheus: their series have no label that is ours alone. */
export const alerts = [...rules.matchAll(/- alert: (\w+)/g)].map((match) => match[1]);
