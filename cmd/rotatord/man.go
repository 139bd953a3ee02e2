package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manEpoch is the date of the pages where SOURCE_DATE_EPOCH gives none: pages of one version
// are the same wherever they are made (reproducible-builds.org).
const manEpoch = 1_767_225_600 // 2026-01-01

func newManCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIRECTORY",
		Short: "Write the manual pages",
		Long:  "Man writes one manual page for each command into a directory, as section 8 has them.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{errors.New("man needs the directory to write to")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil { //nolint:gosec // manual pages are for everybody
				return fmt.Errorf("make the directory of the manual pages: %w", err)
			}
			date := time.Unix(manEpoch, 0).UTC()
			if err := doc.GenManTree(cmd.Root(), &doc.GenManHeader{
				Section: "8", Date: &date, Source: "rotatord " + versionText(), Manual: "rotatord",
			}, args[0]); err != nil {
				return fmt.Errorf("write the manual pages: %w", err)
			}
			return nil
		},
	}
}
