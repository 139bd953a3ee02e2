package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/rotation"
)

func newSchemaCommand() *cobra.Command {
	schemas := map[string][]byte{"config": policy.ConfigSchema, "policy": policy.PolicySchema, "event": rotation.EventSchema}
	return &cobra.Command{
		Use:   "schema config|policy|event",
		Short: "Print the JSON Schema of the configuration, of a policy or of events",
		Long: "Schema prints the JSON Schema (draft 2020-12) of rotatord.yaml or of a policy, for editors that complete and\n" +
			"check while one writes. It knows forms and defaults; rotatord check knows the rest. That of events is for\n" +
			"programs that hear them over NATS.",
		ValidArgs: []string{"config", "policy", "event"},
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{errors.New("schema needs one of config, policy, event")}
			}
			if schemas[args[0]] == nil {
				return usageError{fmt.Errorf("there is no schema of %q; take config, policy or event", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := cmd.OutOrStdout().Write(schemas[args[0]])
			return err
		},
	}
}
