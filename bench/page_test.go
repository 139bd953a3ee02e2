package main

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestExponent(t *testing.T) {
	for want, f := range map[float64]func(n float64) float64{
		0:   func(float64) float64 { return 7 },
		1:   func(n float64) float64 { return 3 * n },
		1.5: func(n float64) float64 { return n * math.Sqrt(n) },
		2:   func(n float64) float64 { return n * n / 9 },
	} {
		if got, ok := exponent([]int{1000, 10000, 100000}, []float64{f(1e3), f(1e4), f(1e5)}); !ok || math.Abs(got-want) > 1e-9 {
			t.Errorf("%v, %v, want %v", got, ok, want)
		}
	}
	if e, ok := exponent([]int{10}, []float64{1}); ok {
		t.Errorf("one point grows with %v", e)
	}
}

func TestQuantiles(t *testing.T) {
	values := []float64{9, 1, 8, 2, 7, 3, 6, 4, 5, 10}
	for q, want := range map[float64]float64{0: 1, 0.5: 6, 0.99: 10, 1: 10} {
		if got := quantile(values, q); got != want {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
}

// The page and its pictures are made from the figures that are kept.
func TestPageIsOfTheFigures(t *testing.T) {
	page, err := os.ReadFile("../docs/performance.md")
	if err != nil {
		t.Fatal(err)
	}
	figures, err := readFigures("figures.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	filled, err := fillIn(page, figures)
	if err != nil {
		t.Fatal(err)
	}
	const how = "make it anew: go run ./bench publish bench/figures.jsonl docs/performance.md docs/images"
	if string(filled) != string(page) {
		t.Errorf("docs/performance.md is of other figures; %s", how)
	}
	for _, p := range pictures() {
		drawn := p.draw(figures)
		if err := wellFormed(string(drawn)); err != nil {
			t.Errorf("%s: %v", p.file, err)
		}
		if kept, err := os.ReadFile(filepath.Join("../docs/images", p.file)); err != nil || string(kept) != string(drawn) {
			t.Errorf("%s is of other figures (%v); %s", p.file, err, how)
		}
		for _, panel := range p.panels {
			for _, l := range panel.lines {
				if len(l.points(figures)) == 0 {
					t.Errorf("%s: %s: no figure %q of %q", p.file, panel.title, l.name, l.experiment)
				}
			}
		}
	}
}

func wellFormed(text string) error {
	d := xml.NewDecoder(strings.NewReader(text))
	for {
		switch _, err := d.Token(); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}
