// What was done, how long it took, and what failed.
import { bars, color, hue, lines, over, rows, troubles } from './panel.mjs';
import { byBoth, byKind, byPolicy, increase, series } from './query.mjs';

const inARow = `topk(50, max by (policy, certificate, target) (${byPolicy('rotatord_rotation_consecutive_failures')} > 0))`;
const target = 'on (policy, certificate, target)';

/** @param {number} q */
const converged = (q) =>
  over(`histogram_quantile(${q}, sum by (le) (rate(${series('rotatord_trigger_to_converged_seconds_bucket')}[$__range])))`, `p${q * 100}`);

export const rotations = [
  bars({ title: 'Rotations', w: 8, text: 'Rotations of single targets that ended, by result, as Prometheus extrapolates them.' },
    over(`sum by (result) (${increase(byBoth('rotatord_rotations_total'))})`, '{{result}}'))
    .overrideByName('ok', hue(color.good)).overrideByName('failed', hue(color.bad)),

  bars({ title: 'Triggers', w: 8, text: 'Reasons to look at certificates again, by kind. A trigger that finds nothing to do is no rotation.' },
    over(`sum by (trigger) (${increase(series('rotatord_triggers_total'))})`, '{{trigger}}')),

  bars({ title: 'Waits that began', w: 8, text: 'Rotations that had to wait for something other than a failure, counted when the wait begins; and changes outside windows, because what was served was about to expire.' },
    over(`sum by (reason) (${increase(byPolicy('rotatord_rotation_deferred_total'))})`, '{{reason}}'),
    over(`sum(${increase(byPolicy('rotatord_window_overridden_total'))})`, 'window overridden')),

  lines({ title: 'From trigger to proof', w: 8, text: 'Time from the trigger of a rotation to the proof that every target serves the bundle: quantiles of all rotations in the range up to each moment, since rotations are rare.' },
    converged(0.5), converged(0.95), converged(0.99)).unit('s'),

  lines({ title: 'Time of a rotation, p95', w: 8, text: 'Time from the first step of a target to its proof, by kind of target: 95 % were faster, of those in the range up to each moment.' },
    over(`histogram_quantile(0.95, sum by (le, target_kind) (rate(${byKind('rotatord_rotation_duration_seconds_bucket')}[$__range]))) > 0`, '{{target_kind}}')).unit('s'),

  troubles({ title: 'Failed steps', w: 8, text: 'Steps of rotations that failed, by step and reason. Empty when none did.' },
    over(`sum by (step, reason) (${increase(byBoth('rotatord_rotation_step_failures_total'))}) > 0`, '{{step}}: {{reason}}')).noValue('No step failed'),

  rows({ title: 'Failing now', w: 16, h: 6, text: 'Targets, and sources that issue, where steps failed in a row. At most 50.' }, [
    { name: 'Policy', of: 'policy' }, { name: 'Certificate', of: 'certificate' }, { name: 'Target', of: 'target' },
    { name: 'Failures in a row', expr: inARow },
    { name: 'Last tried', expr: `max by (policy, certificate, target) (${byPolicy('rotatord_rotation_last_attempt_timestamp_seconds')} > 0 and ${target} ${inARow}) * 1000`, unit: 'dateTimeFromNow' },
    { name: 'Last succeeded', expr: `max by (policy, certificate, target) (${byPolicy('rotatord_rotation_last_success_timestamp_seconds')} and ${target} ${inARow}) * 1000`, unit: 'dateTimeFromNow', names: { 0: { text: 'never', color: color.idle } } },
    { name: 'Tried again', expr: `min by (policy, certificate, target) (${byPolicy('rotatord_rotation_retry_due_timestamp_seconds')} > 0 and ${target} ${inARow}) * 1000`, unit: 'dateTimeFromNow' },
  ], { column: 'Failures in a row', desc: true }).noValue('Nothing fails'),

  troubles({ title: 'Rolled back', w: 8, h: 6, text: 'Targets that went back to the predecessor of a bundle, because it was not served in time.' },
    over(`sum by (target_kind) (${increase(byBoth('rotatord_rollbacks_total'))})`, '{{target_kind}}')),
];
