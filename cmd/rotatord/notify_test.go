package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// manager is what systemd is for a service: a socket that is told things.
type manager struct {
	t        *testing.T
	path     string
	messages chan string
	// heard is everything that was consumed.
	heard []string
}

func newManager(t *testing.T) *manager {
	t.Helper()
	dir, err := os.MkdirTemp("", "rd") // the path of a socket is to be short
	must(t, err)
	m := &manager{t: t, path: filepath.Join(dir, "notify"), messages: make(chan string, 1000)}
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"})
	must(t, err)
	var reading sync.WaitGroup
	reading.Go(func() {
		buffer := make([]byte, 4096)
		for {
			n, err := socket.Read(buffer)
			if err != nil {
				return
			}
			m.messages <- string(buffer[:n])
		}
	})
	t.Cleanup(func() {
		_ = socket.Close()
		reading.Wait()
		_ = os.RemoveAll(dir)
	})
	return m
}

// starts has a process tell this manager, with more of an environment.
func (m *manager) starts(env ...string) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) { cmd.Env = append(append(cmd.Env, "NOTIFY_SOCKET="+m.path), env...) }
}

// wait returns the next message that has all these lines, some of them with any ending; what
// comes before it is consumed.
func (m *manager) wait(lines ...string) string {
	m.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case message := <-m.messages:
			m.heard = append(m.heard, message)
			if saysAll(message, lines) {
				return message
			}
		case <-deadline:
			m.t.Fatalf("waited for %q in vain; heard:\n%s", lines, strings.Join(m.heard, "\n"))
		}
	}
}

// rest consumes what has been said by a process that is no more.
func (m *manager) rest() string {
	for {
		select {
		case message := <-m.messages:
			m.heard = append(m.heard, message)
		case <-time.After(100 * time.Millisecond): // the kernel has them, the reader may be behind
			return strings.Join(m.heard, "\n")
		}
	}
}

func saysAll(message string, lines []string) bool {
	for _, want := range lines {
		beginning, open := strings.CutSuffix(want, "*")
		if !slices.ContainsFunc(strings.Split(message, "\n"), func(line string) bool {
			return line == want || open && strings.HasPrefix(line, beginning)
		}) {
			return false
		}
	}
	return true
}

func TestNotify(t *testing.T) {
	t.Parallel()
	r := newRig(t, host)
	r.policy("shop", host, "")
	bundle := r.issue("shop", host)
	m := newManager(t)
	p := launchWith(t, m.starts("WATCHDOG_USEC=400000"), "run", "--config", filepath.Join(r.dir, "rotatord.yaml"))
	r.log = p.log

	m.wait("STATUS=starting")
	ready := m.wait("READY=1", "STATUS=1 certificate: *") // what the first scan found
	for _, before := range m.heard[:len(m.heard)-1] {
		if !strings.HasPrefix(before, "STATUS=starting") {
			t.Errorf("before it was ready it said %q", before)
		}
	}
	if strings.Contains(ready, "not ready") {
		t.Errorf("ready, and %q", ready)
	}
	r.converged(bundle)
	if converged := "STATUS=1 certificate: 1 converged"; !strings.Contains(ready, converged) { // it may be that fast
		m.wait(converged)
	}
	for range 3 {
		m.wait("WATCHDOG=1")
	}

	reload := func(status string) {
		t.Helper()
		must(t, p.cmd.Process.Signal(syscall.SIGHUP))
		begun := m.wait("RELOADING=1", "MONOTONIC_USEC=*")
		_, usec, _ := strings.Cut(begun, "MONOTONIC_USEC=")
		usec, _, _ = strings.Cut(usec, "\n")
		at, err := strconv.ParseInt(usec, 10, 64)
		now, _ := strconv.ParseInt(monotonic(), 10, 64)
		if age := time.Duration(now-at) * time.Microsecond; err != nil || age < 0 || age > time.Minute {
			t.Errorf("the reload began %s ago (%v)", age, err)
		}
		m.wait("READY=1", status)
	}
	reload("STATUS=1 certificate: 1 converged")
	bad := filepath.Join(r.dir, "policies", "bad.yaml")
	r.write("policies/bad.yaml", "name: bad\nsource: {directory: {path: x}}\ntargts: []\n")
	reload("STATUS=1 certificate: 1 converged; the last reload was refused: " + bad + ":3:1: unknown field \"targts\"*")
	must(t, os.Remove(bad))
	reload("STATUS=1 certificate: 1 converged")

	must(t, p.stop(syscall.SIGTERM))
	if all := m.rest(); !strings.HasSuffix(all, "\nSTATUS=stopped") || strings.Count(all, "STOPPING=1") != 1 {
		t.Errorf("at the end:\n%s", all)
	}
}

// TestNotifyWhyNot: who starts it sees what is wrong, without the log.
func TestNotifyWhyNot(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	file := filepath.Join(t.TempDir(), "rotatord.yaml")
	must(t, os.WriteFile(file, []byte("stat: x\n"), 0o600))
	p := launchWith(t, m.starts(), "run", "--config", file)
	<-p.ended
	if code := p.cmd.ProcessState.ExitCode(); code != exitBadConfig {
		t.Errorf("exit code %d", code)
	}
	m.wait("STATUS=failed: " + file + `:1:1: unknown field "stat"*`)
	if all := m.rest(); strings.Contains(all, "READY=1") {
		t.Error(all)
	}
}

func TestNotifyWithNATSAway(t *testing.T) {
	t.Parallel()
	r := newRig(t, host)
	r.policy("shop", host, "")
	r.issue("shop", host)
	r.configure("nats: {url: \"nats://127.0.0.1:1\"}\n")
	m := newManager(t)
	p := launchWith(t, m.starts(), "run", "--config", filepath.Join(r.dir, "rotatord.yaml"))
	m.wait("STATUS=starting")
	begun := time.Now()
	m.wait("STATUS=starting: NATS (127.0.0.1:1) is not connected*")
	m.wait("READY=1", "STATUS=1 certificate; not ready: NATS (127.0.0.1:1) is not connected*")
	if took := time.Since(begun); took < natsPatience {
		t.Errorf("ready without NATS after %s", took)
	}
	must(t, p.stop(syscall.SIGTERM))
}

// TestNotifyAsksForPatience: a call of the cloud is under way when the daemon is to stop.
func TestNotifyAsksForPatience(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	_, sim, p := launchHeldWith(t, m.starts(), "CreateCertificate", "before")
	m.wait("READY=1")
	must(t, p.cmd.Process.Signal(syscall.SIGTERM))
	m.wait("STOPPING=1", "EXTEND_TIMEOUT_USEC=30000000", "STATUS=stopping: steps in flight are finished*")
	m.wait("EXTEND_TIMEOUT_USEC=30000000", "WATCHDOG=1", "STATUS=stopping: steps in flight are finished, for 5s now")
	sim.call(http.MethodDelete, "faults", nil, nil)
	if err := <-p.ended; err != nil {
		t.Errorf("after SIGTERM: %v\n%s", err, p.log.text())
	}
	if all := m.rest(); !strings.HasSuffix(all, "\nSTATUS=stopped") {
		t.Errorf("at the end:\n%s", all)
	}
}

// listener keeps what a notifier says.
type listener struct {
	mu  sync.Mutex
	all []string
}

func (l *listener) notifier(watchdog time.Duration) *notifier {
	return &notifier{watchdog: watchdog, log: slog.New(slog.DiscardHandler), send: func(message string) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.all = append(l.all, message)
		return nil
	}}
}

// take returns what was said since it was last asked.
func (l *listener) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.all
	l.all = nil
	return all
}

func counts(messages []string, line string) int {
	n := 0
	for _, message := range messages {
		if saysAll(message, []string{line}) {
			n++
		}
	}
	return n
}

// TestWatchdogHearsOfRealLife: with the scheduler stuck, no sign of life.
func TestWatchdogHearsOfRealLife(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		heard, stuck := &listener{}, make(chan bool, 1)
		n := heard.notifier(time.Minute)
		is := false
		v := vitals{
			lacks: func(time.Duration) string { return "" },
			alive: func() error {
				select {
				case is = <-stuck:
				default:
				}
				if is {
					return errors.New("no progress")
				}
				return nil
			},
			status: func() string { return "well" },
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		var following sync.WaitGroup
		following.Go(func() { n.follow(ctx, v, ended) })
		wantSigns := func(when string, want int) {
			t.Helper()
			time.Sleep(5 * time.Minute)
			synctest.Wait()
			if n := counts(heard.take(), "WATCHDOG=1"); n != want {
				t.Errorf("%s: %d signs of life in five minutes, want %d", when, n, want)
			}
		}
		wantSigns("well", 10)
		stuck <- true
		wantSigns("stuck", 0)
		stuck <- false
		wantSigns("well again", 10)
		stuck <- true
		time.Sleep(time.Minute)
		heard.take()
		cancel() // the scheduler is not needed for stopping
		wantSigns("stopping", 60)
		// And nobody stops for ever.
		time.Sleep(time.Hour)
		synctest.Wait()
		last := heard.take()
		if n := counts(last, "EXTEND_TIMEOUT_USEC=30000000"); n != 120-1 {
			t.Errorf("asked for patience %d times after the first five minutes", n)
		}
		close(ended)
		following.Wait()
	})
}

// TestStatusTakesAShare: where there is much to count, it is counted more rarely.
func TestStatusTakesAShare(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for took, want := range map[time.Duration]int{0: 120, 50 * time.Millisecond: 118, time.Second: 6} {
			asked := 0
			v := vitals{status: func() string {
				asked++
				time.Sleep(took)
				return "well"
			}}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute+time.Millisecond)
			(&listener{}).notifier(0).serve(ctx, v)
			cancel()
			if asked != want {
				t.Errorf("a status that takes %s was asked for %d times in ten minutes, want %d", took, asked, want)
			}
		}
	})
}

func TestReloadsAreToldAfterTheStart(t *testing.T) {
	t.Parallel()
	heard := &listener{}
	n := heard.notifier(0)
	n.reloading(func() string { return "early" })()
	if all := heard.take(); len(all) > 0 {
		t.Errorf("systemd would take this for the end of the start: %q", all)
	}
	n.enter(serving, "well", "READY=1")
	across := n.reloading(func() string { return "late" })
	n.enter(stopping, "stopping", "STOPPING=1")
	across()
	if all := heard.take(); len(all) != 3 || !strings.HasPrefix(all[1], "RELOADING=1\nMONOTONIC_USEC=") || all[2] != "STOPPING=1\nSTATUS=stopping" {
		t.Errorf("%q", all)
	}
	var nobody *notifier
	nobody.reloading(func() string { panic("nobody asked") })()
	nobody.ends(errors.New("x"))
}

func TestStatusIsOneLine(t *testing.T) {
	t.Parallel()
	heard := &listener{}
	n := heard.notifier(0)
	n.tell("a\nREADY=1\x1b[31m" + strings.Repeat("ä", maxStatus))
	n.tell("a\nREADY=1\x1b[31m" + strings.Repeat("ä", maxStatus)) // said already
	n.tell("b")
	all := heard.take()
	if len(all) != 2 || !strings.HasPrefix(all[0], "STATUS=a READY=1?[31mää") || len(all[0]) > len("STATUS=")+maxStatus || !strings.HasSuffix(all[0], "ä...") || all[1] != "STATUS=b" {
		t.Errorf("%q", all)
	}
	n.send = func(string) error { return errors.New("gone") }
	n.tell("c")
	n.send = func(message string) error { heard.all = append(heard.all, message); return nil }
	n.tell("c") // the first time it was lost
	if all := heard.take(); !slices.Equal(all, []string{"STATUS=c"}) {
		t.Errorf("%q", all)
	}
}

// passing starts a process with sockets that somebody else has bound, as systemd does.
func passing(t *testing.T, files ...*os.File) func(*exec.Cmd) {
	t.Helper()
	return func(cmd *exec.Cmd) {
		cmd.ExtraFiles = files
		cmd.Path = "/bin/sh" // its process becomes the daemon's, with the same number
		cmd.Args = append([]string{"sh", "-c", fmt.Sprintf(`LISTEN_PID=$$ LISTEN_FDS=%d exec "$0" "$@"`, len(files))}, cmd.Args...)
	}
}

func fileOf(t *testing.T, l interface{ File() (*os.File, error) }) *os.File {
	t.Helper()
	f, err := l.File()
	must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestInheritedListener(t *testing.T) {
	t.Parallel()
	r := newRig(t, host)
	r.policy("shop", host, "")
	// What the configuration says cannot be bound: somebody else is there.
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer taken.Close()
	r.write("rotatord.yaml", "state: state\nnode: test\nhttp: {listen: \""+taken.Addr().String()+"\"}\nclouds: {default: {region: x, auth: {metadata: {}}}}\n")
	bound, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer bound.Close()
	address := bound.Addr().String()
	for range 2 { // who waits meanwhile is answered by the next one
		answer := make(chan string, 1)
		go func() {
			response, err := http.Get("http://" + address + "/livez")
			if err != nil {
				answer <- err.Error()
				return
			}
			_ = response.Body.Close()
			answer <- response.Status
		}()
		p := launchWith(t, passing(t, fileOf(t, bound.(*net.TCPListener))), "run", "--config", filepath.Join(r.dir, "rotatord.yaml"))
		if line := p.log.waitMessage("systemd has bound the HTTP listener; http.listen is not used"); line["http"] != address {
			t.Errorf("%v", line)
		}
		if got := <-answer; got != "200 OK" {
			t.Error(got)
		}
		must(t, p.stop(syscall.SIGTERM))
	}
}

func TestInheritedListenerRefused(t *testing.T) {
	t.Parallel()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer tcp.Close()
	local, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	must(t, err)
	defer local.Close()
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	defer udp.Close()
	one, other := fileOf(t, tcp.(*net.TCPListener)), fileOf(t, local.(*net.UnixListener))
	tests := map[string]struct {
		files []*os.File
		says  string
	}{
		"two":  {[]*os.File{one, other}, "systemd passes 2 sockets, and rotatord listens on one, for HTTP; leave one ListenStream= in rotatord.socket"},
		"unix": {[]*os.File{other}, "it is unix "},
		"udp":  {[]*os.File{fileOf(t, udp)}, "nobody listens on it"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newManager(t)
			p := launchWith(t, func(cmd *exec.Cmd) { m.starts()(cmd); passing(t, test.files...)(cmd) }, "run", "--config", "/nowhere")
			<-p.ended
			if code := p.cmd.ProcessState.ExitCode(); code != exitBadConfig {
				t.Errorf("exit code %d", code)
			}
			if text := p.log.text(); !strings.Contains(text, test.says) || !strings.Contains(text, "ListenStream=") {
				t.Errorf("it says %s", text)
			}
			m.wait("STATUS=failed: *")
		})
	}
}
