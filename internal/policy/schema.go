package policy

import _ "embed" // the schemas

//go:generate go run ./schemagen

// ConfigSchema and PolicySchema are the JSON Schemas of the configuration and of a policy,
// for editors. They are made from this package; what they cannot say is left to Load.
var (
	//go:embed schema/config.schema.json
	ConfigSchema []byte
	//go:embed schema/policy.schema.json
	PolicySchema []byte
)
