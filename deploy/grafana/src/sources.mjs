// Where certificates come from, and what is left of their predecessors.
import { bars, color, lines, over, rows, troubles } from './panel.mjs';
import { byKind, bySource, increase } from './query.mjs';

const source = 'kind, source';
const of = `max by (${source})`;
const up = `bottomk(100, min by (${source}) (${bySource('rotatord_source_up')}))`;

/** Of the sources that the table shows. @param {string} expr */
const shown = (expr) => `${expr} and on (${source}) ${up}`;

export const sources = [
  rows({
    title: 'Sources', w: 16, h: 9,
    text: 'The source of each policy, those that do not work first; at most 100. Directories tell of events and looks, issuers when their CA ends. Counts are those of the range.',
  }, [
    { name: 'Policy', of: 'source' }, { name: 'Kind', of: 'kind' },
    { name: 'Works', expr: up, width: 70, cell: 'text', names: { 0: { text: 'no', color: color.bad }, 1: { text: 'yes', color: color.good } } },
    { name: 'Certificates', expr: shown(`${of} (${bySource('rotatord_source_certificates')})`), width: 95 },
    { name: 'Unusable', expr: shown(`${of} (sum without (reason) (${bySource('rotatord_source_quarantined')}))`), width: 80, cell: 'text', steps: [{ value: null, color: color.idle }, { value: 1, color: color.note }] },
    { name: 'Events', expr: shown(`sum by (${source}) (increase(${bySource('rotatord_source_events_total')}[$__range]))`), width: 75, unit: 'short', decimals: 0 },
    { name: 'Together', expr: shown(`sum by (${source}) (increase(${bySource('rotatord_source_events_coalesced_total')}[$__range]))`), width: 85, unit: 'short', decimals: 0 },
    { name: 'Looks', expr: shown(`sum by (${source}) (increase(${bySource('rotatord_source_rescans_total')}[$__range]))`), width: 70, unit: 'short', decimals: 0 },
    { name: 'Last look', expr: shown(`${of} (${bySource('rotatord_source_last_scan_timestamp_seconds')}) * 1000`), unit: 'dateTimeFromNow', names: { 0: { text: 'never', color: color.bad } } },
    { name: 'Polled', expr: shown(`${of} (${bySource('rotatord_source_polling')})`), width: 70, names: { 0: { text: 'no', color: color.idle }, 1: { text: 'yes', color: color.note } } },
    { name: 'CA ends', expr: shown(`min by (${source}) (${bySource('rotatord_source_authority_not_after_timestamp_seconds')}) * 1000`), unit: 'dateTimeFromNow' },
  ], { column: 'Works', desc: false }),

  troubles({ title: 'Files that cannot be used', w: 8, h: 9, text: 'Files or pairs in sources that cannot be used, by reason. The last good bundle stays in force. Empty when all can.' },
    over(`sum by (reason) (max by (${source}, reason) (${bySource('rotatord_source_quarantined')})) > 0`, '{{reason}}')).noValue('All can be used'),

  lines({ title: 'Changes on disk', w: 8, text: 'Changes that the file systems told of, those that were looked at together with others, and complete looks at sources, a second.' },
    ...['events', 'events_coalesced', 'rescans'].map((what) =>
      over(`sum(rate(${bySource(`rotatord_source_${what}_total`)}[$__rate_interval]))`, what.replace('events_coalesced', 'together').replace('rescans', 'looks')))),

  bars({ title: 'Superseded', w: 8, text: 'Remote certificates of rotatord that nothing should serve any more: kept for their time (grace), still served by something (in use), or not to be removed (blocked).' },
    over(`max by (target_kind, state) (${byKind('rotatord_superseded_certificates')})`, '{{target_kind}} {{state}}')),

  bars({ title: 'Removed', w: 8, text: 'Superseded certificates that were to be removed, by result.' },
    over(`sum by (target_kind, result) (${increase(byKind('rotatord_retirements_total'))}) > 0`, '{{target_kind}} {{result}}')).noValue('None was to be removed'),
];
