//go:build prometheus

package main

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Tables, and how values are written.

// field is how a series or a column is shown.
type field struct {
	unit, color string
	shades      bool // of the color, one for each series
	cell        string
	right       bool // its axis
	decimals    int  // -1: as many as are of use
	names       map[string]shownAs
	steps       []step
	now         time.Time
}

type shownAs struct{ text, color string }

type step struct {
	from  float64
	color string
}

// field takes the defaults of a panel and what overrides them by name.
func (p *dashboardPanel) field(name string) field {
	f := field{decimals: -1, now: time.Now()}
	for id, value := range p.FieldConfig.Defaults {
		f.set(id, value)
	}
	for _, o := range p.FieldConfig.Overrides {
		byRegexp := o.Matcher.ID == "byRegexp" && regexp.MustCompile("^(?:"+o.Matcher.Options+")$").MatchString(name)
		if byRegexp || o.Matcher.ID == "byName" && o.Matcher.Options == name {
			for _, property := range o.Properties {
				f.set(property.ID, property.Value)
			}
		}
	}
	return f
}

func (f *field) set(id string, value any) {
	part := func(v any, key string) any { m, _ := v.(map[string]any); return m[key] }
	switch id {
	case "unit":
		f.unit = value.(string)
	case "decimals":
		f.decimals = int(value.(float64))
	case "color":
		f.color, _ = part(value, "fixedColor").(string)
		f.shades = part(value, "mode") == "shades"
	case "custom.axisPlacement":
		f.right = value == "right"
	case "custom.cellOptions":
		f.cell = part(value, "type").(string)
	case "mappings":
		f.names = map[string]shownAs{}
		for _, m := range value.([]any) {
			for from, to := range part(m, "options").(map[string]any) {
				f.names[from] = shownAs{part(to, "text").(string), part(to, "color").(string)}
			}
		}
	case "thresholds":
		f.steps = nil
		for _, s := range part(value, "steps").([]any) {
			from, limited := part(s, "value").(float64)
			if !limited {
				from = math.Inf(-1)
			}
			f.steps = append(f.steps, step{from, part(s, "color").(string)})
		}
	}
}

// custom is a setting of the panel's kind.
func (p *dashboardPanel) custom(name string) any {
	all, _ := p.FieldConfig.Defaults["custom"].(map[string]any)
	return all[name]
}

// show is a value's text and colour.
func (f *field) show(value float64) (text, color string) {
	color = "text"
	for _, s := range f.steps {
		if value >= s.from {
			color = s.color
		}
	}
	if n, ok := f.names[strconv.FormatFloat(value, 'f', -1, 64)]; ok {
		return n.text, n.color
	}
	return f.number(value), color
}

func (f *field) number(v float64) string {
	decimals := func(v float64, most int) string {
		if f.decimals >= 0 {
			most = f.decimals
		}
		text := strconv.FormatFloat(v, 'f', most, 64)
		if f.decimals < 0 && strings.Contains(text, ".") {
			text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
		}
		return text
	}
	switch f.unit {
	case "percentunit":
		return decimals(v*100, 1) + "%"
	case "s":
		return saidTime(v)
	case "bytes":
		return decimals(v/(1<<20), 1) + " MiB"
	case "reqps":
		return decimals(v, 2) + " req/s"
	case "cps":
		return decimals(v, 1) + " c/s"
	case "dateTimeFromNow":
		left := v/1000 - float64(f.now.Unix())
		if left < 0 {
			return saidTime(-left) + " ago"
		}
		return "in " + saidTime(left)
	}
	return decimals(v, 2)
}

// saidTime is a time as people say it.
func saidTime(seconds float64) string {
	sign := ""
	if seconds < 0 {
		sign, seconds = "-", -seconds
	}
	switch {
	case seconds == 0:
		return "0 s"
	case seconds < 1:
		return fmt.Sprintf("%s%.0f ms", sign, seconds*1000)
	case seconds < 120:
		return fmt.Sprintf("%s%.3g s", sign, seconds)
	case seconds < 7200:
		return fmt.Sprintf("%s%.0f min", sign, seconds/60)
	case seconds < 2*86400:
		return fmt.Sprintf("%s%.0f h", sign, seconds/3600)
	}
	return fmt.Sprintf("%s%.0f days", sign, seconds/86400)
}

// record is a row of a table: texts of labels, and numbers.
type record struct {
	labels map[string]string
	values map[string]float64
}

// merged joins the answers of a panel's queries by the labels that all of them have, as
// Grafana's transformation "merge" does. Two rows of one answer that would be the same row are
// a mistake of a query.
func (p *dashboardPanel) merged(t *testing.T) []record {
	t.Helper()
	var common []string
	for i, a := range p.answers {
		labels := map[string]bool{}
		for _, s := range a {
			for label := range s.Metric {
				labels[label] = true
			}
		}
		if i == 0 {
			common = slices.Sorted(maps.Keys(labels))
		}
		common = slices.DeleteFunc(common, func(label string) bool { return !labels[label] })
	}
	var rows []record
	at := map[string]int{}
	for i, a := range p.answers {
		name, seen := "Value", map[string]bool{}
		if len(p.answers) > 1 {
			name = "Value #" + p.Targets[i].RefID
		}
		for _, s := range a {
			var key strings.Builder
			for _, label := range common {
				key.WriteString(s.Metric[label] + "\x00")
			}
			if seen[key.String()] {
				t.Errorf("panel %q, query %s: two rows for %q", p.Title, p.Targets[i].RefID, key.String())
			}
			seen[key.String()] = true
			if _, there := at[key.String()]; !there {
				at[key.String()] = len(rows)
				rows = append(rows, record{map[string]string{}, map[string]float64{}})
			}
			row := rows[at[key.String()]]
			maps.Copy(row.labels, s.Metric)
			row.values[name] = s.Value.value
		}
	}
	return rows
}

// column of a table, as it is called and where its cells come from.
type column struct {
	of, name string
	field    field
}

// checkTable wants something in every column.
func (p *dashboardPanel) checkTable(t *testing.T) {
	t.Helper()
	rows := p.merged(t)
	for _, c := range p.columns() {
		if !slices.ContainsFunc(rows, func(r record) bool { text, _, _ := c.cell(r); return text != "" }) {
			t.Errorf("panel %q: column %q is empty in all of %d rows", p.Title, c.name, len(rows))
		}
	}
}

func (p *dashboardPanel) columns() []column {
	organize := p.Transformations[len(p.Transformations)-1].Options
	var all []column
	for _, of := range slices.SortedFunc(maps.Keys(organize.RenameByName), func(a, b string) int { return organize.IndexByName[a] - organize.IndexByName[b] }) {
		name := organize.RenameByName[of]
		all = append(all, column{of, name, p.field(name)})
	}
	return all
}

func (c column) cell(r record) (text, color string, value float64) {
	if v, ok := r.values[c.of]; ok {
		text, color = c.field.show(v)
		if c.field.cell == "" {
			color = "text"
		}
		return text, color, v
	}
	text, color = r.labels[c.of], "text"
	if n, ok := c.field.names[text]; ok {
		return n.text, n.color, math.NaN()
	}
	return text, color, math.NaN()
}

func (c *canvas) table(t *testing.T, p *dashboardPanel, b box) {
	t.Helper()
	rows, columns := p.merged(t), p.columns()
	for _, sort := range p.Options.SortBy {
		at := slices.IndexFunc(columns, func(c column) bool { return c.name == sort.DisplayName })
		slices.SortStableFunc(rows, func(x, y record) int {
			_, _, xv := columns[at].cell(x)
			_, _, yv := columns[at].cell(y)
			if sort.Desc {
				xv, yv = yv, xv
			}
			return int(math.Copysign(1, xv-yv))
		})
	}
	widths, sum := make([]float64, len(columns)), 0.0
	for i, column := range columns {
		widths[i] = float64(len(column.name))
		for _, r := range rows {
			text, _, _ := column.cell(r)
			widths[i] = max(widths[i], min(30, float64(len(text))))
		}
		if column.field.cell == "gauge" {
			widths[i] += 10
		}
		widths[i] += 2
		sum += widths[i]
	}
	const height = 19
	y := b.y + 12
	for line := -1; line < len(rows) && y < b.y+b.h; line++ {
		x := b.x
		for i, column := range columns {
			w := b.w * widths[i] / sum
			switch {
			case line < 0:
				c.write(x, y, w, "dim", "font-weight:600", column.name)
			case y+height >= b.y+b.h && line+1 < len(rows):
				if i == 0 {
					c.write(x, y, b.w, "dim", "", fmt.Sprintf("and %d more", len(rows)-line))
				}
			default:
				c.cell(column, rows[line], x, y, w-6)
			}
			x += w
		}
		c.add(`<path d="M%.1f %.1fh%.1f" class="grid"/>`, b.x, y+5, b.w)
		y += height
	}
}

func (c *canvas) cell(column column, r record, x, y, w float64) {
	text, color, value := column.cell(r)
	if column.field.cell == "gauge" && !math.IsNaN(value) {
		bar := w - 40
		c.add(`<rect x="%.1f" y="%.1f" width="%.1f" height="10" style="fill:var(--edge)"/>`, x, y-9, bar)
		c.add(`<rect x="%.1f" y="%.1f" width="%.1f" height="10" style="fill:%s"/>`, x, y-9, max(1, bar*min(1, max(0, value))), paint(color))
		x, w = x+bar+5, 40
	}
	style := ""
	if color != "text" {
		style = "fill:" + paint(color)
	}
	c.write(x, y, w, "", style, text)
}
