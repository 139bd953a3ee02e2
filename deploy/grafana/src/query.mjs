// PromQL, and how its series are chosen by the variables of the dashboard.

const daemon = 'job=~"$job", instance=~"$instance"';

/**
 * Series of the daemons that are chosen. Matchers are appended.
 * @param {string} name
 * @param {...string} matchers
 */
export const series = (name, ...matchers) => `${name}{${[daemon, ...matchers].join(', ')}}`;

/** @param {string} name @param {...string} matchers */
export const byPolicy = (name, ...matchers) => series(name, 'policy=~"$policy"', ...matchers);

/** @param {string} name @param {...string} matchers */
export const byKind = (name, ...matchers) => series(name, 'target_kind=~"$target_kind"', ...matchers);

/** @param {string} name @param {...string} matchers */
export const byBoth = (name, ...matchers) => byPolicy(name, 'target_kind=~"$target_kind"', ...matchers);

/** A source has the name of its policy. @param {string} name @param {...string} matchers */
export const bySource = (name, ...matchers) => series(name, 'source=~"$policy"', ...matchers);

/** @param {string} name @param {...string} matchers */
export const byCloud = (name, ...matchers) => series(name, 'cloud=~"$cloud"', ...matchers);

// Several daemons tell of the same certificates: the gauges of certificates, assignments and
// targets are taken once, by max or min, and never added up over instances.

/** The places where a certificate is: bound at a target, shown by an endpoint. */
export const place = 'policy, certificate, role, target';

/** @param {string} name @param {...string} matchers */
export const byPlace = (name, ...matchers) => byPolicy(name, 'role=~"$role"', ...matchers);

export const notAfter = byPlace('rotatord_certificate_not_after_timestamp_seconds');

/**
 * How much of its life each place's certificate has left: 1 when it begins, 0 when it ends. A
 * recording rule of deploy/prometheus, since of ten thousand certificates it takes seconds.
 */
export const lifeLeft = byPlace('rotatord:certificate_life_left:ratio');

/** How many there are; 0 for none. @param {string} expr */
export const count = (expr) => `count(${expr}) or vector(0)`;

/** The states of an assignment, from the one that needs no attention to those that need it most. */
export const states = ['converged', 'waiting', 'paused', 'braked', 'rotating', 'quarantined', 'unconverged', 'failed', 'expired'];

/** Assignments in one of these states. @param {...string} names */
export const inState = (...names) =>
  `max by (policy, certificate) (${byPolicy('rotatord_assignment_state', `state=~"${names.join('|')}"`)} == 1)`;

/** What happened within the resolution of a graph. @param {string} selector */
export const increase = (selector) => `increase(${selector}[$__rate_interval])`;

/** @param {string} selector */
export const rate = (selector) => `rate(${selector}[$__rate_interval])`;

/**
 * The same few series over the whole graph, however many there are: those that rank highest
 * over the whole range. A topk by itself chooses others at every point.
 * @param {string} expr
 * @param {string} labels that it has
 * @param {string} rank an aggregation over selectors that end with `atEnd`
 */
export const only = (expr, labels, rank) => `${expr} and on (${labels}) ${rank}`;

export const atEnd = '[$__range] @ end()';
