package metrics

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/rotatord/rotatord/internal/providers/huaweicloud"
)

const (
	prometheusDir = "../../deploy/prometheus"
	runbookDir    = "../../docs/runbooks"
	runbookURL    = "https://github.com/rotatord/rotatord/blob/main/docs/runbooks/"
)

type rule struct {
	Alert, Record, Expr string
	For                 string
	Labels, Annotations map[string]string
}

func (r rule) name() string { return r.Alert + r.Record }

func readRules(t *testing.T, file string) []rule {
	t.Helper()
	var content struct {
		Groups []struct {
			Name  string
			Rules []rule
		}
	}
	readYAML(t, file, &content)
	var all []rule
	for _, g := range content.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) == 0 {
		t.Fatalf("no rules in %s", file)
	}
	return all
}

func readYAML(t *testing.T, file string, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(prometheusDir, file))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

func alertsOf(rules []rule) []rule {
	return slices.DeleteFunc(slices.Clone(rules), func(r rule) bool { return r.Alert == "" })
}

// series is what the golden /metrics has: name → label → values.
type series map[string]map[string][]string

var (
	sample   = regexp.MustCompile(`(?m)^([a-z0-9_]+)(?:\{(.*)\})? \S+$`)
	pair     = regexp.MustCompile(`([a-zA-Z0-9_]+)="((?:[^"\\]|\\.)*)"`)
	matcher  = regexp.MustCompile(`([a-zA-Z0-9_]+)(=~|!~|!=|=)"([^"]*)"`)
	selector = regexp.MustCompile(`([a-z_:][a-z0-9_:]*)(?:\{([^}]*)\})?`)
	grouping = regexp.MustCompile(`\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)`)
	literal  = regexp.MustCompile(`"[^"]*"`)
	template = regexp.MustCompile(`\$labels\.([a-zA-Z_]+)`)
)

func goldenSeries(t *testing.T) series {
	t.Helper()
	text, err := os.ReadFile("testdata/metrics.golden")
	if err != nil {
		t.Fatal(err)
	}
	all := series{}
	for _, m := range sample.FindAllStringSubmatch(string(text), -1) {
		if all[m[1]] == nil {
			all[m[1]] = map[string][]string{}
		}
		for _, l := range pair.FindAllStringSubmatch(m[2], -1) {
			all[m[1]][l[1]] = append(all[m[1]][l[1]], l[2])
		}
	}
	if len(all) < 40 {
		t.Fatalf("%d families in the golden file", len(all))
	}
	return all
}

// words of PromQL, which look like names of series.
var promQL = strings.Fields(`abs absent and bool by changes group_left histogram_quantile ignoring increase label_replace max max_over_time min on or
	rate sum time unless without`)

// others are series that Prometheus and the process have.
var others = []string{"up", "process_start_time_seconds"}

// scraped are the labels that Prometheus adds.
var scraped = []string{"instance", "job"}

// TestRulesUseWhatThereIs: every series in the rules is one of /metrics or of another rule,
// with labels and values that it has.
func TestRulesUseWhatThereIs(t *testing.T) {
	golden := goldenSeries(t)
	rules := append(readRules(t, "rotatord.rules.yaml"), readRules(t, "rotatord-compat.rules.yaml")...)
	recorded := map[string]bool{}
	for _, r := range rules {
		recorded[r.Record] = true
	}
	for _, r := range rules {
		labels := slices.Clone(scraped)
		expr := grouping.ReplaceAllStringFunc(r.Expr, func(string) string { return " " })
		for _, use := range selector.FindAllStringSubmatch(blank(expr), -1) {
			name := use[1]
			has, known := golden[name]
			switch {
			case slices.Contains(promQL, name):
				continue
			case !known && !recorded[name] && !slices.Contains(others, name):
				t.Errorf("%s: there is no series %s", r.name(), name)
			case recorded[name] && !known:
				labels = append(labels, "policy", "certificate", "role", "target", "cloud", "service")
			}
			labels = append(labels, slices.Collect(maps.Keys(has))...)
		}
		checkMatchers(t, r, expr, golden)
		for _, g := range grouping.FindAllStringSubmatch(r.Expr, -1) {
			for l := range strings.SplitSeq(g[2], ",") {
				if l = strings.TrimSpace(l); !slices.Contains(labels, l) {
					t.Errorf("%s: %s (%s): no series of it has that label", r.name(), g[1], l)
				}
			}
		}
		for _, text := range r.Annotations {
			for _, l := range template.FindAllStringSubmatch(text, -1) {
				if !slices.Contains(labels, l[1]) {
					t.Errorf("%s: an annotation has $labels.%s, which no series of it has", r.name(), l[1])
				}
			}
		}
	}
}

// blank takes matchers and other texts out of an expression, and durations with them.
func blank(expr string) string {
	expr = regexp.MustCompile(`\{[^}]*\}|\[[^\]]*\]`).ReplaceAllString(expr, " ")
	return literal.ReplaceAllString(expr, " ")
}

// checkMatchers: a label that is compared is there, with a value that it can have.
func checkMatchers(t *testing.T, r rule, expr string, golden series) {
	t.Helper()
	for _, use := range selector.FindAllStringSubmatch(expr, -1) {
		has, ours := golden[use[1]]
		for _, m := range matcher.FindAllStringSubmatch(use[2], -1) {
			label, operator, value := m[1], m[2], m[3]
			if slices.Contains(scraped, label) {
				continue
			}
			values := has[label]
			if label == "reason" && strings.HasPrefix(use[1], "rotatord_api_") {
				values = huaweicloud.Reasons()
			}
			if ours && len(values) == 0 {
				t.Errorf("%s: %s has no label %s", r.name(), use[1], label)
			}
			wanted := []string{value}
			if strings.HasSuffix(operator, "~") {
				wanted = strings.Split(value, "|")
			}
			for _, v := range wanted {
				if ours && !slices.Contains(values, v) {
					t.Errorf("%s: %s never has %s=%q", r.name(), use[1], label, v)
				}
			}
		}
	}
}

// TestAlertsAreComplete: every alert says how bad it is and what it is, and has a page that
// says what to do; every page is about an alert.
func TestAlertsAreComplete(t *testing.T) {
	index, err := os.ReadFile(filepath.Join(runbookDir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob(filepath.Join(runbookDir, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	left := map[string]bool{}
	for _, page := range pages {
		left[strings.TrimSuffix(filepath.Base(page), ".md")] = true
	}
	delete(left, "README")
	for _, r := range alertsOf(readRules(t, "rotatord.rules.yaml")) {
		delete(left, r.Alert)
		if severity := r.Labels["severity"]; severity != "critical" && severity != "warning" || len(r.Labels) != 1 {
			t.Errorf("%s: labels %v, want severity critical or warning alone", r.Alert, r.Labels)
		}
		if r.For == "" {
			t.Errorf("%s does not say for how long", r.Alert)
		}
		for _, a := range []string{"summary", "description"} {
			if text := r.Annotations[a]; !strings.HasSuffix(text, ".") {
				t.Errorf("%s: %s is %q, want a sentence", r.Alert, a, text)
			}
		}
		if url := r.Annotations["runbook_url"]; url != runbookURL+r.Alert+".md" {
			t.Errorf("%s: runbook_url is %q", r.Alert, url)
		}
		if !strings.Contains(string(index), "| ["+r.Alert+"]("+r.Alert+".md) | "+r.Labels["severity"]+" |") {
			t.Errorf("%s is not in the index of runbooks with its severity", r.Alert)
		}
		page, err := os.ReadFile(filepath.Join(runbookDir, r.Alert+".md"))
		if err != nil {
			t.Error(err)
			continue
		}
		at := 0
		for _, heading := range []string{"# " + r.Alert + "\n", "\n## What it means\n", "\n## How to see more\n", "\n## What to do\n"} {
			i := strings.Index(string(page), heading)
			if i < at {
				t.Errorf("%s: the runbook has no %q, or not in its place", r.Alert, strings.TrimSpace(heading))
			}
			at = i
		}
	}
	for page := range left {
		t.Errorf("there is a runbook %s, and no such alert", page)
	}
}

// TestRunbooksUseWhatThereIs: series that a page names exist, and so do pages that it refers to.
func TestRunbooksUseWhatThereIs(t *testing.T) {
	golden := goldenSeries(t)
	pages, err := filepath.Glob(filepath.Join(runbookDir, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`\brotatord_[a-z0-9_]+`)
	link := regexp.MustCompile(`\]\(([^)#]+)\)`)
	for _, page := range append(pages, "../../docs/monitoring.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range name.FindAllString(string(text), -1) {
			// What tells of the binary is not in the golden file.
			if golden[n] == nil && golden[n+"_count"] == nil && n != "rotatord_build_info" {
				t.Errorf("%s: there is no series %s", page, n)
			}
		}
		for _, l := range link.FindAllStringSubmatch(string(text), -1) {
			if strings.HasPrefix(l[1], "https://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), l[1])); err != nil {
				t.Errorf("%s: %v", page, err)
			}
		}
	}
}

// TestRulesAreTested: promtool test rules, which .ci/run has, has a test that fires each
// alert and one in which every series of every alert is there and nothing fires.
func TestRulesAreTested(t *testing.T) {
	var content struct {
		Tests []struct {
			Name  string
			Input []struct{ Series string } `yaml:"input_series"`
			Rules []struct {
				Alert string                            `yaml:"alertname"`
				Fired []struct{ Labels map[string]any } `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
			Queries []struct{ Expr string } `yaml:"promql_expr_test"`
		}
	}
	readYAML(t, "rotatord.rules.test.yaml", &content)
	fires, quiet, queried, fed := map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, test := range content.Tests {
		for _, r := range test.Rules {
			fires[r.Alert] = fires[r.Alert] || len(r.Fired) > 0
			quiet[r.Alert] = quiet[r.Alert] || test.Name == "all is well" && len(r.Fired) == 0
		}
		for _, q := range test.Queries {
			queried[selector.FindStringSubmatch(q.Expr)[1]] = true
		}
		for _, s := range test.Input {
			if test.Name == "all is well" {
				fed[selector.FindStringSubmatch(s.Series)[1]] = true
			}
		}
	}
	golden := goldenSeries(t)
	for _, r := range readRules(t, "rotatord.rules.yaml") {
		if r.Alert != "" && (!fires[r.Alert] || !quiet[r.Alert]) {
			t.Errorf("%s: fires in a test: %t, is quiet when all is well: %t", r.Alert, fires[r.Alert], quiet[r.Alert])
		}
		for _, use := range selector.FindAllStringSubmatch(blank(r.Expr), -1) {
			if golden[use[1]] != nil && !fed[use[1]] {
				t.Errorf("%s: %s is not there in the test in which all is well", r.name(), use[1])
			}
		}
	}
	for _, r := range readRules(t, "rotatord-compat.rules.yaml") {
		if !queried[r.Record] {
			t.Errorf("%s is in no test", r.Record)
		}
	}
}
