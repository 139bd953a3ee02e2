package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/internal/policy"
)

func newSchemaCommand() *cobra.Command {
	schemas := map[string][]byte{"config": policy.ConfigSchema, "policy": policy.PolicySchema}
	return &cobra.Command{
		Use:   "schema config|policy",
		Short: "Print the JSON Schema of the configuration or of a policy",
		Long: "Schema prints the JSON Schema (draft 2020-12) of rotatord.yaml or of a policy, for editors that complete and\n" +
			"check while one writes. It knows forms and defaults; rotatord check knows the rest.",
		ValidArgs: []string{"config", "policy"},
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{errors.New("schema needs one of config, policy")}
			}
			if schemas[args[0]] == nil {
				return usageError{fmt.Errorf("there is no schema of %q; take config or policy", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := cmd.OutOrStdout().Write(schemas[args[0]])
			return err
		},
	}
}
