package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSchemaIsUpToDate(t *testing.T) {
	files, err := generate("..")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join("..", name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("internal/policy/%s is not what the types say; run go generate ./internal/policy (%v)", name, err)
		}
	}
}

// What the generator cannot know it refuses to guess.
func TestSchemaOfUnknownThings(t *testing.T) {
	for name, row := range map[string]struct{ old, new, want string }{
		"a set without a name":  {`oneOf(d, "$.log.level", l.Level, LogLevels)`, `oneOf(d, "$.log.level", l.Level, []string{"a"})`, "a set that has no name"},
		"a set without a rule":  {`oneOf(d, "$.log.level", l.Level, LogLevels)`, `oneOf(d, "$.log.level", l.Level, services)` + "\n" + `oneOf(d, "", "", others)`, "no rule has the set others"},
		"a set that is gone":    {`LogLevels  = []string`, `Levels = []string`, "there is no set LogLevels"},
		"a pattern that is new": {`nodePattern   =`, `newPattern = regexp.MustCompile("a")` + "\nnodePattern =", "no rule has the pattern newPattern"},
		"a field that is gone":  {"`yaml:\"prefix\"`", "`yaml:\"praefix\"`", "rules.go has a limit for NATS.prefix"},
		"a member that is gone": {"`yaml:\"tls\"`", "`yaml:\"ssl\"`", "NATS: there is no member tls"},
		"a type of its own":     {`type Log struct`, "func (l *Log) UnmarshalYAML() {}\ntype Log struct", "type Log reads its YAML itself"},
		"a type from elsewhere": {`Level string `, `Level other.Kind `, "Log.level: a field of type *ast.SelectorExpr is not understood"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			paths, err := filepath.Glob("../*.go")
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range paths {
				text, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if filepath.Base(path) == "config.go" {
					if !bytes.Contains(text, []byte(row.old)) {
						t.Fatalf("config.go has no %s", row.old)
					}
					text = bytes.Replace(text, []byte(row.old), []byte(row.new), 1)
				}
				if err := os.WriteFile(filepath.Join(dir, filepath.Base(path)), text, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := generate(dir); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("generate says %v, want %q", err, row.want)
			}
		})
	}
}
