package file

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
)

// A reload that fails twice: the bundle does not count as served until it worked.
func TestReloadIsRepeated(t *testing.T) {
	s := newSetup(t)
	first := s.bundle()
	s.must(s.deploy(first))
	calls := filepath.Join(t.TempDir(), "calls")
	s.cfg.Reload.Command = []string{"/bin/sh", "-c", `echo x >> "$0"; [ $(wc -l < "$0") -gt 2 ] || { echo no luck; exit 3; }`, calls}
	b := s.bundle()
	for try := 1; try <= 2; try++ {
		err := s.deploy(b)
		wantKind(t, err, providers.KindUnavailable)
		if err != nil && (!strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "no luck")) {
			t.Error(err)
		}
		s.wantUnsettled(b)
		if s.served() != b.Fingerprint() {
			t.Error("the files are not switched")
		}
	}
	s.must(s.deploy(b))
	s.wantServed(b)
	s.must(s.deploy(b))
	s.must(s.target().Activate(t.Context(), s.request(), handle(b)))
	if data, err := os.ReadFile(calls); err != nil || string(data) != "x\nx\nx\n" {
		t.Errorf("called %q, %v", data, err)
	}
	// Going back while a reload is due, and having no reload any more.
	s.cfg.Reload.Command = []string{"/bin/false"}
	c := s.bundle()
	wantKind(t, s.deploy(c), providers.KindUnavailable)
	wantKind(t, s.target().Activate(t.Context(), s.request(), handle(b)), providers.KindUnavailable)
	s.wantUnsettled(b)
	s.cfg.Reload = Reload{}
	s.must(s.deploy(b))
	s.wantServed(b)
}

func TestReloadEnvironment(t *testing.T) {
	t.Setenv("ROTATORD_TEST_SECRET", "hunter2hunter2")
	s := newSetup(t)
	out := filepath.Join(t.TempDir(), "env")
	s.cfg.Reload.Command = []string{"/bin/sh", "-c", `env > "$0"; pwd >> "$0"`, out}
	b := s.bundle()
	s.must(s.deploy(b))
	data, err := os.ReadFile(out)
	s.must(err)
	for _, want := range []string{"ROTATORD_DIRECTORY=" + s.cfg.Directory + "\n", "ROTATORD_FINGERPRINT=" + b.Fingerprint().String() + "\n"} {
		if !strings.Contains(string(data), want) {
			t.Errorf("no %s in %s", want, data)
		}
	}
	if strings.Contains(string(data), "hunter2") {
		t.Error("the daemon's environment is passed on")
	}
}

func TestHangingCommandIsKilled(t *testing.T) {
	s := newSetup(t)
	pids := filepath.Join(t.TempDir(), "pids")
	s.cfg.Reload = Reload{Timeout: 300 * time.Millisecond, Command: []string{
		"/bin/sh", "-c", `sleep 1000 & echo $! >> "$0"; sh -c 'sleep 1000 & echo $! >> "$0"; wait' "$0" & echo $$ >> "$0"; trap "" TERM; wait`, pids,
	}}
	begun := time.Now()
	err := s.deploy(s.bundle())
	wantKind(t, err, providers.KindUnavailable)
	if err != nil && !strings.Contains(err.Error(), "300ms") {
		t.Error(err)
	}
	if d := time.Since(begun); d > 10*time.Second {
		t.Errorf("took %s", d)
	}
	data, err := os.ReadFile(pids)
	s.must(err)
	fields := strings.Fields(string(data))
	if len(fields) != 3 {
		t.Fatalf("%d processes", len(fields))
	}
	for _, f := range fields {
		pid, err := strconv.Atoi(f)
		s.must(err)
		for i := 0; alive(pid); i++ {
			if i == 200 {
				t.Fatalf("process %d lives", pid)
			}
			<-time.After(10 * time.Millisecond)
		}
	}
}

// alive tells zombies, which nobody here can bury, from the living.
func alive(pid int) bool {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !strings.Contains(string(data), ") Z ")
}

func TestReloadEndsWithTheDaemon(t *testing.T) {
	s := newSetup(t)
	b := s.bundle()
	_, err := s.target().Stage(t.Context(), s.request(), b)
	s.must(err)
	s.cfg.Reload.Command = []string{"/bin/sleep", "1000"}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	err = s.target().Activate(ctx, s.request(), handle(b))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	s.wantUnsettled(b)
}

// A command that leaves a daemon behind, which holds the output open, has succeeded.
func TestCommandThatStartsADaemon(t *testing.T) {
	s := newSetup(t)
	pid := filepath.Join(t.TempDir(), "pid")
	s.cfg.Reload.Command = []string{"/bin/sh", "-c", `sleep 1000 & echo $! > "$0"`, pid}
	begun := time.Now()
	s.must(s.deploy(s.bundle()))
	if d := time.Since(begun); d > 10*time.Second {
		t.Errorf("took %s", d)
	}
	data, err := os.ReadFile(pid)
	s.must(err)
	n, err := strconv.Atoi(strings.TrimSpace(string(data)))
	s.must(err)
	if !alive(n) {
		t.Error("the daemon was killed")
	}
	s.must(syscall.Kill(n, syscall.SIGKILL))
}

func TestRedact(t *testing.T) {
	s := newSetup(t)
	pemKey, err := s.bundle().Key.PEM(certs.PKCS8)
	s.must(err)
	text := string(pemKey)
	body := strings.Split(strings.TrimSpace(text), "\n")
	for name, in := range map[string]string{
		"whole":      "before\n" + text + "after",
		"no end":     "before\n" + strings.Join(body[:len(body)-1], "\n"),
		"no begin":   strings.Join(body[1:], "\n") + "\nafter",
		"one line":   "key: " + strings.Join(body, `\n`),
		"body only":  "key: " + body[1],
		"many":       strings.Repeat(text, 300),
		"far behind": strings.Repeat("x y ", maxCaptured/4-5) + text,
	} {
		var c capture
		for len(in) > 0 { // as pipes do
			n := min(len(in), 1000)
			if _, err := c.Write([]byte(in[:n])); err != nil {
				t.Fatal(err)
			}
			in = in[n:]
		}
		out := redact(c.bytes())
		if len(out) > maxOutput {
			t.Errorf("%s: %d bytes", name, len(out))
		}
		for _, line := range body[1 : len(body)-1] {
			for i := 0; i+12 <= len(line); i += 6 {
				if strings.Contains(out, line[i:i+12]) {
					t.Fatalf("%s: %q", name, out)
				}
			}
		}
	}
	if got := redact([]byte("nginx: [emerg] bind() to 0.0.0.0:443 failed\x1b[0m\n")); got != "nginx: [emerg] bind() to 0.0.0.0:443 failed?[0m" {
		t.Errorf("%q", got)
	}
}

// No byte of a key in a log line or an error, whatever goes wrong.
func TestKeysStayPut(t *testing.T) {
	s := newSetup(t)
	s.cfg.Combined, s.cfg.PKCS12 = "all.pem", "site.p12"
	s.cfg.PKCS12Password = func() (string, error) { return "pw-only-for-tests", nil }
	s.cfg.Reload.Command = []string{"/bin/sh", "-c", `cat "$ROTATORD_DIRECTORY"/privkey.pem "$ROTATORD_DIRECTORY"/all.pem; tail -2 "$ROTATORD_DIRECTORY"/privkey.pem; exit 1`}
	var all []*certs.Bundle
	var texts strings.Builder
	note := func(err error) {
		if err != nil {
			texts.WriteString(err.Error() + "\n")
		}
	}
	for range 3 {
		b := s.bundle()
		all = append(all, b)
		note(s.deploy(b))
		s.truncate("privkey.pem")
		note(s.target().Activate(t.Context(), s.request(), handle(b)))
		s.editThrough(all[0])
		note(s.deploy(b))
		for _, what := range []string{"write", "rename", "sync", "chmod", "mkdir"} {
			s.step = func(step string) error {
				if strings.HasPrefix(step, what) {
					return &os.PathError{Op: what, Path: step, Err: syscall.EIO}
				}
				return nil
			}
			note(s.deploy(s.bundle()))
			s.step = nil
		}
	}
	texts.WriteString(s.logs.String())
	if !strings.Contains(texts.String(), "[cut]") || !strings.Contains(texts.String(), "exit status 1") {
		t.Error("the command's output is not there at all")
	}
	for _, b := range all {
		key, err := b.Key.PEM(certs.PKCS8)
		s.must(err)
		lines := strings.Split(strings.TrimSpace(string(key)), "\n")
		for _, line := range lines[1 : len(lines)-1] {
			for i := 0; i+12 <= len(line); i += 4 {
				if strings.Contains(texts.String(), line[i:i+12]) {
					t.Fatalf("part of a key: %s", line[i:i+12])
				}
			}
		}
	}
	if strings.Contains(texts.String(), "pw-only-for-tests") {
		t.Error("the password")
	}
}
