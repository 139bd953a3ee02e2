package huaweicloud

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rotatord/rotatord/internal/providers"
)

const reference = "../../../docs/reference/huawei-cloud.md"

// referenceCode is a code with what the reference says of it.
type referenceCode struct {
	code, class, line string
	status            int // 0 where none is printed
}

var (
	codePattern = regexp.MustCompile(`(?:([A-Z]+)\.)?(\d{3,8})(?:–(\d{3,8}))?`)
	parentheses = regexp.MustCompile(`\([^)]*\)`)
	digits      = regexp.MustCompile(`\d{3}`)
)

// referenceCodes reads the tables of sections 6.2 to 6.6, whose first column has codes in
// the short forms of prose: "WAF.00011002–00011014", "PCA.00020101 / 102 / 103".
func referenceCodes(t *testing.T) []referenceCode {
	t.Helper()
	text, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n### 6.2 ")
	section, _, end := strings.Cut(section, "\n### 6.7 ")
	if !ok || !end {
		t.Fatal("the reference has no sections 6.2 to 6.7")
	}
	var codes []referenceCode
	for line := range strings.Lines(section) {
		cells := strings.Split(strings.ReplaceAll(strings.TrimSpace(line), "**", ""), "|")
		if len(cells) < 4 {
			continue
		}
		found := expand(parentheses.ReplaceAllString(cells[1], ""))
		statuses := digits.FindAllString(cells[2], -1)
		classes := strings.Split(cells[len(cells)-2], " / ")
		for i, code := range found {
			c := referenceCode{code: code, class: strings.TrimSpace(classes[0]), line: strings.TrimSpace(line)}
			if len(classes) == len(found) {
				c.class = strings.TrimSpace(classes[i])
			}
			if len(statuses) > 0 {
				at := statuses[0]
				if len(statuses) == len(found) {
					at = statuses[i]
				}
				c.status, _ = strconv.Atoi(at)
			}
			codes = append(codes, c)
		}
	}
	return codes
}

// expand returns the codes of a cell; a number without prefix continues the one before it.
func expand(cell string) []string {
	var codes []string
	prefix, last := "", ""
	for _, m := range codePattern.FindAllStringSubmatch(cell, -1) {
		number := m[2]
		switch {
		case m[1] != "":
			prefix = m[1]
		case prefix == "":
			continue // a status
		case len(number) < len(last):
			number = last[:len(last)-len(number)] + number
		}
		last = number
		codes = append(codes, prefix+"."+number)
		if m[3] == "" {
			continue
		}
		from, _ := strconv.Atoi(number)
		to, _ := strconv.Atoi(m[3])
		for n := from + 1; n <= to; n++ {
			last = strconv.Itoa(n)
			last = strings.Repeat("0", len(number)-len(last)) + last
			codes = append(codes, prefix+"."+last)
		}
	}
	return codes
}

// kindsOfClass are the kinds that stand for a class of the reference.
func kindsOfClass(class string) []providers.Kind {
	switch {
	case strings.HasPrefix(class, "terminal"), strings.HasPrefix(class, "detach"):
		return []providers.Kind{providers.KindInvalid, providers.KindDenied}
	case strings.HasPrefix(class, "refresh"):
		return []providers.Kind{providers.KindUnauthenticated}
	case strings.HasPrefix(class, "already exists"), class == "done":
		return []providers.Kind{providers.KindExists}
	case class == "quota":
		return []providers.Kind{providers.KindQuota}
	case class == "not found":
		return []providers.Kind{providers.KindNotFound}
	case class == "in use":
		return []providers.Kind{providers.KindInUse}
	case strings.HasPrefix(class, "retry"):
		return []providers.Kind{providers.KindUnavailable, providers.KindUnknownOutcome, providers.KindConflict, providers.KindThrottled}
	case strings.HasPrefix(class, "wait"):
		return []providers.Kind{providers.KindThrottled}
	case class == "by meaning":
		return providers.Kinds()[1:] // codes_test.go has them one by one
	}
	return nil
}

// Every code of the reference is known, with the meaning that the reference gives it; and
// no code is known that the reference does not have.
func TestTheTablesAreTheReferences(t *testing.T) {
	listed := map[string]bool{"APIG.3108": true} // named in the words for APIG.3100–31xx
	for _, c := range referenceCodes(t) {
		listed[c.code] = true
		if c.code == "IIC.400" { // two meanings, by status: see TestStatusBesideCode
			continue
		}
		if _, known := tableOf(c.code)[c.code]; !known {
			t.Errorf("%s is not in a table: %s", c.code, c.line)
		}
		kinds := kindsOfClass(c.class)
		if kinds == nil {
			t.Errorf("%s: class %q is not understood", c.code, c.class)
		}
		for _, write := range []bool{false, true} {
			if kind, _ := judge(c.status, c.code, write); !slices.Contains(kinds, kind) {
				t.Errorf("%s (status %d, write %t) is %s: %s", c.code, c.status, write, kind, c.line)
			}
		}
	}
	if len(listed) < 100 {
		t.Errorf("only %d codes were found in the reference", len(listed))
	}
	for _, table := range []codeTable{wafCodes, apigCodes, pcaCodes, orderCodes, identityCodes, gatewayCodes} {
		for _, code := range slices.Sorted(maps.Keys(table)) {
			if !listed[code] {
				t.Errorf("%s is not in the reference", code)
			}
		}
	}
}

func TestExpand(t *testing.T) {
	for cell, want := range map[string]string{
		"WAF.00011002–00011004":          "WAF.00011002 WAF.00011003 WAF.00011004",
		"PCA.00020101 / 102":             "PCA.00020101 PCA.00020102",
		"APIG.1000–1001, 1007":           "APIG.1000 APIG.1001 APIG.1007",
		"APIG.3100–31xx":                 "APIG.3100",
		"429 without code":               "",
		"OTC cloud mode WAF.1003 / 9001": "WAF.1003 WAF.9001",
	} {
		if got := strings.Join(expand(cell), " "); got != want {
			t.Errorf("%s: got %s, want %s", cell, got, want)
		}
	}
}
