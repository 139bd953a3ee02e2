package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rotatord/rotatord/internal/admin"
	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/cloudsim"
)

// TestSecretsStayPut runs the built binary with every kind of source, target and login, with a
// cloud that answers with what it was sent, and looks through everything that the daemon says,
// answers, publishes and keeps for each private key, token and password that was used: on disk,
// and on the wire to the cloud. At the end it has the process die with a dump of its stacks.
func TestSecretsStayPut(t *testing.T) {
	t.Parallel()
	s := newSecretive(t)
	p := launch(t, "run", "--config", filepath.Join(s.dir, "rotatord.yaml"))
	s.log = p.log
	line := p.log.waitMessage("rotatord started")
	daemon := &running{p, fmt.Sprint(line["http"]), fmt.Sprint(line["nats"])}
	s.listen(daemon.nats)
	s.allConverged(time.Time{})
	s.tap.echo()
	began := time.Now()
	for _, policy := range s.directories {
		s.renew(policy)
	}
	for _, policy := range []string{"local", "held", "sso"} {
		s.says(0, []string{"rotate", policy, "--force"})
	}
	s.allConverged(began)
	s.askEverything()
	s.crawl(daemon)
	if n := s.tap.echoes(); n < 5 {
		t.Errorf("only %d calls were answered with what was sent", n)
	}
	_ = p.stop(syscall.SIGQUIT)
	s.said("log and stacks", p.log.text())
	s.said("output", string(p.stdout.bytes()))
	s.kept()
	s.search()
}

// secretive is a rig whose secrets are all known.
type secretive struct {
	*issuing
	tap         *tap
	directories []string
	mu          sync.Mutex
	heard       []string
	texts       map[string]string
}

func newSecretive(t *testing.T) *secretive {
	t.Helper()
	hosts := []string{"shop", "token", "agency", "local"}
	cfg := cloudsim.Config{
		AccessKey: simulatedKey, SecretKey: rand.Text(), User: "robot", Password: rand.Text(), Domain: "acme", Agency: "certificates",
		CertificateQuota: -1, Edges: 2, Authorities: []cloudsim.Authority{{CommonName: "Root"}},
		Instances: []cloudsim.IdentityInstance{{Applications: []cloudsim.Application{{Name: "grafana"}}}},
		Gateways:  []cloudsim.Gateway{{Groups: []cloudsim.Group{{Domains: []cloudsim.Domain{{Name: "gw.example.com"}}}}}},
	}
	for _, name := range hosts {
		cfg.Hosts = append(cfg.Hosts, cloudsim.Host{Name: nameOf(name)})
	}
	r := newRigWith(t, cfg)
	info, err := describeSimulator(r.sim, r.dir, r.sim.Config().SecretKey)
	if err != nil {
		t.Fatal(err)
	}
	s := &secretive{issuing: &issuing{r, info}, tap: newTap(t, r.sim.Handler()), texts: map[string]string{}}
	s.configureClouds()
	s.write("password", cfg.Password)
	s.write("keypassword", rand.Text())
	own := filepath.Join(s.dir, "ca.pem")
	proof := func(policy, ca string) string {
		return fmt.Sprintf("verify: {endpoints: [\"%s:443\"], addresses: [%s], ca_file: %s}\n", nameOf(policy), quoted(s.sim.EdgeAddrs()), ca)
	}
	for _, policy := range []string{"shop", "token", "agency", "gw", "files"} {
		target := fmt.Sprintf("{name: edge, waf: {cloud: %s, hosts: [%s]}}", map[string]string{"token": "token", "agency": "agency"}[policy], nameOf(policy))
		target = strings.Replace(target, "cloud: , ", "", 1)
		verify := proof(policy, own)
		switch policy {
		case "gw":
			target = fmt.Sprintf("{name: edge, apig: {instance_id: %s, domains: [%s], replace: new}}", info.GatewayID, nameOf(policy))
		case "files":
			target = fmt.Sprintf("{name: web, file: {directory: %s, full_chain: fullchain.pem, key: privkey.pem, combined: all.pem, reload: {command: [/bin/true]}}}", s.directory("out-files"))
			verify = ""
		}
		s.write("policies/"+policy+".yaml", fmt.Sprintf("name: %s\nsource: {directory: {path: %s, key_password_file: %s}}\ntargets: [%s]\n", policy, s.directory("in-"+policy), filepath.Join(s.dir, "keypassword"), target)+verify)
		s.directories = append(s.directories, policy)
		s.renew(policy)
	}
	s.write("policies/local.yaml", "name: local\n"+s.privateCA("local", `"dns:`+nameOf("local")+`"`, "")+fmt.Sprintf("targets: [{name: edge, waf: {hosts: [%s]}}]\n", nameOf("local"))+proof("local", info.AuthorityFile))
	s.write("policies/held.yaml", "name: held\n"+s.privateCA("cloud", `"dns:held.example.com"`, "")+fmt.Sprintf("targets: [{name: web, file: {directory: %s, full_chain: fullchain.pem, key: privkey.pem}}]\n", s.directory("out-held")))
	s.write("policies/sso.yaml", fmt.Sprintf("name: sso\nsource: {identity_center: {instance_id: %s, application_instance_id: %s, activate: {after: 0s}}}\ntargets: [{name: web, file: {directory: %s, certificate: idp.pem}}]\n",
		info.InstanceID, info.ApplicationID, s.directory("out-sso")))
	return s
}

// configureClouds writes a configuration with one account for each way to log in, all reached
// through the tap.
func (s *secretive) configureClouds() {
	s.t.Helper()
	s.write("tap.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.tap.server.Certificate().Raw})))
	cloud := strings.NewReplacer(s.info.URL, s.tap.server.URL, s.info.CAFile, filepath.Join(s.dir, "tap.pem")).Replace(s.info.cloudYAML())
	account := strings.TrimPrefix(cloud, "clouds:\n")
	key := fmt.Sprintf("access_key: {id: %s, secret_file: %s}", s.info.AccessKey, s.info.SecretFile)
	for name, login := range map[string]string{
		"token":  "password: {user: robot, domain: acme, password_file: password}",
		"agency": "agency: {agency: certificates, domain: acme, access_key: {id: " + s.info.AccessKey + ", secret_file: " + s.info.SecretFile + "}}",
	} {
		other := strings.Replace(strings.Replace(account, key, login, 1), "  default:", "  "+name+":", 1)
		cloud += strings.NewReplacer("&fast", "&fast_"+name, "*fast", "*fast_"+name).Replace(other)
	}
	s.write("rotatord.yaml", "state: state\nnode: test\nhttp: {listen: \"127.0.0.1:0\"}\nnats: {embedded: {listen: \"127.0.0.1:0\"}}\nbrake: {max_share: 99%, max_per_hour: 1000}\n"+cloud)
}

// renew puts a new bundle into a policy's directory, its key encrypted.
func (s *secretive) renew(policy string) {
	s.t.Helper()
	bundle := s.rig.issue("plain", nameOf(policy))
	encrypted := exec.CommandContext(s.t.Context(), "openssl", "pkcs8", "-topk8", "-v2", "aes-256-cbc", "-passout", "file:"+filepath.Join(s.dir, "keypassword"),
		"-in", filepath.Join(s.dir, "plain", nameOf(policy)+".key"))
	key, err := encrypted.Output()
	if err != nil {
		s.t.Fatal(err)
	}
	s.tap.private(bundle.Key)
	s.write("in-"+policy+"/tls.pem", string(bundle.FullChainPEM())+string(key))
}

// listen keeps every event that is published.
func (s *secretive) listen(url string) {
	s.t.Helper()
	conn, err := nats.Connect(url)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(conn.Close)
	_, err = conn.Subscribe("rotatord.event.>", func(m *nats.Msg) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.heard = append(s.heard, fmt.Sprintln(m.Subject, m.Header, string(m.Data)))
	})
	if err == nil {
		err = conn.Flush()
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// allConverged waits until every policy's certificate is served, proven after a time.
func (s *secretive) allConverged(after time.Time) {
	s.t.Helper()
	var missing []string
	deadline := time.Now().Add(2 * patience)
	for time.Now().Before(deadline) {
		code, text, _ := s.ask("status", "-o", "json")
		var status admin.Status
		if code != 0 || json.Unmarshal([]byte(text), &status) != nil {
			pauseFor(s.t, 50*time.Millisecond)
			continue
		}
		missing = nil
		for _, a := range status.Assignments {
			served := len(a.Targets) > 0 && !slices.ContainsFunc(a.Targets, func(t admin.Target) bool { return !t.Current || t.LastSuccess.Before(after) })
			if a.State != "converged" || !served {
				missing = append(missing, a.Policy+" is "+a.State+" "+a.Reason)
			}
		}
		if len(status.Assignments) == len(status.Policies) && len(missing) == 0 {
			return
		}
		pauseFor(s.t, 50*time.Millisecond)
	}
	s.t.Fatalf("not converged: %v", missing)
}

// pauseFor is the pause between two looks at a process.
func pauseFor(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.Fatal("the test ended")
	}
}

func (s *secretive) said(where, text string) { s.texts[where] = text }

// askEverything keeps the answers of every command.
func (s *secretive) askEverything() {
	for _, args := range [][]string{
		{"status", "--all"}, {"plan"}, {"history", "-n", "10000"}, {"history", "verify", "--all"}, {"check"}, {"check", "--online"}, {"reload"}, {"inspect", s.dir},
		{"explain", "shop"}, {"explain", "local"}, {"explain", "held"}, {"explain", "sso"}, {"explain", "gw"},
	} {
		for _, form := range []string{"text", "json"} {
			_, stdout, stderr := s.ask(append(slices.Clone(args), "-o", form)...)
			s.said("rotatord "+strings.Join(args, " ")+" as "+form, stdout+stderr)
		}
	}
}

var hrefs = regexp.MustCompile(`(?:href|src|action)="(/[^"#]*)"`)

// crawl keeps everything that the listener serves, as far as links lead.
func (s *secretive) crawl(daemon *running) {
	s.t.Helper()
	waiting := []string{"/", "/metrics", "/readyz", "/livez", "/api/v1/assignments", "/api/v1/history"}
	for _, policy := range append(slices.Clone(s.directories), "local", "held", "sso") {
		waiting = append(waiting, "/api/v1/assignments/"+policy+"/"+nameOf(policy))
	}
	seen := map[string]bool{}
	for len(waiting) > 0 && len(seen) < 500 {
		path := waiting[0]
		waiting = waiting[1:]
		if seen[path] {
			continue
		}
		seen[path] = true
		text := daemon.ask(path)
		if text == "" {
			s.t.Errorf("%s is empty", path)
		}
		s.said(path, text)
		for _, found := range hrefs.FindAllStringSubmatch(text, -1) {
			waiting = append(waiting, strings.ReplaceAll(found[1], "&amp;", "&"))
		}
	}
}

// kept keeps what is in the state directory, but for the keys' own place, and in the records.
func (s *secretive) kept() {
	s.t.Helper()
	state := filepath.Join(s.dir, "state")
	err := filepath.WalkDir(state, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() || strings.HasPrefix(path, filepath.Join(state, "keys")) {
			return err
		}
		data, err := os.ReadFile(path)
		s.said(path, string(data))
		return err
	})
	if err != nil {
		s.t.Error(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said("events", strings.Join(s.heard, ""))
}

// search looks for every secret in everything.
func (s *secretive) search() {
	s.t.Helper()
	secrets := s.tap.secrets()
	for _, file := range []string{"password", "keypassword", s.info.SecretFile} {
		if !filepath.IsAbs(file) {
			file = filepath.Join(s.dir, file)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			s.t.Fatal(err)
		}
		secrets["what is in "+filepath.Base(file)] = strings.TrimSpace(string(text))
	}
	keys, err := filepath.Glob(filepath.Join(s.dir, "state", "keys", "*", "*"))
	if err != nil || len(keys) == 0 {
		s.t.Errorf("no locally held keys: %v", err)
	}
	for _, file := range append(keys, filepath.Join(s.dir, "out-held", "privkey.pem"), filepath.Join(s.dir, "out-files", "privkey.pem")) {
		text, err := os.ReadFile(file)
		if err != nil {
			s.t.Fatal(err)
		}
		addKey(secrets, file, text)
	}
	for _, kind := range []string{"token", "security", "key"} {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(secrets)), func(name string) bool { return strings.Contains(name, kind) }) {
			s.t.Errorf("no secret of the kind %s was seen among %d", kind, len(secrets))
		}
	}
	forms := map[string]string{}
	for name, secret := range secrets {
		escaped, err := json.Marshal(secret)
		if err != nil {
			s.t.Fatal(err)
		}
		forms[name], forms[name+", in JSON"], forms[name+", in a URL"] = secret, strings.Trim(string(escaped), `"`), url.QueryEscape(secret)
	}
	size := 0
	for where, text := range s.texts {
		size += len(text)
		if strings.Contains(text, "PRIVATE KEY") && !strings.HasPrefix(where, "rotatord inspect") {
			s.t.Errorf("the header of a private key is in %s", where)
		}
		for name, form := range forms {
			if strings.Contains(text, form) {
				s.t.Errorf("%s is in %s", name, where)
			}
		}
	}
	if len(s.texts) < 40 || len(secrets) < 40 || size < 1<<20 {
		s.t.Errorf("only %d secrets were looked for in %d texts of %d bytes", len(secrets), len(s.texts), size)
	}
	s.t.Logf("%d secrets in %d forms, %d texts of %d bytes", len(secrets), len(forms), len(s.texts), size)
}

// tap stands between the daemon and its cloud, and knows every secret that passes.
type tap struct {
	t      *testing.T
	server *httptest.Server
	mu     sync.Mutex
	found  map[string]string
	// echoed are the calls that were answered with what was sent, each once; nil: none is.
	echoed map[string]bool
}

func newTap(t *testing.T, cloud http.Handler) *tap {
	p := &tap{t: t, found: map[string]string{}}
	p.server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, "", http.StatusBadRequest)
			return
		}
		p.note(r.Header, body)
		if p.isCareless(r) {
			p.answerWithRequest(w, r, body)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		answer := httptest.NewRecorder()
		cloud.ServeHTTP(answer, r)
		p.note(answer.Header(), answer.Body.Bytes())
		maps.Copy(w.Header(), answer.Header())
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes())
	}))
	t.Cleanup(p.server.Close)
	return p
}

// echo has each kind of call be answered, once, with what was sent.
func (p *tap) echo() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.echoed = map[string]bool{}
}

var identifier = regexp.MustCompile(`[0-9a-f-]{16,}|ins-[^/]+`)

func (p *tap) isCareless(r *http.Request) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := r.Method + " " + identifier.ReplaceAllString(r.URL.Path, "{id}")
	// A refused password is held back for minutes, and after an issuance of unknown outcome
	// nothing is asked for half a minute.
	slow := strings.Contains(r.URL.Path, "/auth/") || r.Method != http.MethodGet && !strings.Contains(r.URL.Path, "/waf/") && !strings.Contains(r.URL.Path, "/apigw/")
	if p.echoed == nil || p.echoed[key] || slow {
		return false
	}
	p.echoed[key] = true
	return true
}

func (p *tap) echoes() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.echoed)
}

// answerWithRequest is a careless service: its error has everything that it was sent.
func (p *tap) answerWithRequest(w http.ResponseWriter, r *http.Request, body []byte) {
	all := fmt.Sprintf("cannot handle %s %v %s", r.URL, r.Header, body)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Request-Id", strings.Join(r.Header.Values("X-Auth-Token"), " ")+strings.Join(r.Header.Values("X-Security-Token"), " "))
	w.WriteHeader(http.StatusInternalServerError)
	_ = json.NewEncoder(w).Encode(map[string]any{"error_code": "WAF.00010001", "error_msg": all, "message": all, "request_id": string(body), "error": map[string]string{"message": all}})
}

// note looks for secrets in a request or an answer.
func (p *tap) note(h http.Header, body []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, name := range []string{"X-Auth-Token", "X-Security-Token", "X-Subject-Token"} {
		if value := h.Get(name); value != "" {
			p.found["the "+strings.ToLower(name)+" "+value[:min(6, len(value))]] = value
		}
	}
	var value any
	if json.Unmarshal(body, &value) == nil {
		p.walk("", value)
	}
}

func (p *tap) walk(name string, value any) {
	switch v := value.(type) {
	case map[string]any:
		for name, member := range v {
			p.walk(name, member)
		}
	case []any:
		for _, item := range v {
			p.walk(name, item)
		}
	case string:
		switch {
		case strings.Contains(v, "PRIVATE KEY"):
			addKey(p.found, name, []byte(v))
		case slices.Contains([]string{"secret", "securitytoken", "security_token", "password", "secret_access_key"}, strings.ToLower(name)) && v != "":
			p.found["the "+name+" "+v[:min(6, len(v))]] = v
		}
	}
}

// private notes a key that never passes here in the clear.
func (p *tap) private(key certs.PrivateKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, form := range []certs.KeyForm{certs.PKCS8, certs.Traditional} {
		text, err := key.PEM(form)
		if err != nil {
			p.t.Error(err)
		}
		addKey(p.found, "on disk", text)
	}
}

func (p *tap) secrets() map[string]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.found)
}

// addKey adds the forms in which the keys of a PEM text could be found again: a line of its
// base64, and the secret number itself, raw, in hexadecimal digits and in base64 wherever it
// begins.
func addKey(secrets map[string]string, name string, text []byte) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if !strings.Contains(block.Type, "PRIVATE KEY") {
			continue
		}
		body := base64.StdEncoding.EncodeToString(block.Bytes)
		id := body[len(body)-12 : len(body)-6]
		secrets[fmt.Sprintf("key %s %s, a line", name, id)] = body[64:112]
		number := secretNumber(block.Bytes)
		if number == nil {
			continue
		}
		secrets[fmt.Sprintf("key %s %s, raw", name, id)] = string(number)
		secrets[fmt.Sprintf("key %s %s, hex", name, id)] = hex.EncodeToString(number)
		secrets[fmt.Sprintf("key %s %s, HEX", name, id)] = strings.ToUpper(hex.EncodeToString(number))
		for shift := range 3 {
			shifted := base64.StdEncoding.EncodeToString(append(make([]byte, shift), number...))
			secrets[fmt.Sprintf("key %s %s, base64 from %d", name, id, shift)] = shifted[4 : len(shifted)-4]
		}
	}
}

// secretNumber is the private part of a key, the first 32 bytes of it.
func secretNumber(der []byte) []byte {
	var key any
	for _, parse := range []func([]byte) (any, error){
		x509.ParsePKCS8PrivateKey,
		func(der []byte) (any, error) { return x509.ParseECPrivateKey(der) },
		func(der []byte) (any, error) { return x509.ParsePKCS1PrivateKey(der) },
	} {
		if k, err := parse(der); err == nil {
			key = k
		}
	}
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		number, err := k.Bytes()
		if err != nil {
			return nil
		}
		return number
	case *rsa.PrivateKey:
		return k.D.Bytes()[:32]
	}
	return nil
}
