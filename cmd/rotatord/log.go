package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/lmittmann/tint"
	"golang.org/x/term"

	"github.com/rotatord/rotatord/internal/policy"
)

// newLogger makes the logger: coloured text on a terminal, lines with a priority for the
// systemd journal, JSON otherwise. Flags win over the configuration. The level can be changed
// while it is in use.
func newLogger(w io.Writer, g *globals, c policy.Log) (*slog.Logger, *slog.LevelVar, error) {
	level, format := c.Level, c.Format
	if g.logLevel != "" {
		level = g.logLevel
	}
	if g.logFormat != "" {
		format = g.logFormat
	}
	var l slog.LevelVar
	if !slices.Contains(policy.LogLevels, level) || l.UnmarshalText([]byte(level)) != nil {
		return nil, nil, usageError{fmt.Errorf("log level %q is not one of %s", level, strings.Join(policy.LogLevels, ", "))}
	}
	if !slices.Contains(policy.LogFormats, format) {
		return nil, nil, usageError{fmt.Errorf("log format %q is not one of %s", format, strings.Join(policy.LogFormats, ", "))}
	}
	terminal := isTerminal(w)
	if format == "auto" && isJournal(w, os.Getenv("JOURNAL_STREAM")) {
		return slog.New(newJournalHandler(w, &l)), &l, nil
	}
	if format == "json" || format == "auto" && !terminal {
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: &l})), &l, nil
	}
	return slog.New(tint.NewTextHandler(w, &tint.Options{Level: &l, TimeFormat: time.TimeOnly, NoColor: !terminal || os.Getenv("NO_COLOR") != ""})), &l, nil
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
