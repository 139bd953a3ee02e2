package file

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/rotatord/rotatord/internal/certs"
)

// form is what a file holds.
type form string

const (
	formCertificate form = "certificate"
	formChain       form = "chain"
	formFullChain   form = "full_chain"
	formKey         form = "key"
	formCombined    form = "combined"
	formPKCS12      form = "pkcs12"
)

func (f form) hasLeaf() bool { return f != formChain && f != formKey }
func (f form) hasKey() bool  { return f == formKey || f == formCombined || f == formPKCS12 }

type wantedFile struct {
	form form
	name string
}

func wantedFiles(cfg Config) []wantedFile {
	var files []wantedFile
	for _, f := range []wantedFile{
		// The leaf is known before the keys that must belong to it.
		{formCertificate, cfg.Certificate}, {formFullChain, cfg.FullChain}, {formCombined, cfg.Combined},
		{formPKCS12, cfg.PKCS12}, {formChain, cfg.Chain}, {formKey, cfg.Key},
	} {
		if f.name != "" {
			files = append(files, f)
		}
	}
	return files
}

func (t *Target) modeOf(f form) os.FileMode {
	if f.hasKey() {
		return t.mode
	}
	return publicMode
}

// wantsKey reports whether one of the files holds the key.
func (t *Target) wantsKey() bool {
	for _, f := range t.files {
		if f.form.hasKey() {
			return true
		}
	}
	return false
}

// encode writes a bundle in one form. A PKCS #12 file is another one each time.
func (t *Target) encode(f form, b *certs.Bundle) ([]byte, error) {
	switch f {
	case formCertificate:
		return b.CertificatePEM(), nil
	case formChain:
		return b.ChainPEM(), nil
	case formFullChain:
		return b.FullChainPEM(), nil
	case formKey:
		return b.Key.PEM(certs.PKCS8)
	case formCombined:
		key, err := b.Key.PEM(certs.PKCS8)
		return append(b.FullChainPEM(), key...), err
	case formPKCS12:
		if b.Key.IsZero() {
			return nil, errors.New("encode PKCS #12: there is no key")
		}
		password, err := t.askPassword()
		if err != nil {
			return nil, err
		}
		data, err := pkcs12.Modern2023.Encode(b.Key.Signer(), b.Leaf, b.Chain, password)
		if err != nil {
			return nil, errors.New("encode PKCS #12: key or password do not fit the format")
		}
		return data, nil
	}
	return nil, fmt.Errorf("encode: unknown form %q", f)
}

func (t *Target) askPassword() (string, error) {
	password, err := t.password()
	if err != nil {
		return "", fmt.Errorf("password of the PKCS #12 file: %w", err)
	}
	return password, nil
}

// holds reports whether data is the bundle in that form, however it is written.
func (t *Target) holds(f form, data []byte, b *certs.Bundle) bool {
	got, err := t.decode(f, data)
	switch {
	case err != nil,
		f.hasLeaf() && !got.Leaf.Equal(b.Leaf),
		f.hasKey() && !got.Key.Matches(b.Leaf):
		return false
	case f == formCertificate, f == formKey:
		return true
	}
	return slices.EqualFunc(got.Chain, b.Chain, (*x509.Certificate).Equal)
}

// decode reads one file. The bundle has what the form has: a key alone, a chain
// alone, a leaf with or without either.
func (t *Target) decode(f form, data []byte) (*certs.Bundle, error) {
	if f == formPKCS12 {
		return t.decodePKCS12(data)
	}
	contents, problems := certs.ParsePEM(data, nil)
	if len(problems) > 0 && len(bytes.TrimSpace(data)) > 0 { // a chain may be empty
		return nil, problems[0]
	}
	b := new(certs.Bundle)
	list := make([]*x509.Certificate, 0, len(contents.Certificates))
	for _, c := range contents.Certificates {
		list = append(list, c.Certificate)
	}
	if f.hasLeaf() && len(list) > 0 {
		b.Leaf, list = list[0], list[1:]
	}
	b.Chain = list
	if f.hasKey() && len(contents.Keys) > 0 {
		b.Key = contents.Keys[0].Key
	}
	if f.hasLeaf() && b.Leaf == nil {
		return nil, errors.New("holds no certificate")
	}
	if f.hasKey() && b.Key.IsZero() {
		return nil, errors.New("holds no private key")
	}
	return b, nil
}

func (t *Target) decodePKCS12(data []byte) (*certs.Bundle, error) {
	password, err := t.askPassword()
	if err != nil {
		return nil, err
	}
	key, leaf, chain, err := pkcs12.DecodeChain(data, password)
	if err != nil {
		return nil, errors.New("is no PKCS #12 file that the password opens")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("holds no usable private key")
	}
	wrapped, err := certs.NewPrivateKey(signer)
	if err != nil {
		return nil, errors.New("holds no usable private key")
	}
	return &certs.Bundle{Leaf: leaf, Chain: chain, Key: wrapped}, nil
}

// reading is what a set of files says together.
type reading struct {
	// bundle is what the files that are there agree upon; nil where they do not.
	bundle *certs.Bundle
	// leaf is of the first file that tells one, also where the files do not agree.
	leaf *x509.Certificate
	// missing are the files that are not there.
	missing []wantedFile
	// err is why the files do not agree.
	err error
}

// complete reports whether all files are there and agree.
func (r reading) complete() bool { return r.bundle != nil && len(r.missing) == 0 }

// read makes sense of files by their names. Keys, as far as the policy wants any,
// must belong to the leaf.
func (t *Target) read(files map[string][]byte) reading {
	var r reading
	var found certs.Bundle
	disagree := func(f wantedFile, err error) {
		if r.err == nil {
			r.err = fmt.Errorf("%s: %w", f.name, err)
		}
	}
	for _, f := range t.files {
		data, ok := files[f.name]
		if !ok {
			r.missing = append(r.missing, f)
			continue
		}
		b, err := t.decode(f.form, data)
		if err != nil {
			disagree(f, err)
			continue
		}
		if f.form.hasLeaf() {
			if found.Leaf == nil {
				found.Leaf = b.Leaf
			} else if !found.Leaf.Equal(b.Leaf) {
				disagree(f, errors.New("is of another certificate than the other files"))
			}
		}
		if len(found.Chain) == 0 {
			found.Chain = b.Chain
		}
		if f.form.hasKey() {
			if found.Leaf != nil && !b.Key.Matches(found.Leaf) {
				disagree(f, errors.New("the key does not belong to the certificate"))
			}
			found.Key = b.Key
		}
	}
	r.leaf = found.Leaf
	if found.Leaf == nil && r.err == nil {
		r.err = errors.New("there is no certificate")
	}
	if found.Leaf != nil && r.err == nil {
		r.bundle = &found
	}
	return r
}
