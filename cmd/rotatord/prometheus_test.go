//go:build prometheus

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestPrometheus has a real Prometheus scrape the demo with the rules of deploy/prometheus:
// every rule evaluates, every recording rule gives series, and no alert fires.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "demo")
	demo := launch(t, "demo", "--keep", "--dir", dir)
	var target string
	shown := regexp.MustCompile(`metrics +http://([0-9.:]+)/metrics`)
	poll(t, 40*time.Second, "the demo leaves its daemon running", func() error {
		if found := shown.FindSubmatch(demo.stdout.bytes()); found != nil {
			target = string(found[1])
			return nil
		}
		return fmt.Errorf("not yet: %s", demo.stdout.bytes())
	})
	p := startPrometheus(t, target)
	poll(t, 40*time.Second, "all rules are evaluated", p.rules)
	poll(t, 20*time.Second, "the first scrape", func() error { return p.some(`up{job="rotatord"} == 1`) })
	// Calls of the cloud that Prometheus can see to become more.
	again := exec.Command(demo.cmd.Path, "rotate", "shop", "--force", "--wait", "--config", filepath.Join(dir, "rotatord.yaml"))
	if out, err := again.CombinedOutput(); err != nil {
		t.Fatalf("rotate: %v\n%s", err, out)
	}
	for _, query := range []string{
		"rotatord:certificate_life_left:ratio > 0", "rotatord:api_request_failures:ratio_rate15m >= 0",
		"x509_cert_not_after - time() > 0", "x509_cert_not_before < time()", "x509_cert_expires_in_seconds > 0", "x509_cert_valid_since_seconds > 0",
		"x509_cert_expired == 0", "x509_read_errors == 0",
		"probe_success == 1", "probe_duration_seconds < 30", "probe_ssl_earliest_cert_expiry - time() > 0",
	} {
		poll(t, 20*time.Second, query, func() error { return p.some(query) })
	}
	lintMetrics(t, target)
	for _, alert := range p.alerts(t) {
		if alert.State == "firing" {
			t.Errorf("%v is firing", alert.Labels)
		}
		t.Logf("%s: %v", alert.State, alert.Labels)
	}
}

// lintMetrics has promtool judge everything that the demo's daemon serves.
func lintMetrics(t *testing.T, target string) {
	t.Helper()
	scrape, err := http.Get("http://" + target + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer scrape.Body.Close()
	lint := exec.Command("promtool", "check", "metrics")
	lint.Stdin = scrape.Body
	if out, err := lint.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// poll waits for something of another process.
func poll(t *testing.T, within time.Duration, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

type prometheusServer struct{ url string }

func startPrometheus(t *testing.T, target string) prometheusServer {
	t.Helper()
	rules, err := filepath.Abs("../../deploy/prometheus")
	if err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	_ = free.Close()
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf(`global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
rule_files: [%[1]q, %[2]q]
scrape_configs: [{job_name: rotatord, static_configs: [{targets: [%[3]q]}]}]
`, filepath.Join(rules, "rotatord.rules.yaml"), filepath.Join(rules, "rotatord-compat.rules.yaml"), target)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return prometheusServer{"http://" + address}
}

// get decodes the data of an answer of the API.
func (p prometheusServer) get(path string, data any) error {
	r, err := http.Get(p.url + path)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	answer := struct {
		Status, Error string
		Data          any
	}{Data: data}
	if err := json.NewDecoder(r.Body).Decode(&answer); err != nil {
		return err
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s: %s", path, answer.Error)
	}
	return nil
}

// rules says nil when every rule was evaluated without an error.
func (p prometheusServer) rules() error {
	var data struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError string }
		}
	}
	if err := p.get("/api/v1/rules", &data); err != nil {
		return err
	}
	var wrong []string
	n := 0
	for _, g := range data.Groups {
		for _, r := range g.Rules {
			if n++; r.Health != "ok" {
				wrong = append(wrong, fmt.Sprintf("%s is %s %s", r.Name, r.Health, r.LastError))
			}
		}
	}
	if n == 0 || len(wrong) > 0 {
		return fmt.Errorf("of %d rules, %s", n, strings.Join(wrong, "; "))
	}
	return nil
}

// some says nil when the query has a result that is not empty.
func (p prometheusServer) some(query string) error {
	var data struct{ Result []json.RawMessage }
	if err := p.get("/api/v1/query?query="+url.QueryEscape(query), &data); err != nil {
		return err
	}
	if len(data.Result) == 0 {
		return errors.New("no series")
	}
	return nil
}

type prometheusAlert struct {
	Labels map[string]string
	State  string
}

func (p prometheusServer) alerts(t *testing.T) []prometheusAlert {
	t.Helper()
	var data struct{ Alerts []prometheusAlert }
	if err := p.get("/api/v1/alerts", &data); err != nil {
		t.Fatal(err)
	}
	return data.Alerts
}
