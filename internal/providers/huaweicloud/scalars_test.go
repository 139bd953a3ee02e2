package huaweicloud

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestScalars(t *testing.T) {
	long := strings.Repeat("a", 300)
	for given, want := range map[string][3]string{ // identifier, label, text
		`"0af3"`:           {"0af3", "0af3", "0af3"},
		`17`:               {"17", "17", "17"},
		`null`:             {"", "", ""},
		`{"id":"x"}`:       {"", "", ""},
		`["x"]`:            {"", "", ""},
		`true`:             {"", "", ""},
		`"a b"`:            {"", "a b", "a b"},
		`"a/../b"`:         {"", "a/../b", "a/../b"},
		`"*.example.com"`:  {"", "*.example.com", "*.example.com"},
		`"a\nb"`:           {"", "", "a\nb"},
		`"a\u202eb"`:       {"", "", "a\u202eb"},
		`"-----BEGIN X"`:   {"", "", "-----BEGIN X"},
		`"` + long + `"`:   {"", "", long},
		`"zertifikat für"`: {"", "zertifikat für", "zertifikat für"},
	} {
		var got struct {
			I Identifier
			L Label
			T Text
		}
		if err := json.Unmarshal([]byte(`{"I":`+given+`,"L":`+given+`,"T":`+given+`}`), &got); err != nil {
			t.Errorf("%s: %v", given, err)
		}
		if string(got.I) != want[0] || string(got.L) != want[1] || string(got.T) != want[2] {
			t.Errorf("%s: got %+q, want %q", given, got, want)
		}
	}
	for given, want := range map[string]Number{
		`1700000000000`: 1700000000000, `"1700000000000"`: 1700000000000, `1.7e12`: 1700000000000, `null`: 0,
		`"x"`: 0, `{}`: 0, `1e400`: 0, `-5`: -5, `""`: 0,
	} {
		var got Number
		if err := json.Unmarshal([]byte(given), &got); err != nil || got != want {
			t.Errorf("%s: got %d, %v", given, got, err)
		}
	}
	if !Number(-5).Millis().IsZero() || !Number(0).Millis().IsZero() {
		t.Error("no time is a time")
	}
}
