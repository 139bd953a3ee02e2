package cloudsim

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// What a test may look at, and what a person does in the web console behind the API's back. Console actions stand in
// the ledger under the service "console".

const serviceConsole = "console"

// CertificateInfo is a certificate of the account, without its key.
type CertificateInfo struct {
	ID                string    `json:"id"`
	Name              string    `json:"name"`
	EnterpriseProject string    `json:"enterprise_project_id"`
	Fingerprint       string    `json:"fingerprint"` // lower-case hex SHA-256 of the leaf
	Created           time.Time `json:"created"`
	Hosts             []string  `json:"hosts"` // names of the hosts that are bound to it
}

// HostInfo is a protected domain.
type HostInfo struct {
	ID            string   `json:"id"`
	Name          string   `json:"name"`
	Kind          string   `json:"kind"` // cloud or premium
	Protocol      string   `json:"protocol"`
	CertificateID string   `json:"certificate_id"`
	Fingerprint   string   `json:"fingerprint"` // of what is bound
	Served        []string `json:"served"`      // fingerprint that each edge serves now, "" for none
	Origins       []Origin `json:"origins"`
	TLS           string   `json:"tls"`
	Cipher        string   `json:"cipher"`
}

// Certificates are all certificates in the order of creation.
func (s *Sim) Certificates() []CertificateInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []CertificateInfo
	for _, cert := range s.waf.certs {
		info := CertificateInfo{
			ID: cert.id, Name: cert.name, EnterpriseProject: cert.eps, Fingerprint: cert.material.fingerprint(),
			Created: cert.created, Hosts: []string{},
		}
		for _, host := range s.waf.boundHosts(cert) {
			info.Hosts = append(info.Hosts, host.name)
		}
		all = append(all, info)
	}
	return all
}

// Hosts are all protected domains in the order of Config.Hosts.
func (s *Sim) Hosts() []HostInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []HostInfo
	for _, host := range s.waf.hosts {
		all = append(all, s.hostInfo(host))
	}
	return all
}

func (s *Sim) hostInfo(host *wafHost) HostInfo {
	info := HostInfo{
		ID: host.id, Name: host.name, Kind: host.wafType(), Protocol: host.protocol,
		Origins: slices.Clone(host.origins), TLS: host.tls, Cipher: host.cipher,
	}
	if n := len(host.bindings); n > 0 {
		info.CertificateID, info.Fingerprint = host.bindings[n-1].certificateID, host.bindings[n-1].fingerprint
	}
	for i := range s.cfg.Edges {
		bound, _ := host.servedAt(s.now(), s.edgeDelay(i))
		info.Served = append(info.Served, bound.fingerprint)
	}
	return info
}

// Bound is the certificate that host is bound to; ok is false for an unknown host and one without a certificate.
func (s *Sim) Bound(host string) (certificateID, fingerprint string, ok bool) {
	for _, info := range s.Hosts() {
		if info.Name == host {
			return info.CertificateID, info.Fingerprint, info.CertificateID != ""
		}
	}
	return "", "", false
}

// HostID is the id of the host called name, "" without one.
func (s *Sim) HostID(name string) string {
	for _, info := range s.Hosts() {
		if info.Name == name {
			return info.ID
		}
	}
	return ""
}

// ConsoleUpload is a person uploading a certificate. Quota and duplicates are refused as by the API; the form of the
// key is not.
func (s *Sim) ConsoleUpload(cert Certificate) (id string, err error) {
	m, err := parseMaterial(string(cert.CertPEM), string(cert.KeyPEM), true)
	if err != nil {
		return "", fmt.Errorf("console upload: %w", err)
	}
	if !s.validName(cert.Name) {
		return "", fmt.Errorf("console upload: the name %q is invalid", cert.Name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	added, refusal, ok := s.addCertificate(upload{name: cert.Name, material: m}, defaultEPS, s.now())
	if !ok {
		return "", errors.New("console upload: " + refusal.message)
	}
	s.noteConsole("Upload", Entry{Objects: []string{added.id}, Fingerprint: m.fingerprint(), Name: cert.Name})
	return added.id, nil
}

// ConsoleBind is a person choosing another certificate for a host.
func (s *Sim) ConsoleBind(hostName, certificateID string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	cert := s.waf.certificate(certificateID)
	if cert == nil {
		return fmt.Errorf("console bind: certificate %q does not exist", certificateID)
	}
	for _, host := range s.waf.hosts {
		if host.name != hostName {
			continue
		}
		if !host.takesCertificate() {
			return fmt.Errorf("console bind: host %q does not speak HTTPS", hostName)
		}
		s.waf.bind(host, cert, s.now())
		s.noteConsole("Bind", Entry{Objects: []string{cert.id, host.id}})
		return nil
	}
	return fmt.Errorf("console bind: host %q does not exist", hostName)
}

// ConsoleDelete is a person deleting a certificate that no host uses.
func (s *Sim) ConsoleDelete(certificateID string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	cert := s.waf.certificate(certificateID)
	if cert == nil {
		return fmt.Errorf("console delete: certificate %q does not exist", certificateID)
	}
	if refusal, ok := s.removeCertificate(cert); !ok {
		return errors.New("console delete: " + refusal.message)
	}
	s.noteConsole("Delete", Entry{Objects: []string{cert.id}})
	return nil
}

func (s *Sim) noteConsole(operation string, e Entry) {
	e.Time, e.Service, e.Operation, e.Status, e.Effect = s.now(), serviceConsole, operation, 200, true
	s.ledger.begin(e)
}
