package privateca

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/cloudsim"
	"github.com/rotatord/rotatord/internal/providers"
)

// untilIssued is an engine that never gives up: each try is by a process of its own.
func (s *setup) untilIssued(t *testing.T, r providers.IssueRequest) providers.Issued {
	t.Helper()
	for n := range 4 {
		issued, err := s.issuer(t).Issue(t.Context(), r)
		if err == nil {
			if issued.Problem != "" {
				t.Fatalf("try %d: %s", n, issued.Problem)
			}
			return issued
		}
		// A read with an answer that is too long is called invalid: it would be as long again.
		if k := providers.KindOf(err); k == providers.KindUnknown || k == providers.KindInvalid && !strings.Contains(err.Error(), "longer than") {
			t.Fatalf("try %d: kind %s: %v", n, k, err)
		}
	}
	t.Fatal("no certificate after 4 tries")
	return providers.Issued{}
}

// settled checks that there is one certificate, with its key, and nothing else.
func (s *setup) settled(t *testing.T, issued providers.Issued) {
	t.Helper()
	s.wantCount(t, 1)
	s.collect(t, s.issuer(t), issued.Handle)
	want := []string{string(issued.Handle) + ".pem"}
	if s.spec.Held == HeldCloud {
		want = nil
	}
	if got := s.files(t); !slices.Equal(got, want) {
		t.Errorf("keys %v, want %v", got, want)
	}
	if tags := s.sim.PrivateCertificates()[0].Tags; tags["rotatord"] != mark(owner) {
		t.Errorf("tags %v", tags)
	}
}

// Whatever goes wrong once, there is one certificate in the end.
func TestFaultMatrix(t *testing.T) {
	faults := []cloudsim.Fault{
		{Name: cloudsim.FaultRefuse}, {Name: cloudsim.FaultInternal}, {Name: cloudsim.FaultBusy}, {Name: cloudsim.FaultBadGateway},
		{Name: cloudsim.FaultLost}, {Name: cloudsim.FaultCut}, {Name: cloudsim.FaultTruncate}, {Name: cloudsim.FaultHuge},
		{Name: cloudsim.FaultInternal, Phase: cloudsim.After},
		{Name: cloudsim.FaultWrongType, Field: "certificate_id"}, {Name: cloudsim.FaultWrongType, Field: "certificate"},
		{Name: cloudsim.FaultWrongType, Field: "certificate_chain"}, {Name: cloudsim.FaultWrongType, Field: "certificates"},
		{Name: cloudsim.FaultWrongType, Field: "create_time"}, {Name: cloudsim.FaultWrongType, Field: "status"},
		{Name: cloudsim.FaultWrongType, Field: "distinguished_name"}, {Name: cloudsim.FaultWrongType, Field: "resources"},
	}
	operations := []string{"list_certificates", "show_authority", "show_quota", "create", "create_tags", "show_certificate", "export_certificate", "list_tags"}
	for name, change := range held {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, operation := range operations {
				for _, f := range faults {
					t.Run(fmt.Sprintf("%s %s%s%s", operation, f.Name, f.Field, f.Phase), func(t *testing.T) {
						t.Parallel()
						s := newSetup(t, cloudsim.Config{}, change)
						f.Operation, f.Count = operation, 1
						if operation == "create" {
							f.Operation = s.creation()
						}
						s.fault(t, f)
						if operation == "list_certificates" || operation == "list_tags" {
							// Nothing to be found is nothing to be lost.
							s.fault(t, cloudsim.Fault{Operation: s.creation(), Name: cloudsim.FaultLost, Count: 1})
						}
						s.settled(t, s.untilIssued(t, now()))
					})
				}
			}
		})
	}
}

// A process is killed at each point of its way, and another one goes on.
func TestKilled(t *testing.T) {
	for name, change := range held {
		operations := []string{"list_certificates", "show_authority", "show_quota", "create", "create_tags", "show_certificate", "export_certificate"}
		for _, operation := range operations {
			for _, phase := range []cloudsim.Phase{cloudsim.Before, cloudsim.After} {
				t.Run(fmt.Sprintf("%s %s %s", name, operation, phase), func(t *testing.T) {
					t.Parallel()
					s := newSetup(t, cloudsim.Config{}, change)
					killedAt := operation
					if operation == "create" {
						killedAt = s.creation()
					}
					r := now()
					ctx, kill := context.WithCancel(t.Context())
					s.sim.Faults().OnCall(func(e cloudsim.Entry, at cloudsim.Phase) {
						if e.Operation == killedAt && at == phase {
							kill()
						}
					})
					_, err := s.issuer(t).Issue(ctx, r)
					s.sim.Faults().OnCall(nil)
					// There may be no such call, and the answer to the last one may come first.
					if err == nil && operation != "list_certificates" && operation != "export_certificate" {
						t.Fatal("it was not killed")
					}
					if err != nil && !errors.Is(err, context.Canceled) {
						t.Errorf("got %v", err)
					}
					// The effect of a call that was cut off comes all the same.
					first := s.untilIssued(t, r)
					s.settled(t, first)
					// And the answer to that one is lost, too.
					if again := s.untilIssued(t, r); again.Handle != first.Handle {
						t.Errorf("first %s, then %s", first.Handle, again.Handle)
					}
					s.settled(t, first)
				})
			}
		}
	}
}

func TestLostAnswer(t *testing.T) {
	for name, change := range held {
		t.Run(name, func(t *testing.T) {
			s := newSetup(t, cloudsim.Config{}, change)
			s.fault(t, cloudsim.Fault{Operation: s.creation(), Name: cloudsim.FaultLost, Count: 1})
			r := now()
			_, err := s.issuer(t).Issue(t.Context(), r)
			wantKind(t, err, providers.KindUnknownOutcome)
			s.wantCount(t, 1)
			issued := s.issue(t, s.issuer(t), r)
			s.settled(t, issued)
			// The next one is another one, with another key.
			second := s.issue(t, s.issuer(t), now(issued.Handle))
			if second.Handle == issued.Handle {
				t.Error("the certificate in force was issued again")
			}
			if s.collect(t, s.issuer(t), issued.Handle).Key.Matches(s.collect(t, s.issuer(t), second.Handle).Leaf) {
				t.Error("the key was used again")
			}
		})
	}
}

// The journal is lost too: of a pending key what was issued is found all the same.
func TestLostAnswerAndJournal(t *testing.T) {
	s := newSetup(t, cloudsim.Config{}, nil)
	s.fault(t, cloudsim.Fault{Operation: s.creation(), Name: cloudsim.FaultLost, Count: 1})
	_, err := s.issuer(t).Issue(t.Context(), now())
	wantKind(t, err, providers.KindUnknownOutcome)
	s.settled(t, s.issue(t, s.issuer(t), providers.IssueRequest{Owner: owner}))
}

// A certificate whose key still waits: the process was killed before it put the key in
// its place, and somebody learned of the certificate by its tag.
func TestKnownButPending(t *testing.T) {
	s := newSetup(t, cloudsim.Config{}, nil)
	r := now()
	ctx, kill := context.WithCancel(t.Context())
	s.sim.Faults().OnCall(func(e cloudsim.Entry, at cloudsim.Phase) {
		if e.Operation == "show_certificate" && at == cloudsim.Before {
			kill()
		}
	})
	if _, err := s.issuer(t).Issue(ctx, r); err == nil {
		t.Fatal("it was not killed")
	}
	s.sim.Faults().OnCall(nil)
	o, err := s.issuer(t).Observe(t.Context(), providers.IssueRequest{Owner: owner})
	if err != nil {
		t.Fatal(err)
	}
	if len(o.Certificates) != 1 || o.Certificates[0].Problem != "" || !o.Certificates[0].Owned {
		t.Fatalf("observed %+v", o.Certificates)
	}
	h := o.Certificates[0].Handle
	o, err = s.issuer(t).Observe(t.Context(), now(h))
	if err != nil || o.Certificates[0].Problem != "" {
		t.Errorf("observed %+v, %v", o.Certificates, err)
	}
	first := s.collect(t, s.issuer(t), h)
	second := s.issue(t, s.issuer(t), now(h))
	if second.Handle == h {
		t.Fatal("what is known was issued again")
	}
	if b := s.collect(t, s.issuer(t), second.Handle); first.Key.Matches(b.Leaf) {
		t.Error("both have one key")
	}
	s.collect(t, s.issuer(t), h)
}

// A list that is behind must not lead to a second certificate.
func TestListLag(t *testing.T) {
	for name, change := range held {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSetup(t, cloudsim.Config{ListLag: time.Second}, change)
			i := s.patient(t)
			i.settle = 1500 * time.Millisecond
			s.fault(t, cloudsim.Fault{Operation: s.creation(), Name: cloudsim.FaultLost, Count: 1})
			r := now()
			_, err := i.Issue(t.Context(), r)
			wantKind(t, err, providers.KindUnknownOutcome)
			_, err = i.Issue(t.Context(), r)
			wantKind(t, err, providers.KindUnavailable)
			e, _ := errors.AsType[*providers.Error](err)
			if e == nil || e.RetryAfter <= 0 || e.RetryAfter > i.settle {
				t.Fatalf("got %v", err)
			}
			if name == HeldLocal { // a new process knows by the key's age
				other := s.patient(t)
				other.settle = i.settle
				_, err = other.Issue(t.Context(), r)
				wantKind(t, err, providers.KindUnavailable)
			}
			time.Sleep(e.RetryAfter)
			s.settled(t, s.issue(t, i, r))
		})
	}
}

// A refusal is no reason to wait.
func TestRefusedThenIssued(t *testing.T) {
	for _, change := range held {
		s := newSetup(t, cloudsim.Config{}, change)
		i := s.patient(t)
		s.fault(t, cloudsim.Fault{Operation: s.creation(), Name: cloudsim.FaultAnswer, Status: 403, Code: "PCA.00000403", Count: 1})
		r := now()
		_, err := i.Issue(t.Context(), r)
		wantKind(t, err, providers.KindDenied)
		s.settled(t, s.issue(t, i, r))
	}
}

func TestAuthorityThatDoesNotIssue(t *testing.T) {
	for status, word := range map[string]string{
		"PENDING": "activate it", "DISABLED": "enable it", "DELETED": "restore it", "EXPIRED": "has expired", "REVOKED": "was revoked",
	} {
		for _, change := range held {
			s := newSetup(t, cloudsim.Config{}, change)
			i := s.issuer(t)
			issued := s.issue(t, i, now())
			if err := s.sim.ConsoleSetAuthority(s.spec.IssuerID, status); err != nil {
				t.Fatal(err)
			}
			i = s.issuer(t)
			_, err := i.Issue(t.Context(), now(issued.Handle))
			wantKind(t, err, providers.KindInvalid)
			if !strings.Contains(err.Error(), word) || !strings.Contains(err.Error(), issueCA) {
				t.Errorf("%s: %v", status, err)
			}
			o, err := i.Observe(t.Context(), now(issued.Handle))
			if err != nil || o.Authority.Status != status || !strings.Contains(o.Authority.Problem, word) {
				t.Errorf("%s: %+v, %v", status, o.Authority, err)
			}
			s.wantCount(t, 1)
			if status == "DISABLED" { // what is there can be used on
				s.collect(t, i, issued.Handle)
				if err := i.Revoke(t.Context(), now(issued.Handle), issued.Handle); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

func TestUnknownAuthority(t *testing.T) {
	for _, code404 := range []bool{true, false} {
		s := newSetup(t, cloudsim.Config{PrivateNotFound404: code404}, func(s *Spec) { s.Held = HeldCloud })
		s.spec.IssuerID = "2cb2878b-6cd1-460d-bd25-afe655159bdc"
		i := s.issuer(t)
		_, err := i.Issue(t.Context(), now())
		wantKind(t, err, providers.KindInvalid)
		o, err := i.Observe(t.Context(), now())
		if err != nil || !strings.Contains(o.Authority.Problem, "there is no private CA") {
			t.Errorf("%+v, %v", o.Authority, err)
		}
	}
}

// A certificate cannot outlive its CA, which can be known before it is asked for.
func TestLongerThanTheAuthority(t *testing.T) {
	for _, v := range []Validity{{Year, 1}, {Month, 2}, {Day, 41}, {Hour, 41*24 + 1}} {
		s := newSetup(t, cloudsim.Config{Authorities: []cloudsim.Authority{{CommonName: rootCA, NotAfter: time.Now().Add(40*24*time.Hour + time.Minute)}}},
			func(s *Spec) { s.Validity = v })
		_, err := s.issuer(t).Issue(t.Context(), now())
		wantKind(t, err, providers.KindInvalid)
		if !strings.Contains(err.Error(), "at most 40 days") || s.count(0, s.creation()) != 0 {
			t.Errorf("%v: %v", v, err)
		}
		if files := s.files(t); len(files) != 0 {
			t.Errorf("keys %v", files)
		}
	}
	s := newSetup(t, cloudsim.Config{Authorities: []cloudsim.Authority{{CommonName: rootCA, NotAfter: time.Now().Add(40*24*time.Hour + time.Minute)}}},
		func(s *Spec) { s.Validity = Validity{Day, 40} })
	s.issue(t, s.issuer(t), now())
}

func TestQuota(t *testing.T) {
	for _, change := range held {
		s := newSetup(t, cloudsim.Config{PrivateCertificateQuota: 1}, change)
		issued := s.issue(t, s.issuer(t), now())
		_, err := s.issuer(t).Issue(t.Context(), now(issued.Handle))
		wantKind(t, err, providers.KindQuota)
		if s.count(0, s.creation()) != 1 {
			t.Error("it was asked for all the same")
		}
		// Without the right to see the quota the service says it itself.
		s.fault(t, cloudsim.Fault{Operation: "show_quota", Name: cloudsim.FaultAnswer, Status: 403, Code: "PCA.00000403"})
		if _, err := s.issuer(t).Issue(t.Context(), now(issued.Handle)); err == nil || s.count(0, s.creation()) != 2 {
			t.Errorf("got %v", err)
		}
	}
}

// A service that drops what the request asks for is found out.
func TestExtensionsIgnored(t *testing.T) {
	s := newSetup(t, cloudsim.Config{IgnoreCSRExtensions: true}, nil)
	issued, err := s.issuer(t).Issue(t.Context(), now())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"names: asked for dns:*.payments.internal dns:payments.internal email:", ", got none", "extended key usages: asked for client_auth server_auth", "custom extension 1.3.6.1.4.1.2011.4.99"} {
		if !strings.Contains(issued.Problem, want) {
			t.Errorf("problem %q, want %q in it", issued.Problem, want)
		}
	}
	// The answer is lost, and it is not asked for again; once it is known, it is.
	r := now()
	again, err := s.issuer(t).Issue(t.Context(), r)
	if err != nil || again.Handle != issued.Handle || again.Problem != issued.Problem {
		t.Errorf("again %+v, %v", again, err)
	}
	other, err := s.issuer(t).Issue(t.Context(), now(issued.Handle))
	if err != nil || other.Handle == issued.Handle || other.Problem == "" {
		t.Errorf("other %+v, %v", other, err)
	}
}

func TestRevokedOrDeletedInTheConsole(t *testing.T) {
	for name, change := range held {
		for _, code404 := range []bool{true, false} {
			s := newSetup(t, cloudsim.Config{PrivateNotFound404: code404}, change)
			i := s.issuer(t)
			revoked := s.issue(t, i, now()).Handle
			gone := s.issue(t, i, now(revoked)).Handle
			kept := s.issue(t, i, now(gone, revoked)).Handle
			if err := errors.Join(s.sim.ConsoleRevoke(string(revoked)), s.sim.ConsoleDeletePrivate(string(gone))); err != nil {
				t.Fatal(err)
			}
			o, err := i.Observe(t.Context(), now(kept, gone, revoked))
			if err != nil {
				t.Fatal(err)
			}
			problems := map[providers.Handle]string{}
			for _, c := range o.Certificates {
				problems[c.Handle] = c.Problem
			}
			if len(problems) != 3 || problems[kept] != "" || problems[revoked] != "it was revoked" || problems[gone] != "it is gone: somebody deleted it" {
				t.Errorf("%s: %v", name, problems)
			}
			for _, h := range []providers.Handle{revoked, gone} {
				_, err := s.issuer(t).Collect(t.Context(), now(), h)
				wantKind(t, err, providers.KindNotFound)
				if err := i.Revoke(t.Context(), now(h), h); err != nil {
					t.Error(err)
				}
			}
			s.collect(t, i, kept)
		}
	}
}

// All state is lost; what the service knows is enough to go on, as long as the keys are
// there.
func TestStateLost(t *testing.T) {
	for name, change := range held {
		t.Run(name, func(t *testing.T) {
			s := newSetup(t, cloudsim.Config{}, change)
			first := s.issue(t, s.issuer(t), now())
			second := s.issue(t, s.issuer(t), now(first.Handle))
			if err := s.sim.ConsoleRevoke(string(first.Handle)); err != nil {
				t.Fatal(err)
			}
			if _, err := s.sim.ConsoleIssue(s.spec.IssuerID, s.spec.CommonName, "payments.internal"); err != nil {
				t.Fatal(err)
			}
			i := s.issuer(t)
			nothing := providers.IssueRequest{Owner: owner}
			for range 2 {
				n := len(s.sim.Ledger())
				o, err := i.Observe(t.Context(), nothing)
				if err != nil {
					t.Fatal(err)
				}
				if len(o.Certificates) != 1 || fmt.Sprint(o.Certificates[0]) != fmt.Sprint(second) {
					t.Errorf("observed %+v, want %+v", o.Certificates, second)
				}
				if shown := s.count(n, "show_certificate"); shown > 2 || n > 40 && shown > 1 {
					t.Errorf("%d certificates were shown", shown)
				}
			}
			if o, err := i.Observe(t.Context(), providers.IssueRequest{Owner: providers.Owner{Policy: "other", Certificate: owner.Certificate}}); err != nil || len(o.Certificates) != 0 {
				t.Errorf("another owner sees %+v, %v", o.Certificates, err)
			}
			// The policy asks for something else by now.
			s.spec.Organization, s.spec.Names = "Acme Bank", s.spec.Names[:2]
			o, err := s.issuer(t).Observe(t.Context(), nothing)
			if err != nil || len(o.Certificates) != 1 || !strings.Contains(o.Certificates[0].Problem, `organization: asked for "Acme Bank", got "Acme Pay"; names: asked for`) {
				t.Errorf("observed %+v, %v", o.Certificates, err)
			}
			if name == HeldCloud {
				return
			}
			if err := os.RemoveAll(s.keys); err != nil {
				t.Fatal(err)
			}
			for _, r := range []providers.IssueRequest{nothing, now(second.Handle)} {
				o, err = s.issuer(t).Observe(t.Context(), r)
				if err != nil || len(o.Certificates) != 1 || !strings.Contains(o.Certificates[0].Problem, "its private key is not on this host") {
					t.Errorf("observed %+v, %v", o.Certificates, err)
				}
			}
			_, err = s.issuer(t).Collect(t.Context(), nothing, second.Handle)
			wantKind(t, err, providers.KindNotFound)
		})
	}
}

// What others have made is not adopted, although it is just what is wanted.
func TestForeignNotAdopted(t *testing.T) {
	for name, change := range held {
		t.Run(name, func(t *testing.T) {
			s := newSetup(t, cloudsim.Config{}, change)
			if _, err := s.sim.ConsoleIssue(s.spec.IssuerID, s.spec.CommonName, "payments.internal"); err != nil {
				t.Fatal(err)
			}
			other := now()
			other.Owner.Policy = "other"
			theirs := s.issue(t, s.issuer(t), other)
			ours := s.issue(t, s.issuer(t), now())
			if ours.Handle == theirs.Handle {
				t.Error("the certificate of another policy was adopted")
			}
			s.wantCount(t, 3)
			if err := s.issuer(t).Revoke(t.Context(), now(theirs.Handle), theirs.Handle); err == nil {
				t.Error("the certificate of another policy was revoked")
			}
			byHand := providers.Handle(s.sim.PrivateCertificates()[0].ID)
			wantKind(t, s.issuer(t).Revoke(t.Context(), now(), byHand), providers.KindInvalid)
			for _, c := range s.sim.PrivateCertificates() {
				if c.Status != "ISSUED" {
					t.Errorf("%+v", c)
				}
			}
			o, err := s.issuer(t).Observe(t.Context(), now(ours.Handle, theirs.Handle, byHand))
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range o.Certificates {
				if c.Owned != (c.Handle != theirs.Handle) { // the journal says that the third is ours, and nobody says otherwise
					t.Errorf("observed %+v", c)
				}
			}
		})
	}
}

// A certificate that is just as asked for and has no mark is adopted only if it is new.
func TestOldNotAdopted(t *testing.T) {
	s := newSetup(t, cloudsim.Config{}, cloudHeld)
	s.fault(t, cloudsim.Fault{Operation: s.creation(), Name: cloudsim.FaultLost, Count: 1})
	_, err := s.issuer(t).Issue(t.Context(), now())
	wantKind(t, err, providers.KindUnknownOutcome)
	later := now()
	later.Since = time.Now().Add(6 * time.Minute)
	s.issue(t, s.issuer(t), later)
	s.wantCount(t, 2)
	never := providers.IssueRequest{Owner: owner}
	s.issue(t, s.issuer(t), never)
	s.wantCount(t, 3)
}

// Who holds the key has changed; what is in force keeps its key where it was.
func TestHeldChanges(t *testing.T) {
	s := newSetup(t, cloudsim.Config{}, nil)
	local := s.issue(t, s.issuer(t), now())
	asks := s.issuer(t).Asks()
	s.spec.Held = HeldCloud
	i := s.issuer(t)
	if i.Asks() == asks {
		t.Error("the digest is the same")
	}
	s.collect(t, i, local.Handle)
	cloud := s.issue(t, i, now(local.Handle))
	s.spec.Held = HeldLocal
	s.collect(t, s.issuer(t), cloud.Handle)
	o, err := s.issuer(t).Observe(t.Context(), now(cloud.Handle, local.Handle))
	if err != nil || o.Certificates[0].Problem+o.Certificates[1].Problem != "" {
		t.Errorf("observed %+v, %v", o.Certificates, err)
	}
}

func TestAtTheSameTime(t *testing.T) {
	for _, change := range held {
		s := newSetup(t, cloudsim.Config{}, change)
		i := s.issuer(t)
		r := now()
		var group sync.WaitGroup
		handles := make([]providers.Handle, 4)
		for n := range handles {
			group.Go(func() {
				issued, err := i.Issue(t.Context(), r)
				if err != nil {
					t.Error(err)
				}
				handles[n] = issued.Handle
				if _, err := i.Observe(t.Context(), now(issued.Handle)); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		if len(slices.Compact(handles)) != 1 {
			t.Errorf("handles %v", handles)
		}
		s.wantCount(t, 1)
	}
}

func TestContextEnded(t *testing.T) {
	for _, change := range held {
		s := newSetup(t, cloudsim.Config{}, change)
		i := s.issuer(t)
		issued := s.issue(t, i, now())
		n := len(s.sim.Ledger())
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		r := now(issued.Handle)
		_, made := s.issuer(t).Issue(ctx, r)
		_, observed := s.issuer(t).Observe(ctx, r)
		_, collected := i.Collect(ctx, r, issued.Handle)
		for verb, err := range map[string]error{
			"issue": made, "observe": observed, "collect": collected, "revoke": i.Revoke(ctx, r, issued.Handle),
		} {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", verb, err)
			}
		}
		if got := s.calls(n); len(got) != 0 {
			t.Errorf("calls %v", got)
		}
	}
}

func TestKeyFiles(t *testing.T) {
	s := newSetup(t, cloudsim.Config{}, nil)
	if err := os.MkdirAll(s.keys, 0o755); err != nil {
		t.Fatal(err)
	}
	directory := filepath.Join(s.keys, mark(owner))
	s.sim.Faults().OnCall(func(e cloudsim.Entry, at cloudsim.Phase) {
		if e.Operation != s.creation() || at != cloudsim.Before {
			return
		}
		for path, want := range map[string]fs.FileMode{s.keys: 0o700, directory: 0o700, filepath.Join(directory, pendingFile): 0o600} {
			info, err := os.Stat(path)
			if err != nil || info.Mode().Perm() != want {
				t.Errorf("%s: %v, %v", path, info.Mode(), err)
			}
		}
	})
	issued := s.issue(t, s.issuer(t), now())
	s.sim.Faults().OnCall(nil)
	file := filepath.Join(directory, string(issued.Handle)+".pem")
	data, err := os.ReadFile(file)
	if err != nil || !strings.HasPrefix(string(data), "-----BEGIN PRIVATE KEY-----\n") {
		t.Errorf("the key's file: %d bytes, %v", len(data), err)
	}

	// What a crash may have left of a write goes with the next; a broken pending key is
	// replaced.
	for name, text := range map[string]string{".pending.pem.tmp-123": "x", pendingFile: "no key"} {
		if err := os.WriteFile(filepath.Join(directory, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	second := s.issue(t, s.issuer(t), now(issued.Handle))
	if got := s.files(t); len(got) != 2 {
		t.Errorf("keys %v", got)
	}
	s.collect(t, s.issuer(t), second.Handle)

	// Release leaves the pending key alone, and the directory goes with the last.
	key, err := newKey("EC256")
	if err != nil {
		t.Fatal(err)
	}
	if err := (keyStore{s.keys}).putPending(owner, key); err != nil {
		t.Fatal(err)
	}
	if err := s.issuer(t).Release(t.Context(), now(), nil); err != nil {
		t.Fatal(err)
	}
	if got := s.files(t); !slices.Equal(got, []string{pendingFile}) {
		t.Errorf("keys %v", got)
	}
	if err := os.Remove(filepath.Join(directory, pendingFile)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.issuer(t).Release(t.Context(), now(), nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(directory); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory: %v", err)
	}
}

// Somebody puts links where keys are looked for.
func TestKeyFilesAreNoLinks(t *testing.T) {
	s := newSetup(t, cloudsim.Config{}, nil)
	issued := s.issue(t, s.issuer(t), now())
	directory := filepath.Join(s.keys, mark(owner))
	file := filepath.Join(directory, string(issued.Handle)+".pem")
	elsewhere := filepath.Join(t.TempDir(), "key.pem")
	move := func(from, to string) {
		t.Helper()
		if err := errors.Join(os.Rename(from, to), os.Symlink(to, from)); err != nil {
			t.Fatal(err)
		}
	}
	refused := func() {
		t.Helper()
		_, err := s.issuer(t).Collect(t.Context(), now(), issued.Handle)
		wantKind(t, err, providers.KindDenied)
		o, err := s.issuer(t).Observe(t.Context(), now(issued.Handle))
		if err != nil || !strings.Contains(o.Certificates[0].Problem, "cannot be read") || !strings.Contains(o.Certificates[0].Problem, "symbolic link") {
			t.Errorf("observed %+v, %v", o.Certificates, err)
		}
	}
	move(file, elsewhere)
	refused()
	if err := errors.Join(os.Remove(file), os.Rename(elsewhere, file)); err != nil {
		t.Fatal(err)
	}
	s.collect(t, s.issuer(t), issued.Handle)

	pending := filepath.Join(directory, pendingFile)
	if err := os.Symlink(file, pending); err != nil {
		t.Fatal(err)
	}
	_, err := s.issuer(t).Issue(t.Context(), now(issued.Handle))
	wantKind(t, err, providers.KindDenied)
	if err := os.Remove(pending); err != nil {
		t.Fatal(err)
	}

	move(directory, filepath.Join(t.TempDir(), "moved"))
	refused()
	_, err = s.issuer(t).Issue(t.Context(), now(issued.Handle))
	wantKind(t, err, providers.KindDenied)
	wantKind(t, s.issuer(t).Release(t.Context(), now(), nil), providers.KindDenied)
	s.wantCount(t, 1)
}

// Nothing that is logged or said holds a piece of a key.
func TestKeysStayHidden(t *testing.T) {
	for name, change := range held {
		s := newSetup(t, cloudsim.Config{}, change)
		var texts []string
		note := func(v any, err error) {
			texts = append(texts, fmt.Sprintf("%v %+v %#v", v, v, v))
			if err != nil {
				texts = append(texts, fmt.Sprintf("%v %+v %#v", err, err, err))
			}
		}
		i := s.issuer(t)
		issued := s.issue(t, i, now())
		note(issued, nil)
		b := s.collect(t, i, issued.Handle)
		for _, f := range []string{cloudsim.FaultTruncate, cloudsim.FaultCut, cloudsim.FaultHuge, cloudsim.FaultBadGateway, cloudsim.FaultWrongType} {
			s.fault(t, cloudsim.Fault{Operation: "export_certificate", Name: f, Field: "certificate", Count: 1})
			_, err := i.Collect(t.Context(), now(), issued.Handle)
			wantKind(t, err, providers.KindUnavailable)
			note(i, err)
		}
		o, err := i.Observe(t.Context(), now())
		note(o, err)
		note(b.Key, nil)
		texts = append(texts, s.log.String())
		for _, form := range []certs.KeyForm{certs.PKCS8, certs.Traditional} {
			key, err := b.Key.PEM(form)
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.SplitSeq(string(key), "\n") {
				for _, text := range texts {
					if len(line) > 8 && !strings.Contains(line, "-----") && strings.Contains(text, line) {
						t.Fatalf("%s: a line of the key is in %.200s", name, text)
					}
				}
			}
		}
	}
}

func TestNew(t *testing.T) {
	s := newSetup(t, cloudsim.Config{}, nil)
	client := s.client(t)
	bad := s.spec
	bad.CommonName = ""
	for want, cfg := range map[string]Config{
		"want a client":    {Spec: s.spec, Keys: s.keys},
		"want a directory": {Client: client, Spec: s.spec},
		"a common name":    {Client: client, Spec: bad, Keys: s.keys},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	for _, h := range []providers.Handle{"", "pending", "../x", "a/b", providers.Handle(strings.Repeat("a", 65))} {
		i := s.issuer(t)
		_, err := i.Collect(t.Context(), now(), h)
		wantKind(t, err, providers.KindNotFound)
		wantKind(t, i.Revoke(t.Context(), now(h), h), providers.KindInvalid)
		o, err := i.Observe(t.Context(), now(h))
		if err != nil || len(o.Certificates) != 1 || o.Certificates[0].Problem == "" || o.Certificates[0].Owned {
			t.Errorf("observed %+v, %v", o, err)
		}
	}
}

// The longest backdate is still within the limit when the request arrives.
func TestBackdate(t *testing.T) {
	for _, change := range held {
		s := newSetup(t, cloudsim.Config{}, func(s *Spec) {
			s.Backdate = 5 * time.Minute
			if change != nil {
				change(s)
			}
		})
		issued := s.issue(t, s.issuer(t), now())
		if begin := time.Since(issued.Info.NotBefore); begin < 4*time.Minute || begin > 5*time.Minute {
			t.Errorf("valid since %s", begin)
		}
	}
}

// The policy wants another kind of key while one waits for its certificate.
func TestAlgorithmChanges(t *testing.T) {
	s := newSetup(t, cloudsim.Config{}, nil)
	s.fault(t, cloudsim.Fault{Operation: s.creation(), Name: cloudsim.FaultLost, Count: 1})
	r := now()
	_, err := s.issuer(t).Issue(t.Context(), r)
	wantKind(t, err, providers.KindUnknownOutcome)
	s.spec.KeyAlgorithm = "EC384"
	old, err := s.issuer(t).Issue(t.Context(), r)
	if err != nil || old.Problem != "key algorithm: asked for EC384, got EC256" {
		t.Fatalf("issued %+v, %v", old, err)
	}
	r.Known = []providers.Handle{old.Handle}
	second := s.issue(t, s.issuer(t), r)
	s.wantCount(t, 2)

	// One that nothing was issued for is thrown away.
	key, err := newKey("EC256")
	if err != nil {
		t.Fatal(err)
	}
	if err := (keyStore{s.keys}).putPending(owner, key); err != nil {
		t.Fatal(err)
	}
	s.issue(t, s.issuer(t), now(second.Handle, old.Handle))
	if got := s.files(t); len(got) != 3 {
		t.Errorf("keys %v", got)
	}
}

func TestRevoke(t *testing.T) {
	s := newSetup(t, cloudsim.Config{}, cloudHeld)
	i := s.issuer(t)
	issued := s.issue(t, i, now())
	r := now(issued.Handle)
	s.fault(t, cloudsim.Fault{Operation: "revoke_certificate", Name: cloudsim.FaultLost, Count: 1})
	wantKind(t, i.Revoke(t.Context(), r, issued.Handle), providers.KindUnknownOutcome)
	if err := i.Revoke(t.Context(), r, issued.Handle); err != nil || s.count(0, "revoke_certificate") != 1 {
		t.Errorf("again: %v", err)
	}
	// Somebody is faster, and the service says so in one way or another.
	for _, code := range []string{"", "PCA.10019003"} {
		issued := s.issue(t, i, r)
		r.Known = append(r.Known, issued.Handle)
		s.sim.Faults().OnCall(func(e cloudsim.Entry, at cloudsim.Phase) {
			if e.Operation == "list_tags" && at == cloudsim.After {
				_ = s.sim.ConsoleRevoke(string(issued.Handle))
			}
		})
		if code != "" {
			s.fault(t, cloudsim.Fault{Operation: "revoke_certificate", Name: cloudsim.FaultAnswer, Status: 400, Code: code, Count: 1})
		}
		if err := i.Revoke(t.Context(), r, issued.Handle); err != nil {
			t.Errorf("%q: %v", code, err)
		}
		s.sim.Faults().OnCall(nil)
	}
	// A CA that is about to be deleted revokes nothing, and says so.
	last := s.issue(t, i, r)
	if err := s.sim.ConsoleSetAuthority(s.spec.IssuerID, "DELETED"); err != nil {
		t.Fatal(err)
	}
	wantKind(t, i.Revoke(t.Context(), now(last.Handle), last.Handle), providers.KindInvalid)
}

// TestRequestsThatChange: what is noted for the history are the requests by which the account
// changed, and no question, though some are asked by POST.
func TestRequestsThatChange(t *testing.T) {
	s := newSetup(t, cloudsim.Config{}, cloudHeld)
	i, noted := s.issuer(t), &providers.Requests{}
	ctx := providers.WithRequests(t.Context(), noted)
	issued, err := i.Issue(ctx, now())
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Revoke(ctx, now(issued.Handle), issued.Handle); err != nil {
		t.Fatal(err)
	}
	var changed []string
	for _, e := range s.sim.Ledger() {
		if e.Effect {
			changed = append(changed, e.RequestID)
		}
	}
	if got := noted.Take(); len(changed) < 2 || !slices.Equal(got, changed) {
		t.Errorf("noted are %v, and the account changed by %v", got, changed)
	}
}
