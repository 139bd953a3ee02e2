package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rotatord/rotatord/internal/admin"
	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/providers"
	"github.com/rotatord/rotatord/internal/watcher"
)

// host checks what the policies name on this host: that it is there, and that this user
// may use it.
func (c *checker) host() {
	me := currentUser()
	c.files(me, c.set.Config.File, c.set.Config)
	if err := admin.CheckWebConfig(c.set.Config.HTTP.WebConfig); err != nil {
		c.add(policy.Error, c.set.Config.File, "$.http.web_config", "%s: %v", c.set.Config.HTTP.WebConfig, err)
	}
	if problem := me.mayMake(c.set.Config.State); problem != "" {
		c.add(policy.Error, c.set.Config.File, "$.state", "state directory %s: %s", c.set.Config.State, problem)
	}
	for _, p := range c.set.Policies {
		c.files(me, p.File, p)
		if p.Source.Directory != nil {
			c.directory(me, p)
		}
		for i, t := range p.Targets {
			if t.File != nil {
				c.fileTarget(me, p, fmt.Sprintf("$.targets[%d].file", i), t)
			}
		}
	}
}

// files checks that what a document names can be read, and that roots are roots.
func (c *checker) files(me account, file string, document any) {
	for named := range policy.NamedFiles(document) {
		if c.known(named.Path) {
			continue
		}
		if problem := me.may(unix.R_OK, named.Path); problem != "" {
			c.add(policy.Error, file, named.At, "%s: %s", named.Path, problem)
			continue
		}
		if strings.HasSuffix(named.At, "ca_file") {
			if _, err := certs.ReadPool(named.Path); err != nil {
				c.add(policy.Error, file, named.At, "%v", err)
			}
		}
	}
}

// known reports whether something was found already about a file that cannot be used.
func (c *checker) known(path string) bool {
	return slices.ContainsFunc(c.found, func(p policy.Problem) bool { return p.Host && strings.Contains(p.Message, path) })
}

// directory looks at what a directory holds now.
func (c *checker) directory(me account, p *policy.Policy) {
	const at = "$.source.directory"
	dir := p.Source.Directory
	password, err := secretBytes(dir.KeyPasswordFile)
	if err != nil {
		return // said already
	}
	now, err := watcher.Look(watcher.Config{Root: dir.Path, Recursive: dir.Recursive, KeyPassword: password, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		c.add(policy.Error, p.File, at+".path", "directory %s: %v", dir.Path, err)
		return
	}
	if !now.Up {
		c.add(policy.Error, p.File, at+".path", "user %s cannot look into it: %v", me.name, now.Err)
		return
	}
	c.unusable(me, p, now.Problems)
	taken := map[string]certs.Info{}
	for name, found := range now.All() {
		if dir.Match.Matches(*found.Pair.Info) {
			taken[name] = *found.Pair.Info
		}
	}
	switch {
	case now.Len() == 0 && len(now.Problems) == 0:
		c.add(policy.Warning, p.File, at+".path", "no certificate is in %s yet", dir.Path)
	case len(taken) == 0 && now.Len() > 0:
		c.add(policy.Warning, p.File, at+".match", "match takes nothing of what is in %s: %s", dir.Path, counted(now.Len(), "certificate", "certificates"))
	}
	if len(taken) > 0 {
		c.lives(p, taken)
		c.coverage(p, taken)
	}
}

// unusable tells of files that cannot be used: those that this user may not read are a
// mistake on this host, the others may be somebody's half-written renewal.
func (c *checker) unusable(me account, p *policy.Policy, problems []certs.Problem) {
	const at = "$.source.directory.path"
	var closed, broken []string
	for _, problem := range problems {
		if problem.Reason == certs.Unreadable && me.may(unix.R_OK, problem.Path) != "" {
			closed = append(closed, problem.Path)
		} else {
			broken = append(broken, problem.Error())
		}
	}
	switch {
	case len(closed) > 0: // and a certificate lacks its key for that alone
		c.add(policy.Error, p.File, at, "user %s cannot read %s", me.name, some(closed, ", "))
	case len(broken) > 0:
		c.add(policy.Warning, p.File, at, "%s cannot be used (rotatord inspect tells more): %s", counted(len(broken), "file", "files"), some(broken, "; "))
	}
}

// lives tells of certificates that have ended, and of those whose successor the calendar
// would hold up until their end is near.
func (c *checker) lives(p *policy.Policy, taken map[string]certs.Info) {
	now := time.Now()
	calendar := p.When.Calendar()
	var over, late []string
	for name, info := range taken {
		due := policy.Renew{At: usualRenewal}.Due(info.NotBefore, info.NotAfter)
		if due.Before(now) {
			due = now
		}
		if now.After(info.NotAfter) {
			over = append(over, name+" ("+info.NotAfter.UTC().Format(time.DateOnly)+")")
		} else if _, ok := p.When.Opens(due, info.NotAfter); !ok && len(calendar.Windows)+len(calendar.Freezes) > 0 {
			late = append(late, name+" (due "+due.UTC().Format(time.DateOnly)+", ends "+info.NotAfter.UTC().Format(time.DateOnly)+")")
		}
	}
	if len(over) > 0 {
		slices.Sort(over)
		c.add(policy.Warning, p.File, "$.source.directory.path", "%s expired: %s", counted(len(over), "certificate is", "certificates are"), some(over, ", "))
	}
	if len(late) > 0 {
		slices.Sort(late)
		at := "$.when.windows"
		if len(calendar.Windows) == 0 {
			at = "$.when.freeze"
		}
		c.add(policy.Warning, p.File, at, "no window opens for the successors of %s before expiry_wins (%s) lifts windows and freezes, if they are renewed after %.0f%% of their lives: %s",
			counted(len(late), "certificate", "certificates"), *p.When.ExpiryWins, float64(usualRenewal), some(late, ", "))
	}
}

// usualRenewal is when most programs that write certificates to a directory renew them.
const usualRenewal = policy.Percent(66)

// coverage compares the names that a policy lists with those of the certificates that are
// there. A certificate for the rest may still come, so these are warnings.
func (c *checker) coverage(p *policy.Policy, taken map[string]certs.Info) {
	covered := func(name string) bool {
		for _, info := range taken {
			if info.Covers(name) {
				return true
			}
		}
		return false
	}
	for i, t := range p.Targets {
		if t.File == nil {
			field := map[string]string{"waf": "hosts", "apig": "domains"}[t.Kind()]
			c.uncovered(p, fmt.Sprintf("$.targets[%d].%s.%s", i, t.Kind(), field), t.Endpoints().List, covered)
		}
	}
	var hosts []string
	for _, endpoint := range p.Verify.Endpoints {
		hosts = append(hosts, hostOf(endpoint))
	}
	c.uncovered(p, "$.verify.endpoints", hosts, covered)
}

// uncovered points at each name by itself, unless these are too many to be read.
func (c *checker) uncovered(p *policy.Policy, at string, names []string, covered func(string) bool) {
	missing := map[int]string{}
	var all []string
	for i, name := range names {
		if !isObjectID(name) && !covered(name) {
			missing[i] = name
			all = append(all, name)
		}
	}
	if len(missing) > shown {
		c.add(policy.Warning, p.File, at, "no certificate in %s covers %s", p.Source.Directory.Path, some(all, ", "))
		return
	}
	for i, name := range missing {
		c.add(policy.Warning, p.File, fmt.Sprintf("%s[%d]", at, i), "no certificate in %s covers %s", p.Source.Directory.Path, name)
	}
}

// isObjectID reports whether an endpoint is given by its id in the cloud, which tells
// nothing of its name.
func isObjectID(name string) bool {
	return len(name) == 32 && !strings.Contains(name, ".")
}

// hostOf is the host of host:port.
func hostOf(endpoint string) string {
	host, _, found := strings.Cut(endpoint, ":")
	if !found {
		return endpoint
	}
	return strings.ToLower(host)
}

// shown is how many of many things are listed.
const shown = 5

// some lists the first of many things.
func some(all []string, separator string) string {
	if len(all) <= shown {
		return strings.Join(all, separator)
	}
	return strings.Join(all[:shown], separator) + fmt.Sprintf("%sand %d more", separator, len(all)-shown)
}

// fileTarget asks the adapter what it makes of the directory, and the system whether it
// may be written.
func (c *checker) fileTarget(me account, p *policy.Policy, at string, t policy.Target) {
	spec := t.File
	target, err := c.wiring.file(spec)
	if err != nil {
		c.add(policy.Error, p.File, at, "%v", err)
		return
	}
	owner, group := me.mayGiveTo(spec.Owner), me.mayGiveToGroup(spec.Group)
	if owner != "" {
		c.add(policy.Error, p.File, at+".owner", "%s", owner)
	}
	if group != "" {
		c.add(policy.Error, p.File, at+".group", "%s", group)
	}
	if problem := me.may(intoDirectory, spec.Directory); problem != "" {
		c.add(policy.Error, p.File, at+".directory", "directory %s: %s", spec.Directory, problem)
	} else if owner+group == "" {
		c.observe(p, at, spec.Directory, target)
	}
	if r := spec.Reload; r != nil && len(r.Command) > 0 {
		if problem := me.may(unix.X_OK, r.Command[0]); problem != "" {
			c.add(policy.Error, p.File, at+".reload.command[0]", "%s: %s", r.Command[0], problem)
		}
	}
}

// observe asks the adapter what keeps certificates out of a directory.
func (c *checker) observe(p *policy.Policy, at, directory string, target providers.Target) {
	o, err := target.Observe(context.Background(), providers.Request{Endpoints: []string{directory}})
	switch e, known := errors.AsType[*providers.Error](err); {
	case known && e.Message != "":
		c.add(policy.Error, p.File, at+".directory", "%s", e.Message)
	case err != nil:
		c.add(policy.Error, p.File, at+".directory", "%v", err)
	case o.Endpoints[0].Problem != "":
		c.add(policy.Error, p.File, at+".directory", "%s", o.Endpoints[0].Problem)
	}
}

// account is the user that this process acts as.
type account struct {
	name   string
	uid    int
	groups []int
}

func currentUser() account {
	a := account{uid: os.Geteuid(), groups: []int{os.Getegid()}}
	a.name = strconv.Itoa(a.uid)
	if u, err := user.LookupId(a.name); err == nil {
		a.name = u.Username
	}
	if more, err := os.Getgroups(); err == nil {
		a.groups = append(a.groups, more...)
	}
	return a
}

// intoDirectory is what it takes to make files in a directory.
const intoDirectory = unix.W_OK | unix.X_OK

// may says why the system would not let the user do something with a path, or "". It is
// the system that is asked, with all that it knows of groups, lists and mounts.
func (a account) may(mode uint32, path string) string {
	if info, err := os.Stat(path); mode == intoDirectory && err == nil && !info.IsDir() {
		return "it is not a directory"
	}
	err := unix.Faccessat(unix.AT_FDCWD, path, mode, unix.AT_EACCESS)
	if err == nil {
		return ""
	}
	verb := map[uint32]string{unix.R_OK: "read it", unix.X_OK: "run it", intoDirectory: "write to it"}[mode]
	return fmt.Sprintf("user %s cannot %s: %v", a.name, verb, err)
}

// mayMake is may for a directory that is made where it is missing.
func (a account) mayMake(path string) string {
	for {
		_, err := os.Stat(path)
		if !errors.Is(err, fs.ErrNotExist) || path == filepath.Dir(path) {
			return a.may(intoDirectory, path)
		}
		path = filepath.Dir(path)
	}
}

func (a account) mayGiveTo(owner string) string {
	if owner == "" {
		return ""
	}
	uid, err := strconv.Atoi(owner)
	if err != nil {
		u, err := user.Lookup(owner)
		if err != nil {
			return fmt.Sprintf("this host has no user %q", owner)
		}
		uid, _ = strconv.Atoi(u.Uid) // a number, on every system that has modes
	}
	if a.uid != 0 && uid != a.uid {
		return fmt.Sprintf("user %s cannot give files to user %s; only root can", a.name, owner)
	}
	return ""
}

func (a account) mayGiveToGroup(group string) string {
	if group == "" {
		return ""
	}
	gid, err := strconv.Atoi(group)
	if err != nil {
		g, err := user.LookupGroup(group)
		if err != nil {
			return fmt.Sprintf("this host has no group %q", group)
		}
		gid, _ = strconv.Atoi(g.Gid)
	}
	if a.uid != 0 && !slices.Contains(a.groups, gid) {
		return fmt.Sprintf("user %s is not in group %s, and cannot give files to it", a.name, group)
	}
	return ""
}
