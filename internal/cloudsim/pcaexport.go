package cloudsim

import (
	"archive/zip"
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"time"
)

// Export of a private certificate: reference 4.5.

var exportTypes = []string{"APACHE", "NGINX", "IIS", "TOMCAT", "OTHER"}

// exportForm is the body of an export.
type exportForm struct {
	kind       string
	compressed bool
	password   string // "": the key is not encrypted
}

func readExport(body members) (exportForm, error) {
	var form exportForm
	var err error
	if form.kind, err = body.needText("type"); err != nil {
		return form, err
	}
	if !slices.Contains(exportTypes, form.kind) {
		return form, errors.New("type must be one of " + strings.Join(exportTypes, ", "))
	}
	var given bool
	if form.compressed, given, err = textualTruth(body, "is_compressed"); err != nil || !given {
		return form, errors.New(`is_compressed must be "true" or "false"`)
	}
	if _, _, err := textualTruth(body, "is_sm_standard"); err != nil { // means something for SM2 only
		return form, err
	}
	if form.password, given, err = body.text("password"); err != nil {
		return form, err
	}
	if given && !validPassword(form.password) {
		return form, errors.New("password must have 1 to 32 letters, digits and signs of ,.+-_#")
	}
	return form, nil
}

// textualTruth reads "true" or "false". The schema wants a string; a JSON boolean works too [TF].
func textualTruth(body members, name string) (value, given bool, err error) {
	if value, given, err := body.truth(name); err == nil {
		return value, given, nil
	}
	text, _, err := body.text(name)
	if err != nil || text != "true" && text != "false" {
		return false, true, errors.New(name + ` must be "true" or "false"`)
	}
	return text == "true", true, nil
}

// validPassword takes the signs that the reference names, although it says "like" of them.
func validPassword(password string) bool {
	odd := func(r rune) bool {
		return !strings.ContainsRune(",.+-_#", r) && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}
	return password != "" && len(password) <= 32 && !strings.ContainsFunc(password, odd)
}

// exportPrivate is POST /v1/private-certificates/{certificate_id}/export; it can be repeated.
func (s *Sim) exportPrivate(c *call) answer {
	body, err := pcaBody(c, "type", "is_compressed", "is_sm_standard", "password")
	if err != nil {
		return refusePCA(err)
	}
	form, err := readExport(body)
	if err != nil {
		return refusePCA(err)
	}
	p, refusal, ok := s.findPrivate(c)
	if !ok {
		return refusal
	}
	if refusal, ok := p.exportable(c.now); !ok {
		return refusal
	}
	undefined := form.kind == "IIS" || form.kind == "TOMCAT"
	if undefined && !form.compressed && p.signer != nil {
		return refuse(400, codePCAParameter, "is_compressed must be true for IIS and TOMCAT")
	}
	done := answer{status: 200, objects: []string{p.id}}
	if form.compressed {
		done.raw, err = s.exportZip(p, form, c.now)
		done.content = "application/zip"
		done.header = map[string]string{
			"Content-Disposition": `attachment; filename="` + p.name.commonName + "_" + strings.ToLower(form.kind) + `.zip"`,
		}
	} else {
		done.body, err = s.exportJSON(p, form)
	}
	if err != nil {
		return refuse(500, codePCAInternal, "Internal service error")
	}
	return done
}

// exportable wants an issued certificate; its CA may be disabled or expired, but neither revoked nor about to be
// deleted [HW ccm_06_0010].
func (p *privateCertificate) exportable(now time.Time) (answer, bool) {
	if status := p.issuer.statusAt(now); status == authorityDeleted || status == authorityRevoked {
		return refuse(400, codePCAAuthorityState, "The CA is in a state that does not allow the operation: "+status+"."), false
	}
	if status := p.statusAt(now); status != privateIssued {
		return refuse(400, codePCAState, "Only issued certificates can be exported, not one that is "+status+"."), false
	}
	return answer{}, true
}

func (s *Sim) exportJSON(p *privateCertificate, form exportForm) (object, error) {
	body := object{"certificate": s.crlf(pemOf(p.cert)), "certificate_chain": s.crlf(pemOf(p.issuer.chain()...))}
	if p.signer == nil {
		return body, nil
	}
	key, err := p.keyPEM(form.password)
	body["private_key"] = s.crlf(key)
	return body, err
}

// keyPEM is the key in its traditional form, encrypted when there is a password.
func (p *privateCertificate) keyPEM(password string) (string, error) {
	block := &pem.Block{}
	switch key := p.signer.(type) {
	case *rsa.PrivateKey:
		block.Type, block.Bytes = "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key)
	case *ecdsa.PrivateKey:
		der, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			return "", err
		}
		block.Type, block.Bytes = "EC PRIVATE KEY", der
	}
	if password != "" {
		var err error
		//nolint:staticcheck // weak, and what the traditional form has; the password is the caller's
		if block, err = x509.EncryptPEMBlock(rand.Reader, block.Type, block.Bytes, []byte(password), x509.PEMCipherAES256); err != nil {
			return "", err
		}
	}
	return string(pem.EncodeToMemory(block)), nil
}

// exportZip has the files that the reference lists. server.pfx and server.jks are empty shells: the simulator does not
// write those formats.
func (s *Sim) exportZip(p *privateCertificate, form exportForm, now time.Time) (string, error) {
	certificate, chain := pemOf(p.cert), pemOf(p.issuer.chain()...)
	type file struct{ name, text string }
	files := []file{{"chain.crt", chain}, {"server.crt", certificate}}
	key := ""
	if p.signer != nil {
		var err error
		if key, err = p.keyPEM(form.password); err != nil {
			return "", err
		}
	}
	switch {
	case form.kind == "NGINX":
		files = []file{{"server.crt", certificate + chain}}
	case form.kind == "OTHER" && key == "":
		files = []file{{"chain.pem", chain}, {"cert.pem", certificate}} // [SDK]
	case form.kind == "OTHER":
		files = []file{{"chain.pem", chain}, {"server.pem", certificate}}
	case key != "" && form.kind != "APACHE":
		name := map[string]string{"IIS": "server.pfx", "TOMCAT": "server.jks"}[form.kind]
		files, key = []file{{name, "not simulated"}}, ""
		if form.password == "" {
			files = append(files, file{"keystorePass.txt", hex.EncodeToString(s.randomBytes(8))})
		}
	}
	if key != "" {
		files = append([]file{{"server.key", key}}, files...)
	}
	var packed bytes.Buffer
	archive := zip.NewWriter(&packed)
	for _, f := range files {
		w, err := archive.CreateHeader(&zip.FileHeader{Name: f.name, Method: zip.Deflate, Modified: now})
		if err != nil {
			return "", err
		}
		if _, err := w.Write([]byte(f.text)); err != nil {
			return "", err
		}
	}
	err := archive.Close()
	return packed.String(), err
}
