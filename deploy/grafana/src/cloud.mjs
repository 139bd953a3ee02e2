// Calls of the cloud's APIs: how many, how well, how fast, and how close to their limits.
import { color, gauges, lines, now, over, rows, thresholds, timeline, troubles } from './panel.mjs';
import { atEnd, byCloud, increase, only, rate, series } from './query.mjs';

const call = 'cloud, service, operation';
const calls = byCloud('rotatord_api_request_duration_seconds_count');
const failures = byCloud('rotatord_api_request_failures_total');
const buckets = byCloud('rotatord_api_request_duration_seconds_bucket');

/** The operations that a graph shows, of all that there are. @param {string} selector */
const most = (selector) => `topk(10, sum by (${call}) (increase(${selector}${atEnd})) > 0)`;

/** Over the range, in tables: operations that were called. */
const called = `sum by (${call}) (increase(${calls}[$__range])) > 0`;

const legend = '{{service}} {{operation}}';

export const cloud = [
  lines({ title: 'API calls', w: 8, text: 'Calls a second, of the ten operations that were called most in the range.' },
    over(only(`sum by (${call}) (${rate(calls)})`, call, most(calls)), legend)).unit('reqps'),

  lines({ title: 'API calls that failed', w: 8, text: 'Failed calls as a share of all, of the ten operations that failed most in the range. Some failures are fine answers: what is not found may be what was hoped for.' },
    over(only(`sum by (${call}) (${rate(failures)}) / (sum by (${call}) (${rate(calls)}) > 0)`, call, most(failures)), legend))
    .unit('percentunit').noValue('No call failed'),

  lines({ title: 'Time of API calls, p95', w: 8, text: '95 % of the calls were faster, of the ten operations that were called most in the range.' },
    over(only(`histogram_quantile(0.95, sum by (${call}, le) (${rate(buckets)}))`, call, most(calls)), legend)).unit('s'),

  rows({ title: 'Operations', w: 16, text: 'Every operation that was called in the range.' }, [
    { name: 'Cloud', of: 'cloud' }, { name: 'Service', of: 'service' }, { name: 'Operation', of: 'operation', width: 280 },
    { name: 'Calls', expr: called, unit: 'short', decimals: 0 },
    { name: 'Failed', expr: `sum by (${call}) (increase(${failures}[$__range])) / (${called})`, unit: 'percentunit', cell: 'text', steps: [{ value: null, color: color.idle }, { value: 0.05, color: color.warn }, { value: 0.25, color: color.bad }] },
    { name: 'p50', expr: `histogram_quantile(0.5, sum by (${call}, le) (rate(${buckets}[$__range]))) and on (${call}) (${called})`, unit: 's' },
    { name: 'p95', expr: `histogram_quantile(0.95, sum by (${call}, le) (rate(${buckets}[$__range]))) and on (${call}) (${called})`, unit: 's' },
  ], { column: 'Calls', desc: true }),

  troubles({ title: 'API failures by reason', w: 8, text: 'Calls that failed, by service and reason. Empty when none did.' },
    over(`sum by (service, reason) (${increase(failures)}) > 0`, '{{service}}: {{reason}}')).noValue('No call failed'),

  lines({ title: 'Throttled, and waited', w: 8, text: 'Calls a second that the cloud throttled; and how much of each second calls waited behind the limits that the configuration sets, all waiting calls added up.' },
    over(`sum by (service) (${rate(byCloud('rotatord_api_request_failures_total', 'reason="throttled"'))})`, '{{service}} throttled'),
    over(`sum by (service) (${rate(byCloud('rotatord_api_wait_seconds_total'))})`, '{{service}} waited'))
    .overrideByRegexp('.* waited', [{ id: 'unit', value: 's' }, { id: 'custom.axisPlacement', value: 'right' }, { id: 'custom.lineStyle', value: { fill: 'dash', dash: [6, 4] } }])
    .overrideByRegexp('.* throttled', [{ id: 'unit', value: 'reqps' }]),

  timeline({ title: 'Services left alone', w: 8, text: 'Services that failed so often in a row that only trial calls are made until one succeeds.' },
    { 0: { text: 'in use', color: color.good }, 1: { text: 'left alone', color: color.bad } },
    over(`max by (cloud, service) (${byCloud('rotatord_api_circuit_open')})`, '{{cloud}} {{service}}')),

  gauges({ title: 'Quotas', w: 4, text: 'Objects that an account holds, as a share of what it may hold, where a service tells.' },
    now(`max by (cloud, service) (${byCloud('rotatord_api_quota_used')} / (${byCloud('rotatord_api_quota_limit')} > 0))`, '{{cloud}} {{service}}'))
    .unit('percentunit').min(0).max(1).decimals(1).noValue('No service tells')
    .thresholds(thresholds([{ value: null, color: color.good }, { value: 0.8, color: color.warn }, { value: 0.9, color: color.bad }])),

  rows({ title: 'Accounts', w: 4, text: 'When the token or the temporary keys in use end, and how far the clock of a host is ahead of the cloud\'s.' }, [
    { name: 'Cloud', of: 'cloud' },
    { name: 'Login ends', expr: `max by (cloud) (${byCloud('rotatord_api_credentials_expiry_timestamp_seconds')}) * 1000`, unit: 'dateTimeFromNow', names: { 0: { text: 'never', color: color.idle } } },
    { name: 'Clock', expr: `max by (cloud) (abs(label_replace(${series('rotatord_clock_skew_seconds', 'reference=~"$cloud"')}, "cloud", "$1", "reference", "(.*)")))`, unit: 's' },
  ]),
];
