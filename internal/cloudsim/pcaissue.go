package cloudsim

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Private certificates are made here, in both ways: reference 4.2 and 4.3.

const (
	genGenerate = "GENERATE"
	genCSR      = "CSR"
	csrHash     = "SHA384" // fixed by the service (reference 4.3)
	longestCSR  = 5120
	typeEntity  = "ENTITY_CERT"
)

// privateCertificate is a private certificate. signer is nil when the key is with the caller.
type privateCertificate struct {
	id, serial         string
	issuer             *authority
	genMode            string
	keyAlgorithm, hash string
	name               distinguishedName
	eps                string
	made               time.Time
	cert               *x509.Certificate
	signer             crypto.Signer
	revoked            string // the reason, "" when it is not revoked
	tags               map[string]string
}

func (p *privateCertificate) fingerprint() string {
	sum := sha256.Sum256(p.cert.Raw)
	return hex.EncodeToString(sum[:])
}

// createPrivate is POST /v1/private-certificates. The answer is the id and nothing else; there is no idempotency key,
// and equal names are fine.
func (s *Sim) createPrivate(c *call) answer {
	body, err := pcaBody(c, "issuer_id", "key_algorithm", "signature_algorithm", "distinguished_name", "validity", "key_usages",
		"subject_alternative_names", "extended_key_usage", "customized_extension", "enterprise_project_id")
	if err != nil {
		return refusePCA(err)
	}
	issuer, refusal, ok := s.readIssuer(c, body)
	if !ok {
		return refusal
	}
	i, err := s.readIssuance(body, issuer, c.now)
	if err != nil {
		return refusePCA(err)
	}
	return s.answerIssue(c, i, nil)
}

// createPrivateByCSR is POST /v1/private-certificates/csr. subject_alternative_names is "reserved" and ignored.
func (s *Sim) createPrivateByCSR(c *call) answer {
	body, err := pcaBody(c, "issuer_id", "csr", "validity", "type", "path_length", "subject_alternative_names", "enterprise_project_id")
	if err != nil {
		return refusePCA(err)
	}
	issuer, refusal, ok := s.readIssuer(c, body)
	if !ok {
		return refusal
	}
	i, public, err := s.readCSRIssuance(body, issuer, c.now)
	if err != nil {
		return refusePCA(err)
	}
	return s.answerIssue(c, i, public)
}

// readIssuer reads issuer_id: the id of an active CA.
func (s *Sim) readIssuer(c *call, body members) (*authority, answer, bool) {
	id, err := body.needText("issuer_id")
	if err != nil {
		return nil, refuse(400, codePCAAuthorityID, "Invalid CA ID."), false
	}
	issuer, refusal, ok := s.findAuthority(c, id)
	if !ok {
		return nil, refusal, false
	}
	if status := issuer.statusAt(c.now); status != authorityActive {
		return nil, refuse(400, codePCAAuthorityState, "The CA is in a state that does not allow the operation: "+status+"."), false
	}
	return issuer, answer{}, true
}

// answerIssue makes the certificate; public is nil when the service makes the key.
func (s *Sim) answerIssue(c *call, i issuance, public crypto.PublicKey) answer {
	cert, err := s.issue(i, public, c.now)
	if err != nil {
		return refusePCA(err)
	}
	return answer{
		status: 200, body: object{"certificate_id": cert.id}, effect: true, objects: []string{cert.id},
		fingerprint: cert.fingerprint(), name: cert.name.commonName,
	}
}

var errPrivateQuota = pcaError{codePCAQuota, "The quota of private certificates is used up."}

// issue signs and keeps a certificate. The console shares it.
func (s *Sim) issue(i issuance, public crypto.PublicKey, now time.Time) (*privateCertificate, error) {
	if len(s.pca.certs) >= s.cfg.PrivateCertificateQuota {
		return nil, errPrivateQuota
	}
	made := &privateCertificate{
		issuer: i.issuer, genMode: i.genMode, keyAlgorithm: i.keyAlgorithm, hash: i.hash, name: i.name, eps: i.eps, made: now,
		tags: map[string]string{},
	}
	if public == nil {
		signer, err := s.pca.newKey(i.keyAlgorithm)
		if err != nil {
			return nil, err
		}
		made.signer, public = signer, signer.Public()
	}
	made.serial, i.template.SerialNumber = s.newSerial(now)
	i.template.SignatureAlgorithm = signatureOf(i.issuer.signer, i.hash)
	der, err := x509.CreateCertificate(rand.Reader, i.template, i.issuer.cert, public, i.issuer.signer)
	if err == nil {
		made.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		return nil, errors.New("no certificate can be made of that")
	}
	made.id = asUUID(s.newID())
	s.pca.certs = append(s.pca.certs, made)
	return made, nil
}

// newSerial is a serial number like those of the examples: the time to the second and ten digits. No page says whether
// the text is decimal; misbehaving, by the seed, the certificate's number is its hexadecimal reading.
func (s *Sim) newSerial(now time.Time) (string, *big.Int) {
	digits := s.randomBytes(10)
	for i, b := range digits {
		digits[i] = '0' + b%10
	}
	text := now.UTC().Format("20060102150405") + string(digits)
	base := 10
	if s.either("base of serial_number") {
		base = 16
	}
	number, _ := new(big.Int).SetString(text, base) // digits only
	return text, number
}

// signatureOf joins the kind of the CA's key and the hash.
func signatureOf(signer crypto.Signer, hash string) x509.SignatureAlgorithm {
	_, isRSA := signer.Public().(*rsa.PublicKey)
	switch {
	case isRSA && hash == "SHA512":
		return x509.SHA512WithRSA
	case isRSA && hash == "SHA384":
		return x509.SHA384WithRSA
	case isRSA:
		return x509.SHA256WithRSA
	case hash == "SHA512":
		return x509.ECDSAWithSHA512
	case hash == "SHA384":
		return x509.ECDSAWithSHA384
	}
	return x509.ECDSAWithSHA256
}

// readCSRIssuance checks the body of an application by CSR: subject and public key come from it.
func (s *Sim) readCSRIssuance(body members, issuer *authority, now time.Time) (issuance, crypto.PublicKey, error) {
	i := issuance{issuer: issuer, genMode: genCSR, hash: csrHash, template: &x509.Certificate{}}
	request, err := readCSR(body)
	if err != nil {
		return i, nil, err
	}
	if i.keyAlgorithm = algorithmOfKey(request.PublicKey); !isKeyAlgorithm(i.keyAlgorithm) {
		return i, nil, pcaError{codePCAKeyAlgorithm, "Invalid key algorithm. Only RSA2048, RSA4096, EC256, and EC384 are supported."}
	}
	i.name = nameOf(request.Subject)
	for n, f := range i.name.fields() {
		if (n == 0 || *f.value != "") && !f.valid() {
			return i, nil, pcaError{codePCAName, "Incorrect certificate distinguished name: " + f.name + "."}
		}
	}
	i.template.RawSubject = request.RawSubject
	if err := s.readValidity(body, i.template, issuer, now); err != nil {
		return i, nil, err
	}
	if err := checkCSRKind(body); err != nil {
		return i, nil, err
	}
	if i.eps, err = readEPS(body); err != nil {
		return i, nil, err
	}
	s.takeExtensions(request, i.template)
	return i, request.PublicKey, nil
}

// checkCSRKind reads type and path_length. Making subordinate CAs is not simulated.
func checkCSRKind(body members) error {
	kind, given, err := body.text("type")
	switch {
	case err != nil:
		return err
	case given && kind == "INTERMEDIATE_CA":
		return errors.New("the simulator makes no subordinate CAs")
	case given && kind != typeEntity:
		return errors.New("type must be ENTITY_CERT or INTERMEDIATE_CA")
	}
	if _, given := body["path_length"]; given {
		return pcaError{"PCA.00020203", "Invalid CA path length. It is for a subordinate CA only."}
	}
	_, _, err = body.list("subject_alternative_names")
	return err
}

// readCSR reads csr: one PEM block with the lines of the caller's choice, signed by its own key.
func readCSR(body members) (*x509.CertificateRequest, error) {
	text, err := body.needText("csr")
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode([]byte(strings.TrimSpace(text)))
	switch {
	case len(text) > longestCSR:
		return nil, errors.New("csr is longer than 5120 characters")
	case !strings.HasPrefix(strings.TrimSpace(text), "-----BEGIN ") || block == nil || len(bytes.TrimSpace(rest)) > 0 || len(block.Headers) > 0:
		return nil, errors.New("csr is not one PEM block")
	case block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST":
		return nil, errors.New("csr is not a certificate signing request")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, errors.New("csr cannot be parsed")
	}
	if request.CheckSignature() != nil {
		return nil, errors.New("the signature of csr is wrong")
	}
	return request, nil
}

// takeExtensions copies what the CSR asks for: the key usage, and the rest unless Config.IgnoreCSRExtensions says
// otherwise (doubt 18). What makes a CA, and key identifiers, are the service's own business.
func (s *Sim) takeExtensions(request *x509.CertificateRequest, template *x509.Certificate) {
	own := []asn1.ObjectIdentifier{oidBasicConstraints, {2, 5, 29, 14}, {2, 5, 29, 35}}
	hasUsage := false
	for _, ext := range request.Extensions {
		isUsage := ext.Id.Equal(oidExtKeyUsage)
		hasUsage = hasUsage || isUsage
		if isUsage || !s.cfg.IgnoreCSRExtensions && !slices.ContainsFunc(own, ext.Id.Equal) {
			template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: ext.Id, Critical: ext.Critical, Value: ext.Value})
		}
	}
	if !hasUsage {
		template.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyAgreement
	}
}

// algorithmOfKey is the key_algorithm of a public key.
func algorithmOfKey(public any) string {
	kind, bits := splitAlgorithm(public)
	return kind + strconv.Itoa(bits)
}

// splitAlgorithm is the kind of a public key and its size, "" for one that is neither RSA nor EC.
func splitAlgorithm(public any) (kind string, bits int) {
	switch key := public.(type) {
	case *rsa.PublicKey:
		return "RSA", key.N.BitLen()
	case *ecdsa.PublicKey:
		return "EC", key.Curve.Params().BitSize
	}
	return "", 0
}

// parseCSR is POST /v1/private-certificates/csr/parse. The names of the CSR are not in the answer.
func (s *Sim) parseCSR(c *call) answer {
	body, err := pcaBody(c, "csr")
	if err != nil {
		return refusePCA(err)
	}
	request, err := readCSR(body)
	if err != nil {
		return refusePCA(err)
	}
	kind, length := splitAlgorithm(request.PublicKey)
	public, err := x509.MarshalPKIXPublicKey(request.PublicKey)
	if err != nil || kind == "" {
		return refusePCA(pcaError{codePCAKeyAlgorithm, "Invalid key algorithm."})
	}
	name := nameOf(request.Subject)
	return answer{status: 200, body: object{
		"key_algorithm": kind, "key_algorithm_length": length, "signature_algorithm": signatureText(request.SignatureAlgorithm),
		"public_key":         s.crlf(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))),
		"distinguished_name": name.object(),
	}}
}

// signatureText writes a signature algorithm like the SDK's example, SHA256withRSA.
func signatureText(algorithm x509.SignatureAlgorithm) string {
	text := algorithm.String()
	if hash, isECDSA := strings.CutPrefix(text, "ECDSA-"); isECDSA {
		return hash + "withECDSA"
	}
	return strings.Replace(text, "-RSA", "withRSA", 1)
}
