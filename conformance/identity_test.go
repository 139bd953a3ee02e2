package conformance

import (
	"crypto/x509"
	"net/http"
	"testing"
	"time"

	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/auth/global"
	identitycenter "github.com/huaweicloud/huaweicloud-sdk-go-v3/services/identitycenter/v1"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/services/identitycenter/v1/model"

	"github.com/rotatord/rotatord/internal/cloudsim"
)

const (
	ssoInstance    = "ins-0123456789abcdef"
	ssoApplication = "app-ins-0123456789abcdef"
	ssoUnknown     = "cer-00000000-0000-4000-8000-000000000000"
)

// sso is a simulated Identity Center, driven by the official SDK.
type sso struct {
	sim    *cloudsim.Sim
	client *identitycenter.IdentityCenterClient
}

func newSSO(t *testing.T, cfg cloudsim.Config) *sso {
	t.Helper()
	cfg.Instances = []cloudsim.IdentityInstance{{ID: ssoInstance, Applications: []cloudsim.Application{
		{ID: ssoApplication, Name: "Jira", CertificateLimit: 4}, {Name: "Wiki"},
	}}}
	s := &sso{}
	sim, credentials, httpConfig := startAccount(t, cfg)
	client, err := identitycenter.IdentityCenterClientBuilder().WithEndpoint(sim.URL()).WithCredential(credentials).WithHttpConfig(httpConfig).SafeBuild()
	if err != nil {
		t.Fatal(err)
	}
	s.sim, s.client = sim, identitycenter.NewIdentityCenterClient(client)
	return s
}

func (s *sso) create() (*model.CreateApplicationInstanceCertificateResponse, error) {
	return s.client.CreateApplicationInstanceCertificate(&model.CreateApplicationInstanceCertificateRequest{
		InstanceId: ssoInstance, ApplicationInstanceId: ssoApplication,
	})
}

func (s *sso) mustCreate(t *testing.T) *model.CertificateDto {
	t.Helper()
	made, err := s.create()
	if err != nil {
		t.Fatal(err)
	}
	if made.HttpStatusCode != http.StatusCreated {
		t.Errorf("status %d", made.HttpStatusCode)
	}
	return made.ApplicationInstanceCertificate
}

func (s *sso) activate(id string) (*model.UpdateApplicationInstanceActiveCertificateResponse, error) {
	return s.client.UpdateApplicationInstanceActiveCertificate(&model.UpdateApplicationInstanceActiveCertificateRequest{
		InstanceId: ssoInstance, ApplicationInstanceId: ssoApplication, CertificateId: id,
	})
}

func (s *sso) remove(id string) (*model.DeleteApplicationInstanceCertificateResponse, error) {
	return s.client.DeleteApplicationInstanceCertificate(&model.DeleteApplicationInstanceCertificateRequest{
		InstanceId: ssoInstance, ApplicationInstanceId: ssoApplication, CertificateId: id,
	})
}

func (s *sso) list(limit int32, marker *string) (*model.ListApplicationInstanceCertificatesResponse, error) {
	return s.client.ListApplicationInstanceCertificates(&model.ListApplicationInstanceCertificatesRequest{
		InstanceId: ssoInstance, ApplicationInstanceId: ssoApplication, Limit: &limit, Marker: marker,
	})
}

func TestIdentityCertificateLife(t *testing.T) {
	for _, misbehave := range []bool{false, true} {
		s := newSSO(t, cloudsim.Config{Misbehave: misbehave, Seed: 5})
		old := s.sim.Applications()[0].Certificates[0]
		made := s.mustCreate(t)
		cert := leafOf(t, &made.Certificate)
		if made.Status.Value() != "INACTIVE" || made.Algorithm != "SHA256withRSA" || made.KeySize != "2048" || made.IssueDate != cert.NotBefore.UnixMilli() ||
			made.ExpiryDate != cert.NotAfter.UnixMilli() || cert.SignatureAlgorithm != x509.SHA256WithRSA || !cert.NotAfter.Equal(cert.NotAfter.Truncate(24*time.Hour)) {
			t.Errorf("made %+v", made)
		}

		seen := map[string]string{}
		var marker *string
		for pages := 0; ; pages++ {
			listed, err := s.list(1, marker)
			if err != nil || pages > 2 {
				t.Fatal(pages, err)
			}
			row := (*listed.ApplicationInstanceCertificates)[0]
			seen[row.CertificateId] = row.Status.Value()
			if listed.PageInfo.NextMarker == "" { // null
				break
			}
			if *listed.PageInfo.CurrentCount != 1 || len(listed.PageInfo.NextMarker) != 24 {
				t.Errorf("page %+v", listed.PageInfo)
			}
			marker = &listed.PageInfo.NextMarker
		}
		if len(seen) != 2 || seen[old.ID] != "ACTIVE" || seen[made.CertificateId] != "INACTIVE" {
			t.Errorf("listed %v", seen)
		}

		activated, err := s.activate(made.CertificateId)
		if err != nil || activated.HttpStatusCode != http.StatusOK || activated.ApplicationInstanceCertificate.Status.Value() != "ACTIVE" {
			t.Errorf("activated %v, %v", activated, err)
		}
		shown, err := s.client.GetApplicationInstance(&model.GetApplicationInstanceRequest{InstanceId: ssoInstance, ApplicationInstanceId: ssoApplication})
		if err != nil {
			t.Fatal(err)
		}
		app := shown.ApplicationInstance
		if app.ActiveCertificate.CertificateId != made.CertificateId || app.Name != "Jira" || app.Status.Value() != "ENABLED" || !app.Visible || app.SecurityConfig.Ttl != "P5Y" ||
			app.IdentityProviderConfig.MetadataUrl == "" || app.Display.DisplayName != "Jira" || app.Template.SsoProtocol != "SAML" || len(app.ServiceProviderConfig.Consumers) != 1 ||
			app.ResponseConfig.Ttl == "" || app.ResponseSchemaConfig.Subject.Include.Value() != "REQUIRED" {
			t.Errorf("shown %s", app)
		}
		_, err = s.remove(made.CertificateId)
		wantAPIGRefused(t, err, 400, "IIC.1002")
		gone, err := s.remove(old.ID)
		if err != nil || gone.HttpStatusCode != http.StatusOK || len(s.sim.Applications()[0].Certificates) != 1 {
			t.Errorf("deleted %v, %v", gone, err)
		}
	}
}

func TestIdentityInstancesAndTTL(t *testing.T) {
	s := newSSO(t, cloudsim.Config{})
	instances, err := s.client.ListInstances(&model.ListInstancesRequest{Limit: new(int32(10))})
	if err != nil || len(*instances.Instances) != 1 || (*instances.Instances)[0].InstanceId != ssoInstance || (*instances.Instances)[0].IdentityStoreId == "" {
		t.Errorf("instances %v, %v", instances, err)
	}
	apps, err := s.client.ListApplicationInstances(&model.ListApplicationInstancesRequest{InstanceId: ssoInstance})
	if err != nil || len(*apps.ApplicationInstances) != 2 || (*apps.ApplicationInstances)[1].Name != "Wiki" || *apps.PageInfo.CurrentCount != 2 {
		t.Errorf("applications %v, %v", apps, err)
	}
	set := func(ttl string) error {
		_, err := s.client.UpdateApplicationInstanceSecurityConfiguration(&model.UpdateApplicationInstanceSecurityConfigurationRequest{
			InstanceId: ssoInstance, ApplicationInstanceId: ssoApplication,
			Body: &model.UpdateApplicationInstanceSecurityConfigurationReqBody{SecurityConfig: &model.SecurityConfigDto{Ttl: ttl}},
		})
		return err
	}
	if err := set("P6M"); err != nil {
		t.Error(err)
	}
	made := s.mustCreate(t)
	if life := time.UnixMilli(made.ExpiryDate).Sub(time.UnixMilli(made.IssueDate)); life < 179*24*time.Hour || life > 185*24*time.Hour {
		t.Errorf("life %s", life)
	}
	wantAPIGRefused(t, set("P7M"), 400, "IIC.400")
}

func TestIdentityRefused(t *testing.T) {
	s := newSSO(t, cloudsim.Config{})
	_, err := s.activate(ssoUnknown)
	wantAPIGRefused(t, err, 404, "IIC.404")
	_, err = s.remove("cer-x")
	wantAPIGRefused(t, err, 400, "IIC.400")
	_, err = s.list(101, nil)
	wantAPIGRefused(t, err, 400, "IIC.400")
	_, err = s.list(1, new("x"))
	wantAPIGRefused(t, err, 400, "IIC.400")
	for range 3 {
		s.mustCreate(t)
	}
	_, err = s.create()
	wantAPIGRefused(t, err, 409, "IIC.1007")
	for _, f := range []struct {
		name, code string
		status     int
	}{
		{cloudsim.FaultTokenInvalid, "IIC.401", 401},
		{cloudsim.FaultThrottle, "APIGW.0308", 429},
		{cloudsim.FaultBusy, "IIC.1006", 409},
		{cloudsim.FaultInternal, "IIC.500", 500},
		{cloudsim.FaultUnauthorized, "APIGW.0301", 401},
	} {
		if _, err := s.sim.Faults().Add(cloudsim.Fault{Service: "identity_center", Name: f.name, Count: 1}); err != nil {
			t.Fatal(err)
		}
		_, err := s.list(1, nil)
		wantAPIGRefused(t, err, f.status, f.code)
	}
}

// Another account's domain id is refused, with the message that only this service has.
func TestIdentityOtherAccount(t *testing.T) {
	sim, _, httpConfig := startAccount(t, cloudsim.Config{})
	stranger, err := global.NewCredentialsBuilder().WithAk("AKIDEXAMPLE").WithSk("only-for-tests").WithDomainId(projectID).SafeBuild()
	if err != nil {
		t.Fatal(err)
	}
	client, err := identitycenter.IdentityCenterClientBuilder().WithEndpoint(sim.URL()).WithCredential(stranger).WithHttpConfig(httpConfig).SafeBuild()
	if err != nil {
		t.Fatal(err)
	}
	_, err = identitycenter.NewIdentityCenterClient(client).ListInstances(&model.ListInstancesRequest{})
	wantAPIGRefused(t, err, 403, "IIC.1001")
}
