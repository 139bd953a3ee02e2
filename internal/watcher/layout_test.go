package watcher

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
)

const shop = "shop.example.com"

func TestKubernetes(t *testing.T) {
	for _, recursive := range []bool{false, true} {
		root := t.TempDir()
		one, two, three := issue(t, shop, 1), issue(t, shop, 2), issue(t, shop, 3)
		must(t, certstest.WriteKubernetes(root, "2026_01_01", one))
		r := start(t, Config{Root: root, Recursive: recursive})
		c := r.serves(shop, one)
		if c.Pair.LeafFile != filepath.Join(root, "tls.crt") {
			t.Errorf("leaf file is %s", c.Pair.LeafFile)
		}
		must(t, certstest.WriteKubernetes(root, "2026_01_02", two))
		r.serves(shop, two)
		must(t, certstest.WriteKubernetes(root, "2026_01_03", three))
		r.serves(shop, three)
		if got := r.versions(shop); len(got) != 3 {
			t.Errorf("switched %d times", len(got)-1)
		}
	}
}

// TestLinkTargetsOutside: what links lead to is watched, also outside the root.
func TestLinkTargetsOutside(t *testing.T) {
	base := t.TempDir()
	lineage := certstest.NewCertbot(base, shop)
	one, two, three := issue(t, shop, 1), issue(t, shop, 2), issue(t, shop, 3)
	must(t, lineage.Renew(one))
	r := start(t, Config{Root: filepath.Join(base, "live"), Recursive: true})
	r.serves(shop, one)
	for file, data := range map[string][]byte{
		"cert1": two.CertificatePEM(), "chain1": two.ChainPEM(), "fullchain1": two.FullChainPEM(), "privkey1": keyPEM(t, two),
	} {
		write(t, filepath.Join(lineage.Archive(), file+".pem"), data) // in place
	}
	r.serves(shop, two)

	// The whole archive is replaced under the links.
	must(t, os.RemoveAll(lineage.Archive()))
	r.marked(shop, two, certs.Unreadable) // links that lead nowhere are broken, not deleted
	again := certstest.NewCertbot(base, shop)
	must(t, again.Save(three))
	r.serves(shop, three)
}

func TestInPlaceRewriting(t *testing.T) {
	for _, keyFirst := range []bool{false, true} {
		root := t.TempDir()
		one, two := issue(t, shop, 1), issue(t, shop, 2)
		must(t, certstest.WritePair(root, "shop", one))
		r := start(t, Config{Root: root})
		since := r.serves(shop, one).Since
		steps := []func(){
			func() { write(t, filepath.Join(root, "shop.crt"), two.FullChainPEM()) },
			func() { write(t, filepath.Join(root, "shop.key"), keyPEM(t, two)) },
		}
		if keyFirst {
			steps[0], steps[1] = steps[1], steps[0]
		}
		steps[0]()
		if c := r.marked(shop, one, certs.KeyMismatch); !c.Since.Equal(since) {
			t.Error("the version in force became younger")
		}
		if len(r.Snapshot().Problems) != 1 {
			t.Errorf("problems: %v", r.Snapshot().Problems)
		}
		steps[1]()
		r.serves(shop, two)
		if s := r.Snapshot(); len(s.Problems) != 0 {
			t.Errorf("problems stay: %v", s.Problems)
		}
		if got := r.versions(shop); len(got) != 2 {
			t.Errorf("switched %d times", len(got)-1)
		}
	}
}

// TestBrokenReplacement: a good certificate stays in force whatever its file
// becomes, nothing else is touched, and it recovers.
func TestBrokenReplacement(t *testing.T) {
	one := issue(t, shop, 1)
	encrypted, err := os.ReadFile("../certs/testdata/encrypted/aes-256-cbc-hmacWithSHA256.pem")
	must(t, err)
	full := one.FullChainPEM()
	for name, c := range map[string]struct {
		file    string
		content []byte
		reason  certs.Reason
	}{
		"truncated leaf":   {"shop.crt", full[:200], certs.Truncated},
		"truncated chain":  {"shop.crt", full[:len(full)-200], certs.Truncated},
		"empty":            {"shop.crt", nil, certs.NotPEM},
		"garbage":          {"shop.crt", []byte("<html>502 Bad Gateway</html>"), certs.NotPEM},
		"too large":        {"shop.crt", make([]byte, certs.MaxFileSize+1), certs.TooLarge},
		"encrypted key":    {"shop.key", encrypted, certs.EncryptedKey},
		"other key":        {"shop.key", keyPEM(t, issue(t, "x.example.com", 1)), certs.KeyMismatch},
		"key is the chain": {"shop.key", one.ChainPEM(), certs.NoKey},
		"only the chain":   {"shop.crt", one.ChainPEM(), certs.NoCertificate},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			other := issue(t, "other.example.com", 1)
			must(t, certstest.WritePair(root, "shop", one))
			must(t, certstest.WritePair(root, "other", other))
			r := start(t, Config{Root: root})
			r.serves(shop, one)
			path := filepath.Join(root, c.file)
			good, err := os.ReadFile(path)
			must(t, err)
			write(t, path, c.content)
			marked := r.marked(shop, one, c.reason)
			r.serves("other.example.com", other)
			if s := r.Snapshot(); !slices.Contains(s.Problems, *marked.Problem) {
				t.Errorf("problems %v, certificate has %v", s.Problems, marked.Problem)
			}
			if c.reason != certs.KeyMismatch && c.reason != certs.NoKey && c.reason != certs.NoCertificate && r.Snapshot().Errors[c.reason] == 0 {
				t.Error("not counted")
			}
			write(t, path, good)
			r.serves(shop, one)
			must(t, os.Remove(filepath.Join(root, "shop.crt")))
			r.marked(shop, one, certs.NoCertificate)
			must(t, os.Remove(filepath.Join(root, "shop.key")))
			r.until("the certificate goes", func(s *Snapshot) bool { return s.Len() == 1 && len(s.Problems) == 0 })
			if name, _, _ := strings.Cut(string(keyPEM(t, one)[40:]), "\n"); strings.Contains(r.logs.String(), name) {
				t.Error("the key was logged")
			}
		})
	}
}

// TestOddFiles: what cannot be read is a problem of its own and of nobody else.
func TestOddFiles(t *testing.T) {
	root := t.TempDir()
	at := func(name string) string { return filepath.Join(root, name) }
	one := issue(t, shop, 1)
	must(t, certstest.WritePair(root, "shop", one))
	must(t, os.Symlink("loop.pem", at("loop.pem")))
	must(t, os.Symlink("gone", at("dangling.pem")))
	must(t, syscall.Mkfifo(at("fifo.pem"), 0o600))
	must(t, syscall.Mkfifo(at("fifo"), 0o600))
	must(t, os.Mkdir(at("directory.pem"), 0o700))
	write(t, at("text.key"), []byte("no key"))
	write(t, at("README"), []byte("put -----BEGIN CERTIFICATE----- here"))
	write(t, at("big"), make([]byte, certs.MaxFileSize+1))
	write(t, at(".hidden.pem"), []byte("x"))
	write(t, at("shop.pem~"), []byte("x"))
	write(t, at("shop.pem.tmp"), []byte("-----BEGIN"))
	must(t, os.Symlink(".", at("circle"))) // a directory that leads to itself
	r := start(t, Config{Root: root, Recursive: true})
	r.serves(shop, one)
	want := "dangling.pem unreadable, fifo.pem unreadable, loop.pem symlink_loop, text.key not_pem"
	var got []string
	for _, p := range r.Snapshot().Problems {
		got = append(got, filepath.Base(p.Path)+" "+string(p.Reason))
	}
	if strings.Join(got, ", ") != want {
		t.Errorf("problems:\n got %s\nwant %s", strings.Join(got, ", "), want)
	}
	must(t, os.Remove(at("loop.pem")))
	must(t, os.Remove(at("fifo.pem")))
	write(t, at("gone"), issue(t, "x.example.com", 1).ChainPEM()) // the dangling link leads somewhere now
	r.until("problems go", func(s *Snapshot) bool { return len(s.Problems) == 1 })
}

func TestRootComesAndGoes(t *testing.T) {
	base := t.TempDir()
	root := filepath.Join(base, "a", "b", "live")
	one, two, three := issue(t, shop, 1), issue(t, shop, 2), issue(t, shop, 3)
	r := start(t, Config{Root: root, Recursive: true})
	if s := r.Snapshot(); s.Up || s.Err == nil || !s.Ready {
		t.Fatalf("up %v, err %v", s.Up, s.Err)
	}
	fill := func(directory string, b *certs.Bundle) {
		must(t, os.MkdirAll(filepath.Join(directory, "shop"), 0o755))
		must(t, certstest.WritePair(filepath.Join(directory, "shop"), "shop", b))
	}
	fill(root, one) // appears, several levels at once
	r.serves(shop, one)

	must(t, os.RemoveAll(filepath.Join(base, "a"))) // vanishes: everything stays
	s := r.until("down", func(s *Snapshot) bool { return !s.Up })
	if c, ok := s.Certificate(shop); !ok || c.Pair.Info.Fingerprint != one.Fingerprint() {
		t.Error("the certificate went with the directory")
	}
	fill(root, two)
	r.serves(shop, two)

	other := filepath.Join(base, "a", "b", "new") // replaced by rename
	fill(other, three)
	must(t, os.Rename(root, root+".old"))
	must(t, os.Rename(other, root))
	r.serves(shop, three)
	four := issue(t, shop, 4)
	must(t, certstest.WritePair(filepath.Join(root, "shop"), "shop", four)) // events of the new one
	r.serves(shop, four)
	must(t, certstest.WritePair(filepath.Join(root+".old", "shop"), "shop", one)) // and not of the old
	r.step()
	r.serves(shop, four)

	must(t, os.Remove(filepath.Join(root, "shop", "shop.crt")))
	must(t, os.Remove(filepath.Join(root, "shop", "shop.key")))
	r.until("empty", func(s *Snapshot) bool { return s.Len() == 0 && s.Up })
}

// TestRootIsLink: a root that is a link is followed when it is swapped.
func TestRootIsLink(t *testing.T) {
	base := t.TempDir()
	one, two := issue(t, shop, 1), issue(t, shop, 2)
	for name, b := range map[string]*certs.Bundle{"v1": one, "v2": two} {
		must(t, os.Mkdir(filepath.Join(base, name), 0o755))
		must(t, certstest.WritePair(filepath.Join(base, name), "shop", b))
	}
	root := filepath.Join(base, "current")
	must(t, os.Symlink("v1", root))
	r := start(t, Config{Root: root})
	r.serves(shop, one)
	must(t, os.Symlink("v2", root+".new"))
	must(t, os.Rename(root+".new", root))
	if c := r.serves(shop, two); c.Pair.LeafFile != filepath.Join(root, "shop.crt") {
		t.Errorf("leaf file %s", c.Pair.LeafFile)
	}
	three := issue(t, shop, 3)
	must(t, certstest.WritePair(filepath.Join(base, "v2"), "shop", three))
	r.serves(shop, three)
}

// TestDirectoriesMove: subdirectories and links to directories come, move and
// go.
func TestDirectoriesMove(t *testing.T) {
	base := t.TempDir()
	root, outside := filepath.Join(base, "root"), filepath.Join(base, "outside")
	for _, directory := range []string{filepath.Join(root, "a", "b"), filepath.Join(outside, "deeper")} {
		must(t, os.MkdirAll(directory, 0o755))
	}
	one, linked := issue(t, shop, 1), issue(t, "linked.example.com", 1)
	must(t, certstest.WritePair(filepath.Join(root, "a", "b"), "shop", one))
	must(t, certstest.WritePair(outside, "linked", linked))
	must(t, certstest.WritePair(filepath.Join(outside, "deeper"), "deeper", issue(t, "deeper.example.com", 1)))
	r := start(t, Config{Root: root, Recursive: true})
	r.serves(shop, one)
	must(t, os.Rename(filepath.Join(root, "a"), filepath.Join(root, "c")))
	moved := filepath.Join(root, "c", "b")
	r.until("the new path", func(s *Snapshot) bool {
		c, ok := s.Certificate(shop)
		return ok && c.Pair.LeafFile == filepath.Join(moved, "shop.crt")
	})
	two := issue(t, shop, 2)
	must(t, certstest.WritePair(moved, "shop", two))
	r.serves(shop, two)

	must(t, os.Symlink(outside, filepath.Join(root, "link")))
	c := r.serves("linked.example.com", linked)
	if c.Pair.KeyFile != filepath.Join(root, "link", "linked.key") {
		t.Errorf("key file %s", c.Pair.KeyFile)
	}
	if _, ok := r.Snapshot().Certificate("deeper.example.com"); ok {
		t.Error("a linked directory was followed deeper than one level")
	}
	linked2 := issue(t, "linked.example.com", 2)
	must(t, certstest.WritePair(outside, "linked", linked2))
	r.serves("linked.example.com", linked2)
	must(t, os.Remove(filepath.Join(root, "link")))
	r.until("the linked one goes", func(s *Snapshot) bool { return s.Len() == 1 })
}

func TestRunTwice(t *testing.T) {
	r := start(t, Config{Root: t.TempDir()})
	if err := r.Run(t.Context()); err == nil {
		t.Error("ran twice")
	}
	if _, err := New(Config{}); err == nil {
		t.Error("no root was accepted")
	}
	if _, err := New(Config{Root: "/", Interval: -1}); err == nil {
		t.Error("a negative interval was accepted")
	}
}
