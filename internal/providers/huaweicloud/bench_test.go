package huaweicloud

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// BenchmarkDo is a call with all that belongs to one, beside the same request by net/http.
func BenchmarkDo(b *testing.B) {
	answer := `{"id":"1","filler":"` + strings.Repeat("x", 4000) + `"}`
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, answer)
	}))
	defer server.Close()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer transport.CloseIdleConnections()
	cfg := keyConfig()
	cfg.Transport, cfg.Endpoints = transport, map[string]string{WAF: server.URL}
	client, plain := newClient(b, cfg), &http.Client{Transport: transport}
	var calling, asking time.Duration
	for b.Loop() {
		var out struct{ ID Identifier }
		began := time.Now()
		if err := client.Do(b.Context(), getCall(&out)); err != nil || out.ID != "1" {
			b.Fatal(out.ID, err)
		}
		called := time.Now()
		r, err := plain.Get(server.URL)
		if err != nil {
			b.Fatal(err)
		}
		if err := json.NewDecoder(r.Body).Decode(&out); err != nil {
			b.Fatal(err)
		}
		_ = r.Body.Close()
		calling += called.Sub(began)
		asking += time.Since(called)
	}
	b.ReportMetric(float64(calling)/float64(asking), "call/request")
}

func BenchmarkSign(b *testing.B) {
	body := []byte(`{"name":"shop.example.com"}`)
	r := httptest.NewRequest(http.MethodPost, "https://waf.example.com/v1/0f3c5a9d7e1b4862a0c4d8f21b6e9357/waf/certificate?page=1", nil)
	for b.Loop() {
		Sign(r, body, "AKID", testSecret, time.Unix(1_800_000_000, 0))
	}
}
