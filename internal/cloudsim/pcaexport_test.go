package cloudsim

import (
	"archive/zip"
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
)

// Reference 4.5: what comes back for which type.
func TestPrivateExport(t *testing.T) {
	b := newPCABench(t, nil)
	own := b.apply()
	text, _ := csr(t, nil)
	r := b.pca("POST", "/csr", b.csrBody(text))
	theirs := r.str("certificate_id")
	export := func(id string, change ...any) reply { return b.pca("POST", "/"+id+"/export", exportBody(change...)) }
	for name, tt := range map[string]struct {
		id     string
		change []any
		want   string // names in the zip, or members of the JSON
	}{
		"apache":       {own, []any{"type", "APACHE"}, "certificate certificate_chain private_key"},
		"a bool works": {own, []any{"is_compressed", false}, "certificate certificate_chain private_key"},
		"sm standard":  {own, []any{"is_sm_standard", "true"}, "certificate certificate_chain private_key"},
		"tomcat, csr":  {theirs, []any{"type", "TOMCAT"}, "certificate certificate_chain"},
		"zip apache":   {own, []any{"type", "APACHE", "is_compressed", "true"}, "chain.crt server.crt server.key"},
		"zip nginx":    {own, []any{"type", "NGINX", "is_compressed", true}, "server.crt server.key"},
		"zip other":    {own, []any{"is_compressed", "true"}, "chain.pem server.key server.pem"},
		"zip iis":      {own, []any{"type", "IIS", "is_compressed", "true"}, "keystorePass.txt server.pfx"},
		"zip tomcat":   {own, []any{"type", "TOMCAT", "is_compressed", "true", "password", "a"}, "server.jks"},
		"zip iis, csr": {theirs, []any{"type", "IIS", "is_compressed", "true"}, "chain.crt server.crt"},
		"zip nginx, c": {theirs, []any{"type", "NGINX", "is_compressed", "true"}, "server.crt"},
		"zip other, c": {theirs, []any{"is_compressed", "true"}, "cert.pem chain.pem"},
	} {
		t.Run(name, func(t *testing.T) {
			r := export(tt.id, tt.change...)
			wantStatus(t, r, 200)
			names := slices.Collect(maps.Keys(r.json))
			if strings.HasPrefix(name, "zip") {
				names = slices.Collect(maps.Keys(unzip(t, r.text)))
				if kind := r.header.Get("Content-Disposition"); r.header.Get("Content-Type") != "application/zip" || !strings.Contains(kind, apiHost+"_") {
					t.Errorf("headers %v", r.header)
				}
			}
			slices.Sort(names)
			if got := strings.Join(names, " "); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
	files := unzip(t, export(own, "type", "NGINX", "is_compressed", "true").text)
	if chain, err := parseCertificates(files["server.crt"]); err != nil || len(chain) != 3 {
		t.Errorf("server.crt: %d certificates, %v", len(chain), err)
	}
	keyMatches(t, files["server.key"], b.export(own).leaf)

	e := b.export(own, "password", "aZ0,.+-_#")
	block, _ := pem.Decode([]byte(e.key))
	der, err := x509.DecryptPEMBlock(block, []byte("aZ0,.+-_#")) //nolint:staticcheck // it is what the service uses here
	if err != nil || block.Type != "EC PRIVATE KEY" {
		t.Fatalf("%s, %v", block.Type, err)
	}
	keyMatches(t, pemText(block.Type, der), e.leaf)

	for name, change := range map[string][]any{
		"no type": {"type", nil}, "type": {"type", "PEM"}, "not said": {"is_compressed", nil}, "compressed": {"is_compressed", "yes"}, "number": {"is_compressed", 1},
		"sm": {"is_sm_standard", "maybe"}, "long": {"password", strings.Repeat("a", 33)}, "empty": {"password", ""}, "sign": {"password", "a b"},
		"umlaut": {"password", "ä"}, "iis": {"type", "IIS"}, "tomcat": {"type", "TOMCAT"}, "unknown": {"x", 1}, "password's type": {"password", 1}, "type's type": {"type", 1},
	} {
		t.Run(name, func(t *testing.T) { wantError(t, export(own, change...), 400, "PCA.00020001") })
	}
	wantError(t, export("x"), 400, "PCA.10010105")
	wantError(t, export(noUUID), 400, "PCA.10010002")
	// The CA's state: disabled and expired are fine, pending deletion and revoked are not.
	for _, status := range authorityStates {
		if err := b.sim.ConsoleSetAuthority(b.issuer, status); err != nil {
			t.Fatal(err)
		}
		r := export(own)
		if status == authorityDeleted || status == authorityRevoked {
			wantError(t, r, 400, "PCA.10019001")
			continue
		}
		wantStatus(t, r, 200)
	}
}

func unzip(t *testing.T, text string) map[string]string {
	t.Helper()
	archive, err := zip.NewReader(bytes.NewReader([]byte(text)), int64(len(text)))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, f := range archive.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[f.Name] = string(content)
	}
	return files
}
