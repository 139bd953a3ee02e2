package huaweicloud

import (
	"encoding/base64"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParseError(t *testing.T) {
	key := strings.Repeat("MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7", 20)
	tests := []struct {
		name, body, code, message, id string
	}{
		{"waf", `{"error_code":"WAF.00022003","error_msg":"Resource is in use"}`, "WAF.00022003", "Resource is in use", ""},
		{"gateway", `{"error_code":"APIGW.0301","error_msg":"Incorrect IAM authentication information: decrypt token fail","request_id":"2a3f"}`,
			"APIGW.0301", "Incorrect IAM authentication information: decrypt token fail", "2a3f"},
		{"iam, code is a number", `{"error":{"code":401,"message":"The username or password is wrong.","title":"Unauthorized"}}`,
			"401", "The username or password is wrong.", ""},
		{"iam, new form", `{"error_msg":"m","error_code":"IAM.0001"}`, "IAM.0001", "m", ""},
		{"code and message", `{"code":"X.1","message":"m"}`, "X.1", "m", ""},
		{"camel case", `{"errorCode":"X.1","errorMsg":"m","requestId":"r"}`, "X.1", "m", "r"},
		{"number as code", `{"error_code":17,"error_msg":42}`, "17", "42", ""},
		{"details only", `{"details":[{"error_code":"PAP5.0001","error_msg":"denied"}]}`, "PAP5.0001", "denied", ""},
		{"outer before details", `{"details":[{"error_code":"Z.2"}],"error_code":"A.1","error_msg":"m"}`, "A.1", "m", ""},
		{"sealed message is left out", `{"error_code":"A.1","encoded_authorization_message":"Zm9v"}`, "A.1", "", ""},
		{"nested anywhere", `{"fault":{"inner":{"code":"N.1","message":"deep"}}}`, "N.1", "deep", ""},
		{"oauth style", `{"error":"invalid_client","error_description":"d"}`, "", "d", ""},
		{"oauth without description", `{"error":"invalid_client"}`, "", "invalid_client", ""},
		{"html", "<html>\r\n<head><title>502 <b>Bad</b>\n Gateway</title></head><body>" + key + "</body></html>", "", "HTML page: 502 Bad Gateway", ""},
		{"html without title", "<!doctype html><p>" + key, "", "a page that is no JSON", ""},
		{"plain text", "upstream connect error\n", "", "upstream connect error", ""},
		{"empty", "", "", "", ""},
		{"null", "null", "", "", ""},
		{"string", `"nope"`, "", "nope", ""},
		{"list", `[{"error_code":"A.1","error_msg":"m"}]`, "A.1", "m", ""},
		{"broken json", `{"error_code":"A.1`, "", `{"error_code":"A.1`, ""},
		{"code that is no code", `{"error_code":"` + key + `","error_msg":"m"}`, "", "m", ""},
		{"code with spaces", `{"error_code":"a b"}`, "", "", ""},
		{"request id that is no id", `{"request_id":"a\nb","error_code":"A.1"}`, "A.1", "", ""},
		{"pem", `{"error_code":"A.1","error_msg":"bad key -----BEGIN RSA PRIVATE KEY-----\nMIIEab\n-----END RSA PRIVATE KEY----- sorry"}`,
			"A.1", "bad key [cut] sorry", ""},
		{"pem, escaped twice", `{"error_msg":"bad -----BEGIN PRIVATE KEY-----\\nMIIEab\\n-----END PRIVATE KEY-----"}`, "", "bad [cut]", ""},
		{"pem without end", `{"error_msg":"bad -----BEGIN PRIVATE KEY-----\nMIIEab"}`, "", "bad [cut]", ""},
		{"pem without beginning", `{"error_msg":"MIIEab\nabc\n-----END PRIVATE KEY----- rest"}`, "", "[cut] rest", ""},
		{"base64 with a short last line", `{"error_msg":"got ` + key[:64] + `\nQUJD=="}`, "", "got [cut]", ""},
		{"long hex", `{"error_msg":"token ` + strings.Repeat("0a", 32) + ` refused"}`, "", "token [cut] refused", ""},
		{"an id stays", `{"error_msg":"certificate ` + testProject + ` not found"}`, "", "certificate " + testProject + " not found", ""},
		{"control characters", `{"error_msg":"a\u0000\u001b[31mb\u2028c\td"}`, "", "a [31mb c d", ""},
		{"broken utf-8", "{\"error_msg\":\"a\xff\xfeb\"}", "", "a\uFFFD\uFFFDb", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := parseError([]byte(tt.body), false)
			if got.code != tt.code || got.message != tt.message || got.requestID != tt.id {
				t.Errorf("got %+q, want code %q message %q id %q", got, tt.code, tt.message, tt.id)
			}
		})
	}
}

func TestMessageIsShort(t *testing.T) {
	got := parseError([]byte(`{"error_msg":"`+strings.Repeat("ü ", 2000)+`"}`), false).message
	if len(got) > 512 || !utf8.ValidString(got) || !strings.HasSuffix(got, "...") {
		t.Errorf("%d bytes, valid %t: %q", len(got), utf8.ValidString(got), got[len(got)-20:])
	}
}

func TestSecretCallsAreCleanedMoreStrictly(t *testing.T) {
	body := []byte(`{"error_code":"WAF.1606","error_msg":"illegal key near ABCDEFGHIJKLMNOPQRST here"}`)
	if got := parseError(body, true).message; got != "illegal key near [cut] here" {
		t.Errorf("got %q", got)
	}
	if got := parseError(body, false).message; !strings.Contains(got, "ABCDEFGHIJKLMNOPQRST") {
		t.Errorf("got %q", got)
	}
}

func FuzzParseError(f *testing.F) {
	f.Add([]byte(`{"error_code":"WAF.00022003","error_msg":"Resource is in use"}`), []byte("0123456789"))
	f.Add([]byte(`{"error":{"code":401,"message":"-----BEGIN X-----"}}`), []byte("abc"))
	f.Add([]byte("<html><title>x</title>"), []byte{0xff, 0})
	f.Add([]byte(`[[[[[[[[{"code":1}]]]]]]]]`), []byte("-----END -----"))
	f.Fuzz(func(t *testing.T, body, noise []byte) {
		// Whatever surrounds a key, it does not get through.
		secret := base64.StdEncoding.EncodeToString([]byte("a private key of a good length, 48 bytes or more"))
		echo := append(append(append([]byte{}, body...), secret...), noise...)
		for _, b := range [][]byte{body, echo} {
			for _, redact := range []bool{false, true} {
				e := parseError(b, redact)
				text := e.code + e.message + e.requestID
				if !utf8.ValidString(text) || len(e.message) > maxMessage || strings.ContainsAny(text, "\n\r\x00\x1b") {
					t.Fatalf("unfit to show: %+q", e)
				}
				if strings.Contains(text, secret) || strings.Contains(text, "-----BEGIN") {
					t.Fatalf("a secret got through: %+q", e)
				}
			}
		}
	})
}
