package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// programs is where rotatord is built.
var programs string

// program is rotatord, built once for all tests.
var program = sync.OnceValues(func() (string, error) {
	binary := filepath.Join(programs, "rotatord")
	if out, err := exec.Command("go", "build", "-o", binary, "github.com/rotatord/rotatord/cmd/rotatord").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return binary, nil
})

func TestMain(m *testing.M) {
	var err error
	if programs, err = os.MkdirTemp("", "rotatord-bench-test-"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(programs)
	os.Exit(code)
}

// tiny runs an experiment at a size at which its figures mean nothing, and returns what it printed: at full size nobody
// runs it for months.
func tiny(t *testing.T, n int, run func(context.Context, *bench, int) error) string {
	t.Helper()
	if testing.Short() {
		t.Skip("starts daemons")
	}
	binary, err := program()
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	r, err := newReport(&text, "")
	if err != nil {
		t.Fatal(err)
	}
	r.experiment, r.n = t.Name(), n
	if err := run(t.Context(), &bench{binary: binary, dir: t.TempDir(), rounds: 1, report: r}, n); err != nil {
		t.Fatalf("%v\n%s", err, text.String())
	}
	return text.String()
}

func wantFigures(t *testing.T, text string, names ...string) {
	t.Helper()
	for _, name := range names {
		if !strings.Contains(text, name) {
			t.Errorf("no figure %q in\n%s", name, text)
		}
	}
}
