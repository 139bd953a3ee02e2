package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"
)

// anotherUser is whom a check is to be made as.
type anotherUser struct {
	name, home string
	credential *syscall.Credential
}

// lookUpUser returns nil for the user that this process runs as already.
func lookUpUser(name string) (*anotherUser, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, usageError{fmt.Errorf("this host has no user %q", name)}
	}
	if u.Uid == strconv.Itoa(os.Geteuid()) {
		return nil, nil
	}
	if os.Geteuid() != 0 {
		return nil, usageError{fmt.Errorf("only root can check as user %s", name)}
	}
	groups, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("look up the groups of user %s: %w", name, err)
	}
	other := &anotherUser{name: u.Username, home: u.HomeDir, credential: &syscall.Credential{}}
	if other.credential.Uid, err = identity(u.Uid); err != nil {
		return nil, err
	}
	if other.credential.Gid, err = identity(u.Gid); err != nil {
		return nil, err
	}
	for _, group := range groups {
		gid, err := identity(group)
		if err != nil {
			return nil, err
		}
		other.credential.Groups = append(other.credential.Groups, gid)
	}
	return other, nil
}

func identity(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n == math.MaxUint32 {
		return 0, fmt.Errorf("%q is not the number of a user or group", text)
	}
	return uint32(n), nil
}

// ended is how a child process ended that said already what there was to say.
type ended struct{ code int }

func (e ended) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// checkAs runs the same check in a process of another user: what that user may do, the
// system knows best.
func checkAs(cmd *cobra.Command, g *globals, o checkOptions, as *anotherUser, args []string) error {
	again := []string{
		"rotatord", "check", "--config", g.config, "--output", o.output,
		fmt.Sprintf("--strict=%t", o.strict), fmt.Sprintf("--online=%t", o.online), "--",
	}
	child := exec.CommandContext(cmd.Context(), "/proc/self/exe")
	child.Args = append(again, args...)
	child.Env = append(os.Environ(), "HOME="+as.home, "USER="+as.name, "LOGNAME="+as.name)
	child.Stdout, child.Stderr = cmd.OutOrStdout(), cmd.ErrOrStderr()
	child.SysProcAttr = &syscall.SysProcAttr{Credential: as.credential}
	err := child.Run()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok && failed.Exited() {
		return ended{failed.ExitCode()}
	}
	if err != nil {
		return fmt.Errorf("check as user %s: %w", as.name, err)
	}
	return nil
}
