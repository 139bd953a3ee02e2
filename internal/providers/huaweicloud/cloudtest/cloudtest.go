// Package cloudtest gives tests of adapters a cloud to talk to: the simulated one over TLS, or
// fixed answers.
//
// It may import internal/cloudsim, internal/providers/huaweicloud and testing.
//
// Invariants: simulators and connections end with their test; a call with a label from outside
// its closed set fails the test, and so does a clock that is not the simulator's.
package cloudtest

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/cloudsim"
	"github.com/rotatord/rotatord/internal/providers/huaweicloud"
)

// Project is the id of the project, and of the account, of whoever asks for fixed answers.
const Project = "0123456789abcdef0123456789abcdef"

// Start starts a simulator with logins of its own.
func Start(t testing.TB, cfg cloudsim.Config) *cloudsim.Sim {
	t.Helper()
	cfg.AccessKey, cfg.SecretKey = "AKIDEXAMPLE", "sk-that-is-only-for-tests"
	cfg.User, cfg.Password, cfg.Domain = "robot", "pw-that-is-only-for-tests", "acme"
	sim, err := cloudsim.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := sim.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sim.Close() })
	return sim
}

// Password is the login by password of a simulator.
func Password(sim *cloudsim.Sim) huaweicloud.Password {
	cfg := sim.Config()
	return huaweicloud.Password{User: cfg.User, Domain: cfg.Domain, Password: huaweicloud.SecretText(cfg.Password)}
}

// Adapter is whose calls are made.
type Adapter struct {
	Service    string
	Operations []string
}

// Client is a new connection to a simulator, with its access key unless change says otherwise.
func (a Adapter) Client(t testing.TB, sim *cloudsim.Sim, change func(*huaweicloud.Config)) *huaweicloud.Client {
	t.Helper()
	simulated := sim.Config()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(sim.CAPEM())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	cfg := huaweicloud.Config{
		Name: "test", Region: simulated.Region, Transport: transport,
		Auth:      huaweicloud.AccessKey{ID: simulated.AccessKey, Secret: huaweicloud.SecretText(simulated.SecretKey)},
		Endpoints: map[string]string{a.Service: sim.URL(), huaweicloud.IAM: sim.URL()},
		Limits:    a.limits(),
		Meter:     closedSets{t, a},
	}
	change(&cfg)
	return open(t, cfg)
}

// Canned is a client whose calls answers answers. It knows the ids of its project and its account.
func (a Adapter) Canned(t testing.TB, region string, answers http.RoundTripper) *huaweicloud.Client {
	t.Helper()
	return open(t, huaweicloud.Config{
		Name: "test", Region: region, ProjectID: Project, DomainID: Project, Transport: answers,
		Auth:   huaweicloud.AccessKey{ID: "a", Secret: huaweicloud.SecretText("s")},
		Limits: a.limits(),
	})
}

// limits are none that a test could meet.
func (a Adapter) limits() map[string]huaweicloud.Limit {
	fast := huaweicloud.Limit{Rate: 1e6, Burst: 1e6, Concurrency: 16}
	return map[string]huaweicloud.Limit{a.Service: fast, huaweicloud.IAM: fast}
}

func open(t testing.TB, cfg huaweicloud.Config) *huaweicloud.Client {
	t.Helper()
	client, err := huaweicloud.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// Answer is an answer with a text as its body, and the status that stands before it, or 200.
func Answer(text string) *http.Response {
	status := http.StatusOK
	if n, err := fmt.Sscanf(text, "%d ", &status); n == 1 && err == nil {
		_, text, _ = strings.Cut(text, " ")
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(text))}
}

// closedSets is a meter that fails the test on a label from outside its set.
type closedSets struct {
	t testing.TB
	a Adapter
}

func (m closedSets) Request(service, operation string, _ int, reason string, _ time.Duration) {
	known := map[string][]string{m.a.Service: m.a.Operations, huaweicloud.IAM: huaweicloud.Operations()}
	if !slices.Contains(known[service], operation) {
		m.t.Errorf("operation %q of %q is not enumerated", operation, service)
	}
	if reason != "" && !slices.Contains(huaweicloud.Reasons(), reason) {
		m.t.Errorf("reason %q is not enumerated", reason)
	}
}

func (closedSets) Wait(string, time.Duration)  {}
func (closedSets) CredentialsExpiry(time.Time) {}
func (closedSets) Circuit(string, bool)        {}
func (closedSets) Quota(string, int, int)      {}
func (m closedSets) ClockSkew(d time.Duration) {
	if d.Abs() > 5*time.Second {
		m.t.Errorf("clock skew %s", d)
	}
}
