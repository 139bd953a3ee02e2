package policy

import (
	"cmp"
	"maps"
	"path/filepath"
	"slices"
)

// Set is a configuration with its policies: what is in force, as one value.
type Set struct {
	Config *Config
	// Policies are sorted by name.
	Policies []*Policy
}

// Policy returns the policy with this name, or nil.
func (s *Set) Policy(name string) *Policy {
	i, ok := slices.BinarySearchFunc(s.Policies, name, func(p *Policy, name string) int { return cmp.Compare(p.Name, name) })
	if !ok {
		return nil
	}
	return s.Policies[i]
}

// Load reads a configuration file and every policy below its policies directory.
// The error is a Problems with all mistakes found. getenv is os.Getenv or a test's;
// CREDENTIALS_DIRECTORY and STATE_DIRECTORY are asked for.
func Load(configFile string, getenv func(string) string) (*Set, error) {
	set, problems := Read(configFile, nil, getenv)
	if len(problems) > 0 {
		return nil, problems
	}
	return set, nil
}

// Socket is where the daemon with this configuration is asked. It fails only if the file
// cannot be read as YAML with these fields: whoever asks need not be able to use the rest.
func Socket(configFile string, getenv func(string) string) (string, error) {
	var config Config
	d := readDocument(configFile, &config)
	if len(d.problems) == 0 {
		r := newResolver(configFile, getenv)
		config.completeState(r, getenv)
		config.completeSocket(d, r, getenv)
	}
	if len(d.problems) > 0 {
		return "", d.problems
	}
	return config.Socket, nil
}

// Read is Load for those who want to know more of what is wrong: besides the mistakes it
// returns the configuration and those policies whose text has none, or nil where the
// configuration cannot be decoded at all. With files it reads these instead of all
// policies.
func Read(configFile string, files []string, getenv func(string) string) (*Set, Problems) {
	config, problems := loadConfig(configFile, getenv)
	if config == nil {
		return nil, problems
	}
	if files == nil {
		var err error
		if files, err = Files(config.Policies); err != nil {
			problems = append(problems, Problem{File: config.Policies, Message: "policies cannot be listed: " + plainError(err)})
		}
	}
	policies, more := loadPolicies(files, config, getenv)
	problems = append(problems, more...)
	problems.Sort()
	return &Set{Config: config, Policies: policies}, problems
}

// loadConfig returns nil if the file could not be decoded at all: then the policies
// cannot be judged either.
func loadConfig(file string, getenv func(string) string) (*Config, Problems) {
	var config Config
	d := readDocument(file, &config)
	if len(d.problems) > 0 {
		return nil, d.problems
	}
	config.File = file
	config.complete(d, newResolver(file, getenv), getenv)
	return &config, d.problems
}

// loadPolicies returns the policies whose text has no mistakes.
func loadPolicies(files []string, config *Config, getenv func(string) string) ([]*Policy, Problems) {
	var policies []*Policy
	var problems Problems
	first := map[string]string{} // policy name → file:line of its first definition
	taken := map[string]string{} // place → the policy that cares for it
	for _, file := range files {
		p := &Policy{}
		d := readDocument(file, p)
		if len(d.problems) == 0 {
			p.complete(d, newResolver(file, getenv), config)
			checkUnique(d, p.Name, first)
			checkPlaces(d, p, taken)
		}
		problems = append(problems, d.problems...)
		if !slices.ContainsFunc(d.problems, func(p Problem) bool { return !p.Host }) {
			policies = append(policies, p)
		}
	}
	slices.SortFunc(policies, func(a, b *Policy) int { return cmp.Compare(a.Name, b.Name) })
	return policies, problems
}

func checkUnique(d *document, name string, first map[string]string) {
	if name == "" {
		return
	}
	if where, ok := first[name]; ok {
		d.addAt("$.name", "policy %q is defined already in %s", name, where)
		return
	}
	first[name] = d.file
}

func newResolver(file string, getenv func(string) string) resolver {
	base, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		base = filepath.Dir(file)
	}
	return resolver{credentials: getenv("CREDENTIALS_DIRECTORY"), base: base}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
