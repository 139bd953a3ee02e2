// The top of the dashboard: is anything wrong?
import { DashboardLinkBuilder } from '@grafana/grafana-foundation-sdk/dashboard';
import { color, lifeSteps, mapping, noneIsGood, now, thresholds, tile } from './panel.mjs';
import { byCloud, byPolicy, count, inState, lifeLeft, notAfter } from './query.mjs';
import { runbooks } from './links.mjs';

/** @param {string} page */
const runbook = (page) => new DashboardLinkBuilder(`Runbook ${page}`).url(`${runbooks}${page}.md`).targetBlank(true);

const w = 3;

export const overview = [
  tile({ title: 'Certificates', w, text: 'Certificates of policies: each is one assignment, whose states are below.' },
    now(count(`count by (policy, certificate) (${byPolicy('rotatord_assignment_state', 'state="converged"')})`), 'certificates'))
    .thresholds(thresholds([{ value: null, color: color.calm }])),

  tile({ title: 'Least life left', w, text: 'Of all that is bound, shown or watched, the smallest share of its life that a certificate has left. A share means the same for six days and for five years. Orange below a third, red below 15 %. It needs the recording rules of deploy/prometheus.' },
    now(`clamp_min(min(${lifeLeft}), 0)`, 'left'))
    .unit('percentunit').decimals(0).noValue('no rules').thresholds(thresholds(lifeSteps)),

  tile({ title: 'Soonest end', w, text: 'Time until the next of them ends, of those that have not. It has no colour: whether it is long or short depends on how long the certificate lives.' },
    now(`min(${notAfter} > time()) - time()`, 'time left'))
    .unit('s').decimals(1).noValue('nothing is served').thresholds(thresholds([{ value: null, color: color.idle }])),

  tile({ title: 'Expired', w, text: 'Certificates that are bound, shown or watched and have expired, and superseded ones that something still serves and that have expired.' },
    now(`${count(`count by (policy, certificate) (${notAfter} <= time() or ${byPolicy('rotatord_superseded_in_use_not_after_timestamp_seconds')} <= time())`)}`, 'expired'))
    .thresholds(thresholds(noneIsGood(color.bad))).links([runbook('CertificateExpired')]),

  tile({ title: 'Due', w, text: 'Certificates for which something is to be done: it is under way, waits for its time, or the next certificate should have been issued by now.' },
    now(count(`count by (policy, certificate) (${inState('waiting', 'rotating')} or max by (policy, certificate) (${byPolicy('rotatord_certificate_renewal_due_timestamp_seconds')} <= time()))`), 'due'))
    .thresholds(thresholds(noneIsGood(color.calm))),

  tile({ title: 'Unconverged', w, text: 'Activated, and not yet seen to be served everywhere.' },
    now(count(inState('unconverged')), 'unconverged'))
    .thresholds(thresholds(noneIsGood(color.warn))).links([runbook('CertificateUnconverged')]),

  tile({ title: 'Failing', w, text: 'A step failed, a guard refuses the bundle, or its files cannot be used.' },
    now(count(inState('failed', 'quarantined', 'expired')), 'failing'))
    .thresholds(thresholds(noneIsGood(color.bad))).links([runbook('AssignmentFailed'), runbook('RotationFailing')]),

  tile({ title: 'Held back', w, text: 'What waits for people, or for a service of the cloud that is down: certificates behind the brake, policies that somebody holds, services that are left alone.' },
    now(count(inState('braked')), 'braked'),
    now(`sum(max by (policy) (${byPolicy('rotatord_policy_paused')})) or vector(0)`, 'paused'),
    now(`sum(max by (cloud, service) (${byCloud('rotatord_api_circuit_open')})) or vector(0)`, 'circuits'))
    .thresholds(thresholds(noneIsGood(color.warn))).mappings(mapping({ 0: { text: 'none', color: color.good } }))
    .links([runbook('AssignmentBraked'), runbook('PolicyPaused'), runbook('ApiCircuitOpen')]),
];
