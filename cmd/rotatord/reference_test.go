package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

var writeReference = flag.Bool("write-reference", false, "write the generated pages of docs/reference anew")

const generated = "<!-- Made from the source by: go test ./cmd/rotatord -run TestReference -write-reference -->\n\n"

// TestReference holds the pages of docs/reference against the source that they are made from: the
// schemas of configuration and policies, the commands, a complete scrape, the API's description.
func TestReference(t *testing.T) {
	for name, made := range map[string]func() (string, error){
		"configuration.md": func() (string, error) {
			return schemaPage("internal/policy/schema/config.schema.json", "Configuration",
				"Every field of the configuration, `/etc/rotatord/rotatord.yaml` or what `--config` names. [cloud.md](../cloud.md) shows how to write one.")
		},
		"policy.md": func() (string, error) {
			return schemaPage("internal/policy/schema/policy.schema.json", "Policy",
				"Every field of a policy. Policies are the `*.yaml` files below `policies`, by default the directory beside the configuration;\n"+
					"[policies](../../policies) has an example for each use, and [first-policy.md](../first-policy.md) begins with one.")
		},
		"commands.md": commandsPage,
		"metrics.md":  metricsPage,
		"api.md":      apiPage,
	} {
		t.Run(name, func(t *testing.T) {
			want, err := made()
			must(t, err)
			path := filepath.Join(docsRoot, "docs/reference", name)
			if *writeReference {
				must(t, os.WriteFile(path, []byte(want), 0o644))
			}
			have, err := os.ReadFile(path)
			if err != nil || string(have) != want {
				t.Errorf("%s is not what the source says (%v): write it with -write-reference", path, err)
			}
		})
	}
}

// schema is what the pages need of JSON Schema, draft 2020-12.
type schema struct {
	Ref         string    `json:"$ref"`
	Description string    `json:"description"`
	Type        any       `json:"type"`
	Properties  members   `json:"properties"`
	Required    []string  `json:"required"`
	Items       *schema   `json:"items"`
	Additional  any       `json:"additionalProperties"`
	Enum        []any     `json:"enum"`
	Default     any       `json:"default"`
	Examples    []string  `json:"examples"`
	OneOf       []*schema `json:"oneOf"`
	Defs        members   `json:"$defs"`
}

// members keeps the order of the source, which json's maps do not.
type members struct {
	names []string
	by    map[string]*schema
}

func (m *members) UnmarshalJSON(text []byte) error {
	if err := json.Unmarshal(text, &m.by); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if _, err := d.Token(); err != nil {
		return err
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		m.names = append(m.names, fmt.Sprint(name))
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return err
		}
	}
	return nil
}

// schemaWriter writes one section for each object that fields lead to.
type schemaWriter struct {
	defs    members
	page    strings.Builder
	written map[string]string // path of the section, by definition
	waiting []section
}

type section struct {
	path, definition string
	schema           *schema
}

func schemaPage(file, title, intro string) (string, error) {
	text, err := os.ReadFile(filepath.Join(docsRoot, file))
	if err != nil {
		return "", err
	}
	var root schema
	if err := json.Unmarshal(text, &root); err != nil {
		return "", err
	}
	w := &schemaWriter{defs: root.Defs, written: map[string]string{}}
	fmt.Fprintf(&w.page, "%s# %s\n\n%s\nUnknown fields are errors. A span of time is written as `90s`, `1h30m`, `30d` or `1w12h`.\n", generated, title, intro)
	w.waiting = []section{{schema: &root}}
	for len(w.waiting) > 0 {
		next := w.waiting[0]
		w.waiting = w.waiting[1:]
		w.section(next)
	}
	return w.page.String(), nil
}

func (w *schemaWriter) section(s section) {
	if s.path != "" {
		fmt.Fprintf(&w.page, "\n## `%s`\n\n%s\n", s.path, s.schema.Description)
	}
	fmt.Fprint(&w.page, "\n| field | value | default | meaning |\n| --- | --- | --- | --- |\n")
	for _, name := range s.schema.Properties.names {
		field := s.schema.Properties.by[name]
		path := strings.TrimPrefix(s.path+"."+name, ".")
		required := ""
		if slices.Contains(s.schema.Required, name) {
			required = ", required"
		}
		fallback := ""
		if field.Default != nil {
			fallback = fmt.Sprintf("`%v`", field.Default)
		}
		meaning := cmp.Or(field.Description, w.resolve(field).Description)
		if meaning == "" && field.Items != nil {
			meaning = w.resolve(field.Items).Description
		}
		fmt.Fprintf(&w.page, "| `%s` | %s%s | %s | %s |\n", name, w.value(field, path), required, fallback, cell(meaning))
	}
}

// cell is text in a table.
func cell(text string) string {
	return strings.NewReplacer("|", "\\|", "<", "&lt;", "\n", " ").Replace(strings.TrimSpace(text))
}

func (w *schemaWriter) resolve(s *schema) *schema {
	if name, ok := strings.CutPrefix(s.Ref, "#/$defs/"); ok {
		return w.defs.by[name]
	}
	return s
}

// value says of what kind a field's value is; objects get a section of their own.
func (w *schemaWriter) value(s *schema, path string) string {
	r := w.resolve(s)
	definition := strings.TrimPrefix(s.Ref, "#/$defs/")
	switch {
	case len(r.Properties.names) > 0:
		at, ok := w.written[definition]
		if !ok || definition == "" {
			at = path
			w.written[definition] = at
			w.waiting = append(w.waiting, section{path: path, definition: definition, schema: r})
		}
		return fmt.Sprintf("[object](#%s)", anchors("# `" + at + "`")[0])
	case r.Items != nil:
		return "list of: " + w.value(r.Items, path+"[]")
	case len(r.OneOf) > 0:
		var kinds []string
		for _, one := range r.OneOf {
			if kind := w.value(one, path); kind != "" {
				kinds = append(kinds, kind)
			}
		}
		return cmp.Or(strings.Join(kinds, ", or "), "text")
	case len(r.Enum) > 0:
		return "`" + strings.Trim(strings.Join(strings.Fields(fmt.Sprint(r.Enum)), "`, `"), "[]") + "`"
	}
	if more, ok := r.Additional.(map[string]any); ok {
		return w.mapOf(more, path)
	}
	switch definition {
	case "Duration":
		return "span"
	case "SecretFile":
		return "path"
	}
	if kind, ok := r.Type.(string); ok {
		kind = map[string]string{"string": "text", "boolean": "`true` or `false`", "integer": "number"}[kind]
		if len(r.Examples) > 0 {
			kind += ", as `" + r.Examples[0] + "`"
		}
		return kind
	}
	return "text or number"
}

func (w *schemaWriter) mapOf(values map[string]any, path string) string {
	text, err := json.Marshal(values)
	if err != nil {
		return "object"
	}
	var s schema
	if err := json.Unmarshal(text, &s); err != nil {
		return "object"
	}
	return "by name: " + w.value(&s, path+".NAME")
}

func commandsPage() (string, error) {
	var page strings.Builder
	page.WriteString(generated + "# Commands\n\n`rotatord man DIRECTORY` writes the same as manual pages. Exit codes: 0 ok, 1 failed, 2 a plan has changes,\n64 the command line is wrong, 78 the configuration is (do not restart on it).\n")
	var walk func(c *cobra.Command) error
	walk = func(c *cobra.Command) error {
		var text bytes.Buffer
		c.DisableAutoGenTag = true
		if err := doc.GenMarkdownCustom(c, &text, func(string) string { return "" }); err != nil {
			return err
		}
		body, _, _ := strings.Cut(text.String(), "### SEE ALSO")
		body = regexp.MustCompile("(?s)### Options inherited from parent commands.*?```\n.*?```\n").ReplaceAllString(body, "")
		// What the usage line says is no command to be copied.
		body = strings.ReplaceAll(body, "\n```\n", "\n```text\n")
		body = regexp.MustCompile("(?s)```text\n(.*?)\n```text\n").ReplaceAllString(body, "```text\nusage: $1\n```\n")
		body = strings.ReplaceAll(body, "```text\nusage:   ", "```text\n  ")
		body = strings.ReplaceAll(body, "### Options\n", "")
		page.WriteString("\n" + strings.TrimSpace(strings.ReplaceAll(body, "### Synopsis\n\n", "")) + "\n")
		for _, below := range c.Commands() {
			if below.Hidden || below.Name() == "help" || c.Name() == "completion" {
				continue
			}
			if err := walk(below); err != nil {
				return err
			}
		}
		return nil
	}
	root := newRoot()
	root.InitDefaultCompletionCmd()
	if err := walk(root); err != nil {
		return "", err
	}
	return regexp.MustCompile(`\n{3,}`).ReplaceAllString(page.String(), "\n\n"), nil
}

var (
	metricHelp   = regexp.MustCompile(`(?m)^# HELP (\S+) (.*)\n# TYPE \S+ (\S+)$`)
	metricSeries = regexp.MustCompile(`(?m)^(rotatord_[a-z_]+)\{([^}]*)\}`)
	labelName    = regexp.MustCompile(`([a-z_]+)="`)
)

// metricsPage is made from the golden scrape, which has every series.
func metricsPage() (string, error) {
	golden, err := os.ReadFile(filepath.Join(docsRoot, "internal/metrics/testdata/metrics.golden"))
	if err != nil {
		return "", err
	}
	labels := map[string][]string{}
	for _, series := range metricSeries.FindAllStringSubmatch(string(golden), -1) {
		name := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(series[1], "")
		for _, label := range labelName.FindAllStringSubmatch(series[2], -1) {
			if label[1] != "le" && !slices.Contains(labels[name], label[1]) {
				labels[name] = append(labels[name], label[1])
			}
		}
	}
	var page strings.Builder
	page.WriteString(generated + "# Metrics\n\nWhat `/metrics` has besides the series of the Go runtime and of the process. [monitoring.md](../monitoring.md) says how to\nhave them scraped, and which alerts are made of them.\n\n| series | type | labels | meaning |\n| --- | --- | --- | --- |\n")
	// It differs from one build to the next, and is not in the golden file.
	rows := []string{"| `rotatord_build_info` | gauge | `go_version`, `revision`, `version` | The running program; always 1. |\n"}
	for _, m := range metricHelp.FindAllStringSubmatch(string(golden), -1) {
		names := labels[m[1]]
		slices.Sort(names)
		shown := ""
		if len(names) > 0 {
			shown = "`" + strings.Join(names, "`, `") + "`"
		}
		rows = append(rows, fmt.Sprintf("| `%s` | %s | %s | %s |\n", m[1], m[3], shown, cell(m[2])))
	}
	slices.Sort(rows)
	page.WriteString(strings.Join(rows, ""))
	return page.String(), nil
}

// openAPI is what the page needs of the API's description.
type openAPI struct {
	Info  struct{ Description string }
	Paths map[string]map[string]struct {
		Summary, Description string
		Parameters           []apiParameter
	}
	Components struct {
		Parameters map[string]apiParameter
		Schemas    map[string]struct {
			Description string
			Properties  map[string]struct{ Description string }
		}
	}
}

type apiParameter struct {
	Ref                   string `json:"$ref"`
	Name, In, Description string
}

func apiPage() (string, error) {
	text, err := os.ReadFile(filepath.Join(docsRoot, "internal/admin/static/openapi.json"))
	if err != nil {
		return "", err
	}
	var api openAPI
	if err := json.Unmarshal(text, &api); err != nil {
		return "", err
	}
	var page strings.Builder
	page.WriteString(generated + "# Read API\n\nBelow `http://127.0.0.1:9847/api/v1`, GET only; `/api/v1/openapi.json` is the whole description (OpenAPI 3.1).\n[status-page.md](../status-page.md#the-read-api) shows how it is used.\n")
	for _, path := range slices.Sorted(maps.Keys(api.Paths)) {
		get := api.Paths[path]["get"]
		fmt.Fprintf(&page, "\n## `%s`\n\n%s. %s\n", path, get.Summary, get.Description)
		if len(get.Parameters) == 0 {
			continue
		}
		page.WriteString("\n| parameter | in | meaning |\n| --- | --- | --- |\n")
		for _, p := range get.Parameters {
			if name, ok := strings.CutPrefix(p.Ref, "#/components/parameters/"); ok {
				p = api.Components.Parameters[name]
			}
			fmt.Fprintf(&page, "| `%s` | %s | %s |\n", p.Name, p.In, cell(p.Description))
		}
	}
	page.WriteString("\n# What it answers\n")
	for _, name := range slices.Sorted(maps.Keys(api.Components.Schemas)) {
		s := api.Components.Schemas[name]
		if len(s.Properties) == 0 {
			continue
		}
		fmt.Fprintf(&page, "\n## %s\n\n%s\n\n| member | meaning |\n| --- | --- |\n", name, s.Description)
		for _, member := range slices.Sorted(maps.Keys(s.Properties)) {
			fmt.Fprintf(&page, "| `%s` | %s |\n", member, cell(s.Properties[member].Description))
		}
	}
	return page.String(), nil
}
