package cloudsim

import (
	"cmp"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"
)

// CAs of the private CA service: reference 4.7. They come from the configuration, with real keys and certificates.

const (
	authorityActive   = "ACTIVED"
	authorityPending  = "PENDING"
	authorityDisabled = "DISABLED"
	authorityDeleted  = "DELETED"
	authorityExpired  = "EXPIRED"
	authorityRevoked  = "REVOKED"

	authorityRoot        = "ROOT"
	authoritySubordinate = "SUBORDINATE"
	rootPathLength       = 7 // what a root shows, although it has no limit
	authorityAge         = 365 * 24 * time.Hour
	deletionWait         = 7 * 24 * time.Hour // 7 to 30 days
)

var authorityStates = []string{authorityActive, authorityPending, authorityDisabled, authorityDeleted, authorityExpired, authorityRevoked}

type authority struct {
	id           string
	name         distinguishedName
	parent       *authority // nil for a root
	keyAlgorithm string
	serial       string
	status       string // as it was set; see statusAt
	deleteAt     time.Time
	pathLength   int
	signer       crypto.Signer
	cert         *x509.Certificate
}

// statusAt is the status; the end of the certificate ends what works with it.
func (a *authority) statusAt(now time.Time) string {
	if (a.status == authorityActive || a.status == authorityDisabled) && now.After(a.cert.NotAfter) {
		return authorityExpired
	}
	return a.status
}

func (a *authority) kind() string {
	if a.parent == nil {
		return authorityRoot
	}
	return authoritySubordinate
}

// chain is its certificate and those above it, up to the root.
func (a *authority) chain() []*x509.Certificate {
	chain := []*x509.Certificate{a.cert}
	if a.parent != nil {
		chain = append(chain, a.parent.chain()...)
	}
	return chain
}

// setStatus is a person's doing.
func (a *authority) setStatus(status string, now time.Time) {
	a.status, a.deleteAt = status, time.Time{}
	if status == authorityDeleted {
		a.deleteAt = now.Add(deletionWait)
	}
}

// checkedAuthorities returns a copy of list with defaults, or what is wrong with it.
func checkedAuthorities(list []Authority) ([]Authority, error) {
	list = slices.Clone(list)
	var problems []error
	seen := map[string]bool{}
	for i := range list {
		a := &list[i]
		setDefault(&a.KeyAlgorithm, keyEC256)
		setDefault(&a.Status, authorityActive)
		if err := a.check(); err != nil {
			problems = append(problems, fmt.Errorf("authority %q: %w", a.CommonName, err))
		}
		if seen[a.CommonName] || a.ID != "" && seen[a.ID] {
			problems = append(problems, fmt.Errorf("authority %q: the name or the id is there twice", a.CommonName))
		}
		seen[a.CommonName], seen[a.ID] = true, true
	}
	if len(problems) > 0 {
		return list, errors.Join(problems...)
	}
	return list, checkHierarchy(list)
}

func (a *Authority) check() error {
	name := a.name()
	for i, f := range name.fields() {
		if (i == 0 || *f.value != "") && !f.valid() {
			return fmt.Errorf("%s is invalid", f.name)
		}
	}
	switch {
	case a.ID != "" && !isLowerUUID(a.ID):
		return errors.New("the id is not a UUID in lower case")
	case !isKeyAlgorithm(a.KeyAlgorithm):
		return fmt.Errorf("key algorithm %q", a.KeyAlgorithm)
	case !slices.Contains(authorityStates, a.Status):
		return fmt.Errorf("status %q", a.Status)
	case a.PathLength < 0 || a.PathLength >= rootPathLength:
		return fmt.Errorf("path length %d", a.PathLength)
	}
	return nil
}

func (a *Authority) name() distinguishedName {
	return distinguishedName{
		commonName: a.CommonName, country: a.Country, state: a.State, locality: a.Locality,
		organization: a.Organization, organizationalUnit: a.OrganizationalUnit,
	}
}

// checkHierarchy refuses parents that do not exist and circles, and sets path lengths that are long enough.
func checkHierarchy(list []Authority) error {
	byName := map[string]*Authority{}
	for i := range list {
		byName[list[i].CommonName] = &list[i]
	}
	for i := range list {
		above := &list[i]
		for below := 0; above.Parent != ""; below++ {
			parent := byName[above.Parent]
			if parent == nil {
				return fmt.Errorf("authority %q: its parent %q does not exist", above.CommonName, above.Parent)
			}
			if below > len(list) {
				return fmt.Errorf("authority %q is above itself", above.CommonName)
			}
			if parent.Parent != "" {
				parent.PathLength = max(parent.PathLength, below+1)
			}
			above = parent
		}
	}
	return nil
}

// newPCAState makes the CAs, parents first. Ids that the configuration leaves out are made up and written into it.
func newPCAState(s *Sim) (pcaState, error) {
	p := pcaState{rsaKeys: map[string]int{}}
	made := map[string]*authority{}
	for len(made) < len(s.cfg.Authorities) { // no circles: each round makes one at least
		for i := range s.cfg.Authorities {
			cfg := &s.cfg.Authorities[i]
			parent := made[cfg.Parent]
			if made[cfg.CommonName] != nil || cfg.Parent != "" && parent == nil {
				continue
			}
			if cfg.ID == "" {
				cfg.ID = asUUID(s.newID())
			}
			a, err := p.newAuthority(s, *cfg, parent)
			if err != nil {
				return p, fmt.Errorf("authority %q: %w", cfg.CommonName, err)
			}
			made[cfg.CommonName] = a
		}
	}
	for _, cfg := range s.cfg.Authorities {
		p.authorities = append(p.authorities, made[cfg.CommonName])
	}
	return p, nil
}

func (p *pcaState) newAuthority(s *Sim, cfg Authority, parent *authority) (*authority, error) {
	now := s.now().UTC().Truncate(time.Second)
	a := &authority{
		id: cfg.ID, name: cfg.name(), parent: parent, keyAlgorithm: cfg.KeyAlgorithm, pathLength: cfg.PathLength,
	}
	a.setStatus(cfg.Status, now)
	var err error
	if a.signer, err = p.newKey(cfg.KeyAlgorithm); err != nil {
		return nil, err
	}
	serial, number := s.newSerial(now)
	a.serial = serial
	until := cfg.end(now, parent)
	if parent != nil && until.After(parent.cert.NotAfter) {
		return nil, errors.New("it ends after its parent")
	}
	from := now.Add(-authorityAge)
	if early := until.Add(-authorityAge); early.Before(from) {
		from = early
	}
	a.cert, err = a.sign(number, from, until)
	return a, err
}

// newKey is a key that this simulator has not used yet.
func (p *pcaState) newKey(algorithm string) (crypto.Signer, error) {
	key, err := newKey(algorithm, p.rsaKeys[algorithm])
	p.rsaKeys[algorithm]++
	return key, err
}

func (a *Authority) end(now time.Time, parent *authority) time.Time {
	switch {
	case !a.NotAfter.IsZero():
		return a.NotAfter.UTC().Truncate(time.Second)
	case a.Status == authorityExpired:
		return now.AddDate(0, 0, -1)
	}
	until := now.AddDate(10, 0, 0)
	if parent != nil && parent.cert.NotAfter.Before(until) {
		return parent.cert.NotAfter
	}
	return until
}

// sign makes the CA's certificate.
func (a *authority) sign(number *big.Int, from, until time.Time) (*x509.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: number, Subject: a.name.subject(), NotBefore: from, NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:     true, BasicConstraintsValid: true, MaxPathLen: -1,
	}
	parent, signer := template, a.signer
	if a.parent != nil {
		parent, signer = a.parent.cert, a.parent.signer
		template.MaxPathLen, template.MaxPathLenZero = a.pathLength, a.pathLength == 0
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, a.signer.Public(), signer)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// listAuthorities is GET /v1/private-certificate-authorities.
func (s *Sim) listAuthorities(c *call) answer {
	if err := pcaQuery(c, "limit", "offset", "name", "status", "type", "sort_key", "sort_dir"); err != nil {
		return refusePCA(err)
	}
	status, err := oneOf(c, "status", authorityStates...)
	if err != nil {
		return refusePCA(err)
	}
	kind, err := oneOf(c, "type", authorityRoot, authoritySubordinate)
	if err != nil {
		return refuse(400, "PCA.00020202", "Invalid CA type.")
	}
	found := slices.DeleteFunc(slices.Clone(s.pca.authorities), func(a *authority) bool {
		return !strings.Contains(a.name.commonName, c.query.Get("name")) ||
			status != "" && a.statusAt(c.now) != status || kind != "" && a.kind() != kind
	})
	err = sortRows(c, found, map[string]func(a, b *authority) int{
		"create_time": func(a, b *authority) int { return a.cert.NotBefore.Compare(b.cert.NotBefore) },
		"common_name": func(a, b *authority) int { return strings.Compare(a.name.commonName, b.name.commonName) },
		"type":        func(a, b *authority) int { return strings.Compare(a.kind(), b.kind()) },
		"not_after":   func(a, b *authority) int { return a.cert.NotAfter.Compare(b.cert.NotAfter) },
	}, func(a *authority) string { return a.id })
	if err != nil {
		return refusePCA(err)
	}
	from, to, err := pcaPage(c, len(found))
	if err != nil {
		return refusePCA(err)
	}
	rows := []any{}
	for _, a := range found[from:to] {
		rows = append(rows, s.authorityRow(a, c.now))
	}
	return answer{status: 200, body: object{"total": len(found), "certificate_authorities": rows}}
}

// sortRows orders rows by the query's sort_key and sort_dir: the newest first by default (reference 4.4). Rows that are
// equal in that have the order of their ids, which means none.
func sortRows[T any](c *call, rows []T, keys map[string]func(a, b T) int, id func(T) string) error {
	names := make([]string, 0, len(keys))
	for name := range keys {
		names = append(names, name)
	}
	slices.Sort(names)
	key, err := oneOf(c, "sort_key", names...)
	if err != nil {
		return err
	}
	direction, err := oneOf(c, "sort_dir", "ASC", "DESC")
	if err != nil {
		return err
	}
	setDefault(&key, "create_time")
	compare := keys[key]
	slices.SortFunc(rows, func(a, b T) int {
		order := compare(a, b)
		if direction != "ASC" {
			order = -order
		}
		return cmp.Or(order, strings.Compare(id(a), id(b)))
	})
	return nil
}

// authorityRow is a CA as the list and the details show it.
func (s *Sim) authorityRow(a *authority, now time.Time) object {
	row := object{
		"ca_id": a.id, "type": a.kind(), "status": a.statusAt(now), "path_length": rootPathLength, "issuer_id": nil, "issuer_name": nil,
		"key_algorithm": a.keyAlgorithm, "signature_algorithm": hashOf(a.cert), "freeze_flag": 0, "gen_mode": genGenerate,
		"serial_number": a.serial, "create_time": millis(a.cert.NotBefore), "delete_time": millis(a.deleteAt),
		"not_before": millis(a.cert.NotBefore), "not_after": millis(a.cert.NotAfter), "distinguished_name": a.name.object(),
		"crl_configuration": object{
			"enabled": false, "crl_name": nil, "obs_bucket_name": nil, "valid_days": nil, "crl_dis_point": nil,
		},
		"enterprise_project_id": defaultEPS, "free_quota": 0, "charging_mode": 1, "domain_id": s.cfg.DomainID,
	}
	if a.parent != nil {
		row["path_length"], row["issuer_id"], row["issuer_name"] = a.pathLength, a.parent.id, a.parent.name.commonName
	}
	return row
}

// hashOf is the hash of a certificate's signature, as signature_algorithm names it.
func hashOf(cert *x509.Certificate) string {
	name := cert.SignatureAlgorithm.String() // SHA256-RSA or ECDSA-SHA256
	for _, hash := range []string{"SHA384", "SHA512"} {
		if strings.Contains(name, hash) {
			return hash
		}
	}
	return "SHA256"
}

// showAuthority is GET /v1/private-certificate-authorities/{ca_id}.
func (s *Sim) showAuthority(c *call) answer {
	if err := pcaQuery(c); err != nil {
		return refusePCA(err)
	}
	a, refusal, ok := s.findAuthority(c, c.params["ca_id"])
	if !ok {
		return refusal
	}
	return answer{status: 200, body: s.authorityRow(a, c.now), objects: []string{a.id}}
}

// exportAuthority is POST /v1/private-certificate-authorities/{ca_id}/export, for an active or expired CA only [HW
// ExportCertificateAuthorityCertificate]. The chain goes from the issuing side up to the root (reference 4.7).
func (s *Sim) exportAuthority(c *call) answer {
	if err := pcaQuery(c); err != nil {
		return refusePCA(err)
	}
	a, refusal, ok := s.findAuthority(c, c.params["ca_id"])
	if !ok {
		return refusal
	}
	if status := a.statusAt(c.now); status != authorityActive && status != authorityExpired {
		return refuse(400, codePCAAuthorityState, "The CA is in a state that does not allow the operation: "+status+".")
	}
	body := object{"certificate": s.crlf(pemOf(a.cert)), "certificate_chain": nil}
	if a.parent != nil {
		body["certificate_chain"] = s.crlf(pemOf(a.parent.chain()...))
	}
	return answer{status: 200, body: body, objects: []string{a.id}}
}

// showAuthorityQuota is GET /v1/private-certificate-authorities/quotas.
func (s *Sim) showAuthorityQuota(c *call) answer {
	if err := pcaQuery(c); err != nil {
		return refusePCA(err)
	}
	return quotaAnswer("CERTIFICATE_AUTHORITY", len(s.pca.authorities), authorityQuota)
}
