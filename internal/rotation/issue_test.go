package rotation

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/providers"
)

// issuer is a strict issuer in memory. Like an adapter's, its Issue adopts what an
// earlier try left behind.
type issuer struct {
	*world
	asks  string
	life  time.Duration
	ahead time.Duration // of our clock
	made  []*madeCertificate
	wrong string // why what it makes is not what was asked for
	// revoked and released as they happened
	revoked  []providers.Handle
	released [][]providers.Handle
	// journalled handles and keys that are gone
	gone map[providers.Handle]string
}

type madeCertificate struct {
	handle  providers.Handle
	info    certs.Info
	at      time.Time
	problem string
}

func (i *issuer) Asks() string { return i.asks }

func (i *issuer) Observe(_ context.Context, r providers.IssueRequest) (o providers.Issuance, err error) {
	err = i.outside("observe issuer", func() error {
		for _, m := range slices.Backward(i.made) {
			o.Certificates = append(o.Certificates, i.tell(m))
		}
		o.Authority = &providers.Authority{Name: "test CA", Status: "ACTIVED"}
		return nil
	})
	return o, err
}

func (i *issuer) tell(m *madeCertificate) providers.Issued {
	problem := m.problem
	if i.gone[m.handle] != "" {
		problem = i.gone[m.handle]
	}
	return providers.Issued{Handle: m.handle, Info: m.info, Chain: 1, Created: m.at, Owned: true, Problem: problem, PEM: []byte("-----BEGIN CERTIFICATE-----\npublic " + m.handle)}
}

func (i *issuer) Issue(_ context.Context, r providers.IssueRequest) (issued providers.Issued, err error) {
	err = i.outside("issue", func() error {
		if r.Since.IsZero() {
			i.t.Error("Issue without the time of the first try")
		}
		for _, m := range i.made {
			if !slices.Contains(r.Known, m.handle) && !m.at.Before(r.Since) && i.gone[m.handle] == "" {
				issued = i.tell(m)
				issued.Adopted = true
				return nil
			}
		}
		n := len(i.made) + 1
		now := time.Now().UTC()
		m := &madeCertificate{handle: providers.Handle(fmt.Sprintf("issued-%d", n)), at: now, problem: i.wrong, info: certs.Info{
			Fingerprint: certs.FingerprintOf(leafOf(providers.Handle(fmt.Sprintf("issued-%d", n)))), Names: []string{"shop.example.com", "www.example.com"}, NotBefore: now.Add(i.ahead), NotAfter: now.Add(i.life),
		}}
		i.made = append(i.made, m)
		issued = i.tell(m)
		return nil
	})
	return issued, err
}

func (i *issuer) Collect(_ context.Context, _ providers.IssueRequest, h providers.Handle) (b *certs.Bundle, err error) {
	err = i.outside("collect", func() error {
		for _, m := range i.made {
			if m.handle == h && i.gone[h] == "" {
				i.wanted = &Wanted{Info: m.info} // what the world's targets are given
				b = &certs.Bundle{Leaf: leafOf(h)}
				return nil
			}
		}
		return &providers.Error{Kind: providers.KindNotFound, Service: "ccm", Op: "collect", Message: i.gone[h]}
	})
	return b, err
}

func (i *issuer) Revoke(_ context.Context, _ providers.IssueRequest, h providers.Handle) error {
	return i.outside("revoke", func() error {
		for host, bound := range i.bound {
			if c := i.certificates[bound]; c != nil && i.find(h).info.Fingerprint == c.fingerprint {
				i.t.Errorf("%s was revoked, and %s serves it", h, host)
			}
		}
		if !slices.Contains(i.revoked, h) {
			i.revoked = append(i.revoked, h)
		}
		i.gone[h] = "it was revoked"
		return nil
	})
}

func (i *issuer) Release(_ context.Context, _ providers.IssueRequest, keep []providers.Handle) error {
	return i.outside("release", func() error { i.released = append(i.released, keep); return nil })
}

func (i *issuer) find(h providers.Handle) *madeCertificate {
	return i.made[slices.IndexFunc(i.made, func(m *madeCertificate) bool { return m.handle == h })]
}

// leafOf is a certificate whose content stands for the handle.
func leafOf(h providers.Handle) *x509.Certificate { return &x509.Certificate{Raw: []byte(h)} }

// newest is what should be served in the end.
func (i *issuer) newest() certs.Fingerprint { return i.made[len(i.made)-1].info.Fingerprint }

// issuingWorld has a policy with a private CA, and two hosts.
func issuingWorld(t *testing.T) (*world, *issuer) {
	p := testPolicy()
	p.Source.PrivateCA = &policy.PrivateCA{CommonName: "shop.example.com", Superseded: policy.SupersededRevoke}
	p.When.Renew.At = 66
	w := newWorld(t, p)
	i := &issuer{world: w, asks: "a", life: 90 * 24 * time.Hour, gone: map[providers.Handle]string{}}
	w.issuer = i
	return w, i
}

func inIssuingWorld(t *testing.T, test func(t *testing.T, w *world, i *issuer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w, i := issuingWorld(t)
		test(t, w, i)
	})
}

func (i *issuer) expectServed(n int) {
	i.t.Helper()
	i.expectState(StateConverged)
	if len(i.made) != n {
		i.t.Errorf("%d certificates were issued, want %d", len(i.made), n)
	}
	for host := range i.bound {
		if got := i.shown(host); got != i.newest() {
			i.t.Errorf("%s serves %s, want %s", host, got.Short(), i.newest().Short())
		}
	}
}

func TestIssueDeployAndRenew(t *testing.T) {
	inIssuingWorld(t, func(_ *testing.T, w *world, i *issuer) {
		w.drive(TriggerStartup, time.Minute)
		i.expectServed(1)
		if !w.said(EventIssued) || !w.said(EventConverged) {
			t.Errorf("events %v", w.order)
		}
		w.drive(TriggerDeadline, 59*24*time.Hour)
		i.expectServed(1) // two thirds of 90 days are not over yet
		w.drive(TriggerDeadline, 24*time.Hour)
		i.expectServed(2)
		if want := []providers.Handle{"issued-1"}; !slices.Equal(i.revoked, want) {
			t.Errorf("revoked %v, want %v", i.revoked, want)
		}
		if r := w.record(); len(r.Issued) != 1 || !r.Issuing.Since.IsZero() {
			t.Errorf("record %s", w.journal)
		}
	})
}

func TestSupersededIsKeptWhereThePolicySaysSo(t *testing.T) {
	inIssuingWorld(t, func(_ *testing.T, w *world, i *issuer) {
		w.policy.Source.PrivateCA.Superseded = policy.SupersededKeep
		w.drive(TriggerStartup, 100*24*time.Hour)
		i.expectServed(2)
		if len(i.revoked) > 0 || len(i.released) == 0 {
			t.Errorf("revoked %v, released %v; want only a release of the keys", i.revoked, i.released)
		}
	})
}

func TestForcedIssueIsMadeOnce(t *testing.T) {
	inIssuingWorld(t, func(t *testing.T, w *world, i *issuer) {
		w.drive(TriggerStartup, time.Hour)
		q := Request{Trigger: TriggerNATS, Force: true, Asked: time.Now()}
		for range 3 { // the queue delivers a message again after a crash
			if err := w.engine().Process(t.Context(), w.id, q); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		w.drive(TriggerDeadline, time.Minute)
		i.expectServed(2)
	})
}

func TestRejectedCertificateIsNotAskedForAgain(t *testing.T) {
	inIssuingWorld(t, func(_ *testing.T, w *world, i *issuer) {
		w.drive(TriggerStartup, time.Hour)
		i.wrong, i.asks = "asked for 2 names, got none", "b"
		w.drive(TriggerPolicy, 100*24*time.Hour)
		w.expectState(StateExpired) // what is served stays, and nothing worse takes its place
		if len(i.made) != 2 {
			t.Fatalf("%d certificates were issued; each try makes another one", len(i.made)-1)
		}
		if !slices.Equal(i.revoked, []providers.Handle{"issued-2"}) {
			t.Errorf("revoked %v, want the rejected one", i.revoked)
		}
		i.wrong, i.asks = "", "c"
		w.drive(TriggerPolicy, time.Hour)
		i.expectServed(3)
	})
}

func TestRefusalOfTheIssuerIsToldAndWhatIsServedStays(t *testing.T) {
	inIssuingWorld(t, func(_ *testing.T, w *world, i *issuer) {
		w.drive(TriggerStartup, time.Hour)
		w.fault = func(call string, after bool) error {
			if call == "issue" && !after {
				return &providers.Error{Kind: providers.KindInvalid, Service: "ccm", Op: "issue", Message: "the CA is disabled"}
			}
			return nil
		}
		i.asks = "b"
		w.drive(TriggerPolicy, 12*time.Hour)
		w.expectState(StateFailed)
		if r := w.record(); !strings.Contains(r.Reason, "the CA is disabled") {
			t.Errorf("reason %q", r.Reason)
		}
		if n := w.count("issue"); n > 20 {
			t.Errorf("%d tries in 12 hours", n)
		}
		w.fault = nil
		w.drive(TriggerDeadline, 2*time.Hour)
		i.expectServed(2)
	})
}

// Who asks again and again does not make the daemon wait longer for its own next try.
func TestImpatientTriesDoNotMakeThePausesLonger(t *testing.T) {
	inIssuingWorld(t, func(t *testing.T, w *world, i *issuer) {
		w.fault = func(call string, after bool) error {
			if call == "issue" && !after {
				return &providers.Error{Kind: providers.KindUnavailable, Service: "ccm", Op: "issue", RetryAfter: 30 * time.Second}
			}
			return nil
		}
		for range 10 {
			if err, _ := w.look(TriggerNATS); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second)
		}
		if a := w.record().Issuing.Attempts; a.Failures != 1 || time.Until(a.RetryAt) > 35*time.Second {
			t.Errorf("%d failures, next try in %s; want one, and its pause", a.Failures, time.Until(a.RetryAt))
		}
		w.fault = nil
		w.drive(TriggerDeadline, time.Minute)
		i.expectServed(1)
	})
}

func TestRevokedInTheConsoleIsReplaced(t *testing.T) {
	inIssuingWorld(t, func(_ *testing.T, w *world, i *issuer) {
		w.drive(TriggerStartup, time.Hour)
		i.gone["issued-1"] = "it was revoked"
		w.drive(TriggerDeadline, 7*time.Hour) // the next comparison notices
		i.expectServed(2)
	})
}

// A target that loses the certificate needs the bundle again, and its key may be gone.
func TestLostKeyLeadsToANewCertificate(t *testing.T) {
	inIssuingWorld(t, func(_ *testing.T, w *world, i *issuer) {
		w.drive(TriggerStartup, time.Hour)
		i.gone["issued-1"] = "its key is not on this host"
		w.certificates = map[providers.Handle]*uploaded{}
		for host := range w.bound {
			w.bound[host] = ""
		}
		w.drive(TriggerNATS, time.Hour)
		i.expectServed(2)
	})
}

func TestLostStateAdoptsWhatWasIssued(t *testing.T) {
	inIssuingWorld(t, func(_ *testing.T, w *world, i *issuer) {
		w.drive(TriggerStartup, time.Hour)
		w.journal, w.revision = nil, 0
		w.drive(TriggerStartup, time.Hour)
		i.expectServed(1)
	})
}

// yesterday rotates, and puts the journal of before in its place again.
func (i *issuer) yesterday() {
	i.t.Helper()
	before := i.journal
	if err := i.engine().Process(i.t.Context(), i.id, Request{Trigger: TriggerNATS, Force: true, Asked: time.Now()}); err != nil {
		i.t.Fatal(err)
	}
	i.drive(TriggerDeadline, 2*time.Hour)
	i.expectServed(2)
	i.journal = before
}

func TestStateOfYesterdayAdoptsWhatTookItsPlace(t *testing.T) {
	tests := []struct {
		name   string
		retain time.Duration
		before string // what the issuer says of the certificate of yesterday
	}{
		{"revoked meanwhile", time.Hour, "it was revoked"},
		{"still valid", 72 * time.Hour, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inIssuingWorld(t, func(_ *testing.T, w *world, i *issuer) {
				w.policy.Retain.For = new(policy.Duration(test.retain))
				w.drive(TriggerStartup, time.Hour)
				i.yesterday()
				i.gone["issued-1"] = test.before
				w.drive(TriggerStartup, 10*24*time.Hour)
				i.expectServed(2)
				if !slices.Equal(i.revoked, []providers.Handle{"issued-1"}) {
					t.Errorf("revoked %v, want the first alone", i.revoked)
				}
				if len(w.certificates) != 1 || len(w.record().Issued) != 1 {
					t.Errorf("something is left: %v, record %s", w.certificates, w.journal)
				}
			})
		})
	}
}

// A certificate that another host had made for itself is none of our business as long as
// ours is good: nothing of ours serves it.
func TestNewerCertificateOfAnotherHostIsNotTakenOver(t *testing.T) {
	inIssuingWorld(t, func(_ *testing.T, w *world, i *issuer) {
		w.drive(TriggerStartup, time.Hour)
		now := time.Now().UTC()
		i.made = append(i.made, &madeCertificate{handle: "theirs", at: now, info: certs.Info{
			Fingerprint: certs.FingerprintOf(leafOf("theirs")), Names: []string{"shop.example.com"}, NotBefore: now, NotAfter: now.Add(i.life),
		}})
		w.drive(TriggerNATS, 24*time.Hour)
		w.expectState(StateConverged)
		if r := w.record(); len(r.Issued) != 1 || r.Wanted.Fingerprint != i.made[0].info.Fingerprint || len(i.revoked) > 0 {
			t.Errorf("revoked %v, record %s", i.revoked, w.journal)
		}
	})
}

func TestForcedAfterARestoreOfYesterdayIsAnswered(t *testing.T) {
	inIssuingWorld(t, func(t *testing.T, w *world, i *issuer) {
		w.drive(TriggerStartup, time.Hour)
		i.yesterday()
		i.gone["issued-1"] = "it was revoked"
		if err := w.engine().Process(t.Context(), w.id, Request{Trigger: TriggerNATS, Force: true, Asked: time.Now()}); err != nil {
			t.Fatal(err)
		}
		w.drive(TriggerDeadline, time.Hour)
		i.expectServed(3)
	})
}

// TestIssuingCrashMatrix is TestCrashMatrix for a source that issues.
func TestIssuingCrashMatrix(t *testing.T) {
	tales := []struct {
		name    string
		prepare func(w *world, i *issuer)
		start   func(w *world, i *issuer) Trigger
		issued  int
	}{
		{"first", func(*world, *issuer) {}, func(*world, *issuer) Trigger { return TriggerStartup }, 1},
		{"policy changed", func(w *world, _ *issuer) { w.drive(TriggerStartup, time.Hour) }, func(_ *world, i *issuer) Trigger { i.asks = "b"; return TriggerPolicy }, 2},
		{"everything forgotten", func(w *world, _ *issuer) {
			w.drive(TriggerStartup, time.Hour)
			w.journal, w.revision = nil, 0
		}, func(*world, *issuer) Trigger { return TriggerStartup }, 1},
		{"restored from yesterday", func(w *world, i *issuer) {
			w.drive(TriggerStartup, time.Hour)
			i.yesterday()
			i.gone["issued-1"] = "it was revoked"
		}, func(*world, *issuer) Trigger { return TriggerNATS }, 2},
	}
	rows := 0
	for _, tale := range tales {
		var calls []string
		synctest.Test(t, func(t *testing.T) {
			w, i := issuingWorld(t)
			tale.prepare(w, i)
			w.calls = nil
			w.drive(tale.start(w, i), 4*time.Hour)
			i.expectServed(tale.issued)
			calls = w.calls
		})
		for n := range calls {
			for _, m := range fewMisfortunes(n) {
				rows++
				t.Run(fmt.Sprintf("%s/call %d %s/%s", tale.name, n, calls[n], m.name), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						w, i := issuingWorld(t)
						tale.prepare(w, i)
						w.calls = nil
						struck := false
						w.fault = func(_ string, after bool) error {
							if struck || after != m.after || len(w.calls)-1 != n {
								return nil
							}
							struck = true
							return m.err
						}
						w.drive(tale.start(w, i), 9*time.Hour)
						w.drive(TriggerDeadline, time.Hour)
						i.expectServed(tale.issued)
						for h, c := range w.certificates {
							if c.fingerprint != i.newest() {
								t.Errorf("an orphan is left: %s %s", h, c.name)
							}
						}
						if r := w.record(); r.Intent != nil || len(r.Outbox) > 0 || len(r.Issued) != 1 || !struck {
							t.Errorf("struck %v, not settled: %s", struck, w.journal)
						}
					})
				})
			}
		}
	}
	t.Logf("%d rows", rows)
}

// What a target serves that the policy let go of stays valid.
func TestTargetThatLeftKeepsItsCertificateValid(t *testing.T) {
	inIssuingWorld(t, func(_ *testing.T, w *world, i *issuer) {
		w.policy.Targets = append(w.policy.Targets, policy.Target{Name: "second", WAF: &policy.WAF{Hosts: policy.Names{List: []string{"www.example.com"}}}})
		w.policy.Targets[0].WAF.Hosts.List = []string{"shop.example.com"}
		w.second = target{w}
		w.drive(TriggerStartup, time.Hour)
		w.policy.Targets = w.policy.Targets[:1]
		w.drive(TriggerPolicy, time.Hour)
		i.asks = "b"
		w.drive(TriggerPolicy, 24*time.Hour)
		if len(i.made) != 2 || len(i.revoked) > 0 {
			t.Errorf("%d made, revoked %v, and www.example.com still serves the first", len(i.made), i.revoked)
		}
	})
}

// An issuer whose clock is a little ahead is waited for.
func TestIssuerWhoseClockIsAhead(t *testing.T) {
	inIssuingWorld(t, func(_ *testing.T, w *world, i *issuer) {
		i.ahead = 2 * time.Minute
		w.drive(TriggerStartup, time.Minute)
		w.expectState(StateWaiting)
		w.drive(TriggerDeadline, 5*time.Minute)
		i.expectServed(1)
		if w.said(EventFailed) {
			t.Error("a failure was told")
		}
	})
}
