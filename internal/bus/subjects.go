package bus

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// names derives every subject, stream and bucket from the configured prefix.
type names struct{ prefix string }

func (n names) triggerStream() string { return strings.ToUpper(n.prefix) + "_TRIGGERS" }
func (n names) workStream() string    { return strings.ToUpper(n.prefix) + "_WORK" }
func (n names) eventStream() string   { return strings.ToUpper(n.prefix) + "_EVENTS" }
func (n names) journalBucket() string { return n.prefix + "_journal" }

func (n names) triggers() string                 { return n.prefix + ".trigger.*" }
func (n names) acknowledgements() string         { return n.prefix + ".ack.*" }
func (n names) events() string                   { return n.prefix + ".event.>" }
func (n names) control(verb string) string       { return n.prefix + ".control." + verb }
func (n names) work() string                     { return n.prefix + ".work.>" }
func (n names) event(policy, kind string) string { return n.prefix + ".event." + policy + "." + kind }
func (n names) workAt(place string) string       { return n.prefix + ".work." + Token(place) + ".>" }
func (n names) workFor(place string, a ID) string {
	return n.prefix + ".work." + Token(place) + "." + a.token()
}

// inbox begins the subjects on which rotatord gets its own answers, apart from those of
// other clients, which need not see them.
func (n names) inbox() string { return "_INBOX." + n.prefix }

// policyOf returns the policy that a subject <prefix>.trigger.<policy> names.
func (n names) policyOf(subject string) (string, bool) {
	return strings.CutPrefix(subject, n.prefix+".trigger.")
}

// acknowledgedPolicy returns the policy that a subject <prefix>.ack.<policy> names.
func (n names) acknowledgedPolicy(subject string) (string, bool) {
	return strings.CutPrefix(subject, n.prefix+".ack.")
}

// ID names an assignment: a policy and one of its certificates.
type ID struct {
	Policy      string
	Certificate string
}

// String is "policy/certificate", as people write it.
func (a ID) String() string { return a.Policy + "/" + a.Certificate }

func (a ID) token() string { return Token(a.Policy) + "." + Token(a.Certificate) }

// Token writes any text as one token of a subject, which is also good for a key of a
// bucket: letters, digits, hyphens and underscores stay, every other byte becomes =
// and two hexadecimal digits. The empty text becomes "=".
func Token(s string) string {
	if s == "" {
		return "="
	}
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; isPlain(c) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "=%02X", c)
		}
	}
	return b.String()
}

func isPlain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}

// ParseToken reads what Token wrote, and nothing else: each text has one token.
func ParseToken(token string) (string, error) {
	var text []byte
	for rest := token; rest != ""; {
		if rest[0] != '=' || len(rest) < 3 {
			text, rest = append(text, rest[0]), rest[1:]
			continue
		}
		b, err := hex.DecodeString(rest[1:3])
		if err != nil {
			return "", fmt.Errorf("token %q: %w", token, err)
		}
		text, rest = append(text, b...), rest[3:]
	}
	if token == "=" {
		text = nil
	}
	if Token(string(text)) != token {
		return "", fmt.Errorf("%q is not a token of rotatord's", token)
	}
	return string(text), nil
}

// parseWork reads a subject made by workFor.
func (n names) parseWork(subject string) (ID, error) {
	rest, ok := strings.CutPrefix(subject, n.prefix+".work.")
	parts := strings.Split(rest, ".")
	if !ok || len(parts) != 3 {
		return ID{}, fmt.Errorf("subject %q is not of the work queue", subject)
	}
	policy, err := ParseToken(parts[1])
	if err != nil {
		return ID{}, err
	}
	certificate, err := ParseToken(parts[2])
	return ID{Policy: policy, Certificate: certificate}, err
}
