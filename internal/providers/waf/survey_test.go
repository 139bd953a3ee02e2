package waf

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/cloudsim"
	"github.com/rotatord/rotatord/internal/providers"
)

// estate is an account with so many hosts, each with a certificate of its own.
func estate(t *testing.T, n int) (*setup, []string) {
	t.Helper()
	var hosts []cloudsim.Host
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("h%03d.example.com", i))
		hosts = append(hosts, cloudsim.Host{Name: names[i], Protocol: "HTTP&HTTPS"})
	}
	s := newSetup(t, cloudsim.Config{Hosts: hosts}, ModeCloud)
	for _, name := range names {
		h := s.upload(t, "by_hand_"+name[:4], bundle(t, certstest.EC256, name))
		if err := s.sim.ConsoleBind(name, string(h)); err != nil {
			t.Fatal(err)
		}
	}
	return s, names
}

// remotes are the certificates that hosts serve, as a look shows them.
func remotes(t *testing.T, s *setup, names []string) map[string]providers.Remote {
	t.Helper()
	o, err := s.target(t).Observe(t.Context(), providers.Request{Owner: owner, Endpoints: names})
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]providers.Remote)
	for _, r := range o.Remotes {
		for _, user := range r.InUse {
			found[user] = r
		}
	}
	return found
}

func each(name string) providers.Request {
	return providers.Request{Owner: providers.Owner{Policy: "all", Certificate: name}, Endpoints: []string{name}}
}

func TestOneListForAll(t *testing.T) {
	s, names := estate(t, 130)
	expected := remotes(t, s, names)
	target := s.target(t)
	before, began := len(s.sim.Ledger()), time.Now()
	for _, name := range names {
		if !target.Survey(t.Context(), each(name), expected[name], began) {
			t.Errorf("%s differs", name)
		}
	}
	if got := s.calls(before); !slices.Equal(got, []string{"ListCertificates", "ListCertificates"}) {
		t.Errorf("calls %v, want two pages", got)
	}
	// Somebody who wants a newer one has it read, for all.
	if err := s.sim.ConsoleBind(names[7], string(expected[names[8]].Handle)); err != nil {
		t.Fatal(err)
	}
	if !target.Survey(t.Context(), each(names[7]), expected[names[7]], began) {
		t.Error("an old list shows a new binding")
	}
	before, began = len(s.sim.Ledger()), time.Now()
	for _, name := range names {
		if same := target.Survey(t.Context(), each(name), expected[name], began); same == (name == names[7]) {
			t.Errorf("%s is the same: %t", name, same)
		}
	}
	if got := len(s.calls(before)); got != 2 {
		t.Errorf("%d calls, want 2", got)
	}
}

// A list that is longer than what its readers would read themselves is not read again for them.
func TestALongListIsNotForAFew(t *testing.T) {
	s, names := estate(t, 430)
	expected := remotes(t, s, names[:2])
	target := s.target(t)
	if !target.Survey(t.Context(), each(names[0]), expected[names[0]], time.Now()) {
		t.Error("the first one differs")
	}
	before := len(s.sim.Ledger())
	if target.Survey(t.Context(), each(names[0]), expected[names[0]], time.Now()) || len(s.calls(before)) != 0 {
		t.Errorf("calls %v for one who would make 4", s.calls(before))
	}
	if !target.Survey(t.Context(), each(names[1]), expected[names[1]], time.Now()) || len(s.calls(before)) != 5 {
		t.Errorf("calls %v for two who would make 8", s.calls(before))
	}
}

// Where the list cannot be read everybody looks for himself, and it is not tried for each.
func TestNoListNoSurvey(t *testing.T) {
	s, names := estate(t, 3)
	expected := remotes(t, s, names)
	target := s.target(t)
	s.fault(t, cloudsim.Fault{Service: "waf", Operation: "ListCertificates", Name: cloudsim.FaultAnswer, Status: 403, Code: "WAF.00014010", Message: "no"})
	before := len(s.sim.Ledger())
	for _, name := range names {
		if target.Survey(t.Context(), each(name), expected[name], time.Now()) {
			t.Errorf("%s was compared with nothing", name)
		}
	}
	if got := s.calls(before); len(got) != 1 {
		t.Errorf("calls %v", got)
	}
}

// Whoever comes while the list is read does not wait for it.
func TestNobodyWaitsForTheList(t *testing.T) {
	s := surveys{log: slog.New(slog.DiscardHandler)}
	began, asked, answer := time.Now(), make(chan struct{}), make(chan bindings)
	got := make(chan bindings)
	go func() {
		got <- s.since(t.Context(), began, owner, func(context.Context) (bindings, int, error) {
			close(asked)
			return <-answer, 1, nil
		})
	}()
	<-asked
	twice := func(context.Context) (bindings, int, error) {
		t.Error("the list is read twice")
		return nil, 0, nil
	}
	for range 2 {
		if list := s.since(t.Context(), began, owner, twice); list != nil {
			t.Errorf("%v before it was read", list)
		}
	}
	answer <- bindings{shop: nil}
	if list := <-got; len(list) != 1 {
		t.Errorf("read %v", list)
	}
	if list := s.since(t.Context(), began, owner, twice); len(list) != 1 {
		t.Errorf("%v after it was read", list)
	}
}

// Which of two hosts of one name is meant, a list does not tell; the mode or the id does.
func TestSurveyOfHostsWithOneName(t *testing.T) {
	const cloud, dedicated = "c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0", "d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0"
	ends := time.Now().Add(time.Hour).Truncate(time.Millisecond)
	fake := &canned{answers: map[string]string{"GET /waf/certificate": fmt.Sprintf(`{"items":[{"id":"c1","name":"x","expire_time":%d,"bind_host":[
		{"id":%q,"hostname":"Shop.example.com","waf_type":"cloud"},{"id":%q,"hostname":"shop.example.com","waf_type":"premium"}]}],"total":1}`, ends.UnixMilli(), cloud, dedicated)}}
	expected := providers.Remote{Handle: "c1", NotAfter: ends}
	for _, tt := range []struct {
		mode, endpoint string
		want           bool
	}{
		{ModeAny, shop, false}, {ModeCloud, shop, true}, {ModeDedicated, shop, true},
		{ModeAny, cloud, true}, {ModeAny, dedicated, true}, {ModeCloud, dedicated, false},
	} {
		if got := fake.target(t, Config{Mode: tt.mode}, "eu-west-101").Survey(t.Context(), request(tt.endpoint), expected, time.Now()); got != tt.want {
			t.Errorf("mode %q, endpoint %s: the same: %t", tt.mode, tt.endpoint, got)
		}
	}
}

func TestSameMoment(t *testing.T) {
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for d, want := range map[time.Duration]bool{
		0: true, 300 * time.Millisecond: true, 8 * time.Hour: true, -345 * time.Minute: true,
		time.Minute: false, 16 * time.Hour: false, time.Second: false,
	} {
		if got := sameMoment(at.Add(d), at); got != want {
			t.Errorf("%s apart: %t", d, got)
		}
	}
	if sameMoment(time.Time{}, at) || sameMoment(at, time.Time{}) || sameMoment(time.Time{}, time.Time{}) {
		t.Error("a time that is not known is the same as another")
	}
}
