//go:build prometheus

package main

import (
	"fmt"
	"html"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// The picture of the dashboard: what the panels would show of a run's data, drawn plainly. It
// takes sizes, units, names and colours from the dashboard's JSON, and is no picture of Grafana.

const (
	drawWidth  = 1280
	drawUnit   = 30 // height of one unit of the grid
	drawGap    = 6
	drawTop    = 76 // above the grid: title, variables, marks
	drawLetter = 5.9
)

// drawStyle has each colour for light and for dark.
const drawStyle = `
svg{--bg:#f4f5f5;--panel:#fff;--edge:#dcdee2;--text:#24292e;--dim:#5f6871;--green:#1b855e;--yellow:#a88200;--orange:#d96b0a;--red:#d0203a;--dark-red:#8b0d1d;--blue:#1f60c4;--light-blue:#4aa3df;--purple:#8f3bb8;--semi-dark-purple:#b877d9;--semi-dark-blue:#3274d9}
@media(prefers-color-scheme:dark){svg{--bg:#111217;--panel:#181b1f;--edge:#2f343b;--text:#d8d9da;--dim:#9aa3ad;--green:#73bf69;--yellow:#f2cc0c;--orange:#ff9830;--red:#f2495c;--dark-red:#e02f44;--blue:#5794f2;--light-blue:#8ab8ff;--purple:#b877d9;--semi-dark-purple:#8f3bb8;--semi-dark-blue:#3274d9}}
text{font:11px system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;fill:var(--text)}
.dim{fill:var(--dim)}.small{font-size:10px}.title{font-weight:600;font-size:12px}.row{font-weight:600;font-size:14px}.name{font-weight:700;font-size:20px}.big{font-weight:600;font-size:26px}.mid{font-weight:600;font-size:19px}
.panel{fill:var(--panel);stroke:var(--edge)}.grid{stroke:var(--edge);fill:none}.line{fill:none;stroke-width:1.6}.mark{stroke-dasharray:2 3;opacity:.55;fill:none}
`

// seriesColors follow one another where nothing names a colour.
var seriesColors = []string{"green", "yellow", "light-blue", "orange", "red", "blue", "purple", "semi-dark-purple", "semi-dark-blue", "dark-red"}

// paint is how a colour of the dashboard is written. Grafana's "text" is that of text.
func paint(color string) string { return "var(--" + color + ")" }

// canvas is a picture under way.
type canvas struct {
	strings.Builder
	view  *view
	marks []drawnMark
}

// drawnMark is an annotation, at the moments when it happened.
type drawnMark struct {
	name, color string
	at          []float64
}

func (c *canvas) add(format string, args ...any) { fmt.Fprintf(c, format+"\n", args...) }

// write puts text of at most some width, in pixels.
func (c *canvas) write(x, y, width float64, class, style, text string) {
	if most := max(1, int(width/drawLetter)); len([]rune(text)) > most {
		text = string([]rune(text)[:most-1]) + "…"
	}
	if style != "" {
		style = fmt.Sprintf(` style="%s"`, style)
	}
	if class != "" {
		class = fmt.Sprintf(` class="%s"`, class)
	}
	c.add(`<text x="%.4g" y="%.5g"%s%s>%s</text>`, x, y, class, style, html.EscapeString(text))
}

// box is where a panel draws.
type box struct{ x, y, w, h float64 }

func drawDashboard(t *testing.T, d *dashboard, v *view) {
	t.Helper()
	c := &canvas{view: v}
	height := 0
	for _, p := range d.Panels {
		height = max(height, (p.GridPos.Y+p.GridPos.H)*drawUnit)
	}
	c.add(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img"><title>The dashboard of rotatord</title><style>%s</style>`, drawWidth, height+drawTop+drawGap, drawStyle)
	c.add(`<rect width="100%%" height="100%%" style="fill:var(--bg)"/>`)
	c.head(t, d)
	for i := range d.Panels {
		c.panel(t, &d.Panels[i])
	}
	c.add("</svg>")
	if c.Len() > 300_000 {
		t.Fatalf("the picture has %d bytes", c.Len())
	}
	if err := os.WriteFile(dashboardPicture, []byte(c.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dashboardPicture, 0o644); err != nil {
		t.Fatal(err)
	}
}

// head is the title, what the variables are, and what the marks mean.
func (c *canvas) head(t *testing.T, d *dashboard) {
	t.Helper()
	c.write(drawGap, 26, 200, "name", "", d.Title)
	note := fmt.Sprintf("drawn from the dashboard's queries and the answers of a Prometheus, %.0f s of a test; not by Grafana", c.view.to.Sub(c.view.from).Seconds())
	c.add(`<text x="%d" y="26" class="dim" text-anchor="end">%s</text>`, drawWidth-drawGap, html.EscapeString(note))
	x := float64(drawGap)
	for _, variable := range d.Templating.List {
		value := fmt.Sprint(variable.Current.Value)
		switch value {
		case "[$__all]":
			value = "All"
		case "<nil>":
			value = "default"
		}
		text := variable.Name + ": " + value
		w := float64(len(text))*drawLetter + 14
		c.add(`<rect x="%.1f" y="36" width="%.1f" height="18" rx="2" class="panel"/>`, x, w)
		c.write(x+7, 49, w, "", "", text)
		x += w + drawGap
	}
	x = drawGap
	for _, mark := range d.Annotations.List {
		if !mark.Enable {
			continue
		}
		drawn := drawnMark{name: mark.Name, color: mark.IconColor}
		a, err := c.view.ask(mark.Target)
		if err != nil {
			t.Fatal(err)
		}
		for _, series := range a {
			drawn.at = append(drawn.at, moments(series.Values, mark.UseValueForTime)...)
		}
		slices.Sort(drawn.at)
		drawn.at = slices.Compact(drawn.at)
		c.marks = append(c.marks, drawn)
		c.add(`<path d="M%.1f 69h14" style="stroke:%s" stroke-width="2" class="mark"/>`, x, paint(mark.IconColor))
		c.write(x+18, 73, 300, "dim", "", mark.Name)
		x += 18 + float64(len(mark.Name))*drawLetter + 16
	}
}

// moments are when an annotation happened: the instants that are its values, or the beginnings
// of its points in a row.
func moments(points []point, values bool) (at []float64) {
	last := math.Inf(-1)
	for _, p := range points {
		switch {
		case values:
			at = append(at, p.value/1000)
		case p.at > last+1.5:
			at = append(at, p.at)
		}
		last = p.at
	}
	return at
}

func (c *canvas) panel(t *testing.T, p *dashboardPanel) {
	t.Helper()
	column := float64(drawWidth-drawGap) / 24
	b := box{drawGap + float64(p.GridPos.X)*column, drawTop + float64(p.GridPos.Y*drawUnit), float64(p.GridPos.W)*column - drawGap, float64(p.GridPos.H*drawUnit - drawGap)}
	if p.Type == "row" {
		c.write(b.x+2, b.y+19, b.w, "row", "", p.Title)
		return
	}
	c.add(`<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="3" class="panel"/>`, b.x, b.y, b.w, b.h)
	c.write(b.x+8, b.y+17, b.w-16, "title", "", p.Title)
	inner := box{b.x + 8, b.y + 26, b.w - 16, b.h - 32}
	switch p.Type {
	case "stat":
		c.tile(p, inner)
	case "timeseries":
		c.graph(p, inner)
	case "state-timeline", "status-history":
		c.timeline(p, inner)
	case "table":
		c.table(t, p, inner)
	case "bargauge":
		c.gauges(p, inner)
	default:
		t.Fatalf("nobody draws a %s", p.Type)
	}
}

// named is a series with its name in the legend.
type named struct {
	name   string
	points []point
	color  string
	shade  float64 // opacity
	field  field
}

// series are those of all queries, with names, colours and units.
func (p *dashboardPanel) series() (all []named) {
	for i, a := range p.answers {
		for _, s := range a {
			n := named{name: legend(p.Targets[i].LegendFormat, s.Metric), points: s.Values}
			if s.Value.at != 0 {
				n.points = append(n.points, s.Value)
			}
			n.field = p.field(n.name)
			if n.shade = 0.85; n.field.shades {
				n.shade = 1 / (1 + 0.45*float64(len(all)%6))
			}
			if n.color = n.field.color; n.color == "" {
				n.color = seriesColors[len(all)%len(seriesColors)]
			}
			all = append(all, n)
		}
	}
	return all
}

var legendLabel = regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`)

func legend(format string, labels map[string]string) string {
	return strings.TrimSpace(legendLabel.ReplaceAllStringFunc(format, func(found string) string {
		return labels[strings.Trim(found, "{} ")]
	}))
}

// when is a moment on the horizontal axis.
func (c *canvas) when(b box, at float64) float64 {
	from, to := float64(c.view.from.Unix()), float64(c.view.to.Unix())
	return b.x + b.w*min(1, max(0, (at-from)/(to-from)))
}

// times writes the axis below a box, and draws the marks into it.
func (c *canvas) times(b box) {
	most := int(b.w / 95)
	for i := range most + 1 {
		at := c.view.from.Add(time.Duration(i) * c.view.to.Sub(c.view.from) / time.Duration(most))
		anchor := "middle"
		if i == 0 {
			anchor = "start"
		} else if i == most {
			anchor = "end"
		}
		c.add(`<text x="%.1f" y="%.1f" class="dim small" text-anchor="%s">%s</text>`, c.when(b, float64(at.Unix())), b.y+b.h+12, anchor, at.UTC().Format("15:04:05"))
	}
	for _, mark := range c.marks {
		var path strings.Builder
		for _, at := range mark.at {
			fmt.Fprintf(&path, "M%.1f %.1fv%.1f", c.when(b, at), b.y, b.h)
		}
		c.add(`<path d="%s" class="mark" style="stroke:%s"/>`, path.String(), paint(mark.color))
	}
}

// names writes a legend into two lines at most.
func (c *canvas) names(b box, all []named) {
	x, y, lines := b.x, b.y, 1
	for i, n := range all {
		w := 14 + float64(len([]rune(n.name)))*drawLetter + 10
		if x+w > b.x+b.w && x > b.x {
			if lines++; lines > 2 {
				c.write(x, y, 60, "dim small", "", fmt.Sprintf("+%d", len(all)-i))
				return
			}
			x, y = b.x, y+13
		}
		c.add(`<rect x="%.1f" y="%.1f" width="9" height="3" style="fill:%s;opacity:%.2g"/>`, x, y-5, paint(n.color), n.shade)
		c.write(x+13, y, b.w-14, "small", "", n.name)
		x += w
	}
}
