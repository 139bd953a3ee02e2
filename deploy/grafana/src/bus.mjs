// NATS: the queue, the journal, triggers and events.
import { color, lines, over, timeline, troubles } from './panel.mjs';
import { increase, rate, series } from './query.mjs';

export const bus = [
  timeline({ title: 'NATS', w: 6, text: 'Whether each daemon reaches NATS. Without it nothing is rotated.' },
    { 0: { text: 'away', color: color.bad }, 1: { text: 'connected', color: color.good } },
    over(series('rotatord_nats_connected'), '{{instance}}')),

  lines({ title: 'Messages', w: 6, text: 'Messages a second, by what they carry and what became of them.' },
    over(`sum by (subject, result) (${rate(series('rotatord_nats_messages_total'))}) > 0`, '{{subject}} {{result}}')).unit('cps'),

  lines({ title: 'Pending', w: 6, text: 'Messages that a consumer has not been given yet, and those that it has been given and has not acknowledged. All daemons see the same.' },
    over(`max by (consumer) (${series('rotatord_nats_consumer_pending')})`, '{{consumer}} not given'),
    over(`max by (consumer) (${series('rotatord_nats_consumer_ack_pending')})`, '{{consumer}} under way')).unit('short'),

  troubles({ title: 'Given back, refused, lost', w: 6, text: 'Work that was given back to be delivered again (nak), messages that the stream had already (duplicate: work that was queued or running, events published again), messages that failed, and connections made anew.' },
    over(`sum by (subject, result) (${increase(series('rotatord_nats_messages_total', 'result=~"nak|duplicate|failed"'))}) > 0`, '{{subject}} {{result}}'),
    over(`sum(${increase(series('rotatord_nats_reconnects_total'))})`, 'reconnects')),
];
