package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/cloudsim"
	"github.com/rotatord/rotatord/internal/metrics"
	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/providers"
	"github.com/rotatord/rotatord/internal/rotation"
)

// This file is the crash matrix with everything real but the network and the clock: the
// wiring, the adapters, the cloud's client, the files on disk and the simulator. Each call
// that leaves the process, and each access to the journal, goes wrong once in each way.

// mishap is a way in which one outside call goes wrong.
type mishap struct {
	name string
	// after says that it strikes when the effect is there; kills that the process ends.
	after, kills bool
}

var mishaps = []mishap{
	{"refused", false, false}, {"timed out before the effect", false, false}, {"answer lost", true, false},
	{"killed before", false, true}, {"killed after", true, true},
}

// errNoAnswer is what the caller sees of a call whose answer never comes.
var errNoAnswer = errors.New("connection reset by peer")

// crashWorld is what stays when the process dies: the cloud, the disk and the journal.
type crashWorld struct {
	t   *testing.T
	sim *cloudsim.Sim
	ca  *certstest.CA
	dir string
	set *policy.Set
	id  rotation.ID

	journal  []byte
	revision rotation.Revision

	// wanted is what a directory source has.
	wanted *certs.Bundle
	// names of the certificate, and whether its key type is fixed.
	names []string

	// strike is asked at each outside call; dead says that the process has been killed.
	mu     sync.Mutex
	strike func(n int, after bool) (mishap, bool)
	calls  []crashCall
	dead   bool
	noting bool // what stays around each call

	meter *metrics.Metrics // nobody reads it
}

// crashCall is an outside call, and what would stay if the process were killed right before
// it and right after it.
type crashCall struct {
	name          string
	journal       bool
	before, after durable
}

// durable stands for all that survives a process, and for the time.
type durable struct {
	effects  int // of calls, in the cloud
	revision rotation.Revision
	disk     [sha256.Size]byte
	at       time.Time
}

// durable looks at what would stay now.
func (w *crashWorld) durable() durable {
	w.t.Helper()
	effects := 0
	for _, e := range w.sim.Ledger() {
		if e.Effect {
			effects++
		}
	}
	disk := sha256.New()
	err := filepath.WalkDir(w.dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fmt.Fprintf(disk, "%q %s\n", path, entry.Type())
		var content string
		if entry.Type() == os.ModeSymlink {
			content, err = os.Readlink(path)
		} else if entry.Type().IsRegular() {
			data, failed := os.ReadFile(path)
			content, err = string(data), failed
		}
		fmt.Fprintf(disk, "%q\n", content)
		return err
	})
	if err != nil {
		w.t.Error(err)
	}
	return durable{effects, w.revision, [sha256.Size]byte(disk.Sum(nil)), time.Now()}
}

// around makes one outside call, with what goes wrong.
func (w *crashWorld) around(call string, effect func() error, refused func() error) error {
	n, m, struck := w.begin(call)
	if n < 0 {
		return errNoAnswer // nothing leaves a process that is dead
	}
	if struck {
		if m.name == "refused" {
			return refused()
		}
		return errNoAnswer
	}
	if err := effect(); err != nil {
		return err
	}
	w.ended(n)
	if _, struck := w.struck(n, true); struck {
		return errNoAnswer
	}
	return nil
}

// begin numbers a call, from 0; negative when the process is dead.
func (w *crashWorld) begin(call string) (n int, m mishap, struck bool) {
	w.mu.Lock()
	if w.dead {
		w.mu.Unlock()
		return -1, mishap{}, false
	}
	n = len(w.calls)
	w.calls = append(w.calls, crashCall{name: call, journal: call == "load" || call == "save"})
	if w.noting {
		w.calls[n].before = w.durable()
	}
	w.mu.Unlock()
	m, struck = w.struck(n, false)
	return n, m, struck
}

// ended notes what stays after a call.
func (w *crashWorld) ended(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.noting {
		w.calls[n].after = w.durable()
	}
}

func (w *crashWorld) struck(n int, after bool) (mishap, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.strike == nil {
		return mishap{}, false
	}
	m, struck := w.strike(n, after)
	w.dead = w.dead || struck && m.kills
	return m, struck
}

// RoundTrip implements http.RoundTripper over the simulator.
func (w *crashWorld) RoundTrip(q *http.Request) (answer *http.Response, err error) {
	path := strings.Split(q.URL.Path, "/")
	err = w.around(q.Method+" "+path[len(path)-1], func() (err error) {
		answer, err = w.sim.Transport().RoundTrip(q)
		return err
	}, func() error {
		answer = &http.Response{
			StatusCode: http.StatusServiceUnavailable, Header: http.Header{}, Request: q, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Body: io.NopCloser(strings.NewReader("down")),
		}
		return nil
	})
	if err != nil {
		if answer != nil {
			_ = answer.Body.Close()
		}
		return nil, err
	}
	return answer, nil
}

// The journal, the events and the handshakes.

type crashJournal struct{ *crashWorld }

func (w crashJournal) Load(context.Context, rotation.ID) (r rotation.Record, revision rotation.Revision, err error) {
	err = w.around("load", func() error {
		revision = w.revision
		if w.journal == nil {
			return nil
		}
		return json.Unmarshal(w.journal, &r)
	}, func() error { return errNoAnswer })
	return r, revision, err
}

func (w crashJournal) Save(_ context.Context, _ rotation.ID, r rotation.Record, read rotation.Revision) (revision rotation.Revision, err error) {
	err = w.around("save", func() error {
		if read != w.revision {
			return rotation.ErrConflict
		}
		body, err := json.Marshal(r)
		if err != nil {
			return err
		}
		w.journal, w.revision = body, w.revision+1
		revision = w.revision
		return nil
	}, func() error { return errNoAnswer })
	return revision, err
}

func (w *crashWorld) Publish(context.Context, rotation.Event) error { return nil }

// Probe shows what the cloud has bound, and what is in the files.
func (w *crashWorld) Probe(_ context.Context, r providers.ProbeRequest) []providers.Probe {
	var probes []providers.Probe
	for _, endpoint := range r.Endpoints {
		name, _, _ := strings.Cut(endpoint, ":")
		probes = append(probes, providers.Probe{Endpoint: endpoint, Fingerprint: w.served(name)})
	}
	return probes
}

// served is what a host, a domain, an application or a directory has.
func (w *crashWorld) served(name string) (f certs.Fingerprint) {
	text := ""
	if _, bound, ok := w.sim.Bound(name); ok {
		text = bound
	}
	for _, d := range w.sim.Domains() {
		if d.Name == name && len(d.Certificates) > 0 {
			text = d.Certificates[0].Fingerprint
		}
	}
	for _, a := range w.sim.Applications() {
		for _, c := range a.Certificates {
			if a.ID == name && c.Status == "ACTIVE" {
				text = c.Fingerprint
			}
		}
	}
	if strings.HasPrefix(name, "/") {
		return fileFingerprint(filepath.Join(name, "cert.pem"))
	}
	f, _ = certs.ParseFingerprint(text)
	return f
}

func fileFingerprint(path string) (f certs.Fingerprint) {
	data, err := os.ReadFile(path)
	if err != nil {
		return f
	}
	contents, _ := certs.ParsePEM(data, nil)
	if len(contents.Certificates) > 0 {
		f = certs.FingerprintOf(contents.Certificates[0].Certificate)
	}
	return f
}

// crashSource is the directory, as a source that is looked at from memory.
type crashSource struct{ *crashWorld }

func (w crashSource) Refresh(context.Context, string, time.Time) error { return nil }

func (w crashSource) Wanted(string) (rotation.Wanted, bool) {
	return rotation.Wanted{Info: w.wanted.Info(), Chain: len(w.wanted.Chain)}, true
}

func (w crashSource) Owners() *rotation.Owners {
	return rotation.NewOwners(func(yield func(string, certs.Info) bool) { yield(w.id.Certificate, w.wanted.Info()) })
}

func (w crashSource) Load(context.Context, string, certs.Fingerprint) (*certs.Bundle, error) {
	return w.wanted, nil
}

// crashTale is a policy and what happens to it.
type crashTale struct {
	name string
	// text is the policy, with %[1]s a directory and the simulator's ids after it.
	text string
	// issues says that the source makes the certificates; prepare, if not nil, is done
	// without a mishap, and event is what starts the work.
	issues  bool
	prepare func(w *crashWorld)
	event   func(w *crashWorld) rotation.Request
}

const (
	crashHost   = "shop.example.com"
	crashDomain = "api.example.com"
)

// crashTales are all kinds of policies, at a first rotation and at the one after it.
func crashTales() []crashTale {
	renewed := func(w *crashWorld) rotation.Request {
		w.renew()
		return rotation.Request{Trigger: rotation.TriggerFile, Asked: time.Now()}
	}
	forced := func(*crashWorld) rotation.Request {
		return rotation.Request{Trigger: rotation.TriggerNATS, Force: true, Asked: time.Now()}
	}
	forgotten := func(w *crashWorld) rotation.Request {
		w.journal, w.revision = nil, 0
		return rotation.Request{Trigger: rotation.TriggerStartup, Asked: time.Now()}
	}
	restored := func(w *crashWorld, next func(*crashWorld) rotation.Request) {
		yesterday := w.journal
		w.drive(next(w), 2*time.Hour)
		w.checkEnd()
		w.journal = yesterday
	}
	const directory = "name: p\nsource: {directory: {path: /nowhere}}\nretain: {superseded: 0, for: 1m}\n"
	const issued = "name: p\nsource: {private_ca: {issuer_id: %%[3]s, common_name: shop.example.com, key: {held: %s}, validity: 90d, superseded: revoke}}\nretain: {superseded: 0, for: 1m}\n"
	policies := []crashTale{
		{name: "waf", text: directory + "targets: [{name: edge, waf: {hosts: [shop.example.com]}}]\n"},
		{name: "apig in place", text: directory + "targets: [{name: edge, apig: {instance_id: %[2]s, domains: [api.example.com]}}]\n"},
		{name: "apig new", text: directory + "targets: [{name: edge, apig: {instance_id: %[2]s, domains: [api.example.com], replace: new}}]\n"},
		{name: "file and waf", text: directory + "targets: [{name: web, file: {directory: %[1]s, certificate: cert.pem, key: key.pem}}, {name: edge, waf: {hosts: [shop.example.com]}}]\n"},
		{name: "private ca, local", issues: true, text: fmt.Sprintf(issued, "local") + "targets: [{name: edge, waf: {hosts: [shop.example.com]}}]\n"},
		{name: "private ca, cloud", issues: true, text: fmt.Sprintf(issued, "cloud") + "targets: [{name: edge, waf: {hosts: [shop.example.com]}}]\n"},
		{name: "identity center", issues: true, text: "name: p\nsource: {identity_center: {instance_id: %[4]s, application_instance_id: %[5]s, activate: {after: 1m}}}\n" +
			"retain: {superseded: 0, for: 1m}\ntargets: [{name: web, file: {directory: %[1]s, certificate: cert.pem}}]\n"},
	}
	var tales []crashTale
	for _, p := range policies {
		next := renewed
		if p.issues {
			next = forced
		}
		for name, event := range map[string]func(*crashWorld) rotation.Request{"renewed": next, "everything forgotten": forgotten} {
			tale := p
			tale.name, tale.event = p.name+"/"+name, event
			tales = append(tales, tale)
		}
		tale := p
		tale.name = p.name + "/restored from yesterday"
		tale.prepare = func(w *crashWorld) { restored(w, next) }
		tale.event = func(*crashWorld) rotation.Request {
			return rotation.Request{Trigger: rotation.TriggerStartup, Asked: time.Now()}
		}
		tales = append(tales, tale)
	}
	slices.SortFunc(tales, func(a, b crashTale) int { return strings.Compare(a.name, b.name) })
	return tales
}

// newCrashWorld makes the world of a tale, converged on a first certificate.
func newCrashWorld(t *testing.T, tale crashTale, seed uint64) *crashWorld {
	t.Helper()
	w := &crashWorld{t: t, dir: t.TempDir(), names: []string{crashHost, crashDomain}, meter: metrics.New(metrics.Config{Look: func() metrics.Look { return metrics.Look{} }})}
	var err error
	if w.ca, err = certstest.NewCA("crash"); err != nil {
		t.Fatal(err)
	}
	w.renew()
	key, err := w.wanted.Key.PEM(certs.Traditional)
	if err != nil {
		t.Fatal(err)
	}
	var instances []cloudsim.IdentityInstance
	if strings.Contains(tale.text, "identity_center") { // its first certificate is of RSA, and dear
		instances = []cloudsim.IdentityInstance{{Applications: []cloudsim.Application{{Name: "app"}}}}
	}
	w.sim, err = cloudsim.New(cloudsim.Config{
		AccessKey: simulatedKey, SecretKey: "secret-of-this-test", CertificateQuota: -1, Seed: seed,
		Hosts: []cloudsim.Host{{Name: crashHost}},
		Gateways: []cloudsim.Gateway{{Groups: []cloudsim.Group{{Domains: []cloudsim.Domain{{
			Name: crashDomain, Certificates: []cloudsim.GatewayCertificate{{Name: "by_hand", CertPEM: w.wanted.FullChainPEM(), KeyPEM: key, Instance: true}},
		}}}}}},
		Authorities: []cloudsim.Authority{{CommonName: "Root"}, {CommonName: "Issuing", Parent: "Root"}},
		Instances:   instances,
	})
	if err != nil {
		t.Fatal(err)
	}
	w.configure(tale.text)
	w.drive(rotation.Request{Trigger: rotation.TriggerStartup, Asked: time.Now()}, time.Hour)
	w.checkEnd()
	if tale.prepare != nil {
		tale.prepare(w)
	}
	return w
}

func (w *crashWorld) configure(text string) {
	w.t.Helper()
	out := filepath.Join(w.dir, "out")
	info := w.sim.Config()
	var application cloudsim.ApplicationInfo
	if all := w.sim.Applications(); len(all) > 0 {
		application = all[0]
	}
	text = fmt.Sprintf(text+"%.0[1]s%.0[2]s%.0[3]s%.0[4]s%.0[5]s", out, info.Gateways[0].ID, w.sim.Authorities()[1].ID, application.InstanceID, application.ID)
	for name, content := range map[string]string{
		"secret": info.SecretKey, "policies/p.yaml": text,
		"rotatord.yaml": fmt.Sprintf("state: state\nnode: test\nclouds: {default: {region: %s, auth: {access_key: {id: %s, secret_file: secret}},"+
			" endpoints: {ccm: \"https://ccm.example.com\"}, limits: {waf: &fast {rate: 1000, burst: 1000}, apig: *fast, ccm: *fast, identity_center: *fast}}}\n", info.Region, info.AccessKey),
	} {
		path := filepath.Join(w.dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		w.t.Fatal(err)
	}
	var err error
	if w.set, err = policy.Load(filepath.Join(w.dir, "rotatord.yaml"), func(string) string { return "" }); err != nil {
		w.t.Fatal(err)
	}
	w.id = rotation.ID{Policy: "p", Certificate: crashHost}
	if p := w.set.Policies[0]; p.Source.Issues() {
		w.id.Certificate = p.Source.Certificate()
	}
}

// renew puts a new bundle into the source.
func (w *crashWorld) renew() {
	w.t.Helper()
	time.Sleep(time.Second) // its validity begins later than its predecessor's
	b, err := w.ca.Issue(certstest.Options{Names: w.names, NotBefore: time.Now().Truncate(time.Second)})
	if err != nil {
		w.t.Fatal(err)
	}
	w.wanted = b
}

// process is a rotatord that was just started.
func (w *crashWorld) process() *rotation.Engine {
	w.t.Helper()
	w.dead = false
	p := w.set.Policies[0]
	log := slog.New(slog.NewTextHandler(w.t.Output(), nil))
	wiring := newWiring(w.set, w.meter, log)
	wiring.transport = w
	made := &part{assembly: &rotation.Assembly{Policy: p, Targets: map[string]providers.Target{}}}
	if p.Source.Issues() {
		if err := wiring.source(made, p, nil); err != nil {
			w.t.Fatal(err)
		}
		made.assembly.Source = made.source
	} else {
		made.assembly.Source = crashSource{w}
	}
	for _, target := range p.Targets {
		var err error
		if made.assembly.Targets[target.Name], err = wiring.target(target); err != nil {
			w.t.Fatal(err)
		}
	}
	return rotation.New(rotation.Config{
		Assembly: func(string) *rotation.Assembly { return made.assembly },
		Journal:  crashJournal{w}, Events: w, Prober: w, Meter: w.meter, Logger: log,
	})
}

func (w *crashWorld) record() (r rotation.Record) {
	_ = json.Unmarshal(w.journal, &r)
	return r
}

// drive plays the work queue and the alarm: a message comes again until it was worked
// on, a dead process is followed by another, and deadlines are kept.
func (w *crashWorld) drive(q rotation.Request, span time.Duration) {
	w.t.Helper()
	end := time.Now().Add(span)
	engine := w.process()
	for looks := 0; ; looks++ {
		if looks > 500 {
			w.t.Fatalf("it never comes to rest: %s", w.journal)
		}
		err := engine.Process(w.t.Context(), w.id, q)
		if w.dead {
			engine = w.process()
			err = errNoAnswer
		}
		if err != nil {
			time.Sleep(time.Second)
			continue
		}
		q = rotation.Request{Trigger: rotation.TriggerDeadline, Asked: time.Now()}
		at := w.record().WakeAt
		if at.IsZero() || at.After(end) {
			time.Sleep(time.Until(end))
			return
		}
		time.Sleep(time.Until(at))
	}
}

// checkEnd is the one checker of all invariants.
func (w *crashWorld) checkEnd() {
	w.t.Helper()
	r := w.record()
	if r.State != rotation.StateConverged || r.Intent != nil || len(r.Outbox) > 0 {
		w.t.Errorf("not at rest: %s", w.journal)
	}
	p := w.set.Policies[0]
	wanted := r.Wanted.Fingerprint
	if !p.Source.Issues() && wanted != w.wanted.Fingerprint() {
		w.t.Errorf("wanted is %s, the source has %s", wanted.Short(), w.wanted.Fingerprint().Short())
	}
	for _, target := range p.Targets {
		for _, name := range target.Endpoints().List {
			if got := w.served(name); got != wanted {
				w.t.Errorf("%s serves %s, want %s", name, got.Short(), wanted.Short())
			}
		}
	}
	w.checkLedger()
	w.checkOrphans(wanted)
}

// checkLedger: no leaf was uploaded twice.
func (w *crashWorld) checkLedger() {
	w.t.Helper()
	uploads := map[string]int{}
	for _, e := range w.sim.Ledger() {
		if e.Effect && strings.HasPrefix(e.Operation, "CreateCertificate") {
			uploads[e.Service+" "+e.Fingerprint]++
		}
	}
	for what, n := range uploads {
		if n > 1 {
			w.t.Errorf("%s was created %d times", what, n)
		}
	}
}

// checkOrphans: nothing that rotatord made is left but what is in force, and what it did
// not make is all there.
func (w *crashWorld) checkOrphans(wanted certs.Fingerprint) {
	w.t.Helper()
	for _, c := range w.sim.Certificates() {
		if strings.HasPrefix(c.Name, "rd_") && c.Fingerprint != wanted.String() {
			w.t.Errorf("firewall: %s is left", c.Name)
		}
	}
	foreign := 0
	for _, c := range w.sim.APIGCertificates() {
		if !strings.HasPrefix(c.Name, "rd_") {
			foreign++
		} else if c.Fingerprint != wanted.String() {
			w.t.Errorf("gateway: %s is left", c.Name)
		}
	}
	if foreign != 1 {
		w.t.Errorf("%d certificates of somebody else at the gateway, want 1", foreign)
	}
	for _, c := range w.sim.PrivateCertificates() {
		if c.Status == "ISSUED" && c.Fingerprint != wanted.String() {
			w.t.Errorf("private CA: %s is left, not revoked", c.ID)
		}
	}
}

// TestCrashMatrixOfEveryKind is the matrix. The rows of one tale are one test each.
func TestCrashMatrixOfEveryKind(t *testing.T) {
	t.Parallel()
	for _, tale := range crashTales() {
		t.Run(tale.name, func(t *testing.T) {
			t.Parallel()
			calls, issued := faultlessTale(t, tale)
			all, played := crashRows(calls), 0
			for i, row := range all {
				if (i+1)%oneOf(tale) != 0 {
					continue
				}
				played++
				t.Run(fmt.Sprintf("%d %s/%s", row.n, calls[row.n].name, row.name), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { playCrash(t, tale, row, issued) })
				})
			}
			t.Logf("%d rows", played)
		})
	}
}

// crashRow is a mishap of the nth call.
type crashRow struct {
	n int
	mishap
}

// crashRows are the mishaps of the calls, without those that are another row once more; all
// with ROTATORD_TEST_LONG.
func crashRows(calls []crashCall) (rows []crashRow) {
	died := map[durable]bool{}
	for n, call := range calls {
		for _, m := range mishaps {
			if os.Getenv("ROTATORD_TEST_LONG") != "" || !again(n, call, m, died) {
				rows = append(rows, crashRow{n, m})
			}
		}
	}
	return rows
}

// again reports whether a row before shows the same. The journal refuses with the error of a
// timeout; an answer that is lost of a call without an effect is a call that timed out; to
// die twice at one time, with the same left, is to die once. A call without an effect is
// refused or times out, by turns: what an adapter makes of either is in its own matrix, and
// what the engine makes of that in that of internal/rotation.
func again(n int, call crashCall, m mishap, died map[durable]bool) bool {
	at := call.before
	if m.after {
		at = call.after
	}
	looks := call.before == call.after && at != (durable{})
	switch {
	case m.name == "refused":
		return call.journal || looks && n%2 == 0
	case at == (durable{}):
		return false // it failed
	case m.kills:
		known := died[at]
		died[at] = true
		return known
	case m.after:
		return looks
	}
	return looks && !call.journal && n%2 == 1
}

// oneOf says that one of so many rows is played: all with ROTATORD_TEST_LONG, few where
// each takes long.
func oneOf(tale crashTale) int {
	switch {
	case os.Getenv("ROTATORD_TEST_LONG") != "":
		return 1
	case raceDetector:
		return 8
	case tale.prepare != nil:
		return 4
	}
	return 1
}

// faultlessTale returns the calls of a tale in which nothing goes wrong, and how many
// certificates are issued in it.
func faultlessTale(t *testing.T, tale crashTale) (calls []crashCall, issued int) {
	synctest.Test(t, func(t *testing.T) {
		w := newCrashWorld(t, tale, 1)
		w.calls, w.noting = nil, true
		w.drive(tale.event(w), 2*time.Hour)
		w.checkEnd()
		calls, issued = w.calls, w.issued()
	})
	return calls, issued
}

// issued counts what the services made themselves.
func (w *crashWorld) issued() int {
	n := len(w.sim.PrivateCertificates())
	for _, e := range w.sim.Ledger() {
		if e.Service == "identity_center" && e.Operation == "create_certificate" && e.Effect {
			n++
		}
	}
	return n
}

func playCrash(t *testing.T, tale crashTale, row crashRow, issued int) {
	w := newCrashWorld(t, tale, 1)
	w.calls = nil
	done := false
	w.strike = func(call int, after bool) (mishap, bool) {
		if done || call != row.n || after != row.after {
			return mishap{}, false
		}
		done = true
		return row.mishap, true
	}
	w.drive(tale.event(w), 6*time.Hour)
	w.checkEnd()
	if got := w.issued(); got != issued {
		t.Errorf("%d certificates were issued, want %d", got, issued)
	}
	if !done {
		t.Error("nothing went wrong")
	}
}
