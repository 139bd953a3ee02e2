package file

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
)

const (
	opReload = "reload service"
	// maxOutput is how much of a command's output is logged, maxCaptured how much is
	// looked at for it.
	maxOutput   = 4 << 10
	maxCaptured = 64 << 10
	// outputDelay is how long a command's output is waited for once it has ended: a
	// daemon that it started may hold it open for ever.
	outputDelay = 500 * time.Millisecond
)

func (t *Target) runReload(ctx context.Context, id certs.Fingerprint) error {
	if !t.reload.wanted() {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, t.reload.Timeout)
	defer cancel()
	begun := time.Now()
	var err error
	if t.reload.Unit != "" {
		err = t.reloadUnit(limited, t.reload.Unit)
	} else {
		err = t.runCommand(limited, id)
	}
	if err != nil {
		e := fail(providers.KindUnavailable, opReload, "the files are switched, but the service was not told")
		e.Err = err
		switch {
		case ctx.Err() != nil:
			e.Err = errors.Join(ctx.Err(), err)
		case limited.Err() != nil:
			e.Message += " within " + t.reload.Timeout.String()
		}
		return e
	}
	t.log.InfoContext(ctx, "service reloaded", "unit", t.reload.Unit, "took", time.Since(begun).Round(time.Millisecond))
	return nil
}

// reloadUnit asks systemd, and waits for the end of the job.
func reloadUnit(ctx context.Context, unit string) error {
	conn, err := dbus.NewWithContext(ctx)
	if err != nil {
		return errors.Join(errors.New("systemd cannot be reached"), err)
	}
	defer conn.Close()
	done := make(chan string, 1)
	if _, err := conn.ReloadOrTryRestartUnitContext(ctx, unit, "replace", done); err != nil {
		return err
	}
	select {
	case result := <-done:
		if result != "done" {
			return errors.New("systemd: the job for " + unit + " ended as " + result)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// runCommand runs the command in a process group of its own, which is killed as a
// whole when the time is over.
func (t *Target) runCommand(ctx context.Context, id certs.Fingerprint) error {
	var out capture
	cmd := exec.CommandContext(ctx, t.reload.Command[0], t.reload.Command[1:]...) //nolint:gosec // running what the operator names is the job
	cmd.Dir = "/"
	cmd.Env = environment(t.directory, id)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = outputDelay
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it ended well; what it left running keeps the output open
	}
	text := redact(out.bytes())
	if text != "" {
		t.log.InfoContext(ctx, "output of the reload command", "command", t.reload.Command[0], "output", text)
	}
	if err == nil {
		return nil
	}
	if last := lastLine(text); last != "" {
		return errors.Join(err, errors.New(t.reload.Command[0]+": "+last))
	}
	return err
}

// environment is small on purpose: the daemon's own may hold credentials.
func environment(directory string, id certs.Fingerprint) []string {
	env := []string{
		"ROTATORD_DIRECTORY=" + directory, "ROTATORD_FINGERPRINT=" + id.String(),
		"LC_ALL=C.UTF-8", "HOME=/",
	}
	if p := os.Getenv("PATH"); p != "" {
		return append(env, "PATH="+p)
	}
	return append(env, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
}

// capture keeps the beginning of what is written to it.
type capture struct {
	mu   sync.Mutex
	data []byte
}

func (c *capture) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.data = append(c.data, p[:min(len(p), maxCaptured-len(c.data))]...)
	return len(p), nil
}

func (c *capture) bytes() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Clone(c.data)
}

var (
	// pemText is a block, or what is there of one.
	pemText = regexp.MustCompile(`(?s)-----BEGIN.*?(-----END[^\n]*|$)`)
	// encoded is anything that could be a piece of one.
	encoded = regexp.MustCompile(`[A-Za-z0-9+/=_\\-]{40,}`)
)

// redact cuts whatever might be a key out of a command's output, and what is not
// printable; then it is shortened.
func redact(data []byte) string {
	text := pemText.ReplaceAllString(string(data), "[cut]")
	if i := strings.LastIndex(text, "-----END"); i >= 0 { // its beginning was not written
		text = "[cut]" + text[i+len("-----END"):]
	}
	text = encoded.ReplaceAllString(text, "[cut]")
	text = strings.ToValidUTF8(text, "?")
	text = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f {
			return '?'
		}
		return r
	}, text))
	if len(text) > maxOutput {
		const more = "\n[more was cut]"
		text = strings.ToValidUTF8(text[:maxOutput-len(more)], "") + more
	}
	return text
}

// lastLine is what a failed command said last, which mostly is why.
func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	last := strings.TrimSpace(lines[len(lines)-1])
	return strings.ToValidUTF8(last[:min(len(last), 256)], "")
}
