//go:build prometheus

package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
)

// scene is what the dashboard is shown on: a real daemon, and a cloud in another process, with
// policies each of which is in a trouble of its own, or in none.
type scene struct {
	*rig
	cloud      *remoteSim
	daemon     *process
	http, nats string
	login      *stubbornServer
}

// The policies of the scene, by what happens to them.
const (
	sceneFine     = "shop"     // rotated again and again, at a firewall
	sceneGateway  = "api"      // rotated at a gateway, whose API fails now and then
	sceneIssued   = "payments" // issued by the private CA, which is down in the end
	sceneAsked    = "sso"      // waits for an acknowledgement
	sceneDrifted  = "www"      // somebody bound another certificate by hand
	sceneFailing  = "blog"     // its reload fails
	scenePaused   = "mail"     // held by somebody
	sceneWindow   = "intranet" // waits for its window
	sceneOverride = "night"    // its window does not come in time
	sceneBroken   = "lab"      // a file is cut off
	sceneOld      = "archive"  // only watched: certificates of all ages
	sceneExpiring = "legacy"   // ends while one looks
	sceneUnserved = "login"    // a server that shows the old certificate on, so that it is rolled back
)

// sceneServed is how many certificates converge at first: five that are only watched, and all
// but the one whose reload fails.
const sceneServed = 5 + 11

func sceneHost(policy string) string { return policy + ".example.com" }

func newScene(t *testing.T) *scene {
	t.Helper()
	ca, err := certstest.NewCA("Example CA")
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{rig: &rig{t: t, dir: t.TempDir(), ca: ca}}
	args := []string{"--edges", "2", "--propagation", "700ms", "--latency", "15ms", "--domain", sceneHost(sceneGateway)}
	for _, policy := range []string{sceneFine, sceneDrifted, scenePaused, sceneWindow, sceneOverride, sceneExpiring} {
		args = append(args, "--host", sceneHost(policy))
	}
	s.cloud = launchSimulator(t, s.dir, args...)
	s.write("ca.pem", string(ca.RootPEM()))
	// Slower than the simulator could bear, so that calls wait.
	cloud := strings.Replace(s.cloud.info.cloudYAML(), "{rate: 50, burst: 50, concurrency: 8}", "{rate: 12, burst: 3, concurrency: 4}", 1)
	s.write("rotatord.yaml", "state: state\nnode: test\nhttp: {listen: \"127.0.0.1:0\"}\nnats: {embedded: {listen: \"127.0.0.1:0\"}}\nbrake: {max_share: 99%, max_per_hour: 1000000}\n"+cloud)
	s.login = serveStubbornly(t, s.out(sceneUnserved))
	s.writePolicies()
	s.fillDirectories()
	s.daemon = launch(t, "run", "--config", filepath.Join(s.dir, "rotatord.yaml"))
	s.log = s.daemon.log
	started := s.log.waitMessage("rotatord started")
	s.nats, s.http = fmt.Sprint(started["nats"]), fmt.Sprint(started["http"])
	return s
}

func (s *scene) out(policy string) string { return filepath.Join(s.dir, "out", policy) }

func (s *scene) writePolicies() {
	info := s.cloud.info
	directory := func(policy string) string {
		return fmt.Sprintf("source: {directory: {path: %s}}\n", filepath.Join(s.dir, policy))
	}
	verify := func(policy string, addresses ...string) string {
		return fmt.Sprintf("verify: {endpoints: [\"%s:443\"], addresses: [%s], ca_file: %s, within: 3s}\n", sceneHost(policy), quoted(addresses), filepath.Join(s.dir, "ca.pem"))
	}
	firewall := func(policy string) string {
		return directory(policy) + fmt.Sprintf("targets: [{name: edge, waf: {hosts: [%s]}}]\n", sceneHost(policy)) + verify(policy, info.Edges...)
	}
	files := func(policy, more string) string {
		return fmt.Sprintf("targets: [{name: server, file: {directory: %s, full_chain: fullchain.pem, key: privkey.pem%s}}]\n", s.out(policy), more)
	}
	for policy, text := range map[string]string{
		sceneFine: firewall(sceneFine),
		sceneGateway: directory(sceneGateway) + fmt.Sprintf("targets: [{name: gateway, apig: {instance_id: %s, domains: [%s], replace: new}}]\nretain: {superseded: 0, for: 0s}\n", info.GatewayID, sceneHost(sceneGateway)) +
			verify(sceneGateway, info.Edges...),
		sceneIssued: fmt.Sprintf("source: {private_ca: {issuer_id: %s, common_name: %s, key: {held: local}, validity: 90d, superseded: revoke}}\nretain: {superseded: 0, for: 0s}\n", info.AuthorityID, sceneHost(sceneIssued)) + files(sceneIssued, ""),
		sceneAsked: fmt.Sprintf("source: {identity_center: {instance_id: %s, application_instance_id: %s, activate: {after: 24h, acknowledgements: [grafana]}}}\n"+
			"targets: [{name: grafana, file: {directory: %s, certificate: idp.pem}}]\n", info.InstanceID, info.ApplicationID, s.out(sceneAsked)),
		sceneDrifted:  firewall(sceneDrifted) + "drift: {every: 10s, action: report}\n",
		sceneFailing:  directory(sceneFailing) + files(sceneFailing, ", reload: {command: [/bin/false]}"),
		scenePaused:   firewall(scenePaused),
		sceneWindow:   firewall(sceneWindow),
		sceneOverride: firewall(sceneOverride),
		sceneBroken:   directory(sceneBroken) + files(sceneBroken, ""),
		sceneOld:      directory(sceneOld),
		sceneExpiring: firewall(sceneExpiring),
		sceneUnserved: directory(sceneUnserved) + files(sceneUnserved, "") + verify(sceneUnserved, s.login.address),
	} {
		s.write("policies/"+policy+".yaml", "name: "+policy+"\n"+text)
		if err := os.MkdirAll(s.out(policy), 0o755); err != nil {
			s.t.Fatal(err)
		}
	}
}

// bundle issues one that began and ends so many days from now.
func (s *scene) bundle(name string, began, ends float64) *certs.Bundle {
	s.t.Helper()
	day := func(n float64) time.Time { return time.Now().Add(time.Duration(n * 24 * float64(time.Hour))) }
	b, err := s.ca.Issue(certstest.Options{Names: []string{name}, NotBefore: day(began), NotAfter: day(ends)})
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

func (s *scene) fillDirectories() {
	for _, policy := range []string{sceneFine, sceneGateway, sceneDrifted, sceneFailing, scenePaused, sceneWindow, sceneBroken, sceneUnserved} {
		s.put(policy, s.bundle(sceneHost(policy), -61, 29))
	}
	s.put(sceneOverride, s.bundle(sceneHost(sceneOverride), -89, 1))
	s.put(sceneExpiring, s.bundle(sceneHost(sceneExpiring), -90, 40.0/86400))
	for i, ends := range []float64{6, 16, 27, 44, 71} {
		s.put(sceneOld, s.bundle(fmt.Sprintf("site%d.example.com", i+1), ends-90, ends))
	}
}

// fault makes calls of the cloud fail.
func (s *scene) fault(fields map[string]any) { s.cloud.call(http.MethodPost, "faults", fields, nil) }

// act has everything happen, one thing after the other, so that graphs show it.
func (s *scene) act() {
	pace := time.NewTicker(3 * time.Second)
	defer pace.Stop()
	for _, next := range []func(){
		func() { s.renew(sceneFine) },
		s.bindByHand,
		func() {
			s.fault(map[string]any{"name": "internal", "service": "apig", "count": 3})
			s.renew(sceneGateway)
		},
		func() { send(s.t, s.nats, "rotatord.trigger."+sceneIssued, `{"force": true}`) },
		func() { s.login.keep(); s.renew(sceneUnserved) },
		func() {
			s.command("pause", scenePaused, "--reason", "the audit")
			s.renew(scenePaused)
		},
		func() { send(s.t, s.nats, "rotatord.trigger."+sceneAsked, `{"force": true}`) },
		s.closeWindows,
		func() {
			s.fault(map[string]any{"name": "delay", "service": "waf", "count": 12, "delay": "400ms"})
			s.renew(sceneFine)
		},
		s.breakFile,
		func() { s.renew(sceneGateway) },
		func() { s.renew(sceneFailing) },
		func() {
			s.fault(map[string]any{"name": "internal", "service": "ccm"})
			send(s.t, s.nats, "rotatord.trigger."+sceneIssued, `{"force": true}`)
		},
		func() { s.renew(sceneFine) },
		func() {}, // served by now
		func() {
			s.fault(map[string]any{"name": "throttle", "service": "waf", "count": 2, "after": 4})
			s.renew(sceneFine) // the last: nothing is sent for minutes
		},
	} {
		<-pace.C
		next()
	}
}

func (s *scene) renew(policy string) { s.put(policy, s.bundle(sceneHost(policy), -1.0/24, 90)) }

func (s *scene) command(args ...string) {
	s.t.Helper()
	cmd := exec.Command(s.daemon.cmd.Path, append(args, "--config", filepath.Join(s.dir, "rotatord.yaml"))...)
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("%v: %v\n%s", args, err, out)
	}
}

// closeWindows lets two policies change their targets in half a year; one of them has a
// certificate that does not live so long.
func (s *scene) closeWindows() {
	month := (int(time.Now().Month())+5)%12 + 1
	for _, policy := range []string{sceneWindow, sceneOverride} {
		file := "policies/" + policy + ".yaml"
		text, err := os.ReadFile(filepath.Join(s.dir, file))
		if err != nil {
			s.t.Fatal(err)
		}
		s.write(file, fmt.Sprintf("%swhen: {windows: [{start: \"0 3 1 %d *\", duration: 1h, time_zone: UTC}], expiry_wins: 72h}\n", text, month))
	}
	s.command("reload")
	s.renew(sceneWindow)
	s.renew(sceneOverride)
}

// bindByHand does at the firewall what nobody should.
func (s *scene) bindByHand() {
	b := s.bundle(sceneHost(sceneDrifted), -70, 20)
	key, err := b.Key.PEM(certs.Traditional)
	if err != nil {
		s.t.Fatal(err)
	}
	var uploaded struct {
		ID string `json:"id"`
	}
	s.cloud.call(http.MethodPost, "console/upload", map[string]any{"name": "by-hand", "certificate": string(b.FullChainPEM()), "key": string(key)}, &uploaded)
	s.cloud.call(http.MethodPost, "console/bind", map[string]any{"host": sceneHost(sceneDrifted), "certificate_id": uploaded.ID}, nil)
}

// breakFile cuts a certificate off in its middle.
func (s *scene) breakFile() {
	path := filepath.Join(s.dir, sceneBroken, sceneHost(sceneBroken)+".crt")
	text, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, text[:len(text)/4], 0o600)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// stubbornServer serves TLS with the pair that is in a directory, and after keep with the one
// that it had then: it is never reloaded.
type stubbornServer struct {
	dir, address string
	mu           sync.Mutex
	kept         *tls.Certificate
}

func serveStubbornly(t *testing.T, dir string) *stubbornServer {
	t.Helper()
	s := &stubbornServer{dir: dir}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.certificate() }})
	if err != nil {
		t.Fatal(err)
	}
	s.address = listener.Addr().String()
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				go func() {
					_ = c.(*tls.Conn).Handshake()
					_ = c.Close()
				}()
			}
		}
	}()
	return s
}

func (s *stubbornServer) certificate() (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept != nil {
		return s.kept, nil
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(s.dir, "fullchain.pem"), filepath.Join(s.dir, "privkey.pem"))
	return &pair, err
}

func (s *stubbornServer) keep() {
	if pair, err := s.certificate(); err == nil {
		s.mu.Lock()
		s.kept = pair
		s.mu.Unlock()
	}
}
