// Command schemagen writes the JSON Schemas of configuration and policies from the source
// of package policy: its types, their comments, and the sets and patterns that its checks
// use. It is run by go generate, and is no part of rotatord.
//
// What a type cannot say (which members must be there, which exclude each other, which
// pattern belongs to which member) stands in rules.go; a rule for what is not in the
// source is an error, and so is a set or a pattern of the checks without a rule.
package main

import (
	"log"
	"os"
	"path/filepath"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("schemagen: ")
	if err := write("."); err != nil {
		log.Fatal(err)
	}
}

// write makes the schemas of the package in dir, below it.
func write(dir string) error {
	files, err := generate(dir)
	if err != nil {
		return err
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil { //nolint:gosec // for everybody to read
			return err
		}
	}
	return nil
}
