package conformance

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"testing"

	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/auth/basic"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/config"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/sdkerr"
	apig "github.com/huaweicloud/huaweicloud-sdk-go-v3/services/apig/v2"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/services/apig/v2/model"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/cloudsim"
)

const (
	gatewayDomain = "gw.example.com"
	gatewayID     = "f0fa1789-3b76-433b-a787-9892951c620e"
)

// gateway is a simulated cloud with one API gateway, driven by the official SDK.
type gateway struct {
	sim    *cloudsim.Sim
	client *apig.ApigClient
	ca     *certstest.CA
	domain cloudsim.DomainInfo
}

func newGateway(t *testing.T, cfg cloudsim.Config) *gateway {
	t.Helper()
	ca, err := certstest.NewCA("conformance")
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{ca: ca}
	cfg.AccessKey, cfg.SecretKey, cfg.ProjectID = "AKIDEXAMPLE", "only-for-tests", projectID
	cfg.Gateways = []cloudsim.Gateway{{ID: gatewayID, Groups: []cloudsim.Group{{Domains: []cloudsim.Domain{{Name: gatewayDomain}}}}}}
	if g.sim, err = cloudsim.New(cfg); err != nil {
		t.Fatal(err)
	}
	if err := g.sim.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.sim.Close() })
	g.domain = g.sim.Domains()[0]
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(g.sim.CAPEM()) {
		t.Fatal("no root")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	credentials, err := basic.NewCredentialsBuilder().WithAk(cfg.AccessKey).WithSk(cfg.SecretKey).WithProjectId(projectID).SafeBuild()
	if err != nil {
		t.Fatal(err)
	}
	client, err := apig.ApigClientBuilder().WithEndpoint(g.sim.URL()).WithCredential(credentials).
		WithHttpConfig(config.DefaultHttpConfig().WithHttpTransport(transport)).SafeBuild()
	if err != nil {
		t.Fatal(err)
	}
	g.client = apig.NewApigClient(client)
	return g
}

// form is a certificate form, and the certificate in it.
func (g *gateway) form(t *testing.T, name string, kind certstest.KeyType) (*model.CertificateForm, *x509.Certificate) {
	t.Helper()
	b, err := g.ca.Issue(certstest.Options{Names: []string{gatewayDomain}, KeyType: kind})
	if err != nil {
		t.Fatal(err)
	}
	key, err := b.Key.PEM(certs.Traditional)
	if err != nil {
		t.Fatal(err)
	}
	return &model.CertificateForm{Name: name, CertContent: string(b.FullChainPEM()), PrivateKey: string(key)}, b.Leaf
}

func (g *gateway) create(t *testing.T, form *model.CertificateForm) string {
	t.Helper()
	created, err := g.client.CreateCertificateV2(&model.CreateCertificateV2Request{Body: form})
	if err != nil {
		t.Fatal(err)
	}
	if len(*created.Id) != 32 || *created.Name != form.Name || *created.ProjectId != projectID {
		t.Fatalf("created %s", created)
	}
	return *created.Id
}

// attached are the domains of a certificate.
func (g *gateway) attached(t *testing.T, id string) []model.UrlDomainRefInfo {
	t.Helper()
	list, err := g.client.ListAttachedDomainsV2(&model.ListAttachedDomainsV2Request{
		CertificateId: id, Offset: new(int64(0)), Limit: new(int32(100)), UrlDomain: new(gatewayDomain),
	})
	if err != nil {
		t.Fatal(err)
	}
	if int(list.Total) != len(*list.BoundDomains) || list.Size != int32(len(*list.BoundDomains)) {
		t.Errorf("attached %s", list)
	}
	return *list.BoundDomains
}

func (g *gateway) onDomain(verify *bool) *model.AttachOrDetachDomainsReqBody {
	return &model.AttachOrDetachDomainsReqBody{Domains: []model.AttachOrDetachDomainInfo{{
		Domain: gatewayDomain, InstanceIds: &[]string{gatewayID}, VerifiedClientCertificateEnabled: verify,
	}}}
}

// wantAPIGRefused wants one typed error, with its request id.
func wantAPIGRefused(t *testing.T, err error, status int, code string) {
	t.Helper()
	refused, ok := errors.AsType[*sdkerr.ServiceResponseError](err)
	if !ok || refused.StatusCode != status || refused.ErrorCode != code || refused.ErrorMessage == "" || refused.RequestId == "" {
		t.Errorf("got %v, want %d %s", err, status, code)
	}
}

func TestAPIGCertificateLife(t *testing.T) {
	for _, misbehave := range []bool{false, true} {
		g := newGateway(t, cloudsim.Config{Misbehave: misbehave, Seed: 7})
		form, leaf := g.form(t, "gw_1", certstest.EC256)
		form.TrustedRootCa = new(string(g.ca.RootPEM()))
		form.Type = new(model.GetCertificateFormTypeEnum().INSTANCE)
		form.InstanceId, form.AlgorithmType = new(gatewayID), new(model.GetCertificateFormAlgorithmTypeEnum().ECC)
		id := g.create(t, form)

		shown, err := g.client.ShowDetailsOfCertificateV2(&model.ShowDetailsOfCertificateV2Request{CertificateId: id})
		if err != nil {
			t.Fatal(err)
		}
		if *shown.InstanceId != gatewayID || *shown.CommonName != leaf.Subject.CommonName || len(*shown.San) != 1 || (*shown.San)[0] != gatewayDomain ||
			shown.NotAfter == nil || !*shown.IsHasTrustedRootCa || *shown.Version != 3 || shown.Issuer == nil ||
			!misbehave && (*shown.SerialNumber != leaf.SerialNumber.String() || shown.AlgorithmType.Value() != "ECC") {
			t.Errorf("shown %s", shown)
		}

		listed, err := g.client.ListCertificatesV2(&model.ListCertificatesV2Request{
			InstanceId: gatewayID, Name: new("gw_1"), Offset: new(int64(0)), Limit: new(int32(100)),
			Type: new(model.GetListCertificatesV2RequestTypeEnum().INSTANCE), AlgorithmType: new(model.GetListCertificatesV2RequestAlgorithmTypeEnum().ECC),
		})
		if err != nil || listed.Total != 1 || *(*listed.Certs)[0].Id != id {
			t.Errorf("listed %v, %v", listed, err)
		}

		again, renewed := g.form(t, "gw_2", certstest.EC256)
		again.Type, again.InstanceId, again.TrustedRootCa = form.Type, form.InstanceId, form.TrustedRootCa
		updated, err := g.client.UpdateCertificateV2(&model.UpdateCertificateV2Request{CertificateId: id, Body: again})
		if err != nil || *updated.Id != id || *updated.Name != "gw_2" || !misbehave && *updated.SerialNumber != renewed.SerialNumber.String() {
			t.Errorf("updated %v, %v", updated, err)
		}

		gone, err := g.client.DeleteCertificateV2(&model.DeleteCertificateV2Request{CertificateId: id})
		if err != nil || gone.HttpStatusCode != http.StatusNoContent {
			t.Errorf("deleted %v, %v", gone, err)
		}
		if len(g.sim.APIGCertificates()) != 0 {
			t.Error("it is still there")
		}
	}
}

func TestAPIGBinding(t *testing.T) {
	g := newGateway(t, cloudsim.Config{})
	form, _ := g.form(t, "gw_1", certstest.EC256)
	form.TrustedRootCa = new(string(g.ca.RootPEM()))
	id := g.create(t, form)
	rsa, _ := g.form(t, "gw_rsa", certstest.RSA2048)
	rsaID := g.create(t, rsa)

	if _, err := g.client.BatchAssociateDomainsV2(&model.BatchAssociateDomainsV2Request{CertificateId: id, Body: g.onDomain(new(false))}); err != nil {
		t.Fatal(err)
	}
	rows := g.attached(t, id)
	if len(rows) != 1 || rows[0].UrlDomain != gatewayDomain || rows[0].Id != g.domain.ID || rows[0].InstanceId != gatewayID ||
		rows[0].ApiGroupId != g.domain.GroupID || *rows[0].SslId != id || *rows[0].VerifiedClientCertificateEnabled || rows[0].Status.Value() != 3 {
		t.Fatalf("attached %v", rows)
	}
	side := &model.AttachOrDetachCertsReqBody{CertificateIds: []string{rsaID}}
	if _, err := g.client.BatchAssociateCertsV2(&model.BatchAssociateCertsV2Request{
		InstanceId: gatewayID, GroupId: g.domain.GroupID, DomainId: g.domain.ID, Body: side,
	}); err != nil {
		t.Fatal(err)
	}
	group, err := g.client.ShowDetailsOfApiGroupV2(&model.ShowDetailsOfApiGroupV2Request{InstanceId: gatewayID, GroupId: g.domain.GroupID})
	if err != nil || group.UrlDomains == nil || len(*group.UrlDomains) != 1 {
		t.Fatalf("group %v, %v", group, err)
	}
	groups, err := g.client.ListApiGroupsV2(&model.ListApiGroupsV2Request{InstanceId: gatewayID})
	if err != nil || groups.Groups == nil || int64(len(*groups.Groups)) != groups.Total || (*groups.Groups)[0].UrlDomains == nil {
		t.Errorf("groups %v, %v", groups, err)
	}
	domain := (*group.UrlDomains)[0]
	if *domain.Id != g.domain.ID || *domain.SslId != rsaID || len(*domain.SslInfos) != 2 || domain.MinSslVersion.Value() != "TLSv1.2" {
		t.Errorf("domain %s", domain)
	}
	if info := (*domain.SslInfos)[0]; *info.SslId != id || info.AlgorithmType.Value() != "ECC" || *info.Type != 2 || !*info.IsHasTrustedRootCa {
		t.Errorf("ssl info %s", info)
	}

	set, err := g.client.UpdateDomainV2(&model.UpdateDomainV2Request{
		InstanceId: gatewayID, GroupId: g.domain.GroupID, DomainId: g.domain.ID, Body: &model.UrlDomainModify{
			MinSslVersion: model.GetUrlDomainModifyMinSslVersionEnum().TL_SV1_1, VerifiedClientCertificateEnabled: new(true),
		},
	})
	if err != nil || *set.MinSslVersion != "TLSv1.1" || !*set.VerifiedClientCertificateEnabled || *set.UrlDomain != gatewayDomain {
		t.Errorf("settings %v, %v", set, err)
	}
	if d := g.sim.Domains()[0]; !d.AsksForClient[0] || len(d.Served[0]) != 2 {
		t.Errorf("edge %+v", d)
	}

	// Bound, it can be changed and cannot be deleted.
	again, _ := g.form(t, "gw_1", certstest.EC256)
	if _, err := g.client.UpdateCertificateV2(&model.UpdateCertificateV2Request{CertificateId: id, Body: again}); err != nil {
		t.Fatal(err)
	}
	if len(g.attached(t, id)) != 1 || g.sim.Ledger()[len(g.sim.Ledger())-2].Fingerprint != g.sim.Domains()[0].Served[0][0] {
		t.Error("the domain does not follow")
	}
	_, err = g.client.DeleteCertificateV2(&model.DeleteCertificateV2Request{CertificateId: id})
	if refused, ok := errors.AsType[*sdkerr.ServiceResponseError](err); !ok || refused.StatusCode != http.StatusConflict {
		t.Errorf("deleted while bound: %v", err)
	}
	if _, err := g.client.BatchDisassociateDomainsV2(&model.BatchDisassociateDomainsV2Request{CertificateId: id, Body: g.onDomain(nil)}); err != nil {
		t.Fatal(err)
	}
	_, err = g.client.BatchDisassociateDomainsV2(&model.BatchDisassociateDomainsV2Request{CertificateId: id, Body: g.onDomain(nil)})
	wantAPIGRefused(t, err, 400, "APIG.2000")
	if _, err := g.client.BatchDisassociateCertsV2(&model.BatchDisassociateCertsV2Request{
		InstanceId: gatewayID, GroupId: g.domain.GroupID, DomainId: g.domain.ID, Body: side,
	}); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{id, rsaID} {
		if len(g.attached(t, id)) != 0 {
			t.Error("still attached")
		}
		if _, err := g.client.DeleteCertificateV2(&model.DeleteCertificateV2Request{CertificateId: id}); err != nil {
			t.Error(err)
		}
	}
}

func TestAPIGRefusals(t *testing.T) {
	g := newGateway(t, cloudsim.Config{})
	good, _ := g.form(t, "gw_1", certstest.EC256)
	other, _ := g.form(t, "gw_2", certstest.EC256)
	id := g.create(t, good)
	create := func(change func(*model.CertificateForm)) error {
		form := *good
		change(&form)
		_, err := g.client.CreateCertificateV2(&model.CreateCertificateV2Request{Body: &form})
		return err
	}
	wantAPIGRefused(t, create(func(f *model.CertificateForm) { f.Name = "x" }), 400, "APIG.2000")
	wantAPIGRefused(t, create(func(f *model.CertificateForm) { f.PrivateKey = other.PrivateKey }), 400, "APIG.2101")
	wantAPIGRefused(t, create(func(f *model.CertificateForm) { f.CertContent = "x" }), 400, "APIG.2106")
	wantAPIGRefused(t, create(func(f *model.CertificateForm) {
		f.Type, f.InstanceId = new(model.GetCertificateFormTypeEnum().INSTANCE), new("no-gateway")
	}), 404, "APIG.3030")

	const missing = "ffffffffffffffffffffffffffffffff"
	_, err := g.client.ShowDetailsOfCertificateV2(&model.ShowDetailsOfCertificateV2Request{CertificateId: missing})
	wantAPIGRefused(t, err, 404, "APIG.3021")
	_, err = g.client.ListCertificatesV2(&model.ListCertificatesV2Request{InstanceId: missing})
	wantAPIGRefused(t, err, 404, "APIG.3030")
	wrong := g.onDomain(nil)
	wrong.Domains[0].Domain = "unknown.example.com"
	_, err = g.client.BatchAssociateDomainsV2(&model.BatchAssociateDomainsV2Request{CertificateId: id, Body: wrong})
	wantAPIGRefused(t, err, 404, "APIG.3020")

	for _, f := range []struct {
		name, code string
		status     int
	}{
		{cloudsim.FaultTokenInvalid, "APIG.1002", 401},
		{cloudsim.FaultThrottle, "APIGW.0308", 429},
		{cloudsim.FaultBusy, "APIG.9008", 500},
		{cloudsim.FaultInternal, "APIG.9999", 500},
		{cloudsim.FaultUnauthorized, "APIGW.0301", 401},
	} {
		if _, err := g.sim.Faults().Add(cloudsim.Fault{Service: "apig", Name: f.name, Count: 1}); err != nil {
			t.Fatal(err)
		}
		_, err := g.client.ShowDetailsOfCertificateV2(&model.ShowDetailsOfCertificateV2Request{CertificateId: id})
		wantAPIGRefused(t, err, f.status, f.code)
	}
}
