// Which certificate is where, for how long, and what comes next.
import { color, lifeSteps, over, rows, timeline } from './panel.mjs';
import { atEnd, byPlace, byPolicy, lifeLeft, only, place, states } from './query.mjs';
import { alerts, runbooks } from './links.mjs';

const which = 'policy, certificate';

/** The rows: of ten thousand, those that are closest to their ends, as a share of their lives. */
const closest = `bottomk(100, ${lifeLeft})`;

// Everything else is asked for these rows only, before anything is done with it.
/** @param {string} name @param {string} [matcher] */
const ofRows = (name, matcher) => `${matcher ? byPolicy(name, matcher) : byPlace(name)} and on (${place}) ${closest}`;

/** @param {string} expr of the certificate, in whatever place */
const ofCertificates = (expr) => `${expr} and on (${which}) ${closest}`;

const left = `min by (${place}) (${closest})`;

/** The colour by life left, at the shares that the variables name. */
const urgency = `(${left} < bool $short) + (${left} < bool $critical) + (${left} <= bool 0)`;

/** What is bound and was never proven may have no fingerprint: it is all 0. @param {string} info @param {string} label */
const fingerprint = (info, label) =>
  `label_replace(label_replace(${info}, "${label}", "$1", "fingerprint_sha256", "(.{12}).*"), "${label}", "not known", "fingerprint_sha256", "0+")`;

/** One value for each certificate, whatever several daemons tell. @param {string} expr @param {string} more labels */
const one = (expr, more) => `topk by (${which}) (1, max by (${which}, ${more}) (${expr}))`;

/** A label of the certificate for each of its places. @param {string} expr @param {string} label */
const attach = (expr, label) => `${left} * 0 + on (${which}) group_left (${label}) ${one(expr, label)}`;

const info = 'rotatord_certificate_info';
const there = ofRows(info);
const wanted = ofCertificates(byPolicy(info, 'role="source"'));
const fingerprints = `max by (${place}, shown) (${fingerprint(there, 'shown')}) * on (${which}) group_left (wanted) ${one(fingerprint(wanted, 'wanted'), 'wanted')}`;

/** 1 where what is bound or shown is what is wanted, 0 where it is something else. */
const asWanted = `max by (${place}) (${there} and on (${which}, fingerprint_sha256) (${wanted})) or max by (${place}) (${there}) * 0`;

/** What comes next, and when: a failed step is tried again, the next certificate is issued, or windows no longer hold. */
const next = ['retry', 'issue', 'deadline'].map((name, i) => {
  const instant = ['rotatord_rotation_retry_due_timestamp_seconds', 'rotatord_certificate_renewal_due_timestamp_seconds', 'rotatord_certificate_renewal_deadline_timestamp_seconds'][i] ?? '';
  return `label_replace(min by (${which}) (${ofCertificates(`${byPolicy(instant)} > time()`)}), "next", "${name}", "", "")`;
}).join(' or ');

export const stateNames = {
  0: { text: 'converged', color: color.good }, 1: { text: 'waiting', color: color.calm }, 2: { text: 'paused', color: color.held },
  3: { text: 'braked', color: 'semi-dark-purple' }, 4: { text: 'rotating', color: 'light-blue' }, 5: { text: 'quarantined', color: color.note },
  6: { text: 'unconverged', color: color.warn }, 7: { text: 'failed', color: color.bad }, 8: { text: 'expired', color: color.worst },
};

const stateColors = Object.fromEntries(Object.values(stateNames).map((named) => [named.text, named]));

/** The number of each state, as series that have it as a label. */
const numbers = states.map((state, i) => `label_replace(vector(${i}), "state", "${state}", "", "")`).join(' or ');

const leastConverged = `bottomk(20, min by (${which}) (avg_over_time(${byPolicy('rotatord_assignment_state', 'state="converged"')}${atEnd})))`;

/** The states of few certificates: they are chosen before anything else is done, at each of many points. */
const stateNumber = `max by (${which}) ((${only(`${byPolicy('rotatord_assignment_state')} == 1`, which, leastConverged)}) * on (state) group_left () (${numbers}))`;

export const certificates = [
  rows({
    title: 'Certificates by time left', w: 24, h: 11,
    text: 'Where certificates are bound, and where handshakes show them, and what the source has, those closest to their ends first. At most 100 rows: choose a policy to see others. It needs the recording rules of deploy/prometheus. "Life" turns at the shares that the variables Short and Critical name. Next is a retry, the issue of the next certificate, or the deadline from which on windows no longer hold.',
  }, [
    { name: 'Policy', of: 'policy', width: 110 },
    { name: 'Certificate', of: 'certificate', width: 190 },
    { name: 'Where', of: 'role', width: 80, names: { recorded: { text: 'bound', color: color.idle }, served: { text: 'shown', color: color.idle } } },
    { name: 'Target', of: 'target', width: 190 },
    { name: 'Life left', expr: `clamp_min(${left}, 0)`, unit: 'percentunit', cell: 'gauge', steps: lifeSteps },
    { name: 'Life', expr: urgency, width: 80, cell: 'text', names: { 0: { text: 'fine', color: color.good }, 1: { text: 'short', color: color.warn }, 2: { text: 'critical', color: color.bad }, 3: { text: 'over', color: color.worst } } },
    { name: 'Ends', expr: `min by (${place}) (${ofRows('rotatord_certificate_not_after_timestamp_seconds')}) * 1000`, unit: 'dateTimeFromNow', width: 120 },
    { name: 'Is there', of: 'shown', width: 120 },
    { name: 'Wanted', of: 'wanted', width: 120 },
    { name: 'fingerprints', hidden: fingerprints },
    { name: 'As wanted', expr: asWanted, width: 90, cell: 'text', names: { 0: { text: 'no', color: color.warn }, 1: { text: 'yes', color: color.good } } },
    { name: 'State', of: 'state', width: 110, cell: 'text', names: stateColors },
    { name: 'states', hidden: attach(ofCertificates(`${byPolicy('rotatord_assignment_state')} == 1`), 'state') },
    { name: 'Next', of: 'next', width: 120 },
    { name: 'At', expr: `${left} * 0 + on (${which}) group_left (next) bottomk by (${which}) (1, ${next}) * 1000`, unit: 'dateTimeFromNow', width: 120 },
  ], { column: 'Life left', desc: false }),

  timeline({
    title: 'States', w: 16, h: 11,
    text: 'The state of each certificate over time; of many, the 20 that were converged for the smallest part of the range. Rotations and what held them back are marked.',
  }, stateNames, over(stateNumber, '{{policy}} {{certificate}}')).maxDataPoints(120),

  rows({
    title: 'Alerts', w: 8, h: 11,
    text: 'Alerts of deploy/prometheus that are pending or firing, where Prometheus has these rules. Each links to its runbook.',
  }, [
    { name: 'Alert', of: 'alertname', link: `${runbooks}\${__value.text}.md` },
    { name: 'State', of: 'alertstate', width: 80, cell: 'text', names: { firing: { text: 'firing', color: color.bad }, pending: { text: 'pending', color: color.warn } } },
    { name: 'Severity', of: 'severity', width: 90 },
    { name: 'Number', expr: `sort_desc(count by (alertname, alertstate, severity) (ALERTS{alertname=~"${alerts.join('|')}"}))`, width: 80 },
  ]).noValue('No alert is pending or firing'),
];
