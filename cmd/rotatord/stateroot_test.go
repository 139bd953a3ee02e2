//go:build root

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/rotatord/rotatord/internal/admin"
)

// The disk of the state directory fails under a daemon that runs, or before it starts: full,
// read-only, or without a working fsync. It says what is wrong and where, goes on to measure,
// does nothing by halves, and goes on by itself when the disk is well again.

// onDisk makes an estate whose state directory is a small file system of its own, converged.
func onDisk(t *testing.T) (*estate, *running) {
	t.Helper()
	e := newEstate(t, "")
	if err := os.Mkdir(e.state(), 0o700); err != nil {
		t.Fatal(err)
	}
	// A port that is known although the server may start later than the daemon.
	config, err := os.ReadFile(filepath.Join(e.dir, "rotatord.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e.write("rotatord.yaml", strings.Replace(string(config), "embedded: {listen: \"127.0.0.1:0\"", "embedded: {listen: \""+free.Addr().String()+"\"", 1))
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("none", e.state(), "tmpfs", 0, "size=8m,mode=0700"); err != nil {
		t.Fatalf("mount a file system, which needs root: %v", err)
	}
	t.Cleanup(func() { // after the daemons' ends
		if err := syscall.Unmount(e.state(), 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	p := e.started(e.launch())
	e.converged(p)
	e.rotate(p)
	return e, p
}

// fill leaves no room on the disk of the state directory; empty makes room again.
func (e *estate) fill() (empty func()) {
	e.t.Helper()
	path := filepath.Join(e.state(), "filler")
	f, err := os.Create(path)
	if err != nil {
		e.t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{64 << 10, 4 << 10, 1} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			e.t.Fatal(err)
		}
	}
	return func() {
		if err := os.Remove(path); err != nil {
			e.t.Error(err)
		}
	}
}

// expectStanding waits until the daemon says what is wrong with its store, and shows that it
// measures and serves meanwhile, and has begun nothing at the targets.
func (e *estate) expectStanding(p *running, says ...string) {
	e.t.Helper()
	p.log.seen = 0 // it may have said so before it said that it was started
	line := p.log.waitMessage("the NATS store fails; nothing is rotated until it can be written again")
	eventually(e.t, "readyz to say "+strings.Join(says, ", "), func() bool {
		ready := p.ask("/readyz")
		for _, text := range says {
			if !strings.Contains(ready, text) {
				return false
			}
		}
		return strings.Contains(ready, `"ready": false`)
	})
	if line["level"] != "ERROR" || line["path"] != filepath.Join(e.state(), "nats") {
		e.t.Errorf("the log says %v", line)
	}
	for _, text := range says {
		p.log.seen = 0
		p.log.waitText(text)
	}
	newest := e.bundles[wwwPolicy][len(e.bundles[wwwPolicy])-1].Fingerprint().String()
	eventually(e.t, "the new bundle in the metrics", func() bool {
		text := p.ask("/metrics")
		return strings.Contains(text, `fingerprint_sha256="`+newest+`"`) && strings.Contains(text, "rotatord_nats_connected 0")
	})
	if alive := p.ask("/livez"); alive != "ok\n" {
		e.t.Errorf("livez: %q", alive)
	}
	for _, entry := range e.look().Certificates {
		if entry.Fingerprint == newest {
			e.t.Error("a bundle was uploaded although nothing could be written down")
		}
	}
	e.checkDead(e.look())
}

// goesOn waits until all that came meanwhile is done, by the same process, and more can be.
func (e *estate) goesOn(p *running) {
	e.t.Helper()
	p.log.waitMessage("the NATS store can be written again")
	e.converged(p)
	e.rotate(p)
	e.terminate(p.process)
	e.check()
	e.checkSecrets()
}

func TestStateDiskFull(t *testing.T) {
	const says = "the disk of the NATS store is full; make room, it goes on by itself then"
	t.Run("while running", func(t *testing.T) {
		e, p := onDisk(t)
		empty := e.fill()
		for _, policy := range directoryPolicies {
			e.renew(policy)
		}
		e.expectStanding(p, says, "no space left on device")
		empty()
		e.goesOn(p)
	})
	t.Run("at the start", func(t *testing.T) {
		e, p := onDisk(t)
		e.terminate(p.process)
		empty := e.fill()
		for _, policy := range directoryPolicies {
			e.renew(policy)
		}
		p = e.started(e.launch())
		e.expectStanding(p, says, "no space left on device")
		empty()
		e.goesOn(p)
	})
}

// TestStateReadOnly starts on a file system that can only be read. (One on which files are
// open for writing cannot be made so; a kernel that does it for an error of the disk leaves
// the same errors as TestStateFsyncFails.)
func TestStateReadOnly(t *testing.T) {
	e, p := onDisk(t)
	e.terminate(p.process)
	if err := syscall.Mount("none", e.state(), "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	for _, policy := range directoryPolicies {
		e.renew(policy)
	}
	p = e.started(e.launch())
	e.expectStanding(p, "the NATS store is mounted read-only; mount it writable, it goes on by itself then", "read-only file system")
	if err := syscall.Mount("none", e.state(), "tmpfs", syscall.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	// The control socket is to be on that disk.
	eventually(t, "the control socket", func() bool {
		return admin.NewClient(filepath.Join(e.state(), "rotatord.sock")).Ask(t.Context(), "status", nil, new(admin.Status)) == nil
	})
	e.goesOn(p)
}

// TestStateFsyncFails makes every fsync of the running daemon fail, as a disk does that is
// about to die.
func TestStateFsyncFails(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Fatal("strace is needed, which makes system calls fail")
	}
	e, p := onDisk(t)
	tracer := exec.Command(strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO", "-p", fmt.Sprint(p.cmd.Process.Pid))
	if err := tracer.Start(); err != nil {
		t.Fatal(err)
	}
	release := func() {
		_ = tracer.Process.Signal(syscall.SIGINT) // it lets go of the daemon
		_ = tracer.Wait()
	}
	t.Cleanup(func() {
		if tracer.ProcessState == nil {
			release()
		}
	})
	eventually(t, "the tracer of every thread", func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.cmd.Process.Pid))
		return err == nil && len(threads) > 0 && !slices.ContainsFunc(threads, func(path string) bool {
			status, err := os.ReadFile(path)
			return err == nil && strings.Contains(string(status), "TracerPid:\t0\n")
		})
	})
	for _, policy := range directoryPolicies {
		e.renew(policy)
	}
	e.expectStanding(p, "the disk of the NATS store fails; it goes on by itself when that is over", "input/output error")
	release()
	e.goesOn(p)
}
