package main

import (
	"context"
	"flag"
	"os"
	"runtime/debug"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/policy"
)

// commands are what the test binary can be run as, under these names.
var commands = map[string]func(){
	"rotatord": func() { os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)) },
}

func TestMain(m *testing.M) {
	// Most tests here wait, for a daemon, an edge or a disk: some more of them at once than there
	// are cores. -parallel says otherwise.
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	// A world for each row of a matrix is garbage soon: a quarter of all time was the collector's.
	debug.SetGCPercent(400)
	testscript.Main(m, commands)
}

// TestScripts runs the commands as a user types them; see testdata/script.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"pem": writePEM},
		Setup: func(e *testscript.Env) error {
			e.Setenv("NO_COLOR", "1")
			return nil
		},
	})
}

// writePEM is the command "pem DIRECTORY LIFE NAME...": it writes a pair for the names
// that has just been issued.
func writePEM(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 3 {
		ts.Fatalf("usage: pem DIRECTORY LIFE NAME...")
	}
	dir := ts.MkAbs(args[0])
	life, err := policy.ParseDuration(args[1])
	ts.Check(err)
	ts.Check(os.MkdirAll(dir, 0o755))
	ca, err := certstest.NewCA("test")
	ts.Check(err)
	bundle, err := ca.Issue(certstest.Options{Names: args[2:], NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(life.Std())})
	ts.Check(err)
	ts.Check(certstest.WritePair(dir, args[2], bundle))
}
