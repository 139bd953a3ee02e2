package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rotatord/rotatord/internal/policy"
)

// streamOf is what systemd would put into $JOURNAL_STREAM for a file.
func streamOf(t *testing.T, f *os.File) string {
	t.Helper()
	var stat unix.Stat_t
	must(t, unix.Fstat(int(f.Fd()), &stat))
	return fmt.Sprintf("%d:%d", stat.Dev, stat.Ino)
}

// TestLogForTheJournal writes to a socket of which the environment says that it is the
// journal's, and to others.
func TestLogForTheJournal(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	must(t, err)
	journal, reader := os.NewFile(uintptr(pair[0]), "journal"), os.NewFile(uintptr(pair[1]), "reader")
	defer journal.Close()
	defer reader.Close()
	read := func() string {
		t.Helper()
		line := make([]byte, 4096)
		n, err := reader.Read(line)
		must(t, err)
		return string(line[:n])
	}
	t.Setenv("JOURNAL_STREAM", streamOf(t, journal))
	log, level, err := newLogger(journal, &globals{}, policy.Log{Level: "info", Format: "auto"})
	must(t, err)
	log.Debug("not wanted")
	with := log.With("policy", "shop")
	with.Info("a step\nin two lines", "reason", "first\nsecond", "n", 3)
	with.WithGroup("of").Warn("watch it", "err", errors.New("refused"))
	log.Error("lost", "path", "/with a space")
	level.Set(slog.LevelDebug)
	log.Debug("wanted now")
	for _, want := range []string{
		`<6>a step\nin two lines policy=shop reason="first\nsecond" n=3` + "\n",
		"<4>watch it policy=shop of.err=refused\n",
		`<3>lost path="/with a space"` + "\n",
		"<7>wanted now\n",
	} {
		if got := read(); got != want {
			t.Errorf("the journal got %q, want %q", got, want)
		}
	}

	other, err := os.Create(filepath.Join(t.TempDir(), "log"))
	must(t, err)
	defer other.Close()
	for name, c := range map[string]struct {
		to     *os.File
		format string
		stream string
	}{
		"standard error goes elsewhere": {other, "auto", streamOf(t, journal)},
		"JSON is asked for":             {journal, "json", streamOf(t, journal)},
		"no journal":                    {journal, "auto", ""},
		"another stream":                {journal, "auto", "1:2"},
	} {
		t.Setenv("JOURNAL_STREAM", c.stream)
		log, _, err := newLogger(c.to, &globals{}, policy.Log{Level: "info", Format: c.format})
		must(t, err)
		log.Info("hello")
		var got []byte
		if c.to == other {
			got, err = os.ReadFile(other.Name())
			must(t, err)
		} else {
			got = []byte(read())
		}
		if !bytes.HasPrefix(got, []byte(`{"time":`)) {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// logCall is one line that the source can log.
type logCall struct {
	at, message string
	keys        []string
}

// logCalls reads the source: all calls of a logger, with their messages and keys. The
// simulator is another program in the same binary.
func logCalls(t *testing.T) (calls []logCall) {
	t.Helper()
	files := token.NewFileSet()
	for _, root := range []string{"../../internal", "."} {
		must(t, filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || strings.Contains(path, "cloudsim") || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok {
					if c, ok := logCallOf(t, call); ok {
						c.at = files.Position(call.Pos()).String()
						calls = append(calls, c)
					}
				}
				return true
			})
			return nil
		}))
	}
	return calls
}

var (
	loggerName = regexp.MustCompile(`(?i)^(.*\.)?(log|logger)$`)
	// beforeKeys is how many arguments of a logger's method come before the keys.
	beforeKeys = map[string]int{
		"With": 0, "Debug": 1, "Info": 1, "Warn": 1, "Error": 1,
		"DebugContext": 2, "InfoContext": 2, "WarnContext": 2, "ErrorContext": 2, "Log": 3, "LogAttrs": 3,
	}
)

func logCallOf(t *testing.T, call *ast.CallExpr) (c logCall, ok bool) {
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return c, false
	}
	before, known := beforeKeys[method.Sel.Name]
	if !known || !loggerName.MatchString(writtenName(method.X)) || len(call.Args) < before {
		return c, false
	}
	if before > 0 {
		c.message = literal(call.Args[before-1])
	}
	for args := call.Args[before:]; len(args) > 0; {
		key, size := args[0], 2
		if attr, isAttr := args[0].(*ast.CallExpr); isAttr { // slog.String("key", value)
			key, size = attr.Args[0], 1
		}
		name := literal(key)
		if name == "" {
			t.Errorf("a key of %q is no literal", c.message)
		}
		c.keys = append(c.keys, name)
		args = args[min(size, len(args)):]
	}
	return c, true
}

// writtenName is how an expression is written, as far as it is names and dots.
func writtenName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return writtenName(e.X) + "." + e.Sel.Name
	}
	return ""
}

// literal is a string in the source; of a sum, its first part; empty for anything else.
func literal(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, _ := strconv.Unquote(e.Value)
		return text
	case *ast.BinaryExpr:
		return literal(e.X)
	}
	return ""
}

// TestKeysOfTheLog holds docs/logs.md against the source: every key that is logged is in its
// table, and every key and message of its tables can be logged.
func TestKeysOfTheLog(t *testing.T) {
	page, err := os.ReadFile("../../docs/logs.md")
	must(t, err)
	listed := func(heading string) (cells []string) {
		_, section, _ := strings.Cut(string(page), "\n## "+heading+"\n")
		section, _, _ = strings.Cut(section, "\n## ")
		for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)`").FindAllStringSubmatch(section, -1) {
			cells = append(cells, row[1])
		}
		return cells
	}
	keys, messages := listed("Keys"), listed("Messages")
	calls := logCalls(t)
	if len(calls) < 60 || len(keys) < 30 || len(messages) < 20 {
		t.Fatalf("%d calls, %d keys, %d messages: the test looks at the wrong thing", len(calls), len(keys), len(messages))
	}
	used := map[string]bool{}
	for _, c := range calls {
		for _, key := range c.keys {
			used[key] = true
			if !slices.Contains(keys, key) {
				t.Errorf("%s: the key %s of %q is not in docs/logs.md", c.at, key, c.message)
			}
		}
	}
	for _, key := range keys {
		if !used[key] {
			t.Errorf("docs/logs.md has the key %s, which nothing logs", key)
		}
	}
	for _, message := range messages {
		if !slices.ContainsFunc(calls, func(c logCall) bool { return c.message != "" && strings.HasPrefix(message, c.message) }) {
			t.Errorf("docs/logs.md has the message %q, which nothing logs", message)
		}
	}
	if !slices.IsSorted(keys) {
		t.Error("the keys of docs/logs.md are not sorted")
	}
}

// TestTryingAgain: a part of the daemon that cannot work is told of at once, when the reason
// changes, hourly, and anew after it worked for a while.
func TestTryingAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines bytes.Buffer
		d := &daemon{log: slog.New(slog.NewTextHandler(&lines, nil))}
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Hour)
		defer cancel()
		began := time.Now()
		err := d.persist(ctx, "work", func(ctx context.Context) error {
			switch at := time.Since(began); {
			case at < 150*time.Minute:
				return errors.New("refused")
			case at < 180*time.Minute:
				return errors.New("timed out")
			case at < 182*time.Minute:
				time.Sleep(10 * time.Minute)
				return errors.New("timed out")
			}
			<-ctx.Done()
			return ctx.Err()
		})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		var told []string
		for line := range strings.Lines(lines.String()) {
			_, rest, _ := strings.Cut(strings.TrimSpace(line), "what=work ")
			told = append(told, rest)
		}
		want := []string{"times=1 err=refused", "times=1801 err=refused", "times=3601 err=refused", `times=1 err="timed out"`, `times=1 err="timed out"`}
		if !slices.Equal(told, want) {
			t.Errorf("told %q", told)
		}
	})
}
