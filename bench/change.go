package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/rotatord/rotatord/internal/certs"
)

const (
	// maxChanges bounds the single changes that are measured, maxStorm those of the storm.
	maxChanges = 200
	maxStorm   = 10000
	// standstill is how long the daemon is stopped in the middle of a storm, at least: half of the storm passes.
	standstill = time.Second
	// visibleLimit bounds the wait for a change to be seen.
	visibleLimit = 2 * time.Minute
)

// change starts a daemon over n pairs, and changes them: one at a time, many at once, one for the worse. Then it
// lets them be.
func change(ctx context.Context, b *bench, n int) error {
	p, err := generate(ctx, filepath.Join(b.dir, "pairs"), n, flat)
	if err != nil {
		return err
	}
	dir, err := b.watching(p.root, "")
	if err != nil {
		return err
	}
	d, err := b.daemon(ctx, dir, "")
	if err != nil {
		return err
	}
	for _, part := range []func(context.Context, *bench, *process, *pairs, int) error{idle, single, storm, corrupt} {
		if err := part(ctx, b, d, p, n); err != nil {
			return errors.Join(err, d.kill())
		}
	}
	if err := d.stop(); err != nil {
		return err
	}
	if err := looks(ctx, b, p); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(b.dir, "pairs"))
}

// idle lets the daemon be. Nothing is looked at meanwhile: the safety look is five minutes after the start.
func idle(ctx context.Context, b *bench, d *process, _ *pairs, _ int) error {
	if err := d.settle(ctx); err != nil {
		return err
	}
	cpu, err := d.during(func() error { return pause(ctx, b.window) })
	if err != nil {
		return err
	}
	return b.report.add(figure{Name: "idle for a minute, CPU", Unit: "s", Values: []float64{cpu * float64(time.Minute) / float64(b.window)}, Goal: "0.11, with a fifth of a look"})
}

// looks measures the safety look at everything, which finds nothing new.
func looks(ctx context.Context, b *bench, p *pairs) error {
	const name = `rotatord_source_rescans_total{kind="directory",reason="interval",source="watched"}`
	dir, err := home(b.dir, map[string]string{"watched": fmt.Sprintf("name: watched\nsource: {directory: {path: %s, recursive: true, rescan: 1s}}\n", p.root)})
	if err != nil {
		return err
	}
	d, err := b.daemon(ctx, dir, "")
	if err != nil {
		return err
	}
	var looked, limit []float64
	err = d.settle(ctx)
	for range b.rounds {
		if err != nil {
			break
		}
		var before, after, cpu float64
		before, err = d.value(ctx, name)
		if err == nil {
			cpu, err = d.during(func() error { return pause(ctx, 4*time.Second) })
		}
		if err == nil {
			after, err = d.value(ctx, name)
		}
		if err == nil && after == before {
			err = errors.New("it did not look")
		}
		if err == nil {
			looked = append(looked, cpu/(after-before))
			cpu, err = ownCPU(func() error { return statAll(p.root) })
			limit = append(limit, cpu)
		}
	}
	if err != nil {
		return errors.Join(err, d.kill())
	}
	if err := d.stop(); err != nil {
		return err
	}
	return b.report.add(figure{Name: "one look at all, nothing new, CPU", Unit: "s", Values: looked, Limit: limit, LimitName: "list and lstat all", Goal: "every 5 min"})
}

func statAll(root string) error {
	entries, err := os.ReadDir(root)
	for _, entry := range entries {
		if err == nil {
			_, err = os.Lstat(filepath.Join(root, entry.Name()))
		}
	}
	return err
}

// single replaces one certificate after the other.
func single(ctx context.Context, b *bench, d *process, p *pairs, n int) error {
	events, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer func() { _ = events.Close() }()
	if err := events.Add(p.root); err != nil {
		return err
	}
	var scraped, told, first, again []float64
	for i := range min(maxChanges, 2*n) {
		of := i * 7919 % n
		bundle, err := p.issue(of)
		if err != nil {
			return err
		}
		arrived := make(chan time.Time, 1)
		go func() { arrived <- awaitEvent(events, host(of)+".crt") }()
		started, err := p.replaceAt(bundle, host(of))
		if err != nil {
			return err
		}
		visible, cpu, err := d.awaitScrape(ctx, bundle)
		if err != nil {
			return err
		}
		scraped, first = append(scraped, visible.Sub(started).Seconds()*1e3), append(first, cpu*1e3)
		told = append(told, (<-arrived).Sub(started).Seconds()*1e3)
		if cpu, err = d.during(func() error { _, err := d.packed(ctx); return err }); err != nil {
			return err
		}
		again = append(again, cpu*1e3)
	}
	const limit = "to the event in another process"
	for _, f := range []figure{
		{Name: "rename to answered scrape, p50", Unit: "ms", Values: scraped, Limit: told, LimitName: limit, Goal: "50 at 10k"},
		{Name: "rename to answered scrape, p99", Unit: "ms", Values: []float64{quantile(scraped, 0.99)}, Limit: []float64{quantile(told, 0.99)}, LimitName: limit, Goal: "250 at 10k"},
		{Name: "first gzip scrape after one change, CPU", Unit: "ms", Values: first, Limit: again, LimitName: "the next one, nothing changed", Goal: "150 at 10k"},
	} {
		if err := b.report.add(f); err != nil {
			return err
		}
	}
	return nil
}

// glance is how long scrapes are taken before they are looked through: that takes longer than a scrape.
const glance = 60 * time.Millisecond

// awaitScrape scrapes until a bundle is shown, and returns when that answer was there, and what it cost.
func (p *process) awaitScrape(ctx context.Context, bundle *certs.Bundle) (time.Time, float64, error) {
	type answer struct {
		at     time.Time
		cpu    float64
		packed []byte
	}
	want := []byte(bundle.Fingerprint().String())
	for started := time.Now(); time.Since(started) < visibleLimit; {
		var answers []answer
		for from := time.Now(); time.Since(from) < glance; {
			var a answer
			var err error
			if a.cpu, err = p.during(func() error { a.packed, err = p.packed(ctx); return err }); err != nil {
				return time.Time{}, 0, err
			}
			a.at = time.Now()
			answers = append(answers, a)
		}
		for _, a := range answers {
			text, err := unpack(a.packed)
			if err != nil || bytes.Contains(text, want) {
				return a.at, a.cpu, err
			}
		}
	}
	return time.Time{}, 0, errors.New("a change is not shown")
}

// awaitEvent returns when the kernel told of the name; the zero time if it does not any more.
func awaitEvent(events *fsnotify.Watcher, name string) time.Time {
	for event := range events.Events {
		if filepath.Base(event.Name) == name {
			return time.Now()
		}
	}
	return time.Time{}
}

// storm replaces thousands without a pause. In the middle the daemon is stopped, so that the kernel's queue of
// events overflows.
func storm(ctx context.Context, b *bench, d *process, p *pairs, n int) error {
	const overflows = `rotatord_source_rescans_total{kind="directory",reason="overflow",source="watched"}`
	count := min(maxStorm, 10*n)
	before, err := d.value(ctx, overflows)
	if err != nil {
		return err
	}
	var stopped time.Time
	bundles := make([]*certs.Bundle, count)
	for i := range bundles {
		if bundles[i], err = p.issue(i % n); err != nil {
			return err
		}
	}
	for i, bundle := range bundles {
		var err error
		switch i {
		case count / 4:
			err = d.cmd.Process.Signal(syscall.SIGSTOP)
			stopped = time.Now()
		case 3 * count / 4:
			err = errors.Join(pause(ctx, time.Until(stopped.Add(standstill))), d.cmd.Process.Signal(syscall.SIGCONT))
		}
		if err := errors.Join(err, p.replace(bundle, host(i%n))); err != nil {
			return err
		}
	}
	last := time.Now()
	for {
		text, err := d.scrapeRaw(ctx)
		if err != nil {
			return err
		}
		settled := time.Since(last)
		if wrong := missing(string(text), bundles[max(0, count-n):]); wrong == 0 {
			after, err := d.value(ctx, overflows)
			return errors.Join(err,
				b.report.add(figure{Name: fmt.Sprintf("%d replaced at once, last to all right", count), Unit: "s", Values: []float64{settled.Seconds()}, Goal: "5 s"}),
				b.report.add(figure{Name: "overflows noticed, rescans_total", Unit: "", Values: []float64{after - before}, Goal: "noticed"}))
		} else if settled > visibleLimit {
			return fmt.Errorf("%d of %d are still wrong", wrong, count)
		}
	}
}

// missing counts the bundles that a scrape does not show.
func missing(text string, bundles []*certs.Bundle) int {
	shown := map[string]bool{}
	for line := range strings.Lines(text) {
		if _, rest, ok := strings.Cut(line, `fingerprint_sha256="`); ok {
			fingerprint, _, _ := strings.Cut(rest, `"`)
			shown[fingerprint] = true
		}
	}
	count := 0
	for _, bundle := range bundles {
		if !shown[bundle.Fingerprint().String()] {
			count++
		}
	}
	return count
}

// corrupt breaks the file of one certificate, and scrapes while others are being replaced.
func corrupt(ctx context.Context, b *bench, d *process, p *pairs, n int) error {
	const quarantined = `rotatord_source_quarantined{kind="directory",reason="truncated",source="watched"}`
	good, err := d.scrapeRaw(ctx)
	if err != nil {
		return err
	}
	path := filepath.Join(p.root, host(0)+".crt")
	if err := errors.Join(os.WriteFile(path+".tmp", []byte("-----BEGIN CERTIFICATE-----\nAAAA\n"), 0o600), os.Rename(path+".tmp", path)); err != nil {
		return err
	}
	broken := time.Now()
	for found := 0.0; found != 1; {
		if found, err = d.value(ctx, quarantined); err != nil {
			return err
		}
		if time.Since(broken) > visibleLimit {
			return errors.New("the corrupt file is not noticed")
		}
	}
	noticed := time.Since(broken)
	text, err := d.scrapeRaw(ctx)
	if err != nil {
		return err
	}
	touched := difference(bundleSeries(string(good)), bundleSeries(string(text)))
	lost, err := scrapesDuring(ctx, d, p, n)
	if err != nil {
		return err
	}
	return errors.Join(
		b.report.add(figure{Name: "a file turns corrupt, to quarantined", Unit: "ms", Values: []float64{noticed.Seconds() * 1e3}}),
		b.report.add(figure{Name: "series of certificates that this touched", Unit: "", Values: []float64{float64(touched)}, Goal: "0"}),
		b.report.add(figure{Name: "of 40 scrapes, those that miss a series", Unit: "", Values: []float64{float64(lost)}, Goal: "0"}))
}

// scrapesDuring scrapes forty times while other files are replaced, and counts the answers that are not complete.
func scrapesDuring(ctx context.Context, d *process, p *pairs, n int) (lost int, err error) {
	bundle, err := p.issue(n - 1)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var writer sync.WaitGroup
	var failed error
	writer.Go(func() {
		for failed == nil && ctx.Err() == nil {
			failed = p.replace(bundle, host(n-1))
		}
	})
	for range 40 {
		var text []byte
		if text, err = d.scrapeRaw(ctx); err != nil {
			break
		}
		if strings.Count(string(text), "\nrotatord_certificate_not_after_timestamp_seconds{") != n {
			lost++
		}
	}
	cancel()
	writer.Wait()
	return lost, errors.Join(err, failed)
}

// bundleSeries are the lines of a scrape that tell of certificates.
func bundleSeries(text string) map[string]bool {
	lines := map[string]bool{}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "rotatord_certificate_") {
			lines[line] = true
		}
	}
	return lines
}

// difference counts what one of the two has and the other has not.
func difference(a, b map[string]bool) int {
	count := 0
	for line := range a {
		if !b[line] {
			count++
		}
	}
	for line := range b {
		if !a[line] {
			count++
		}
	}
	return count
}

// replaceAt is replace, and says when the certificate was about to be renamed.
func (p *pairs) replaceAt(bundle *certs.Bundle, name string) (time.Time, error) {
	key, err := bundle.Key.PEM(certs.PKCS8)
	if err != nil {
		return time.Time{}, err
	}
	keyFile, leafFile := filepath.Join(p.root, name+".key"), filepath.Join(p.root, name+".crt")
	err = errors.Join(os.WriteFile(keyFile+".tmp", key, 0o600), os.WriteFile(leafFile+".tmp", bundle.FullChainPEM(), 0o600),
		os.Rename(keyFile+".tmp", keyFile))
	started := time.Now()
	return started, errors.Join(err, os.Rename(leafFile+".tmp", leafFile))
}

// scrapeRaw is the text of a scrape.
func (p *process) scrapeRaw(ctx context.Context) ([]byte, error) {
	s, err := p.scrape(ctx)
	if err != nil {
		return nil, err
	}
	return s.text, nil
}

// value is what a scrape has for one series.
func (p *process) value(ctx context.Context, series string) (float64, error) {
	text, err := p.scrapeRaw(ctx)
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(text), "\n"+series+" ")
	if !ok {
		return 0, fmt.Errorf("no series %s", series)
	}
	number, _, _ := strings.Cut(rest, "\n")
	return strconv.ParseFloat(number, 64)
}

// settle returns when the daemon has done what it does after its start, a collection of garbage perhaps: half a
// second in which it used next to nothing.
func (p *process) settle(ctx context.Context) error {
	for range 40 {
		cpu, err := p.during(func() error { return pause(ctx, 500*time.Millisecond) })
		if err != nil || cpu < 0.005 {
			return err
		}
	}
	return nil
}
