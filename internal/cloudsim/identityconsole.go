package cloudsim

import (
	"fmt"
	"time"
)

// What a test may look at in Identity Center, and what a person does there in the web console.

// ApplicationInfo is an application instance.
type ApplicationInfo struct {
	InstanceID   string                    `json:"instance_id"`
	ID           string                    `json:"id"`
	Name         string                    `json:"name"`
	Certificates []IdentityCertificateInfo `json:"certificates"` // in the order of creation
}

// IdentityCertificateInfo is a certificate of an application instance.
type IdentityCertificateInfo struct {
	ID          string    `json:"id"`
	Status      string    `json:"status"`      // ACTIVE or INACTIVE
	Fingerprint string    `json:"fingerprint"` // lower-case hex SHA-256
	IssueDate   time.Time `json:"issue_date"`
	ExpiryDate  time.Time `json:"expiry_date"`
	PEM         string    `json:"pem"`
}

// Applications are all application instances in the order of Config.Instances; a list that lags does not show here.
func (s *Sim) Applications() []ApplicationInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []ApplicationInfo
	for _, app := range s.identity.applications() {
		info := ApplicationInfo{InstanceID: app.instance.id, ID: app.id, Name: app.name}
		for _, cert := range app.certs {
			info.Certificates = append(info.Certificates, IdentityCertificateInfo{
				ID: cert.id, Status: app.statusOf(cert), Fingerprint: cert.fingerprint(),
				IssueDate: cert.cert.NotBefore, ExpiryDate: cert.cert.NotAfter, PEM: pemOf(cert.cert),
			})
		}
		all = append(all, info)
	}
	return all
}

func (st *identityState) applications() []*identityApplication {
	var all []*identityApplication
	for _, instance := range st.instances {
		all = append(all, instance.apps...)
	}
	return all
}

func (st *identityState) application(id string) *identityApplication {
	for _, app := range st.applications() {
		if app.id == id {
			return app
		}
	}
	return nil
}

// ConsoleActivate is a person choosing the certificate that signs.
func (s *Sim) ConsoleActivate(applicationID, certificateID string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	app := s.identity.application(applicationID)
	if app == nil {
		return fmt.Errorf("console activate: application instance %q does not exist", applicationID)
	}
	for _, cert := range app.certs {
		if cert.id == certificateID {
			app.active = cert
			s.noteConsole("ActivateIdentity", Entry{Objects: []string{cert.id, app.id}, Fingerprint: cert.fingerprint()})
			return nil
		}
	}
	return fmt.Errorf("console activate: certificate %q does not exist", certificateID)
}

// ConsoleCreate is a person making a certificate; the limit does not hold them back.
func (s *Sim) ConsoleCreate(applicationID string) (id string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	app := s.identity.application(applicationID)
	if app == nil {
		return "", fmt.Errorf("console create: application instance %q does not exist", applicationID)
	}
	cert, err := s.identity.newCertificate(s, app, s.now())
	if err != nil {
		return "", fmt.Errorf("console create: %w", err)
	}
	s.noteConsole("CreateIdentity", Entry{Objects: []string{cert.id, app.id}, Fingerprint: cert.fingerprint()})
	return cert.id, nil
}
