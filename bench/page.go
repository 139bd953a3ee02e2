package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// readFigures are those of a file that -o has written; of a figure that was taken more than once, the last.
func readFigures(path string) ([]figure, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var all []figure
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var f figure
		if err := json.Unmarshal(lines.Bytes(), &f); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all = slices.DeleteFunc(all, func(old figure) bool {
			return old.Experiment == f.Experiment && old.Name == f.Name && old.N == f.N
		})
		all = append(all, f)
	}
	return all, nil
}

// exponent is how a figure grows with N: the slope of a straight line through the logarithms, by least squares.
func exponent(ns []int, values []float64) (float64, bool) {
	var x, y []float64
	for i, n := range ns {
		if values[i] > 0 {
			x, y = append(x, math.Log(float64(n))), append(y, math.Log(values[i]))
		}
	}
	if len(x) < 2 {
		return 0, false
	}
	mx, my := mean(x), mean(y)
	var above, below float64
	for i := range x {
		above += (x[i] - mx) * (y[i] - my)
		below += (x[i] - mx) * (x[i] - mx)
	}
	return above / below, true
}

func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

// row is a figure at all its sizes.
type row struct {
	name, unit, goal, limitName string
	at                          map[int]figure
}

func rows(figures []figure, experiment string) (all []*row, sizes []int) {
	for _, f := range figures {
		if f.Experiment != experiment {
			continue
		}
		i := slices.IndexFunc(all, func(r *row) bool { return r.name == f.Name })
		if i < 0 {
			i = len(all)
			all = append(all, &row{name: f.Name, at: map[int]figure{}})
		}
		r := all[i]
		r.unit, r.goal, r.limitName, r.at[f.N] = f.Unit, f.Goal, f.LimitName, f
		if !slices.Contains(sizes, f.N) {
			sizes = append(sizes, f.N)
		}
	}
	slices.Sort(sizes)
	return all, sizes
}

// growth is the row's exponent.
func (r *row) growth() (float64, bool) {
	var ns []int
	var values []float64
	for n, f := range r.at {
		ns, values = append(ns, n), append(values, f.median())
	}
	return exponent(ns, values)
}

// table is an experiment as Markdown.
func table(figures []figure, experiment string) string {
	all, sizes := rows(figures, experiment)
	var b strings.Builder
	b.WriteString("| figure |")
	for _, n := range sizes {
		fmt.Fprintf(&b, " %d |", n)
	}
	b.WriteString(" exponent | limit beside it | ratio | goal |\n| --- |" + strings.Repeat(" --- |", len(sizes)+4) + "\n")
	for _, r := range all {
		fmt.Fprintf(&b, "| %s |", r.name)
		var ratios []string
		for _, n := range sizes {
			f, ok := r.at[n]
			if !ok {
				b.WriteString("  |")
				continue
			}
			fmt.Fprintf(&b, " %s |", strings.TrimSpace(short(f.median())+" "+f.Unit))
			if ratio := f.ratio(); ratio > 0 {
				ratios = append(ratios, fmt.Sprintf("%.2f", ratio))
			}
		}
		slope := ""
		if e, ok := r.growth(); ok {
			slope = fmt.Sprintf("%.2f", e)
		}
		fmt.Fprintf(&b, " %s | %s | %s | %s |\n", slope, r.limitName, strings.Join(ratios, ", "), r.goal)
	}
	return b.String()
}

// publish draws the pictures and fills the tables of the page in, each between two marks in it.
func publish(figuresFile, page, images string) error {
	figures, err := readFigures(figuresFile)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	if text, err = fillIn(text, figures); err != nil {
		return fmt.Errorf("%s: %w", page, err)
	}
	err = os.WriteFile(page, text, 0o644)
	for _, p := range pictures() {
		err = errors.Join(err, os.WriteFile(filepath.Join(images, p.file), p.draw(figures), 0o644))
	}
	return err
}

// fillIn replaces what stands between <!-- figures: EXPERIMENT --> and <!-- end -->.
func fillIn(text []byte, figures []figure) ([]byte, error) {
	const begin, middle, end = "<!-- figures: ", " -->\n", "<!-- end -->"
	var out bytes.Buffer
	for {
		before, after, found := bytes.Cut(text, []byte(begin))
		out.Write(before)
		if !found {
			return out.Bytes(), nil
		}
		name, rest, ok := bytes.Cut(after, []byte(middle))
		_, text, found = bytes.Cut(rest, []byte(end))
		if !ok || !found {
			return nil, fmt.Errorf("a mark of figures without its end: %.40q", after)
		}
		fmt.Fprintf(&out, "%s%s%s\n%s\n%s", begin, name, middle, table(figures, string(name)), end)
	}
}
