package cloudsim

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// The verifier of SDK-HMAC-SHA256, written from the table in reference 1.4 [SDK core/auth/signer] and from nothing
// else, so that it can judge a signer.

const (
	signAlgorithm   = "SDK-HMAC-SHA256"
	signDateLayout  = "20060102T150405Z"
	signDateHeader  = "X-Sdk-Date"
	signHashHeader  = "X-Sdk-Content-Sha256"
	unsignedPayload = "UNSIGNED-PAYLOAD"
	// signSkew is the distance between X-Sdk-Date and the service's clock that is still taken: 15 minutes by the
	// general signing documents (reference 1.1, doubt 23).
	signSkew = 15 * time.Minute
)

// signature is what an Authorization header says.
type signature struct {
	access  string
	headers []string // lower case, sorted
	value   string   // hex
}

// parseSignature reads "SDK-HMAC-SHA256 Access=…, SignedHeaders=a;b, Signature=…".
func parseSignature(header string) (signature, error) {
	rest, ok := strings.CutPrefix(header, signAlgorithm+" ")
	if !ok {
		return signature{}, errors.New("the algorithm is not " + signAlgorithm)
	}
	var sig signature
	seen := map[string]bool{}
	for part := range strings.SplitSeq(rest, ",") {
		key, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok || value == "" || seen[key] {
			return signature{}, errors.New("the Authorization header is malformed")
		}
		seen[key] = true
		switch key {
		case "Access":
			sig.access = value
		case "SignedHeaders":
			sig.headers = strings.Split(value, ";")
		case "Signature":
			sig.value = value
		default:
			return signature{}, fmt.Errorf("the Authorization header has an unknown part %q", key)
		}
	}
	if len(seen) != 3 {
		return signature{}, errors.New("the Authorization header is incomplete")
	}
	// "lower-case names sorted, joined with ;"
	if !slices.IsSorted(sig.headers) || slices.ContainsFunc(sig.headers, func(h string) bool { return h != strings.ToLower(h) }) {
		return signature{}, errors.New("SignedHeaders is not sorted or not in lower case")
	}
	return sig, nil
}

// verifySignature checks r and its body against the secret key. security is the security token that belongs to the
// key, "" for a permanent key.
func verifySignature(r *http.Request, body []byte, sig signature, secret, security string, now time.Time) error {
	date := r.Header.Get(signDateHeader)
	signed, err := time.Parse(signDateLayout, date)
	if err != nil {
		return errors.New("X-Sdk-Date is missing or not like " + signDateLayout)
	}
	if skew := now.Sub(signed).Abs(); skew > signSkew {
		return fmt.Errorf("X-Sdk-Date is %s away from the service's clock", skew.Round(time.Second))
	}
	if !slices.Contains(sig.headers, strings.ToLower(signDateHeader)) {
		return errors.New("X-Sdk-Date is not among the signed headers")
	}
	// Temporary keys: the token must come along and be part of the signed headers (reference 1.3).
	got := r.Header.Get("X-Security-Token")
	if subtle.ConstantTimeCompare([]byte(got), []byte(security)) != 1 {
		return errors.New("X-Security-Token does not belong to the access key")
	}
	if security != "" && !slices.Contains(sig.headers, "x-security-token") {
		return errors.New("X-Security-Token is not among the signed headers")
	}
	canonical, err := canonicalRequest(r, body, sig.headers)
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(canonical))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(signAlgorithm + "\n" + date + "\n" + hex.EncodeToString(sum[:])))
	want := hex.EncodeToString(mac.Sum(nil))
	if subtle.ConstantTimeCompare([]byte(want), []byte(sig.value)) != 1 {
		return errors.New("verify aksk signature fail")
	}
	return nil
}

// canonicalRequest is the text whose hash is signed.
func canonicalRequest(r *http.Request, body []byte, headers []string) (string, error) {
	query, err := canonicalQuery(r.URL.RawQuery)
	if err != nil {
		return "", err
	}
	hash, err := payloadHash(r.Header.Get(signHashHeader), body)
	if err != nil {
		return "", err
	}
	var block strings.Builder
	for _, name := range headers {
		value := r.Header.Get(name)
		switch {
		case name == "host":
			value = r.Host // net/http takes it out of the header map
		case len(r.Header.Values(name)) == 0:
			return "", fmt.Errorf("the signed header %s is missing", name)
		}
		block.WriteString(name + ":" + strings.TrimSpace(value) + "\n")
	}
	return strings.Join([]string{
		r.Method, canonicalURI(r.URL.Path), query, block.String(), strings.Join(headers, ";"), hash,
	}, "\n"), nil
}

// canonicalURI ends with a slash even where the path that is sent does not.
func canonicalURI(path string) string {
	segments := strings.Split(path, "/")
	for i, segment := range segments {
		segments[i] = percentEncode(segment)
	}
	uri := strings.Join(segments, "/")
	if !strings.HasSuffix(uri, "/") {
		uri += "/"
	}
	return uri
}

// canonicalQuery sorts keys, then values, and keeps the "=" of an empty value.
func canonicalQuery(raw string) (string, error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return "", errors.New("the query cannot be parsed")
	}
	var pairs []string
	for _, key := range slices.Sorted(maps.Keys(values)) {
		for _, value := range slices.Sorted(slices.Values(values[key])) {
			pairs = append(pairs, percentEncode(key)+"="+percentEncode(value))
		}
	}
	return strings.Join(pairs, "&"), nil
}

// payloadHash honours X-Sdk-Content-Sha256, but not blindly: a hash that is given must be the body's.
func payloadHash(given string, body []byte) (string, error) {
	sum := sha256.Sum256(body)
	hash := hex.EncodeToString(sum[:])
	if given == unsignedPayload {
		return given, nil
	}
	if given != "" && given != hash {
		return "", errors.New("X-Sdk-Content-Sha256 is not the hash of the body")
	}
	return hash, nil
}

// percentEncode leaves A–Z a–z 0–9 - _ . ~ alone and writes upper-case hex.
func percentEncode(text string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		if c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || strings.IndexByte("-_.~", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}
