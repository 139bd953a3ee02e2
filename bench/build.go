package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// release builds the program with an empty cache, looks at its size, and plays its demo.
func release(ctx context.Context, b *bench, _ int) error {
	cache, err := os.MkdirTemp(b.dir, "cache-")
	if err != nil {
		return err
	}
	binary := filepath.Join(cache, "rotatord")
	wall, cpu, err := timed(building(ctx, binary, "GOCACHE="+cache))
	if err != nil {
		return err
	}
	info, err := os.Stat(binary)
	if err != nil {
		return err
	}
	f := map[string][]float64{}
	for range b.rounds {
		demo, used, err := timed(exec.CommandContext(ctx, binary, "demo"))
		if err != nil {
			return err
		}
		start, _, err := timed(exec.CommandContext(ctx, binary, "version"))
		if err != nil {
			return err
		}
		f["demo"], f["demo, CPU"], f["version"] = append(f["demo"], demo), append(f["demo, CPU"], used), append(f["version"], start*1e3)
	}
	return errors.Join(
		b.report.add(figure{Name: "cold build", Unit: "s", Values: []float64{wall}, Goal: "120"}),
		b.report.add(figure{Name: "cold build, CPU", Unit: "s", Values: []float64{cpu}}),
		b.report.add(figure{Name: "stripped binary", Unit: "MB", Values: []float64{float64(info.Size()) / 1e6}, Goal: "40"}),
		b.report.add(figure{Name: "demo after the build", Unit: "s", Values: f["demo"], Goal: "20"}),
		b.report.add(figure{Name: "demo after the build, CPU", Unit: "s", Values: f["demo, CPU"]}),
		b.report.add(figure{Name: "version", Unit: "ms", Values: f["version"]}),
		os.RemoveAll(cache),
	)
}

// timed runs a command and returns what it took, in seconds, if it failed too: on the clock, and of processors with all
// its children.
func timed(cmd *exec.Cmd) (wall, cpu float64, err error) {
	started := time.Now()
	out, err := cmd.CombinedOutput()
	wall = time.Since(started).Seconds()
	if cmd.ProcessState != nil {
		cpu = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	}
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return wall, cpu, err
}
