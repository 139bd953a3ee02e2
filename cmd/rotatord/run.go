package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/internal/policy"
)

func newRunCommand(g *globals) *cobra.Command {
	profiles := false
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the daemon",
		Long: "Run watches, rotates and proves until it is told to stop by SIGTERM or SIGINT; it then finishes the steps in\n" +
			"flight. A second signal ends it at once, which is safe. Exit code 78 means that the configuration is bad.",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return runDaemon(cmd.Context(), cmd, g, profiles) },
	}
	cmd.Flags().BoolVar(&profiles, "pprof", false, "serve profiles of the process on the control socket, below /debug/pprof/")
	return cmd
}

func runDaemon(ctx context.Context, cmd *cobra.Command, g *globals, profiles bool) (err error) {
	notify, err := newNotifier()
	if err != nil {
		return err
	}
	defer func() { notify.ends(err) }()
	http, err := inheritedListener()
	if err != nil {
		return err
	}
	set, err := policy.Load(g.config, os.Getenv)
	if err != nil {
		return err
	}
	log, level, err := newLogger(cmd.ErrOrStderr(), g, set.Config.Log)
	if err != nil {
		return err
	}
	tellProblems(set, log)
	d, err := newDaemonOn(set, log, http)
	if err != nil {
		return err
	}
	d.profiles = profiles
	if notify != nil {
		notify.log, d.notify = log, notify
	}
	if http != nil {
		log.Info("systemd has bound the HTTP listener; http.listen is not used", "http", d.http.Addr())
	}
	if d.configFile, err = configuredFile(g.config); err != nil {
		return err
	}
	d.logLevel, d.levelFlag = level, g.logLevel != ""
	stop := onHangup(func() { d.reload(ctx, "SIGHUP", "") })
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

// tellProblems says what the policies cannot keep. Nothing of it keeps the daemon from
// doing the rest.
func tellProblems(set *policy.Set, log *slog.Logger) {
	for _, p := range set.Prove(time.Now(), &policy.Pointer{}) {
		log.Warn("a policy promises what it cannot keep; rotatord check tells more", "path", p.File, "line", p.Line, "reason", p.Message)
	}
}
