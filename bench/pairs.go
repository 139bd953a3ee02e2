package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
)

// layout is how pairs lie on the disk.
type layout string

const (
	flat        layout = "flat"        // <name>.crt and <name>.key in one directory
	directories layout = "directories" // <name>/fullchain.pem and <name>/privkey.pem
	certbot     layout = "certbot"     // live/<name>/*.pem, links into archive/<name>
	kubernetes  layout = "kubernetes"  // <name>/tls.crt and tls.key behind ..data, as a mounted secret
)

// pairs are certificates of one CA, on disk.
type pairs struct {
	root   string // what a policy watches
	layout layout
	ca     *certstest.CA
}

// host is the name of the i-th certificate.
func host(i int) string { return fmt.Sprintf("host%06d.example.com", i) }

// generate writes n pairs, ECDSA P-256 leaf and intermediate. Plain writes: a sync for each of 200,000 files would
// take longer than all that is measured.
func generate(ctx context.Context, root string, n int, l layout) (*pairs, error) {
	ca, err := certstest.NewCA("bench")
	if err != nil {
		return nil, err
	}
	if err := os.RemoveAll(root); err != nil {
		return nil, err
	}
	p := &pairs{root: root, layout: l, ca: ca}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return nil, err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i := range n {
		group.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			b, err := p.issue(i)
			if err != nil {
				return err
			}
			return p.plant(b, host(i), l)
		})
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("write pairs: %w", err)
	}
	if l == certbot {
		p.root = filepath.Join(root, "live")
	}
	return p, nil
}

// issue makes another version of the i-th certificate.
func (p *pairs) issue(i int) (*certs.Bundle, error) {
	return p.ca.Issue(certstest.Options{Names: []string{host(i)}, NotBefore: time.Now().Add(-time.Minute)})
}

func (p *pairs) plant(b *certs.Bundle, name string, l layout) error {
	key, err := b.Key.PEM(certs.PKCS8)
	if err != nil {
		return err
	}
	switch l {
	case flat:
		return errors.Join(os.WriteFile(filepath.Join(p.root, name+".crt"), b.FullChainPEM(), 0o600),
			os.WriteFile(filepath.Join(p.root, name+".key"), key, 0o600))
	case directories:
		dir := filepath.Join(p.root, name)
		return errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, "fullchain.pem"), b.FullChainPEM(), 0o600),
			os.WriteFile(filepath.Join(dir, "privkey.pem"), key, 0o600))
	case certbot:
		return plantCertbot(p.root, name, b, key)
	case kubernetes:
		dir := filepath.Join(p.root, name)
		data := filepath.Join(dir, "..2026_11_22_00_00_00.1")
		return errors.Join(os.MkdirAll(data, 0o755), os.WriteFile(filepath.Join(data, "tls.crt"), b.FullChainPEM(), 0o600),
			os.WriteFile(filepath.Join(data, "tls.key"), key, 0o600), os.Symlink(filepath.Base(data), filepath.Join(dir, "..data")),
			os.Symlink("..data/tls.crt", filepath.Join(dir, "tls.crt")), os.Symlink("..data/tls.key", filepath.Join(dir, "tls.key")))
	}
	return fmt.Errorf("layout %q", l)
}

// plantCertbot writes the first version of a lineage.
func plantCertbot(root, name string, b *certs.Bundle, key []byte) error {
	live, archive := filepath.Join(root, "live", name), filepath.Join(root, "archive", name)
	err := errors.Join(os.MkdirAll(live, 0o755), os.MkdirAll(archive, 0o755))
	for stem, data := range map[string][]byte{
		"cert": b.CertificatePEM(), "chain": b.ChainPEM(), "fullchain": b.FullChainPEM(), "privkey": key,
	} {
		err = errors.Join(err, os.WriteFile(filepath.Join(archive, stem+"1.pem"), data, 0o600),
			os.Symlink(filepath.Join("../../archive", name, stem+"1.pem"), filepath.Join(live, stem+".pem")))
	}
	return err
}

// files are the paths of a pair that is not behind links.
func (p *pairs) files(name string) (key, certificate string) {
	if p.layout == directories {
		return filepath.Join(p.root, name, "privkey.pem"), filepath.Join(p.root, name, "fullchain.pem")
	}
	return filepath.Join(p.root, name+".key"), filepath.Join(p.root, name+".crt")
}

// replace puts a bundle in the place of such a pair by renames, the key first.
func (p *pairs) replace(b *certs.Bundle, name string) error {
	key, err := b.Key.PEM(certs.PKCS8)
	if err != nil {
		return err
	}
	keyFile, certificateFile := p.files(name)
	for _, f := range []struct {
		path string
		data []byte
	}{{keyFile, key}, {certificateFile, b.FullChainPEM()}} {
		temporary := filepath.Join(filepath.Dir(f.path), "."+filepath.Base(f.path)+".new")
		if err := errors.Join(os.WriteFile(temporary, f.data, 0o600), os.Rename(temporary, f.path)); err != nil {
			return err
		}
	}
	return nil
}

// readAll opens and reads every file below a directory, links to files too, and hands it on. What a name with two
// dots holds is what the links of a mounted secret lead to: it is read once.
func readAll(root string, use func(name string, data []byte) error) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case strings.HasPrefix(entry.Name(), ".."):
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		case entry.IsDir():
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return use(path, data)
	})
}
