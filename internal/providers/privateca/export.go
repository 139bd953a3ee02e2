package privateca

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"slices"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
)

// exported is the public part of what Export returns.
type exported struct {
	leaf *x509.Certificate
	// chain are the intermediates, the leaf's issuer first. A root is left out.
	chain []*x509.Certificate
	// problem is what is wrong with the chain, in words; empty for nothing.
	problem string
}

func (e exported) bundle() *certs.Bundle { return &certs.Bundle{Leaf: e.leaf, Chain: e.chain} }

// export fetches a certificate with its chain and the key, which is zero where the
// service has none. The text of the key is wiped.
func (i *Issuer) export(ctx context.Context, id string) (exported, certs.PrivateKey, error) {
	answer, err := i.exportCertificate(ctx, id)
	defer answer.Key.wipe()
	if err != nil {
		return exported{}, certs.PrivateKey{}, err
	}
	refuse := func(why string) error {
		return fail(providers.KindUnavailable, "export private certificate "+id, "%s", why)
	}
	e, err := parseExport(string(answer.Certificate), string(answer.Chain))
	if err != nil {
		return exported{}, certs.PrivateKey{}, refuse(err.Error())
	}
	key, err := parseKey(answer.Key)
	if err != nil {
		return exported{}, certs.PrivateKey{}, refuse(err.Error())
	}
	if e.problem == "" { // the answer may have been cut short
		i.memory.keepExport(id, e)
	}
	return e, key, nil
}

// public is export without the key, from memory if that has it.
func (i *Issuer) public(ctx context.Context, id string) (exported, error) {
	if e, ok := i.memory.export(id); ok {
		return e, nil
	}
	e, _, err := i.export(ctx, id)
	return e, err
}

// parseExport reads the certificate and the chain of an answer. Its error quotes nothing
// of them.
func parseExport(certificate, chain string) (exported, error) {
	contents, problems := certs.ParsePEM([]byte(certificate), nil)
	if len(problems) > 0 {
		return exported{}, fmt.Errorf("the certificate of the answer: %s", problems[0].Reason)
	}
	if len(contents.Certificates) == 0 {
		return exported{}, fmt.Errorf("the answer has no certificate")
	}
	leaf := contents.Certificates[0].Certificate
	rest := contents.Certificates[1:] // as NGINX wants it
	if chain != "" {
		more, problems := certs.ParsePEM([]byte(chain), nil)
		if len(problems) > 0 {
			return exported{}, fmt.Errorf("the chain of the answer: %s", problems[0].Reason)
		}
		rest = append(rest, more.Certificates...)
	}
	e := exported{leaf: leaf}
	var authorities []*x509.Certificate
	for _, b := range rest {
		if c := b.Certificate; !c.Equal(leaf) && !slices.ContainsFunc(authorities, c.Equal) {
			authorities = append(authorities, c)
		}
	}
	e.chain, e.problem = orderChain(leaf, authorities)
	return e, nil
}

// orderChain puts the authorities in the order in which they signed. The root, which no
// peer needs, is looked at and left out.
func orderChain(leaf *x509.Certificate, authorities []*x509.Certificate) (chain []*x509.Certificate, problem string) {
	current, rest := leaf, slices.Clone(authorities)
	for len(rest) > 0 {
		at := slices.IndexFunc(rest, func(c *x509.Certificate) bool {
			return bytes.Equal(current.RawIssuer, c.RawSubject) && current.CheckSignatureFrom(c) == nil
		})
		if at < 0 {
			return chain, fmt.Sprintf("certificate %q of the chain did not sign %q, or anything that leads there", rest[0].Subject.CommonName, current.Subject.CommonName)
		}
		current = rest[at]
		rest = slices.Delete(rest, at, at+1)
		if !isRoot(current) {
			chain = append(chain, current)
		}
	}
	if current == leaf {
		return nil, "nobody's certificate came with it who has signed it"
	}
	return chain, ""
}

// isRoot reports whether the certificate names itself as issuer, as package certs does.
func isRoot(c *x509.Certificate) bool {
	return bytes.Equal(c.RawIssuer, c.RawSubject) &&
		(len(c.AuthorityKeyId) == 0 || len(c.SubjectKeyId) == 0 || bytes.Equal(c.AuthorityKeyId, c.SubjectKeyId))
}

// parseKey reads the key of an answer; the zero key for none.
func parseKey(text secret) (certs.PrivateKey, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return certs.PrivateKey{}, nil
	}
	contents, problems := certs.ParsePEM(text, nil)
	if len(problems) > 0 {
		return certs.PrivateKey{}, fmt.Errorf("the private key of the answer: %s", problems[0].Reason)
	}
	if len(contents.Keys) != 1 {
		return certs.PrivateKey{}, fmt.Errorf("the answer has %d private keys", len(contents.Keys))
	}
	return contents.Keys[0].Key, nil
}
