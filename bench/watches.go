package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// watches starts a daemon over n directories with nothing in them but one pair in the first, and again where the
// kernel has fewer watches than that.
func watches(ctx context.Context, b *bench, n int) error {
	root := filepath.Join(b.dir, "tree")
	if err := os.RemoveAll(root); err != nil {
		return err
	}
	none, err := generate(ctx, filepath.Join(root, "none"), 1, directories)
	if err != nil {
		return err
	}
	many, err := generate(ctx, filepath.Join(root, "many"), 1, directories)
	if err != nil {
		return err
	}
	for i := 1; i < n; i++ {
		if err := os.Mkdir(filepath.Join(many.root, fmt.Sprintf("%06d", i)), 0o755); err != nil {
			return err
		}
	}
	var ready, resident, cpu, limit []float64
	for range b.rounds {
		var wall, memory, used [2]float64
		for i, p := range []*pairs{none, many} {
			if wall[i], memory[i], used[i], err = b.watched(ctx, p); err != nil {
				return err
			}
		}
		ready, resident, cpu = append(ready, wall[1]-wall[0]), append(resident, memory[1]-memory[0]), append(cpu, used[1]-used[0])
		started := time.Now()
		if err := watchAll(many.root); err != nil {
			return err
		}
		limit = append(limit, time.Since(started).Seconds())
	}
	if err := errors.Join(
		b.report.add(figure{Name: "directories watched, added to the start", Unit: "s", Values: ready, Limit: limit, LimitName: "fsnotify alone", Goal: "3 s at 100k"}),
		b.report.add(figure{Name: "directories watched, CPU", Unit: "s", Values: cpu}),
		b.report.add(figure{Name: "directories watched, resident after 20 scrapes", Unit: "MiB", Values: resident, Goal: "30 MiB at 100k"})); err != nil {
		return err
	}
	if err := b.polled(ctx, many, n); err != nil {
		return err
	}
	return os.RemoveAll(root)
}

// watched is a start over a tree: time and processor time until ready, and memory after 20 scrapes.
func (b *bench) watched(ctx context.Context, p *pairs) (wall, memory, used float64, err error) {
	dir, err := b.watching(p.root, "")
	if err != nil {
		return 0, 0, 0, err
	}
	d, err := b.daemon(ctx, dir, "")
	if err != nil {
		return 0, 0, 0, err
	}
	wall = time.Since(d.started).Seconds()
	used, err = d.cpu()
	for range 20 {
		if err == nil {
			_, err = d.scrape(ctx)
		}
	}
	if err == nil {
		memory, err = d.resident()
	}
	if err != nil {
		return 0, 0, 0, errors.Join(err, d.kill())
	}
	err = d.stop()
	return wall, memory, used, err
}

func watchAll(root string) error {
	events, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(root)
	for _, entry := range entries {
		if err == nil {
			err = events.Add(filepath.Join(root, entry.Name()))
		}
	}
	return errors.Join(err, events.Close())
}

// polled starts the daemon where the kernel gives it half of the watches that it needs: in a name space of users,
// whose limits are its own.
func (b *bench) polled(ctx context.Context, p *pairs, n int) error {
	const (
		rescan  = 2 * time.Second
		polling = `rotatord_source_polling{kind="directory",source="watched"}`
	)
	dir, err := b.watching(p.root, fmt.Sprintf(", rescan: %s", rescan))
	if err != nil {
		return err
	}
	limited := *b
	limited.binary = filepath.Join(dir, "limited")
	script := fmt.Sprintf("#!/bin/sh\nexec unshare --user --map-root-user sh -c 'echo %d > /proc/sys/user/max_inotify_watches && exec %s \"$@\"' limited \"$@\"\n", n/2+1, b.binary)
	if err := os.WriteFile(limited.binary, []byte(script), 0o700); err != nil {
		return err
	}
	d, err := limited.daemon(ctx, dir, "")
	if err != nil {
		return err
	}
	shown, took, err := pollOnce(ctx, d, p, polling)
	if err != nil {
		return errors.Join(err, d.kill())
	}
	if err := d.stop(); err != nil {
		return err
	}
	said := strings.Count(d.log.String(), "no watches left, polling instead")
	return errors.Join(
		b.report.add(figure{Name: "watches run out: source_polling", Values: []float64{shown}, Goal: "1"}),
		b.report.add(figure{Name: "watches run out: lines in the log", Values: []float64{float64(said)}, Goal: "1"}),
		b.report.add(figure{Name: "watches run out: rename to answered scrape", Unit: "s", Values: []float64{took.Seconds()}, Limit: []float64{rescan.Seconds()}, LimitName: "the interval of polling"}))
}

// pollOnce replaces the certificate, and returns when that is shown.
func pollOnce(ctx context.Context, d *process, p *pairs, series string) (float64, time.Duration, error) {
	shown, err := d.value(ctx, series)
	if err != nil {
		return 0, 0, err
	}
	bundle, err := p.issue(0)
	if err != nil {
		return 0, 0, err
	}
	directory := filepath.Join(p.root, host(0))
	if err := os.RemoveAll(directory); err != nil {
		return 0, 0, err
	}
	if err := p.plant(bundle, host(0), directories); err != nil {
		return 0, 0, err
	}
	planted := time.Now()
	at, _, err := d.awaitScrape(ctx, bundle)
	return shown, at.Sub(planted), err
}
