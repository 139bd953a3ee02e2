// The command bench measures rotatord as a whole process: how long it takes and what it uses, beside the
// least that the same work takes on this machine, in the same run.
//
// It starts the built program, a simulated cloud where one is needed, and asks the kernel what the process
// used. It may import what tests import (certstest, cloudsim) and the rooms that hold the limit (bus, journal); nothing imports it. It never judges: it prints
// figure, limit and ratio, and the goal beside them. README.md says how to read that.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// experiment is one thing that is measured, at one size.
type experiment struct {
	name string
	what string
	// sizes are those of a run without -n.
	sizes []int
	// asked says that it takes so long that it is done only when it is named.
	asked bool
	run   func(context.Context, *bench, int) error
}

func experiments() []experiment {
	return []experiment{
		{name: "load", what: "a directory of N pairs: start to ready, first and later scrapes, memory", sizes: []int{1000, 10000, 100000}, run: load},
		{name: "change", what: "N pairs, one or many replaced, one corrupt; idle", sizes: []int{1000, 10000, 100000}, run: change},
		{name: "journal", what: "records written, and a start with N of them", sizes: []int{1000, 10000, 100000}, run: records},
		{name: "policies", what: "check and plan of N policies", sizes: []int{1, 100, 1000}, run: policies},
		{name: "watches", what: "N directories watched, and polled where the kernel's watches run out", sizes: []int{1000, 10000, 100000}, run: watches},
		{name: "trigger", what: "a change on disk and a message over NATS, to the first call and to the end; a flood of messages", sizes: []int{100, 1000}, run: trigger},
		{name: "bulk", what: "N certificates replaced at once, all to their hosts in a simulated cloud", sizes: []int{100, 1000, 10000}, run: bulk},
		{name: "drift", what: "one comparison of N converged certificates with the cloud", sizes: []int{100, 1000, 10000}, run: drift},
		{name: "fleet", what: "1, 2 and 4 daemons on one NATS issue and deploy N certificates", sizes: []int{1000}, run: fleet},
		{name: "build", what: "a build with an empty cache, its size, and the demo", sizes: []int{1}, run: release},
		{name: "soak", what: "renewals, faults, triggers and reloads for the time of -for: does anything grow", sizes: []int{10000}, asked: true, run: soak},
	}
}

// bench is one run of the command.
type bench struct {
	binary string
	dir    string // for pairs, configurations and state
	rounds int
	window time.Duration // of what is measured at rest
	lasts  time.Duration // of what is not over by itself
	// profiles has the daemons serve profiles of themselves.
	profiles bool
	report   *report
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	only := flags.String("only", "", "experiments, comma separated; default all")
	sizes := flags.String("n", "", "sizes, comma separated; default each experiment's own")
	rounds := flags.Int("rounds", 3, "how often each process is started; figures are medians")
	lasts := flags.Duration("for", time.Hour, "how long soak lasts")
	window := flags.Duration("window", time.Minute, "how long an idle daemon is measured")
	binary := flags.String("rotatord", "", "the program; default: built from ./cmd/rotatord")
	dir := flags.String("dir", "", "where to work; what is made there stays. Default: a temporary directory")
	profiles := flags.Bool("pprof", false, "have the daemons serve profiles on their control sockets, <dir>/daemon/state/rotatord.sock")
	out := flags.String("o", "", "file that the figures are added to, as lines of JSON")
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: go run ./bench [flags], in the root of the repository")
		fmt.Fprintln(flags.Output(), "       go run ./bench publish FIGURES PAGE IMAGES fills tables in and draws pictures")
		flags.PrintDefaults()
		for _, e := range experiments() {
			fmt.Fprintf(flags.Output(), "  %-10s %s\n", e.name, e.what)
		}
	}
	if len(args) == 4 && args[0] == "publish" {
		return publish(args[1], args[2], args[3])
	}
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	chosen, err := choose(*only, *sizes)
	if err != nil {
		return err
	}
	b := &bench{binary: *binary, dir: *dir, rounds: *rounds, window: *window, lasts: *lasts, profiles: *profiles}
	if b.dir == "" {
		if b.dir, err = os.MkdirTemp("", "rotatord-bench-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	}
	if b.dir, err = filepath.Abs(b.dir); err != nil {
		return err
	}
	if b.report, err = newReport(os.Stdout, *out); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.report.close()) }()
	if b.binary == "" {
		if b.binary, err = build(ctx, b.dir); err != nil {
			return err
		}
	}
	for _, e := range chosen {
		for _, n := range e.sizes {
			b.report.experiment, b.report.n = e.name, n
			if err := e.run(ctx, b, n); err != nil {
				return fmt.Errorf("%s at %d: %w", e.name, n, err)
			}
		}
	}
	return nil
}

// choose is what the flags ask for.
func choose(only, sizes string) ([]experiment, error) {
	chosen := experiments()
	if only == "" {
		chosen = slices.DeleteFunc(chosen, func(e experiment) bool { return e.asked })
	} else {
		names := strings.Split(only, ",")
		for _, name := range names {
			if !slices.ContainsFunc(chosen, func(e experiment) bool { return e.name == name }) {
				return nil, fmt.Errorf("there is no experiment %q; -h lists them", name)
			}
		}
		chosen = slices.DeleteFunc(chosen, func(e experiment) bool { return !slices.Contains(names, e.name) })
	}
	if sizes == "" {
		return chosen, nil
	}
	var list []int
	for text := range strings.SplitSeq(sizes, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("-n %s: want numbers, as in 1000,10000", sizes)
		}
		list = append(list, n)
	}
	for i := range chosen {
		chosen[i].sizes = list
	}
	return chosen, nil
}

// build makes the program as it is released.
func build(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "rotatord")
	_, _, err := timed(building(ctx, binary))
	return binary, err
}

// building is the build of a release, in this environment besides.
func building(ctx context.Context, binary string, environment ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, "./cmd/rotatord")
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), environment...)
	return cmd
}
