package policy

import (
	"regexp"
	"slices"
	"strconv"
	"time"
)

// IdentityCenter takes the certificates with which IAM Identity Center signs what it
// tells an application. The service makes key and certificate; the key never leaves it.
type IdentityCenter struct {
	// Cloud is the name of a cloud in the configuration. Default "default". Its login must
	// be able to sign requests.
	Cloud string `yaml:"cloud"`
	// InstanceID is the Identity Center instance.
	InstanceID string `yaml:"instance_id"`
	// ApplicationInstanceID begins with app-ins-.
	ApplicationInstanceID string   `yaml:"application_instance_id"`
	Activate              Activate `yaml:"activate"`
	// Superseded is delete (default: those that rotatord made), delete_all (also those that
	// somebody else made, once they were replaced) or keep.
	Superseded string `yaml:"superseded"`
}

// Activate says when a new certificate becomes the signing one: when all parties have
// acknowledged it, and at the latest some time after they could have it.
type Activate struct {
	// After is that time. Default 24h.
	After *Duration `yaml:"after"`
	// Acknowledgements are the parties that are waited for, by the names they give in
	// their messages on <prefix>.ack.<policy>.
	Acknowledgements []string `yaml:"acknowledgements"`
}

// What becomes of superseded certificates.
const (
	SupersededKeep      = "keep"
	SupersededRevoke    = "revoke"
	SupersededDelete    = "delete"
	SupersededDeleteAll = "delete_all"
)

var applicationSuperseded = []string{SupersededDelete, SupersededDeleteAll, SupersededKeep}

const defaultActivateAfter = Duration(24 * time.Hour)

// ApplicationTarget is the name of the target that activates a certificate of Identity
// Center. No policy writes it down: the source implies it.
const ApplicationTarget = "identity-center"

// The forms of ids (API pages of Identity Center, path parameters).
var (
	identityInstancePattern = regexp.MustCompile(`^[a-zA-Z0-9-]{1,64}$`)
	applicationPattern      = regexp.MustCompile(`^app-ins-[A-Za-z0-9]{16}$`)
	partyPattern            = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
)

func (ic *IdentityCenter) complete(d *document, at string, c *Config) {
	ic.Cloud = completeCloud(d, at, ic.Cloud, c)
	if cloud, ok := c.Clouds[ic.Cloud]; ok && !cloud.Signs() {
		d.addAt(at+".cloud", "Identity Center takes signed requests only, and cloud %q logs in with a password; give it auth.access_key, auth.agency, auth.metadata or auth.environment", ic.Cloud)
	}
	required(d, at, "instance_id", ic.InstanceID)
	if ic.InstanceID != "" && !identityInstancePattern.MatchString(ic.InstanceID) {
		d.addAt(at+".instance_id", "%q is not the id of an Identity Center instance: 1 to 64 letters, digits and hyphens", ic.InstanceID)
	}
	required(d, at, "application_instance_id", ic.ApplicationInstanceID)
	if ic.ApplicationInstanceID != "" && !applicationPattern.MatchString(ic.ApplicationInstanceID) {
		d.addAt(at+".application_instance_id", "%q is not the id of an application instance: app-ins- and 16 letters or digits", ic.ApplicationInstanceID)
	}
	if ic.Activate.After == nil {
		ic.Activate.After = new(defaultActivateAfter)
	}
	for i, party := range ic.Activate.Acknowledgements {
		at := at + ".activate.acknowledgements[" + strconv.Itoa(i) + "]"
		switch {
		case !partyPattern.MatchString(party):
			d.addAt(at, "a party's name has 1 to 63 letters, digits, dots, hyphens and underscores; %q has not", party)
		case slices.Index(ic.Activate.Acknowledgements, party) < i:
			d.addAt(at, "party %q is there twice", party)
		}
	}
	if ic.Superseded == "" {
		ic.Superseded = SupersededDelete
	}
	oneOf(d, at+".superseded", ic.Superseded, applicationSuperseded)
}

// completeApplication refuses what cannot work without a key, and adds the target that
// the source implies.
func (p *Policy) completeApplication(d *document) {
	for i, t := range p.Targets {
		at := "$.targets[" + strconv.Itoa(i) + "]"
		switch {
		case t.Name == ApplicationTarget:
			d.addAt(at+".name", "%q is the name of the target that activates the certificate; take another", t.Name)
		case t.File == nil && t.Kind() != "":
			d.addAt(at, "a certificate of Identity Center comes without its key, and %s needs one; only file targets can have it", t.Kind())
		case t.File != nil && (t.File.Key != "" || t.File.Combined != "" || t.File.PKCS12 != ""):
			d.addAt(at+".file", "a certificate of Identity Center comes without its key; of the files only certificate, chain and full_chain can be written")
		}
	}
	if len(p.Verify.Endpoints) > 0 {
		d.addAt("$.verify.endpoints", "a certificate of Identity Center signs messages, and is not served in TLS handshakes; it is verified by reading the application instance")
	}
	p.Targets = append(p.Targets, Target{Name: ApplicationTarget, Application: p.Source.IdentityCenter})
}
