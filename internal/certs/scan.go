package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
)

var (
	beginMark = []byte("-----BEGIN")
	endMark   = []byte("-----END")
)

// scan cuts data into its PEM blocks and decodes each alone, because pem.Decode
// skips a damaged block silently and returns the next: of a truncated leaf with
// its intermediate, the intermediate would become the leaf.
func scan(data []byte) ([]pemBlock, []Problem) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if !bytes.Contains(data, beginMark) && !bytes.Contains(data, endMark) {
		return nil, []Problem{{Reason: NotPEM, Detail: noBlockHint(data)}}
	}
	var (
		blocks   []pemBlock
		problems []Problem
		number   int
		label    string // of the open block; only valid while start >= 0
		start    = -1
		reported bool // the block that goes on has its problem already
	)
	fail := func(reason Reason, detail string) {
		problems = append(problems, Problem{Reason: reason, Block: number, Detail: detail})
	}
	for at := 0; at < len(data); {
		line, next := lineAt(data, at)
		begins, ends := bytes.HasPrefix(line, beginMark), bytes.HasPrefix(line, endMark)
		hidden := !begins && bytes.Contains(line, beginMark)
		if (begins || hidden) && start >= 0 {
			fail(Truncated, "BEGIN "+label+" without a matching END")
			start = -1
		}
		switch {
		case begins:
			number++
			label, start, reported = labelOf(line, beginMark), at, false
			if hint := sameLineHint(line); hint != "" {
				fail(NotPEM, hint)
				start, reported = -1, !bytes.Contains(line, endMark)
			}
		case hidden:
			number++
			fail(NotPEM, midLineHint(line))
			reported = true
		case ends && start >= 0:
			if end := labelOf(line, endMark); end != label {
				fail(Truncated, "BEGIN "+label+" is ended by END "+end)
			} else if block, rest := pem.Decode(data[start:next]); block == nil || len(bytes.TrimSpace(rest)) > 0 {
				fail(BadBlock, label+" is not valid base64")
			} else {
				blocks = append(blocks, pemBlock{block, number})
			}
			start = -1
		case ends && reported:
			reported = false
		case ends:
			fail(Truncated, "END "+labelOf(line, endMark)+" without a matching BEGIN")
		}
		at = next
	}
	if start >= 0 {
		fail(Truncated, "BEGIN "+label+" without a matching END")
	}
	return refuseMany(blocks, problems)
}

// refuseMany refuses the encrypted keys that are too many.
func refuseMany(blocks []pemBlock, problems []Problem) ([]pemBlock, []Problem) {
	encrypted := 0
	blocks = slices.DeleteFunc(blocks, func(b pemBlock) bool {
		if !b.isEncrypted() {
			return false
		}
		if encrypted++; encrypted > maxEncrypted {
			problems = append(problems, *b.problem(UnsupportedKey, fmt.Sprintf("more than %d encrypted keys in one file", maxEncrypted)))
			return true
		}
		return false
	})
	return blocks, problems
}

// lineAt returns the line that starts at an offset, without its end, and the
// offset of the next.
func lineAt(data []byte, at int) (line []byte, next int) {
	next = len(data)
	if i := bytes.IndexByte(data[at:], '\n'); i >= 0 {
		next = at + i + 1
	}
	return bytes.TrimRight(data[at:next], " \t\r\n"), next
}

// labelOf returns what stands between mark and the closing dashes, cut short:
// the text goes into messages.
func labelOf(line, mark []byte) string {
	label := strings.TrimSpace(strings.TrimSuffix(string(line[len(mark):]), "-----"))
	if len(label) > 40 {
		label = label[:40]
	}
	return strings.ToValidUTF8(label, "?")
}

// sameLineHint recognises a whole block on its BEGIN line.
func sameLineHint(line []byte) string {
	body := line[len(beginMark):]
	if !bytes.Contains(body, []byte("-----")) {
		return "the BEGIN line does not end in five dashes"
	}
	if bytes.HasSuffix(body, []byte("-----")) && bytes.Count(body, []byte("-----")) == 1 {
		return ""
	}
	if bytes.Contains(line, []byte(`\n`)) {
		return `looks like an environment variable or JSON string: \n stands where lines should end`
	}
	return "looks folded onto one line, as by a YAML scalar without |; every PEM line needs its own line"
}

func midLineHint(line []byte) string {
	switch before, _, _ := bytes.Cut(line, beginMark); {
	case len(bytes.TrimSpace(before)) == 0:
		return "looks indented, as from a YAML block; PEM must start in the first column"
	case bytes.HasPrefix(line, endMark):
		return "END and BEGIN are on one line: files were joined without a line break between them"
	case bytes.Contains(line, endMark):
		return "looks folded onto one line, as by a YAML scalar without |; every PEM line needs its own line"
	}
	return "BEGIN in the middle of a line; PEM must start in the first column"
}

func noBlockHint(data []byte) string {
	switch {
	case len(bytes.TrimSpace(data)) == 0:
		return "the file is empty"
	case data[0] == 0x30:
		return "looks like DER or PKCS #12 (binary); convert it with openssl"
	case bytes.HasPrefix(data, []byte{0xff, 0xfe}), bytes.HasPrefix(data, []byte{0xfe, 0xff}):
		return "looks like UTF-16 text; save it as ASCII"
	}
	return "no BEGIN line"
}

// parseKey parses a key by its PEM label. The error may quote content: the
// caller must not pass it on.
func parseKey(label string, der []byte) (PrivateKey, error) {
	var parsed any
	var err error
	switch label {
	case "RSA PRIVATE KEY":
		parsed, err = x509.ParsePKCS1PrivateKey(der)
	case "EC PRIVATE KEY":
		parsed, err = x509.ParseECPrivateKey(der)
	default:
		parsed, err = x509.ParsePKCS8PrivateKey(der)
	}
	if err != nil {
		return PrivateKey{}, err
	}
	signer, ok := parsed.(crypto.Signer)
	if !ok {
		return PrivateKey{}, errors.New("not supported: not a signing key")
	}
	switch key := signer.(type) {
	case *ecdsa.PrivateKey:
		if key.Curve.Params().BitSize < 256 {
			return PrivateKey{}, errors.New("not supported: curve")
		}
	case *rsa.PrivateKey:
		if key.N.BitLen() < 1024 { // it parses; signing with it would fail
			return PrivateKey{}, errors.New("insecure: RSA key too short")
		}
	}
	return NewPrivateKey(signer)
}
