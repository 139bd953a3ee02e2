package main

import (
	"encoding/json"
	"html"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

const (
	dashboardFile    = "../../deploy/grafana/rotatord.json"
	dashboardPicture = "../../docs/images/dashboard.svg"
)

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestDashboardNamesWhatThereIs: every series, recording rule and page that the dashboard names
// is there, and every panel is in the picture. TestDashboard asks a Prometheus.
func TestDashboardNamesWhatThereIs(t *testing.T) {
	text := readText(t, dashboardFile)
	// build_info is not in the golden file: it differs from one build to the next.
	known := readText(t, "../../internal/metrics/testdata/metrics.golden") + readText(t, "../../deploy/prometheus/rotatord.rules.yaml") + "\nrotatord_build_info "
	names := map[string]bool{}
	for _, name := range regexp.MustCompile(`\brotatord[_:][a-z0-9_:]+`).FindAllString(text, -1) {
		names[name] = true
	}
	if len(names) < 40 {
		t.Errorf("%d series are named", len(names))
	}
	for name := range names {
		if !regexp.MustCompile(`(?m)(^|record: )` + name + `[ {\n]`).MatchString(known) {
			t.Errorf("there is no series %s", name)
		}
	}
	for _, page := range regexp.MustCompile(`blob/main/docs/([\w/]+\.md)`).FindAllStringSubmatch(text, -1) {
		if _, err := os.Stat(filepath.Join("../../docs", page[1])); err != nil {
			t.Error(err)
		}
	}
	var d struct {
		Panels []struct{ Title, Description, Type string }
	}
	if err := json.Unmarshal([]byte(text), &d); err != nil || len(d.Panels) == 0 {
		t.Fatal(err)
	}
	picture := readText(t, dashboardPicture)
	for _, p := range d.Panels {
		if !strings.Contains(picture, ">"+html.EscapeString(p.Title)+"</text>") {
			t.Errorf("panel %q is not in %s: go test -tags prometheus -run 'TestDashboard$' ./cmd/rotatord -draw", p.Title, dashboardPicture)
		}
		if p.Description == "" && p.Type != "row" {
			t.Errorf("panel %q has no description", p.Title)
		}
	}
}

// TestDashboardVariables: every series in a panel is chosen by the variables for which it has
// labels.
func TestDashboardVariables(t *testing.T) {
	golden := readText(t, "../../internal/metrics/testdata/metrics.golden")
	var d struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(readText(t, dashboardFile)), &d); err != nil {
		t.Fatal(err)
	}
	chosenBy := map[string]string{"policy": "$policy", "source": "$policy", "cloud": "$cloud", "reference": "$cloud", "target_kind": "$target_kind"}
	n := 0
	for _, p := range d.Panels {
		for _, q := range p.Targets {
			for _, use := range regexp.MustCompile(`([a-z_:]+)\{([^}]*)\}`).FindAllStringSubmatch(q.Expr, -1) {
				name, matchers := use[1], use[2]
				if name == "ALERTS" {
					continue
				}
				n++
				if !strings.Contains(matchers, `job=~"$job", instance=~"$instance"`) {
					t.Errorf("panel %q: %s is not chosen by job and instance", p.Title, name)
				}
				sample := regexp.MustCompile(`(?m)^` + name + `(\{.*\}) `).FindString(golden)
				for label, variable := range chosenBy {
					if strings.Contains(sample, label+`="`) && !strings.Contains(matchers, label+`=~"`+variable+`"`) {
						t.Errorf("panel %q: %s has a label %s, and %s does not choose it", p.Title, name, label, variable)
					}
				}
			}
		}
	}
	if n < 100 {
		t.Errorf("%d selectors", n)
	}
}

// TestDashboardProvisioning: Grafana's data source has the scrape's interval, from which it
// reckons the range of every rate, and the build of the dashboard names no registry.
func TestDashboardProvisioning(t *testing.T) {
	var source struct {
		Datasources []struct {
			Type     string
			JSONData struct {
				TimeInterval string `yaml:"timeInterval"`
			} `yaml:"jsonData"`
		}
	}
	var provider struct{ Providers []struct{ Type string } }
	var scrape struct {
		Global struct {
			Interval string `yaml:"scrape_interval"`
		}
	}
	for path, into := range map[string]any{
		"../../deploy/grafana/provisioning/datasources/prometheus.yaml": &source,
		"../../deploy/grafana/provisioning/dashboards/rotatord.yaml":    &provider,
		"../../deploy/prometheus/prometheus.yml":                        &scrape,
	} {
		if err := yaml.Unmarshal([]byte(readText(t, path)), into); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	if len(provider.Providers) != 1 || provider.Providers[0].Type != "file" {
		t.Errorf("providers: %+v", provider)
	}
	if len(source.Datasources) != 1 || source.Datasources[0].JSONData.TimeInterval != scrape.Global.Interval || scrape.Global.Interval == "" {
		t.Errorf("data sources %+v, and the scrape is every %q", source.Datasources, scrape.Global.Interval)
	}
	if lock := readText(t, "../../deploy/grafana/package-lock.json"); strings.Contains(lock, "://") {
		t.Error("package-lock.json names where a package was fetched: keep .npmrc beside it")
	}
}
