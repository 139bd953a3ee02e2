package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/internal/admin"
	"github.com/rotatord/rotatord/internal/policy"
)

// This file holds the commands that ask a running daemon, or tell it what to do.

// asker is what these commands have in common.
type asker struct {
	globals *globals
	socket  string
	output  string
}

// command makes a command that asks; use has an optional or needed argument.
func (a *asker) command(use, short, long string, args cobra.PositionalArgs, run func(cmd *cobra.Command, args []string) error) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Args: args, RunE: run, ValidArgsFunction: a.complete}
	cmd.Flags().StringVar(&a.socket, "socket", os.Getenv("ROTATORD_SOCKET"), "control socket (default from the configuration)")
	addOutputFlag(cmd, &a.output)
	return cmd
}

// client finds the daemon.
func (a *asker) client() (*admin.Client, error) {
	if a.socket != "" {
		return admin.NewClient(a.socket), nil
	}
	path, err := policy.Socket(a.globals.config, os.Getenv)
	if err != nil {
		return nil, fmt.Errorf("find the control socket (or name it with --socket): %w", err)
	}
	return admin.NewClient(path), nil
}

// ask reads something over the socket.
func (a *asker) ask(ctx context.Context, verb string, fields map[string]string, into any) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	return a.fit(into, c.Ask(ctx, verb, fields, into))
}

// tell has something done over the socket.
func (a *asker) tell(ctx context.Context, verb string, request, into any) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	return a.fit(into, c.Tell(ctx, verb, request, into))
}

// fit makes an answer fit for a terminal, unless it is to be JSON.
func (a *asker) fit(answer any, err error) error {
	if err == nil && a.output != "json" {
		harmless(answer)
	}
	return err
}

// print shows an answer as JSON or as text.
func (a *asker) print(cmd *cobra.Command, answer any, text func() error) error {
	if a.output == "json" {
		return printJSON(cmd, answer)
	}
	return text()
}

// complete offers policies and assignments to the shell.
func (a *asker) complete(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), time.Second)
	defer cancel()
	var s admin.Status
	if len(args) > 0 || a.ask(ctx, "status", nil, &s) != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, p := range s.Policies {
		names = append(names, p.Name)
	}
	if strings.Contains(typed, "/") {
		names = nil
		for _, x := range s.Assignments {
			names = append(names, x.Policy+"/"+x.Certificate)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func atMostOne(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usageError{fmt.Errorf("%s takes one POLICY or POLICY/CERTIFICATE, and got %q", cmd.CommandPath(), args)}
	}
	return wellFormed(first(args))
}

func exactlyOne(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageError{fmt.Errorf("%s takes one POLICY or POLICY/CERTIFICATE, and got %d arguments", cmd.CommandPath(), len(args))}
	}
	return wellFormed(args[0])
}

func wellFormed(of string) error {
	if _, err := parseSelection(of); err != nil {
		return usageError{err}
	}
	return nil
}

func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

// errPlanChanges ends a plan with changes in it: exit code 2.
var errPlanChanges = errors.New("")

// errNotPlanned ends a plan that has gaps; where, and why, was printed.
var errNotPlanned = errors.New("not everything could be planned")

func newPlanCommand(g *globals) *cobra.Command {
	a := &asker{globals: g}
	var offline bool
	cmd := a.command("plan [POLICY[/CERTIFICATE]]", "Show what would be done now, and why not yet",
		"Plan looks at sources, journal and targets and shows the steps that the daemon would take now, with what waits for\n"+
			"what until when, how far the changes reach, and what guard and brake say. It changes nothing. The running daemon\n"+
			"is asked; if none runs, or with --offline, everything is read from here. Exit code 2 if there are changes.",
		atMostOne, func(cmd *cobra.Command, args []string) error {
			var p admin.Plan
			err := a.onlineOr(cmd.Context(), offline, func(ctx context.Context) error {
				return a.ask(ctx, "plan", map[string]string{"of": first(args)}, &p)
			}, func(ctx context.Context, d *daemon, notes []string) error {
				only, err := parseSelection(first(args))
				if err != nil {
					return err
				}
				p, err = d.plan(ctx, only)
				p.Notes = append(p.Notes, notes...)
				return a.fit(&p, err)
			})
			if err != nil {
				return err
			}
			if err := a.print(cmd, p, func() error { return printPlan(cmd.OutOrStdout(), p, time.Now()) }); err != nil {
				return err
			}
			switch {
			case slices.ContainsFunc(p.Assignments, func(x admin.PlannedAssignment) bool { return x.Error != "" }):
				return errNotPlanned
			case p.Changes.Assignments > 0:
				return errPlanChanges
			}
			return nil
		})
	cmd.Flags().BoolVar(&offline, "offline", false, "do not ask the daemon; read disk, cloud and journal from here")
	return cmd
}

func newExplainCommand(g *globals) *cobra.Command {
	a := &asker{globals: g}
	var offline bool
	cmd := a.command("explain POLICY[/CERTIFICATE]", "Tell why an assignment is in its state, what comes next, when, and who blocks it",
		"Explain tells an assignment's story: its state and why, what was done last, what is served where, what happens\n"+
			"next and when, and who keeps it from going on. The running daemon is asked; if none runs, or with --offline,\n"+
			"everything is read from here.",
		exactlyOne, func(cmd *cobra.Command, args []string) error {
			var e admin.Explanation
			err := a.onlineOr(cmd.Context(), offline, func(ctx context.Context) error {
				return a.ask(ctx, "explain", map[string]string{"of": args[0]}, &e)
			}, func(ctx context.Context, d *daemon, notes []string) error {
				only, err := parseSelection(args[0])
				if err != nil {
					return err
				}
				id, err := d.one(only)
				if err != nil {
					return err
				}
				e, err = d.explain(ctx, id)
				e.Notes = append(e.Notes, notes...)
				return a.fit(&e, err)
			})
			if err != nil {
				return err
			}
			return a.print(cmd, e, func() error { return printExplanation(cmd.OutOrStdout(), e, time.Now()) })
		})
	cmd.Flags().BoolVar(&offline, "offline", false, "do not ask the daemon; read disk, cloud and journal from here")
	return cmd
}

// onlineOr asks the daemon, and looks from here if there is none.
func (a *asker) onlineOr(ctx context.Context, offline bool, ask func(context.Context) error, look func(context.Context, *daemon, []string) error) error {
	if !offline {
		err := ask(ctx)
		if !errors.Is(err, admin.ErrNotRunning) && !errors.Is(err, os.ErrPermission) {
			return err
		}
	}
	return withOffline(ctx, a.globals, look)
}

func newHistoryCommand(g *globals) *cobra.Command {
	a := &asker{globals: g}
	var limit int
	cmd := a.command("history [POLICY[/CERTIFICATE]]", "Show what happened, newest last",
		"History shows what was decided and done, by whom and why, as long as audit.retain says.",
		atMostOne, func(cmd *cobra.Command, args []string) error {
			var h admin.History
			if err := a.ask(cmd.Context(), "history", map[string]string{"of": first(args), "limit": fmt.Sprint(limit)}, &h); err != nil {
				return err
			}
			return a.print(cmd, h, func() error { return printHistory(cmd.OutOrStdout(), h) })
		})
	cmd.Flags().IntVarP(&limit, "limit", "n", defaultHistory, "how many of the newest entries")
	cmd.AddCommand(newVerifyCommand(g))
	return cmd
}

// errNotWhole ends a history verify that found something; what was printed.
var errNotWhole = errors.New("the history is not as it was written")

func newVerifyCommand(g *globals) *cobra.Command {
	a := &asker{globals: g}
	var all bool
	cmd := a.command("verify [POLICY[/CERTIFICATE]]", "Check that the history is whole, and as it was written",
		"Verify reads the whole history and reckons the hash of each event anew: each holds the hash of the one before it, and\n"+
			"the journal that of the last one. It finds events that were changed, added, moved or removed. The last hashes, which\n"+
			"--all shows, prove the same later on if they are kept where nobody who can write to NATS can change them.",
		atMostOne, func(cmd *cobra.Command, args []string) error {
			var v admin.Verification
			if err := a.ask(cmd.Context(), "verify", map[string]string{"of": first(args)}, &v); err != nil {
				return err
			}
			if err := a.print(cmd, v, func() error { return printVerification(cmd.OutOrStdout(), v, all) }); err != nil {
				return err
			}
			if !v.OK {
				return errNotWhole
			}
			return nil
		})
	cmd.Flags().BoolVarP(&all, "all", "a", false, "show each history with its last hash")
	return cmd
}

func newPauseCommand(g *globals) *cobra.Command {
	a := &asker{globals: g}
	var reason string
	var span time.Duration
	cmd := a.command("pause POLICY", "Hold a policy: watch and prove, change nothing",
		"Pause holds a policy on all daemons that share its NATS: it is watched, compared and measured as ever, and nothing\n"+
			"is issued, changed or removed for it until it is resumed.",
		exactlyOne, func(cmd *cobra.Command, args []string) error {
			w := admin.PauseWish{Policy: args[0], Reason: reason}
			if cmd.Flags().Changed("for") && span <= 0 {
				return usageError{fmt.Errorf("--for %s is no time to come; leave it out to pause until resume", span)}
			}
			if span != 0 {
				w.Until = time.Now().Add(span).UTC()
			}
			return a.hold(cmd, "pause", w)
		})
	cmd.Flags().StringVar(&reason, "reason", "", "why, for those who find it paused")
	cmd.Flags().Var((*spanFlag)(&span), "for", "resume by itself after this time, as in 90m or 2d (default never)")
	return cmd
}

// spanFlag is a flag whose value is written as spans of time are in policies.
type spanFlag time.Duration

// String implements pflag.Value.
func (s *spanFlag) String() string { return policy.Duration(*s).String() }

// Type implements pflag.Value.
func (s *spanFlag) Type() string { return "span" }

// Set implements pflag.Value.
func (s *spanFlag) Set(text string) error {
	d, err := policy.ParseDuration(text)
	if err == nil {
		*s = spanFlag(d)
	}
	return err
}

func newResumeCommand(g *globals) *cobra.Command {
	a := &asker{globals: g}
	return a.command("resume POLICY", "Let a paused policy go on", "Resume ends the pause of a policy and has all its certificates looked at.",
		exactlyOne, func(cmd *cobra.Command, args []string) error {
			return a.hold(cmd, "resume", admin.PauseWish{Policy: args[0]})
		})
}

func (a *asker) hold(cmd *cobra.Command, verb string, w admin.PauseWish) error {
	var p admin.Policy
	if err := a.tell(cmd.Context(), verb, w, &p); err != nil {
		return err
	}
	return a.print(cmd, p, func() error {
		text := "policy " + p.Name + " goes on"
		if p.Paused != nil {
			text = "policy " + p.Name + " is " + pauseText(p.Paused)
		}
		_, err := fmt.Fprintln(cmd.OutOrStdout(), text)
		return err
	})
}

// errReloadRefused ends a reload whose mistakes were printed.
var errReloadRefused = errors.New("nothing was changed")

func newReloadCommand(g *globals) *cobra.Command {
	a := &asker{globals: g}
	return a.command("reload", "Have the daemon read configuration and policies again, all or nothing",
		"Reload has the running daemon read its configuration and all policies again. With any mistake in them everything\n"+
			"stays as it is, and the mistakes are printed; exit code 1.",
		noArguments, func(cmd *cobra.Command, _ []string) error {
			var r admin.Reload
			if err := a.tell(cmd.Context(), "reload", struct{}{}, &r); err != nil {
				return err
			}
			if err := a.print(cmd, r, func() error { return printReload(cmd.OutOrStdout(), r) }); err != nil {
				return err
			}
			if !r.OK {
				return errReloadRefused
			}
			return nil
		})
}
