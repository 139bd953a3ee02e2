package certs

import (
	"crypto/x509"
	"fmt"
)

// ReadPool reads a file of PEM certificates that are to be trusted as roots. A file with
// anything broken in it, or without a certificate, is an error: a part of the roots must
// not be taken for all of them, as x509.CertPool.AppendCertsFromPEM would.
func ReadPool(path string) (*x509.CertPool, error) {
	contents, err := loadFile(path, nil)
	if err != nil {
		return nil, fmt.Errorf("read roots: %w", err)
	}
	if len(contents.Certificates) == 0 {
		return nil, fmt.Errorf("roots in %s: there is no certificate", path)
	}
	pool := x509.NewCertPool()
	for _, c := range contents.Certificates {
		pool.AddCert(c.Certificate)
	}
	return pool, nil
}
