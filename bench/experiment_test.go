package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// programs is where rotatord is built.
var programs string

// program builds rotatord, once for all tests, with the flags of the tests: what they have compiled is used again, and
// what they have linked, of which this is a copy.
var program = sync.OnceValues(func() (string, error) {
	binary := filepath.Join(programs, "rotatord")
	if out, err := exec.Command("go", "run", "-exec", "cp", "../cmd/rotatord", binary).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build rotatord: %w\n%s", err, out)
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

// tryExperiment runs an experiment over next to nothing, so that it does not rot: it must end well and report what
// it is for. It returns the report.
func tryExperiment(t *testing.T, name string, n int, figures ...string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("starts daemons")
	}
	t.Parallel()
	chosen, err := choose(name, fmt.Sprint(n))
	if err != nil {
		t.Fatal(err)
	}
	binary, err := program()
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	b := &bench{binary: binary, dir: t.TempDir(), rounds: 1, window: 100 * time.Millisecond, report: &report{text: &text, experiment: name, n: n}}
	if err := chosen[0].run(t.Context(), b, n); err != nil {
		t.Fatalf("%v\n%s", err, text.String())
	}
	for _, figure := range figures {
		if !strings.Contains(text.String(), figure) {
			t.Errorf("no figure %q in:\n%s", figure, text.String())
		}
	}
	return text.String()
}
