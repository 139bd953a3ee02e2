package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestStateSpoilt spoils the state directory of a daemon that is stopped, in every way, and
// starts it again. It goes on without a hand, nothing is made twice, and the next rotation
// works. One estate lives through all of it. That the store is begun anew, file by file and way by way, is
// tested in internal/bus; here all ways are played with ROTATORD_TEST_LONG.
func TestStateSpoilt(t *testing.T) {
	t.Parallel()
	e := newEstate(t, "")
	p := e.started(e.launch())
	e.converged(p)
	e.rotate(p)
	e.terminate(p.process)
	e.check()

	const store = "nats/jetstream/rotatord/streams/"
	for _, test := range []struct {
		name string
		// files are spoilt, each with one of the ways; "" is the directory.
		files string
		ways  []string
		// says is what the log must hold.
		says string
	}{
		{"everything", "", []string{"deleted"}, ""},
		{"the journal's messages", store + "KV_rotatord_journal/msgs/*.blk", []string{"deleted", "emptied", "halved", "garbage"}, ""},
		{"the journal's description", store + "KV_rotatord_journal/meta.inf", []string{"emptied", "halved", "garbage"}, setAside},
		{"the journal's checksum", store + "KV_rotatord_journal/meta.sum", []string{"deleted", "garbage"}, setAside},
		{"the queue's messages", store + "ROTATORD_WORK/msgs/*.blk", []string{"halved", "garbage"}, ""},
		{"the triggers' messages", store + "ROTATORD_TRIGGERS/msgs/*.blk", []string{"halved", "garbage"}, ""},
		{"the events' messages", store + "ROTATORD_EVENTS/msgs/*.blk", []string{"halved", "garbage"}, ""},
		{"the triggers' description", store + "ROTATORD_TRIGGERS/meta.inf", []string{"halved"}, setAside},
		{"who heard which trigger", store + "ROTATORD_TRIGGERS/obs/*/o.dat", []string{"deleted", "emptied"}, ""},
		{"who heard which trigger", store + "ROTATORD_TRIGGERS/obs/*/o.dat", []string{"halved", "garbage"}, setAside},
		{"who works", store + "ROTATORD_WORK/obs/*/meta.inf", []string{"emptied", "garbage"}, setAside},
		{"the store", "nats/jetstream", []string{"garbage"}, setAside},
		{"every file of the store", store + "*/*", []string{"garbage"}, setAside},
		{"the keys", "keys/*/*", []string{"deleted", "emptied", "halved", "garbage"}, ""},
		{"the lock", "lock", []string{"deleted", "garbage"}, ""},
	} {
		for _, way := range test.ways {
			const ofStore = "nats/"
			few := testing.Short() || os.Getenv("ROTATORD_TEST_LONG") == "" && strings.HasPrefix(test.files, ofStore)
			if few && way != "garbage" && way != "deleted" {
				continue
			}
			t.Run(test.name+" "+way, func(t *testing.T) {
				e.during(t)
				e.forget()
				e.spoil(test.files, way)
				if test.files == "" {
					e.made[localPolicy]++ // without its key the one in force cannot be used any more
				}
				p := e.started(e.launch())
				e.converged(p)
				if test.says != "" && !strings.Contains(p.log.text(), test.says) {
					t.Errorf("the log does not say %q:\n%s", test.says, p.log.text())
				}
				e.rotate(p)
				e.terminate(p.process)
				e.check()
			})
		}
	}
	e.during(t)
	e.checkSecrets()
}

const setAside = "a part of the NATS store cannot be read; it is set aside and begun anew"

// rotate makes every policy have something new, and waits until it is in place.
func (e *estate) rotate(p *running) {
	e.t.Helper()
	for _, policy := range directoryPolicies {
		e.renew(policy)
	}
	for _, policy := range issuingPolicies {
		e.force(p, policy)
	}
	e.converged(p)
}

// spoil does something to all files of the state directory that a pattern means.
func (e *estate) spoil(pattern, way string) {
	e.t.Helper()
	files, err := filepath.Glob(filepath.Join(e.state(), pattern))
	if err != nil || len(files) == 0 {
		e.t.Fatalf("there is no %s: %v", pattern, err)
	}
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			e.t.Fatal(err)
		}
		var data []byte
		if info.Mode().IsRegular() {
			if data, err = os.ReadFile(file); err != nil {
				e.t.Fatal(err)
			}
		}
		switch way {
		case "emptied":
			data = nil
		case "halved":
			data = data[:len(data)/2]
		case "garbage":
			data = slices.Repeat([]byte("\x00\xff{garbage"), 1+len(data)/8)
		}
		if err = os.RemoveAll(file); err == nil && way != "deleted" {
			err = os.WriteFile(file, data, 0o600)
		}
		if err != nil {
			e.t.Fatal(err)
		}
	}
}

// TestStateOfYesterday puts a copy of the state directory in its place that was made before
// the last rotations, whose predecessors are deleted and revoked meanwhile.
func TestStateOfYesterday(t *testing.T) {
	for rotations := 1; rotations <= 2; rotations++ {
		t.Run(fmt.Sprintf("%d rotations ago", rotations), func(t *testing.T) {
			t.Parallel()
			e := newEstate(t, "drift: {every: 10s}\n") // a state of yesterday is compared at once
			p := e.started(e.launch())
			e.converged(p)
			e.rotate(p)
			e.terminate(p.process)
			e.check()
			backup := filepath.Join(e.dir, "yesterday")
			if err := os.CopyFS(backup, os.DirFS(e.state())); err != nil {
				t.Fatal(err)
			}

			p = e.started(e.launch())
			for range rotations {
				e.rotate(p)
			}
			e.terminate(p.process)
			e.check()
			if err := os.RemoveAll(e.state()); err != nil {
				t.Fatal(err)
			}
			e.forget()
			if err := os.Rename(backup, e.state()); err != nil {
				t.Fatal(err)
			}

			p = e.started(e.launch())
			looked := map[any]bool{}
			p.log.wait("a look at every issuer", func(line map[string]any) bool {
				if line["msg"] == "step" && line["step"] == "look" && line["target"] == "" {
					looked[line["policy"]] = true
				}
				return len(looked) == len(issuingPolicies)
			})
			// The key of what is in force is not of yesterday, and gone. The next certificate is
			// issued ten minutes after the last one that the record knows, or when it is forced.
			e.force(p, localPolicy)
			e.converged(p)
			e.rotate(p)
			e.terminate(p.process)
			e.check()
			e.checkSecrets()
		})
	}
}
