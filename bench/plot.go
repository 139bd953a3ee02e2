package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"math"
	"slices"
)

// picture is a file with panels side by side, each with logarithmic axes: what is linear has the slope of the diagonal.
type picture struct {
	file, title string
	panels      []panel
}

// panel shows figures of one unit over N.
type panel struct {
	title, unit string
	lines       []line
}

// line is a figure, or with limit the limit that was measured beside it.
type line struct {
	label, experiment, name string
	limit                   bool
}

const (
	panelWidth, panelHeight         = 320.0, 290.0
	marginLeft, marginTop           = 62.0, 62.0
	plotWidth, plotHeight           = 238.0, 168.0
	ink, faint, paper               = "#334155", "#cbd5e1", "#ffffff"
	limitColour                     = "#94a3b8"
	firstColour, secondColour, next = "#0f766e", "#9a3412", "#3730a3"
)

// point is one value of a line.
type point struct{ x, y float64 }

func (l line) points(figures []figure) (all []point) {
	for _, f := range figures {
		if f.Experiment != l.experiment || f.Name != l.name {
			continue
		}
		y := f.median()
		if l.limit {
			y = median(f.Limit)
		}
		if y > 0 {
			all = append(all, point{float64(f.N), y})
		}
	}
	slices.SortFunc(all, func(a, b point) int { return int(a.x - b.x) })
	return all
}

func (p picture) draw(figures []figure) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" font-family="DejaVu Sans, Helvetica, Arial, sans-serif" font-size="11" role="img" aria-labelledby="title">
  <title id="title">%s</title>
  <rect width="100%%" height="100%%" fill="%s"/>
`, panelWidth*float64(len(p.panels)), panelHeight, escaped(p.title), paper)
	for i, panel := range p.panels {
		fmt.Fprintf(&b, "  <g transform=\"translate(%.0f 0)\">\n", panelWidth*float64(i))
		panel.draw(&b, figures)
		b.WriteString("  </g>\n")
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// scale maps decades to a length.
type scale struct{ low, high, length float64 }

// decades that hold all values.
func decades(values []float64, length float64) scale {
	low, high := math.Floor(math.Log10(slices.Min(values))), math.Ceil(math.Log10(slices.Max(values)))
	if low == high {
		high++
	}
	return scale{low, high, length}
}

func (s scale) at(v float64) float64 { return (math.Log10(v) - s.low) / (s.high - s.low) * s.length }

func (p panel) draw(b *bytes.Buffer, figures []figure) {
	var xs, ys []float64
	for _, l := range p.lines {
		for _, at := range l.points(figures) {
			xs, ys = append(xs, at.x), append(ys, at.y)
		}
	}
	fmt.Fprintf(b, "    <text x=\"14\" y=\"24\" font-size=\"13\" font-weight=\"bold\" fill=\"%s\">%s</text>\n", ink, escaped(p.title))
	if len(xs) == 0 {
		return
	}
	x, y := decades(xs, plotWidth), decades(ys, plotHeight)
	p.axes(b, x, y)
	colours := []string{firstColour, secondColour, next}
	for i, l := range p.lines {
		colour, dash := limitColour, ` stroke-dasharray="4 3"`
		if !l.limit {
			colour, dash, colours = colours[0], "", colours[1:]
		}
		points := l.points(figures)
		fmt.Fprintf(b, "    <polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\"%s points=\"", colour, dash)
		for _, at := range points {
			fmt.Fprintf(b, "%.1f,%.1f ", marginLeft+x.at(at.x), marginTop+plotHeight-y.at(at.y))
		}
		b.WriteString("\"/>\n")
		for _, at := range points {
			fmt.Fprintf(b, "    <circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"><title>%s at %.0f: %s %s</title></circle>\n",
				marginLeft+x.at(at.x), marginTop+plotHeight-y.at(at.y), colour, escaped(l.label), at.x, short(at.y), p.unit)
		}
		fmt.Fprintf(b, "    <text x=\"14\" y=\"%.0f\" fill=\"%s\">%s%s</text>\n", marginTop+plotHeight+30+13*float64(i), colour, escaped(l.label), grows(points))
	}
}

// grows is the exponent in words.
func grows(points []point) string {
	var ns []int
	var values []float64
	for _, at := range points {
		ns, values = append(ns, int(at.x)), append(values, at.y)
	}
	e, ok := exponent(ns, values)
	if !ok {
		return ""
	}
	return fmt.Sprintf(", exponent %.2f", e)
}

func (p panel) axes(b *bytes.Buffer, x, y scale) {
	fmt.Fprintf(b, "    <text x=\"14\" y=\"44\" fill=\"%s\">%s</text>\n", ink, escaped(p.unit))
	for decade := y.low; decade <= y.high; decade++ {
		at := marginTop + plotHeight - y.at(math.Pow(10, decade))
		fmt.Fprintf(b, "    <path d=\"M%.1f %.1fh%.1f\" stroke=\"%s\"/><text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\" fill=\"%s\">%s</text>\n",
			marginLeft, at, plotWidth, faint, marginLeft-6, at+4, ink, power(decade))
	}
	for decade := x.low; decade <= x.high; decade++ {
		at := marginLeft + x.at(math.Pow(10, decade))
		fmt.Fprintf(b, "    <path d=\"M%.1f %.1fv%.1f\" stroke=\"%s\"/><text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\" fill=\"%s\">%s</text>\n",
			at, marginTop, plotHeight, faint, at, marginTop+plotHeight+14, ink, power(decade))
	}
}

// power of ten as people write it.
func power(decade float64) string {
	v := math.Pow(10, decade)
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%.0fM", v/1e6)
	case v >= 1e3:
		return fmt.Sprintf("%.0fk", v/1e3)
	}
	return fmt.Sprintf("%g", v)
}

func escaped(text string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(text)) // a buffer takes everything
	return b.String()
}
