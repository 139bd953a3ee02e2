// The kinds of panel that the dashboard is made of, so that all of a kind look alike.
import * as bargauge from '@grafana/grafana-foundation-sdk/bargauge';
import * as common from '@grafana/grafana-foundation-sdk/common';
import * as dashboard from '@grafana/grafana-foundation-sdk/dashboard';
import * as prometheus from '@grafana/grafana-foundation-sdk/prometheus';
import * as stat from '@grafana/grafana-foundation-sdk/stat';
import * as statetimeline from '@grafana/grafana-foundation-sdk/statetimeline';
import * as statushistory from '@grafana/grafana-foundation-sdk/statushistory';
import * as table from '@grafana/grafana-foundation-sdk/table';
import * as timeseries from '@grafana/grafana-foundation-sdk/timeseries';

/** @typedef {{title: string, text: string, w: number, h?: number}} Head title, description and size of a panel */
/** @typedef {{text: string, color: string}} Named a value's name and colour */

export const datasource = { type: 'prometheus', uid: '${datasource}' };

/** Colours, by Grafana's own names: they are chosen for dark and for light. */
export const color = {
  good: 'green', note: 'yellow', warn: 'orange', bad: 'red', worst: 'dark-red', calm: 'blue', idle: 'text', held: 'purple', odd: 'semi-dark-blue',
};

/** Shares of life left at which colours change; the variables have the same at first. */
export const lifeSteps = [
  { value: null, color: color.bad }, { value: 0.15, color: color.warn }, { value: 0.33, color: color.good },
];

/** None is good, and any number is not. @param {string} hue */
export const noneIsGood = (hue) => [{ value: null, color: color.good }, { value: 1, color: hue }];

/** @param {dashboard.Threshold[]} steps */
export const thresholds = (steps) => new dashboard.ThresholdsConfigBuilder().mode(dashboard.ThresholdsMode.Absolute).steps(steps);

/** @param {Record<string, Named>} names @returns {dashboard.ValueMap[]} */
export const mapping = (names) => [{ type: dashboard.MappingType.ValueToText, options: numbered(names) }];

/** @param {Record<string, Named>} names @returns {Record<string, dashboard.ValueMappingResult>} */
const numbered = (names) => Object.fromEntries(Object.entries(names).map(([value, result], index) => [value, { ...result, index }]));

/** @param {dashboard.FieldColorModeId} mode */
export const colors = (mode) => new dashboard.FieldColorBuilder().mode(mode);

/** A query over the range of the dashboard. @param {string} expr @param {string} [legend] */
export const over = (expr, legend = '__auto') =>
  new prometheus.DataqueryBuilder().datasource(datasource).expr(expr).legendFormat(legend).range().editorMode(prometheus.QueryEditorMode.Code);

/** A query of the moment. @param {string} expr @param {string} [legend] */
export const now = (expr, legend = '__auto') =>
  new prometheus.DataqueryBuilder().datasource(datasource).expr(expr).legendFormat(legend).instant().editorMode(prometheus.QueryEditorMode.Code);

/** A query for the columns of a table. @param {string} refId @param {string} expr */
const columns = (refId, expr) => now(expr).format(prometheus.PromQueryFormat.Table).refId(refId);

const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ';

/**
 * What all panels have.
 * @template {{title(s: string): T, description(s: string): T, span(n: number): T, height(n: number): T, datasource(d: common.DataSourceRef): T}} T
 * @param {T} builder
 * @param {Head} head
 * @returns {T}
 */
const headed = (builder, { title, text, w, h = 8 }) => builder.title(title).description(text).span(w).height(h).datasource(datasource);

/**
 * Gives queries their letters and adds them.
 * @template {{withTarget(q: ReturnType<typeof over>): T}} T
 * @param {T} builder
 * @param {ReturnType<typeof over>[]} queries
 */
const asked = (builder, queries) => {
  queries.forEach((q, i) => builder.withTarget(q.refId(letters[i] ?? '')));
  return builder;
};

/** One number, or a few. @param {Head} head @param {...ReturnType<typeof over>} queries */
export const tile = (head, ...queries) =>
  asked(headed(new stat.PanelBuilder(), { h: 4, ...head }), queries)
    .graphMode(common.BigValueGraphMode.None)
    .colorMode(common.BigValueColorMode.Value)
    .justifyMode(common.BigValueJustifyMode.Center)
    .reduceOptions(new common.ReduceDataOptionsBuilder().calcs(['lastNotNull']));

/** @param {boolean} shown @param {...string} calcs */
const legend = (shown, ...calcs) =>
  new common.VizLegendOptionsBuilder().showLegend(shown).placement(common.LegendPlacement.Bottom)
    .displayMode(common.LegendDisplayMode.List).calcs(calcs);

const tooltip = () => new common.VizTooltipOptionsBuilder().mode(common.TooltipDisplayMode.Multi).sort(common.SortOrder.Descending);

/** Lines over time. @param {Head} head @param {...ReturnType<typeof over>} queries */
export const lines = (head, ...queries) =>
  asked(headed(new timeseries.PanelBuilder(), head), queries)
    .lineWidth(2).fillOpacity(5).showPoints(common.VisibilityMode.Auto).axisSoftMin(0).min(0)
    .legend(legend(true, 'lastNotNull')).tooltip(tooltip());

/** Counts over time, on top of each other. @param {Head} head @param {...ReturnType<typeof over>} queries */
export const bars = (head, ...queries) =>
  asked(headed(new timeseries.PanelBuilder(), head), queries)
    .drawStyle(common.GraphDrawStyle.Bars).fillOpacity(80).lineWidth(0).axisSoftMin(0).min(0)
    .stacking(new common.StackingConfigBuilder().mode(common.StackingMode.Normal))
    .legend(legend(true)).tooltip(tooltip());

/** Counts of what should not be. @param {Head} head @param {...ReturnType<typeof over>} queries */
export const troubles = (head, ...queries) =>
  bars(head, ...queries).colorScheme(colors(dashboard.FieldColorModeId.Shades).fixedColor(color.warn));

/** What is so from when to when. @param {Head} head @param {Record<string, Named>} names @param {...ReturnType<typeof over>} queries */
export const timeline = (head, names, ...queries) =>
  asked(headed(new statetimeline.PanelBuilder(), head), queries)
    .mappings(mapping(names)).colorScheme(colors(dashboard.FieldColorModeId.Thresholds))
    .showValue(common.VisibilityMode.Never).mergeValues(true).rowHeight(0.85).fillOpacity(80).lineWidth(0)
    .legend(legend(true)).tooltip(tooltip());

/** What was so at which time. @param {Head} head @param {Record<string, Named>} names @param {...ReturnType<typeof over>} queries */
export const matrix = (head, names, ...queries) =>
  asked(headed(new statushistory.PanelBuilder(), head), queries)
    .mappings(mapping(names)).colorScheme(colors(dashboard.FieldColorModeId.Thresholds))
    .showValue(common.VisibilityMode.Never).rowHeight(0.85).colWidth(0.9).fillOpacity(80).lineWidth(0)
    .maxDataPoints(100).legend(legend(true)).tooltip(tooltip());

/** Bars that fill up. @param {Head} head @param {...ReturnType<typeof over>} queries */
export const gauges = (head, ...queries) =>
  asked(headed(new bargauge.PanelBuilder(), head), queries)
    .orientation(common.VizOrientation.Horizontal).displayMode(common.BarGaugeDisplayMode.Basic)
    .reduceOptions(new common.ReduceDataOptionsBuilder().calcs(['lastNotNull']));

/**
 * @typedef {object} Column
 * @property {string} name as it is shown
 * @property {string} [of] the label; or
 * @property {string} [expr] the query whose value it is. Queries of one table have labels in common, by which rows are joined
 * @property {string} [hidden] a query that is there for its labels
 * @property {string} [unit]
 * @property {number} [width]
 * @property {number} [decimals]
 * @property {Record<string, Named>} [names]
 * @property {'gauge' | 'text'} [cell] coloured how
 * @property {dashboard.Threshold[]} [steps]
 * @property {string} [link]
 */

/**
 * Rows with the labels that all queries have in common, and the queries' values and other
 * labels as columns, in the order given.
 * @param {Head} head
 * @param {Column[]} wanted
 * @param {{column: string, desc: boolean}} [sort]
 */
export const rows = (head, wanted, sort) => {
  const panel = headed(new table.PanelBuilder(), head);
  /** @type {Record<string, number>} */ const indexByName = {};
  /** @type {Record<string, string>} */ const renameByName = {};
  /** @type {Record<string, boolean>} */ const excludeByName = { Time: true };
  const asks = wanted.filter((c) => c.expr ?? c.hidden).length;
  let asked = 0;
  wanted.forEach((column, index) => {
    let field = column.of ?? '';
    const expr = column.expr ?? column.hidden;
    if (expr) {
      const refId = letters[asked++] ?? '';
      panel.withTarget(columns(refId, expr));
      field = asks > 1 ? `Value #${refId}` : 'Value';
    }
    indexByName[field] = index;
    if (column.hidden) {
      excludeByName[field] = true;
      return;
    }
    renameByName[field] = column.name;
    panel.overrideByName(column.name, properties(column));
  });
  if (asks > 1) panel.withTransformation({ id: 'merge', options: {} });
  panel.withTransformation({ id: 'organize', options: { excludeByName, indexByName, renameByName } });
  if (sort) panel.sortBy([new common.TableSortByFieldStateBuilder().displayName(sort.column).desc(sort.desc)]);
  return panel.cellHeight(common.TableCellHeight.Sm).filterable(true);
};

/** @param {Column} column @returns {dashboard.DynamicConfigValue[]} */
const properties = ({ unit, decimals, width, names, cell, steps, link }) => {
  const all = [];
  if (unit) all.push({ id: 'unit', value: unit });
  if (decimals !== undefined) all.push({ id: 'decimals', value: decimals });
  if (width) all.push({ id: 'custom.width', value: width });
  if (names) all.push({ id: 'mappings', value: mapping(names) });
  if (steps) all.push({ id: 'thresholds', value: thresholds(steps).build() });
  if (cell === 'gauge') {
    all.push({ id: 'min', value: 0 }, { id: 'max', value: 1 });
    all.push({ id: 'custom.cellOptions', value: { type: common.TableCellDisplayMode.Gauge, mode: common.BarGaugeDisplayMode.Basic, valueDisplayMode: common.BarGaugeValueMode.Text } });
  }
  if (cell === 'text') all.push({ id: 'custom.cellOptions', value: { type: common.TableCellDisplayMode.ColorText } });
  if (link) all.push({ id: 'links', value: [{ title: 'Runbook', url: link, targetBlank: true }] });
  return all;
};

/** The colour of one series of a graph. @param {string} hue @returns {dashboard.DynamicConfigValue[]} */
export const hue = (hue) => [{ id: 'color', value: { mode: dashboard.FieldColorModeId.Fixed, fixedColor: hue } }];
