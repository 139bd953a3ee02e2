package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/internal/admin"
)

const (
	// watchEvery is how often --watch and --wait ask.
	watchEvery = time.Second
	waitEvery  = 250 * time.Millisecond
	// clearScreen moves a terminal's cursor home and clears from there (ECMA-48).
	clearScreen = "\x1b[H\x1b[2J"
)

func newStatusCommand(g *globals) *cobra.Command {
	a := &asker{globals: g}
	var watch, all bool
	cmd := a.command("status [POLICY[/CERTIFICATE]]", "Show what the running daemon looks after, and how it stands",
		"Status asks the running daemon for its policies and certificates: their state, when they expire, which targets\n"+
			"serve what is wanted, and why not. What needs attention most comes first.",
		atMostOne, func(cmd *cobra.Command, args []string) error {
			if watch {
				return a.watch(cmd, first(args), all)
			}
			var s admin.Status
			if err := a.ask(cmd.Context(), "status", map[string]string{"of": first(args)}, &s); err != nil {
				return err
			}
			return a.print(cmd, s, func() error { return printStatus(cmd.OutOrStdout(), s, all, time.Now()) })
		})
	cmd.Flags().BoolVarP(&all, "all", "a", false, "show every certificate, however many are converged")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "go on showing it, and the steps as they are made: on a terminal the whole, otherwise what changes, with -o json one object a line")
	return cmd
}

// watch shows the status again and again, until the user has seen enough.
func (a *asker) watch(cmd *cobra.Command, of string, all bool) error {
	out, terminal := cmd.OutOrStdout(), isTerminal(cmd.OutOrStdout()) && a.output != "json"
	seen, steps := map[string]string{}, &lastLines{}
	if terminal {
		defer a.follow(cmd.Context(), of, func(line json.RawMessage) error { return a.printProgress(steps, line) })()
	} else {
		out = &oneAtATime{w: out}
		defer a.follow(cmd.Context(), of, func(line json.RawMessage) error { return a.printProgress(out, line) })()
	}
	for {
		var s admin.Status
		err := a.ask(cmd.Context(), "status", map[string]string{"of": of}, &s)
		switch {
		case err != nil && cmd.Context().Err() == nil:
			return err
		case err != nil:
			return nil // the user has seen enough
		case terminal:
			fmt.Fprint(out, clearScreen)
			err = printStatus(out, s, all, time.Now())
			fmt.Fprint(out, steps)
		default:
			err = a.printChanges(out, s, seen)
		}
		if err != nil {
			return err
		}
		if !sleep(cmd.Context(), watchEvery) {
			return nil
		}
	}
}

// shownSteps is how many of the last steps a watched status shows.
const shownSteps = 8

// lastLines keeps what was written to it last, line by line.
type lastLines struct {
	mu    sync.Mutex
	lines []string
}

// Write implements io.Writer.
func (l *lastLines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(line))
	l.lines = l.lines[max(0, len(l.lines)-shownSteps):]
	return len(line), nil
}

// String is a heading and the lines; empty where there are none.
func (l *lastLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lines) == 0 {
		return ""
	}
	return "\nSteps:\n" + strings.Join(l.lines, "")
}

// printChanges writes one line for each assignment that is not as it was.
func (a *asker) printChanges(w io.Writer, s admin.Status, seen map[string]string) error {
	if o := s.Onboarding; o != nil && a.output != "json" {
		if percent := fmt.Sprint(o.AtRest * 100 / o.Total); seen[""] != percent {
			seen[""] = percent
			fmt.Fprintf(w, "%s  %s\n", stamp(time.Now()), onboardingText(o, time.Now()))
		}
	}
	for _, x := range s.Assignments {
		key, line := x.Policy+"/"+x.Certificate, changeText(x)
		if seen[key] == line {
			continue
		}
		seen[key] = line
		if a.output == "json" {
			if err := writeJSONLine(w, x); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(w, "%s  %s/%s  %s\n", stamp(time.Now()), x.Policy, x.Certificate, line)
	}
	return nil
}

// writeJSONLine writes a value as one line, for what is read as a stream.
func writeJSONLine(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) }

// changeText is what is worth a line when it changes.
func changeText(a admin.Assignment) string {
	text := a.State
	if a.Wanted != nil {
		text += "  " + short(a.Wanted.Fingerprint)
	}
	if len(a.Targets) > 0 {
		text += "  " + targetsText(a.Targets)
	}
	if a.Reason != "" {
		text += "  " + a.Reason
	}
	return text
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// errNotRotated ends a rotate --wait that did not end well; why was printed.
var errNotRotated = errors.New("not every certificate is served as wanted")

func newRotateCommand(g *globals) *cobra.Command {
	a := &asker{globals: g}
	w := admin.Wish{}
	var wait bool
	timeout := 15 * time.Minute
	cmd := a.command("rotate POLICY[/CERTIFICATE]", "Have the daemon look now, and rotate what is to be rotated",
		"Rotate has the running daemon look at a policy's certificates now, without sitting out the delays of failures.\n"+
			"--force issues anew, or deploys again what is there already, and overrides the guard and closed windows;\n"+
			"--confirm releases the brake. With --wait the command shows what happens and ends when every certificate is\n"+
			"served as wanted (exit code 0), or cannot be (1).",
		exactlyOne, func(cmd *cobra.Command, args []string) error {
			s, err := parseSelection(args[0])
			if err != nil {
				return err
			}
			w.Policy, w.Certificate = s.policy, s.certificate
			if wait {
				cmd.SetOut(&oneAtATime{w: cmd.OutOrStdout()})
				defer a.follow(cmd.Context(), args[0], func(line json.RawMessage) error { return a.printProgress(cmd.OutOrStdout(), line) })()
			}
			var accepted admin.Accepted
			if err := a.tell(cmd.Context(), "rotate", w, &accepted); err != nil {
				return err
			}
			if !wait {
				return a.print(cmd, accepted, func() error {
					_, err := fmt.Fprintf(cmd.OutOrStdout(), "asked for %s: %s\n", counted(len(accepted.Assignments), "certificate", "certificates"), listed(accepted.Assignments))
					return err
				})
			}
			ctx, cancel := context.WithTimeoutCause(cmd.Context(), timeout, fmt.Errorf("not done within %s; it goes on without being waited for", timeout))
			defer cancel()
			return a.await(ctx, cmd, args[0], accepted.Asked)
		})
	cmd.Flags().BoolVar(&w.Force, "force", false, "issue anew or deploy again, and override guard and windows")
	cmd.Flags().BoolVar(&w.Confirm, "confirm", false, "release the brake for these certificates")
	cmd.Flags().StringVar(&w.Reason, "reason", "", "why, for the history")
	cmd.Flags().BoolVar(&wait, "wait", false, "show what happens, and wait for the end")
	cmd.Flags().Var((*spanFlag)(&timeout), "timeout", "how long --wait waits")
	return cmd
}

// oneAtATime is a writer for several goroutines, each of which writes whole lines.
type oneAtATime struct {
	mu sync.Mutex
	w  io.Writer
}

// Write implements io.Writer.
func (o *oneAtATime) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.w.Write(p)
}

// follow shows the steps as they are made, from its return on until stop. The daemon that
// makes them may be another one; then only their outcome is seen.
func (a *asker) follow(ctx context.Context, of string, show func(json.RawMessage) error) (stop func()) {
	c, err := a.client()
	if err != nil {
		return func() {} // whoever asks next says so
	}
	ctx, cancel := context.WithCancel(ctx)
	begun, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		first := true
		_ = c.Follow(ctx, "follow", map[string]string{"of": of}, func(line json.RawMessage) error {
			if first {
				first = false
				close(begun)
				return nil
			}
			return show(line)
		})
	}()
	select {
	case <-begun:
	case <-ended: // it cannot be followed; what is asked then tells why, if it matters
	}
	return func() {
		cancel()
		<-ended
	}
}

func (a *asker) printProgress(w io.Writer, line json.RawMessage) error {
	if a.output == "json" {
		return writeJSONLine(w, line)
	}
	var p admin.Progress
	if err := json.Unmarshal(line, &p); err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	harmless(&p)
	text := p.Step
	for _, part := range []string{p.Target, short(p.Fingerprint), strings.Join(p.Endpoints, ", "), p.Reason} {
		if part != "" {
			text += "  " + part
		}
	}
	if p.Error != "" {
		text = p.Step + "  failed: " + p.Error
	}
	_, err := fmt.Fprintf(w, "%s  %s/%s  %s\n", stamp(p.Time), p.Policy, p.Certificate, text)
	return err
}

// settledStates are those in which nothing more happens soon by itself.
var settledStates = []string{"converged", "failed", "expired", "braked", "quarantined", "paused"}

// await shows what happens until each assignment has come to rest after what was asked.
func (a *asker) await(ctx context.Context, cmd *cobra.Command, of string, asked time.Time) error {
	out, seen := cmd.OutOrStdout(), map[string]string{}
	for {
		var s admin.Status
		if err := a.ask(ctx, "status", map[string]string{"of": of}, &s); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
		if err := a.printChanges(out, s, seen); err != nil {
			return err
		}
		moving := unsettled(s, asked)
		if len(moving) == 0 {
			if slices.ContainsFunc(s.Assignments, func(x admin.Assignment) bool { return x.State != "converged" }) {
				return errNotRotated
			}
			if a.output != "json" {
				fmt.Fprintf(out, "%s  %s served as wanted\n", stamp(time.Now()), counted(len(s.Assignments), "certificate is", "certificates are"))
			}
			return nil
		}
		if !sleep(ctx, waitEvery) {
			return fmt.Errorf("%w: %s", context.Cause(ctx), listed(moving))
		}
	}
}

// unsettled names what has not come to rest.
func unsettled(s admin.Status, asked time.Time) (names []string) {
	for _, x := range s.Assignments {
		if x.Answered.Before(asked) || !slices.Contains(settledStates, x.State) {
			names = append(names, x.Policy+"/"+x.Certificate+" is "+strings.TrimSpace(x.State+" "+x.Reason))
		}
	}
	return names
}
