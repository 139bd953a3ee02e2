// Package huaweicloud is the HTTP client of Huawei Cloud and Open Telekom Cloud:
// logging in (Auth), signing, limits, circuits, retries of reads, and the
// classification of failures into the kinds of internal/providers. One Client is one
// account in one region; clients share nothing.
//
// It may import internal/providers (for the error kinds), golang.org/x/time and
// golang.org/x/sync. It knows nothing of certificates: an adapter describes each
// call with a Call and gets its answer decoded or a *providers.Error.
//
// Invariants:
//   - no secret, token, request body or answer body is ever part of an error, a
//     log line or a metric; what a service says is cleaned first (message.go);
//   - a write is sent at most once, and a second time only when the first was
//     refused for its credentials;
//   - a write that may have taken effect is an error of kind UnknownOutcome;
//   - a password that was refused is not tried again for minutes, nor by the next
//     process (password.go, memory.go);
//   - credentials that end are renewed before they do, once for all callers, and used
//     on while the renewal fails (held.go);
//   - a service that throttles or is down is left alone by everybody (limit.go,
//     circuit.go), and no other service with it;
//   - what fails on the way to credentials never looks like an answer about the
//     caller's object, and the caller's request was not sent;
//   - everything waits under the caller's context.
//
// The facts about the services are those of docs/reference/huawei-cloud.md ("reference");
// comments name its sections.
package huaweicloud
