package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"time"

	"github.com/rotatord/rotatord/internal/admin"
	"github.com/rotatord/rotatord/internal/audit"
	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/rotation"
)

const (
	// filesEvery is how often the configuration and the policies are looked at. A change
	// counts when a look filesSettle later finds the same: an editor writes in several goes.
	filesEvery  = 5 * time.Second
	filesSettle = 2 * time.Second
	// scanWait bounds the wait of a reload for the first look at new directories.
	scanWait = 30 * time.Second
)

// reload reads the configuration and all policies again, builds everything that is new, and
// swaps once. With any mistake in it, everything stays as it is and the result says why.
// by is who asked; empty: nobody did.
func (d *daemon) reload(ctx context.Context, cause string, by admin.Actor) admin.Reload {
	result := admin.Reload{At: time.Now().UTC(), Cause: cause}
	select {
	case <-d.started:
	case <-ctx.Done():
		result.Problems = []admin.Problem{{Message: "the daemon does not run yet"}}
		return result
	}
	d.reloading.Lock()
	defer d.reloading.Unlock()
	result.At = time.Now().UTC()
	if d.running.Err() != nil {
		result.Problems = []admin.Problem{{Message: "the daemon is stopping"}}
		return result
	}
	if d.configFile == "" {
		result.Problems = []admin.Problem{{Message: "this daemon was not started from a configuration file"}}
		return result
	}
	defer d.notify.reloading(d.standing)()
	d.files.Store(new(d.filesNow())) // as they are before they are read
	// Whoever asked may go away meanwhile: the reload is the daemon's.
	if err := d.replace(d.running, &result); err != nil {
		result.Problems = problemsOf(err)
		d.log.Error("reload refused; the configuration in force stays", "cause", cause, "err", err)
	} else {
		result.OK = true
		d.log.Info("configuration reloaded", "cause", cause, "policies", len(d.inForce().parts),
			"added", result.Added, "changed", result.Changed, "removed", result.Removed, "warnings", result.Warnings)
		d.tellReload(d.running, &result, by)
	}
	d.metrics.Reloaded(result.OK, result.At)
	d.lastReload.Store(&result)
	d.changes.tell()
	return result
}

func (d *daemon) replace(ctx context.Context, result *admin.Reload) error {
	set, err := policy.Load(d.configFile, os.Getenv)
	if err != nil {
		return err
	}
	before := d.inForce()
	set.Config, result.Warnings = reloadable(before.set.Config, set.Config)
	for _, p := range set.Prove(time.Now(), &policy.Pointer{}) {
		result.Warnings = append(result.Warnings, fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message))
	}
	next, err := d.build(set, before)
	if err != nil {
		return err
	}
	if err := d.bus.SetSubjects(ctx, next.subjects()); err != nil {
		return err
	}
	d.start(ctx, next, before)
	scanning, cancel := context.WithTimeout(ctx, scanWait)
	defer cancel()
	next.awaitScans(scanning)
	result.Added, result.Changed, result.Removed = compare(before, next)
	d.swap(before, next)
	return nil
}

// tellReload puts what became of each policy into the history. With NATS away that is not
// waited for: the log has it, and each later event has the hash of the policy's file.
func (d *daemon) tellReload(ctx context.Context, result *admin.Reload, by admin.Actor) {
	if !d.replayed.Load() || d.bus.Ready() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, holdWait)
	defer cancel()
	for what, policies := range map[string][]string{"added": result.Added, "changed": result.Changed, "removed": result.Removed} {
		for _, name := range policies {
			err := d.records.tellOf(ctx, name, func(head audit.Head) (rotation.Event, audit.Head, error) {
				reason := fmt.Sprintf("%s, on node %s: %s", what, d.inForce().set.Config.Node, result.Cause)
				return rotation.ReloadEvent(name, d.policySHA256(name), string(by), reason, result.At, head)
			})
			if err != nil {
				d.log.Warn("the history lacks a reload", "policy", name, "reason", what, "err", err)
			}
		}
	}
	d.publishHolds(ctx)
}

// swap puts a generation into force. A run of a policy that changed ends after the step in
// flight, and begins anew with what is in force then.
func (d *daemon) swap(before, next *generation) {
	known := d.records.ids()
	d.generation.Store(next)
	before.dismiss(next)
	d.metrics.Configure(targetKinds(next.set), slices.Collect(maps.Keys(next.set.Config.Clouds)))
	d.brake.setLimits(next.set.Config.Brake)
	d.setLogLevel(next.set.Config.Log.Level)
	if !d.bus.Prepared() {
		d.group.Go(func() error { return orStopped(d.running, d.bus.Prepare(d.running)) })
	}
	for _, id := range known {
		if next.parts[id.Policy] == nil {
			d.alarm.Set(id.Policy+"/"+id.Certificate, time.Time{})
		}
	}
	for name, p := range next.parts {
		if before.parts[name] != p {
			d.lookAtAll(name)
		}
	}
}

// lookAtAll enqueues all assignments of a policy that is new or changed.
func (d *daemon) lookAtAll(policy string) {
	for _, id := range d.assignments(policy) {
		d.recordChanged(id, d.records.get(id))
		d.enqueue(id, rotation.TriggerPolicy, wish{}, nil)
	}
}

// compare names the policies that differ.
func compare(before, next *generation) (added, changed, removed []string) {
	for _, name := range next.names() {
		switch old, known := before.parts[name]; {
		case !known:
			added = append(added, name)
		case old != next.parts[name]:
			changed = append(changed, name)
		}
	}
	for _, name := range before.names() {
		if next.parts[name] == nil {
			removed = append(removed, name)
		}
	}
	return added, changed, removed
}

// reloadable is the new configuration with what cannot change in a running process as it was,
// and a warning for each such wish.
func reloadable(before, next *policy.Config) (*policy.Config, []string) {
	var warnings []string
	effective := *next
	for _, fixed := range []struct {
		name      string
		old, new  any
		takesBack func()
	}{
		{"state", before.State, next.State, func() { effective.State = before.State }},
		{"node", before.Node, next.Node, func() { effective.Node = before.Node }},
		{"socket", before.Socket, next.Socket, func() { effective.Socket = before.Socket }},
		{"http", before.HTTP, next.HTTP, func() { effective.HTTP = before.HTTP }},
		{"nats", before.NATS, next.NATS, func() { effective.NATS = before.NATS }},
		{"audit", before.Audit, next.Audit, func() { effective.Audit = before.Audit }},
		{"log.format", before.Log.Format, next.Log.Format, func() { effective.Log.Format = before.Log.Format }},
	} {
		if !reflect.DeepEqual(fixed.old, fixed.new) {
			fixed.takesBack()
			warnings = append(warnings, fixed.name+" has changed; that takes effect when the daemon is started again")
		}
	}
	return &effective, warnings
}

// problemsOf is an error as a list of mistakes.
func problemsOf(err error) []admin.Problem {
	problems, ok := errors.AsType[policy.Problems](err)
	if !ok {
		return []admin.Problem{{Message: err.Error()}}
	}
	var all []admin.Problem
	for _, p := range problems {
		all = append(all, admin.Problem{File: p.File, Line: p.Line, Column: p.Column, Message: p.Message})
	}
	return all
}

// watchFiles reloads when the configuration or a policy file changed, until ctx ends. It
// looks at names, sizes and times every now and then: a policy directory is small, may be on
// any file system, and may be swapped as a whole by a link.
func (d *daemon) watchFiles(ctx context.Context) {
	if d.configFile == "" {
		return
	}
	d.files.CompareAndSwap(nil, new(d.filesNow()))
	seen := *d.files.Load()
	for wait := filesEvery; sleep(ctx, wait); {
		now := d.filesNow()
		wait = filesEvery
		settled := maps.Equal(now, seen)
		switch seen = now; {
		case maps.Equal(now, *d.files.Load()):
		case settled:
			d.reload(ctx, "files changed", "")
		default:
			wait = filesSettle
		}
	}
}

// fileState is what tells one version of a file from another.
type fileState struct {
	size     int64
	modified time.Time
	inode    uint64
	// changed is when the inode was: a file that could not be read may be readable now.
	changed time.Time
}

// filesNow are the configuration and the policy files as they are.
func (d *daemon) filesNow() map[string]fileState {
	files := map[string]fileState{}
	note := func(path string) {
		if info, err := os.Stat(path); err == nil {
			inode, changed := inodeOf(info)
			files[path] = fileState{info.Size(), info.ModTime(), inode, changed}
		}
	}
	note(d.configFile)
	paths, err := policy.Files(d.inForce().set.Config.Policies)
	if err != nil {
		d.log.Debug("policies cannot be listed", "err", err)
	}
	for _, path := range paths {
		note(path)
	}
	return files
}

// setLogLevel follows the configuration, unless a flag rules.
func (d *daemon) setLogLevel(level string) {
	var l slog.Level
	if d.logLevel != nil && !d.levelFlag && l.UnmarshalText([]byte(level)) == nil {
		d.logLevel.Set(l)
	}
}

// configuredFile is the configuration's path, absolute: the working directory may change.
func configuredFile(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("configuration file: %w", err)
	}
	return abs, nil
}
