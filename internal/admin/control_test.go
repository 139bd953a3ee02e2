package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// serveControl serves a control on a socket and returns its path.
func serveControl(t *testing.T, control Control) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s.sock")
	s, err := ListenSocket(path, control, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return path
}

type echoed struct {
	By      Actor  `json:"by"`
	Request string `json:"request"`
}

func echo(_ context.Context, by Actor, request []byte) (any, error) {
	return echoed{by, string(request)}, nil
}

func TestControlAsksAndTells(t *testing.T) {
	path := serveControl(t, Control{
		"look": {Do: echo},
		"act":  {Changes: true, Do: echo},
		"refuse": {Do: func(context.Context, Actor, []byte) (any, error) {
			return nil, Refuse("it is %s", "paused")
		}},
		"unknown": {Do: func(context.Context, Actor, []byte) (any, error) {
			return nil, &Refusal{Unknown: true, Message: "there is no such policy"}
		}},
		"break": {Do: func(context.Context, Actor, []byte) (any, error) { return nil, errors.New("the disk is full") }},
	})
	c := NewClient(path)
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	var got echoed
	if err := c.Ask(t.Context(), "look", map[string]string{"of": "shop/a&b", "limit": ""}, &got); err != nil {
		t.Fatal(err)
	}
	if got.Request != `{"of":"shop/a\u0026b"}` || got.By != Actor("user "+me.Username) {
		t.Errorf("asked: %+v", got)
	}
	if err := c.Tell(t.Context(), "act", Wish{Policy: "shop", Force: true}, &got); err != nil {
		t.Fatal(err)
	}
	if got.Request != `{"policy":"shop","force":true}` {
		t.Errorf("told: %+v", got)
	}
	for verb, want := range map[string]struct {
		text    string
		unknown bool
		refusal bool
	}{"refuse": {"it is paused", false, true}, "unknown": {"there is no such policy", true, true}, "break": {"the disk is full", false, false}} {
		err := c.Ask(t.Context(), verb, nil, &got)
		refusal, refused := errors.AsType[*Refusal](err)
		if err == nil || err.Error() != want.text || refused != want.refusal || refused && refusal.Unknown != want.unknown {
			t.Errorf("%s: %v", verb, err)
		}
	}
	// What changes something is not done by a GET, and what there is not is not there.
	if err := c.Ask(t.Context(), "act", nil, &got); err == nil || !strings.Contains(err.Error(), "405") {
		t.Errorf("GET act: %v", err)
	}
	if err := c.Ask(t.Context(), "nothing", nil, &got); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("GET nothing: %v", err)
	}
	if err := c.Tell(t.Context(), "act", Wish{Reason: strings.Repeat("x", maxRequest)}, &got); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("a large request: %v", err)
	}
}

// At the end who asked already is answered, and nothing that was asked for is at work any more
// when Serve returns.
func TestServeEndsWithItsAnswers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	began, ended := make(chan struct{}), false
	s, err := ListenSocket(path, Control{"slow": {Do: func(ctx context.Context, _ Actor, _ []byte) (any, error) {
		close(began)
		<-ctx.Done()
		time.Sleep(50 * time.Millisecond)
		ended = true
		return nil, Refuse("the daemon is stopping")
	}}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done, answered := make(chan error, 1), make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	go func() { answered <- NewClient(path).Ask(t.Context(), "slow", nil, new(echoed)) }()
	<-began
	cancel()
	if err := <-done; err != nil || !ended {
		t.Errorf("served: %v; the verb ended: %v", err, ended)
	}
	if err := <-answered; err == nil || err.Error() != "the daemon is stopping" {
		t.Errorf("answered: %v", err)
	}
}

// status --watch and rotate --wait ask again and again.
func TestClientsLeaveNoConnections(t *testing.T) {
	var open sync.Map
	path := filepath.Join(t.TempDir(), "s.sock")
	s, err := ListenSocket(path, Control{"look": {Do: echo}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s.http.ConnState = func(c net.Conn, state http.ConnState) {
		if open.Store(c, true); state == http.StateClosed {
			open.Delete(c)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	for range 20 {
		if err := NewClient(path).Ask(t.Context(), "look", nil, new(echoed)); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		n := 0
		open.Range(func(any, any) bool { n++; return true })
		if n == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("%d connections are left", n)
			break
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestNobodyAnswers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	var got echoed
	if err := NewClient(path).Ask(t.Context(), "look", nil, &got); !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), path) {
		t.Errorf("no socket: %v", err)
	}
	leave(t, path)
	if err := NewClient(path).Ask(t.Context(), "look", nil, &got); !errors.Is(err, ErrNotRunning) {
		t.Errorf("a socket that a crash left: %v", err)
	}
}

// leave makes a socket as a process that was killed leaves it.
func leave(t *testing.T, path string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close()
}

// TestProfiles: nobody gets them unless the daemon was told to serve them.
func TestProfiles(t *testing.T) {
	s, err := ListenSocket(filepath.Join(t.TempDir(), "s.sock"), Control{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	fetch := func(name string) (int, string) {
		w := httptest.NewRecorder()
		s.http.Handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/debug/pprof/"+name, http.NoBody))
		return w.Code, w.Body.String()
	}
	if code, body := fetch("heap"); code != http.StatusNotFound || !strings.Contains(body, "run --pprof") {
		t.Errorf("off: %d %s", code, body)
	}
	s.ServeProfiles()
	if code, body := fetch("goroutine?debug=1"); code != http.StatusOK || !strings.Contains(body, "goroutine profile: total") {
		t.Errorf("on: %d %s", code, body)
	}
	if code, body := fetch("cmdline"); code != http.StatusNotFound {
		t.Errorf("the command line: %d %s", code, body)
	}
}

func TestListenSocket(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	path := filepath.Join(t.TempDir(), "run", "s.sock")
	first, err := ListenSocket(path, nil, log)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("%v, mode %v", err, info.Mode())
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil || info.Mode().Perm()&0o057 != 0o050 {
		t.Errorf("the directory: %v, mode %v", err, info.Mode())
	}
	if _, err := ListenSocket(path, nil, log); err == nil || !strings.Contains(err.Error(), "another process answers") {
		t.Errorf("a second one: %v", err)
	}
	_ = first.Close()
	leave(t, path)
	again, err := ListenSocket(path, nil, log)
	if err != nil {
		t.Fatalf("after a crash: %v", err)
	}
	_ = again.Close()
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ListenSocket(path, nil, log); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("over a file: %v", err)
	}
	if data, _ := os.ReadFile(path); string(data) != "precious" {
		t.Error("the file is gone")
	}
}

// A process that stands still is one that lives: its socket stays.
func TestSocketOfAProcessThatStandsStill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	var waiting []net.Conn // until nobody else gets in
	for range 10 {
		c, err := net.DialTimeout("unix", path, 200*time.Millisecond)
		if err != nil {
			break
		}
		waiting = append(waiting, c)
	}
	if _, err := ListenSocket(path, nil, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the socket is gone: %v", err)
	}
	for _, c := range waiting {
		_ = c.Close()
	}
}

func TestDecodeIsStrict(t *testing.T) {
	for body, want := range map[string]string{
		"": "", "  ": "", `{"policy":"a","force":true}`: "",
		`{"polcy":"a"}`: "unknown field", `{"policy":1}`: "cannot be read", `{"policy":"a"} {}`: "more than one", `[]`: "cannot be read",
	} {
		var w Wish
		err := Decode([]byte(body), &w)
		if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", body, err, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"policy":"a","force":true}`))
	f.Add([]byte(`{"of":"a/b","limit":"3"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var w Wish
		if err := Decode(body, &w); err != nil {
			if status, _ := Answer(nil, err); status != http.StatusConflict {
				t.Errorf("status %d for %q", status, body)
			}
		}
	})
}

// A stream goes on until the asker has enough, or the daemon ends.
func TestControlStreams(t *testing.T) {
	gone := make(chan struct{})
	control := Control{
		"follow": {Stream: func(ctx context.Context, request []byte, send func(any) error) error {
			defer close(gone)
			for i := 0; ; i++ {
				if err := send(map[string]any{"n": i, "request": string(request)}); err != nil {
					return err
				}
				if i == 2 {
					<-ctx.Done()
					return nil
				}
			}
		}},
		"refuse": {Stream: func(context.Context, []byte, func(any) error) error { return Refuse("no such policy") }},
	}
	c := NewClient(serveControl(t, control))
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	err := c.Follow(ctx, "follow", map[string]string{"of": "shop"}, func(line json.RawMessage) error {
		if want := fmt.Sprintf(`{"n":%d,"request":"{\"of\":\"shop\"}"}`, n); string(line) != want {
			t.Errorf("line %s, want %s", line, want)
		}
		if n++; n == 3 {
			cancel()
		}
		return nil
	})
	if err == nil || n != 3 {
		t.Errorf("%d lines, %v", n, err)
	}
	<-gone
	if err := c.Follow(t.Context(), "refuse", nil, nil); err == nil || err.Error() != "no such policy" {
		t.Errorf("refused: %v", err)
	}
}

// A stream does not keep the daemon from ending.
func TestControlStreamEndsWithTheDaemon(t *testing.T) {
	s, err := ListenSocket(filepath.Join(t.TempDir(), "s.sock"), Control{"follow": {Stream: func(ctx context.Context, _ []byte, send func(any) error) error {
		if err := send(1); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	}}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	err = NewClient(s.listener.Addr().String()).Follow(t.Context(), "follow", nil, func(json.RawMessage) error {
		cancel()
		return nil
	})
	if err != nil {
		t.Errorf("followed: %v", err)
	}
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
}
