package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/internal/admin"
	"github.com/rotatord/rotatord/internal/policy"
)

func newLogLevelCommand(g *globals) *cobra.Command {
	a := &asker{globals: g}
	known := strings.Join(policy.LogLevels, ", ")
	cmd := a.command("log-level LEVEL", "Have the daemon log more or less, from now on",
		"Log-level changes what the running daemon logs, until it is asked for another level, reads its configuration again\n"+
			"(unless a flag set the level) or is started anew. LEVEL is one of "+known+".",
		func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || !slices.Contains(policy.LogLevels, args[0]) {
				return usageError{fmt.Errorf("log-level takes one of %s", known)}
			}
			return nil
		}, func(cmd *cobra.Command, args []string) error {
			var is admin.LogLevel
			if err := a.tell(cmd.Context(), "log-level", admin.LogLevel{Level: args[0]}, &is); err != nil {
				return err
			}
			return a.print(cmd, is, func() error {
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "the log's level is %s; it was %s\n", is.Level, is.Before)
				return err
			})
		})
	cmd.ValidArgs, cmd.ValidArgsFunction = policy.LogLevels, nil
	return cmd
}

// askLogLevel changes what is logged.
func (d *daemon) askLogLevel(_ context.Context, by admin.Actor, request []byte) (any, error) {
	var wish admin.LogLevel
	if err := admin.Decode(request, &wish); err != nil {
		return nil, err
	}
	var level slog.Level
	if !slices.Contains(policy.LogLevels, wish.Level) || level.UnmarshalText([]byte(wish.Level)) != nil {
		return nil, admin.Refuse("%q is no level; there are %s", wish.Level, strings.Join(policy.LogLevels, ", "))
	}
	if d.logLevel == nil {
		return nil, admin.Refuse("this daemon does not log by itself")
	}
	before := d.logLevel.Level()
	d.logLevel.Set(min(before, level, slog.LevelInfo)) // who reads the log is to know, whatever it shows then
	d.log.Info("log level changed", "by", by, "level_now", wish.Level, "level_before", strings.ToLower(before.String()))
	d.logLevel.Set(level)
	return admin.LogLevel{Level: wish.Level, Before: strings.ToLower(before.String())}, nil
}
