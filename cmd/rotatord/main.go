// Command rotatord notices new certificates, puts them where policies say they must be
// served, and proves that they are.
//
// This package holds one file per command and wire.go, the single place where a policy's
// kinds meet the adapters that know them. It may import every room; nothing imports it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	_ "time/tzdata" // windows have time zones, and a container may have no database of them

	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/internal/policy"
)

// version and revision, of the repository, are set by the linker for a release.
var version, revision = "", ""

// Exit codes, part of the outside interface.
const (
	exitOK        = 0
	exitFailed    = 1
	exitChanges   = 2  // a plan has changes
	exitUsage     = 64 // EX_USAGE
	exitBadConfig = 78 // EX_CONFIG: systemd must not restart on it
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program without its process: it returns the exit code. SIGINT and SIGTERM
// ask for a graceful stop; a second one ends the process at once.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	ctx, stop := untilSignal(ctx)
	defer stop()
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if child, ok := errors.AsType[ended](err); ok {
		return child.code
	}
	if !errors.Is(err, errPlanChanges) {
		fmt.Fprintln(stderr, "rotatord: "+printableLines(err.Error()))
	}
	return exitCode(err)
}

// untilSignal ends the context at the first signal. By then the default handling is back
// already, so that whoever sees the graceful stop begin can end it with a second one.
// (signal.NotifyContext ends the context first.)
func untilSignal(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case s := <-signals:
			signal.Stop(signals)
			cancel(fmt.Errorf("signal: %s", s))
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		cancel(nil)
	}
}

// usageError marks a mistake on the command line.
type usageError struct{ error }

// exitCode says how the process ends for an error.
func exitCode(err error) int {
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	if errors.Is(err, errPlanChanges) {
		return exitChanges
	}
	if _, ok := errors.AsType[policy.Problems](err); ok {
		return exitBadConfig
	}
	if _, ok := errors.AsType[unitError](err); ok {
		return exitBadConfig
	}
	return exitFailed
}

// globals are the flags that every command has.
type globals struct {
	config    string
	logLevel  string
	logFormat string
}

func newRoot() *cobra.Command {
	g := &globals{}
	root := &cobra.Command{
		Use:           "rotatord",
		Short:         "Certificate rotation daemon",
		Long:          "rotatord notices new certificates, deploys them where policies say, and proves that they are served.",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("there is no command %q; rotatord --help lists them", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.DisableAutoGenTag = true // the pages' date is enough
	flags := root.PersistentFlags()
	flags.StringVar(&g.config, "config", envOr("ROTATORD_CONFIG", "/etc/rotatord/rotatord.yaml"), "configuration file")
	flags.StringVar(&g.logLevel, "log.level", os.Getenv("ROTATORD_LOG_LEVEL"), "debug, info, warn or error (default from the configuration)")
	flags.StringVar(&g.logFormat, "log.format", os.Getenv("ROTATORD_LOG_FORMAT"), "auto, text or json (default from the configuration)")
	root.AddGroup(&cobra.Group{ID: "daemon", Title: "The daemon:"}, &cobra.Group{ID: "ask", Title: "Ask and tell the running daemon:"}, &cobra.Group{ID: "files", Title: "Files:"})
	for group, commands := range map[string][]*cobra.Command{
		"daemon": {newRunCommand(g), newDemoCommand(g), newSimulateCommand(g)},
		"ask": {newStatusCommand(g), newPlanCommand(g), newExplainCommand(g), newRotateCommand(g), newPauseCommand(g), newResumeCommand(g),
			newHistoryCommand(g), newReloadCommand(g), newLogLevelCommand(g)},
		"files": {newCheckCommand(g), newInspectCommand(), newSchemaCommand()},
		"":      {newVersionCommand(), newManCommand()},
	} {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	return root
}

func envOr(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// noArguments and exactly are cobra's, with our exit code for a mistake.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s takes no arguments, and got %q", cmd.CommandPath(), args[0])}
	}
	return nil
}

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "rotatord", versionText())
			return err
		},
	}
}

// versionText is the release's version, or what the build knows of itself.
func versionText() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "development"
}
