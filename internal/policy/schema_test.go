package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// The files of testdata/bad with mistakes of form, which the schema must catch.
const schemaCatches = `
	config-agency-incomplete-login config-agency-no-domain config-agency-no-login config-agency-no-name
	config-agency-null config-agency-two-domains config-agency-two-logins config-both-auths config-brake
	config-audit-retain config-audit-unknown config-socket-number
	config-brake-share config-client-cert-alone config-client-key-alone config-cloud-name config-embedded-port
	config-endpoint config-endpoint-service config-environment-field config-http-listen config-key-not-text
	config-limit config-limit-service config-log-format config-log-level config-login-of-embedded
	config-metadata-https config-metadata-nothing config-metadata-path config-no-auth config-no-region config-node
	config-node-any config-prefix config-project config-proxy config-replicas config-replicas-fraction
	config-secret-not-named config-three-auths config-tls-half config-two-logins config-unknown-field
	config-unknown-nested-field config-url-and-embedded config-url-password config-url-password-bare
	config-url-scheme config-url-second config-user-alone config-wrong-type

	policy-address policy-addresses-alone policy-apig-bad-instance policy-apig-no-instance policy-apig-replace
	policy-apig-scope policy-ca-common-name-long policy-ca-common-name-sign policy-ca-country
	policy-ca-enterprise-project policy-ca-extended-key-usage policy-ca-extension-empty policy-ca-extension-oid
	policy-ca-issuer policy-ca-key-algorithm policy-ca-key-held policy-ca-key-usage policy-ca-locality-mark
	policy-ca-name-kind policy-ca-names-many policy-ca-no-common-name policy-ca-no-validity policy-ca-organization
	policy-ca-signature policy-ca-superseded policy-ca-two-sources policy-ca-validity-unit policy-canary-bake
	policy-canary-twice policy-chain policy-comment-only policy-drift-action policy-duration policy-duration-list
	policy-empty policy-endpoint policy-endpoint-wildcard policy-enterprise-project policy-escape
	policy-file-key-only policy-file-mode-bad policy-file-mode-open policy-file-name-with-slash
	policy-file-no-directory policy-file-nothing-wanted policy-file-owner policy-file-pkcs12-password
	policy-file-reload-both policy-file-reload-empty policy-file-reload-shell policy-file-reload-unit
	policy-fraction policy-freeze-date policy-freeze-half policy-guard-issuer policy-host policy-ic-application
	policy-ic-instance policy-ic-no-instance policy-ic-party policy-ic-party-twice policy-ic-superseded policy-list
	policy-mode policy-multibyte policy-name policy-negative policy-no-hosts policy-no-name policy-no-path
	policy-no-source policy-not-yaml policy-number policy-number-too-large policy-on policy-on-failure
	policy-renew-share policy-renew-whole policy-schedule policy-subject policy-successes policy-target-no-kind
	policy-target-no-name policy-two-kinds policy-unknown-field policy-unknown-strange policy-window-duration
	policy-window-no-start policy-window-start policy-windows policy-words policy-wrong-type`

// The others, by why the schema cannot.
var schemaCannot = map[string]string{
	"no value comes out of a YAML parser": `
		config-agency-of-agency config-limit-nan config-secret-empty-path policy-alias-of-itself policy-alias-unknown
		policy-complex-key policy-duplicate-key policy-tab policy-tab-before policy-unclosed`,
	"it counts no bytes": `config-socket-long`,
	"it sees the first document, and keys as text": `
		config-cloud-name-number policy-second-document policy-third-document`,
	"it sees no other file": `
		config-ca-file config-client-cert-missing config-client-key-loose config-secret-directory config-secret-empty
		config-secret-group config-secret-loose config-secret-missing policy-apig-root-ca-missing
		config-web-config policy-ca-unknown-cloud policy-directory-twice policy-place-twice policy-unknown-cloud`,
	"it cannot reckon with spans, numbers in a text, or a calendar": `
		config-agency-long config-agency-short config-http-port config-timeout config-url-port policy-ca-backdate
		policy-ca-renew-late policy-ca-validity-long policy-ca-validity-zero policy-duration-endless
		policy-freeze-end policy-freeze-outlives policy-guard-remaining policy-rescan config-audit-short policy-schedule-never policy-splay
		policy-splay-window policy-too-often policy-window-frozen policy-window-late policy-window-long
		policy-window-zone`,
	"it cannot tell what an address, a name or a pattern means": `
		config-agency-metadata-far config-embedded-not-loopback config-metadata-far policy-ca-extension-standard
		policy-ca-name-email policy-ca-name-host policy-ca-name-ip policy-ca-name-uri policy-guard-names
		policy-pattern policy-pattern-issuer policy-subject-inbox policy-subject-own policy-subject-server`,
	"it cannot compare one part of a document with another": `
		config-agency-other-domain config-agency-project config-replicas-embedded policy-ca-endpoint-uncovered
		policy-ca-host-uncovered policy-ca-name-twice policy-ca-names-missing policy-ca-no-target policy-canary-all
		policy-canary-unknown policy-file-same-name policy-host-twice policy-ic-endpoints policy-ic-key-file
		policy-ic-target-name policy-ic-waf policy-renew-of-directory policy-target-twice`,
}

func TestSchemaAndBadFiles(t *testing.T) {
	catches := map[string]bool{}
	for name := range strings.FieldsSeq(schemaCatches) {
		catches[name] = true
	}
	for _, names := range schemaCannot {
		for name := range strings.FieldsSeq(names) {
			catches[name] = false
		}
	}
	schemas := newSchemas(t)
	files, err := filepath.Glob("testdata/bad/*.yaml")
	must(t, err)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		wanted, known := catches[name]
		delete(catches, name)
		problem := schemas.problem(t, file)
		switch caught := problem != "" && problem != notJSON; {
		case !known:
			t.Errorf("%s is new: add it to schemaCatches in schema_test.go if its mistake is one of form, else to schemaCannot with why (the schema says now: %s)", file, problem)
		case wanted && !caught:
			t.Errorf("%s is taken by the schema; add what it breaks to schemagen/rules.go, or move it to schemaCannot with why", file)
		case !wanted && caught:
			t.Errorf("%s is caught by the schema; move it to schemaCatches if that is for the right reason: %s", file, problem)
		}
	}
	for name := range catches {
		t.Errorf("testdata/bad/%s.yaml is listed in schema_test.go and gone", name)
	}
}

func TestSchemaTakesExamples(t *testing.T) {
	files := []string{"testdata/good/rotatord.yaml"}
	for _, dir := range []string{"testdata/good/policies", "../../policies"} {
		below, err := Files(dir)
		must(t, err)
		files = append(files, below...)
	}
	readme, err := os.ReadFile("../../README.md")
	must(t, err)
	dir := t.TempDir()
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(readme, -1) {
		kind := "rotatord.yaml"
		if bytes.HasPrefix(block[1], []byte("name:")) {
			kind = "policy.yaml"
		}
		file := filepath.Join(dir, string(rune('a'+len(files))), kind)
		write(t, file, string(block[1]), 0o600)
		files = append(files, file)
	}
	if len(files) < 15 {
		t.Errorf("only %d files: %s", len(files), files)
	}
	schemas := newSchemas(t)
	for _, file := range files {
		if problem := schemas.problem(t, file); problem != "" {
			t.Errorf("%s: %s", file, problem)
		}
	}
}

// What a check takes, the schema takes. (It is stricter on purpose with what is written
// and says nothing, and with numbers where text is meant; see docs/editors.md.)
func TestSchemaIsNotStricterThanTheCheck(t *testing.T) {
	taken, seen := 0, map[string]bool{}
	for _, s := range samples(t) {
		tried := func() {
			text := asJSON(t, s.value)
			if _, ok := s.load(text); !ok {
				return
			}
			taken++
			again, err := jsonValue(text)
			must(t, err)
			if err := s.schema.Validate(again); err != nil {
				t.Errorf("the check takes what the schema does not: %v\n%s", err, text)
			}
		}
		vary(s.value, func(v any) { s.value = v }, tried, fmt.Sprintf("%p", s.schema), seen)
	}
	t.Logf("%d variants are taken", taken)
	if taken < 500 {
		t.Errorf("only %d variants were taken by the check", taken)
	}
}

var varied = map[bool][]any{
	true: {
		"a", "A-1_b.c", "a b", "secret", "covered", "*.example.com", "Shop.Example.com", "a.example.com:443", "[::1]:443", ":80", "127.0.0.1:0",
		"192.0.2.1", "::1", "[2001:db8::1]:8443", "https://a.example.com:8443/x", "http://127.0.0.1", "http://[::1]:80/", "socks5://proxy:1080",
		"nats://a,tls://b:4222 , ws://c", "0", "0s", "1w2d", "1w12h", "1.5h", "1h30m0.5s", "300ms", "0.5%", "99.9%", "7%", "12h", "6mo", "20y",
		"0600", "640", "@daily", "0 3 * * 6", "TZ=UTC */5 3 * * 1-5", "2026-12-20", "2027-01-03T18:00:00Z", "2027-01-03T18:00:00.5+01:00",
		"dns:*.a.b", "Ip:10.0.0.1", "uri:urn:x", "email:a@b", "\u540d\u524d", "\U00020bb7\u91ce", "/bin/true", "nginx.service", "a@b.socket", "www-data$",
		"1.2.840.113549", "0123456789abcdef0123456789abcdef", "2cb2878b-6cd1-460d-bd25-afe655159bdc", "app-ins-ABCDEFGHabcdefgh", "keep", "new",
		"global", "dedicated", "warn", "text", "SHA384", "EC384", "cloud", "ignore", "report", "drift",
	},
	false: {json.Number("-1"), json.Number("1"), json.Number("2"), json.Number("3"), json.Number("100"), json.Number("0.5")},
}

// vary puts other values into a document, one at a time, and once for each place.
func vary(v any, set func(any), tried func(), at string, seen map[string]bool) {
	before := seen[at]
	seen[at] = true
	with := func(other any) {
		set(other)
		tried()
		set(v)
	}
	switch v := v.(type) {
	case string, json.Number:
		if before {
			return
		}
		_, text := v.(string)
		for _, other := range varied[text] {
			with(other)
		}
	case bool:
		with(!v)
	case []any:
		with([]any{})
		for i, item := range v {
			with(append(slices.Clone(v), item))
			with(slices.Delete(slices.Clone(v), i, i+1))
			vary(item, func(other any) { v[i] = other }, tried, at+"[]", seen)
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			value := v[key]
			delete(v, key)
			tried()
			v[key] = value
			vary(value, func(other any) { v[key] = other }, tried, at+"."+key, seen)
		}
	}
}

// Defaults in the schema are those of the check: a document says the same with and without
// them.
func TestSchemaDefaults(t *testing.T) {
	for _, s := range samples(t) {
		without, ok := s.load(asJSON(t, s.value))
		if !ok {
			t.Fatalf("%s is not taken", s.name)
		}
		var schema map[string]any
		must(t, json.Unmarshal(s.text, &schema))
		filled := 0
		fill(schema, schema, s.value, &filled)
		text := asJSON(t, s.value)
		with, ok := s.load(text)
		if !ok || filled == 0 {
			t.Errorf("with %d defaults filled in %s is not taken:\n%s", filled, s.name, text)
		}
		same(t, with, without)
	}
}

// fill writes the defaults of what is there into it.
func fill(root, schema map[string]any, value any, filled *int) {
	if ref, ok := schema["$ref"].(string); ok {
		name := strings.TrimPrefix(ref, "#/$defs/")
		if name == "Limit" || name == "Metadata" {
			return // whose defaults whoever calls the cloud fills in
		}
		fill(root, root["$defs"].(map[string]any)[name].(map[string]any), value, filled)
	}
	switch value := value.(type) {
	case map[string]any:
		if others, ok := schema["additionalProperties"].(map[string]any); ok {
			for _, one := range value {
				fill(root, others, one, filled)
			}
		}
		properties, _ := schema["properties"].(map[string]any)
		for name, one := range properties {
			one := one.(map[string]any)
			standard, has := one["default"]
			if there, ok := value[name]; ok {
				fill(root, one, there, filled)
			} else if has {
				value[name] = standard
				*filled++
			}
		}
	case []any:
		if items, ok := schema["items"].(map[string]any); ok {
			for _, one := range value {
				fill(root, items, one, filled)
			}
		}
	}
}

// Every member is explained, and every pattern is one for JavaScript, too.
func TestSchemaIsForReaders(t *testing.T) {
	for name, text := range map[string][]byte{"config": ConfigSchema, "policy": PolicySchema} {
		var root map[string]any
		must(t, json.Unmarshal(text, &root))
		definitions := root["$defs"].(map[string]any)
		definitions[name] = root
		for of, definition := range definitions {
			definition := definition.(map[string]any)
			if definition["description"] == "" {
				t.Errorf("%s has no comment", of)
			}
			properties, _ := definition["properties"].(map[string]any)
			for member, one := range properties {
				one := one.(map[string]any)
				items, _ := one["items"].(map[string]any)
				if one["description"] == nil && one["$ref"] == nil && items["$ref"] == nil {
					t.Errorf("%s.%s has no comment", of, member)
				}
			}
		}
		if found := regexp.MustCompile(`"pattern": ".*(\\\\[pPxQzAC]|\(\?).*"`).Find(text); found != nil {
			t.Errorf("not every regular expression library knows %s", found)
		}
	}
}

// sample is a document that is taken.
type sample struct {
	name   string
	value  any
	text   []byte // of the schema
	schema *jsonschema.Schema
	load   func(text []byte) (any, bool)
}

// samples are the good documents, and two with a section of every kind.
func samples(t *testing.T) []*sample {
	t.Helper()
	dir := goodCopy(t)
	write(t, filepath.Join(dir, "secret"), "s3cret\n", 0o600)
	write(t, filepath.Join(dir, "sections.yaml"), `
node: a
http: {}
nats: {embedded: {listen: "127.0.0.1:4222", user: u, password_file: secret}}
brake: {}
log: {}
`, 0o600)
	write(t, filepath.Join(dir, "policies", "sections.yaml"), `
name: sections
source: {private_ca: {issuer_id: 2cb2878b-6cd1-460d-bd25-afe655159bdc, common_name: a.example.com, key: {}, validity: 90d}}
targets:
  - {name: waf, waf: {hosts: [a.example.com], enterprise_project: "0"}}
  - {name: apig, apig: {instance_id: a, domains: covered, replace: new}}
  - {name: file, file: {directory: /x, pkcs12: a.p12, pkcs12_password_file: ../secret, mode: "0640", owner: root, reload: {command: [/bin/true, a]}}}
when:
  renew: {}
  schedule: "0 3 * * 6"
  windows: [{start: "0 2 * * *", duration: 3h}]
  freeze: [{from: 2026-12-20, to: 2027-01-03T12:00:00Z}]
  splay: 10m
verify: {endpoints: ["a.example.com:443"], addresses: [192.0.2.1]}
guard: {}
retain: {}
drift: {}
canary: {targets: [waf]}
`, 0o600)
	write(t, filepath.Join(dir, "policies", "center.yaml"), `
name: center
source: {identity_center: {instance_id: a, application_instance_id: app-ins-0123456789abcdef, activate: {}}}
`, 0o600)
	config, problems := loadConfig(filepath.Join(dir, "rotatord.yaml"), noEnv)
	must(t, problems.orNil())
	loadsConfig := func(text []byte) (any, bool) {
		var c Config
		file := filepath.Join(dir, "rotatord.yaml")
		d := parseDocument(file, text, &c)
		if len(d.problems) == 0 {
			c.complete(d, newResolver(file, noEnv), noEnv)
		}
		return c, len(d.problems) == 0
	}
	loadsPolicy := func(text []byte) (any, bool) {
		var p Policy
		file := filepath.Join(dir, "policies", "p.yaml")
		d := parseDocument(file, text, &p)
		if len(d.problems) == 0 {
			p.complete(d, newResolver(file, noEnv), config)
		}
		p.SHA256 = "" // which differs with the text
		return p, len(d.problems) == 0
	}
	files, err := Files(dir)
	must(t, err)
	schemas := newSchemas(t)
	var all []*sample
	for _, file := range files {
		data, err := os.ReadFile(file)
		must(t, err)
		value, err := jsonValue(data)
		must(t, err)
		s := &sample{filepath.Base(file), value, PolicySchema, schemas.policy, loadsPolicy}
		if filepath.Dir(file) == dir {
			s.text, s.schema, s.load = ConfigSchema, schemas.config, loadsConfig
		}
		all = append(all, s)
	}
	return all
}

// schemas are both, in the hands of a validator that knows nothing of this package.
type schemas struct{ config, policy *jsonschema.Schema }

func newSchemas(t *testing.T) schemas {
	t.Helper()
	compiled := func(schema []byte) *jsonschema.Schema {
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema))
		must(t, err)
		c := jsonschema.NewCompiler()
		must(t, c.AddResource("schema.json", value))
		s, err := c.Compile("schema.json")
		must(t, err)
		return s
	}
	return schemas{compiled(ConfigSchema), compiled(PolicySchema)}
}

// notJSON is the problem of a file that is no YAML, or has no counterpart in JSON.
const notJSON = "not a JSON value"

// problem says what a schema has against a file, or "".
func (s schemas) problem(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	must(t, err)
	value, err := jsonValue(data)
	if err != nil {
		return notJSON
	}
	schema := s.policy
	if base := filepath.Base(file); base == "rotatord.yaml" || strings.HasPrefix(base, "config-") {
		schema = s.config
	}
	if err := schema.Validate(value); err != nil {
		return err.Error()
	}
	return ""
}

// jsonValue is a YAML document as the value that a schema is about.
func jsonValue(text []byte) (any, error) {
	var value any
	if err := yaml.Unmarshal(text, &value); err != nil {
		return nil, err
	}
	plain, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	return jsonschema.UnmarshalJSON(bytes.NewReader(plain))
}

func asJSON(t *testing.T, value any) []byte {
	t.Helper()
	text, err := json.Marshal(value)
	must(t, err)
	return text
}
