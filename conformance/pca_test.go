package conformance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/auth/global"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/config"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/sdkerr"
	ccm "github.com/huaweicloud/huaweicloud-sdk-go-v3/services/ccm/v1"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/services/ccm/v1/model"

	"github.com/rotatord/rotatord/internal/cloudsim"
)

const (
	domainID    = "fedcba9876543210fedcba9876543210"
	noAuthority = "00000000-0000-4000-8000-000000000000"
	pcaHost     = "pca.example.com"
)

// startAccount starts a simulated cloud and returns what a global client needs.
func startAccount(t *testing.T, cfg cloudsim.Config) (*cloudsim.Sim, *global.Credentials, *config.HttpConfig) {
	t.Helper()
	cfg.AccessKey, cfg.SecretKey, cfg.DomainID = "AKIDEXAMPLE", "only-for-tests", domainID
	sim, err := cloudsim.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := sim.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sim.Close() })
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(sim.CAPEM()) {
		t.Fatal("no root")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	credentials, err := global.NewCredentialsBuilder().WithAk(cfg.AccessKey).WithSk(cfg.SecretKey).WithDomainId(domainID).SafeBuild()
	if err != nil {
		t.Fatal(err)
	}
	return sim, credentials, config.DefaultHttpConfig().WithHttpTransport(transport)
}

// privateCA is a simulated private CA, driven by the official SDK.
type privateCA struct {
	sim          *cloudsim.Sim
	client       *ccm.CcmClient
	root, issuer cloudsim.AuthorityInfo
}

func newPrivateCA(t *testing.T, cfg cloudsim.Config) *privateCA {
	t.Helper()
	cfg.Authorities = []cloudsim.Authority{
		{CommonName: "Root", KeyAlgorithm: "RSA2048"}, {CommonName: "Issuing", Parent: "Root", Country: "DE", Organization: "Example"},
		{CommonName: "Off", Status: "DISABLED"},
	}
	p := &privateCA{}
	sim, credentials, httpConfig := startAccount(t, cfg)
	client, err := ccm.CcmClientBuilder().WithEndpoint(sim.URL()).WithCredential(credentials).WithHttpConfig(httpConfig).SafeBuild()
	if err != nil {
		t.Fatal(err)
	}
	p.sim, p.client = sim, ccm.NewCcmClient(client)
	p.root, p.issuer = sim.Authorities()[0], sim.Authorities()[1]
	return p
}

func (p *privateCA) application() *model.CreateCertificateRequestBody {
	return &model.CreateCertificateRequestBody{
		IssuerId: p.issuer.ID, KeyAlgorithm: new("EC256"), SignatureAlgorithm: new("SHA256"),
		DistinguishedName:       &model.CertDistinguishedName{CommonName: pcaHost, OrganizationalUnit: new("Rotation")},
		Validity:                &model.Validity{Type: "DAY", Value: 90},
		KeyUsages:               &[]string{"digitalSignature", "keyAgreement"},
		SubjectAlternativeNames: &[]model.SubjectAlternativeName{{Type: "DNS", Value: pcaHost}, {Type: "IP", Value: "192.0.2.1"}},
		ExtendedKeyUsage:        &model.ExtendedKeyUsage{ServerAuth: new(true), ClientAuth: new(false)},
		CustomizedExtension:     &model.CustomizedExtension{ObjectIdentifier: new("1.3.6.1.4.1.2011.4.99"), Value: new("custom")},
	}
}

func (p *privateCA) apply(t *testing.T, body *model.CreateCertificateRequestBody) string {
	t.Helper()
	made, err := p.client.CreateCertificate(&model.CreateCertificateRequest{Body: body})
	if err != nil {
		t.Fatal(err)
	}
	if made.HttpStatusCode != http.StatusOK || len(*made.CertificateId) != 36 {
		t.Fatalf("made %s", made)
	}
	return *made.CertificateId
}

func (p *privateCA) export(t *testing.T, id string) *model.ExportCertificateResponse {
	t.Helper()
	exported, err := p.client.ExportCertificate(&model.ExportCertificateRequest{
		CertificateId: id, Body: &model.ExportCertificateRequestBody{IsCompressed: "false", Type: "NGINX", IsSmStandard: new("false")},
	})
	if err != nil {
		t.Fatal(err)
	}
	return exported
}

// lines turns the service's line ends into the usual ones.
func lines(t *testing.T, text *string) []byte {
	t.Helper()
	if text == nil || strings.Count(*text, "\n") != strings.Count(*text, "\r\n") || !strings.Contains(*text, "\r\n") {
		t.Fatalf("not PEM with CRLF: %v", text)
	}
	return []byte(strings.ReplaceAll(*text, "\r\n", "\n"))
}

func leafOf(t *testing.T, text *string) *x509.Certificate {
	t.Helper()
	block, rest := pem.Decode(lines(t, text))
	if block == nil || len(strings.TrimSpace(string(rest))) > 0 {
		t.Fatal("not one certificate")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

// wantChain verifies a leaf with the chain that came with it, up to the root.
func (p *privateCA) wantChain(t *testing.T, leaf *x509.Certificate, chain *string) {
	t.Helper()
	roots, inter := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(p.root.CertificatePEM))
	inter.AppendCertsFromPEM(lines(t, chain))
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: inter, DNSName: pcaHost}); err != nil {
		t.Error(err)
	}
}

func TestPCACertificateLife(t *testing.T) {
	for _, misbehave := range []bool{false, true} {
		p := newPrivateCA(t, cloudsim.Config{Misbehave: misbehave, Seed: 3})
		id := p.apply(t, p.application())

		shown, err := p.client.ShowCertificate(&model.ShowCertificateRequest{CertificateId: id})
		if err != nil {
			t.Fatal(err)
		}
		exported := p.export(t, id)
		leaf := leafOf(t, exported.Certificate)
		p.wantChain(t, leaf, exported.CertificateChain)
		if _, err := tls.X509KeyPair(lines(t, exported.Certificate), lines(t, exported.PrivateKey)); err != nil {
			t.Error(err)
		}
		name := shown.DistinguishedName
		if *shown.Status != "ISSUED" || *shown.IssuerId != p.issuer.ID || *shown.IssuerName != "Issuing" || *shown.KeyAlgorithm != "EC256" ||
			*shown.SignatureAlgorithm != "SHA256" || *shown.FreezeFlag != 0 || *shown.GenMode != "GENERATE" || *shown.EnterpriseProjectId != "0" ||
			*shown.NotBefore != leaf.NotBefore.UnixMilli() || *shown.NotAfter != leaf.NotAfter.UnixMilli() || shown.DeleteTime != nil || shown.EncCertInfo != nil ||
			name.CommonName != pcaHost || name.Country != "DE" || name.Organization != "Example" || name.OrganizationalUnit != "Rotation" || name.State != "" {
			t.Errorf("shown %s", shown)
		}
		if !misbehave && *shown.SerialNumber != leaf.SerialNumber.String() {
			t.Errorf("serial %s, certificate %s", *shown.SerialNumber, leaf.SerialNumber)
		}

		listed, err := p.client.ListCertificate(&model.ListCertificateRequest{
			Limit: new(int32(100)), Offset: new(int32(0)), Name: new("pca."), Status: new("ISSUED"), SortKey: new("create_time"), SortDir: new("DESC"),
		})
		if err != nil || *listed.Total != 1 || (*listed.Certificates)[0].CertificateId != id || (*listed.Certificates)[0].CreateTime != *shown.CreateTime ||
			(*listed.Certificates)[0].DeleteTime != 0 { // null does not fit the SDK's int64
			t.Errorf("listed %v, %v", listed, err)
		}
		quota, err := p.client.ShowCertificateQuota(&model.ShowCertificateQuotaRequest{})
		if err != nil || quota.Quotas.Resources[0] != (model.Resources{Type: "CERTIFICATE", Used: 1, Quota: 100000}) {
			t.Errorf("quota %v, %v", quota, err)
		}

		// Without a reason the SDK must be given an empty body: without any it sends none, which is an error.
		_, err = p.client.RevokeCertificate(&model.RevokeCertificateRequest{CertificateId: id})
		wantAPIGRefused(t, err, 400, "PCA.00020001")
		revoked, err := p.client.RevokeCertificate(&model.RevokeCertificateRequest{CertificateId: id, Body: &model.RevokeCertificateRequestBody{}})
		if err != nil || revoked.HttpStatusCode != http.StatusNoContent {
			t.Errorf("revoked %v, %v", revoked, err)
		}
		_, err = p.client.RevokeCertificate(&model.RevokeCertificateRequest{
			CertificateId: id, Body: &model.RevokeCertificateRequestBody{Reason: new("SUPERSEDED")},
		})
		wantAPIGRefused(t, err, 403, "PCA.10010071")
		gone, err := p.client.DeleteCertificate(&model.DeleteCertificateRequest{CertificateId: id})
		if err != nil || gone.HttpStatusCode != http.StatusNoContent || len(p.sim.PrivateCertificates()) != 0 {
			t.Errorf("deleted %v, %v", gone, err)
		}
	}
}

// By CSR: the key stays here.
func TestPCACertificateByCSR(t *testing.T) {
	p := newPrivateCA(t, cloudsim.Config{})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: pcaHost}, DNSNames: []string{pcaHost}}, key)
	if err != nil {
		t.Fatal(err)
	}
	csr := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	parsed, err := p.client.ParseCertificateSigningRequest(&model.ParseCertificateSigningRequestRequest{
		Body: &model.ParseCertificateSigningRequestRequestBody{Csr: csr},
	})
	if err != nil || *parsed.KeyAlgorithm != "EC" || *parsed.KeyAlgorithmLength != 256 || *parsed.SignatureAlgorithm != "SHA256withECDSA" ||
		parsed.DistinguishedName.CommonName != pcaHost || !strings.Contains(*parsed.PublicKey, "\r\n") {
		t.Errorf("parsed %v, %v", parsed, err)
	}
	made, err := p.client.CreateCertificateByCsr(&model.CreateCertificateByCsrRequest{Body: &model.CreateCertificateByCsrRequestBody{
		IssuerId: p.issuer.ID, Csr: csr, Validity: &model.Validity{Type: "MONTH", Value: 3}, Type: new("ENTITY_CERT"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	exported := p.export(t, *made.CertificateId)
	leaf := leafOf(t, exported.Certificate)
	p.wantChain(t, leaf, exported.CertificateChain)
	if exported.PrivateKey != nil || !key.PublicKey.Equal(leaf.PublicKey) || leaf.SignatureAlgorithm != x509.ECDSAWithSHA384 || leaf.NotAfter.Sub(leaf.NotBefore) != 93*24*time.Hour {
		t.Errorf("leaf %s, %s to %s", leaf.SignatureAlgorithm, leaf.NotBefore, leaf.NotAfter)
	}
	shown, err := p.client.ShowCertificate(&model.ShowCertificateRequest{CertificateId: *made.CertificateId})
	if err != nil || *shown.GenMode != "CSR" || *shown.SignatureAlgorithm != "SHA384" {
		t.Errorf("shown %v, %v", shown, err)
	}
}

func TestPCATags(t *testing.T) {
	p := newPrivateCA(t, cloudsim.Config{})
	id := p.apply(t, p.application())
	p.apply(t, p.application())
	tags := []model.ResourceTag{{Key: "intent", Value: "4711"}, {Key: "owner", Value: ""}}
	created, err := p.client.BatchCreateCertTags(&model.BatchCreateCertTagsRequest{CertificateId: id, Body: &model.BatchOperateTagRequestBody{Tags: tags}})
	if err != nil || created.HttpStatusCode != http.StatusNoContent {
		t.Fatalf("created %v, %v", created, err)
	}
	listed, err := p.client.ListCertTags(&model.ListCertTagsRequest{CertificateId: id})
	if err != nil || len(*listed.Tags) != 2 || (*listed.Tags)[0] != tags[0] {
		t.Errorf("listed %v, %v", listed, err)
	}
	found, err := p.client.ListCertResourceInstances(&model.ListCertResourceInstancesRequest{Body: &model.ListResourceInstancesRequestBody{
		Tags: &[]model.DomainTags{{Key: "intent", Values: []string{"4711", "x"}}, {Key: "owner", Values: []string{}}}, Limit: new(int32(10)), Offset: new(int32(0)),
		Matches: &[]model.ResourceTag{{Key: "resource_name", Value: pcaHost}},
	}})
	if err != nil || *found.TotalCount != 1 || *(*found.Resources)[0].ResourceId != id || *(*found.Resources)[0].ResourceName != pcaHost || len(*(*found.Resources)[0].Tags) != 2 {
		t.Errorf("found %v, %v", found, err)
	}
	gone, err := p.client.BatchDeleteCertTags(&model.BatchDeleteCertTagsRequest{
		CertificateId: id, Body: &model.BatchOperateTagRequestBody{Tags: []model.ResourceTag{{Key: "owner"}}},
	})
	if err != nil || gone.HttpStatusCode != http.StatusNoContent || len(p.sim.PrivateCertificates()[0].Tags) != 1 {
		t.Errorf("deleted %v, %v", gone, err)
	}
	_, err = p.client.ListCertResourceInstances(&model.ListCertResourceInstancesRequest{Body: &model.ListResourceInstancesRequestBody{Limit: new(int32(11))}})
	wantAPIGRefused(t, err, 400, "PCA.00020001")
}

func TestPCAAuthorities(t *testing.T) {
	p := newPrivateCA(t, cloudsim.Config{})
	listed, err := p.client.ListCertificateAuthority(&model.ListCertificateAuthorityRequest{
		Limit: new(int32(10)), Offset: new(int32(0)), Status: new("ACTIVED"), SortKey: new("common_name"), SortDir: new("ASC"),
	})
	if err != nil || *listed.Total != 2 {
		t.Fatalf("listed %v, %v", listed, err)
	}
	if row := (*listed.CertificateAuthorities)[0]; row.CaId != p.issuer.ID || row.Type != "SUBORDINATE" || row.PathLength != 0 || row.IssuerId != p.root.ID || row.CrlConfiguration.Enabled {
		t.Errorf("row %+v", row)
	}
	shown, err := p.client.ShowCertificateAuthority(&model.ShowCertificateAuthorityRequest{CaId: p.root.ID})
	if err != nil || *shown.Type != "ROOT" || *shown.PathLength != 7 || *shown.Status != "ACTIVED" || *shown.KeyAlgorithm != "RSA2048" || *shown.DomainId != domainID ||
		*shown.NotAfter != p.root.NotAfter.UnixMilli() || shown.IssuerId != nil || shown.FreeQuota == nil || *shown.ChargingMode != 1 {
		t.Errorf("shown %v, %v", shown, err)
	}
	exported, err := p.client.ExportCertificateAuthorityCertificate(&model.ExportCertificateAuthorityCertificateRequest{CaId: p.issuer.ID})
	if err != nil || string(lines(t, exported.Certificate)) != strings.TrimSpace(p.issuer.CertificatePEM) ||
		string(lines(t, exported.CertificateChain)) != strings.TrimSpace(p.root.CertificatePEM) {
		t.Errorf("exported %v, %v", exported, err)
	}
	quota, err := p.client.ShowCertificateAuthorityQuota(&model.ShowCertificateAuthorityQuotaRequest{})
	if err != nil || quota.Quotas.Resources[0] != (model.Resources{Type: "CERTIFICATE_AUTHORITY", Used: 3, Quota: 100}) {
		t.Errorf("quota %v, %v", quota, err)
	}
	_, err = p.client.ShowCertificateAuthority(&model.ShowCertificateAuthorityRequest{CaId: noAuthority})
	wantAPIGRefused(t, err, 400, "PCA.10010002")
}

func TestPCARefusals(t *testing.T) {
	p := newPrivateCA(t, cloudsim.Config{PrivateCertificateQuota: 1})
	refused := func(code string, change func(*model.CreateCertificateRequestBody)) {
		t.Helper()
		body := p.application()
		change(body)
		_, err := p.client.CreateCertificate(&model.CreateCertificateRequest{Body: body})
		wantAPIGRefused(t, err, 400, code)
	}
	refused("PCA.00020101", func(b *model.CreateCertificateRequestBody) { b.DistinguishedName.CommonName = "" })
	refused("PCA.00020102", func(b *model.CreateCertificateRequestBody) { b.KeyAlgorithm = nil }) // the SDK says optional, [S002] mandatory
	refused("PCA.00020103", func(b *model.CreateCertificateRequestBody) { b.SignatureAlgorithm = new("SM3") })
	refused("PCA.00020109", func(b *model.CreateCertificateRequestBody) { b.Validity.Type = "WEEK" })
	refused("PCA.00020110", func(b *model.CreateCertificateRequestBody) { (*b.SubjectAlternativeNames)[0].Value = "a b" })
	refused("PCA.00020111", func(b *model.CreateCertificateRequestBody) { (*b.SubjectAlternativeNames)[1].Value = "a" })
	refused("PCA.00020112", func(b *model.CreateCertificateRequestBody) { (*b.SubjectAlternativeNames)[0].Type = "NAME" })
	refused("PCA.00020201", func(b *model.CreateCertificateRequestBody) { b.IssuerId = "x" })
	refused("PCA.10010002", func(b *model.CreateCertificateRequestBody) { b.IssuerId = noAuthority })
	refused("PCA.10019001", func(b *model.CreateCertificateRequestBody) { b.IssuerId = p.sim.Authorities()[2].ID })
	// The SDK's start_from is an int32: the latest time that it can hold is in January 1970.
	refused("PCA.00020109", func(b *model.CreateCertificateRequestBody) { b.Validity.StartFrom = new(int32(math.MaxInt32)) })
	id := p.apply(t, p.application())
	refused("PCA.10019002", func(*model.CreateCertificateRequestBody) {})

	export := func(id, kind, compressed string) error {
		_, err := p.client.ExportCertificate(&model.ExportCertificateRequest{
			CertificateId: id, Body: &model.ExportCertificateRequestBody{IsCompressed: compressed, Type: kind},
		})
		return err
	}
	wantAPIGRefused(t, export(id, "PEM", "false"), 400, "PCA.00020001")
	wantAPIGRefused(t, export(id, "IIS", "false"), 400, "PCA.00020001")
	wantAPIGRefused(t, export("x", "OTHER", "false"), 400, "PCA.10010105")
	wantAPIGRefused(t, export(noAuthority, "OTHER", "false"), 400, "PCA.10010002")
	// The SDK has no place for a zip: a good answer becomes an error with status 200, whose text quotes the first bytes.
	_, err := p.client.ExportCertificate(&model.ExportCertificateRequest{
		CertificateId: id, Body: &model.ExportCertificateRequestBody{IsCompressed: "true", Type: "OTHER"},
	})
	if odd, ok := errors.AsType[*sdkerr.ServiceResponseError](err); !ok || odd.StatusCode != http.StatusOK || odd.ErrorCode != "" {
		t.Errorf("zip: %v", err)
	}

	other := newPrivateCA(t, cloudsim.Config{PrivateNotFound404: true})
	_, err = other.client.DeleteCertificate(&model.DeleteCertificateRequest{CertificateId: noAuthority})
	wantAPIGRefused(t, err, 404, "PCA.00030102")

	for _, f := range []struct {
		name, code string
		status     int
	}{
		{cloudsim.FaultTokenInvalid, "PCA.00000401", 401},
		{cloudsim.FaultThrottle, "APIGW.0308", 429},
		{cloudsim.FaultBusy, "PCA.00010002", 500},
		{cloudsim.FaultInternal, "PCA.00010001", 500},
		{cloudsim.FaultUnauthorized, "APIGW.0301", 401},
	} {
		if _, err := p.sim.Faults().Add(cloudsim.Fault{Service: "ccm", Name: f.name, Count: 1}); err != nil {
			t.Fatal(err)
		}
		_, err := p.client.ShowCertificate(&model.ShowCertificateRequest{CertificateId: id})
		wantAPIGRefused(t, err, f.status, f.code)
	}
}
