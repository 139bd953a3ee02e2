package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/watcher"
)

// errInspectProblems ends an inspection that found problems, which were printed.
var errInspectProblems = errors.New("there are files that cannot be used")

func newInspectCommand() *cobra.Command {
	var output, passwordFile string
	cmd := &cobra.Command{
		Use:   "inspect PATH...",
		Short: "Show what rotatord sees in PEM files",
		Long: "Inspect reads PEM files and directories as a directory source does, and shows the pairs it finds, which\n" +
			"files they are made of, and what is wrong with the rest. Keys are never shown. Exit code 1 if there are problems.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("inspect needs a file or directory")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			found, err := inspect(args, passwordFile)
			if err != nil {
				return err
			}
			if output == "json" {
				err = printJSON(cmd, found)
			} else {
				err = found.print(cmd.OutOrStdout(), time.Now())
			}
			if err == nil && len(found.Problems) > 0 {
				return errInspectProblems
			}
			return err
		},
	}
	addOutputFlag(cmd, &output)
	cmd.Flags().StringVar(&passwordFile, "key-password-file", "", "file with the password of encrypted keys")
	return cmd
}

// inspection is what was found.
type inspection struct {
	Certificates []inspectedPair  `json:"certificates"`
	Problems     []inspectProblem `json:"problems"`
}

type inspectedPair struct {
	Certificate string     `json:"certificate"`
	Info        certs.Info `json:"info"`
	LeafFile    string     `json:"leaf_file"`
	KeyFile     string     `json:"key_file"`
	// Chain are the common names from the issuer upwards.
	Chain []string `json:"chain"`
}

type inspectProblem struct {
	File    string `json:"file"`
	Block   int    `json:"block,omitempty"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

func inspect(paths []string, passwordFile string) (inspection, error) {
	var password []byte
	if passwordFile != "" {
		secret, err := policy.SecretFile(passwordFile).Read()
		if err != nil {
			return inspection{}, err
		}
		password = []byte(secret)
	}
	files, err := filesBelow(paths)
	if err != nil {
		return inspection{}, err
	}
	reader := certs.NewReader(password)
	facts := make([]*certs.FileFacts, 0, len(files))
	for _, file := range files {
		read := reader.Read(file)
		if watcher.Overlooked(read) && !slices.Contains(paths, file) {
			continue
		}
		facts = append(facts, read)
	}
	pairs, problems := certs.Assemble(facts)
	found := inspection{Certificates: []inspectedPair{}, Problems: []inspectProblem{}}
	for _, pair := range pairs {
		shown := inspectedPair{Certificate: pair.Certificate, Info: *pair.Info, LeafFile: pair.LeafFile, KeyFile: pair.KeyFile, Chain: []string{}}
		bundle, err := certs.LoadPair(pair, password)
		if err != nil {
			return inspection{}, err
		}
		for _, c := range bundle.Chain {
			shown.Chain = append(shown.Chain, c.Subject.CommonName)
		}
		found.Certificates = append(found.Certificates, shown)
	}
	for _, p := range problems {
		found.Problems = append(found.Problems, inspectProblem{p.Path, p.Block, string(p.Reason), p.Error()})
	}
	slices.SortFunc(found.Certificates, func(a, b inspectedPair) int { return cmp.Compare(a.Certificate, b.Certificate) })
	return found, nil
}

// filesBelow lists regular files, links followed, hidden ones left out. A file that is
// named is looked at whatever it is called; in a directory only what can be PEM.
func filesBelow(paths []string) ([]string, error) {
	var files []string
	for _, root := range paths {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			switch hidden := strings.HasPrefix(entry.Name(), ".") && path != root; {
			case hidden && entry.IsDir():
				return filepath.SkipDir
			case hidden || entry.IsDir():
				return nil
			}
			if info, err := os.Stat(path); err == nil && info.IsDir() {
				return nil // a link to a directory
			}
			files = append(files, path)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("look into %s: %w", root, err)
		}
	}
	return files, nil
}

func (f inspection) print(w io.Writer, now time.Time) error {
	var b strings.Builder
	for _, p := range f.Certificates {
		fmt.Fprintf(&b, "%s\n", p.Certificate)
		fmt.Fprintf(&b, "  fingerprint  %s\n", p.Info.Fingerprint)
		fmt.Fprintf(&b, "  names        %s\n", strings.Join(p.Info.Names, ", "))
		fmt.Fprintf(&b, "  issuer       %s\n", p.Info.IssuerCN)
		fmt.Fprintf(&b, "  valid        %s to %s (%s)\n", p.Info.NotBefore.UTC().Format(time.RFC3339), p.Info.NotAfter.UTC().Format(time.RFC3339), remaining(p.Info.NotAfter, now))
		fmt.Fprintf(&b, "  key          %s in %s\n", p.Info.KeyAlgorithm, shortPath(p.KeyFile))
		fmt.Fprintf(&b, "  leaf         in %s\n", shortPath(p.LeafFile))
		chain := strings.Join(p.Chain, ", ")
		if chain == "" {
			chain = "none found"
		}
		fmt.Fprintf(&b, "  chain        %s\n\n", chain)
	}
	for _, p := range f.Problems {
		fmt.Fprintf(&b, "problem: %s\n", p.Message)
	}
	fmt.Fprintf(&b, "%s, %s\n", counted(len(f.Certificates), "certificate", "certificates"), counted(len(f.Problems), "problem", "problems"))
	_, err := io.WriteString(w, b.String())
	return err
}

func remaining(until, now time.Time) string {
	left := until.Sub(now)
	switch {
	case left <= 0:
		return "expired"
	case left < 48*time.Hour:
		return left.Round(time.Minute).String() + " left"
	}
	return fmt.Sprintf("%d days left", int(left.Hours()/24))
}
