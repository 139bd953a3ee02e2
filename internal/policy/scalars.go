package policy

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Duration is a span of time, written as in Go (90s, 1h30m) and besides with the
// units d (24 hours) and w (7 days): 30d, 1w12h.
type Duration time.Duration

var longUnits = regexp.MustCompile(`^(?:(\d+)w)?(?:(\d+)d)?(.*)$`)

// ParseDuration reads a Duration. It is never negative.
func ParseDuration(s string) (Duration, error) {
	bad := fmt.Errorf("%q is not a duration; write for example 30d, 12h, 90s", s)
	parts := longUnits.FindStringSubmatch(s)
	if s == "" || parts == nil {
		return 0, bad
	}
	var total time.Duration
	for i, unit := range []time.Duration{7 * 24 * time.Hour, 24 * time.Hour} {
		if parts[i+1] == "" {
			continue
		}
		n, err := strconv.ParseInt(parts[i+1], 10, 64)
		if err != nil || n > int64((math.MaxInt64-total)/unit) {
			return 0, bad
		}
		total += time.Duration(n) * unit
	}
	if rest := parts[3]; rest != "" {
		d, err := time.ParseDuration(rest)
		if err != nil || d < 0 || d > math.MaxInt64-total {
			return 0, bad
		}
		total += d
	}
	return Duration(total), nil
}

// Std returns the duration as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String writes whole days as d, the rest as Go does.
func (d Duration) String() string {
	const day = Duration(24 * time.Hour)
	if d >= day && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	return time.Duration(d).String()
}

// UnmarshalYAML implements the YAML library's NodeUnmarshaler.
func (d *Duration) UnmarshalYAML(n ast.Node) error {
	if _, ok := n.(ast.ScalarNode); !ok {
		return &nodeError{startOf(n), "want a duration, as in 30d, 12h, 90s, have " + nodeWords(n.Type())}
	}
	parsed, err := ParseDuration(scalar(n))
	if err != nil {
		return &nodeError{n.GetToken(), err.Error()}
	}
	*d = parsed
	return nil
}

// MarshalJSON writes the duration as String does.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// Percent is a share, written with its sign: 66%.
type Percent float64

// String writes the share as it is read.
func (p Percent) String() string { return strconv.FormatFloat(float64(p), 'f', -1, 64) + "%" }

// MarshalJSON writes the share as String does.
func (p Percent) MarshalJSON() ([]byte, error) { return json.Marshal(p.String()) }

// UnmarshalYAML implements the YAML library's NodeUnmarshaler.
func (p *Percent) UnmarshalYAML(n ast.Node) error {
	text, found := strings.CutSuffix(scalar(n), "%")
	share, err := strconv.ParseFloat(text, 64)
	if !found || err != nil || !(share > 0 && share < 100) {
		return &nodeError{startOf(n), fmt.Sprintf("%q is not a share between 0%% and 100%%, as in 66%%", scalar(n))}
	}
	*p = Percent(share)
	return nil
}

// scalar is the text of a scalar node, or "" for anything else.
func scalar(n ast.Node) string {
	if s, ok := n.(ast.ScalarNode); ok {
		return fmt.Sprint(s.GetValue())
	}
	return ""
}

// Names are endpoint names, or the word covered: all that the policy's certificates cover.
type Names struct {
	Covered bool
	List    []string
}

// UnmarshalYAML implements the YAML library's NodeUnmarshaler.
func (n *Names) UnmarshalYAML(node ast.Node) error {
	list, ok := node.(*ast.SequenceNode)
	if !ok {
		if scalar(node) == "covered" {
			n.Covered = true
			return nil
		}
		return &nodeError{node.GetToken(), fmt.Sprintf("want a list of names, or covered; have %q", scalar(node))}
	}
	for _, item := range list.Values {
		name := scalar(item)
		if _, text := item.(*ast.StringNode); !text || name == "" {
			return &nodeError{item.GetToken(), fmt.Sprintf("%q is not a name", name)}
		}
		n.List = append(n.List, name)
	}
	return nil
}

// SecretFile is the path of a file that holds a secret. Its content is read when it
// is needed, so that a replaced secret is picked up, and never kept here.
type SecretFile string

// maxSecret is the largest secret that is read, in bytes.
const maxSecret = 64 << 10

// Read returns the file's content without the white space around it.
func (f SecretFile) Read() (string, error) {
	data, err := readAtMost(string(f), maxSecret+1)
	if err != nil {
		return "", fmt.Errorf("read secret file: %w", err)
	}
	if len(data) > maxSecret {
		return "", fmt.Errorf("read secret file %s: more than %d bytes are too many for a secret", string(f), maxSecret)
	}
	secret := strings.TrimSpace(string(data))
	if secret == "" {
		return "", fmt.Errorf("read secret file %s: it is empty", string(f))
	}
	return secret, nil
}

// problem says what keeps the file from being used, or "". A secret that everybody
// on the machine can read or change is not one.
func (f SecretFile) problem() string {
	info, err := os.Stat(string(f))
	switch {
	case err != nil:
		return fmt.Sprintf("secret file %s: %s", string(f), plainError(err))
	case info.IsDir():
		return fmt.Sprintf("secret file %s is a directory", string(f))
	case info.Mode().Perm()&0o007 != 0:
		return fmt.Sprintf("secret file %s has mode %#o: others may use it; chmod it to 0600", string(f), info.Mode().Perm())
	case info.Mode().Perm()&0o020 != 0:
		return fmt.Sprintf("secret file %s has mode %#o: its group may change it; chmod it to 0640 or less", string(f), info.Mode().Perm())
	case info.Size() == 0 && info.Mode().IsRegular():
		return fmt.Sprintf("secret file %s is empty", string(f))
	}
	return ""
}

// resolver makes the relative paths of a configuration absolute.
type resolver struct {
	// credentials is $CREDENTIALS_DIRECTORY, where systemd's LoadCredential= puts
	// secrets; empty outside systemd.
	credentials string
	// base is the directory of the configuration file.
	base string
}

// secret resolves a *_file: against the credentials directory, or, where there is
// none, the configuration's directory.
func (r resolver) secret(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	if r.credentials != "" {
		return filepath.Join(r.credentials, path)
	}
	return filepath.Join(r.base, path)
}

// path resolves any other path against the configuration's directory.
func (r resolver) path(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(r.base, path)
}

// Files lists the policy files below a directory, sorted: *.yaml and *.yml, no hidden
// ones, links to files followed.
func Files(root string) ([]string, error) {
	var files []string
	// The slash makes WalkDir follow a link that is the root itself.
	start := root + string(filepath.Separator)
	err := filepath.WalkDir(start, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		hidden := strings.HasPrefix(entry.Name(), ".") && path != start
		if hidden && entry.IsDir() {
			return filepath.SkipDir
		}
		ext := filepath.Ext(path)
		if !hidden && !entry.IsDir() && (ext == ".yaml" || ext == ".yml") {
			files = append(files, path)
		}
		return nil
	})
	slices.Sort(files)
	return files, err
}
