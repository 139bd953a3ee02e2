package policy

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the expected messages of testdata/bad and testdata/warn anew")

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func noEnv(string) string { return "" }

// write makes a file with its directories.
func write(t testing.TB, path, content string, mode os.FileMode) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o700))
	must(t, os.WriteFile(path, []byte(content), mode))
	must(t, os.Chmod(path, mode)) // whatever the umask
}

// plainConfig is a configuration that policies can refer to.
const plainConfig = "node: test\nclouds:\n  default:\n    region: r\n    auth: {access_key: {id: a, secret_file: secret}}\n"

// household is a directory with a configuration and the files it may name.
func household(t testing.TB, config string, policies map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "rotatord.yaml"), config, 0o600)
	write(t, filepath.Join(dir, "secret"), "s3cret\n", 0o600)
	write(t, filepath.Join(dir, "loose"), "s3cret\n", 0o604)
	write(t, filepath.Join(dir, "group"), "s3cret\n", 0o620)
	write(t, filepath.Join(dir, "empty"), "", 0o600)
	must(t, os.MkdirAll(filepath.Join(dir, "directory"), 0o700))
	must(t, os.MkdirAll(filepath.Join(dir, "policies"), 0o700))
	for name, text := range policies {
		write(t, filepath.Join(dir, "policies", name), text, 0o600)
	}
	return dir
}

// loadIn loads a household's configuration, with paths in the error relative to it.
func loadIn(dir string) (*Set, string) {
	set, err := Load(filepath.Join(dir, "rotatord.yaml"), noEnv)
	if err == nil {
		return set, ""
	}
	return set, strings.ReplaceAll(err.Error(), dir+"/", "")
}

// start is when the simulations of these tests begin, so that their messages stay.
var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// looked is what is found in a file of testdata, with paths relative to its household.
func looked(t *testing.T, file string) (set *Set, found Problems, text string) {
	t.Helper()
	data, err := os.ReadFile(file)
	must(t, err)
	var dir string
	if strings.HasPrefix(filepath.Base(file), "config-") {
		dir = household(t, string(data), nil)
	} else {
		dir = household(t, plainConfig, map[string]string{"p.yaml": string(data)})
	}
	set, found = Read(filepath.Join(dir, "rotatord.yaml"), nil, noEnv)
	if len(found) == 0 {
		found = set.Prove(start, &Pointer{})
	}
	return set, found, strings.ReplaceAll(found.Error(), dir+"/", "") + "\n"
}

// golden compares with the text beside a file of testdata.
func golden(t *testing.T, file, got string) {
	t.Helper()
	beside := strings.TrimSuffix(file, ".yaml") + ".txt"
	if *update {
		must(t, os.WriteFile(beside, []byte(got), 0o644))
	}
	want, err := os.ReadFile(beside)
	must(t, err)
	if got != string(want) {
		t.Errorf("the message is\n%swant\n%s", got, want)
	}
}

// Each file of testdata/bad has one mistake, and beside it the message for it.
func TestBadFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	must(t, err)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			_, found, text := looked(t, file)
			if len(found.Errors()) == 0 {
				t.Fatalf("it was taken: %s", text)
			}
			golden(t, file, text)
		})
	}
}

// Each file of testdata/warn can be used, and should not be without being told this.
func TestWarnFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/warn/*.yaml")
	must(t, err)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			set, found, text := looked(t, file)
			if len(found) != 1 || len(found.Errors()) > 0 || len(set.Policies) != 1 {
				t.Fatalf("want one warning, have %s", text)
			}
			golden(t, file, text)
		})
	}
}

func TestGoodFilesHaveNoWarnings(t *testing.T) {
	set, found := Read(filepath.Join(goodCopy(t), "rotatord.yaml"), nil, noEnv)
	if len(found) == 0 {
		found = set.Prove(start, &Pointer{})
	}
	if len(found) > 0 {
		t.Error(found)
	}
}

// The caret stands under the character that the column counts, in lines with tabs and
// with letters of several bytes.
func TestCaretIsBelowItsColumn(t *testing.T) {
	for _, line := range []string{"drift: {every: @}", "dr\tift:\t{every: @}", "größe: {日本: @}", "@"} {
		before, _, _ := strings.Cut(line, "@")
		p := Problem{File: "f", Line: 1, Column: len([]rune(before)) + 1, Message: "m", source: line}
		lines := strings.Split(p.Error(), "\n")
		at, _, _ := strings.Cut(lines[2], "^")
		for i, r := range []rune(lines[1]) {
			if r == '@' && len([]rune(at)) != i {
				t.Errorf("the caret is not below the @:\n%s", p.Error())
			}
		}
		if strings.Count(at, "\t") != strings.Count(before, "\t") {
			t.Errorf("the caret's line has other tabs:\n%s", p.Error())
		}
	}
}

func TestProblemsComeInOrder(t *testing.T) {
	dir := household(t, "nats: {replicas: 3, user: u, tls: {}, password_file: secret}\nlog: {level: x, format: y}\n", map[string]string{
		"b.yaml": "name: B\n", "a.yaml": "name: A\n",
	})
	_, err := Load(filepath.Join(dir, "rotatord.yaml"), noEnv)
	var problems Problems
	if !errors.As(err, &problems) {
		t.Fatalf("Load: %v", err)
	}
	var got []string
	for _, p := range problems {
		got = append(got, fmt.Sprintf("%s:%d:%d", strings.TrimPrefix(p.File, dir+"/"), p.Line, p.Column))
	}
	want := "policies/a.yaml:1:1 policies/a.yaml:1:7 policies/b.yaml:1:1 policies/b.yaml:1:7 rotatord.yaml:1:18 rotatord.yaml:1:27 rotatord.yaml:1:35 rotatord.yaml:1:54 rotatord.yaml:2:14 rotatord.yaml:2:25"
	if strings.Join(got, " ") != want {
		t.Errorf("problems at\n%s, want\n%s", strings.Join(got, " "), want)
	}
}

func TestDuplicatePolicyName(t *testing.T) {
	const text = "name: shop\nsource: {directory: {path: /x}}\n"
	dir := household(t, plainConfig, map[string]string{"a.yaml": text, "b.yaml": "# second\n" + text})
	_, got := loadIn(dir)
	want := "policies/b.yaml:2:7: policy \"shop\" is defined already in policies/a.yaml\n    2 | name: shop\n      |       ^"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	dir := household(t, plainConfig, nil)
	policies := filepath.Join(dir, "policies")
	policy, elsewhere := filepath.Join(policies, "p.yaml"), filepath.Join(dir, "elsewhere")
	for _, step := range []struct {
		want   string
		change func() error
	}{
		{"policies/p.yaml: is longer than 1048576 bytes", func() error {
			return os.WriteFile(policy, []byte(strings.Repeat("#", maxDocument+1)), 0o600)
		}},
		{"policies/p.yaml: cannot be read: is a directory", func() error {
			return errors.Join(os.Remove(policy), os.Mkdir(elsewhere, 0o700), os.Symlink(elsewhere, policy))
		}},
		{"policies/p.yaml: cannot be read: no such file or directory", func() error { return os.Remove(elsewhere) }},
		{"policies: policies cannot be listed: no such file or directory", func() error { return os.RemoveAll(policies) }},
		{"policies: policies cannot be listed: not a directory", func() error { return os.WriteFile(policies, nil, 0o600) }},
		{"rotatord.yaml: cannot be read: no such file or directory", func() error { return os.Remove(filepath.Join(dir, "rotatord.yaml")) }},
	} {
		must(t, step.change())
		if _, got := loadIn(dir); got != step.want {
			t.Errorf("got %q, want %q", got, step.want)
		}
	}
}

// An attack on the parser is over at once, however it ends.
func TestBombsAreHarmless(t *testing.T) {
	var laughs strings.Builder
	laughs.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := range 20 {
		laughs.WriteString(fmt.Sprintf("a%d: &a%d [%s*a%d]\n", i+1, i+1, strings.Repeat(fmt.Sprintf("*a%d, ", i), 9), i))
	}
	const start = "name: shop\nsource: {directory: {path: /x}}\n"
	hosts := start + "targets: [{name: a, waf: {hosts: [&h " + strings.Repeat("a", 1000) + strings.Repeat(", *h", 20_000) + "]}}]\n"
	for name, text := range map[string]string{
		"billion laughs":                 laughs.String(),
		"billion laughs in known fields": strings.NewReplacer("a0:", "name:", "a1:", "targets:", "a2:", "when:", "a3:", "verify:").Replace(laughs.String()),
		"billion laughs where a list is": start + "when:\n  on:\n" + indent(strings.ReplaceAll(laughs.String(), "a", "- a")),
		"billion laughs by merging":      start + "when: &m0 {on: [file]}\nverify: &m1 {<<: [*m0, *m0]}\ndrift: &m2 {<<: [*m1, *m1, *m1]}\n",
		"one host named many times":      hosts,
		"nested lists":                   start + "when: {on: " + strings.Repeat("[", 100_000),
		"nested lists, closed":           start + "when: {on: " + strings.Repeat("[", 5_000) + strings.Repeat("]", 5_000) + "}\n",
		"nested mappings":                start + "x: " + strings.Repeat("{a: ", 10_000),
		"nested entries":                 start + "when:\n  " + strings.Repeat("- ", 10_000) + "x\n",
		"many documents":                 strings.Repeat("---\n", 100_000),
		"brackets on many lines":         start + "when: {on: " + strings.Repeat("[\n", 200_000),
		"nested keys":                    start + strings.Repeat("? ", 100_000),
		"a mebibyte of one word":         strings.Repeat("x", maxDocument),
	} {
		t.Run(name, func(t *testing.T) {
			dir := household(t, plainConfig, map[string]string{"p.yaml": text})
			started := time.Now()
			_, got := loadIn(dir)
			if took := time.Since(started); took > 5*time.Second {
				t.Errorf("it took %s", took)
			}
			if got == "" {
				t.Error("it was taken")
			}
		})
	}
}

func indent(s string) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n    ") + "\n"
}
