package huaweicloud

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rotatord/rotatord/internal/providers"
)

// codesByKind repeats the tables of the reference (6.2 to 6.6) the other way round.
// "server" stands for: unavailable for a read, unknown outcome for a write.
var codesByKind = map[string]string{
	"invalid": `WAF.00011001 WAF.00011002 WAF.00011003 WAF.00011004 WAF.00011005 WAF.00011006 WAF.00011007
		WAF.00011008 WAF.00011009 WAF.00011010 WAF.00011011 WAF.00011012 WAF.00011013 WAF.00011014
		WAF.00011019 WAF.00011021 WAF.00012002 WAF.00012010 WAF.00013002 WAF.00014007 WAF.00014008
		WAF.00014009 WAF.00021002 WAF.00021003 WAF.00021004 WAF.00021005 WAF.00021006 WAF.00021013
		WAF.00022004 WAF.1003 WAF.1004 WAF.1605 WAF.1606
		APIG.2000 APIG.2051 APIG.2101 APIG.2102 APIG.2103 APIG.2104 APIG.2105 APIG.2106 APIG.2109
		APIG.3148 APIG.3474 APIG.3708 APIG.3709 APIG.3715
		PCA.00020001 PCA.00020101 PCA.00020102 PCA.00020103 PCA.00020109 PCA.00020110 PCA.00020111
		PCA.00020112 PCA.00020201 PCA.00020202 PCA.00020203 PCA.10010105
		IIC.1002 IIC.1003 IIC.1004 IIC.1223`,
	"exists": `WAF.00011016 WAF.00014002 WAF.00022002 APIG.2029 PCA.10010071 PCA.10010072`,
	"unauthenticated": `WAF.00012001 WAF.9001 APIGW.0301
		APIG.1000 APIG.1001 APIG.1002 APIG.1003 APIG.1007 APIG.1008 APIG.1009`,
	"denied": `WAF.00012003 WAF.00012004 WAF.00012005 WAF.00012006 WAF.00012009 WAF.9002
		APIG.1005 APIG.1115 APIG.1301 IIC.1000 IIC.1001`,
	"quota": `WAF.00013001 WAF.00013007 WAF.00014012 WAF.00022005 WAF.3002 APIG.3100 APIG.3108`,
	"not_found": `WAF.00014001 WAF.00022001 WAF.3001 APIG.3020 APIG.3021 APIG.3025 APIG.3030 APIG.3097
		PCA.00030102 PCA.10010002 CBC.30000067 IIC.404`,
	"in_use":      `WAF.00022003 WAF.3003`,
	"conflict":    `APIG.3711 APIG.3718 IIC.1006 IIC.1007`,
	"unavailable": `WAF.00010002 WAF.00020002 WAF.3004 APIG.3500`,
	"throttled":   `APIGW.0308 APIG.9008`,
	"server":      `WAF.00010001 WAF.00020001 APIG.9999`,
}

func TestEveryCodeOfTheTables(t *testing.T) {
	listed := 0
	for want, codes := range codesByKind {
		for code := range strings.FieldsSeq(codes) {
			listed++
			// The code decides, whatever the status says.
			for _, status := range []int{400, 401, 403, 404, 409, 429, 500, 503} {
				for _, write := range []bool{false, true} {
					kind, _ := judge(status, code, write)
					if kind.String() != expected(want, write) {
						t.Errorf("judge(%d, %s, write %t) = %s, want %s", status, code, write, kind, expected(want, write))
					}
				}
			}
		}
	}
	have := 0
	for _, table := range []codeTable{wafCodes, apigCodes, pcaCodes, orderCodes, identityCodes, gatewayCodes} {
		have += len(table)
	}
	if have != listed {
		t.Errorf("the tables hold %d codes, this test lists %d", have, listed)
	}
}

func expected(want string, write bool) string {
	switch {
	case want == "server" && write:
		return "unknown_outcome"
	case want == "server":
		return "unavailable"
	}
	return want
}

func TestStatusWithoutKnownCode(t *testing.T) {
	for status, want := range map[int]string{
		301: "unavailable", 302: "unavailable", 400: "invalid", 401: "unauthenticated", 403: "denied",
		404: "not_found", 405: "invalid", 407: "denied", 408: "server", 409: "conflict", 410: "not_found",
		413: "invalid", 422: "invalid", 423: "conflict", 429: "throttled", 500: "server", 501: "invalid",
		502: "server", 503: "server", 504: "server", 599: "server",
	} {
		for _, code := range []string{"", "WAF.99999999", "APIGW.0303", "XYZ.1", "nonsense"} {
			for _, write := range []bool{false, true} {
				if kind, _ := judge(status, code, write); kind.String() != expected(want, write) {
					t.Errorf("judge(%d, %q, write %t) = %s, want %s", status, code, write, kind, expected(want, write))
				}
			}
		}
	}
}

// Where the status tells what the code leaves open.
func TestStatusBesideCode(t *testing.T) {
	for _, tt := range []struct {
		status int
		code   string
		want   providers.Kind
	}{
		{403, "APIG.3112", providers.KindQuota},
		{403, "APIG.3199", providers.KindQuota},
		{400, "APIG.3112", providers.KindInvalid},
		{404, "APIG.3112", providers.KindNotFound},
		{403, "APIG.3201", providers.KindDenied},
		{403, "APIG.31", providers.KindDenied},
		{400, "IIC.400", providers.KindInvalid},
		{404, "IIC.400", providers.KindNotFound},
	} {
		if kind, _ := judge(tt.status, tt.code, true); kind != tt.want {
			t.Errorf("judge(%d, %s) = %s, want %s", tt.status, tt.code, kind, tt.want)
		}
	}
}

func TestDocumentedWaits(t *testing.T) {
	for code, want := range map[string]time.Duration{
		"WAF.00010002": 5 * time.Minute, "WAF.00020002": 5 * time.Minute,
		"APIG.3711": time.Minute, "APIG.3718": 15 * time.Second, "APIG.3500": 15 * time.Second, "APIG.2000": 0,
	} {
		if _, wait := judge(500, code, true); wait != want {
			t.Errorf("%s: wait %s, want %s", code, wait, want)
		}
	}
}

func TestAskedWait(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		name, header, message string
		want                  time.Duration
	}{
		{"nothing", "", "", 0},
		{"documented text", "", "The throttling threshold has been reached: policy user over ratelimit,limit:200,time:5 minute", 5 * time.Minute},
		{"short window", "", "policy ip over ratelimit,limit:10,time:1 second", time.Minute},
		{"no unit", "", "limit:10,time:90", 90 * time.Second},
		{"hour is cut", "", "limit:10,time:1 hour", 30 * time.Minute},
		{"absurd number", "", "limit:10,time:99999999999999999999 day", 30 * time.Minute},
		{"header in seconds", "120", "limit:10,time:5 minute", 2 * time.Minute},
		{"header is short", "1", "", time.Minute},
		{"header is a date", now.Add(4 * time.Minute).Format(http.TimeFormat), "", 4 * time.Minute},
		{"header is a past date", now.Add(-time.Hour).Format(http.TimeFormat), "", time.Minute},
		{"header is nonsense", "soon", "", 0},
		{"header is huge", "99999999", "", 30 * time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := http.Header{}
			if tt.header != "" {
				h.Set("Retry-After", tt.header)
			}
			if got := askedWait(h, tt.message, now); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestThrottledServicePauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		throttle := true
		c, cloud := fakeClient(t, keyConfig(), func(*http.Request, []byte) (*http.Response, error) {
			if throttle {
				return reply(429, `{"error_code":"APIGW.0308","error_msg":"policy user over ratelimit,limit:200,time:5 minute","request_id":"r-1"}`), nil
			}
			return reply(200, `{}`), nil
		})
		err := c.Do(t.Context(), getCall(nil))
		e := wantKind(t, err, providers.KindThrottled)
		if e.RetryAfter != 5*time.Minute || e.RequestID != "r-1" || e.Code != "APIGW.0308" {
			t.Errorf("got %+v", e)
		}

		throttle = false
		time.Sleep(2 * time.Minute)
		e = wantKind(t, c.Do(t.Context(), createCall(nil, nil)), providers.KindThrottled)
		if e.RetryAfter != 3*time.Minute || !strings.Contains(e.Error(), "APIGW.0308") || !strings.Contains(e.Error(), "paused until") {
			t.Errorf("got retry after %s, %v", e.RetryAfter, e)
		}
		if n := len(cloud.calls); n != 1 {
			t.Errorf("%d calls were sent, want 1: the second must fail without one", n)
		}

		time.Sleep(3*time.Minute + time.Nanosecond)
		if err := c.Do(t.Context(), getCall(nil)); err != nil {
			t.Errorf("after the pause: %v", err)
		}
	})
}

// A call that waits for its turn while another one is refused is not sent.
func TestPauseReachesThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := keyConfig()
		cfg.Limits = map[string]Limit{WAF: {Concurrency: 1}}
		c, cloud := fakeClient(t, cfg, func(*http.Request, []byte) (*http.Response, error) {
			time.Sleep(time.Second)
			return reply(429, ""), nil
		})
		failed := make(chan error)
		for range 5 {
			go func() { failed <- c.Do(t.Context(), getCall(nil)) }()
		}
		for range 5 {
			wantKind(t, <-failed, providers.KindThrottled)
		}
		if len(cloud.calls) != 1 {
			t.Errorf("%d calls were sent, want 1", len(cloud.calls))
		}
	})
}

// wantKind returns err as a provider's error of that kind.
func wantKind(t *testing.T, err error, want providers.Kind) *providers.Error {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %s", want)
	}
	if got := providers.KindOf(err); got != want {
		t.Fatalf("kind %s, want %s: %v", got, want, err)
	}
	return asError(err)
}

func asError(err error) *providers.Error {
	if e, ok := errors.AsType[*providers.Error](err); ok {
		return e
	}
	panic(fmt.Sprintf("no provider error in %v", err))
}
