package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/bus"
	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/cloudsim"
	"github.com/rotatord/rotatord/internal/journal"
	"github.com/rotatord/rotatord/internal/rotation"
)

// estate is what one daemon looks after in the tests that kill it and spoil its state: a
// cloud that outlives it, in a process of its own, and a policy of every kind. It knows what
// a faultless run would have led to, whatever was done to the daemon.
type estate struct {
	*rig
	cloud *remoteSim
	// bundles are what the directories of policies were given, newest last; made is how many
	// certificates were asked for of the policies that issue.
	bundles map[string][]*certs.Bundle
	made    map[string]int
	// forgotten are certificates that were in force when the journal was lost, and that may
	// stay when they are replaced: of Identity Center, since nothing tells that rotatord had
	// them made, and of the private CA, if their keys were lost too.
	forgotten map[string]bool
	forced    map[string]time.Time
	forces    int
	// since is when a policy was last to be looked at, of those where nothing else shows that
	// it was.
	since   map[string]time.Time
	secrets []string
	// processes are all daemons that ran, for their logs.
	processes []*process
	checked   int // entries of the ledger
	created   map[string]int
}

// The policies of an estate. Those with a directory are given bundles, the others issue.
const (
	shopPolicy    = "shop"    // a host of the firewall and files; keeps one way back
	wwwPolicy     = "www"     // a host of the firewall
	gatewayPolicy = "gw"      // a domain of the gateway, with new certificates
	inPlacePolicy = "inplace" // a domain of the gateway, in place
	localPolicy   = "local"   // a private CA, the key made here; a host of the firewall and files
	cloudPolicy   = "cloud"   // a private CA, the key made there; files
	ssoPolicy     = "sso"     // Identity Center; files
)

var (
	directoryPolicies = []string{shopPolicy, wwwPolicy, gatewayPolicy, inPlacePolicy}
	issuingPolicies   = []string{localPolicy, cloudPolicy, ssoPolicy}
)

// nameOf is the name in the certificate of a policy.
func nameOf(policy string) string { return policy + ".example.com" }

// newEstate makes an estate that has not seen a daemon yet; more is added to every policy.
func newEstate(t *testing.T, more string) *estate {
	t.Helper()
	ca, err := certstest.NewCA("test")
	if err != nil {
		t.Fatal(err)
	}
	e := &estate{rig: &rig{t: t, dir: t.TempDir(), ca: ca}, bundles: map[string][]*certs.Bundle{}, made: map[string]int{}, created: map[string]int{}, forgotten: map[string]bool{}, forced: map[string]time.Time{}, since: map[string]time.Time{}}
	e.cloud = launchSimulator(t, e.dir, "--host", nameOf(shopPolicy), "--host", nameOf(wwwPolicy), "--host", nameOf(localPolicy),
		"--domain", nameOf(gatewayPolicy), "--domain", nameOf(inPlacePolicy), "--propagation", "0s", "--misbehave")
	info := e.cloud.info
	e.write("ca.pem", string(ca.RootPEM()))
	e.write("rotatord.yaml", "state: state\nnode: test\nhttp: {listen: \"127.0.0.1:0\"}\nnats: {embedded: {listen: \"127.0.0.1:0\"}}\nbrake: {max_share: 99%, max_per_hour: 1000000}\n"+info.cloudYAML())
	verify := func(policy, ca string) string {
		return fmt.Sprintf("verify: {endpoints: [\"%s:443\"], addresses: [%s], ca_file: %s}\n", nameOf(policy), quoted(info.Edges), ca)
	}
	own, at := filepath.Join(e.dir, "ca.pem"), func(policy string) string { return filepath.Join(e.dir, "in", policy) }
	const files = "full_chain: fullchain.pem, key: privkey.pem"
	for policy, text := range map[string]string{
		shopPolicy: fmt.Sprintf("source: {directory: {path: %s}}\ntargets:\n  - {name: edge, waf: {hosts: [%s]}}\n  - {name: web, file: {directory: %s, %s}}\nretain: {superseded: 1, for: 0s}\n",
			at(shopPolicy), nameOf(shopPolicy), e.out(shopPolicy), files) + verify(shopPolicy, own),
		wwwPolicy: fmt.Sprintf("source: {directory: {path: %s}}\ntargets: [{name: edge, waf: {hosts: [%s]}}]\nretain: {superseded: 0, for: 0s}\n",
			at(wwwPolicy), nameOf(wwwPolicy)) + verify(wwwPolicy, own),
		gatewayPolicy: fmt.Sprintf("source: {directory: {path: %s}}\ntargets: [{name: edge, apig: {instance_id: %s, domains: [%s], replace: new}}]\nretain: {superseded: 0, for: 0s}\n",
			at(gatewayPolicy), info.GatewayID, nameOf(gatewayPolicy)) + verify(gatewayPolicy, own),
		inPlacePolicy: fmt.Sprintf("source: {directory: {path: %s}}\ntargets: [{name: edge, apig: {instance_id: %s, domains: [%s], replace: in_place}}]\nretain: {superseded: 0, for: 0s}\n",
			at(inPlacePolicy), info.GatewayID, nameOf(inPlacePolicy)) + verify(inPlacePolicy, own),
		localPolicy: fmt.Sprintf("source: {private_ca: {issuer_id: %s, common_name: %[2]s, names: [\"dns:%[2]s\"], key: {held: local}, validity: 90d, superseded: revoke}}\n"+
			"targets:\n  - {name: edge, waf: {hosts: [%[2]s]}}\n  - {name: web, file: {directory: %[3]s, %[4]s}}\nretain: {superseded: 0, for: 0s}\n",
			info.AuthorityID, nameOf(localPolicy), e.out(localPolicy), files) + verify(localPolicy, info.AuthorityFile),
		cloudPolicy: fmt.Sprintf("source: {private_ca: {issuer_id: %s, common_name: %s, key: {held: cloud}, validity: 90d, superseded: revoke}}\n"+
			"targets: [{name: web, file: {directory: %s, %s}}]\nretain: {superseded: 0, for: 0s}\n", info.AuthorityID, nameOf(cloudPolicy), e.out(cloudPolicy), files),
		ssoPolicy: fmt.Sprintf("source: {identity_center: {instance_id: %s, application_instance_id: %s, activate: {after: 0s}}}\n"+
			"targets: [{name: web, file: {directory: %s, certificate: idp.pem}}]\nretain: {superseded: 0, for: 0s}\n", info.InstanceID, info.ApplicationID, e.out(ssoPolicy)),
	} {
		e.write("policies/"+policy+".yaml", "name: "+policy+"\n"+text+more)
		if err := os.MkdirAll(e.out(policy), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	secret, err := os.ReadFile(info.SecretFile)
	if err != nil {
		t.Fatal(err)
	}
	e.secrets = append(e.secrets, strings.TrimSpace(string(secret)))
	e.byHand()
	for _, policy := range directoryPolicies {
		e.renew(policy)
	}
	e.made[localPolicy], e.made[cloudPolicy] = 1, 1 // Identity Center has one already
	return e
}

// out is where the files of a policy go.
func (e *estate) out(policy string) string { return filepath.Join(e.dir, "out", policy) }

func (e *estate) state() string { return filepath.Join(e.dir, "state") }

// during makes a subtest the one that waits and fails.
func (e *estate) during(t *testing.T) {
	e.t, e.cloud.t = t, t
}

// byHand adds what somebody else made, and what must still be there in the end: unbound at the
// firewall and the private CA, bound at the gateway.
func (e *estate) byHand() {
	e.t.Helper()
	for _, policy := range directoryPolicies {
		b, err := e.ca.Issue(certstest.Options{Names: []string{nameOf(policy)}, NotBefore: time.Now().Add(-48 * time.Hour)})
		if err != nil {
			e.t.Fatal(err)
		}
		key, err := b.Key.PEM(certs.Traditional)
		if err != nil {
			e.t.Fatal(err)
		}
		upload := map[string]any{"name": "by_hand_" + policy, "certificate": string(b.FullChainPEM()), "key": string(key)}
		if policy == shopPolicy || policy == wwwPolicy {
			e.cloud.call(http.MethodPost, "console/upload", upload, nil)
			continue
		}
		var answer struct {
			ID string `json:"id"`
		}
		upload["instance_id"] = e.cloud.info.GatewayID
		e.cloud.call(http.MethodPost, "console/apig/upload", upload, &answer)
		e.cloud.call(http.MethodPost, "console/apig/bind", map[string]any{"domain": nameOf(policy), "certificate_id": answer.ID}, nil)
	}
	for _, policy := range []string{localPolicy, cloudPolicy} {
		e.cloud.call(http.MethodPost, "console/ca/issue", map[string]any{"issuer_id": e.cloud.info.AuthorityID, "common_name": nameOf(policy), "names": []string{nameOf(policy)}}, nil)
	}
}

// renew puts a new bundle into the directory of a policy.
func (e *estate) renew(policy string) {
	e.t.Helper()
	n := len(e.bundles[policy])
	b, err := e.ca.Issue(certstest.Options{Names: []string{nameOf(policy)}, NotBefore: time.Now().Add(-24 * time.Hour).Truncate(time.Hour).Add(time.Duration(n) * time.Second)})
	if err != nil {
		e.t.Fatal(err)
	}
	e.put(filepath.Join("in", policy), b)
	e.bundles[policy] = append(e.bundles[policy], b)
	for _, form := range []certs.KeyForm{certs.PKCS8, certs.Traditional} {
		key, err := b.Key.PEM(form)
		if err != nil {
			e.t.Fatal(err)
		}
		e.secrets = append(e.secrets, strings.Split(string(key), "\n")[1][8:48])
	}
}

// force asks the running daemon to rotate, and returns when the trigger is in its stream.
func (e *estate) force(p *running, policy string) {
	e.t.Helper()
	// Certificates tell their age in seconds, and nothing else tells which of two is newer.
	<-time.After(time.Until(e.forced[policy].Truncate(time.Second).Add(time.Second + 10*time.Millisecond)))
	e.forced[policy] = time.Now()
	e.forces++
	send(e.t, p.nats, "rotatord.trigger."+policy, `{"force": true, "reason": "test"}`)
	if slices.Contains(issuingPolicies, policy) {
		e.made[policy]++ // that shows it
	} else {
		e.since[policy] = e.forced[policy]
	}
}

// running is a daemon that has bound its listeners.
type running struct {
	*process
	http, nats string
}

// launch starts a daemon, which may be killed before it has done anything.
func (e *estate) launch() *process {
	e.t.Helper()
	p := launch(e.t, "run", "--config", filepath.Join(e.dir, "rotatord.yaml"))
	e.processes = append(e.processes, p)
	return p
}

// started waits for a daemon's listeners.
func (e *estate) started(p *process) *running {
	e.t.Helper()
	line := p.log.waitMessage("rotatord started")
	return &running{p, fmt.Sprint(line["http"]), fmt.Sprint(line["nats"])}
}

// ask gets a page of the daemon's listener; the empty text when it does not answer.
func (p *running) ask(path string) string {
	q, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+p.http+path, nil)
	if err != nil {
		return ""
	}
	answer, err := http.DefaultClient.Do(q)
	if err != nil {
		return ""
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return ""
	}
	return string(body)
}

// inventory is what the cloud has.
type inventory struct {
	Certificates        []cloudsim.CertificateInfo        `json:"certificates"`
	Hosts               []cloudsim.HostInfo               `json:"hosts"`
	APIGCertificates    []cloudsim.APIGCertificateInfo    `json:"apig_certificates"`
	Domains             []cloudsim.DomainInfo             `json:"domains"`
	PrivateCertificates []cloudsim.PrivateCertificateInfo `json:"private_certificates"`
	Applications        []cloudsim.ApplicationInfo        `json:"applications"`
}

func (e *estate) look() (s inventory) {
	e.t.Helper()
	e.cloud.call(http.MethodGet, "state", nil, &s)
	return s
}

// issued are the certificates that an issuing policy had made, oldest first.
func (s inventory) issued(policy string) (fingerprints []string) {
	if policy == ssoPolicy {
		for _, c := range s.Applications[0].Certificates[1:] {
			fingerprints = append(fingerprints, c.Fingerprint)
		}
		return fingerprints
	}
	for i, c := range s.PrivateCertificates {
		if byHand := i < 2; c.CommonName == nameOf(policy) && !byHand {
			fingerprints = append(fingerprints, c.Fingerprint)
		}
	}
	return fingerprints
}

// wanted is what a policy's endpoints are to serve, for as long as all is well: the newest
// bundle of its directory, or the newest certificate that was made for it.
func (e *estate) wanted(s inventory, policy string) string {
	if all := e.bundles[policy]; len(all) > 0 {
		return all[len(all)-1].Fingerprint().String()
	}
	if all := s.issued(policy); len(all) > 0 {
		return all[len(all)-1]
	}
	if policy == ssoPolicy {
		return s.Applications[0].Certificates[0].Fingerprint
	}
	return "something"
}

// unlike tells how the cloud and the files differ from what a faultless run would have
// led to; nothing if they do not.
func (e *estate) unlike(s inventory) (differences []string) {
	differ := func(format string, args ...any) { differences = append(differences, fmt.Sprintf(format, args...)) }
	for _, h := range s.Hosts {
		policy, _, _ := strings.Cut(h.Name, ".")
		if want := e.wanted(s, policy); h.Fingerprint != want || slices.ContainsFunc(h.Served, func(f string) bool { return f != want }) {
			differ("host %s serves %.12s, want %.12s", h.Name, h.Fingerprint, want)
		}
	}
	for _, d := range s.Domains {
		policy, _, _ := strings.Cut(d.Name, ".")
		if want := e.wanted(s, policy); len(d.Certificates) != 1 || d.Certificates[0].Fingerprint != want {
			differ("domain %s has %v, want %.12s", d.Name, d.Certificates, want)
		}
	}
	for policy, file := range map[string]string{shopPolicy: "fullchain.pem", localPolicy: "fullchain.pem", cloudPolicy: "fullchain.pem", ssoPolicy: "idp.pem"} {
		if got, want := fileFingerprint(filepath.Join(e.out(policy), file)).String(), e.wanted(s, policy); got != want {
			differ("the files of %s have %.12s, want %.12s", policy, got, want)
		}
	}
	for _, policy := range []string{localPolicy, cloudPolicy} { // Identity Center: see checkLedger
		if n := len(s.issued(policy)); n != e.made[policy] {
			differ("%d certificates were issued for %s, want %d", n, policy, e.made[policy])
		}
	}
	e.unlikeIdentity(s, differ)
	e.orphans(s, differ)
	return differences
}

func (e *estate) unlikeIdentity(s inventory, differ func(string, ...any)) {
	all, want := s.Applications[0].Certificates, e.wanted(s, ssoPolicy)
	for i, c := range all {
		byHand := i == 0
		if active := c.Status == "ACTIVE"; active != (c.Fingerprint == want) {
			differ("the application's certificate %.12s is %s, wanted is %.12s", c.Fingerprint, c.Status, want)
		}
		if !byHand && c.Fingerprint != want && !e.forgotten[c.Fingerprint] {
			differ("the application's certificate %.12s is left", c.Fingerprint)
		}
	}
	if e.made[ssoPolicy] > 0 && len(all) < 2 {
		differ("the application has no certificate of ours")
	}
}

// orphans tells of what is left at the cloud and should not be, and of what should be and
// is not.
func (e *estate) orphans(s inventory, differ func(string, ...any)) {
	count := map[string]int{}
	for _, c := range s.Certificates {
		count[key2("firewall", c.Name, c.Fingerprint)]++
	}
	for _, c := range s.APIGCertificates {
		count[key2("gateway", c.Name, c.Fingerprint)]++
	}
	want := map[string]int{}
	for _, policy := range []string{shopPolicy, wwwPolicy} {
		want["firewall by_hand_"+policy]++
	}
	for _, policy := range []string{gatewayPolicy, inPlacePolicy} {
		want["gateway by_hand_"+policy]++
	}
	for _, policy := range []string{shopPolicy, wwwPolicy, localPolicy} {
		want["firewall "+e.wanted(s, policy)]++
	}
	want["gateway "+e.wanted(s, gatewayPolicy)]++
	if all := e.bundles[shopPolicy]; len(all) > 1 {
		want["firewall "+all[len(all)-2].Fingerprint().String()]++ // the way back
	}
	if !maps.Equal(count, want) {
		differ("the cloud has the certificates\n  %v\nwant\n  %v", count, want)
	}
}

// forget notes that the journal may be lost.
func (e *estate) forget() {
	e.t.Helper()
	s := e.look()
	e.forgotten[e.wanted(s, ssoPolicy)] = true
	if keys, err := filepath.Glob(filepath.Join(e.state(), "keys", "*", "*")); err == nil && len(keys) == 0 {
		e.forgotten[e.wanted(s, localPolicy)] = true
	}
}

// key2 names a remote certificate: one of ours by what is in it, another by its name.
func key2(where, name, fingerprint string) string {
	if strings.HasPrefix(name, "rd_") {
		return where + " " + fingerprint
	}
	return where + " " + name
}

// atRest reports whether the daemon itself says that everything is done. A trigger that a
// dead daemon had heard and not acknowledged is delivered again half a minute later, in
// another story: by then it must be known for what it is.
func (p *running) atRest() bool {
	converged, calm := map[string]bool{}, 0
	for line := range strings.Lines(p.ask("/metrics")) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "rotatord_assignment_state{") && strings.HasSuffix(line, `,state="converged"} 1`):
			_, policy, _ := strings.Cut(line, `,policy="`)
			policy, _, _ = strings.Cut(policy, `"`)
			converged[policy] = true
		case line == "rotatord_work_queue_depth 0", line == "rotatord_work_waiting 0":
			calm++
		case strings.HasPrefix(line, "rotatord_nats_consumer_pending{") && !strings.HasSuffix(line, "} 0"):
			return false
		}
	}
	return calm == 2 && !slices.ContainsFunc(slices.Concat(directoryPolicies, issuingPolicies), func(policy string) bool { return !converged[policy] })
}

// converged waits until all is as after a faultless run, and the daemon says so.
func (e *estate) converged(p *running) {
	e.t.Helper()
	calm, slow := 0, time.Now().Add(10*time.Second)
	deadline := time.Now().Add(patience)
	for tick := time.NewTicker(15 * time.Millisecond); calm < 2; <-tick.C {
		// What costs least is asked first: the metrics are made and read in full each time.
		differences := e.unlike(e.look())
		if len(differences) == 0 {
			differences = e.unanswered()
		}
		if len(differences) == 0 && !p.atRest() {
			differences = []string{"the daemon is at work"}
		}
		last := strings.Join(differences, "\n")
		if last == "" {
			calm++
			continue
		}
		if calm = 0; time.Now().After(slow) {
			e.t.Logf("this takes long: %s\n%s", last, grepState(p.ask("/metrics")))
			slow = deadline
		}
		if time.Now().After(deadline) {
			e.t.Fatalf("not as after a faultless run, for %s:\n%s\n\n%s\n\nthe daemon's log:\n%s", patience, last, grepState(p.ask("/metrics")), p.log.text())
		}
		select {
		case err := <-p.ended:
			p.ended <- err
			e.t.Fatalf("the daemon ended: %v\n%s", err, p.log.text())
		default:
		}
	}
}

// unanswered tells of forced triggers that nothing has come of yet: a daemon heard them and
// died, and they come again half a minute later.
func (e *estate) unanswered() (differences []string) {
	e.t.Helper()
	made := e.created[ssoPolicy]
	for _, entry := range e.entries(e.checked) {
		if isIdentityCreate(entry) {
			made++
		}
	}
	if want := e.made[ssoPolicy]; made != want {
		differences = append(differences, fmt.Sprintf("%d certificates were issued for %s, want %d", made, ssoPolicy, want))
	}
	for policy, at := range e.since {
		if !slices.ContainsFunc(e.processes, func(p *process) bool { return p.log.looked(policy, at) }) {
			differences = append(differences, fmt.Sprintf("%s was triggered at %s and not looked at since", policy, at))
		}
	}
	return differences
}

// looked reports whether a log tells of a look at a target of a policy since then.
func (l *logTap) looked(policy string, since time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range slices.Backward(l.lines) {
		at, err := time.Parse(time.RFC3339Nano, fmt.Sprint(line["time"]))
		if err == nil && at.Before(since) {
			return false
		}
		if line["msg"] == "step" && line["step"] == "look" && line["policy"] == policy && line["target"] != "" {
			return true
		}
	}
	return false
}

// isIdentityCreate tells the call that makes a certificate at Identity Center.
func isIdentityCreate(entry cloudsim.Entry) bool {
	return entry.Effect && entry.Service == "identity_center" && strings.EqualFold(entry.Operation, "create_certificate")
}

// entries are the calls that the cloud saw after one.
func (e *estate) entries(seq int) []cloudsim.Entry {
	e.t.Helper()
	var l struct {
		Entries []cloudsim.Entry `json:"entries"`
	}
	e.cloud.call(http.MethodGet, fmt.Sprintf("ledger?after=%d", seq), nil, &l)
	return l.Entries
}

func grepState(text string) string {
	return strings.Join(regexp.MustCompile(`(?m)^rotatord_(assignment_state|work_queue|nats_consumer).* [^0]\S*$`).FindAllString(text, -1), "\n")
}

// kill ends a daemon as a power cut of the process does.
func (p *process) kill() {
	_ = p.stop(syscall.SIGKILL)
}

// terminate ends a daemon as systemd does.
func (e *estate) terminate(p *process) {
	e.t.Helper()
	if err := p.stop(syscall.SIGTERM); err != nil {
		e.t.Errorf("after SIGTERM: %v\n%s", err, p.log.text())
	}
}

// checkDead is what must hold at any moment, with the daemon dead or alive: everything is
// served, by something that is there, and files belong together.
func (e *estate) checkDead(before inventory) {
	e.t.Helper()
	s := e.look()
	for _, h := range s.Hosts {
		if !slices.ContainsFunc(s.Certificates, func(c cloudsim.CertificateInfo) bool { return c.ID == h.CertificateID }) {
			e.t.Errorf("host %s is bound to %q, which is not there", h.Name, h.CertificateID)
		}
	}
	for _, d := range s.Domains {
		if len(d.Certificates) == 0 {
			e.t.Errorf("domain %s has no certificate", d.Name)
		}
	}
	if !slices.ContainsFunc(s.Applications[0].Certificates, func(c cloudsim.IdentityCertificateInfo) bool { return c.Status == "ACTIVE" }) {
		e.t.Error("no certificate of the application is active")
	}
	for _, policy := range []string{shopPolicy, localPolicy, cloudPolicy} {
		pair, err := tls.LoadX509KeyPair(filepath.Join(e.out(policy), "fullchain.pem"), filepath.Join(e.out(policy), "privkey.pem"))
		if err != nil {
			e.t.Errorf("the files of %s: %v", policy, err)
			continue
		}
		if got := certs.FingerprintOf(pair.Leaf).String(); got != e.wanted(s, policy) && got != e.wanted(before, policy) && !e.was(policy, got) {
			e.t.Errorf("the files of %s have %.12s, which was never meant for them", policy, got)
		}
	}
	for _, c := range s.PrivateCertificates {
		if c.Status == "REVOKED" && slices.ContainsFunc(s.Hosts, func(h cloudsim.HostInfo) bool { return h.Fingerprint == c.Fingerprint }) {
			e.t.Errorf("private certificate %.12s is revoked, and served", c.Fingerprint)
		}
	}
}

// was reports whether a bundle was in a policy's directory.
func (e *estate) was(policy, fingerprint string) bool {
	return slices.ContainsFunc(e.bundles[policy], func(b *certs.Bundle) bool { return b.Fingerprint().String() == fingerprint })
}

// checkLedger reads what was called since the last time: nothing was made twice, and nobody
// tried to remove what is served.
func (e *estate) checkLedger() {
	e.t.Helper()
	for _, entry := range e.entries(e.checked) {
		e.checked = entry.Seq
		operation := strings.ToLower(entry.Operation)
		if entry.Effect && strings.HasPrefix(operation, "create") && strings.Contains(operation, "certificate") && entry.Fingerprint != "" {
			what := entry.Service + " " + entry.Fingerprint
			if e.created[what]++; e.created[what] > 1 {
				e.t.Errorf("call %d: %s was created %d times", entry.Seq, what, e.created[what])
			}
		}
		if isIdentityCreate(entry) {
			e.created[ssoPolicy]++
		}
		removes := strings.HasPrefix(operation, "delete") || strings.HasPrefix(operation, "revoke")
		if removes && entry.Status >= 400 && entry.Status != http.StatusNotFound && entry.Fault == "" {
			e.t.Errorf("call %d: %s of %v was refused: %d %s %s", entry.Seq, entry.Operation, entry.Objects, entry.Status, entry.Code, entry.Message)
		}
	}
	if n := e.created[ssoPolicy]; n != e.made[ssoPolicy] {
		e.t.Errorf("Identity Center made %d certificates, want %d", n, e.made[ssoPolicy])
	}
}

// records reads the journal of a daemon that is dead, from a copy of its store.
func (e *estate) records() map[string]rotation.Record {
	e.t.Helper()
	store, err := os.MkdirTemp(e.dir, "copy-")
	if err == nil {
		defer os.RemoveAll(store)
		err = os.CopyFS(store, os.DirFS(filepath.Join(e.state(), "nats")))
	}
	if err != nil {
		e.t.Fatal(err)
	}
	b, err := bus.Open(bus.Config{Prefix: "rotatord", Node: "test", StoreDir: store, Logger: slog.New(slog.DiscardHandler), Meter: noMeter{}})
	if err != nil {
		e.t.Fatal(err)
	}
	defer b.Close()
	j, err := journal.Open(e.t.Context(), b.JetStream(), b.JournalBucket(), 1)
	if err != nil {
		e.t.Fatal(err)
	}
	all := map[string]rotation.Record{}
	ctx, cancel := context.WithTimeout(e.t.Context(), patience)
	defer cancel()
	err = j.Watch(ctx, func(_ string, entry journal.Entry) {
		if r, ok := decode(entry); ok {
			all[entry.Policy] = r
		}
	}, cancel)
	if !errors.Is(err, context.Canceled) {
		e.t.Fatal(err)
	}
	return all
}

// noMeter counts nothing.
type noMeter struct{}

func (noMeter) Message(string, string) {}
func (noMeter) Reconnected()           {}

// checkRecords: the journal of the dead daemon says what is true, nothing of it is
// unfinished, and the keys on this host are those of certificates that it knows.
func (e *estate) checkRecords() {
	e.t.Helper()
	s, records := e.look(), e.records()
	for _, policy := range slices.Concat(directoryPolicies, issuingPolicies) {
		r, ok := records[policy]
		switch want := e.wanted(s, policy); {
		case !ok:
			e.t.Errorf("there is no record of %s", policy)
		case r.State != rotation.StateConverged || r.Intent != nil || len(r.Outbox) > 0 || !r.Issuing.Since.IsZero():
			e.t.Errorf("%s is not at rest: state %s (%s), intent %v, %d events, issuing since %s", policy, r.State, r.Reason, r.Intent, len(r.Outbox), r.Issuing.Since)
		case r.Wanted.Fingerprint.String() != want:
			e.t.Errorf("the record of %s has %s, want %.12s", policy, r.Wanted.Fingerprint.Short(), want)
		case r.LookedAt.Before(e.since[policy]):
			e.t.Errorf("%s was triggered at %s and last looked at at %s", policy, e.since[policy], r.LookedAt)
		}
	}
	var handles []string
	for _, issue := range records[localPolicy].Issued {
		handles = append(handles, string(issue.Handle)+".pem")
	}
	keys, err := filepath.Glob(filepath.Join(e.state(), "keys", "*", "*"))
	if err != nil {
		e.t.Fatal(err)
	}
	for _, path := range keys {
		if !slices.Contains(handles, filepath.Base(path)) {
			e.t.Errorf("%s is the key of no certificate that the record knows: %v", path, handles)
		}
	}
	e.checkIssued(s, records)
}

// checkIssued: every private certificate of ours that is valid is in force, or in the record
// as superseded; nothing else was revoked.
func (e *estate) checkIssued(s inventory, records map[string]rotation.Record) {
	e.t.Helper()
	for i, c := range s.PrivateCertificates {
		policy, _, _ := strings.Cut(c.CommonName, ".")
		known := slices.ContainsFunc(records[policy].Issued, func(i rotation.Issue) bool { return i.Info.Fingerprint.String() == c.Fingerprint })
		switch byHand := i < 2; {
		case byHand && c.Status != "ISSUED":
			e.t.Errorf("somebody else's private certificate %.12s is %s", c.Fingerprint, c.Status)
		case !byHand && c.Status == "ISSUED" && !known && !e.forgotten[c.Fingerprint]:
			e.t.Errorf("private certificate %.12s of %s is valid, and the record does not know it", c.Fingerprint, policy)
		case c.Status == "REVOKED" && c.Fingerprint == e.wanted(s, policy):
			e.t.Errorf("private certificate %.12s of %s is in force, and revoked", c.Fingerprint, policy)
		}
	}
}

// checkSecrets looks for secrets in the logs and in the store.
func (e *estate) checkSecrets() {
	e.t.Helper()
	for _, policy := range []string{localPolicy, cloudPolicy} {
		key, err := os.ReadFile(filepath.Join(e.out(policy), "privkey.pem"))
		if err != nil {
			e.t.Error(err)
			continue
		}
		e.secrets = append(e.secrets, strings.Split(string(key), "\n")[1])
	}
	texts := map[string]string{}
	for i, p := range e.processes {
		texts[fmt.Sprintf("log %d", i)] = p.log.text()
	}
	err := filepath.WalkDir(e.state(), func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() || strings.HasPrefix(path, filepath.Join(e.state(), "keys")) {
			return err
		}
		data, err := os.ReadFile(path)
		texts[path] = string(data)
		return err
	})
	if err != nil {
		e.t.Error(err)
	}
	for where, text := range texts {
		if strings.Contains(text, "PRIVATE KEY") {
			e.t.Errorf("the header of a private key is in %s", where)
		}
		for i, secret := range e.secrets {
			if strings.Contains(text, secret) {
				e.t.Errorf("secret %d is in %s", i, where)
			}
		}
	}
}

// check is the one checker of all invariants, for a daemon that was converged and is dead.
func (e *estate) check() {
	e.t.Helper()
	s := e.look()
	for _, difference := range e.unlike(s) {
		e.t.Error(difference)
	}
	e.checkDead(s)
	e.checkLedger()
	e.checkRecords()
}
