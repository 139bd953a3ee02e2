package watcher

import (
	"crypto"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
)

// acmeFile is a file of an ACME client's storage.
type acmeFile struct {
	name    string
	content func(*testing.T, *certs.Bundle) []byte
}

func leafOnly(_ *testing.T, b *certs.Bundle) []byte     { return b.CertificatePEM() }
func chainOnly(_ *testing.T, b *certs.Bundle) []byte    { return b.ChainPEM() }
func leafAndChain(_ *testing.T, b *certs.Bundle) []byte { return b.FullChainPEM() }
func keyOnly(t *testing.T, b *certs.Bundle) []byte      { return keyPEM(t, b) }
func noPEM(*testing.T, *certs.Bundle) []byte            { return []byte("{\"domain\": \"" + shop + "\"}\n") }

// acmeStorages are where ACME clients other than certbot keep a certificate, below the directory
// that a policy watches, in the order in which they write at a renewal.
var acmeStorages = map[string]struct {
	keepsKey bool
	files    []acmeFile
}{
	".lego/certificates": {files: []acmeFile{
		{shop + ".crt", leafAndChain}, {shop + ".issuer.crt", chainOnly}, {shop + ".key", keyOnly}, {shop + ".json", noPEM},
	}},
	".acme.sh": {keepsKey: true, files: []acmeFile{
		{shop + "_ecc/" + shop + ".csr.conf", noPEM}, {shop + "_ecc/" + shop + ".key", keyOnly}, {shop + "_ecc/" + shop + ".cer", leafOnly},
		{shop + "_ecc/ca.cer", chainOnly}, {shop + "_ecc/fullchain.cer", leafAndChain}, {shop + "_ecc/" + shop + ".conf", noPEM},
	}},
	"caddy/certificates": {files: []acmeFile{
		{"acme-v02.api.letsencrypt.org-directory/" + shop + "/" + shop + ".key", keyOnly},
		{"acme-v02.api.letsencrypt.org-directory/" + shop + "/" + shop + ".crt", leafAndChain},
		{"acme-v02.api.letsencrypt.org-directory/" + shop + "/" + shop + ".json", noPEM},
	}},
}

// TestACMEStorages: whatever the files of a client are called and in whatever order they come,
// each version is in force once, whole, and never with another one's key.
func TestACMEStorages(t *testing.T) {
	for storage, client := range acmeStorages {
		t.Run(storage, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), storage)
			must(t, os.MkdirAll(root, 0o700))
			r := start(t, Config{Root: root, Recursive: true})
			var key crypto.Signer
			for version := 1; version <= 3; version++ {
				b, err := authority().Issue(certstest.Options{Names: []string{shop}, Key: key, NotBefore: time.Now().Add(-24*time.Hour + time.Duration(version)*time.Minute)})
				must(t, err)
				if client.keepsKey {
					key = b.Key.Signer()
				}
				for _, file := range client.files {
					path := filepath.Join(root, file.name)
					must(t, os.MkdirAll(filepath.Dir(path), 0o700))
					write(t, path, file.content(t, b)) // in place, as they do
					r.step()                           // each single file is seen: the worst case
					if c, found := r.Snapshot().Certificate(shop); found && c.Problem == nil {
						loaded, err := certs.LoadPair(c.Pair, nil)
						if err != nil || !loaded.Key.Matches(loaded.Leaf) {
							t.Errorf("version %d, after %s: %v", version, file.name, err)
						}
					}
				}
				c := r.serves(shop, b)
				if loaded, err := certs.LoadPair(c.Pair, nil); err != nil || len(loaded.Chain) != 1 {
					t.Errorf("version %d: %v, %v", version, loaded, err)
				}
				if got := r.versions(shop); len(got) != version {
					t.Errorf("switched %d times for %d versions", len(got), version)
				}
			}
			if s := r.Snapshot(); len(s.Problems) > 0 {
				t.Errorf("problems: %v", s.Problems)
			}
		})
	}
}
