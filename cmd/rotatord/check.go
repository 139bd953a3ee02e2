package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/internal/policy"
)

// errCheckFailed ends a check whose findings were printed already.
var errCheckFailed = errors.New("the configuration cannot be used as it is")

func newCheckCommand(g *globals) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "check [POLICY-FILE|DIRECTORY...]",
		Short: "Validate the configuration and its policies",
		Long: "Check reads the configuration and all its policies, or just the policy files named, and reports every\n" +
			"mistake with file, line and column. Nothing is contacted and nothing is changed. Exit code 1 if there are mistakes.",
		RunE: func(cmd *cobra.Command, args []string) error {
			summary, err := check(g.config, args)
			if output == "json" {
				return printCheckJSON(cmd, summary, err)
			}
			if err != nil {
				fmt.Fprintln(cmd.ErrOrStderr(), err)
				return errCheckFailed
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), summary)
			return err
		},
	}
	addOutputFlag(cmd, &output)
	return cmd
}

func addOutputFlag(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVarP(output, "output", "o", "text", "text or json")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if *output != "text" && *output != "json" {
			return usageError{fmt.Errorf("output %q is neither text nor json", *output)}
		}
		return nil
	}
}

// check returns one line for success, or the problems.
func check(config string, paths []string) (string, error) {
	if len(paths) == 0 {
		set, err := policy.Load(config, os.Getenv)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%s: ok, %s", config, counted(len(set.Policies), "policy", "policies")), nil
	}
	files, err := policyFiles(paths)
	if err != nil {
		return "", err
	}
	if err := policy.CheckFiles(config, files, os.Getenv); err != nil {
		return "", err
	}
	return fmt.Sprintf("ok, %s", counted(len(files), "policy", "policies")), nil
}

// policyFiles expands directories.
func policyFiles(paths []string) ([]string, error) {
	var files []string
	for _, path := range paths {
		if info, err := os.Stat(path); err != nil || !info.IsDir() {
			files = append(files, path) // a missing file is a finding like any other
			continue
		}
		below, err := policy.Files(path)
		if err != nil {
			return nil, fmt.Errorf("list policies: %w", err)
		}
		files = append(files, below...)
	}
	return files, nil
}

func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// finding is a problem as JSON.
type finding struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Message string `json:"message"`
}

func printCheckJSON(cmd *cobra.Command, summary string, err error) error {
	result := struct {
		OK       bool      `json:"ok"`
		Summary  string    `json:"summary,omitempty"`
		Problems []finding `json:"problems"`
	}{OK: err == nil, Summary: summary, Problems: []finding{}}
	problems, isProblems := errors.AsType[policy.Problems](err)
	for _, p := range problems {
		result.Problems = append(result.Problems, finding{p.File, p.Line, p.Column, p.Message})
	}
	if err != nil && !isProblems {
		return err
	}
	if err := printJSON(cmd, result); err != nil {
		return err
	}
	if !result.OK {
		return errCheckFailed
	}
	return nil
}

// writeJSONLine writes a value as one line, for what is read as a stream.
func writeJSONLine(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) }

func printJSON(cmd *cobra.Command, v any) error {
	e := json.NewEncoder(cmd.OutOrStdout())
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// shortPath shows a path relative to the working directory where that is shorter.
func shortPath(path string) string {
	wd, err := os.Getwd()
	if err != nil {
		return path
	}
	if rel, err := filepath.Rel(wd, path); err == nil && !strings.HasPrefix(rel, "..") {
		return rel
	}
	return path
}
