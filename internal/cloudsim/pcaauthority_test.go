package cloudsim

import (
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Reference 4.7: CAs are listed, shown and exported.
func TestAuthorities(t *testing.T) {
	b := newPCABench(t, nil)
	ca := func(method, path string, body any) reply {
		return b.send(method, "/v1/private-certificate-authorities"+path, body, b.withToken)
	}
	r := ca("GET", "?limit=1000", nil)
	wantStatus(t, r, 200)
	if r.json["total"] != 7.0 || len(r.json["certificate_authorities"].([]any)) != 7 {
		t.Errorf("list %s", r.text)
	}
	for query, want := range map[string]int{"status=ACTIVED": 2, "type=SUBORDINATE": 1, "type=ROOT": 6, "name=Example": 2, "limit=2&sort_key=type&sort_dir=ASC": 2, "limit=3&sort_key=not_after": 3, "limit=4&sort_key=create_time": 4, "offset=6": 1} {
		if got := ca("GET", "?"+query, nil); len(got.json["certificate_authorities"].([]any)) != want {
			t.Errorf("%s: %s", query, got.text)
		}
	}
	root, issuing := b.authority(rootCA), b.authority(issuingCA)
	shown := ca("GET", "/"+issuing.ID, nil)
	wantStatus(t, shown, 200)
	if shown.str("issuer_id") != root.ID || shown.str("issuer_name") != rootCA || shown.json["path_length"] != 0.0 || shown.str("status") != "ACTIVED" ||
		shown.json["not_after"] != float64(issuing.NotAfter.UnixMilli()) || shown.str("gen_mode") != "GENERATE" || shown.json["delete_time"] != nil {
		t.Errorf("shown %s", shown.text)
	}
	if top := ca("GET", "/"+root.ID, nil); top.json["path_length"] != 7.0 || top.json["issuer_id"] != nil || top.str("signature_algorithm") != "SHA384" {
		t.Errorf("root %s", top.text)
	}
	if deleted := ca("GET", "/"+b.authority("DELETED").ID, nil); deleted.json["delete_time"] == nil {
		t.Errorf("deleted %s", deleted.text)
	}
	exported := ca("POST", "/"+issuing.ID+"/export", nil)
	wantStatus(t, exported, 200)
	own, chain := fromCRLF(t, exported.str("certificate")), fromCRLF(t, exported.str("certificate_chain"))
	if own[0].Subject.CommonName != issuingCA || len(chain) != 1 || chain[0].CheckSignature(x509.ECDSAWithSHA384, chain[0].RawTBSCertificate, chain[0].Signature) != nil ||
		own[0].CheckSignatureFrom(chain[0]) != nil || !own[0].IsCA || !own[0].MaxPathLenZero {
		t.Errorf("export %s", exported.text)
	}
	if pemOf(own...) != issuing.CertificatePEM || pemOf(chain...) != issuing.ChainPEM {
		t.Error("the console has other certificates")
	}
	if r := ca("POST", "/"+root.ID+"/export", nil); r.json["certificate_chain"] != nil || fromCRLF(t, r.str("certificate"))[0].Subject.CommonName != rootCA {
		t.Errorf("root %s", r.text)
	}
	wantStatus(t, ca("POST", "/"+b.authority("EXPIRED").ID+"/export", nil), 200)
	for _, status := range []string{"PENDING", "DISABLED", "DELETED", "REVOKED"} {
		wantError(t, ca("POST", "/"+b.authority(status).ID+"/export", nil), 400, "PCA.10019001")
	}
	if r := ca("GET", "/quotas", nil); r.text != `{"quotas":{"resources":[{"quota":100,"type":"CERTIFICATE_AUTHORITY","used":7}]}}` {
		t.Errorf("quota %s", r.text)
	}
	wantError(t, ca("GET", "/x", nil), 400, "PCA.00020201")
	wantError(t, ca("GET", "/"+noUUID, nil), 400, "PCA.10010002")
	wantError(t, ca("GET", "?type=LEAF", nil), 400, "PCA.00020202")
	for _, query := range []string{"status=ACTIVE", "sort_key=issuer_name", "limit=1001", "x=1"} {
		wantError(t, ca("GET", "?"+query, nil), 400, "PCA.00020001")
	}
	for method, path := range map[string]string{"GET": "/" + root.ID, "POST": "/" + root.ID + "/export"} {
		wantError(t, ca(method, path+"?x=1", nil), 400, "PCA.00020001")
	}
	wantError(t, ca("GET", "/quotas?x=1", nil), 400, "PCA.00020001")
	wantError(t, ca("POST", "/"+noUUID+"/export", nil), 400, "PCA.10010002")
	wantError(t, ca("POST", "/"+root.ID+"/disable", nil), 404, "APIGW.0101")
}

// A CA ends when its certificate does.
func TestAuthorityExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newPCABench(t, func(c *Config) { c.Authorities[0].NotAfter = time.Now().Add(time.Hour) })
		b.apply("validity", validity("HOUR", 1))
		time.Sleep(time.Hour + time.Second)
		if got := b.authority(issuingCA).Status; got != "EXPIRED" {
			t.Errorf("status %s", got)
		}
		wantError(t, b.pca("POST", "", b.application("validity", validity("HOUR", 1))), 400, "PCA.10019001")
	})
}

// New refuses CAs that make no sense.
func TestAuthorityConfig(t *testing.T) {
	for name, tt := range map[string]struct {
		list []Authority
		want string
	}{
		"no name":   {[]Authority{{}}, "common_name"},
		"country":   {[]Authority{{CommonName: "a", Country: "DEU"}}, "country"},
		"twice":     {[]Authority{{CommonName: "a"}, {CommonName: "a"}}, "twice"},
		"id":        {[]Authority{{CommonName: "a", ID: "x"}}, "UUID"},
		"id twice":  {[]Authority{{CommonName: "a", ID: noUUID}, {CommonName: "b", ID: noUUID}}, "twice"},
		"key":       {[]Authority{{CommonName: "a", KeyAlgorithm: "SM2"}}, "SM2"},
		"status":    {[]Authority{{CommonName: "a", Status: "ACTIVE"}}, "ACTIVE"},
		"path":      {[]Authority{{CommonName: "a", PathLength: 7}}, "path length"},
		"no parent": {[]Authority{{CommonName: "a", Parent: "b"}}, "does not exist"},
		"circle":    {[]Authority{{CommonName: "a", Parent: "b"}, {CommonName: "b", Parent: "a"}}, "above itself"},
		"end":       {[]Authority{{CommonName: "a"}, {CommonName: "b", Parent: "a", NotAfter: time.Now().AddDate(11, 0, 0)}}, "ends after its parent"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := New(Config{Authorities: tt.list}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	if _, err := New(Config{PrivateCertificateQuota: -1}); err == nil {
		t.Error("a negative quota")
	}
	sim, err := New(Config{Authorities: []Authority{{CommonName: "leaf", Parent: "mid"}, {CommonName: "mid", Parent: "top", NotAfter: time.Now().AddDate(1, 0, 0)}, {CommonName: "top"}}})
	if err != nil {
		t.Fatal(err)
	}
	if all := sim.Authorities(); !all[0].NotAfter.Equal(all[1].NotAfter) || !all[1].NotAfter.Before(all[2].NotAfter) {
		t.Errorf("ends %+v", all)
	}
	list := sim.Config().Authorities
	if list[1].PathLength != 1 || !isLowerUUID(list[0].ID) || sim.Authorities()[0].ID != list[0].ID {
		t.Errorf("config %+v", list)
	}
	leaf, _ := pem.Decode([]byte(sim.Authorities()[0].CertificatePEM))
	cert, _ := x509.ParseCertificate(leaf.Bytes)
	roots, inter := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(sim.Authorities()[2].CertificatePEM))
	inter.AppendCertsFromPEM([]byte(sim.Authorities()[1].CertificatePEM))
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, Intermediates: inter}); err != nil {
		t.Error(err)
	}
}
