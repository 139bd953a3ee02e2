package file

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
)

type contextType = context.Context

const childVariable = "ROTATORD_FILE_TEST_CHILD"

// childJob is what a child process of the tests does: rotate through certificates that
// it issues itself, until it is killed or has done so many.
type childJob struct {
	Directory string
	Rotations int
	// FileSize limits what a file may get; 0: not.
	FileSize uint64
}

// beChild does a child's job, if this process is one.
func beChild() bool {
	text := os.Getenv(childVariable)
	if text == "" {
		return false
	}
	var job childJob
	if err := json.Unmarshal([]byte(text), &job); err != nil {
		panic(err)
	}
	if err := job.run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
	return true
}

func (j childJob) run() error {
	if j.FileSize > 0 {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: j.FileSize, Max: j.FileSize}); err != nil {
			return err
		}
	}
	ca, err := certstest.NewCA("child")
	if err != nil {
		return err
	}
	target, err := New(Config{Directory: j.Directory, FullChain: "fullchain.pem", Key: "privkey.pem", Chain: "chain.pem"})
	if err != nil {
		return err
	}
	s := setup{cfg: Config{Directory: j.Directory}}
	var before *certs.Bundle
	for range j.Rotations {
		b, err := ca.Issue(certstest.Options{Names: []string{"shop.example.com"}})
		if err != nil {
			return err
		}
		if _, err := target.Stage(context.Background(), s.request(), b); err != nil {
			return err
		}
		if err := target.Activate(context.Background(), s.request(), handle(b)); err != nil {
			return err
		}
		if before != nil {
			if err := target.Retire(context.Background(), s.request(), handle(before)); err != nil {
				return err
			}
		}
		before = b
	}
	return nil
}

func startChild(t *testing.T, job childJob) *exec.Cmd {
	t.Helper()
	text, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+string(text))
	return cmd
}
