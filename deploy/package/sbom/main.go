// Command sbom writes what a Go binary is made of, as CycloneDX 1.6: the program and every module that is linked into
// it, with the checksum that Go's checksum database has of it. The same binary gives the same document.
//
// It is run by deploy/package/goreleaser.yaml and imports the standard library only.
package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log"
	"net/url"
	"os"
	"runtime/debug"
	"strings"
)

// document is what we write of CycloneDX (https://cyclonedx.org/docs/1.6/json/).
type document struct {
	Schema       string       `json:"$schema"`
	Format       string       `json:"bomFormat"`
	SpecVersion  string       `json:"specVersion"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Component component `json:"component"`
}

type component struct {
	Ref        string     `json:"bom-ref"`
	Type       string     `json:"type"`
	Name       string     `json:"name"`
	Version    string     `json:"version"`
	PURL       string     `json:"purl"`
	Hashes     []hash     `json:"hashes,omitempty"`
	Properties []property `json:"properties,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn,omitempty"`
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 4 {
		log.Fatal("usage: sbom VERSION BINARY DOCUMENT")
	}
	if err := write(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		log.Fatal(err)
	}
}

func write(version, binary, path string) error {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return fmt.Errorf("what %s is made of: %w", binary, err)
	}
	d, err := describe(version, info)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(d); err != nil {
		return fmt.Errorf("encode the document: %w", err)
	}
	return os.WriteFile(path, text.Bytes(), 0o644) //nolint:gosec // it is for everybody
}

// describe says what a binary of this version is made of.
func describe(version string, info *debug.BuildInfo) (document, error) {
	program := component{Type: "application", Name: info.Main.Path, Version: version, PURL: packageURL(info.Main.Path, version)}
	program.Ref = program.PURL
	for _, s := range info.Settings {
		program.Properties = append(program.Properties, property{Name: "go:build:" + s.Key, Value: s.Value})
	}
	standard := component{Type: "library", Name: "std", Version: info.GoVersion, PURL: packageURL("std", strings.TrimPrefix(info.GoVersion, "go"))}
	standard.Ref = standard.PURL
	components := []component{standard}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		c, err := module(m)
		if err != nil {
			return document{}, err
		}
		components = append(components, c)
	}
	// Which module needs which is not in a binary: the program needs them all.
	needs := dependency{Ref: program.Ref}
	dependencies := make([]dependency, 0, len(components)+1)
	for _, c := range components {
		needs.DependsOn = append(needs.DependsOn, c.Ref)
		dependencies = append(dependencies, dependency{Ref: c.Ref})
	}
	return document{
		Schema: "http://cyclonedx.org/schema/bom-1.6.schema.json", Format: "CycloneDX", SpecVersion: "1.6", Version: 1,
		Metadata: metadata{Component: program}, Components: components, Dependencies: append([]dependency{needs}, dependencies...),
	}, nil
}

// module is a linked one. Its checksum is go.sum's, a SHA-256 of a listing of its files.
func module(m *debug.Module) (component, error) {
	c := component{Type: "library", Name: m.Path, Version: m.Version, PURL: packageURL(m.Path, m.Version)}
	c.Ref = c.PURL
	if m.Sum == "" {
		return c, nil
	}
	sum, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(m.Sum, "h1:"))
	if err != nil {
		return component{}, fmt.Errorf("checksum of %s: %w", m.Path, err)
	}
	c.Hashes = []hash{{Algorithm: "SHA-256", Content: hex.EncodeToString(sum)}}
	return c, nil
}

// packageURL names a module as vulnerability databases do (https://github.com/package-url/purl-spec).
func packageURL(path, version string) string {
	parts := strings.Split(path, "/")
	for i, part := range parts {
		parts[i] = url.PathEscape(part)
	}
	return "pkg:golang/" + strings.Join(parts, "/") + "@" + strings.ReplaceAll(url.PathEscape(version), "+", "%2B")
}
