package certs_test

import (
	"bytes"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rotatord/rotatord/internal/certs"
)

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	return data
}

func reasonsOf(problems []certs.Problem) string {
	var reasons []string
	for _, p := range problems {
		reasons = append(reasons, string(p.Reason))
	}
	return strings.Join(reasons, " ")
}

func TestParseKeys(t *testing.T) {
	for _, path := range glob(t, "testdata/keys/*.pem") {
		contents, problems := certs.ParsePEM(read(t, path), nil)
		name := filepath.Base(path)
		want := ""
		switch {
		case strings.HasPrefix(name, "unsupported-"):
			want = "unsupported_key"
		case strings.HasPrefix(name, "bad-"):
			want = "bad_key"
		}
		if got := reasonsOf(problems); got != want {
			t.Errorf("%s: problems %v, want %q", name, problems, want)
		}
		if want != "" {
			continue
		}
		if len(contents.Keys) != 1 {
			t.Errorf("%s: %d keys", name, len(contents.Keys))
			continue
		}
		for _, form := range []certs.KeyForm{certs.PKCS8, certs.Traditional} {
			written, err := contents.Keys[0].Key.PEM(form)
			must(t, err)
			again, problems := certs.ParsePEM(written, nil)
			if len(problems) > 0 || len(again.Keys) != 1 {
				t.Errorf("%s: form %d is not read back: %v", name, form, problems)
			}
		}
	}
}

func TestTraditionalForm(t *testing.T) {
	for path, label := range map[string]string{
		"rsa-pkcs8.pem": "RSA PRIVATE KEY", "secp384r1.pem": "EC PRIVATE KEY", "ed25519.pem": "PRIVATE KEY",
	} {
		contents, _ := certs.ParsePEM(read(t, "testdata/keys/"+path), nil)
		written, err := contents.Keys[0].Key.PEM(certs.Traditional)
		must(t, err)
		if block, _ := pem.Decode(written); block == nil || block.Type != label {
			t.Errorf("%s is not written as %s", path, label)
		}
	}
}

func TestEncryptedKeys(t *testing.T) {
	plain, _ := certs.ParsePEM(read(t, "testdata/encrypted/plain.pem"), nil)
	for _, path := range glob(t, "testdata/encrypted/*.pem") {
		name := filepath.Base(path)
		if name == "plain.pem" {
			continue
		}
		data := read(t, path)
		for password, want := range map[string]string{"": "encrypted_key", "wrong": "bad_password", "hunter2": ""} {
			if strings.HasPrefix(name, "unsupported-") && password != "" {
				want = "unsupported_key"
			}
			contents, problems := certs.ParsePEM(data, []byte(password))
			if got := reasonsOf(problems); got != want {
				t.Errorf("%s with %q: problems %v, want %q", name, password, problems, want)
			}
			if want != "" {
				continue
			}
			if len(contents.Keys) != 1 {
				t.Errorf("%s: %d keys", name, len(contents.Keys))
			} else if name != "legacy-rsa.pem" {
				got, _ := contents.Keys[0].Key.PEM(certs.PKCS8)
				original, _ := plain.Keys[0].Key.PEM(certs.PKCS8)
				if !bytes.Equal(got, original) {
					t.Errorf("%s: another key came out", name)
				}
			}
		}
	}
}

func TestRefusedCertificates(t *testing.T) {
	for name, want := range map[string]string{
		"negative-serial.pem": "block 1: bad_certificate: negative serial number (RFC 5280 wants a positive one; have it issued again)",
		"rsa512.pem":          "block 1: bad_certificate: RSA key shorter than 1024 bits",
		"sha1.pem":            "block 1: bad_certificate: signed with SHA1-RSA, which clients refuse",
		"trusted.pem":         "block 1: bad_certificate: TRUSTED CERTIFICATE is OpenSSL's own form; convert it with `openssl x509`",
		"sha1-root.pem":       "",
		"request.pem":         "",
	} {
		_, problems := certs.ParsePEM(read(t, "testdata/certificates/"+name), nil)
		got := ""
		if len(problems) > 0 {
			got = problems[0].Error()
		}
		if got != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
}

// TestDamagedFiles makes one mistake at a time in a file of leaf and
// intermediate, and wants the exact message.
func TestDamagedFiles(t *testing.T) {
	b := issue(t, "shop.example.com")
	good := string(b.FullChainPEM())
	leaf, chain := string(b.CertificatePEM()), string(b.ChainPEM())
	lines := strings.SplitAfter(leaf, "\n")
	half := strings.Join(lines[:4], "")
	for _, c := range []struct{ name, data, want string }{
		{"good", good, ""},
		{"CRLF", strings.ReplaceAll(good, "\n", "\r\n"), ""},
		{"trailing blanks", strings.ReplaceAll(good, "\n", "  \n"), ""},
		{"byte order mark", "\xef\xbb\xbf" + good, ""},
		{"bag attributes", "Bag Attributes\n    friendlyName: shop\nsubject=CN = shop\n" + good + "\ntrailing words\n", ""},
		{"no final newline", strings.TrimSpace(good), ""},
		{"truncated leaf, good intermediate", half + chain, "/dir/shop.pem: block 1: truncated: BEGIN CERTIFICATE without a matching END"},
		{"truncated intermediate", leaf + chain[:len(chain)/2], "/dir/shop.pem: block 2: truncated: BEGIN CERTIFICATE without a matching END"},
		{"only the first line", lines[0], "/dir/shop.pem: block 1: truncated: BEGIN CERTIFICATE without a matching END"},
		{"head missing", strings.Join(lines[3:], "") + chain, "/dir/shop.pem: truncated: END CERTIFICATE without a matching BEGIN"},
		{"other end", strings.Replace(leaf, "END CERTIFICATE", "END PRIVATE KEY", 1), "/dir/shop.pem: block 1: truncated: BEGIN CERTIFICATE is ended by END PRIVATE KEY"},
		{"broken base64", strings.Replace(leaf, "MII", "M!I", 1), "/dir/shop.pem: block 1: bad_block: CERTIFICATE is not valid base64"},
		{"damaged DER", strings.Replace(leaf, "MII", "AAA", 1), "/dir/shop.pem: block 1: bad_certificate: malformed certificate"},
		{"indented", "  " + strings.ReplaceAll(good, "\n", "\n  "), "/dir/shop.pem: block 1: not_pem: looks indented, as from a YAML block; PEM must start in the first column"},
		{"folded", strings.ReplaceAll(leaf, "\n", " "), "/dir/shop.pem: block 1: not_pem: looks folded onto one line, as by a YAML scalar without |; every PEM line needs its own line"},
		{"escaped", strings.ReplaceAll(leaf, "\n", `\n`), `/dir/shop.pem: block 1: not_pem: looks like an environment variable or JSON string: \n stands where lines should end`},
		{"joined", strings.TrimSpace(leaf) + chain, "/dir/shop.pem: block 1: truncated: BEGIN CERTIFICATE without a matching END"},
		{"empty", "", "/dir/shop.pem: not_pem: the file is empty"},
		{"binary", string(b.Leaf.Raw), "/dir/shop.pem: not_pem: looks like DER or PKCS #12 (binary); convert it with openssl"},
		{"text", "hello\n", "/dir/shop.pem: not_pem: no BEGIN line"},
		{"UTF-16", "\xff\xfe-\x00", "/dir/shop.pem: not_pem: looks like UTF-16 text; save it as ASCII"},
		{"unfinished begin", strings.Replace(leaf, "CERTIFICATE-----", "CERTIFICATE---", 1), "/dir/shop.pem: block 1: not_pem: the BEGIN line does not end in five dashes"},
	} {
		facts := certs.NewReader(nil).Parse("/dir/shop.pem", []byte(c.data))
		got := ""
		if len(facts.Problems) > 0 {
			got = facts.Problems[0].Error()
		}
		if got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
		if c.want == "" && (len(facts.Certificates) != 2 || facts.Certificates[0].Info.Fingerprint != b.Fingerprint()) {
			t.Errorf("%s: read %d certificates", c.name, len(facts.Certificates))
		}
	}
}

func TestIgnoredBlocks(t *testing.T) {
	b := issue(t, "shop.example.com")
	data := append(read(t, "testdata/keys/ec-with-parameters.pem"), read(t, "testdata/certificates/request.pem")...)
	data = append(data, b.FullChainPEM()...)
	contents, problems := certs.ParsePEM(data, nil)
	if len(problems) > 0 || len(contents.Keys) != 1 || len(contents.Certificates) != 2 {
		t.Fatalf("%+v, %v", contents, problems)
	}
	if len(contents.Ignored) != 2 || contents.Ignored[0].Label != "EC PARAMETERS" || contents.Ignored[1].Label != "CERTIFICATE REQUEST" {
		t.Errorf("ignored %+v", contents.Ignored)
	}
	if contents.Keys[0].Block != 2 || contents.Certificates[0].Block != 4 {
		t.Errorf("blocks are numbered %d and %d", contents.Keys[0].Block, contents.Certificates[0].Block)
	}
}

func glob(t testing.TB, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	must(t, err)
	if len(paths) == 0 {
		t.Fatalf("no file matches %s", pattern)
	}
	return paths
}

// FuzzParsePEM: parsing never panics, and no BEGIN line is passed over in
// silence.
func FuzzParsePEM(f *testing.F) {
	b := issue(f, "shop.example.com")
	key, err := b.Key.PEM(certs.PKCS8)
	must(f, err)
	full := append(b.FullChainPEM(), key...)
	f.Add(full)
	f.Add(full[:len(full)/3])
	f.Add(bytes.ReplaceAll(full, []byte("\n"), []byte("\r\n")))
	f.Add(bytes.ReplaceAll(full, []byte("\n"), []byte(`\n`)))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n -----BEGIN X-----\n"))
	for _, pattern := range []string{"testdata/keys/*.pem", "testdata/encrypted/*.pem", "testdata/certificates/*.pem"} {
		for _, path := range glob(f, pattern) {
			f.Add(read(f, path))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		contents, problems := certs.ParsePEM(data, nil)
		begins := 0
		for line := range bytes.Lines(data) {
			if bytes.Contains(line, []byte("-----BEGIN")) {
				begins++
			}
		}
		accounted := make(map[int]bool)
		for _, c := range contents.Certificates {
			accounted[c.Block] = true
		}
		for _, k := range contents.Keys {
			accounted[k.Block] = true
		}
		for _, i := range contents.Ignored {
			accounted[i.Block] = true
		}
		for _, p := range problems {
			accounted[p.Block] = true
			if !strings.Contains(p.Error(), string(p.Reason)) {
				t.Errorf("message without reason: %s", p.Error())
			}
		}
		for block := 1; block <= begins; block++ {
			if !accounted[block] {
				t.Errorf("BEGIN line %d of %d is neither content nor problem", block, begins)
			}
		}
		facts := certs.NewReader(nil).Parse("/x/y.pem", data)
		if len(facts.Certificates) != len(contents.Certificates) || len(facts.Keys) != len(contents.Keys) ||
			len(facts.Problems) != len(problems) {
			t.Errorf("facts differ from contents")
		}
		pairs, _ := certs.Assemble([]*certs.FileFacts{facts})
		for _, pair := range pairs {
			matches := false
			for _, c := range contents.Certificates {
				for _, k := range contents.Keys {
					matches = matches || certs.FingerprintOf(c.Certificate) == pair.Info.Fingerprint && k.Key.Matches(c.Certificate)
				}
			}
			if !matches {
				t.Errorf("pair %s has no key that matches", pair.Certificate)
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	bundle := issue(b, "shop.example.com")
	key, err := bundle.Key.PEM(certs.PKCS8)
	must(b, err)
	for name, data := range map[string][]byte{"fullchain": bundle.FullChainPEM(), "key": key} {
		b.Run(name, func(b *testing.B) {
			reader := certs.NewReader(nil)
			b.ReportAllocs()
			for b.Loop() {
				reader.Parse("/dir/shop.pem", data)
			}
		})
	}
}
