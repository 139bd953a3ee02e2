//go:build prometheus

package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// draw has the picture in the docs drawn anew, from the data of this run.
var draw = flag.Bool("draw", false, "draw "+dashboardPicture)

// dashboard is what is read of Grafana's JSON: what asks Prometheus, and what a picture needs.
type dashboard struct {
	Title       string
	Panels      []dashboardPanel
	Templating  struct{ List []dashboardVariable }
	Annotations struct {
		List []struct {
			Name, IconColor string
			Enable          bool
			UseValueForTime bool
			Target          dashboardQuery
		}
	}
}

type dashboardPanel struct {
	ID          int
	Type, Title string
	GridPos     struct{ X, Y, W, H int }
	Targets     []dashboardQuery
	FieldConfig struct {
		Defaults  map[string]any
		Overrides []fieldOverride
	}
	Transformations []struct {
		ID      string
		Options struct {
			ExcludeByName map[string]bool
			IndexByName   map[string]int
			RenameByName  map[string]string
		}
	}
	Options struct {
		SortBy []struct {
			DisplayName string
			Desc        bool
		}
	}
	answers []answer // by target
}

type fieldOverride struct {
	Matcher    struct{ ID, Options string }
	Properties []struct {
		ID    string
		Value any
	}
}

type dashboardQuery struct {
	RefID, Expr, LegendFormat string
	Instant                   bool
}

type dashboardVariable struct {
	Name, Type string
	Query      any
	AllValue   string
	Current    struct{ Value any }
}

// answer is what Prometheus said to a query: for the moment, one point a series.
type answer []struct {
	Metric map[string]string
	Value  point
	Values []point
}

// point is a sample as the API writes it.
type point struct{ at, value float64 }

// UnmarshalJSON reads [seconds, "value"].
func (p *point) UnmarshalJSON(text []byte) error {
	var pair []any
	if err := json.Unmarshal(text, &pair); err != nil {
		return err
	}
	value, err := strconv.ParseFloat(fmt.Sprint(pair[1]), 64)
	p.at, p.value = pair[0].(float64), value
	return err
}

// empty is also an answer of which no point is a number.
func (a answer) empty() bool {
	for _, series := range a {
		for _, p := range append(series.Values, series.Value) {
			if p.at != 0 && !math.IsNaN(p.value) && !math.IsInf(p.value, 0) {
				return false
			}
		}
	}
	return true
}

// TestDashboard has a real Prometheus scrape a daemon to which all kinds of things happen, and
// asks it every query of the dashboard as Grafana would: none errs, and none is empty.
func TestDashboard(t *testing.T) {
	t.Parallel()
	var d dashboard
	if err := json.Unmarshal([]byte(readText(t, dashboardFile)), &d); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	s := newScene(t)
	p := startPrometheus(t, s.http)
	watched := time.Now()
	poll(t, 40*time.Second, "everything that can be served is", func() error {
		return p.some(fmt.Sprintf(`count(rotatord_assignment_state{state="converged"} == 1) >= %d`, sceneServed))
	})
	s.act()
	for what, query := range map[string]string{
		"the service that fails is left alone":   `min_over_time(rotatord_api_circuit_open{service="ccm"}[5s]) == 1`,
		"the certificate that is rolled back":    `increase(rotatord_rollbacks_total[2m]) > 0`,
		"what somebody bound by hand":            `rotatord_drift_detected == 1`,
		"the service that asks to be left alone": `sum(increase(rotatord_api_request_failures_total{reason="throttled"}[2m])) > 0`,
	} {
		poll(t, 30*time.Second, what, func() error { return p.some(query) })
	}
	v := view{prometheusServer: p, from: watched, to: time.Now(), variables: map[string]string{}}
	v.choose(t, d.Templating.List)
	for i := range d.Panels {
		panel := &d.Panels[i]
		for _, q := range panel.Targets {
			a, err := v.ask(q)
			if err != nil || a.empty() {
				t.Errorf("panel %q, query %s: %v, %d series\n%s", panel.Title, q.RefID, err, len(a), v.fill(q.Expr))
			}
			panel.answers = append(panel.answers, a)
		}
		if panel.Type == "table" {
			panel.checkTable(t)
		}
	}
	since := v // the daemon was started before anybody watched
	since.from, since.variables = began, maps.Clone(v.variables)
	// The kernel reckons when a process started from when it started itself, in whole seconds: up to one too early.
	since.variables["__from"] = milliseconds(began.Add(-time.Second))
	for _, mark := range d.Annotations.List {
		if a, err := since.ask(mark.Target); err != nil || a.empty() {
			t.Errorf("annotation %q: %v, %d series\n%s", mark.Name, err, len(a), v.fill(mark.Target.Expr))
		}
	}
	v.checkChosen(t, &d)
	if *draw && !t.Failed() {
		drawDashboard(t, &d, &v)
	}
}

// view is one look at the dashboard: a range of time, and what the variables stand for.
type view struct {
	prometheusServer
	from, to  time.Time
	variables map[string]string
}

var anyVariable = regexp.MustCompile(`\$\{?(\w+)\}?`)

// choose gives the variables what they have when nobody has chosen anything.
func (v *view) choose(t *testing.T, list []dashboardVariable) {
	t.Helper()
	length := strconv.Itoa(int(v.to.Sub(v.from).Seconds()))
	v.variables["__rate_interval"], v.variables["__interval"], v.variables["__range"] = "8s", "1s", length+"s"
	v.variables["__from"], v.variables["__to"] = milliseconds(v.from), milliseconds(v.to)
	for _, variable := range list {
		chosen := fmt.Sprint(variable.Current.Value)
		switch {
		case variable.Type == "datasource":
			continue // each query names it, and there is one
		case chosen != "[$__all]":
			v.variables[variable.Name] = chosen
		case variable.AllValue != "":
			v.variables[variable.Name] = variable.AllValue
		}
		if variable.Type != "query" {
			continue
		}
		values := v.values(t, variable.Query.(map[string]any)["query"].(string))
		if variable.AllValue == "" {
			for i := range values {
				values[i] = strings.ReplaceAll(regexp.QuoteMeta(values[i]), `\`, `\\`)
			}
			v.variables[variable.Name] = "(" + strings.Join(values, "|") + ")"
		}
	}
}

func milliseconds(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }

// values answers label_values(selector, label), as Grafana's data source does.
func (v *view) values(t *testing.T, query string) []string {
	t.Helper()
	parts := regexp.MustCompile(`^label_values\((.*), (\w+)\)$`).FindStringSubmatch(query)
	if parts == nil {
		t.Fatalf("a variable asks %s", query)
	}
	var values []string
	path := fmt.Sprintf("/api/v1/label/%s/values?match[]=%s", parts[2], url.QueryEscape(v.fill(parts[1])))
	if err := v.get(path, &values); err != nil || len(values) == 0 {
		t.Fatalf("%s: %v, %d values", query, err, len(values))
	}
	return values
}

// fill puts the variables in.
func (v *view) fill(expr string) string {
	return anyVariable.ReplaceAllStringFunc(expr, func(found string) string {
		if value, ok := v.variables[strings.Trim(found, "${}")]; ok {
			return value
		}
		return found // of a label_replace, or a mistake that Prometheus tells
	})
}

func (v *view) ask(q dashboardQuery) (answer, error) {
	var data struct{ Result answer }
	at := func(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }
	if q.Instant {
		err := v.get("/api/v1/query?time="+at(v.to)+"&query="+url.QueryEscape(v.fill(q.Expr)), &data)
		return data.Result, err
	}
	err := v.get("/api/v1/query_range?step=1&start="+at(v.from)+"&end="+at(v.to)+"&query="+url.QueryEscape(v.fill(q.Expr)), &data)
	return data.Result, err
}

// checkChosen chooses one value of each variable: nothing errs, and what is shown is chosen.
func (v *view) checkChosen(t *testing.T, d *dashboard) {
	t.Helper()
	chosen, only := *v, map[string]string{"policy": sceneFine, "cloud": "default", "target_kind": "waf"}
	chosen.variables = maps.Clone(v.variables)
	maps.Copy(chosen.variables, only)
	for _, panel := range d.Panels {
		for _, q := range panel.Targets {
			a, err := chosen.ask(q)
			if err != nil {
				t.Errorf("panel %q with a policy chosen, query %s: %v", panel.Title, q.RefID, err)
			}
			for _, series := range a {
				for label, value := range only {
					if is, has := series.Metric[label]; has && is != value {
						t.Errorf("panel %q shows %s %s, and %s is chosen", panel.Title, label, is, value)
					}
				}
			}
		}
	}
}
