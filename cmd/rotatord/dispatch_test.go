package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/rotation"
)

// TestHalfReplacedConcernsItself: while very many are replaced, some file is always half replaced. That
// has its own certificate looked at again, when it lasts, and nothing else that is due.
func TestHalfReplacedConcernsItself(t *testing.T) {
	r := newRig(t, host)
	r.policy("shop", host, "")
	d := r.start()
	r.converged(r.issue("shop", host))
	const others = 100
	for i := range others {
		id := rotation.ID{Policy: "shop", Certificate: fmt.Sprint("due", i)}
		d.records.put(placedID{ID: id}, mirrored{record: rotation.Record{State: rotation.StateWaiting}, revision: 1 << 40})
	}
	filed := func() (n int) {
		for line := range strings.Lines(r.fetch(d, "/metrics")) {
			fmt.Sscanf(line, `rotatord_triggers_total{trigger="file"} %d`, &n)
		}
		return n
	}
	before := filed()
	next, err := r.ca.Issue(certstest.Options{Names: []string{host}, NotBefore: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.dir, "shop", host+".crt"), next.FullChainPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	id := rotation.ID{Policy: "shop", Certificate: host}
	eventually(t, "what lasts is said", func() bool { return d.records.get(id).State == rotation.StateQuarantined })
	if n := filed() - before; n == 0 || n >= others {
		t.Errorf("%d looks because of one file", n)
	}
	if err := certstest.WritePair(filepath.Join(r.dir, "shop"), host, next); err != nil {
		t.Fatal(err)
	}
	r.converged(next)
	if n := filed() - before; n >= others {
		t.Errorf("%d looks because of one renewal", n)
	}
}
