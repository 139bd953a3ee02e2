//go:build prometheus

package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Panels of numbers and of points in time.

func (c *canvas) tile(p *dashboardPanel, b box) {
	all := p.series()
	class, each := "big", b.w/float64(len(all))
	if len(all) > 1 {
		class = "mid"
	}
	for i, s := range all {
		value := s.points[len(s.points)-1].value
		text, color := s.field.show(value)
		center := b.x + each*(float64(i)+0.5)
		c.add(`<text x="%.1f" y="%.1f" class="%s" text-anchor="middle" style="fill:%s">%s</text>`, center, b.y+b.h/2+10, class, paint(color), text)
		if len(all) > 1 {
			c.add(`<text x="%.1f" y="%.1f" class="dim small" text-anchor="middle">%s</text>`, center, b.y+b.h/2+28, s.name)
		}
	}
}

func (c *canvas) gauges(p *dashboardPanel, b box) {
	for i, s := range p.series() {
		value := s.points[len(s.points)-1].value
		text, color := s.field.show(value)
		y := b.y + float64(i)*38 + 12
		c.write(b.x, y, b.w-50, "", "", s.name)
		c.add(`<text x="%.1f" y="%.1f" text-anchor="end" style="fill:%s">%s</text>`, b.x+b.w, y, paint(color), text)
		c.add(`<rect x="%.1f" y="%.1f" width="%.1f" height="12" style="fill:var(--edge)"/>`, b.x, y+6, b.w)
		c.add(`<rect x="%.1f" y="%.1f" width="%.1f" height="12" style="fill:%s"/>`, b.x, y+6, max(1.5, b.w*min(1, value)), paint(color))
	}
}

// graph draws lines, or bars on top of each other.
func (c *canvas) graph(p *dashboardPanel, b box) {
	all := p.series()
	bars := p.custom("drawStyle") == "bars"
	if bars && len(all) > 1 {
		all = slices.DeleteFunc(all, func(s named) bool { return !slices.ContainsFunc(s.points, func(p point) bool { return p.value > 0 }) })
	}
	left, right := []named{}, []named{}
	for _, s := range all {
		if s.field.right {
			right = append(right, s)
		} else {
			left = append(left, s)
		}
	}
	plot := box{b.x + 52, b.y + 4, b.w - 56, b.h - 52}
	if len(right) > 0 {
		plot.w -= 44
	}
	c.axis(plot, left, bars, false)
	c.axis(plot, right, bars, true)
	c.times(plot)
	c.names(box{b.x, b.y + b.h - 16, b.w, 26}, all)
}

// axis draws the series that share one, and its numbers.
func (c *canvas) axis(b box, all []named, bars, right bool) {
	if len(all) == 0 {
		return
	}
	top, sum := 0.0, map[float64]float64{}
	for _, s := range all {
		for _, p := range s.points {
			if math.IsNaN(p.value) || math.IsInf(p.value, 0) {
				continue
			}
			if sum[p.at] += p.value; bars {
				top = max(top, sum[p.at])
			} else {
				top = max(top, p.value)
			}
		}
	}
	scale := 1.0
	if all[0].field.unit == "bytes" {
		scale = 1 << 20
	}
	top = roundUp(top/scale) * scale
	for i := range 3 {
		y := b.y + b.h*(1-float64(i)/2)
		text := all[0].field.number(top * float64(i) / 2)
		if right {
			c.add(`<text x="%.1f" y="%.1f" class="dim small">%s</text>`, b.x+b.w+5, y+3, text)
			continue
		}
		c.add(`<path d="M%.1f %.1fh%.1f" class="grid"/><text x="%.1f" y="%.1f" class="dim small" text-anchor="end">%s</text>`, b.x, y, b.w, b.x-5, y+3, text)
	}
	below := map[float64]float64{}
	for _, s := range all {
		if bars {
			c.bars(b, s, top, below)
			continue
		}
		dash := ""
		if right {
			dash = ` stroke-dasharray="5 3"`
		}
		c.add(`<path d="%s" class="line" style="stroke:%s"%s/>`, c.line(b, s, top), paint(s.color), dash)
	}
}

func (c *canvas) line(b box, s named, top float64) string {
	var path strings.Builder
	last := math.Inf(-1)
	for _, p := range s.points {
		if math.IsNaN(p.value) || math.IsInf(p.value, 0) {
			continue
		}
		command := "L"
		if p.at > last+1.5 {
			command = "M"
		}
		last = p.at
		x, y := c.when(b, p.at), b.y+b.h*(1-p.value/top)
		fmt.Fprintf(&path, "%s%.1f %.1f", command, x, y)
		if command == "M" {
			path.WriteString("h.1") // a single point is seen too
		}
	}
	return path.String()
}

func (c *canvas) bars(b box, s named, top float64, below map[float64]float64) {
	var path strings.Builder
	width := b.w / (c.view.to.Sub(c.view.from).Seconds() + 1) * 0.8
	for _, p := range s.points {
		if h := b.h * p.value / top; h > 0.05 {
			fmt.Fprintf(&path, "M%.1f %.1fh%.1fv%.1fh-%.1fz", c.when(b, p.at)-width/2, b.y+b.h*(1-below[p.at]/top), width, -h, width)
			below[p.at] += p.value
		}
	}
	c.add(`<path d="%s" style="fill:%s;opacity:%.2g"/>`, path.String(), paint(s.color), s.shade)
}

// roundUp is the end of an axis: 1, 2 or 5 times a power of ten.
func roundUp(v float64) float64 {
	if v <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 4, 5, 10} {
		if v <= m*power*1.0001 {
			return m * power
		}
	}
	return v
}

// timeline draws what was so from when to when, a line for each series.
func (c *canvas) timeline(p *dashboardPanel, b box) {
	all := p.series()
	slices.SortStableFunc(all, func(x, y named) int { return strings.Compare(x.name, y.name) })
	names := 0
	for _, s := range all {
		names = max(names, len(s.name))
	}
	plot := box{b.x + min(b.w*0.45, float64(names)*drawLetter+8), b.y, 0, b.h - 34}
	plot.w = b.x + b.w - plot.x
	each := min(24, plot.h/float64(len(all)))
	seen := map[string]string{}
	for i, s := range all {
		y := plot.y + float64(i)*each
		c.write(b.x, y+each/2+4, plot.x-b.x-6, "small", "", s.name)
		for first := 0; first < len(s.points); {
			last := first
			for last+1 < len(s.points) && s.points[last+1].value == s.points[first].value && s.points[last+1].at < s.points[last].at+1.5 {
				last++
			}
			text, color := s.field.show(s.points[first].value)
			seen[text] = color
			x := c.when(plot, s.points[first].at-0.5)
			c.add(`<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" style="fill:%s;opacity:.85"/>`, x, y+1, c.when(plot, s.points[last].at+0.5)-x, each-2, paint(color))
			first = last + 1
		}
	}
	plot.h = each * float64(len(all))
	c.times(plot)
	var legend []named
	for text, color := range seen {
		legend = append(legend, named{name: text, color: color, shade: 0.85})
	}
	slices.SortFunc(legend, func(x, y named) int { return strings.Compare(x.name, y.name) })
	c.names(box{b.x, b.y + b.h - 3, b.w, 13}, legend)
}
