// Package file makes a directory of certificate files a providers.Target, for
// services that read them from disk: nginx, HAProxy, Grafana. The one endpoint is
// the directory's path; a Handle is the leaf's fingerprint in hexadecimal.
//
// The layout, for a policy that wants full_chain: cert.pem and key: key.pem:
//
//	<directory>/cert.pem -> .rotatord/current/cert.pem    made once
//	<directory>/key.pem -> .rotatord/current/key.pem
//	<directory>/.rotatord/current -> <fingerprint>        swapped by rename(2)
//	<directory>/.rotatord/<fingerprint>/                  a generation, complete and synced
//	<directory>/.rotatord/<fingerprint>/.rotatord-generation   what was written, by whom
//	<directory>/.rotatord/reload-pending                  the service has yet to be told
//
// One rename switches all files together. A reader that opens certificate and key
// one after the other around it can still see one of each; who resolves
// .rotatord/current first and reads both through that cannot. Services are told to
// reload after the switch, when nothing moves any more: that is what Reload is for.
//
// It may import internal/providers, internal/certs, golang.org/x/sys, PKCS #12 and
// systemd's D-Bus interface.
//
// Invariants: there is no moment without a file where one was; a generation is in
// place only complete and synced; all of a generation's files are of one leaf, so
// that mending it file by file cannot mix; what rotatord did not write is copied or
// put aside before anything takes its place, and never removed; nothing outside the
// directory is written; only one process changes a directory at a time.
package file

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rotatord/rotatord/internal/providers"
)

// Config says which files are wanted where.
type Config struct {
	// Directory is the absolute path of an existing directory. It belongs to root or
	// to the user that rotatord runs as.
	Directory string

	// Certificate (the leaf), Chain (its issuers), FullChain (both), Key, Combined
	// (leaf, chain, key) and PKCS12 are names of files in Directory; empty: not
	// wanted. At least one of those with a leaf is.
	Certificate, Chain, FullChain, Key, Combined, PKCS12 string
	// PKCS12Password is asked for the password each time that it is needed; required
	// with PKCS12.
	PKCS12Password func() (string, error)

	// Owner and Group are names or numbers; empty: as it comes, and not enforced.
	Owner, Group string
	// Mode is of the files that hold a key; 0 means 0600. The others have 0644.
	Mode os.FileMode

	// Reload tells the service after each switch.
	Reload Reload
	// Logger; nil: none. Its lines do not name the directory.
	Logger *slog.Logger
}

// Reload says how the service learns that its files were switched: by at most one of
// Unit and Command. It is repeated until it succeeds.
type Reload struct {
	// Unit is a systemd unit that is reloaded, or restarted where it knows no reload.
	// One that is not running stays so: it reads the files when it starts.
	Unit string
	// Command is run without a shell, with ROTATORD_DIRECTORY and
	// ROTATORD_FINGERPRINT in an environment that is otherwise almost empty.
	Command []string
	// Timeout is how long either may take; 0 means 30 s.
	Timeout time.Duration
}

func (r Reload) wanted() bool { return r.Unit != "" || len(r.Command) > 0 }

// Target is one directory. It is safe for concurrent use, also by several processes.
type Target struct {
	directory string
	files     []wantedFile
	password  func() (string, error)
	owner     string
	group     string
	mode      os.FileMode
	reload    Reload
	log       *slog.Logger

	// step, if not nil, is asked before every change of the file system: tests stop
	// the work there.
	step func(what string) error
	// reloadUnit is systemd's; tests have their own.
	reloadUnit func(ctx context.Context, unit string) error
}

var _ providers.Target = (*Target)(nil)

const (
	service        = "file"
	defaultMode    = 0o600
	publicMode     = 0o644
	defaultTimeout = 30 * time.Second
)

// New checks the configuration. It does not look at the directory.
func New(cfg Config) (*Target, error) {
	t := &Target{
		directory: cfg.Directory, password: cfg.PKCS12Password, owner: cfg.Owner, group: cfg.Group,
		mode: cmp.Or(cfg.Mode, defaultMode), reload: cfg.Reload, log: cfg.Logger, reloadUnit: reloadUnit,
	}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	t.reload.Timeout = cmp.Or(t.reload.Timeout, defaultTimeout)
	if t.reload.Unit != "" && !strings.Contains(t.reload.Unit, ".") {
		t.reload.Unit += ".service"
	}
	t.files = wantedFiles(cfg)
	if err := errors.Join(checkDirectory(cfg), checkNames(t.files), checkMode(t.mode), checkReload(cfg.Reload)); err != nil {
		return nil, err
	}
	if cfg.PKCS12 != "" && cfg.PKCS12Password == nil {
		return nil, errors.New("file: a PKCS #12 file needs a password")
	}
	return t, nil
}

func checkDirectory(cfg Config) error {
	if !filepath.IsAbs(cfg.Directory) || filepath.Clean(cfg.Directory) != cfg.Directory || cfg.Directory == "/" {
		return fmt.Errorf("file: directory %q: want an absolute path without . or .. or a slash at the end", cfg.Directory)
	}
	return nil
}

func checkNames(files []wantedFile) error {
	var taken []string
	leaf := false
	for _, f := range files {
		switch {
		case strings.ContainsAny(f.name, "/\x00"), f.name == ".", f.name == "..":
			return fmt.Errorf("file: %s: %q is not the name of a file; the directory has a field of its own", f.form, f.name)
		case strings.HasPrefix(f.name, control), strings.Contains(f.name, asideSuffix):
			return fmt.Errorf("file: %s: the name %q is reserved", f.form, f.name)
		case slices.Contains(taken, f.name):
			return fmt.Errorf("file: %s: the name %q is taken twice; certificate and key in one file are called combined", f.form, f.name)
		}
		taken = append(taken, f.name)
		leaf = leaf || f.form.hasLeaf()
	}
	if !leaf {
		return errors.New("file: want at least one of certificate, full_chain, combined and pkcs12")
	}
	return nil
}

func checkMode(mode os.FileMode) error {
	switch {
	case mode&^os.ModePerm != 0:
		return fmt.Errorf("file: mode %s: want permission bits only", mode)
	case mode&0o007 != 0:
		return fmt.Errorf("file: mode %#o would let everybody at the key", mode.Perm())
	case mode&0o400 == 0:
		return fmt.Errorf("file: mode %#o: the owner must be able to read the key", mode.Perm())
	}
	return nil
}

func checkReload(r Reload) error {
	switch {
	case r.Unit != "" && len(r.Command) > 0:
		return errors.New("file: reload takes a unit or a command, not both")
	case len(r.Command) > 0 && r.Command[0] == "":
		return errors.New("file: reload: the command is empty")
	case strings.ContainsAny(r.Unit, "/ \t\n"):
		return fmt.Errorf("file: reload: %q is not the name of a unit", r.Unit)
	case r.Timeout < 0:
		return fmt.Errorf("file: reload: timeout %s is negative", r.Timeout)
	}
	return nil
}

// fail makes an error that is found out here and not by the operating system.
func fail(kind providers.Kind, op, format string, args ...any) *providers.Error {
	return &providers.Error{Kind: kind, Service: service, Op: op, Message: fmt.Sprintf(format, args...)}
}
