package cloudsim

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"
)

// What a test may look at in the private CA service, and what a person does there in the web console.

// AuthorityInfo is a CA, without its key.
type AuthorityInfo struct {
	ID             string    `json:"id"`
	CommonName     string    `json:"common_name"`
	Status         string    `json:"status"`
	NotAfter       time.Time `json:"not_after"`
	CertificatePEM string    `json:"certificate_pem"`
	ChainPEM       string    `json:"chain_pem"` // those above it, up to the root; "" for a root
}

// PrivateCertificateInfo is a private certificate, without its key.
type PrivateCertificateInfo struct {
	ID            string            `json:"id"`
	CommonName    string            `json:"common_name"`
	IssuerID      string            `json:"issuer_id"`
	Status        string            `json:"status"`        // ISSUED, REVOKED or EXPIRED
	SerialNumber  string            `json:"serial_number"` // as the API writes it
	Fingerprint   string            `json:"fingerprint"`   // lower-case hex SHA-256
	GenMode       string            `json:"gen_mode"`      // GENERATE or CSR
	NotBefore     time.Time         `json:"not_before"`
	NotAfter      time.Time         `json:"not_after"`
	RevokedReason string            `json:"revoked_reason,omitempty"`
	Tags          map[string]string `json:"tags"`
}

// Authorities are all CAs in the order of Config.Authorities.
func (s *Sim) Authorities() []AuthorityInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []AuthorityInfo
	for _, a := range s.pca.authorities {
		all = append(all, AuthorityInfo{
			ID: a.id, CommonName: a.name.commonName, Status: a.statusAt(s.now()), NotAfter: a.cert.NotAfter,
			CertificatePEM: pemOf(a.cert), ChainPEM: pemOf(a.chain()[1:]...),
		})
	}
	return all
}

// PrivateCertificates are all private certificates in the order of creation; a list that lags does not show here.
func (s *Sim) PrivateCertificates() []PrivateCertificateInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []PrivateCertificateInfo
	for _, p := range s.pca.certs {
		all = append(all, p.info(s.now()))
	}
	return all
}

// ConsoleSetAuthority is a person, or the calendar, changing the status of a CA.
func (s *Sim) ConsoleSetAuthority(id, status string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.pca.authority(id)
	if a == nil {
		return fmt.Errorf("console authority: CA %q does not exist", id)
	}
	if !slices.Contains(authorityStates, status) {
		return fmt.Errorf("console authority: no status is named %q", status)
	}
	a.setStatus(status, s.now())
	s.noteConsole("SetAuthority", Entry{Objects: []string{a.id}})
	return nil
}

// ConsoleRevoke is a person revoking a private certificate, for no stated reason.
func (s *Sim) ConsoleRevoke(certID string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pca.certificate(certID)
	if p == nil {
		return fmt.Errorf("console revoke: certificate %q does not exist", certID)
	}
	if refusal, ok := p.revoke(revocationReasons[0], s.now()); !ok {
		return errors.New("console revoke: " + refusal.message)
	}
	s.noteConsole("RevokePrivate", Entry{Objects: []string{p.id}})
	return nil
}

// ConsoleIssue is somebody else making a server certificate with an EC256 key of the service, valid for a year or as
// long as its CA. names are DNS names and IP addresses.
func (s *Sim) ConsoleIssue(issuerID, commonName string, names ...string) (id string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now().UTC()
	issuer := s.pca.authority(issuerID)
	if issuer == nil {
		return "", fmt.Errorf("console issue: CA %q does not exist", issuerID)
	}
	if status := issuer.statusAt(now); status != authorityActive {
		return "", fmt.Errorf("console issue: the CA is %s", status)
	}
	name := issuer.name
	name.commonName = commonName
	if !name.fields()[0].valid() {
		return "", fmt.Errorf("console issue: the name %q is invalid", commonName)
	}
	template := &x509.Certificate{
		Subject: name.subject(), NotBefore: now.Truncate(time.Second), NotAfter: now.Truncate(time.Second).AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if template.NotAfter.After(issuer.cert.NotAfter) {
		template.NotAfter = issuer.cert.NotAfter
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
			continue
		}
		template.DNSNames = append(template.DNSNames, name)
	}
	p, err := s.issue(issuance{
		issuer: issuer, genMode: genGenerate, keyAlgorithm: keyEC256, hash: "SHA256", name: name, eps: defaultEPS, template: template,
	}, nil, now)
	if err != nil {
		return "", fmt.Errorf("console issue: %w", err)
	}
	s.noteConsole("IssuePrivate", Entry{Objects: []string{p.id}, Fingerprint: p.fingerprint(), Name: commonName})
	return p.id, nil
}

// ConsoleDeletePrivate is a person deleting a private certificate.
func (s *Sim) ConsoleDeletePrivate(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pca.certificate(id)
	if p == nil {
		return fmt.Errorf("console delete: certificate %q does not exist", id)
	}
	s.removePrivate(p)
	s.noteConsole("DeletePrivate", Entry{Objects: []string{p.id}})
	return nil
}
