package cloudsim

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"strings"
	"time"
)

// What APIG takes as PEM: reference 7.3 and the codes 2101 to 2109 and 3148 of 6.3.

// apigLatestExpiry is the last second that the service can store (APIG.3148).
var apigLatestExpiry = time.Date(2038, 1, 19, 3, 14, 7, 0, time.UTC)

// parseAPIGPair checks everything that can be checked without a domain. PKCS#8 is fine: the example of [S001] sends it.
func parseAPIGPair(content, key string, now time.Time) (*material, answer, bool) {
	bad := func(code, message string) (*material, answer, bool) { return nil, refuse(400, code, message), false }
	chain, err := parseCertificates(content)
	if err != nil {
		return bad(codeAPIGInvalid, "Invalid certificate: "+err.Error())
	}
	if strings.Contains(key, "ENCRYPTED") {
		return bad(codeAPIGEncrypted, "The private key is encrypted")
	}
	signer, err := parseKey(key, true)
	if err != nil {
		return bad(codeAPIGInvalid, "Invalid private key: "+err.Error())
	}
	m := newMaterial(content, key, chain, signer)
	leaf := chain[0]
	switch {
	case !inOrder(chain):
		return bad(codeAPIGOrder, "The certificate chain is not in order: leaf first, then each one's issuer")
	case algorithmOf(leaf) == "":
		return bad(codeAPIGInvalid, "The certificate's key is neither RSA nor ECDSA")
	case !m.matches:
		return bad(codeAPIGKeyMismatch, "The certificate and the private key do not match")
	case now.After(leaf.NotAfter):
		return bad(codeAPIGExpired, "The certificate has expired")
	case leaf.NotAfter.After(apigLatestExpiry):
		return bad(codeAPIGExpiry2038, "The certificate expires after 2038-01-19 03:14:07 UTC")
	case len(sans(leaf)) == 0:
		return bad(codeAPIGNoSAN, "The certificate has no subject alternative name")
	}
	return m, answer{}, true
}

// inOrder is strict: each certificate is signed by the next one.
func inOrder(chain []*x509.Certificate) bool {
	for i, cert := range chain[1:] {
		if chainOrder(chain) != nil || chain[i].CheckSignatureFrom(cert) != nil {
			return false
		}
	}
	return true
}

// parseTrustedCAs reads trusted_root_ca, "PEM CA(s) for client authentication" [S001].
func parseTrustedCAs(text string) ([]*x509.Certificate, answer, bool) {
	if text == "" {
		return nil, answer{}, true
	}
	cas, err := parseCertificates(text)
	if err != nil {
		return nil, refuse(400, codeAPIGInvalid, "Invalid trusted_root_ca: "+err.Error()), false
	}
	for _, ca := range cas {
		if !ca.IsCA || algorithmOf(ca) == "" {
			return nil, refuse(400, codeAPIGInvalid, "Invalid trusted_root_ca: a certificate in it is no CA"), false
		}
	}
	return cas, answer{}, true
}

// algorithmOf is the algorithm_type of a certificate, "" for one that is not taken (reference 7.3: RSA and ECDSA).
func algorithmOf(cert *x509.Certificate) string {
	switch cert.PublicKey.(type) {
	case *rsa.PublicKey:
		return algorithmRSA
	case *ecdsa.PublicKey:
		return algorithmECC
	}
	return ""
}

// sans is the san member: DNS names, then addresses.
func sans(cert *x509.Certificate) []string {
	names := append([]string{}, cert.DNSNames...)
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	return names
}

// covers tells whether a certificate fits a domain (APIG.2103). A wildcard domain needs the same wildcard.
func covers(cert *x509.Certificate, domain string) bool { return cert.VerifyHostname(domain) == nil }
