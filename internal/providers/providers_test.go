package providers

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/rotatord/rotatord/internal/certs"
)

// fingerprints draws any leaf's.
func fingerprints() *rapid.Generator[certs.Fingerprint] {
	return rapid.Custom(func(t *rapid.T) (f certs.Fingerprint) {
		copy(f[:], rapid.SliceOfN(rapid.Byte(), len(f), len(f)).Draw(t, "bytes"))
		return f
	})
}

// owners draws policies as the configuration allows them, and any certificate.
func owners() *rapid.Generator[Owner] {
	return rapid.Custom(func(t *rapid.T) Owner {
		return Owner{
			Policy: rapid.StringMatching(`[a-z0-9-]{1,63}`).Draw(t, "policy"),
			Certificate: rapid.OneOf(
				rapid.StringMatching(`(\*\.)?[a-z0-9-]{1,20}(\.[a-z0-9-]{1,20}){1,3}`), rapid.String(),
			).Draw(t, "certificate"),
		}
	})
}

// Inside the rules of every service: WAF at most 64, APIG 4 to 50 with a letter
// first, ELB, SCM, CDN (reference 7.2).
var nameRule = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{3,48}$`)

func TestNamesFitEveryService(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o, f := owners().Draw(t, "owner"), fingerprints().Draw(t, "leaf")
		name := CertificateName(o, f)
		if !nameRule.MatchString(name) {
			t.Fatalf("%q does not fit %s", name, nameRule)
		}
		if !strings.HasPrefix(name, NamePrefix(o)) {
			t.Fatalf("%q does not begin with %q", name, NamePrefix(o))
		}
		if CertificateName(o, f) != name {
			t.Fatal("the name differs the second time")
		}
	})
}

func TestOwnership(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mine, other := owners().Draw(t, "mine"), owners().Draw(t, "other")
		f := fingerprints().Draw(t, "leaf")
		name := CertificateName(mine, f)
		if !Owns(mine, name) {
			t.Fatalf("own name %q is denied", name)
		}
		if other != mine && Owns(other, name) {
			t.Fatalf("%q of %v belongs to %v as well", name, mine, other)
		}
		// Any change of the name ends ownership, but one inside the fingerprint.
		at := rapid.IntRange(0, len(name)).Draw(t, "at")
		c := rapid.StringMatching(`[ -~]`).Draw(t, "character")
		for _, changed := range []string{name[:at] + c + name[at:], name[:at] + name[min(at+1, len(name)):]} {
			if changed != name && Owns(mine, changed) {
				t.Fatalf("%q is taken for ours", changed)
			}
		}
	})
}

func TestNotOurs(t *testing.T) {
	o := Owner{Policy: "shop", Certificate: "shop.example.com"}
	prefix := NamePrefix(o)
	for _, name := range []string{
		"", "by_hand", prefix, prefix + "0123456789abcde", prefix + "0123456789abcdef0", prefix + "0123456789ABCDEF",
		prefix + "0123456789abcdeg", strings.ToUpper(prefix) + "0123456789abcdef", " " + prefix + "0123456789abcdef",
	} {
		if Owns(o, name) {
			t.Errorf("%q is taken for ours", name)
		}
	}
	if !Owns(o, prefix+"0123456789abcdef") {
		t.Error("our own name is denied")
	}
}

// A policy and a certificate cannot be shifted into each other.
func TestOwnersThatReadAlike(t *testing.T) {
	a := NamePrefix(Owner{Policy: "a", Certificate: "b/c"})
	b := NamePrefix(Owner{Policy: "a", Certificate: "b.c"})
	if a == b {
		t.Errorf("both have %s", a)
	}
	if NamePrefix(Owner{"p", "*.example.com"}) == NamePrefix(Owner{"p", "w.example.com"}) {
		t.Error("a wildcard and a plain name share a prefix")
	}
	if got := NamePrefix(Owner{"p", "*.example.com"}); !strings.HasPrefix(got, "rd_w_example_com_") {
		t.Errorf("got %s: a person should recognise the name", got)
	}
}

func TestErrorText(t *testing.T) {
	for want, e := range map[string]*Error{
		"waf: create certificate: exists: WAF.00014002: already there": {
			Kind: KindExists, Op: "create certificate", Service: "waf", Code: "WAF.00014002", Message: "already there", RequestID: "r-1",
		},
		"iam: log in: unknown outcome: unexpected EOF": {
			Kind: KindUnknownOutcome, Op: "log in", Service: "iam", Err: io.ErrUnexpectedEOF,
		},
		"waf: x: unknown": {Op: "x", Service: "waf", Kind: Kind(200)},
	} {
		if e.Error() != want {
			t.Errorf("got  %s\nwant %s", e, want)
		}
	}
}

func TestKindOf(t *testing.T) {
	inner := &Error{Kind: KindInUse, Err: io.EOF}
	wrapped := fmt.Errorf("retire: %w", inner)
	if KindOf(wrapped) != KindInUse || !errors.Is(wrapped, io.EOF) {
		t.Errorf("kind %s", KindOf(wrapped))
	}
	if KindOf(io.EOF) != KindUnknown || KindOf(nil) != KindUnknown {
		t.Error("an error of nobody has a kind")
	}
	seen := map[string]bool{}
	for _, k := range Kinds() {
		if k.String() == "" || seen[k.String()] {
			t.Errorf("kind %d is called %q", k, k)
		}
		seen[k.String()] = true
	}
	if len(seen) != 12 {
		t.Errorf("%d kinds", len(seen))
	}
}
