package certs

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// InfoOf condenses a certificate.
func InfoOf(c *x509.Certificate) Info {
	info := Info{
		Fingerprint:  FingerprintOf(c),
		SubjectCN:    c.Subject.CommonName,
		IssuerCN:     c.Issuer.CommonName,
		Names:        sortedNames(c),
		KeyAlgorithm: KeyAlgorithm(c.PublicKey),
		NotBefore:    c.NotBefore,
		NotAfter:     c.NotAfter,
	}
	if c.SerialNumber != nil {
		info.SerialNumber = c.SerialNumber.Text(16)
	}
	return info
}

// Info condenses the bundle's leaf.
func (b *Bundle) Info() Info { return InfoOf(b.Leaf) }

// KeyAlgorithm names a public key's algorithm and size as Info does: RSA2048,
// EC256, Ed25519.
func KeyAlgorithm(public any) string {
	switch key := public.(type) {
	case *rsa.PublicKey:
		switch bits := key.N.BitLen(); bits {
		case 2048: // constants cost nothing to keep 100,000 times
			return "RSA2048"
		case 4096:
			return "RSA4096"
		default:
			return "RSA" + strconv.Itoa(bits)
		}
	case *ecdsa.PublicKey:
		switch bits := key.Curve.Params().BitSize; bits {
		case 256:
			return "EC256"
		case 384:
			return "EC384"
		default:
			return "EC" + strconv.Itoa(bits)
		}
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return fmt.Sprintf("%T", public)
}

// sortedNames lists the subject alternative names as Info.Names promises.
func sortedNames(c *x509.Certificate) []string {
	total := len(c.DNSNames) + len(c.IPAddresses) + len(c.EmailAddresses) + len(c.URIs)
	if total == 0 {
		return nil
	}
	names := make([]string, 0, total)
	for _, name := range c.DNSNames {
		names = append(names, strings.ToLower(name))
	}
	slices.Sort(names)
	from := len(names)
	for _, address := range c.IPAddresses {
		names = append(names, address.String())
	}
	slices.Sort(names[from:])
	from = len(names)
	names = append(names, c.EmailAddresses...)
	slices.Sort(names[from:])
	from = len(names)
	for _, uri := range c.URIs {
		names = append(names, uri.String())
	}
	slices.Sort(names[from:])
	return slices.Compact(names)
}

// PrimaryName is the name under which successive versions of a certificate are
// recognised: the common name if it is among the alternative names, else the
// first DNS name in the certificate's own order, else the first IP address, URI
// or mail address, else the common name. Lower case; empty if there is none.
func PrimaryName(c *x509.Certificate) string {
	commonName := strings.ToLower(c.Subject.CommonName)
	var first string
	for _, name := range namesInOrder(c) {
		name = strings.ToLower(name)
		if name == "" {
			continue
		}
		if name == commonName {
			return name
		}
		if first == "" {
			first = name
		}
	}
	if first != "" {
		return first
	}
	return commonName
}

func namesInOrder(c *x509.Certificate) []string {
	names := slices.Clone(c.DNSNames)
	for _, address := range c.IPAddresses {
		names = append(names, address.String())
	}
	for _, uri := range c.URIs {
		names = append(names, uri.String())
	}
	return append(names, c.EmailAddresses...)
}

// CoversHost reports whether the bundle's leaf may serve host.
func (b *Bundle) CoversHost(host string) bool { return covers(sortedNames(b.Leaf), host) }

// Covers reports whether one of the names covers host, by the rules of RFC 9525:
// a wildcard stands for exactly one, the left-most, label; common names do not
// count. A host may itself be a wildcard, as a WAF host may; only an equal name
// covers it. Case and one trailing dot do not matter.
func (i Info) Covers(host string) bool { return covers(i.Names, host) }

func covers(names []string, host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "" || strings.ContainsAny(host, "@/") { // neither mail address nor URI
		return false
	}
	if address, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return slices.ContainsFunc(names, func(name string) bool {
			other, err := netip.ParseAddr(name)
			return err == nil && other.Unmap() == address.Unmap()
		})
	}
	label, rest, dotted := strings.Cut(host, ".")
	wildcard := dotted && label != "" && label != "*" && rest != ""
	for _, name := range names {
		name = strings.TrimSuffix(name, ".")
		if name == host || wildcard && strings.HasPrefix(name, "*.") && name[2:] == rest {
			return true
		}
	}
	return false
}
