// Package conformance checks rotatord against the official SDK of Huawei Cloud:
// our signatures against its signer, and our simulator with its typed client. It
// is a module of its own so that the SDK never becomes a dependency of rotatord.
//
// It has tests only and may import anything.
package conformance
