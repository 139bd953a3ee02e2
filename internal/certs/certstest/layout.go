package certstest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/rotatord/rotatord/internal/certs"
)

// WritePair writes <stem>.crt (leaf and chain) and <stem>.key, each atomically,
// the key first.
func WritePair(directory, stem string, b *certs.Bundle) error {
	key, err := b.Key.PEM(certs.PKCS8)
	if err != nil {
		return fmt.Errorf("write pair %s: %w", stem, err)
	}
	if err := certs.WriteFileAtomic(filepath.Join(directory, stem+".key"), key, 0o600); err != nil {
		return fmt.Errorf("write pair %s: %w", stem, err)
	}
	if err := certs.WriteFileAtomic(filepath.Join(directory, stem+".crt"), b.FullChainPEM(), 0o644); err != nil {
		return fmt.Errorf("write pair %s: %w", stem, err)
	}
	return nil
}

// Certbot lays out one lineage as certbot does: numbered files in
// archive/<name>, links to the newest in live/<name>.
type Certbot struct {
	directory, name string
	version         int
}

// CertbotFiles returns the stems of a lineage's four links, in the order in which
// certbot replaces them.
func CertbotFiles() []string { return []string{"cert", "privkey", "chain", "fullchain"} }

// NewCertbot starts a lineage below directory (/etc/letsencrypt with certbot).
func NewCertbot(directory, name string) *Certbot { return &Certbot{directory: directory, name: name} }

// Live returns the directory with the links.
func (c *Certbot) Live() string { return filepath.Join(c.directory, "live", c.name) }

// Archive returns the directory with the numbered files.
func (c *Certbot) Archive() string { return filepath.Join(c.directory, "archive", c.name) }

// Save writes the next version into the archive; the links stay as they are.
func (c *Certbot) Save(b *certs.Bundle) error {
	key, err := b.Key.PEM(certs.PKCS8)
	if err != nil {
		return fmt.Errorf("write certbot lineage %s: %w", c.name, err)
	}
	for _, directory := range []string{c.Archive(), c.Live()} {
		if err := os.MkdirAll(directory, 0o755); err != nil {
			return fmt.Errorf("write certbot lineage %s: %w", c.name, err)
		}
	}
	c.version++
	contents := map[string][]byte{
		"privkey": key, "cert": b.CertificatePEM(), "chain": b.ChainPEM(), "fullchain": b.FullChainPEM(),
	}
	for _, stem := range []string{"privkey", "cert", "chain", "fullchain"} {
		mode := os.FileMode(0o644)
		if stem == "privkey" {
			mode = 0o600
		}
		path := filepath.Join(c.Archive(), stem+strconv.Itoa(c.version)+".pem")
		if err := os.WriteFile(path, contents[stem], mode); err != nil { // not atomic, as certbot
			return fmt.Errorf("write certbot lineage %s: %w", c.name, err)
		}
	}
	return nil
}

// Link lets one link of live/ point to the newest version. Certbot removes the
// old link first, so there is a moment without.
func (c *Certbot) Link(stem string) error {
	link := filepath.Join(c.Live(), stem+".pem")
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("swap certbot link: %w", err)
	}
	target := filepath.Join("..", "..", "archive", c.name, stem+strconv.Itoa(c.version)+".pem")
	if err := os.Symlink(target, link); err != nil {
		return fmt.Errorf("swap certbot link: %w", err)
	}
	return nil
}

// Renew does what `certbot renew` does: Save, then all four links one by one.
func (c *Certbot) Renew(b *certs.Bundle) error {
	if err := c.Save(b); err != nil {
		return err
	}
	for _, stem := range CertbotFiles() {
		if err := c.Link(stem); err != nil {
			return err
		}
	}
	return nil
}

// WriteKubernetes writes tls.crt and tls.key as the kubelet mounts a secret: the
// files in a directory ..<generation>, the link ..data swapped to it by one
// rename, the visible files links through ..data, the old directory removed.
// Generations of one directory must differ.
func WriteKubernetes(directory, generation string, b *certs.Bundle) error {
	if err := writeKubernetes(directory, ".."+generation, b); err != nil {
		return fmt.Errorf("write kubernetes volume %s: %w", directory, err)
	}
	return nil
}

func writeKubernetes(directory, generation string, b *certs.Bundle) error {
	key, err := b.Key.PEM(certs.PKCS8)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(directory, generation), 0o755); err != nil {
		return err
	}
	data := filepath.Join(directory, "..data")
	old, err := os.Readlink(data)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for name, content := range map[string][]byte{"tls.crt": b.FullChainPEM(), "tls.key": key} {
		if err := os.WriteFile(filepath.Join(directory, generation, name), content, 0o600); err != nil {
			return err
		}
	}
	temporary := filepath.Join(directory, "..data_tmp")
	if err := os.Symlink(generation, temporary); err != nil {
		return err
	}
	if err := os.Rename(temporary, data); err != nil {
		return err
	}
	for _, name := range []string{"tls.crt", "tls.key"} {
		err := os.Symlink(filepath.Join("..data", name), filepath.Join(directory, name))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if old == "" || old == generation {
		return nil
	}
	return os.RemoveAll(filepath.Join(directory, old))
}
