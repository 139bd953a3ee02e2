//go:build systemd

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/cloudsim"
)

// What the pages call the things of an operator's world.
const (
	docsAccessKey   = "HPUAEXAMPLEEXAMPLE42"
	docsGateway     = "3c6a2f0e9b1d4a7f8e5c0b7d24f6a913"
	docsAuthority   = "2cb2878b-6cd1-460d-bd25-afe655159bdc"
	docsIdentity    = "ins-9d2cd6d1f1b34a3c"
	docsApplication = "app-ins-2f6b1c0a9e8d7c45"
	docsCloudAddr   = "127.0.0.20"
	docsEdgeAddr    = "127.0.0.30"
)

// reader reads the pages as an operator does, from the first to the last, on a host with
// systemd as PID 1, and does what they say. The names of the cloud and of the sites resolve
// to a simulator and its edges, whose CAs the host trusts.
type reader struct {
	t    *testing.T
	tree string // a copy of the repository
	home string // where the reader is at the beginning of each page
}

// TestReadThrough executes every block of commands of README.md and of the pages below docs and
// deploy, and compares what they print with what the pages say. It changes the system that it
// runs on. ROTATORD_TEST_TREE is a copy of the repository there; beside it is the directory packages with
// what is to be installed.
func TestReadThrough(t *testing.T) {
	throwAway(t)
	r := &reader{t: t, tree: os.Getenv("ROTATORD_TEST_TREE"), home: "/root/rotatord"}
	pages, err := readPages(r.tree)
	must(t, err)
	r.world()
	order := append([]string{"README.md"}, readingOrder(pages["docs/README.md"])...)
	order = slices.DeleteFunc(order, func(name string) bool { return slices.Contains(afterAll, name) })
	order = slices.Concat(order, missingOf(pages, slices.Concat(order, afterAll)), afterAll)
	only := os.Getenv("ROTATORD_TEST_PAGES") // for who writes a page: up to this one
	for _, name := range order {
		fences, err := fencesOf(name, pages[name])
		must(t, err)
		if len(fences) == 0 {
			continue
		}
		if !t.Run(name, func(t *testing.T) {
			(&reader{t: t, tree: r.tree, home: r.home}).read(name, fences)
		}) {
			t.Fatal("who comes to such a page does not read on")
		}
		if only == name {
			return
		}
	}
}

// world makes what is there before anybody reads.
func (r *reader) world() {
	r.t.Helper()
	ca, err := certstest.NewCA("Example CA")
	must(r.t, err)
	sim, err := cloudsim.New(cloudsim.Config{
		AccessKey: docsAccessKey, SecretKey: "example-secret-of-the-key", CertificateQuota: -1,
		Hosts:       []cloudsim.Host{{Name: "shop.example.com"}, {Name: "www.example.com"}},
		Gateways:    []cloudsim.Gateway{{ID: docsGateway, Groups: []cloudsim.Group{{Domains: []cloudsim.Domain{{Name: "api.example.com"}}}}}},
		Authorities: []cloudsim.Authority{{CommonName: "Example Root"}, {ID: docsAuthority, CommonName: "Example Issuing CA", Parent: "Example Root"}},
		Instances:   []cloudsim.IdentityInstance{{ID: docsIdentity, Applications: []cloudsim.Application{{ID: docsApplication, Name: "grafana"}}}},
		Propagation: 300 * time.Millisecond,
	})
	must(r.t, err)
	must(r.t, sim.Start(r.t.Context()))
	r.t.Cleanup(func() { _ = sim.Close() })

	cloud := []string{
		"iam.eu-west-101.myhuaweicloud.eu", "waf.eu-west-101.myhuaweicloud.com", "apig.eu-west-101.myhuaweicloud.eu",
		"ccm.eu-west-101.myhuaweicloud.com", "identitycenter.myhuaweicloud.com",
	}
	r.append("/etc/hosts", docsCloudAddr+" "+strings.Join(cloud, " ")+"\n"+docsEdgeAddr+" shop.example.com www.example.com api.example.com\n")
	r.append("/etc/ssl/certs/ca-certificates.crt", string(ca.RootPEM()))
	front, err := ca.Issue(certstest.Options{Names: cloud, NotBefore: time.Now().Add(-time.Hour)})
	must(r.t, err)
	r.terminate(docsCloudAddr+":443", front, sim)
	r.forward(docsEdgeAddr+":443", sim.EdgeAddrs()[0])

	must(r.t, os.MkdirAll(r.home, 0o700))
	must(r.t, os.CopyFS(r.home, os.DirFS(filepath.Join(filepath.Dir(r.tree), "packages"))))
	if err := os.Remove("/usr/sbin/policy-rc.d"); err != nil && !os.IsNotExist(err) { // of images that let no package start a service
		r.t.Fatal(err)
	}
	r.append(filepath.Join(r.home, "credentials.csv"), "User Name,Access Key Id,Secret Access Key\n\"rotatord\","+docsAccessKey+",example-secret-of-the-key\n")
	for i, dir := range []string{"/srv/certificates/shop", r.home + "/renewed"} {
		bundle, err := ca.Issue(certstest.Options{Names: []string{"shop.example.com", "www.example.com"}, NotBefore: time.Now().Add(time.Duration(i-2) * time.Minute)})
		must(r.t, err)
		r.pair(dir, bundle)
	}
	must(r.t, os.WriteFile("/etc/ssl/certs/example-private-ca.pem", []byte(sim.Authorities()[0].CertificatePEM), 0o644))
}

// pair writes a bundle as most ACME clients do.
func (r *reader) pair(dir string, b *certs.Bundle) {
	r.t.Helper()
	key, err := b.Key.PEM(certs.PKCS8)
	must(r.t, err)
	must(r.t, os.MkdirAll(dir, 0o755))
	must(r.t, os.WriteFile(filepath.Join(dir, "fullchain.pem"), b.FullChainPEM(), 0o644))
	must(r.t, os.WriteFile(filepath.Join(dir, "privkey.pem"), key, 0o600))
}

func (r *reader) append(path, text string) {
	r.t.Helper()
	must(r.t, os.MkdirAll(filepath.Dir(path), 0o755))
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	must(r.t, err)
	_, err = f.WriteString(text)
	must(r.t, err)
	must(r.t, f.Close())
}

// terminate listens with the cloud's names, and passes what is inside TLS on to the simulator, over
// TLS again: the requests stay as they were signed.
func (r *reader) terminate(address string, front *certs.Bundle, sim *cloudsim.Sim) {
	r.t.Helper()
	key, err := front.Key.PEM(certs.PKCS8)
	must(r.t, err)
	pair, err := tls.X509KeyPair(front.FullChainPEM(), key)
	must(r.t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(sim.CAPEM())
	listener, err := tls.Listen("tcp", address, &tls.Config{Certificates: []tls.Certificate{pair}})
	must(r.t, err)
	r.pass(listener, func() (net.Conn, error) {
		return tls.Dial("tcp", strings.TrimPrefix(sim.URL(), "https://"), &tls.Config{RootCAs: roots})
	})
}

func (r *reader) forward(address, to string) {
	r.t.Helper()
	listener, err := net.Listen("tcp", address)
	must(r.t, err)
	r.pass(listener, func() (net.Conn, error) { return net.Dial("tcp", to) })
}

func (r *reader) pass(listener net.Listener, dial func() (net.Conn, error)) {
	r.t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				out, err := dial()
				if err == nil {
					splice(in, out)
				}
				_ = in.Close()
			}()
		}
	}()
}

// splice copies in both directions until one side is through.
func splice(a, b net.Conn) {
	var both sync.WaitGroup
	both.Go(func() { _, _ = io.Copy(a, b); _ = a.Close() })
	both.Go(func() { _, _ = io.Copy(b, a); _ = b.Close() })
	both.Wait()
}

// afterAll are the pages that leave nothing of what the others made.
var afterAll = []string{"docs/remove.md", "docs/install-by-hand.md"}

// missingOf are the pages that are not in an order, sorted.
func missingOf(pages map[string]string, order []string) []string {
	var others []string
	for name := range pages {
		if !slices.Contains(order, name) {
			others = append(others, name)
		}
	}
	slices.Sort(others)
	return others
}

// fromCheckout are the pages whose reader is in a checkout of the repository.
var fromCheckout = []string{"README.md", "docs/quick-start.md", "docs/install-by-hand.md"}

// read executes the blocks of a page in one shell, and writes the files that it shows.
func (r *reader) read(page string, fences []fence) {
	r.t.Helper()
	out := r.t.TempDir()
	var script strings.Builder
	start := r.home
	if slices.Contains(fromCheckout, page) {
		start = r.tree
	}
	fmt.Fprintf(&script, "cd %s\n", start)
	blocks := 0
	for i, f := range fences {
		switch {
		case f.path() != "":
			fmt.Fprintf(&script, "mkdir -p %s; cat > %s <<'END OF THE FILE'\n%sEND OF THE FILE\n", filepath.Dir(f.path()), f.path(), f.text)
		case executedByCI(f):
		case f.language == "sh":
			blocks++
			fmt.Fprintf(&script, "echo %d > %s/at; set -e -o pipefail\n%s\nset +e +o pipefail\n", i, out, f.text)
		case f.language == "console":
			blocks++
			for n, c := range consoleCommands(f.text) {
				fmt.Fprintf(&script, "echo %[1]d > %[2]s/at; { %[3]s\n} > %[2]s/%[1]d.%[4]d 2>&1; echo $? > %[2]s/%[1]d.%[4]d.code\n", i, out, c.command, n)
			}
		}
	}
	if blocks == 0 {
		r.t.Skip("there is no command on this page")
	}
	fmt.Fprintf(&script, "echo end > %s/at\n", out)
	file := filepath.Join(out, "script")
	must(r.t, os.WriteFile(file, []byte(script.String()), 0o700))
	ctx, cancel := context.WithTimeout(r.t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", file)
	cmd.WaitDelay = time.Second // for what a page leaves running in the background
	cmd.Env = append(os.Environ(), "HOME=/root", "NO_COLOR=1")
	printed, err := cmd.CombinedOutput()
	at, _ := os.ReadFile(filepath.Join(out, "at"))
	if err == nil && string(at) != "end\n" {
		err = errors.New("a block ends the shell of whoever reads, and the rest of the page was not done")
	}
	if err != nil {
		var i int
		_, _ = fmt.Sscan(string(at), &i)
		journal, _ := exec.Command("journalctl", "-u", "rotatord", "-o", "cat", "--no-pager", "-n", "40").CombinedOutput()
		r.t.Fatalf("%s: %v\n%s\nprinted, since the page began:\n%s\nthe journal:\n%s", fences[i].at(), err, fences[i].text, printed, journal)
	}
	for i, f := range fences {
		if f.language != "console" {
			continue
		}
		for n, c := range consoleCommands(f.text) {
			is, err := os.ReadFile(filepath.Join(out, fmt.Sprintf("%d.%d", i, n)))
			must(r.t, err)
			if c.output != "" && !shows(string(is), c.output) {
				r.t.Errorf("%s: %s\nprints\n%s\nthe page has\n%s", f.at(), c.command, is, c.output)
			}
			code, err := os.ReadFile(filepath.Join(out, fmt.Sprintf("%d.%d.code", i, n)))
			must(r.t, err)
			if !mayEndWith(c, strings.TrimSpace(string(code))) {
				r.t.Errorf("%s: %s\nends with %s, and prints\n%s", f.at(), c.command, code, is)
			}
		}
	}
	r.t.Logf("%d blocks of commands in %s", blocks, page)
}

// mayEndWith reports whether a command may end so: well, or as the page shows. What a page leaves
// out, all or at the end, would be what went wrong; that a plan has changes is its answer.
func mayEndWith(c consoleCommand, code string) bool {
	lines := steady(c.output)
	shown := lines[len(lines)-1] != "" && lines[len(lines)-1] != "..."
	return code == "0" || code == "2" && strings.HasPrefix(c.command, "rotatord plan") || code == "1" && shown
}

// consoleCommand is one line after "$ " of a console block, with what it prints.
type consoleCommand struct{ command, output string }

func consoleCommands(text string) []consoleCommand {
	var all []consoleCommand
	for line := range strings.Lines(text) {
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			all = append(all, consoleCommand{command: strings.TrimSpace(command)})
		} else if len(all) > 0 {
			all[len(all)-1].output += line
		}
	}
	return all
}

// What differs each time, and may be shown with other values.
var varies = []struct {
	pattern *regexp.Regexp
	as      string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?(?:\.\d+)?(?:Z| UTC|[+-]\d\d:\d\d)?)?`), "TIME"},
	{regexp.MustCompile(`\b(?:[0-9A-F]{2}:){7,}[0-9A-F]{2}\b`), "HEX"},
	{regexp.MustCompile(`\b[0-9a-f]{8,}(?:-[0-9a-f]{4,})*\b`), "HEX"},
	{regexp.MustCompile(`\b(?:\d+(?:\.\d+)?(?:ns|µs|ms|s|m|h|d|y))(?: ?\d+(?:\.\d+)?(?:ns|µs|ms|s|m|h|d))*\b`), "SPAN"},
	{regexp.MustCompile(`[ \t]+`), " "},
}

func steady(text string) []string {
	for _, v := range varies {
		text = v.pattern.ReplaceAllString(text, v.as)
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return lines
}

// shows compares what was printed with what a page has, where a line of three points stands for
// any number of lines.
func shows(is, page string) bool {
	have, want := steady(is), steady(page)
	var match func(have, want []string) bool
	match = func(have, want []string) bool {
		switch {
		case len(want) == 0:
			return len(have) == 0
		case want[0] == "...":
			return match(have, want[1:]) || len(have) > 0 && match(have[1:], want)
		default:
			return len(have) > 0 && have[0] == want[0] && match(have[1:], want[1:])
		}
	}
	return match(have, want)
}
