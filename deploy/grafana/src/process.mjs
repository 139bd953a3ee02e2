// The daemons themselves.
import { color, lines, over, rows } from './panel.mjs';
import { series } from './query.mjs';

const who = 'instance';

export const process = [
  lines({ title: 'Age of the heartbeat', w: 6, text: 'How long ago the scheduler last made progress. It moves only when it did.' },
    over(`time() - max by (${who}) (${series('rotatord_scheduler_heartbeat_timestamp_seconds')})`, '{{instance}}')).unit('s'),

  lines({ title: 'Work', w: 6, text: 'Certificates that are queued or being worked on in the whole cluster, and those of a daemon that find no place in the queue.' },
    over(`max(${series('rotatord_work_queue_depth')})`, 'queued'),
    over(`sum(${series('rotatord_work_waiting')})`, 'waiting for a place')).unit('short'),

  lines({ title: 'Age of work', w: 6, text: 'How old the oldest work in the queue is, and the oldest that has no place there.' },
    ...[['work_queue_oldest', 'queued'], ['work_waiting_since', 'waiting for a place']].map(([name, legend]) => {
      const since = series(`rotatord_${name}_timestamp_seconds`);
      return over(`max(time() - (${since} > 0)) or vector(0)`, legend);
    })).unit('s'),

  lines({ title: 'Memory', w: 6, text: 'Resident memory of each daemon.' },
    over(`max by (${who}) (${series('process_resident_memory_bytes')})`, '{{instance}}')).unit('bytes'),

  lines({ title: 'CPU', w: 6, text: 'Share of one core that each daemon uses.' },
    over(`max by (${who}) (rate(${series('process_cpu_seconds_total')}[$__rate_interval]))`, '{{instance}}')).unit('percentunit'),

  lines({ title: 'Goroutines', w: 6, text: 'A number that goes on rising is a leak.' },
    over(`max by (${who}) (${series('go_goroutines')})`, '{{instance}}')).unit('short'),

  rows({ title: 'Daemons', w: 12, text: 'What runs, since when, and on which configuration. A configuration with a mistake leaves the one before in force.' }, [
    { name: 'Instance', of: 'instance' }, { name: 'Version', of: 'version' }, { name: 'Go', of: 'go_version' },
    { name: 'build', hidden: `max by (${who}, version, go_version) (${series('rotatord_build_info')})` },
    { name: 'Answers', expr: `max by (${who}) (${series('up')})`, width: 75, cell: 'text', names: { 0: { text: 'no', color: color.bad }, 1: { text: 'yes', color: color.good } } },
    { name: 'Started', expr: `max by (${who}) (${series('process_start_time_seconds')}) * 1000`, unit: 'dateTimeFromNow' },
    { name: 'Configuration', expr: `max by (${who}) (${series('rotatord_config_last_reload_success_timestamp_seconds')}) * 1000`, unit: 'dateTimeFromNow' },
    { name: 'In force', expr: `min by (${who}) (${series('rotatord_config_last_reload_successful')})`, width: 75, cell: 'text', names: { 0: { text: 'an old one', color: color.bad }, 1: { text: 'yes', color: color.good } } },
    { name: 'Not written', expr: `sum by (${who}) (increase(${series('rotatord_journal_write_errors_total')}[$__range]))`, width: 90, cell: 'text', steps: [{ value: null, color: color.good }, { value: 1, color: color.bad }] },
  ]),
];
