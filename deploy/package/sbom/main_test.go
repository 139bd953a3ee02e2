package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestNamesEveryModule holds the document of the program against what the go command says of it.
func TestNamesEveryModule(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program")
	}
	dir := t.TempDir()
	binary := filepath.Join(dir, "rotatord")
	// A copy of what other tests have linked, if they have.
	if out, err := exec.Command("go", "run", "-exec", "cp", "../../../cmd/rotatord", binary).CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	out, err := exec.Command("go", "version", "-m", binary).Output()
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for line := range strings.Lines(string(out)) {
		if fields := strings.Fields(line); len(fields) == 4 && fields[0] == "dep" {
			want = append(want, fields[1]+"@"+fields[2])
		}
	}
	if len(want) < 10 {
		t.Fatalf("%d modules in\n%s", len(want), out)
	}

	path := filepath.Join(dir, "document")
	if err := write("1.2.3-rc.1", binary, path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var d document
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	if d.Metadata.Component.PURL != "pkg:golang/github.com/rotatord/rotatord@1.2.3-rc.1" {
		t.Errorf("the program is %s", d.Metadata.Component.PURL)
	}
	var named, refs []string
	for _, c := range d.Components {
		refs = append(refs, c.Ref)
		if c.Name == "std" {
			continue
		}
		named = append(named, c.Name+"@"+c.Version)
		if len(c.Hashes) != 1 {
			t.Errorf("%s has the checksums %v", c.Name, c.Hashes)
		}
	}
	if !slices.Equal(named, want) {
		t.Errorf("named are\n%v\nlinked are\n%v", named, want)
	}
	if !slices.Equal(d.Dependencies[0].DependsOn, refs) {
		t.Errorf("the program needs\n%v\nof\n%v", d.Dependencies[0].DependsOn, refs)
	}
}

// TestPackageURL: vulnerability databases find modules by it.
func TestPackageURL(t *testing.T) {
	for path, want := range map[string]string{
		"golang.org/x/net":                   "pkg:golang/golang.org/x/net@v1.0.0+incompatible",
		"software.sslmate.com/src/go-pkcs12": "pkg:golang/software.sslmate.com/src/go-pkcs12@v1.0.0+incompatible",
	} {
		want = strings.ReplaceAll(want, "+", "%2B")
		if is := packageURL(path, "v1.0.0+incompatible"); is != want {
			t.Errorf("%s is %s, want %s", path, is, want)
		}
	}
}
