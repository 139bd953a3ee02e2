// What one chooses at the top, and what is marked on the graphs.
import * as dashboard from '@grafana/grafana-foundation-sdk/dashboard';
import { color, datasource, over } from './panel.mjs';
import { byPolicy, series } from './query.mjs';

const all = { selected: true, text: ['All'], value: ['$__all'] };

/** All means each value there is: job and instance also choose series that others have, such as up. @param {string} name @param {string} label @param {string} query */
const query = (name, label, query) =>
  new dashboard.QueryVariableBuilder(name).label(label).datasource(datasource).query({ query, refId: name })
    .refresh(dashboard.VariableRefresh.OnTimeRangeChanged).sort(dashboard.VariableSort.AlphabeticalAsc)
    .multi(true).includeAll(true).current(all);

/** All means no choice: there may be thousands of policies. @param {string} name @param {string} label @param {string} expr */
const anyOf = (name, label, expr) => query(name, label, expr).allValue('.*');

/** @param {string} name @param {string} label @param {string} text @param {string[]} shares the first is chosen */
const share = (name, label, text, shares) =>
  new dashboard.CustomVariableBuilder(name).label(label).description(text).values(shares.join(','))
    .current({ selected: true, text: shares[0] ?? '', value: shares[0] ?? '' })
    .options(shares.map((value, i) => ({ selected: i === 0, text: value, value })));

export const variables = [
  new dashboard.DatasourceVariableBuilder('datasource').label('Prometheus').type('prometheus'),
  query('job', 'Job', 'label_values(rotatord_build_info, job)'),
  query('instance', 'Daemon', 'label_values(rotatord_build_info{job=~"$job"}, instance)'),
  anyOf('cloud', 'Cloud', `label_values(${series('rotatord_api_credentials_expiry_timestamp_seconds')}, cloud)`),
  anyOf('policy', 'Policy', `label_values(${series('rotatord_policy_paused')}, policy)`),
  anyOf('target_kind', 'Kind of target', `label_values(${byPolicy('rotatord_rotations_total')}, target_kind)`),
  new dashboard.CustomVariableBuilder('role').label('Where').description('Bound at targets (recorded), shown by handshakes (served), or what sources have.')
    .values('recorded,served,source').multi(true).includeAll(true).allValue('.*').current(all),
  share('short', 'Short', 'Share of its life from which on a certificate is short of life, in the table.', ['0.33', '0.5', '0.25', '0.2']),
  share('critical', 'Critical', 'Share of its life from which on that is critical.', ['0.15', '0.25', '0.1', '0.05']),
];

/**
 * Marks on all graphs.
 * @param {string} name
 * @param {string} hue
 * @param {string} expr
 * @param {string} text
 */
const mark = (name, hue, expr, text) =>
  new dashboard.AnnotationQueryBuilder().name(name).datasource(datasource).enable(true).iconColor(hue)
    .target(over(expr).refId('Anno').interval('1m')).titleFormat(name).textFormat(text);

/** Marks at the instants that a series has as its values. @param {string} name @param {string} hue @param {string} expr @param {string} text */
const markAt = (name, hue, expr, text) => mark(name, hue, `(${expr}) * 1000 > $__from`, text).useValueForTime(true);

// One mark for each policy, not for each certificate: a wildcard may be in a thousand places.
export const marks = [
  markAt('Rotated', color.good, `max by (policy) (${byPolicy('rotatord_rotation_last_success_timestamp_seconds')})`, '{{policy}}'),
  mark('Failed', color.bad, `sum by (policy, target_kind) (increase(${byPolicy('rotatord_rotations_total', 'result="failed"')}[$__rate_interval])) > 0`, '{{policy}}, target of kind {{target_kind}}'),
  mark('Held back by a window or freeze', color.calm, `sum by (policy, reason) (increase(${byPolicy('rotatord_rotation_deferred_total', 'reason=~"window|freeze"')}[$__rate_interval])) > 0`, '{{policy}}: {{reason}}'),
  mark('Window overridden', color.warn, `sum by (policy) (increase(${byPolicy('rotatord_window_overridden_total')}[$__rate_interval])) > 0`, '{{policy}}: what was served was about to expire').enable(false),
  mark('Rolled back', color.warn, `sum by (policy) (increase(${byPolicy('rotatord_rollbacks_total')}[$__rate_interval])) > 0`, '{{policy}}'),
  markAt('Configuration read', color.idle, `max by (instance) (${series('rotatord_config_last_reload_success_timestamp_seconds')})`, '{{instance}}').enable(false),
  markAt('Started', color.held, `max by (instance) (${series('process_start_time_seconds')})`, '{{instance}}'),
];
