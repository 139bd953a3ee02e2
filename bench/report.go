package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// figure is one quantity, measured several times.
type figure struct {
	Experiment string    `json:"experiment"`
	Name       string    `json:"name"`
	N          int       `json:"n"`
	Unit       string    `json:"unit"`
	Values     []float64 `json:"values"`
	// Limit is the same work at its least, measured in this run; LimitName says what that is.
	Limit     []float64 `json:"limit,omitempty"`
	LimitName string    `json:"limit_name,omitempty"`
	// Goal is what is to be reached, in words: it may concern the value or the ratio.
	Goal string `json:"goal,omitempty"`
}

func (f figure) median() float64 { return median(f.Values) }

// ratio of the value to its limit; 0 without one.
func (f figure) ratio() float64 {
	if len(f.Limit) == 0 || median(f.Limit) == 0 {
		return 0
	}
	return f.median() / median(f.Limit)
}

func median(values []float64) float64 { return quantile(values, 0.5) }

// quantile by the nearest rank.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// report prints figures, and keeps them where it was told to.
type report struct {
	text io.Writer
	file *os.File // nil: not kept

	experiment string
	n          int
}

func newReport(text io.Writer, path string) (*report, error) {
	r := &report{text: text}
	if path == "" {
		return r, nil
	}
	var err error
	if r.file, err = os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *report) close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}

// add prints a figure of the experiment under way.
func (r *report) add(f figure) error {
	f.Experiment, f.N = r.experiment, r.n
	line := fmt.Sprintf("%-8s %7d  %-42s %10s %-6s [%s %s]", f.Experiment, f.N, f.Name, short(f.median()), f.Unit,
		short(slices.Min(f.Values)), short(slices.Max(f.Values)))
	if len(f.Limit) > 0 {
		line += fmt.Sprintf("  limit %s (%s), ratio %.2f", short(median(f.Limit)), f.LimitName, f.ratio())
	}
	if f.Goal != "" {
		line += "  goal " + f.Goal
	}
	_, err := fmt.Fprintln(r.text, line)
	if r.file != nil {
		err = errors.Join(err, json.NewEncoder(r.file).Encode(f))
	}
	return err
}

// short is a number with three digits that count.
func short(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// note prints something that is no figure, of the experiment under way.
func (r *report) note(format string, args ...any) error {
	_, err := fmt.Fprintf(r.text, "%-8s %7d  %s\n", r.experiment, r.n, fmt.Sprintf(format, args...))
	return err
}

func (r *report) addAll(figures []figure) error {
	for _, f := range figures {
		if err := r.add(f); err != nil {
			return err
		}
	}
	return nil
}
