//go:build cluster

package main

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/cloudsim"
)

// This file is what the tests of several daemons on one NATS cluster run on: three NATS
// servers as processes of their own, with TLS and the accounts of deploy/nats, joined by
// links that can be cut; a simulated cloud; and three daemons.

func init() { commands["nats-server"] = natsServer }

// natsServer is a NATS server with the configuration file that is its argument.
func natsServer() {
	options, err := server.ProcessConfigFile(os.Args[1])
	if err == nil {
		var s *server.Server
		if s, err = server.NewServer(options); err == nil {
			s.ConfigureLogger()
			s.Start()
			s.WaitForShutdown()
			os.Exit(0)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

const natsNodes = 3

// longPatience bounds waits for what a daemon does after another's death: several times the
// time after which NATS hands work to another, and an election or two.
const longPatience = 3 * time.Minute

// long is eventually with that patience.
func long(t *testing.T, what string, ask func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(longPatience); !ask(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s in vain", longPatience, what)
		}
	}
}

// natsCluster is three NATS servers.
type natsCluster struct {
	t         *testing.T
	dir       string
	ca        *certstest.CA
	passwords map[string]string
	nodes     [natsNodes]*natsNode
	links     []*link
	// client is the stem of the certificate and key that dial uses.
	client string
}

// natsNode is one server. It keeps its ports and its store when it is started again.
type natsNode struct {
	name                   string
	dir                    string
	client, route, monitor int
	cmd                    *exec.Cmd
	log                    *lockedBuffer
}

// startNATS starts a cluster and waits until it has leaders.
func startNATS(t *testing.T) *natsCluster {
	t.Helper()
	ca, err := certstest.NewCA("nats")
	if err != nil {
		t.Fatal(err)
	}
	c := &natsCluster{t: t, dir: t.TempDir(), ca: ca, passwords: map[string]string{}}
	for _, user := range []string{"rotatord", "publisher", "party", "reader", "operator"} {
		c.passwords[user] = rand.Text()
	}
	ports, release := freePorts(t, 3*natsNodes)
	for i := range c.nodes {
		name := fmt.Sprintf("n%d", i+1)
		c.nodes[i] = &natsNode{name: name, dir: filepath.Join(c.dir, name), client: ports[3*i], route: ports[3*i+1], monitor: ports[3*i+2], log: &lockedBuffer{}}
	}
	c.pair(c.dir, "client", ca)
	c.client = filepath.Join(c.dir, "client")
	c.credentials()
	for i, n := range c.nodes {
		var routes []string
		for j, to := range c.nodes {
			if j != i {
				l := newLink(t, i, j, to.route)
				c.links = append(c.links, l)
				routes = append(routes, fmt.Sprintf("%q", "nats://"+l.listener.Addr().String()))
			}
		}
		c.configure(n, strings.Join(routes, ", "))
	}
	release()
	for _, n := range c.nodes {
		c.start(n)
	}
	t.Cleanup(func() {
		for _, n := range c.nodes {
			c.kill(n)
		}
		if t.Failed() {
			for _, n := range c.nodes {
				t.Logf("NATS %s:\n%s", n.name, n.log.bytes())
			}
		}
	})
	c.current()
	return c
}

// credentials writes passwords and certificates, as they are now, for every server.
func (c *natsCluster) credentials() {
	c.t.Helper()
	shipped, err := os.ReadFile("../../deploy/nats/rotatord.conf")
	if err != nil {
		c.t.Fatal(err)
	}
	for _, n := range c.nodes {
		var passwords strings.Builder
		for user, password := range c.passwords {
			fmt.Fprintf(&passwords, "%s_password: %q\n", user, password)
		}
		files := &rig{t: c.t, dir: n.dir}
		files.write("rotatord.conf", string(shipped))
		files.write("rotatord-passwords.conf", passwords.String())
		c.pair(n.dir, "server", c.ca)
		c.trust(n, c.ca)
	}
}

// pair writes a certificate of 127.0.0.1 and its key.
func (c *natsCluster) pair(dir, stem string, ca *certstest.CA) {
	c.t.Helper()
	b, err := ca.Issue(certstest.Options{Names: []string{"127.0.0.1"}})
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		err = certstest.WritePair(dir, stem, b)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// trust writes the CAs whose client certificates a server takes.
func (c *natsCluster) trust(n *natsNode, cas ...*certstest.CA) {
	c.t.Helper()
	var all []byte
	for _, ca := range cas {
		all = append(all, ca.RootPEM()...)
	}
	(&rig{t: c.t, dir: n.dir}).write("clients.pem", string(all))
}

// configure writes the part that an operator writes: README.md of deploy/nats.
func (c *natsCluster) configure(n *natsNode, routes string) {
	c.t.Helper()
	files := &rig{t: c.t, dir: n.dir}
	files.write("ca.pem", string(c.ca.RootPEM()))
	path := func(name string) string { return filepath.Join(n.dir, name) }
	files.write("nats.conf", fmt.Sprintf(`server_name: %s
listen: "127.0.0.1:%d"
http: "127.0.0.1:%d"
tls: {cert_file: %q, key_file: %q, ca_file: %q, verify: true}
jetstream: {store_dir: %q, sync_interval: always}
cluster: {
  name: test
  listen: "127.0.0.1:%d"
  # What the servers tell each other of their addresses leads nowhere: the links are all there is.
  advertise: "127.0.0.1:1"
  routes: [%s]
  tls: {cert_file: %q, key_file: %q, ca_file: %q}
}
include "rotatord.conf"
`, n.name, n.client, n.monitor, path("server.crt"), path("server.key"), path("clients.pem"), path("store"), n.route, routes,
		path("server.crt"), path("server.key"), path("ca.pem")))
}

func (c *natsCluster) start(n *natsNode) {
	c.t.Helper()
	self, err := os.Executable()
	if err != nil {
		c.t.Fatal(err)
	}
	n.cmd = &exec.Cmd{Path: self, Args: []string{"nats-server", filepath.Join(n.dir, "nats.conf")}, Stdout: n.log, Stderr: n.log}
	if err := n.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
}

// kill ends a server with SIGKILL.
func (c *natsCluster) kill(n *natsNode) {
	if n.cmd != nil && n.cmd.ProcessState == nil {
		_ = n.cmd.Process.Kill()
		_ = n.cmd.Wait()
	}
}

// reload makes every server read its files again.
func (c *natsCluster) reload() {
	c.t.Helper()
	for _, n := range c.nodes {
		before := strings.Count(string(n.log.bytes()), "Reloaded server configuration")
		if err := n.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			c.t.Fatal(err)
		}
		eventually(c.t, "the reload of "+n.name, func() bool {
			return strings.Count(string(n.log.bytes()), "Reloaded server configuration") > before
		})
	}
}

func (n *natsNode) url() string { return fmt.Sprintf("nats://127.0.0.1:%d", n.client) }

func (c *natsCluster) urls() string {
	var urls []string
	for _, n := range c.nodes {
		urls = append(urls, n.url())
	}
	return strings.Join(urls, ",")
}

// monitored asks a server's monitoring port; false where it does not answer.
func (n *natsNode) monitored(path string, answer any) bool {
	client := http.Client{Timeout: 2 * time.Second}
	r, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/%s", n.monitor, path))
	if err != nil {
		return false
	}
	defer r.Body.Close()
	return json.NewDecoder(r.Body).Decode(answer) == nil
}

// streamDetail is what a server says of a stream.
type streamDetail struct {
	Name  string `json:"name"`
	State struct {
		Messages int `json:"messages"`
	} `json:"state"`
	Cluster struct {
		Leader string `json:"leader"`
	} `json:"cluster"`
}

// lead asks for the leader of a stream, which is what the leader itself says, and returns
// it with what it says of the stream.
func (c *natsCluster) lead(stream string) (leader *natsNode, detail streamDetail) {
	c.t.Helper()
	eventually(c.t, "the leader of "+stream, func() bool {
		for _, n := range c.nodes {
			var s struct {
				Accounts []struct {
					Streams []streamDetail `json:"stream_detail"`
				} `json:"account_details"`
			}
			if !n.monitored("jsz?accounts=true&streams=true", &s) {
				continue
			}
			for _, a := range s.Accounts {
				for _, at := range a.Streams {
					if at.Name == stream && at.Cluster.Leader == n.name {
						leader, detail = n, at
					}
				}
			}
		}
		return leader != nil
	})
	return leader, detail
}

func (c *natsCluster) leader(stream string) *natsNode {
	c.t.Helper()
	n, _ := c.lead(stream)
	return n
}

// messages is how many a stream has.
func (c *natsCluster) messages(stream string) int {
	c.t.Helper()
	_, detail := c.lead(stream)
	return detail.State.Messages
}

// current waits until every server has everything.
func (c *natsCluster) current() {
	c.t.Helper()
	eventually(c.t, "a NATS cluster in good health", func() bool {
		return !slices.ContainsFunc(c.nodes[:], func(n *natsNode) bool {
			var h struct {
				Status string `json:"status"`
			}
			return !n.monitored("healthz", &h) || h.Status != "ok"
		})
	})
}

// dial connects as one of the users.
func (c *natsCluster) dial(user string, options ...nats.Option) *nats.Conn {
	c.t.Helper()
	n := c.nodes[0]
	conn, err := nats.Connect(c.urls(), append([]nats.Option{
		nats.UserInfo(user, c.passwords[user]), nats.RootCAs(filepath.Join(n.dir, "ca.pem")),
		nats.ClientCert(c.client+".crt", c.client+".key"),
		nats.MaxReconnects(-1), nats.ReconnectWait(100 * time.Millisecond),
	}, options...)...)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(conn.Close)
	return conn
}

// trigger sends a message as a deploy hook would: until the stream says that it has it.
func (c *natsCluster) trigger(conn *nats.Conn, subject, body string) {
	c.t.Helper()
	eventually(c.t, "a place for a trigger", func() bool {
		answer, err := conn.Request(subject, []byte(body), 2*time.Second)
		return err == nil && !strings.Contains(string(answer.Data), `"error"`)
	})
}

// link carries what two servers say to each other, where the first has called.
type link struct {
	a, b     int
	listener net.Listener
	to       string

	mu    sync.Mutex
	open  *sync.Cond // whether bytes pass
	stuck bool
}

func newLink(t *testing.T, a, b, port int) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{a: a, b: b, listener: listener, to: fmt.Sprintf("127.0.0.1:%d", port)}
	l.open = sync.NewCond(&l.mu)
	t.Cleanup(func() {
		_ = listener.Close()
		l.cut(false)
	})
	go func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			go l.carry(from)
		}
	}()
	return l
}

func (l *link) carry(from net.Conn) {
	defer from.Close()
	to, err := net.Dial("tcp", l.to)
	if err != nil {
		return
	}
	defer to.Close()
	done := make(chan bool, 2)
	pass := func(to, from net.Conn) {
		buffer := make([]byte, 64<<10)
		for {
			n, err := from.Read(buffer)
			l.await()
			if n > 0 {
				if _, err := to.Write(buffer[:n]); err != nil {
					break
				}
			}
			if err != nil {
				break
			}
		}
		done <- true
	}
	go pass(to, from)
	go pass(from, to)
	<-done
}

func (l *link) await() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.stuck {
		l.open.Wait()
	}
}

// cut stops everything on the link, as a network does that drops packets: nothing is said
// to either end. What was sent arrives when the link is whole again.
func (l *link) cut(yes bool) {
	l.mu.Lock()
	l.stuck = yes
	l.mu.Unlock()
	l.open.Broadcast()
}

// part parts a server from the others, join ends it.
func (c *natsCluster) part(n *natsNode) { c.isolate(n, true) }
func (c *natsCluster) join(n *natsNode) { c.isolate(n, false) }

func (c *natsCluster) isolate(n *natsNode, yes bool) {
	i := slices.Index(c.nodes[:], n)
	for _, l := range c.links {
		if l.a == i || l.b == i {
			l.cut(yes)
		}
	}
}

// pause makes a server stand still, wake ends it.
func (c *natsCluster) pause(n *natsNode) { c.signal(n, syscall.SIGSTOP) }
func (c *natsCluster) wake(n *natsNode)  { c.signal(n, syscall.SIGCONT) }

func (c *natsCluster) signal(n *natsNode, s syscall.Signal) {
	c.t.Helper()
	if err := n.cmd.Process.Signal(s); err != nil {
		c.t.Fatal(err)
	}
}

// crew is three daemons with the same policies, and what they share.
type crew struct {
	*rig
	nats    *natsCluster
	cloud   *remoteSim
	daemons []*peer
	hosts   []string
}

// peer is one daemon.
type peer struct {
	*process
	node   string
	config string
}

// newCrew writes the configuration of three daemons; policies are hosts with a
// certificate of a private CA each, which any of them can work for.
func newCrew(t *testing.T, policies int) *crew {
	t.Helper()
	ca, err := certstest.NewCA("test")
	if err != nil {
		t.Fatal(err)
	}
	f := &crew{rig: &rig{t: t, dir: t.TempDir(), ca: ca}, nats: startNATS(t)}
	args := []string{"--latency", "50ms", "--propagation", "100ms", "--edges", "1"}
	for i := range policies {
		f.hosts = append(f.hosts, fmt.Sprintf("pay-%02d.example.com", i))
		args = append(args, "--host", f.hosts[i])
	}
	f.cloud = launchSimulator(t, f.dir, args...)
	f.clientCredentials(f.nats.ca)
	t.Cleanup(func() {
		if t.Failed() {
			for _, m := range f.daemons {
				if m.process != nil {
					t.Logf("%s:\n%s", m.node, m.log.text())
				}
			}
		}
	})
	for i := range 3 {
		m := &peer{node: fmt.Sprintf("daemon-%d", i+1)}
		home := filepath.Join(f.dir, m.node)
		m.config = filepath.Join(home, "rotatord.yaml")
		f.write(m.node+"/rotatord.yaml", fmt.Sprintf(`policies: %[1]s/policies
state: state
node: %[2]s
http: {listen: "127.0.0.1:0"}
nats:
  url: %[3]q
  user: rotatord
  password_file: %[4]s/nats-password
  tls: {ca_file: %[4]s/nats-ca.pem, cert_file: %[4]s/client.crt, key_file: %[4]s/client.key}
  replicas: 3
brake: {max_share: 99.9%%, max_per_hour: 100000}
`, home, m.node, f.nats.urls(), f.dir)+f.cloud.info.cloudYAML())
		f.write(m.node+"/policies/ours.yaml", f.ours(m))
		for _, host := range f.hosts {
			f.write(m.node+"/policies/"+policyOf(host)+".yaml", f.anybodys(host))
		}
		f.daemons = append(f.daemons, m)
	}
	return f
}

// clientCredentials writes what the daemons log in with.
func (f *crew) clientCredentials(ca *certstest.CA) {
	f.t.Helper()
	f.write("nats-password", f.nats.passwords["rotatord"])
	f.write("nats-ca.pem", string(f.nats.ca.RootPEM()))
	f.nats.pair(f.dir, "client", ca)
}

// anybodys is a policy that all daemons have and any of them can work for.
func (f *crew) anybodys(host string) string {
	return fmt.Sprintf(`name: %s
source: {private_ca: {issuer_id: %s, common_name: %s, names: ["dns:%[3]s"], key: {held: cloud}, validity: 90d, superseded: revoke}}
targets: [{name: edge, waf: {hosts: [%[3]s]}}]
verify: {endpoints: ["%[3]s:443"], addresses: [%[4]s], ca_file: %[5]s}
retain: {superseded: 0, for: 0s}
`, policyOf(host), f.cloud.info.AuthorityID, host, quoted(f.cloud.info.Edges), f.cloud.info.AuthorityFile)
}

// ours is a policy that only this node can work for: from files to files.
func (f *crew) ours(m *peer) string {
	f.t.Helper()
	out := filepath.Join(f.dir, m.node, "out")
	for _, dir := range []string{"in", "out"} {
		if err := os.MkdirAll(filepath.Join(f.dir, m.node, dir), 0o755); err != nil {
			f.t.Fatal(err)
		}
	}
	return fmt.Sprintf("name: ours-%s\nsource: {directory: {path: %s}}\ntargets: [{name: web, file: {directory: %s, full_chain: fullchain.pem, key: privkey.pem}}]\n",
		m.node, filepath.Join(f.dir, m.node, "in"), out)
}

// start launches a daemon, also again.
func (f *crew) start(m *peer) {
	f.t.Helper()
	m.process = launch(f.t, "run", "--config", m.config)
}

func (f *crew) startAll() {
	f.t.Helper()
	for _, m := range f.daemons {
		f.start(m)
	}
}

// said are the lines of all daemons' logs that match, with the daemon.
func (f *crew) said(match func(line map[string]any) bool) (lines []saidBy) {
	for _, m := range f.daemons {
		if m.process == nil {
			continue
		}
		m.log.mu.Lock()
		for _, line := range m.log.lines {
			if match(line) {
				lines = append(lines, saidBy{m, line})
			}
		}
		m.log.mu.Unlock()
	}
	slices.SortStableFunc(lines, func(a, b saidBy) int {
		return cmp.Compare(fmt.Sprint(a.line["time"]), fmt.Sprint(b.line["time"]))
	})
	return lines
}

type saidBy struct {
	*peer
	line map[string]any
}

// policyOf is the policy of one of the hosts.
func policyOf(host string) string { return strings.TrimSuffix(host, ".example.com") }

// state is what the cloud has.
type cloudState struct {
	Private []cloudsim.PrivateCertificateInfo `json:"private_certificates"`
	Hosts   []cloudsim.HostInfo               `json:"hosts"`
	WAF     []cloudsim.CertificateInfo        `json:"certificates"`

	Applications []cloudsim.ApplicationInfo `json:"applications"`
}

func (f *crew) state() (s cloudState) {
	f.cloud.call(http.MethodGet, "state", nil, &s)
	return s
}

// awaitServed waits until each host serves the newest of exactly so many certificates of
// its own, the older ones revoked, and the firewall holds nothing else.
func (f *crew) awaitServed(each map[string]int) {
	f.t.Helper()
	var missing string
	defer func() {
		if f.t.Failed() {
			f.t.Logf("missing: %s", missing)
		}
	}()
	long(f.t, "everything to be served", func() bool {
		for _, host := range f.hosts {
			if missing = f.unserved(host, each[host]); missing != "" {
				return false
			}
		}
		if n := len(f.state().WAF); n != len(f.hosts) {
			missing = fmt.Sprintf("%d certificates at the firewall for %d hosts", n, len(f.hosts))
			return false
		}
		return true
	})
}

// unserved says what is missing for a host to serve the newest of so many certificates.
func (f *crew) unserved(host string, want int) string {
	s := f.state()
	var issued, all int
	var current string
	for _, c := range s.Private {
		if c.CommonName != host {
			continue
		}
		all++
		if c.Status == "ISSUED" {
			issued, current = issued+1, c.Fingerprint
		}
	}
	if all != want || issued != 1 {
		return fmt.Sprintf("%s: %d certificates, %d of them not revoked, want %d and 1", host, all, issued, want)
	}
	if !slices.ContainsFunc(s.Hosts, func(h cloudsim.HostInfo) bool { return h.Name == host && h.Fingerprint == current }) {
		return host + " does not serve the newest"
	}
	return ""
}

// expectOnce checks the ledger: each host's certificates were made as often as wanted,
// uploaded as often, and nothing else was.
func (f *crew) expectOnce(each map[string]int) {
	f.t.Helper()
	made, uploads, want := 0, map[string]int{}, 0
	for _, e := range f.cloud.ledger() {
		if !e.Effect {
			continue
		}
		switch e.Operation {
		case "create_certificate":
			made++
		case "CreateCertificate":
			uploads[e.Fingerprint]++
		}
	}
	for _, n := range each {
		want += n
	}
	if made != want || len(uploads) != want {
		f.t.Errorf("%d certificates made, %d uploaded, want %d", made, len(uploads), want)
	}
	for fingerprint, n := range uploads {
		if n > 1 {
			f.t.Errorf("%s was uploaded %d times", fingerprint[:12], n)
		}
	}
}

// times is how many certificates each host shall have had.
func (f *crew) times(n int) map[string]int {
	each := map[string]int{}
	for _, host := range f.hosts {
		each[host] = n
	}
	return each
}

// get asks a daemon's HTTP listener.
func (m *peer) get(t *testing.T, path string) (int, string) {
	t.Helper()
	address := ""
	eventually(t, "the address of "+m.node, func() bool {
		m.log.mu.Lock()
		defer m.log.mu.Unlock()
		for _, line := range m.log.lines {
			if line["msg"] == "rotatord started" {
				address = fmt.Sprint(line["http"])
			}
		}
		return address != ""
	})
	r, err := http.Get("http://" + address + path)
	if err != nil {
		t.Fatalf("%s of %s: %v", path, m.node, err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(body)
}

// awaitReady waits until every daemon that runs says that it is ready.
func (f *crew) awaitReady() {
	f.t.Helper()
	for _, m := range f.daemons {
		eventually(f.t, m.node+" to be ready", func() bool {
			code, _ := m.get(f.t, "/readyz")
			return code == http.StatusOK
		})
	}
}

// freePorts are ports that nobody listens on once they are released.
func freePorts(t *testing.T, n int) (ports []int, release func()) {
	t.Helper()
	var held []net.Listener
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, l)
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, func() {
		for _, l := range held {
			_ = l.Close()
		}
	}
}
