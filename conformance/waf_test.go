package conformance

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"slices"
	"testing"

	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/auth/basic"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/config"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/sdkerr"
	waf "github.com/huaweicloud/huaweicloud-sdk-go-v3/services/waf/v1"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/services/waf/v1/model"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/cloudsim"
)

const (
	cloudHost     = "shop.example.com"
	plainHost     = "plain.example.com"
	dedicatedHost = "intern.example.com"
	projectID     = "0123456789abcdef0123456789abcdef"
)

// account is a simulated cloud, driven by the official SDK.
type account struct {
	sim    *cloudsim.Sim
	client *waf.WafClient
	ca     *certstest.CA
}

func newAccount(t *testing.T, cfg cloudsim.Config) *account {
	t.Helper()
	ca, err := certstest.NewCA("conformance")
	if err != nil {
		t.Fatal(err)
	}
	a := &account{ca: ca}
	old, key := a.issue(t)
	byHand := cloudsim.Certificate{Name: "by_hand", CertPEM: []byte(old), KeyPEM: []byte(key)}
	cfg.Hosts = []cloudsim.Host{
		{Name: cloudHost, Certificate: byHand, Dedicated: cfg.OpenTelekom},
		{Name: plainHost, Protocol: "HTTP", Dedicated: cfg.OpenTelekom},
		{Name: dedicatedHost, Certificate: byHand, Dedicated: true},
	}
	cfg.AccessKey, cfg.SecretKey, cfg.ProjectID = "AKIDEXAMPLE", "only-for-tests", projectID
	if cfg.CertificateQuota == 0 {
		cfg.CertificateQuota = -1
	}
	if a.sim, err = cloudsim.New(cfg); err != nil {
		t.Fatal(err)
	}
	if err := a.sim.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.sim.Close() })
	a.client = a.login(t, cfg.AccessKey, cfg.SecretKey)
	return a
}

func (a *account) login(t *testing.T, accessKey, secret string) *waf.WafClient {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(a.sim.CAPEM()) {
		t.Fatal("no root")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	credentials, err := basic.NewCredentialsBuilder().WithAk(accessKey).WithSk(secret).WithProjectId(projectID).SafeBuild()
	if err != nil {
		t.Fatal(err)
	}
	client, err := waf.WafClientBuilder().WithEndpoint(a.sim.URL()).WithCredential(credentials).
		WithHttpConfig(config.DefaultHttpConfig().WithHttpTransport(transport)).SafeBuild()
	if err != nil {
		t.Fatal(err)
	}
	return waf.NewWafClient(client)
}

// issue makes a certificate and its key as PEM, as WAF wants them.
func (a *account) issue(t *testing.T) (content, key string) {
	t.Helper()
	b, err := a.ca.Issue(certstest.Options{Names: []string{cloudHost, dedicatedHost}})
	if err != nil {
		t.Fatal(err)
	}
	keyPEM, err := b.Key.PEM(certs.Traditional)
	if err != nil {
		t.Fatal(err)
	}
	return string(b.FullChainPEM()), string(keyPEM)
}

func (a *account) create(t *testing.T, name, content, key string) *model.CreateCertificateResponse {
	t.Helper()
	created, err := a.client.CreateCertificate(&model.CreateCertificateRequest{
		VerifyCertKey: new(true),
		Body:          &model.CreateCertificateRequestBody{Name: name, Content: content, Key: key},
	})
	if err != nil {
		t.Fatal(err)
	}
	if created.Id == nil || len(*created.Id) != 32 || *created.Name != name || *created.ExpireTime < 1e12 || *created.Timestamp < 1e12 {
		t.Fatalf("created %s", created)
	}
	return created
}

func (a *account) show(t *testing.T, id string) *model.ShowCertificateResponse {
	t.Helper()
	shown, err := a.client.ShowCertificate(&model.ShowCertificateRequest{CertificateId: id})
	if err != nil {
		t.Fatal(err)
	}
	return shown
}

// users are the names of the hosts that a certificate is bound to.
func (a *account) users(t *testing.T, id string) []string {
	t.Helper()
	var names []string
	if bound := a.show(t, id).BindHost; bound != nil {
		for _, h := range *bound {
			names = append(names, *h.Hostname)
		}
	}
	slices.Sort(names)
	return names
}

func wantRefused(t *testing.T, err error, status int, codes ...string) {
	t.Helper()
	refused, ok := errors.AsType[*sdkerr.ServiceResponseError](err)
	if !ok {
		t.Errorf("got %v, want a typed error with %v", err, codes)
		return
	}
	if refused.StatusCode != status || !slices.Contains(codes, refused.ErrorCode) {
		t.Errorf("got %d %s (%s), want %d and one of %v", refused.StatusCode, refused.ErrorCode, refused.ErrorMessage, status, codes)
	}
	if refused.ErrorMessage == "" || refused.RequestId == "" {
		t.Errorf("message or request id is missing: %+v", refused)
	}
}

func TestCertificateLife(t *testing.T) {
	a := newAccount(t, cloudsim.Config{})
	content, key := a.issue(t)
	created := a.create(t, "shop_1", content, key)

	shown := a.show(t, *created.Id)
	block, _ := pem.Decode([]byte(*shown.Content))
	want, _ := pem.Decode([]byte(content))
	if block == nil || !slices.Equal(block.Bytes, want.Bytes) || *shown.Name != "shop_1" || shown.Key == nil {
		t.Errorf("shown %s", *shown.Name)
	}
	if *shown.ExpireTime != *created.ExpireTime || *shown.Timestamp != *created.Timestamp {
		t.Errorf("times %d %d, created %d %d", *shown.ExpireTime, *shown.Timestamp, *created.ExpireTime, *created.Timestamp)
	}

	found := map[string]bool{}
	for _, bound := range []bool{true, false} {
		listed, err := a.client.ListCertificates(&model.ListCertificatesRequest{
			Name: new("shop"), Host: &bound, Page: new(int32(1)), Pagesize: new(int32(100)),
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range *listed.Items {
			found[row.Id] = true
		}
	}
	if !found[*created.Id] || len(found) != 1 {
		t.Errorf("listed %v, want %s alone", found, *created.Id)
	}

	content2, key2 := a.issue(t)
	updated, err := a.client.UpdateCertificate(&model.UpdateCertificateRequest{
		CertificateId: *created.Id, Body: &model.UpdateCertificateRequestBody{Name: "shop_2", Content: &content2, Key: &key2},
	})
	if err != nil || *updated.Name != "shop_2" || *updated.Id != *created.Id {
		t.Fatalf("updated %v, %v", updated, err)
	}

	if _, err := a.client.DeleteCertificate(&model.DeleteCertificateRequest{CertificateId: *created.Id}); err != nil {
		t.Fatal(err)
	}
	_, err = a.client.ShowCertificate(&model.ShowCertificateRequest{CertificateId: *created.Id})
	refused, ok := errors.AsType[*sdkerr.ServiceResponseError](err)
	if !ok || refused.ErrorCode != "WAF.00014001" && refused.ErrorCode != "WAF.00022001" {
		t.Errorf("after the deletion: %v", err)
	}
}

func TestApplyToHosts(t *testing.T) {
	a := newAccount(t, cloudsim.Config{})
	content, key := a.issue(t)
	created := a.create(t, "shop_1", content, key)
	cloudID, dedicatedID := a.hostIDs(t)

	// Both lists in one body.
	applied, err := a.client.ApplyCertificateToHost(&model.ApplyCertificateToHostRequest{
		CertificateId: *created.Id,
		Body: &model.ApplyCertificateToHostRequestBody{
			CloudHostIds: &[]string{cloudID}, PremiumHostIds: &[]string{dedicatedID},
		},
	})
	if err != nil || applied.BindHost == nil || len(*applied.BindHost) != 2 {
		t.Fatalf("applied %v, %v", applied, err)
	}
	if got := a.users(t, *created.Id); !slices.Equal(got, []string{dedicatedHost, cloudHost}) {
		t.Errorf("bound to %v", got)
	}
	a.wantShown(t, cloudID, dedicatedID, *created.Id)

	// Bound, it can neither be changed nor deleted.
	content2, key2 := a.issue(t)
	_, err = a.client.UpdateCertificate(&model.UpdateCertificateRequest{
		CertificateId: *created.Id, Body: &model.UpdateCertificateRequestBody{Name: "shop_1", Content: &content2, Key: &key2},
	})
	wantRefused(t, err, 400, "WAF.00022003")
	_, err = a.client.DeleteCertificate(&model.DeleteCertificateRequest{CertificateId: *created.Id})
	wantRefused(t, err, 400, "WAF.00022003")

	// The one by hand is free now.
	for _, c := range a.sim.Certificates() {
		if c.Name == "by_hand" {
			if _, err := a.client.DeleteCertificate(&model.DeleteCertificateRequest{CertificateId: c.ID}); err != nil {
				t.Error(err)
			}
		}
	}

	// A host that does not speak HTTPS takes none.
	_, err = a.client.ApplyCertificateToHost(&model.ApplyCertificateToHostRequest{
		CertificateId: *created.Id,
		Body:          &model.ApplyCertificateToHostRequestBody{CloudHostIds: &[]string{a.sim.HostID(plainHost)}},
	})
	if refused, ok := errors.AsType[*sdkerr.ServiceResponseError](err); !ok || refused.StatusCode != http.StatusBadRequest {
		t.Errorf("a plain host: %v", err)
	}
}

// hostIDs finds a cloud and a dedicated host through the lists.
func (a *account) hostIDs(t *testing.T) (cloud, dedicated string) {
	t.Helper()
	hosts, err := a.client.ListHost(&model.ListHostRequest{Hostname: new(cloudHost), Page: new(int32(1)), Pagesize: new(int32(100))})
	if err != nil || hosts.Items == nil || len(*hosts.Items) != 1 || *hosts.Total != 1 {
		t.Fatalf("cloud hosts %v, %v", hosts, err)
	}
	// Here page and pagesize are strings.
	premium, err := a.client.ListPremiumHost(&model.ListPremiumHostRequest{Hostname: new(dedicatedHost), Page: new("1"), Pagesize: new("100")})
	if err != nil || premium.Items == nil || len(*premium.Items) != 1 {
		t.Fatalf("dedicated hosts %v, %v", premium, err)
	}
	return *(*hosts.Items)[0].Id, *(*premium.Items)[0].Id
}

func (a *account) wantShown(t *testing.T, cloudID, dedicatedID, certificateID string) {
	t.Helper()
	cloud, err := a.client.ShowHost(&model.ShowHostRequest{InstanceId: cloudID})
	if err != nil || *cloud.Certificateid != certificateID || *cloud.Hostname != cloudHost || cloud.Server == nil {
		t.Errorf("cloud host %v, %v", cloud, err)
	}
	dedicated, err := a.client.ShowPremiumHost(&model.ShowPremiumHostRequest{HostId: dedicatedID})
	if err != nil || *dedicated.Certificateid != certificateID || *dedicated.Hostname != dedicatedHost {
		t.Errorf("dedicated host %v, %v", dedicated, err)
	}
}

// The fall-back to apply-to-hosts: each host is changed for itself.
func TestUpdateHosts(t *testing.T) {
	a := newAccount(t, cloudsim.Config{EffectNeedsServer: true})
	content, key := a.issue(t)
	created := a.create(t, "shop_1", content, key)
	cloudID, dedicatedID := a.hostIDs(t)

	before, err := a.client.ShowHost(&model.ShowHostRequest{InstanceId: cloudID})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.client.UpdateHost(&model.UpdateHostRequest{InstanceId: cloudID, Body: &model.UpdateHostRequestBody{
		Certificateid: created.Id, Certificatename: created.Name, Server: before.Server,
	}}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.client.UpdatePremiumHost(&model.UpdatePremiumHostRequest{HostId: dedicatedID, Body: &model.UpdatePremiumHostRequestBody{
		Certificateid: created.Id, Certificatename: created.Name,
	}}); err != nil {
		t.Fatal(err)
	}
	a.wantShown(t, cloudID, dedicatedID, *created.Id)

	after, err := a.client.ShowHost(&model.ShowHostRequest{InstanceId: cloudID})
	if err != nil || len(*after.Server) != len(*before.Server) {
		t.Errorf("origins before %v, after %v, %v", before.Server, after, err)
	}
	_, err = a.client.UpdatePremiumHost(&model.UpdatePremiumHostRequest{HostId: dedicatedID, Body: &model.UpdatePremiumHostRequestBody{
		Certificateid: created.Id, Certificatename: new("some_other_name"),
	}})
	if refused, ok := errors.AsType[*sdkerr.ServiceResponseError](err); !ok || refused.StatusCode != http.StatusBadRequest {
		t.Errorf("id and name that do not belong together: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	a := newAccount(t, cloudsim.Config{CertificateQuota: 3})
	content, key := a.issue(t)
	created := a.create(t, "shop_1", content, key)
	content2, key2 := a.issue(t)
	create := func(c *waf.WafClient, name, content, key string) error {
		_, err := c.CreateCertificate(&model.CreateCertificateRequest{
			VerifyCertKey: new(true), Body: &model.CreateCertificateRequestBody{Name: name, Content: content, Key: key},
		})
		return err
	}
	const missing = "ffffffffffffffffffffffffffffffff"

	wantRefused(t, create(a.client, "shop_1", content2, key2), 400, "WAF.00011016", "WAF.00014002", "WAF.00022002")
	wantRefused(t, create(a.client, "shop_2", content, key), 400, "WAF.00014002", "WAF.00022002")
	wantRefused(t, create(a.client, "shop_2", "no certificate", key2), 400, "WAF.00011019", "WAF.00021013", "WAF.00011003", "WAF.00021003")
	wantRefused(t, create(a.login(t, "AKIDEXAMPLE", "wrong"), "shop_2", content2, key2), 401, "APIGW.0301")

	_, err := a.client.ShowCertificate(&model.ShowCertificateRequest{CertificateId: missing})
	if refused, ok := errors.AsType[*sdkerr.ServiceResponseError](err); !ok ||
		(refused.ErrorCode != "WAF.00014001" || refused.StatusCode != http.StatusBadRequest) && (refused.ErrorCode != "WAF.00022001" || refused.StatusCode != http.StatusNotFound) {
		t.Errorf("missing certificate: %v", err)
	}

	a.create(t, "shop_2", content2, key2)
	content3, key3 := a.issue(t)
	wantRefused(t, create(a.client, "shop_3", content3, key3), 400, "WAF.00013001", "WAF.00013007", "WAF.00014012")

	for _, f := range []struct {
		name, code string
		status     int
	}{
		{cloudsim.FaultTokenInvalid, "WAF.00012001", 400},
		{cloudsim.FaultThrottle, "APIGW.0308", 429},
		{cloudsim.FaultBusy, "WAF.00010002", 500},
		{cloudsim.FaultInternal, "WAF.00010001", 500},
		{cloudsim.FaultUnauthorized, "APIGW.0301", 401},
	} {
		if _, err := a.sim.Faults().Add(cloudsim.Fault{Name: f.name, Count: 1}); err != nil {
			t.Fatal(err)
		}
		_, err := a.client.ShowCertificate(&model.ShowCertificateRequest{CertificateId: *created.Id})
		wantRefused(t, err, f.status, f.code)
	}
}

// Open Telekom Cloud's WAF-Dedicated has no apply-to-hosts.
func TestOpenTelekomHasNoApply(t *testing.T) {
	a := newAccount(t, cloudsim.Config{OpenTelekom: true, Region: "eu-de"})
	content, key := a.issue(t)
	created, err := a.client.CreateCertificate(&model.CreateCertificateRequest{
		Body: &model.CreateCertificateRequestBody{Name: "shop_1", Content: content, Key: key},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = a.client.ApplyCertificateToHost(&model.ApplyCertificateToHostRequest{
		CertificateId: *created.Id,
		Body:          &model.ApplyCertificateToHostRequestBody{PremiumHostIds: &[]string{a.sim.HostID(dedicatedHost)}},
	})
	refused, ok := errors.AsType[*sdkerr.ServiceResponseError](err)
	if !ok || refused.StatusCode != http.StatusNotFound && refused.ErrorCode != "WAF.00014009" && refused.ErrorCode != "WAF.00013002" {
		t.Errorf("got %v", err)
	}
	if _, err := a.client.UpdatePremiumHost(&model.UpdatePremiumHostRequest{
		HostId: a.sim.HostID(dedicatedHost),
		Body:   &model.UpdatePremiumHostRequestBody{Certificateid: created.Id, Certificatename: created.Name},
	}); err != nil {
		t.Fatal(err)
	}
	if got := a.users(t, *created.Id); !slices.Equal(got, []string{dedicatedHost}) {
		t.Errorf("bound to %v", got)
	}
}
