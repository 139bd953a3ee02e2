package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/internal/policy"
)

func newRunCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Run the daemon",
		Long: "Run watches, rotates and proves until it is told to stop by SIGTERM or SIGINT; it then finishes the steps in\n" +
			"flight. A second signal ends it at once, which is safe. Exit code 78 means that the configuration is bad.",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return runDaemon(cmd.Context(), cmd, g) },
	}
}

func runDaemon(ctx context.Context, cmd *cobra.Command, g *globals) error {
	set, err := policy.Load(g.config, os.Getenv)
	if err != nil {
		return err
	}
	log, level, err := newLogger(cmd.ErrOrStderr(), g, set.Config.Log)
	if err != nil {
		return err
	}
	d, err := newDaemon(set, log)
	if err != nil {
		return err
	}
	if d.configFile, err = configuredFile(g.config); err != nil {
		return err
	}
	if g.logLevel == "" {
		d.logLevel = level
	}
	stop := onHangup(func() { d.reload(ctx, "SIGHUP") })
	defer stop()
	return d.Run(ctx)
}

// onHangup calls f at each SIGHUP, one call at a time, until stop.
func onHangup(f func()) (stop func()) {
	signals, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(signals, syscall.SIGHUP)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-signals:
				f()
			case <-done:
				return
			}
		}
	})
	return func() {
		signal.Stop(signals)
		close(done)
		wg.Wait()
	}
}
