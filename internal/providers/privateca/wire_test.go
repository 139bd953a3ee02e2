package privateca

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
	"github.com/rotatord/rotatord/internal/providers/huaweicloud/cloudtest"
)

// canned answers calls with fixed texts: for what the simulator does not do.
type canned struct {
	answer func(call string, r *http.Request, body string) string // a status other than 200 stands before the body

	mu    sync.Mutex
	calls []string
}

func (c *canned) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
	}
	call := r.Method + " " + strings.TrimPrefix(r.URL.Path, "/v1/private-")
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, call)
	return cloudtest.Answer(c.answer(call, r, string(body))), nil
}

func (c *canned) issuer(t testing.TB, s Spec) *Issuer {
	t.Helper()
	i, err := New(Config{Client: adapter().Canned(t, "eu-west-101", c), Spec: s, Keys: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	i.settle = 0
	return i
}

const (
	id1 = "11111111-1111-1111-1111-111111111111"
	id2 = "22222222-2222-2222-2222-222222222222"
)

// The answers are read whatever forms their members take.
func TestLenientAnswers(t *testing.T) {
	s := good()
	s.Held = HeldCloud
	key := testKeys()["EC256"]
	e := issueFor(t, s, key, nil)
	leaf, _ := json.Marshal(strings.ReplaceAll(chainPEM(e.leaf), "\n", "\r\n"))
	chain, _ := json.Marshal(chainPEM(testCA().issuer, testCA().root))
	keyPEM, err := key.PEM(certs.Traditional)
	if err != nil {
		t.Fatal(err)
	}
	keyText, _ := json.Marshal(strings.ReplaceAll(string(keyPEM), "\n", "\r\n"))
	keyText = []byte(strings.ReplaceAll(string(keyText), "/", `\/`))
	made := time.Now().UTC().Truncate(time.Millisecond)
	for form, answers := range map[string]map[string]string{
		"as documented": {
			"ca":   fmt.Sprintf(`{"ca_id":%q,"status":"ACTIVED","freeze_flag":0,"not_after":%d,"distinguished_name":{"common_name":"acme"},"crl_configuration":null}`, s.IssuerID, made.AddDate(1, 0, 0).UnixMilli()),
			"cert": fmt.Sprintf(`{"certificate_id":%q,"status":"ISSUED","issuer_id":%q,"freeze_flag":0,"gen_mode":"GENERATE","create_time":%d,"delete_time":null,"not_after":%d,"distinguished_name":{"common_name":"payments.internal"}}`, id1, s.IssuerID, made.UnixMilli(), e.leaf.NotAfter.UnixMilli()),
		},
		"otherwise": {
			"ca":   fmt.Sprintf(`{"ca_id":%q,"status":"actived","freeze_flag":"0","not_after":"%d","distinguished_name":"acme"}`, s.IssuerID, made.AddDate(1, 0, 0).UnixMilli()),
			"cert": fmt.Sprintf(`{"status":"Issued","freeze_flag":null,"create_time":"%d","not_after":%d.0,"distinguished_name":null,"new":[{}]}`, made.UnixMilli(), e.leaf.NotAfter.UnixMilli()),
		},
	} {
		t.Run(form, func(t *testing.T) {
			fake := &canned{answer: func(call string, _ *http.Request, _ string) string {
				switch {
				case strings.HasPrefix(call, "GET certificate-authorities/"):
					return answers["ca"]
				case strings.HasSuffix(call, "/filter"):
					return `{"total_count":"1","resources":[{"resource_id":"` + id1 + `","resource_detail":null,"tags":null}]}`
				case strings.HasSuffix(call, "/export"):
					return fmt.Sprintf(`{"private_key":%s,"certificate":%s,"certificate_chain":%s,"enc_certificate":null}`, keyText, leaf, chain)
				case strings.HasSuffix(call, "/tags"):
					return `{"tags":null}`
				case call == "GET certificates/"+id1:
					return answers["cert"]
				case call == "GET certificates/"+id2:
					return `400 {"error_code":"PCA.10010002","error_msg":"gone"}`
				}
				return `404 {"error_code":"PCA.00030102","error_msg":"gone"}`
			}}
			i := fake.issuer(t, s)
			o, err := i.Observe(t.Context(), providers.IssueRequest{Owner: owner, Known: []providers.Handle{id2}})
			if err != nil {
				t.Fatal(err)
			}
			want := []providers.Issued{
				{Handle: id1, Info: e.bundle().Info(), Chain: 1, PEM: e.bundle().CertificatePEM(), Created: made, Owned: true},
				{Handle: id2, Owned: true, Problem: "it is gone: somebody deleted it"},
			}
			if fmt.Sprint(o.Certificates) != fmt.Sprint(want) {
				t.Errorf("got %+v\nwant %+v", o.Certificates, want)
			}
			if o.Authority.Problem != "" || !o.Authority.NotAfter.Equal(made.AddDate(1, 0, 0)) {
				t.Errorf("authority %+v", o.Authority)
			}
			b, err := i.Collect(t.Context(), now(), id1)
			if err != nil || !b.Key.Matches(e.leaf) || len(b.Chain) != 1 {
				t.Errorf("collect: %v", err)
			}
		})
	}
}

// A list that never ends is left, and so is one that repeats itself.
func TestEndlessLists(t *testing.T) {
	s := good()
	s.Held = HeldCloud
	for _, repeats := range []bool{true, false} {
		n := 0
		fake := &canned{answer: func(string, *http.Request, string) string {
			var rows []string
			for range 50 {
				if n++; repeats {
					n = 1
				}
				rows = append(rows, fmt.Sprintf(`{"certificate_id":"c%d","resource_id":"c%d"}`, n, n))
			}
			list := strings.Join(rows, ",")
			return `{"total":1000000,"total_count":1000000,"certificates":[` + list + `],"resources":[` + list + `]}`
		}}
		i := fake.issuer(t, s)
		rows, err := i.listIssued(t.Context(), time.Now())
		if err != nil || repeats != (len(rows) == 1) || len(fake.calls) > 2*maxPages {
			t.Errorf("%d rows in %d calls, %v", len(rows), len(fake.calls), err)
		}
		fake.calls = nil
		ids, err := i.listMarked(t.Context(), "x")
		if err != nil || repeats != (len(ids) == 1) || len(fake.calls) > maxPages {
			t.Errorf("%d ids in %d calls, %v", len(ids), len(fake.calls), err)
		}
	}
}

// Whoever is asked for many reads them all, but not those that are too old.
func TestPages(t *testing.T) {
	s := good()
	start := time.Now().Truncate(time.Millisecond)
	fake := &canned{answer: func(_ string, r *http.Request, _ string) string {
		q := r.URL.Query()
		if q.Get("name") != s.CommonName || q.Get("status") != "ISSUED" || q.Get("sort_key") != "create_time" || q.Get("sort_dir") != "DESC" || q.Get("limit") != "100" {
			t.Errorf("query %v", q)
		}
		var offset int
		_, _ = fmt.Sscan(q.Get("offset"), &offset)
		var rows []string
		for n := offset; n < offset+100; n++ {
			name := s.CommonName
			if n%10 == 9 {
				name = "eu." + name
			}
			rows = append(rows, fmt.Sprintf(`{"certificate_id":"c%d","create_time":%d,"distinguished_name":{"common_name":%q}}`, n, start.Add(-time.Duration(n)*time.Second).UnixMilli(), name))
		}
		return `{"total":100000,"certificates":[` + strings.Join(rows, ",") + `]}`
	}}
	i := fake.issuer(t, s)
	rows, err := i.listIssued(t.Context(), start.Add(-249*time.Second))
	if err != nil || len(rows) != 225 || len(fake.calls) != 4 {
		t.Errorf("%d rows in %d calls, %v", len(rows), len(fake.calls), err)
	}
	if got := i.candidates(rows, modeCSR); len(got) != maxCandidates || got[0].ID != "c0" {
		t.Errorf("%d candidates", len(got))
	}
}

// What cannot be read is not taken for nothing: nothing is issued then.
func TestUnreadableLists(t *testing.T) {
	s := good()
	s.Held = HeldCloud
	for _, answer := range []string{`{}`, `[]`, `null`, `"x"`, `{"certificates":{}}`, `{"certificates":[1]}`, `{"certificates":[{}],"total":1}`, `{"total":3,"certificates":null}`, `{"certificates":[{"certificate_id":"../x"}]}`} {
		var p page
		if err := json.Unmarshal([]byte(answer), &p); answer != "null" && err == nil {
			t.Errorf("%s: %+v", answer, p)
		}
	}
	fake := &canned{answer: func(call string, _ *http.Request, _ string) string {
		if call == "GET certificates" {
			return `{"certificates":{}}`
		}
		t.Errorf("call %s", call)
		return "500 {}"
	}}
	_, err := fake.issuer(t, s).Issue(t.Context(), now())
	wantKind(t, err, providers.KindUnavailable)
	for _, answer := range []string{`{"certificates":[],"total":0}`, `{"certificates":null,"total":"0"}`, `{"certificates":[]}`} {
		var p page
		if err := json.Unmarshal([]byte(answer), &p); err != nil || len(p.Rows) != 0 {
			t.Errorf("%s: %v", answer, err)
		}
	}
}

func TestSecret(t *testing.T) {
	for in, want := range map[string]string{
		`"a\r\nb\/\"\\ü\u00fc\ud83d\ude00\t"`: "a\r\nb/\"\\üü😀\t", `""`: "", `null`: "", `1`: "", `{}`: "",
	} {
		var s secret
		if err := json.Unmarshal([]byte(in), &s); err != nil || string(s) != want {
			t.Errorf("%s: %q, %v", in, s, err)
		}
		held := []byte(s)
		s.wipe()
		if s != nil || strings.Trim(string(held), "\x00") != "" {
			t.Errorf("%s: not wiped: %q", in, held)
		}
	}
}

// secret reads what encoding/json reads.
func FuzzSecret(f *testing.F) {
	for _, s := range []string{`"a"`, `"\u00e9\ud800"`, `"\ud83d\ude00"`, `"\ud83d\u0041"`, `"\n\\"`, `17`, "\"\xff\""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var want string
		if json.Unmarshal(data, &want) != nil {
			return
		}
		var got secret
		if err := json.Unmarshal(data, &got); err != nil {
			t.Fatal(err)
		}
		if strings.ToValidUTF8(string(got), "\uFFFD") != strings.ToValidUTF8(want, "\uFFFD") && !strings.Contains(want, "\uFFFD") {
			t.Errorf("%q: got %q, want %q", data, got, want)
		}
	})
}

// Whatever Export answers, it is refused or it is a certificate with a chain in order.
func FuzzExport(f *testing.F) {
	ca := testCA()
	s := good()
	own, err := newKey("EC256")
	if err != nil {
		f.Fatal(err)
	}
	leaf := issueFor(f, s, own, nil).leaf
	key, err := own.PEM(certs.PKCS8)
	if err != nil {
		f.Fatal(err)
	}
	add := func(certificate, chain, key string) {
		data, _ := json.Marshal(map[string]string{"certificate": certificate, "certificate_chain": chain, "private_key": key})
		f.Add(data)
	}
	add(chainPEM(leaf), chainPEM(ca.issuer, ca.root), string(key))
	add(strings.ReplaceAll(chainPEM(leaf, ca.issuer), "\n", "\r\n"), "", "")
	add(chainPEM(leaf)[:400], chainPEM(ca.root), string(key[:100]))
	add(chainPEM(ca.root), chainPEM(ca.root, ca.root), "")
	f.Add([]byte(`{"certificate":{},"private_key":[]}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var answer exportAnswer
		if json.Unmarshal(data, &answer) != nil {
			return
		}
		if key, err := parseKey(answer.Key); err == nil && !key.IsZero() && key.Signer() == nil {
			t.Error("a key without a key")
		}
		e, err := parseExport(string(answer.Certificate), string(answer.Chain))
		if err != nil {
			if strings.Contains(err.Error(), "-----") {
				t.Errorf("the error quotes: %v", err)
			}
			return
		}
		if err := certs.ChainProblem(e.bundle()); err != nil {
			t.Error(err)
		}
		if slices.ContainsFunc(e.chain, func(c *x509.Certificate) bool { return isRoot(c) || c.Equal(e.leaf) }) {
			t.Error("a root, or the leaf, in the chain")
		}
		_ = s.differences(e, time.Now())
	})
}
