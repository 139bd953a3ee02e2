// Package rotation decides and does: it observes an assignment, plans with a pure
// function, and applies the plan step by step, journalled, until nothing is left to do
// or the plan says wait.
//
// It may import internal/audit, internal/certs, internal/policy, internal/providers,
// internal/repeat, internal/scheduler and the standard library. It imports no adapter, no NATS and no HTTP: what it needs of them it
// declares as small interfaces (contract.go), and cmd/rotatord fills them in.
//
// Invariants:
//   - Plan has no I/O and no clock of its own; rotatord plan and the daemon call the
//     same one;
//   - before an effect leaves the process, the intent to make it is in the journal;
//     if it cannot be written there, nothing is done;
//   - there is no recovery code: a restart observes, and what an interrupted run left
//     behind is found by looking, as everything is;
//   - nothing is retired that rotatord did not make, that is served, or whose
//     successor was not verified;
//   - a failing target does not keep another from its steps.
package rotation
