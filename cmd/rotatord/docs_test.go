package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// docsRoot is the directory of the repository, as seen from a test's own.
const docsRoot = "../.."

// fence is one fenced block of a Markdown page.
type fence struct {
	page     string // relative to the root, with slashes
	line     int    // of the opening fence
	language string
	text     string
}

func (f fence) at() string { return fmt.Sprintf("%s:%d", f.page, f.line) }

var pathComment = regexp.MustCompile(`^(?:#|//) (/\S+)\n`)

// path is where a block belongs that shows a whole file: its first line says so.
func (f fence) path() string {
	if m := pathComment.FindStringSubmatch(f.text); m != nil && f.language != "sh" && f.language != "console" {
		return m[1]
	}
	return ""
}

// fencesOf returns the blocks of a page in their order.
func fencesOf(page, text string) ([]fence, error) {
	var all []fence
	var open *fence
	indent := "" // of a block in a list
	for i, line := range strings.Split(text, "\n") {
		mark := strings.TrimSpace(line)
		switch {
		case open == nil && strings.HasPrefix(mark, "```"):
			indent = line[:strings.Index(line, "`")]
			open = &fence{page: page, line: i + 1, language: strings.TrimPrefix(mark, "```")}
		case open != nil && mark == "```":
			all = append(all, *open)
			open = nil
		case open != nil:
			open.text += strings.TrimPrefix(line, indent) + "\n"
		}
	}
	if open != nil {
		return nil, fmt.Errorf("%s: the block is never closed", open.at())
	}
	return all, nil
}

// readPages returns what operators read, by path relative to root.
func readPages(root string) (map[string]string, error) {
	files := []string{"README.md"}
	for _, pattern := range []string{"docs/*.md", "docs/*/*.md", "deploy/*/README.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return nil, err
		}
		for _, file := range found {
			name, err := filepath.Rel(root, file)
			if err != nil {
				return nil, err
			}
			files = append(files, filepath.ToSlash(name))
		}
	}
	pages := map[string]string{}
	for _, name := range files {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return nil, err
		}
		pages[name] = string(text)
	}
	return pages, nil
}

func pagesOfTheRepository(t *testing.T) (pages map[string]string, names []string) {
	t.Helper()
	pages, err := readPages(docsRoot)
	must(t, err)
	for name := range pages {
		names = append(names, name)
	}
	slices.Sort(names)
	return pages, names
}

// languages are those of blocks. Commands are in sh and console blocks alone, where the
// read-through executes them (docs_systemd_test.go): a block without a language would not be.
var languages = []string{"sh", "console", "yaml", "json", "ini", "conf", "text", "lua", "toml", "promql", "mermaid"}

// commandLine is how a command begins that somebody may copy.
var commandLine = regexp.MustCompile(`(?m)^(\$ |sudo |rotatord |systemctl |journalctl |curl |install |go |npm |apt |openssl |certbot )`)

// executedByCI says that .ci/run executes a block by itself: the commands that the README begins with, of
// which one is all tests.
func executedByCI(f fence) bool {
	return f.page == "README.md" && strings.HasPrefix(f.text, "go run ./cmd/rotatord demo")
}

func TestReadmeCommandsAreThoseOfCI(t *testing.T) {
	pages, _ := pagesOfTheRepository(t)
	fences, err := fencesOf("README.md", pages["README.md"])
	must(t, err)
	ci, err := os.ReadFile(filepath.Join(docsRoot, ".ci/run"))
	must(t, err)
	if len(fences) == 0 || !executedByCI(fences[0]) {
		t.Fatal("the README does not begin with the two commands")
	}
	for line := range strings.Lines(fences[0].text) {
		command, _, _ := strings.Cut(line, "#")
		if !strings.Contains(string(ci), "\n"+strings.TrimSpace(command)+"\n") {
			t.Errorf(".ci/run does not have the README's %q", command)
		}
	}
}

// otherBlock is one that is none of ours: fenced by tildes, or a command that is indented.
var otherBlock = regexp.MustCompile(`(?m)^( *~~~| {4,}(\$ |rotatord |systemctl |dpkg )).*$`)

func TestBlocksOfThePages(t *testing.T) {
	pages, names := pagesOfTheRepository(t)
	for _, name := range names {
		outside := regexp.MustCompile("(?ms)^ *```.*?^ *```$").ReplaceAllString(pages[name], "")
		if line := otherBlock.FindString(outside); line != "" {
			t.Errorf("%s: %q is a block that is not executed: write ```", name, line)
		}
		fences, err := fencesOf(name, pages[name])
		must(t, err)
		for _, f := range fences {
			if !slices.Contains(languages, f.language) {
				t.Errorf("%s: a block in the language %q, which is none of %q", f.at(), f.language, languages)
			}
			// With set -e, "a && b" hides that a failed, unless it is the last line.
			if and := strings.Index(f.text, " && "); f.language == "sh" && and >= 0 && strings.Count(f.text[and:], "\n") > 1 {
				t.Errorf("%s: && in a line that is not the last: write two lines", f.at())
			}
			if f.language == "text" && commandLine.MatchString(f.text) {
				t.Errorf("%s: a command in a block that is not executed", f.at())
			}
		}
	}
}

// readOnly are the pages to be read in order on which there is nothing to be done, or that would need
// hosts which are not there.
var readOnly = []string{"docs/concepts.md", "docs/several-hosts.md"}

// TestPagesAreDone: what is to be read in order has commands that the read-through executes.
func TestPagesAreDone(t *testing.T) {
	pages, _ := pagesOfTheRepository(t)
	for _, name := range readingOrder(pages["docs/README.md"]) {
		fences, err := fencesOf(name, pages[name])
		must(t, err)
		executed := slices.ContainsFunc(fences, func(f fence) bool { return f.language == "sh" || f.language == "console" })
		if executed == slices.Contains(readOnly, name) {
			t.Errorf("%s has commands: %t", name, executed)
		}
	}
}

// TestYAMLOfThePages: configurations and policies that are shown have nothing that check
// finds.
func TestYAMLOfThePages(t *testing.T) {
	pages, names := pagesOfTheRepository(t)
	checked := 0
	for _, name := range names {
		fences, err := fencesOf(name, pages[name])
		must(t, err)
		for _, f := range fences {
			// What lies below /tmp is shown for its mistakes.
			if f.language != "yaml" || strings.HasPrefix(f.path(), "/tmp/") {
				continue
			}
			var top map[string]any
			if err := yaml.Unmarshal([]byte(f.text), &top); err != nil {
				t.Errorf("%s: %v", f.at(), err)
				continue
			}
			_, isPolicy := top["source"]
			_, isConfig := top["clouds"]
			switch {
			case isPolicy:
				checkShown(t, f, func(dir string) (string, []string) {
					return exampleConfig(t), []string{writeShown(t, dir, "policy.yaml", f.text)}
				})
				checked++
			case isConfig || top["nats"] != nil:
				checkShown(t, f, func(dir string) (string, []string) {
					for _, secret := range regexp.MustCompile(`(?:secret|password|token|ca|cert|key|credentials)_file: "?([^\s,}"]+)`).FindAllStringSubmatch(f.text, -1) {
						writeShown(t, dir, filepath.Base(secret[1]), "s3cret\n")
					}
					local := regexp.MustCompile(`(_file: "?)/[^\s,}"]*/`).ReplaceAllString(f.text, "$1")
					return writeShown(t, dir, "rotatord.yaml", local), []string{}
				})
				checked++
			}
		}
	}
	if checked < 5 {
		t.Errorf("only %d blocks are policies or configurations", checked)
	}
}

func checkShown(t *testing.T, f fence, set func(dir string) (config string, policies []string)) {
	t.Helper()
	t.Run(strings.ReplaceAll(f.at(), "/", "_"), func(t *testing.T) {
		config, policies := set(t.TempDir())
		// Files and programs of the operator's host are not on this one.
		for _, path := range policies {
			text, err := os.ReadFile(path)
			must(t, err)
			local := regexp.MustCompile(`((?:ca|password)_file: )[^\s,}]+`).ReplaceAll(text, []byte("${1}"+filepath.Join(filepath.Dir(config), "secret")))
			must(t, os.WriteFile(path, local, 0o600))
		}
		expectNothingFound(t, config, policies)
	})
}

func writeShown(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	must(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

var (
	pageLink = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading  = regexp.MustCompile(`(?m)^#+ (.+)$`)
)

// anchors are the fragments that a page has: its headings, as forges make them into links.
func anchors(text string) []string {
	var all []string
	for _, m := range heading.FindAllStringSubmatch(text, -1) {
		title := strings.ToLower(pageLink.ReplaceAllString(strings.ReplaceAll(m[1], "[", ""), ""))
		all = append(all, strings.ReplaceAll(regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(title, ""), " ", "-"))
	}
	return all
}

// TestLinksOfThePages: what a page links to in the repository is there.
func TestLinksOfThePages(t *testing.T) {
	pages, names := pagesOfTheRepository(t)
	for _, name := range names {
		for _, m := range pageLink.FindAllStringSubmatch(pages[name], -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			target, fragment, _ := strings.Cut(m[1], "#")
			path := name
			if target != "" {
				path = filepath.ToSlash(filepath.Join(filepath.Dir(name), target))
			}
			if _, err := os.Stat(filepath.Join(docsRoot, path)); err != nil {
				t.Errorf("%s links to %s, which is not there", name, m[1])
				continue
			}
			if fragment != "" && !slices.Contains(anchors(pages[path]), fragment) {
				t.Errorf("%s links to %s, and %s has no such heading", name, m[1], path)
			}
		}
	}
}

// readingOrder are the pages that docs/README.md tells to read, in its order.
func readingOrder(index string) []string {
	var pages []string
	for _, m := range regexp.MustCompile(`(?m)^\d+\. \[[^\]]+\]\(([^)]+\.md)\)`).FindAllStringSubmatch(index, -1) {
		pages = append(pages, "docs/"+m[1])
	}
	return pages
}

// TestIndexOfThePages: who reads docs/README.md finds every page.
func TestIndexOfThePages(t *testing.T) {
	pages, names := pagesOfTheRepository(t)
	index := pages["docs/README.md"]
	if n := len(readingOrder(index)); n < 10 {
		t.Errorf("only %d pages are to be read in order", n)
	}
	for _, name := range names {
		below, isDoc := strings.CutPrefix(name, "docs/")
		if !isDoc || name == "docs/README.md" || strings.Count(below, "/") > 0 && !strings.HasPrefix(below, "reference/") {
			continue
		}
		if !strings.Contains(index, "]("+below+")") {
			t.Errorf("docs/README.md does not lead to %s", below)
		}
	}
}

var (
	inlineCommand = regexp.MustCompile("`(rotatord [^`]+)`")
	seriesName    = regexp.MustCompile(`\brotatord_[a-z0-9_]+`)
	seriesSuffix  = regexp.MustCompile(`_(bucket|sum|count)$`)
)

// notCommands are messages of the log, notSeries a bucket of NATS: they are called alike.
var (
	notCommands = []string{"rotatord started"}
	notSeries   = []string{"rotatord_journal"}
)

// TestCommandsOfThePages: commands that stand within a sentence are executed by nobody, but they are
// there, with the arguments and flags that the sentence gives them.
func TestCommandsOfThePages(t *testing.T) {
	pages, names := pagesOfTheRepository(t)
	read := 0
	for _, name := range names {
		for _, m := range inlineCommand.FindAllStringSubmatch(pages[name], -1) {
			if slices.Contains(notCommands, m[1]) {
				continue
			}
			read++
			if err := parses(strings.Fields(m[1])[1:]); err != nil {
				t.Errorf("%s has `%s`: %v", name, m[1], err)
			}
		}
	}
	if read < 50 {
		t.Errorf("only %d commands were found", read)
	}
	for _, wrong := range []string{"stat", "status --wait", "rotate --confirm", "explain a b", "pause shop --for later"} {
		if parses(strings.Fields(wrong)) == nil {
			t.Errorf("rotatord %s is taken for a command", wrong)
		}
	}
}

// parses says what is wrong with a command line. A command that is only named needs no arguments.
func parses(line []string) error {
	root := newRoot()
	root.InitDefaultHelpFlag()
	root.InitDefaultCompletionCmd()
	cmd, rest, err := root.Find(line)
	if err != nil {
		return err
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	if help := cmd.Flags().Lookup("help"); len(rest) == 0 && cmd != root || help != nil && help.Changed {
		return nil
	}
	return cmd.ValidateArgs(cmd.Flags().Args())
}

// TestSeriesOfThePages: a series that a page names is one that the reference has.
func TestSeriesOfThePages(t *testing.T) {
	const reference = "docs/reference/metrics.md"
	pages, names := pagesOfTheRepository(t)
	known := seriesName.FindAllString(pages[reference], -1)
	read := 0
	for _, name := range names {
		if name == reference {
			continue
		}
		for _, series := range seriesName.FindAllString(pages[name], -1) {
			if slices.Contains(notSeries, series) {
				continue
			}
			read++
			if !slices.Contains(known, series) && !slices.Contains(known, seriesSuffix.ReplaceAllString(series, "")) {
				t.Errorf("%s names the series %s, which %s does not have", name, series, reference)
			}
		}
	}
	if read < 50 {
		t.Errorf("only %d series were found", read)
	}
}
