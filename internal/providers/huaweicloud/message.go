package huaweicloud

import (
	"bytes"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxMessage   = 512
	maxErrorBody = 64 << 10
	maxNesting   = 4
	// Shorter runs stay: ids of 32 hexadecimal digits help to find the object.
	longRun = 40
	// Of calls that carry keys nothing that could be a piece of one stays.
	shortRun = 16
	cut      = "[cut]"
)

// serviceError is what a service says about a failure, cleaned.
type serviceError struct {
	code, message, requestID string
}

// parseError reads the error body of any service (reference 6.1). It never
// fails: a body in no known form becomes a short message. secret says that the
// call carried keys.
func parseError(body []byte, secret bool) serviceError {
	run := longRun
	if secret {
		run = shortRun
	}
	found := serviceError{}
	var tree any
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if err := d.Decode(&tree); err == nil {
		switch tree := tree.(type) {
		case map[string]any, []any:
			findError(tree, &found, maxNesting)
		case string:
			found.message = tree
		}
	} else {
		found.message = plainText(body)
	}
	found.code = token(found.code)
	found.requestID = token(found.requestID)
	found.message = clean(found.message, run)
	return found
}

// findError fills in what is still missing from a JSON value, outer members
// before inner ones. encoded_authorization_message is never looked at: it is a
// sealed description of the caller.
func findError(v any, found *serviceError, depth int) {
	if depth == 0 {
		return
	}
	switch v := v.(type) {
	case []any:
		for _, inner := range v {
			findError(inner, found, depth-1)
		}
	case map[string]any:
		fill(&found.code, v, "error_code", "errorCode", "code")
		fill(&found.message, v, "error_msg", "errorMsg", "error_message", "message", "error_description")
		fill(&found.requestID, v, "request_id", "requestId")
		names := make([]string, 0, len(v))
		for name := range v {
			names = append(names, name)
		}
		slices.Sort(names) // the same answer always gives the same error
		for _, name := range names {
			if inner, ok := v[name].(string); ok && name == "error" && found.message == "" {
				found.message = inner // OAuth style: {"error": "text"}
				continue
			}
			findError(v[name], found, depth-1)
		}
	}
}

// fill sets an empty text from the first member that is a string or a number.
func fill(text *string, object map[string]any, names ...string) {
	for _, name := range names {
		if *text != "" {
			return
		}
		switch v := object[name].(type) {
		case string:
			*text = v
		case json.Number:
			*text = v.String()
		}
	}
}

var (
	htmlTitle = regexp.MustCompile(`(?is)<title[^>]*>(.*?)</title>`)
	htmlTag   = regexp.MustCompile(`(?s)<[^>]*>`)
)

// plainText is the message of a body that is no JSON: of an HTML page its title.
func plainText(body []byte) string {
	text := strings.TrimSpace(string(body))
	if !strings.HasPrefix(text, "<") {
		return text
	}
	if title := htmlTitle.FindStringSubmatch(text); title != nil {
		return "HTML page: " + htmlTag.ReplaceAllString(title[1], " ")
	}
	return "a page that is no JSON"
}

var (
	// A block that has lost its end is cut to the end of the text.
	pemBlock = regexp.MustCompile(`(?s)-----BEGIN.*?(-----END[^-]*-----|$)`)
	pemEnd   = regexp.MustCompile(`(?s)^.*-----END[^-]*-----`)
	// Base64 (both alphabets) and hexadecimal text, across line breaks however
	// they are written.
	encoded = regexp.MustCompile(`[A-Za-z0-9+/=_-]+(?:(?:\\r|\\n|\r|\n)+[A-Za-z0-9+/=_-]+)*`)
	breaks  = regexp.MustCompile(`\\r|\\n|\r|\n`)
)

// clean makes a text of the outside world safe to show: no PEM, no run of
// encoded data of that many characters, one line of valid UTF-8 without control
// characters, at most 512 bytes.
func clean(text string, run int) string {
	if len(text) > maxErrorBody {
		text = text[:maxErrorBody]
	}
	text = strings.ToValidUTF8(text, "\uFFFD")
	text = pemBlock.ReplaceAllString(text, cut)
	text = pemEnd.ReplaceAllString(text, cut) // one that has lost its beginning
	text = encoded.ReplaceAllStringFunc(text, func(match string) string {
		for _, line := range breaks.Split(match, -1) {
			if len(line) >= run {
				return cut // with its short last line
			}
		}
		return match
	})
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, text)
	text = strings.Join(strings.Fields(text), " ")
	return truncate(text, maxMessage)
}

// truncate cuts to at most n bytes, never inside a character.
func truncate(text string, n int) string {
	if len(text) <= n {
		return text
	}
	const ellipsis = "..."
	n -= len(ellipsis)
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n] + ellipsis
}

// token returns a code or request id if it looks like one, else nothing. The
// longest are codes of 36 characters and UUIDs (reference 6.1).
func token(s string) string {
	if len(s) >= longRun {
		return ""
	}
	for _, r := range s {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9',
			r == '.', r == '-', r == '_':
		default:
			return ""
		}
	}
	return s
}
