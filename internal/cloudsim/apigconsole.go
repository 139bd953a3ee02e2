package cloudsim

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// What a test may look at in APIG, and what a person does there in the web console.

// APIGCertificateInfo is a certificate of APIG, without its key.
type APIGCertificateInfo struct {
	ID           string    `json:"id"`
	Name         string    `json:"name"`
	InstanceID   string    `json:"instance_id"` // gateway; "" for a global one
	Algorithm    string    `json:"algorithm"`   // RSA or ECC
	Fingerprint  string    `json:"fingerprint"` // lower-case hex SHA-256 of the leaf
	HasTrustedCA bool      `json:"has_trusted_ca"`
	Created      time.Time `json:"created"`
	Updated      time.Time `json:"updated"`
	Domains      []string  `json:"domains"` // names of the domains that are bound to it; twice when on two gateways
}

// DomainInfo is a domain of an API group.
type DomainInfo struct {
	ID                 string             `json:"id"`       // of its first port
	PortIDs            []string           `json:"port_ids"` // of every port
	Name               string             `json:"name"`
	InstanceID         string             `json:"instance_id"` // gateway
	GroupID            string             `json:"group_id"`
	Certificates       []BoundCertificate `json:"certificates"` // ECC first
	ClientVerification bool               `json:"client_verification"`
	HasTrustedCA       bool               `json:"has_trusted_ca"` // every certificate has one
	MinTLS             string             `json:"min_tls"`
	Served             [][]string         `json:"served"`          // fingerprints that each edge serves now, ECC first
	AsksForClient      []bool             `json:"asks_for_client"` // whether each edge verifies clients now
}

// BoundCertificate is a certificate of a domain.
type BoundCertificate struct {
	ID          string `json:"id"`
	Algorithm   string `json:"algorithm"`
	Fingerprint string `json:"fingerprint"`
}

// APIGCertificates are all certificates of APIG in the order of creation.
func (s *Sim) APIGCertificates() []APIGCertificateInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []APIGCertificateInfo
	for _, cert := range s.apig.certs {
		info := APIGCertificateInfo{
			ID: cert.id, Name: cert.name, InstanceID: cert.instanceID, Algorithm: cert.algorithm(),
			Fingerprint: cert.material.fingerprint(), HasTrustedCA: len(cert.trusted) > 0,
			Created: cert.created, Updated: cert.updated, Domains: []string{},
		}
		for _, domain := range s.apig.boundDomains(cert) {
			info.Domains = append(info.Domains, domain.name)
		}
		all = append(all, info)
	}
	return all
}

// Domains are all domains of all gateways in the order of Config.Gateways.
func (s *Sim) Domains() []DomainInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []DomainInfo
	for _, domain := range s.apig.domains() {
		info := DomainInfo{
			ID: domain.ports[0].id, PortIDs: domain.ids(), Name: domain.name, InstanceID: domain.group.gateway.id,
			GroupID: domain.group.id, ClientVerification: domain.verify, HasTrustedCA: domain.hasTrustedCA(),
			MinTLS: domain.minTLS, Certificates: []BoundCertificate{},
		}
		for _, cert := range domain.certificates() {
			info.Certificates = append(info.Certificates, BoundCertificate{cert.id, cert.algorithm(), cert.material.fingerprint()})
		}
		for i := range s.cfg.Edges {
			state := domain.stateAt(s.now(), s.edgeDelay(i))
			info.Served = append(info.Served, append([]string{}, state.fingerprints...))
			info.AsksForClient = append(info.AsksForClient, state.clientCAs != nil)
		}
		all = append(all, info)
	}
	return all
}

// ConsoleAPIGUpload is a person uploading a certificate to APIG: to one gateway, or for all when instanceID is "".
func (s *Sim) ConsoleAPIGUpload(cert GatewayCertificate, instanceID string) (id string, err error) {
	form, err := uploadedForm(cert, instanceID, s.now())
	if err != nil {
		return "", fmt.Errorf("console upload: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if instanceID != "" && s.apig.gateway(instanceID) == nil {
		return "", fmt.Errorf("console upload: gateway %q does not exist", instanceID)
	}
	added := s.addAPIGCertificate(form, s.now())
	s.noteConsole("APIGUpload", Entry{Objects: []string{added.id}, Fingerprint: form.material.fingerprint(), Name: form.name})
	return added.id, nil
}

// ConsoleAPIGBind is a person choosing another certificate for a domain, on every gateway that has the domain and may
// use the certificate. Clients are verified from then on if the certificate has a trusted CA, else not.
func (s *Sim) ConsoleAPIGBind(domainName, certificateID string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	cert := s.apig.certificate(certificateID)
	if cert == nil {
		return fmt.Errorf("console bind: certificate %q does not exist", certificateID)
	}
	domains := slices.DeleteFunc(s.apig.domains(), func(d *apigDomain) bool {
		return d.name != domainName || cert.instanceID != "" && d.group.gateway.id != cert.instanceID
	})
	if len(domains) == 0 {
		return fmt.Errorf("console bind: domain %q does not exist", domainName)
	}
	for _, domain := range domains {
		if refusal, ok := domain.checkAttach(cert, false); !ok {
			return errors.New("console bind: " + refusal.message)
		}
	}
	touched := []string{cert.id}
	for _, domain := range domains {
		domain.attach(cert, nil, s.now())
		touched = append(touched, domain.ids()...)
	}
	s.noteConsole("APIGBind", Entry{Objects: touched})
	return nil
}

// ConsoleAPIGDelete is a person deleting a certificate that no domain uses.
func (s *Sim) ConsoleAPIGDelete(certificateID string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	cert := s.apig.certificate(certificateID)
	if cert == nil {
		return fmt.Errorf("console delete: certificate %q does not exist", certificateID)
	}
	if refusal, ok := s.removeAPIGCertificate(cert); !ok {
		return errors.New("console delete: " + refusal.message)
	}
	s.noteConsole("APIGDelete", Entry{Objects: []string{cert.id}})
	return nil
}
