package huaweicloud

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	algorithm         = "SDK-HMAC-SHA256"
	dateLayout        = "20060102T150405Z"
	headerDate        = "X-Sdk-Date"
	headerContentHash = "X-Sdk-Content-Sha256"
)

// Sign sets X-Sdk-Date and Authorization so that the request proves possession of
// the access key (reference 1.4). Every header that is present is signed, except
// Content-Type, User-Agent and names with an underscore, which gateways change or
// drop; the host is always signed. The body must be the bytes that are sent.
//
// A signature holds for about 15 minutes, so each attempt is signed anew.
func Sign(req *http.Request, body []byte, accessKey, secret string, now time.Time) {
	req.Header.Del("Authorization")
	date := now.UTC().Format(dateLayout)
	req.Header.Set(headerDate, date)

	headers, names := canonicalHeaders(req)
	canonical := strings.Join([]string{
		req.Method,
		canonicalURI(req.URL),
		canonicalQuery(req.URL),
		headers,
		names,
		payloadHash(req, body),
	}, "\n")
	toSign := algorithm + "\n" + date + "\n" + hexSHA256([]byte(canonical))

	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(toSign))
	req.Header.Set("Authorization", algorithm+" Access="+accessKey+
		", SignedHeaders="+names+", Signature="+hex.EncodeToString(mac.Sum(nil)))
}

// canonicalURI encodes each segment of the path strictly. The closing slash is
// part of what is signed only; the URL that is sent keeps its form.
func canonicalURI(u *url.URL) string {
	// From the escaped form: a %2F inside a segment must not become a separator.
	segments := strings.Split(u.EscapedPath(), "/")
	for i, s := range segments {
		if plain, err := url.PathUnescape(s); err == nil {
			s = plain
		}
		segments[i] = escape(s)
	}
	uri := strings.Join(segments, "/")
	if !strings.HasSuffix(uri, "/") {
		uri += "/"
	}
	return uri
}

// canonicalQuery sorts by key, then by value, both before they are encoded. An
// empty value keeps its "=".
func canonicalQuery(u *url.URL) string {
	query := u.Query()
	keys := make([]string, 0, len(query))
	for k := range query {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	var pairs []string
	for _, k := range keys {
		values := slices.Sorted(slices.Values(query[k]))
		for _, v := range values {
			pairs = append(pairs, escape(k)+"="+escape(v))
		}
	}
	return strings.Join(pairs, "&")
}

// canonicalHeaders returns the block of signed headers, which ends with a line
// feed, and their names joined by semicolons.
func canonicalHeaders(req *http.Request) (block, names string) {
	signed := map[string][]string{"host": {hostOf(req)}}
	for name, values := range req.Header {
		name = strings.ToLower(name)
		if isSigned(name) {
			signed[name] = slices.Sorted(slices.Values(values))
		}
	}
	order := make([]string, 0, len(signed))
	for name := range signed {
		order = append(order, name)
	}
	slices.Sort(order)
	var b strings.Builder
	for _, name := range order {
		for _, v := range signed[name] {
			b.WriteString(name + ":" + strings.TrimSpace(v) + "\n")
		}
	}
	return b.String(), strings.Join(order, ";")
}

func isSigned(lowerName string) bool {
	switch {
	case strings.HasPrefix(lowerName, "content-type"), strings.Contains(lowerName, "_"):
		return false // as the official SDK does
	case lowerName == "user-agent", lowerName == "authorization":
		return false // proxies rewrite the first (reference 1.8); the second is the result
	}
	return true
}

func hostOf(req *http.Request) string {
	if req.Host != "" {
		return req.Host
	}
	return req.URL.Host
}

func payloadHash(req *http.Request, body []byte) string {
	if h := req.Header.Get(headerContentHash); h != "" {
		return h
	}
	return hexSHA256(body)
}

func hexSHA256(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// escape percent-encodes everything but the unreserved characters of RFC 3986,
// with upper-case digits. url.QueryEscape and url.PathEscape keep other sets.
func escape(s string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case 'A' <= c && c <= 'Z', 'a' <= c && c <= 'z', '0' <= c && c <= '9',
			c == '-', c == '_', c == '.', c == '~':
			b.WriteByte(c)
		default:
			b.Write([]byte{'%', digits[c>>4], digits[c&15]})
		}
	}
	return b.String()
}
