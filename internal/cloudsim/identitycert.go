package cloudsim

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Certificates of application instances: [S000], reference 5.2 and 5.4. The service makes key and certificate; the key
// never leaves it, and nothing here needs it again.

// identityKeys is how many keys the service uses in turn: RSA keys are slow to make, and nobody sees them.
const identityKeys = 4

type identityCertificate struct {
	id     string
	number int // in the order of creation, over all application instances
	made   time.Time
	cert   *x509.Certificate
}

func (i *identityCertificate) fingerprint() string {
	sum := sha256.Sum256(i.cert.Raw)
	return hex.EncodeToString(sum[:])
}

// newCertificate makes a self-signed certificate. It ends at midnight UTC of the day on which its life would be over.
func (st *identityState) newCertificate(s *Sim, app *identityApplication, now time.Time) (*identityCertificate, error) {
	key, err := newKey(keyRSA2048, st.made%identityKeys)
	if err != nil {
		return nil, err
	}
	from := now.UTC().Truncate(time.Second)
	year, month, day := from.AddDate(0, identityTTLs[app.ttl], 0).Date()
	template := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(append([]byte{1}, s.randomBytes(15)...)), Subject: pkix.Name{CommonName: app.id},
		NotBefore: from, NotAfter: time.Date(year, month, day, 0, 0, 0, 0, time.UTC),
		KeyUsage: x509.KeyUsageDigitalSignature, SignatureAlgorithm: x509.SHA256WithRSA,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	made := &identityCertificate{id: certificatePrefix + asUUID(s.newID()), number: st.made, made: now, cert: cert}
	st.made++
	app.certs = append(app.certs, made)
	return made, nil
}

// row is a certificate as every answer shows it. Times are ms of whole seconds, the size of the key is a text [S000].
func (app *identityApplication) row(i *identityCertificate) object {
	_, bits := splitAlgorithm(i.cert.PublicKey)
	return object{
		"certificate_id": i.id, "status": app.statusOf(i), "algorithm": "SHA256withRSA", "key_size": strconv.Itoa(bits),
		"issue_date": i.cert.NotBefore.UnixMilli(), "expiry_date": i.cert.NotAfter.UnixMilli(),
		"certificate": crlfLines(pemOf(i.cert)),
	}
}

func (app *identityApplication) statusOf(i *identityCertificate) string {
	if i == app.active {
		return "ACTIVE"
	}
	return "INACTIVE"
}

// find checks the id of the path and looks it up.
func (app *identityApplication) find(c *call) (*identityCertificate, answer, bool) {
	id := c.params["certificate_id"]
	if rest, ok := strings.CutPrefix(id, certificatePrefix); !ok || !isUUID(rest) {
		return nil, c.badIdentity("certificate_id is invalid"), false
	}
	for _, cert := range app.certs {
		if cert.id == id {
			return cert, answer{}, true
		}
	}
	return nil, c.refuseIdentity(404, codeIdentityMissing, "The certificate does not exist"), false
}

// createIdentityCertificate is POST …/certificates, which takes no body and nothing that could name the certificate.
func (s *Sim) createIdentityCertificate(c *call) answer {
	app, refusal, ok := s.identityWrite(c)
	if !ok {
		return refusal
	}
	if app.limit > 0 && len(app.certs) >= app.limit {
		return c.refuseIdentity(409, codeIdentityLimit, "The application instance has too many certificates")
	}
	made, err := s.identity.newCertificate(s, app, c.now)
	if err != nil {
		return c.refuseIdentity(500, codeIdentityInternal, "Internal error")
	}
	return answer{
		status: 201, body: object{"application_instance_certificate": app.row(made)}, effect: true,
		objects: []string{made.id, app.id}, fingerprint: made.fingerprint(),
	}
}

// listIdentityCertificates is GET …/certificates, the PEM among its rows.
func (s *Sim) listIdentityCertificates(c *call) answer {
	if refusal, ok := identityQuery(c, "limit", "marker"); !ok {
		return refusal
	}
	app, refusal, ok := s.findApplication(c)
	if !ok {
		return refusal
	}
	known := slices.DeleteFunc(slices.Clone(app.certs), func(i *identityCertificate) bool {
		return c.now.Before(i.made.Add(s.cfg.ListLag))
	})
	found, page, refusal, ok := identityList(s, c, app.id, known, func(i *identityCertificate) int { return i.number })
	if !ok {
		return refusal
	}
	rows := []any{}
	for _, cert := range found {
		rows = append(rows, app.row(cert))
	}
	return answer{status: 200, body: object{"application_instance_certificates": rows, "page_info": page}}
}

// activateIdentityCertificate is PUT …/certificates/{certificate_id}: the one that was active is so no longer (doubt 1).
func (s *Sim) activateIdentityCertificate(c *call) answer {
	app, refusal, ok := s.identityWrite(c)
	if !ok {
		return refusal
	}
	cert, refusal, ok := app.find(c)
	if !ok {
		return refusal
	}
	if c.now.After(cert.cert.NotAfter) {
		return c.refuseIdentity(400, codeIdentityRefused, "The certificate has expired")
	}
	changed := app.active != cert
	app.active = cert
	return answer{
		status: 200, body: object{"application_instance_certificate": app.row(cert)}, effect: changed,
		objects: []string{cert.id, app.id}, fingerprint: cert.fingerprint(),
	}
}

// deleteIdentityCertificate is DELETE …/certificates/{certificate_id}: 200 and no body. The active one is refused
// (doubt 1).
func (s *Sim) deleteIdentityCertificate(c *call) answer {
	app, refusal, ok := s.identityWrite(c)
	if !ok {
		return refusal
	}
	cert, refusal, ok := app.find(c)
	if !ok {
		return refusal
	}
	if cert == app.active {
		return c.refuseIdentity(400, codeIdentityRefused, "The active certificate cannot be deleted")
	}
	at := slices.Index(app.certs, cert)
	app.certs = slices.Delete(app.certs, at, at+1)
	return answer{status: 200, effect: true, objects: []string{cert.id, app.id}}
}
