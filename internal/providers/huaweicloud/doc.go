// Package huaweicloud is the HTTP client of Huawei Cloud and Open Telekom Cloud:
// authentication, signing, limits, retries of reads, and the classification of
// failures into the kinds of internal/providers. One Client is one account in
// one region.
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
//   - a password that was refused is not tried again for minutes (password.go);
//   - everything waits under the caller's context.
//
// The facts about the services are those of docs/reference/huawei-cloud.md ("reference");
// comments name its sections.
package huaweicloud
