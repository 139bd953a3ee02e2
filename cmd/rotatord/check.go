package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/internal/metrics"
	"github.com/rotatord/rotatord/internal/policy"
)

// Checks whose findings were printed already end with one of these.
var (
	errCheckFailed   = errors.New("the configuration cannot be used as it is")
	errCheckWarnings = errors.New("there are warnings, which --strict takes for errors")
)

// checkOptions are the flags of check.
type checkOptions struct {
	output    string
	strict    bool
	online    bool
	otherHost bool
	user      string
}

func newCheckCommand(g *globals) *cobra.Command {
	var o checkOptions
	cmd := &cobra.Command{
		Use:   "check [POLICY-FILE|DIRECTORY...]",
		Short: "Validate the configuration and its policies",
		Long: "Check reads the configuration and all its policies, or just the policy files named, and reports every\n" +
			"mistake with file, line and column; then it proves what it can: that windows open before certificates end,\n" +
			"that names are covered, that this user may read and write what the policies name. Nothing is changed, and\n" +
			"nothing is contacted without --online. Exit code 1 if there are errors.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.otherHost && (o.online || o.user != "") {
				return usageError{errors.New("--other-host leaves out what --online and --user ask for")}
			}
			if o.user != "" {
				other, err := lookUpUser(o.user)
				if err != nil {
					return err
				}
				if other != nil {
					return checkAs(cmd, g, o, other, args)
				}
			}
			return runCheck(cmd, g, o, args)
		},
	}
	addOutputFlag(cmd, &o.output)
	flags := cmd.Flags()
	flags.BoolVar(&o.strict, "strict", false, "exit code 1 for warnings too")
	flags.BoolVar(&o.online, "online", false, "ask clouds, NATS and TLS endpoints too; nothing is changed there")
	flags.StringVar(&o.user, "user", "", "check as this user, whom the service runs as; needs root")
	flags.BoolVar(&o.otherHost, "other-host", false, "the files are for another host: leave out what concerns this one's files and users")
	return cmd
}

func runCheck(cmd *cobra.Command, g *globals, o checkOptions, args []string) error {
	var files []string
	if len(args) > 0 {
		var err error
		if files, err = policyFiles(args); err != nil {
			return err
		}
	}
	c := &checker{options: o}
	c.check(cmd.Context(), g.config, files)
	what := g.config + ": ok"
	if files != nil {
		what = "ok"
	}
	if o.output == "json" {
		if err := c.printJSON(cmd, what); err != nil {
			return err
		}
	} else if err := c.print(cmd, what); err != nil {
		return err
	}
	return c.verdict()
}

// checker gathers findings.
type checker struct {
	options checkOptions
	set     *policy.Set
	wiring  *wiring
	point   policy.Pointer
	mu      sync.Mutex // of found and point: online findings come from several goroutines
	found   policy.Problems
}

// check fills in what is found. What can be told of policies without mistakes is told,
// whatever is wrong with others.
func (c *checker) check(ctx context.Context, config string, files []string) {
	set, problems := policy.Read(config, files, os.Getenv)
	c.found = problems
	if c.options.otherHost {
		c.found = slices.DeleteFunc(problems, func(p policy.Problem) bool { return p.Host })
	}
	if set == nil {
		return
	}
	c.set = set
	c.wiring = newWiring(set, metrics.New(metrics.Config{}), slog.New(slog.DiscardHandler))
	c.found = append(c.found, set.Prove(time.Now(), &c.point)...)
	if !c.options.otherHost {
		c.host()
	}
	if c.options.online {
		c.online(ctx)
	}
	c.found.Sort()
}

func (c *checker) add(severity policy.Severity, file, path, format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.found = append(c.found, c.point.At(severity, file, path, format, args...))
}

func (c *checker) passed() bool { return c.verdict() == nil }

func (c *checker) verdict() error {
	switch {
	case len(c.found.Errors()) > 0:
		return errCheckFailed
	case c.options.strict && len(c.found) > 0:
		return errCheckWarnings
	}
	return nil
}

// summary is one line for success.
func (c *checker) summary(what string) string {
	what += ", " + counted(len(c.set.Policies), "policy", "policies")
	if n := len(c.found); n > 0 {
		what += ", " + counted(n, "warning", "warnings")
	}
	return what
}

func (c *checker) print(cmd *cobra.Command, what string) error {
	if len(c.found) > 0 {
		fmt.Fprintln(cmd.ErrOrStderr(), c.found)
	}
	if !c.passed() {
		return nil
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout(), c.summary(what))
	return err
}

// finding is a problem as JSON.
type finding struct {
	Severity policy.Severity `json:"severity"`
	File     string          `json:"file"`
	Line     int             `json:"line,omitempty"`
	Column   int             `json:"column,omitempty"`
	Message  string          `json:"message"`
}

func (c *checker) printJSON(cmd *cobra.Command, what string) error {
	result := struct {
		OK       bool      `json:"ok"`
		Summary  string    `json:"summary,omitempty"`
		Problems []finding `json:"problems"`
	}{OK: c.passed(), Problems: []finding{}}
	if result.OK {
		result.Summary = c.summary(what)
	}
	for _, p := range c.found {
		result.Problems = append(result.Problems, finding{cmp.Or(p.Severity, policy.Error), p.File, p.Line, p.Column, p.Message})
	}
	return printJSON(cmd, result)
}

func addOutputFlag(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVarP(output, "output", "o", "text", "text or json")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if *output != "text" && *output != "json" {
			return usageError{fmt.Errorf("output %q is neither text nor json", *output)}
		}
		return nil
	}
}

// policyFiles expands directories.
func policyFiles(paths []string) ([]string, error) {
	files := []string{}
	for _, path := range paths {
		if info, err := os.Stat(path); err != nil || !info.IsDir() {
			files = append(files, path) // a missing file is a finding like any other
			continue
		}
		below, err := policy.Files(path)
		if err != nil {
			return nil, fmt.Errorf("list policies: %w", err)
		}
		files = append(files, below...)
	}
	return files, nil
}

func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func printJSON(cmd *cobra.Command, v any) error {
	e := json.NewEncoder(cmd.OutOrStdout())
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// shortPath shows a path relative to the working directory where that is shorter.
func shortPath(path string) string {
	wd, err := os.Getwd()
	if err != nil || wd == "/" { // where daemons are
		return path
	}
	if rel, err := filepath.Rel(wd, path); err == nil && !strings.HasPrefix(rel, "..") {
		return rel
	}
	return path
}
