// What handshakes show, and what changed without rotatord.
import { color, lines, matrix, over, rows, troubles } from './panel.mjs';
import { atEnd, byPolicy, only } from './query.mjs';

const endpoint = 'policy, certificate, target';
const drifted = `max by (policy, certificate, target, kind) (${byPolicy('rotatord_drift_detected')} == 1)`;
const leastMatched = `bottomk(20, min by (${endpoint}) (avg_over_time(${byPolicy('rotatord_probe_fingerprint_match')}${atEnd})))`;
const shown = ['success', 'fingerprint_match'].map((what) => `min by (${endpoint}) (${only(byPolicy(`rotatord_probe_${what}`), endpoint, leastMatched)})`).join(' + ');

export const proof = [
  matrix({
    title: 'Handshakes', w: 16,
    text: 'What the last TLS handshakes with each endpoint showed; of many, the 20 that showed the wanted bundle least. Handshakes are made when something is to be proven and when drift is looked for: between them nothing changes here.',
  }, {
    0: { text: 'no answer, or nothing that is right', color: color.bad },
    1: { text: 'another bundle, or a chain that is not accepted', color: color.warn },
    2: { text: 'the wanted bundle', color: color.good },
  }, over(shown, '{{policy}} {{target}}')).noValue('No policy has endpoints'),

  lines({ title: 'Time of handshakes', w: 8, text: 'The slowest of the last handshakes with each endpoint: the median endpoint and the worst.' },
    over(`quantile(0.5, ${byPolicy('rotatord_probe_duration_seconds')})`, 'median'),
    over(`max(${byPolicy('rotatord_probe_duration_seconds')})`, 'worst')).unit('s').maxDataPoints(200),

  rows({ title: 'Drifted now', w: 16, h: 6, text: 'Targets where something changed without rotatord: another binding, an edited or a missing certificate, or something else that is served. At most 50.' }, [
    { name: 'Policy', of: 'policy' }, { name: 'Certificate', of: 'certificate' }, { name: 'Target', of: 'target' }, { name: 'Drift', of: 'kind' },
    { name: 'Seen', expr: `topk(50, ${drifted})`, width: 80, cell: 'text', names: { 1: { text: 'now', color: color.warn } } },
  ]).noValue('Nothing has drifted'),

  troubles({ title: 'Drift', w: 8, h: 6, text: 'Targets that have drifted, by kind of drift.' },
    over(`sum by (kind) (${drifted})`, '{{kind}}')).maxDataPoints(200).noValue('Nothing has drifted'),
];
