// Package bus is everything that travels over NATS: triggers in, the work queue,
// events out. The server is embedded in the process or somewhere else; nothing
// outside this package can tell.
//
// It may import nats.go, the NATS server, internal/audit, internal/repeat and the standard library, and
// knows nothing of certificates, policies or rotations: assignments are a pair of names here.
//
// Invariants:
//   - a trigger message is acknowledged only when the work it asks for is in the work
//     queue, so a trigger survives the death of the daemon at any point;
//   - the work queue holds at most one message for each assignment, queued or being
//     worked on, in the whole cluster: the server refuses a second (error 10077), so
//     no two workers have the same assignment at once;
//   - a refused offer is remembered and repeated until it is accepted;
//   - with the server away nothing is lost and nothing blocks for ever: every call
//     takes a context.
package bus
