// Package policy turns the configuration and the policies, YAML written by
// people, into checked values that the rest of the program can rely on.
//
// It may import internal/certs, a YAML parser and the standard library. It opens
// no connection, starts nothing, and reads files only while loading, and again to point
// at their lines.
//
// Invariants:
//   - a value that Load returned is complete and consistent: every default is
//     filled in, every reference resolves, every named file was there;
//   - it is never changed afterwards, so it may be shared between goroutines;
//   - unknown fields, second documents and duplicate names are errors;
//   - what Prove adds is about time and meaning, never about form: it keeps nothing from
//     being loaded;
//   - every error says file, line and column, and shows the line;
//   - the content of a secret file is never kept: a SecretFile holds a path.
package policy
