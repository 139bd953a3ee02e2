package bus

import (
	"regexp"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"pgregory.net/rapid"
)

// anyText is text as it may come from a certificate: any bytes.
var anyText = rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }))

// bucketKey is what nats.go takes as a key of a bucket.
var bucketKey = regexp.MustCompile(`^[-/_=.a-zA-Z0-9]+$`)

func TestTokenRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := anyText.Draw(t, "text")
		token := Token(text)
		if !server.IsValidLiteralSubject(token) || strings.Contains(token, ".") {
			t.Fatalf("%q is not one token of a subject", token)
		}
		if !bucketKey.MatchString(token) {
			t.Fatalf("%q is not a key of a bucket", token)
		}
		back, err := ParseToken(token)
		if err != nil || back != text {
			t.Fatalf("%q became %q and then %q, %v", text, token, back, err)
		}
	})
}

func TestTokensReadWell(t *testing.T) {
	for text, want := range map[string]string{
		"shop":               "shop",
		"a-b_C9":             "a-b_C9",
		"":                   "=",
		"=":                  "=3D",
		"*.shop.example.com": "=2A=2Eshop=2Eexample=2Ecom",
		"ü":                  "=C3=BC",
	} {
		if got := Token(text); got != want {
			t.Errorf("Token(%q) = %q, want %q", text, got, want)
		}
	}
}

// What others wrote into the queue must not be taken for something else: each text has
// one token, and nothing but that token is read as it.
func TestParseTokenTakesOnlyWhatTokenWrites(t *testing.T) {
	for _, token := range []string{"", "=4", "=4G", "=4g", "a.b", "a b", "=2e", "=+1", "=41", "=x", "==", "a="} {
		if text, err := ParseToken(token); err == nil {
			t.Errorf("ParseToken(%q) = %q, want an error", token, text)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		token := rapid.StringMatching(`[=a-f0-9A-F+ .]{0,6}`).Draw(t, "token")
		if text, err := ParseToken(token); err == nil && Token(text) != token {
			t.Fatalf("ParseToken(%q) = %q, whose token is %q", token, text, Token(text))
		}
	})
}

func TestWorkSubjectRoundTrip(t *testing.T) {
	n := names{"rotatord"}
	rapid.Check(t, func(t *rapid.T) {
		want := ID{anyText.Draw(t, "policy"), anyText.Draw(t, "certificate")}
		subject := n.workFor(anyText.Draw(t, "place"), want)
		if !server.IsValidLiteralSubject(subject) {
			t.Fatalf("%q is not a subject", subject)
		}
		if got, err := n.parseWork(subject); err != nil || got != want {
			t.Fatalf("%q is read as %q, %v; want %q", subject, got, err, want)
		}
	})
}

func TestParseWorkRefusesOtherSubjects(t *testing.T) {
	for _, subject := range []string{"", "rotatord.work", "rotatord.work.any", "rotatord.work.any.shop", "rotatord.work.any.shop.a.b", "other.work.any.shop.a", "rotatord.trigger.any.shop.a", "rotatord.work.any.shop.=zz"} {
		if id, err := (names{"rotatord"}).parseWork(subject); err == nil {
			t.Errorf("parseWork(%q) = %q, want an error", subject, id)
		}
	}
}

func TestCovers(t *testing.T) {
	for _, row := range []struct {
		pattern, subject string
		want             bool
	}{
		{"a.b", "a.b", true},
		{"a.b", "a.c", false},
		{"a.b", "a.b.c", false},
		{"a.b.c", "a.b", false},
		{"a.*", "a.b", true},
		{"a.*", "a.*", true},
		{"a.b", "a.*", false},
		{"a.*", "a.>", false},
		{"a.*", "a", false},
		{"a.*", "a.b.c", false},
		{"*.b", "a.b", true},
		{"a.>", "a.b", true},
		{"a.>", "a.b.c", true},
		{"a.>", "a.*", true},
		{"a.>", "a.>", true},
		{"a.>", "a", false},
		{">", "a", true},
		{">", ">", true},
		{"*", ">", false},
		{"rotatord.trigger.*", "rotatord.trigger.shop", true},
	} {
		if got := covers(row.pattern, row.subject); got != row.want {
			t.Errorf("covers(%q, %q) = %v", row.pattern, row.subject, got)
		}
	}
}

// pattern is a random subject with wildcards over a small alphabet, so that overlaps
// are common.
var pattern = rapid.Custom(func(t *rapid.T) string {
	parts := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "*"}), 1, 3).Draw(t, "parts")
	if rapid.Bool().Draw(t, "open") {
		parts = append(parts, ">")
	}
	return strings.Join(parts, ".")
})

var literal = rapid.Custom(func(t *rapid.T) string {
	return strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b"}), 1, 5).Draw(t, "parts"), ".")
})

func coversAny(patterns []string, subject string) bool {
	for _, p := range patterns {
		if covers(p, subject) {
			return true
		}
	}
	return false
}

func TestUnionMatchesExactlyWhatBothMatch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.SliceOfN(pattern, 0, 4).Draw(t, "a"), rapid.SliceOfN(pattern, 0, 4).Draw(t, "b")
		both := union(a, b)
		subject := literal.Draw(t, "subject")
		if got, want := coversAny(both, subject), coversAny(a, subject) || coversAny(b, subject); got != want {
			t.Fatalf("%v of %v and %v matches %q: %v, want %v", both, a, b, subject, got, want)
		}
		if missingSubjects(both, a) || missingSubjects(both, b) {
			t.Fatalf("%v does not have all of %v and %v", both, a, b)
		}
		for i, p := range both {
			for j, q := range both {
				if i != j && covers(p, q) {
					t.Fatalf("%v: %q and %q overlap", both, p, q)
				}
			}
		}
	})
}

// The server's own matcher is the judge of ours.
func TestCoversAgreesWithTheServer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, subject := pattern.Draw(t, "pattern"), literal.Draw(t, "subject")
		if got, want := covers(p, subject), server.SubjectsCollide(p, subject); got != want {
			t.Fatalf("covers(%q, %q) = %v, the server says %v", p, subject, got, want)
		}
	})
}
