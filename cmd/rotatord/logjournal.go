package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/lmittmann/tint"
	"golang.org/x/sys/unix"
)

// isJournal reports whether what is written to w goes to the systemd journal: it is the
// stream that systemd told of, as device:inode in $JOURNAL_STREAM. A unit may send its
// standard error elsewhere all the same, which is why the two are compared.
func isJournal(w io.Writer, stream string) bool {
	f, ok := w.(*os.File)
	if !ok || stream == "" {
		return false
	}
	var stat unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
		return false
	}
	return stream == fmt.Sprintf("%d:%d", stat.Dev, stat.Ino)
}

// priorities are the levels with what the journal calls them, and how sd-daemon(3) wants a
// line to begin.
var priorities = []struct {
	level  slog.Level
	prefix string
}{{slog.LevelError, "<3>"}, {slog.LevelWarn, "<4>"}, {slog.LevelInfo, "<6>"}, {slog.LevelDebug, "<7>"}}

// journalHandler writes a line for the journal: its priority, the message and the attributes.
// The journal itself knows the time.
type journalHandler struct {
	// handlers write to the same place, each with another priority.
	handlers []slog.Handler
	level    slog.Leveler
}

func newJournalHandler(w io.Writer, level slog.Leveler) *journalHandler {
	h := &journalHandler{level: level}
	for _, p := range priorities {
		h.handlers = append(h.handlers, tint.NewTextHandler(prefixed{w, p.prefix}, &tint.Options{
			Level: slog.LevelDebug, NoColor: true,
			ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
				if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
					return slog.Attr{}
				}
				return a
			},
		}))
	}
	return h
}

// Enabled implements slog.Handler.
func (h *journalHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

// Handle implements slog.Handler.
func (h *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	for i, p := range priorities {
		if r.Level >= p.level || i == len(priorities)-1 {
			return h.handlers[i].Handle(ctx, r)
		}
	}
	return nil
}

// WithAttrs implements slog.Handler.
func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.each(func(of slog.Handler) slog.Handler { return of.WithAttrs(attrs) })
}

// WithGroup implements slog.Handler.
func (h *journalHandler) WithGroup(name string) slog.Handler {
	return h.each(func(of slog.Handler) slog.Handler { return of.WithGroup(name) })
}

func (h *journalHandler) each(f func(slog.Handler) slog.Handler) slog.Handler {
	next := &journalHandler{level: h.level}
	for _, of := range h.handlers {
		next.handlers = append(next.handlers, f(of))
	}
	return next
}

// prefixed puts a priority before each record, and keeps the record in one line: what follows
// a line break would be another record, of another priority.
type prefixed struct {
	w      io.Writer
	prefix string
}

// Write implements io.Writer; it gets one record at a time.
func (p prefixed) Write(record []byte) (int, error) {
	text := bytes.ReplaceAll(bytes.TrimSpace(record), []byte("\n"), []byte(`\n`))
	line := append(append([]byte(p.prefix), text...), '\n')
	if _, err := p.w.Write(line); err != nil {
		return 0, err
	}
	return len(record), nil
}
