package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/providers"
	"github.com/rotatord/rotatord/internal/providers/apig"
	"github.com/rotatord/rotatord/internal/providers/huaweicloud"
	"github.com/rotatord/rotatord/internal/providers/identitycenter"
	"github.com/rotatord/rotatord/internal/providers/privateca"
	"github.com/rotatord/rotatord/internal/providers/providertest"
	"github.com/rotatord/rotatord/internal/providers/waf"
)

// hostileCloud is every service at once, which answers as one handler says.
func hostileCloud(t *testing.T, handler http.HandlerFunc) *huaweicloud.Client {
	t.Helper()
	server := httptest.NewTLSServer(handler)
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	cfg := huaweicloud.Config{
		Name: "hostile", Region: "eu-west-101", ProjectID: strings.Repeat("0", 32), DomainID: strings.Repeat("1", 32), RootCAs: roots, Timeout: 250 * time.Millisecond,
		Auth: huaweicloud.AccessKey{ID: "id", Secret: huaweicloud.SecretText("the secret of this test")}, Endpoints: map[string]string{}, Limits: map[string]huaweicloud.Limit{},
	}
	for _, service := range []string{huaweicloud.IAM, huaweicloud.WAF, huaweicloud.APIG, huaweicloud.CCM, huaweicloud.IdentityCenter} {
		cfg.Endpoints[service] = server.URL
		cfg.Limits[service] = huaweicloud.Limit{Rate: 1e6, Burst: 1e6, Concurrency: 4}
	}
	client, err := huaweicloud.New(cfg)
	must(t, err)
	return client
}

// TestHostileCloud drives every adapter against a cloud that answers everything with what is far
// too much: each verb ends, memory is bounded, what creates is sent once, and no error shows the
// key.
func TestHostileCloud(t *testing.T) {
	if raceDetector && testing.Short() {
		t.Skip("it measures memory, and the detector has its own")
	}
	ca, err := certstest.NewCA("test")
	must(t, err)
	bundle, err := ca.Issue(certstest.Options{Names: []string{host}})
	must(t, err)
	key, err := bundle.Key.PEM(certs.PKCS8)
	must(t, err)
	lists := []string{"items", "certs", "bound_domains", "groups", "certificates", "resources", "application_instance_certificates"}
	// page is a list by every name, with as many rows; row makes one.
	page := func(w io.Writer, n int, row func(i int) string) {
		_, _ = io.WriteString(w, `{"total":1000000000,"total_count":1000000000,"page_info":{"next_marker":"`+fmt.Sprint(time.Now().UnixNano())+`"}`)
		for _, name := range lists {
			_, _ = io.WriteString(w, `,"`+name+`":[`)
			for i := range n / len(lists) {
				if _, err := io.WriteString(w, strings.Repeat(",", min(i, 1))+row(i)); err != nil {
					return
				}
			}
			_, _ = io.WriteString(w, "]")
		}
		_, _ = io.WriteString(w, "}")
	}
	var pages atomic.Int64
	id := func(i int) string { return fmt.Sprintf("%d-%d", pages.Load(), i) }
	for name, answer := range map[string]http.HandlerFunc{
		"endless pages of one row": func(w http.ResponseWriter, _ *http.Request) {
			pages.Add(1)
			page(w, len(lists), func(i int) string {
				return `{"id":"` + id(i) + `","certificate_id":"` + id(i) + `","resource_id":"` + id(i) + `","hostname":"x"}`
			})
		},
		"pages of a hundred thousand": func(w http.ResponseWriter, _ *http.Request) {
			pages.Add(1)
			page(w, 100_000, func(i int) string { return `{"id":"` + id(i) + `"}` })
		},
		"pages of a million": func(w http.ResponseWriter, _ *http.Request) { page(w, 1_000_000, func(int) string { return "{}" }) },
		"pages of 4 MB": func(w http.ResponseWriter, _ *http.Request) {
			pages.Add(1)
			page(w, 50, func(i int) string {
				return `{"id":"` + id(i) + `","certificate_id":"` + id(i) + `","resource_id":"` + id(i) + `","certificate":"` + strings.Repeat("x", 80_000) + `"}`
			})
		},
		"nulls":   func(w http.ResponseWriter, _ *http.Request) { page(w, 700, func(int) string { return "null" }) },
		"a login": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>Please log in") },
		"slow": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		},
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex // an answer that nobody waits for any more may still be worked on
			creates := map[string]int{}
			client := hostileCloud(t, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if strings.Contains(string(body), "PRIVATE KEY") || strings.Contains(string(body), "CERTIFICATE REQUEST") {
					mu.Lock()
					creates[r.Method+r.URL.Path]++
					mu.Unlock()
				}
				answer(w, r)
			})
			firewall, err := waf.New(waf.Config{Client: client, Mode: waf.ModeCloud})
			must(t, err)
			gateway, err := apig.New(apig.Config{Client: client, Scope: apig.ScopeInstance, InstanceID: "0123456789abcdef0123456789abcdef", Replace: apig.ReplaceNew})
			must(t, err)
			issuer, err := privateca.New(privateca.Config{Client: client, Keys: t.TempDir(), Spec: privateca.Spec{
				IssuerID: "2cb2878b-6cd1-460d-bd25-afe655159bdc", CommonName: "payments.internal", KeyAlgorithm: "EC256", Signature: "SHA256", Validity: privateca.Validity{Type: privateca.Day, Value: 90}, Held: privateca.HeldLocal,
			}})
			must(t, err)
			application, err := identitycenter.New(identitycenter.Config{Client: client, InstanceID: "ins-0123456789abcdef", ApplicationInstanceID: "app-ins-0123456789abcdef"})
			must(t, err)
			owner := providers.Owner{Policy: "shop", Certificate: host}
			request := providers.Request{Owner: owner, Endpoints: []string{host}}
			for verb, do := range map[string]func(ctx context.Context) error{
				"waf observe":  func(ctx context.Context) error { _, err := firewall.Observe(ctx, request); return err },
				"waf stage":    func(ctx context.Context) error { _, err := firewall.Stage(ctx, request, bundle); return err },
				"apig observe": func(ctx context.Context) error { _, err := gateway.Observe(ctx, request); return err },
				"apig stage":   func(ctx context.Context) error { _, err := gateway.Stage(ctx, request, bundle); return err },
				"private CA observe": func(ctx context.Context) error {
					_, err := issuer.Observe(ctx, providers.IssueRequest{Owner: owner})
					return err
				},
				"private CA issue": func(ctx context.Context) error {
					_, err := issuer.Issue(ctx, providers.IssueRequest{Owner: owner, Since: time.Now()})
					return err
				},
				"identity center observe": func(ctx context.Context) error {
					_, err := application.Issuer().Observe(ctx, providers.IssueRequest{Owner: owner})
					return err
				},
				"identity center activate": func(ctx context.Context) error { return application.Target().Activate(ctx, request, "c1") },
			} {
				ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
				began := time.Now()
				var err error
				grown := providertest.PeakHeap(func() { err = do(ctx) })
				cancel()
				if took := time.Since(began); took > 8*time.Second {
					t.Errorf("%s took %s", verb, took)
				}
				if grown > 128<<20 { // of which the server has its part, in this process, and the collector what it has not got round to
					t.Errorf("%s: the heap grew by %d MB", verb, grown>>20)
				}
				if err != nil && (len(err.Error()) > 2000 || strings.Contains(err.Error(), "the secret of") || strings.Contains(err.Error(), string(key[30:60]))) {
					t.Errorf("%s: %.300s", verb, err)
				}
				if err != nil && providers.KindOf(err) == providers.KindUnknown {
					t.Errorf("%s: an error of no kind: %v", verb, err)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for what, n := range creates {
				if n > 1 {
					t.Errorf("%s was sent %d times", what, n)
				}
			}
		})
	}
}
