package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// load starts a daemon over n pairs, and scrapes it.
func load(ctx context.Context, b *bench, n int) error {
	for _, l := range []layout{flat, directories, certbot, kubernetes} {
		if l != flat && n > 10000 {
			continue // the growth is that of flat; files of these make millions
		}
		p, err := generate(ctx, filepath.Join(b.dir, "pairs"), n, l)
		if err != nil {
			return err
		}
		if err := loadLayout(ctx, b, p, n, l); err != nil {
			return err
		}
		if err := os.RemoveAll(filepath.Join(b.dir, "pairs")); err != nil {
			return err
		}
	}
	return nil
}

type loadFigures struct {
	reading, parsing                                      []float64
	ready, readyCPU, complete, twoScrapes                 []float64
	quietCPU, quietWall, rawCPU, rawWall, size, perSeries []float64
	resident                                              []float64
}

func loadLayout(ctx context.Context, b *bench, p *pairs, n int, l layout) error {
	var f loadFigures
	for range b.rounds {
		cpu, err := ownCPU(func() error { return readPairs(p.root, false) })
		if err != nil {
			return err
		}
		f.reading = append(f.reading, cpu)
		if cpu, err = ownCPU(func() error { return readPairs(p.root, true) }); err != nil {
			return err
		}
		f.parsing = append(f.parsing, cpu)
		if err := loadOnce(ctx, b, p, n, &f); err != nil {
			return err
		}
	}
	name := func(what string) string { return string(l) + ": " + what }
	figures := []figure{
		{Name: name("start to ready"), Unit: "s", Values: f.ready},
		{Name: name("start to ready, CPU"), Unit: "s", Values: f.readyCPU, Limit: f.parsing, LimitName: "read, decode, parse leaves"},
		{Name: name("start to first complete scrape"), Unit: "s", Values: f.complete},
		{Name: name("load and two scrapes, CPU"), Unit: "s", Values: f.twoScrapes, Limit: f.parsing, LimitName: "read, decode, parse leaves", Goal: "at most that of other exporters"},
		{Name: name("reading alone, CPU"), Unit: "s", Values: f.reading},
	}
	if l == flat {
		figures = append(figures,
			figure{Name: "gzip scrape, nothing changed, CPU", Unit: "ms", Values: f.quietCPU, Limit: f.rawCPU, LimitName: "the same bytes from net/http, both sides"},
			figure{Name: "gzip scrape, nothing changed", Unit: "ms", Values: f.quietWall, Limit: f.rawWall, LimitName: "the same bytes from net/http", Goal: "20 at 10k, 100 at 100k"},
			figure{Name: "scrape on the wire", Unit: "MB", Values: f.size},
			figure{Name: "scrape, text a series", Unit: "B", Values: f.perSeries, Goal: "300"},
			figure{Name: "resident after 20 scrapes", Unit: "MiB", Values: f.resident, Goal: "75 at 1k, 135 at 10k, 550 at 100k"},
		)
	}
	return b.report.addAll(figures)
}

// loadOnce is the life of one daemon.
func loadOnce(ctx context.Context, b *bench, p *pairs, n int, f *loadFigures) error {
	dir, err := b.watching(p.root, "")
	if err != nil {
		return err
	}
	d, err := b.daemon(ctx, dir, "")
	if err != nil {
		return err
	}
	f.ready = append(f.ready, time.Since(d.started).Seconds())
	cpu, err := d.cpu()
	if err != nil {
		return err
	}
	f.readyCPU = append(f.readyCPU, cpu)
	for scrapes := 1; ; scrapes++ {
		s, err := d.scrape(ctx)
		if err != nil {
			return err
		}
		if scrapes == 1 {
			if got := strings.Count(string(s.text), "\nrotatord_certificate_not_after_timestamp_seconds{"); got != n {
				return fmt.Errorf("the first scrape has %d certificates", got)
			}
			f.complete = append(f.complete, time.Since(d.started).Seconds())
			f.size, f.perSeries = append(f.size, float64(s.sent)/1e6), append(f.perSeries, float64(s.bytes)/float64(s.series))
		}
		if scrapes == 2 {
			if cpu, err = d.cpu(); err != nil {
				return err
			}
			f.twoScrapes = append(f.twoScrapes, cpu)
		}
		if scrapes == 20 {
			if err := quietScrapes(ctx, d, s.sent, f); err != nil {
				return err
			}
			break
		}
	}
	resident, err := d.resident()
	if err != nil {
		return err
	}
	f.resident = append(f.resident, resident)
	err = d.stop()
	return err
}

// quietScrapes takes ten more, and as many bytes from a plain server in this process.
func quietScrapes(ctx context.Context, d *process, size int, f *loadFigures) error {
	body := make([]byte, size)
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) }))
	defer plain.Close()
	for range 10 {
		cpu, err := d.during(func() error {
			s, err := d.scrape(ctx)
			if err == nil {
				f.quietWall = append(f.quietWall, s.took.Seconds()*1e3)
			}
			return err
		})
		if err != nil {
			return err
		}
		f.quietCPU = append(f.quietCPU, cpu*1e3)
		started := time.Now()
		if cpu, err = ownCPU(func() error { return fetch(ctx, plain.URL) }); err != nil {
			return err
		}
		f.rawCPU, f.rawWall = append(f.rawCPU, cpu*1e3), append(f.rawWall, time.Since(started).Seconds()*1e3)
	}
	return nil
}

// readPairs is the least that a daemon has to do: read each file, and of certificates decode PEM and parse the leaf.
func readPairs(root string, parse bool) error {
	return readAll(root, func(name string, data []byte) error {
		if !parse {
			return nil
		}
		block, _ := pem.Decode(data)
		if block == nil {
			return fmt.Errorf("%s: no PEM", name)
		}
		if block.Type != "CERTIFICATE" {
			return nil
		}
		_, err := x509.ParseCertificate(block.Bytes)
		return err
	})
}

// ownCPU is the processor time that this process takes for something, in seconds.
func ownCPU(do func() error) (float64, error) {
	before, err := usage()
	if err != nil {
		return 0, err
	}
	if err := do(); err != nil {
		return 0, err
	}
	after, err := usage()
	return (after - before).Seconds(), err
}

func usage() (time.Duration, error) {
	var u unix.Rusage
	err := unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}
