package admin

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// filter says which assignments are meant, and in which order.
type filter struct {
	policy, certificate string
	// text is looked for in names, endpoints and the beginnings of fingerprints.
	text   string
	states []string
	// within, if not 0, is for what expires within that time.
	within time.Duration
	order  string
}

// maxText is the longest text that is searched for, in bytes.
const maxText = 256

// filterOf reads the parameters of a query.
func filterOf(q url.Values, order string) (f filter, err error) {
	f = filter{policy: q.Get("policy"), certificate: q.Get("certificate"), text: strings.ToLower(strings.TrimSpace(q.Get("q"))), order: cmp.Or(q.Get("sort"), order)}
	if len(f.text) > maxText {
		return f, fmt.Errorf("q is longer than %d bytes", maxText)
	}
	for _, list := range q["state"] {
		for state := range strings.SplitSeq(list, ",") {
			if state = strings.TrimSpace(state); state == "" {
				continue
			}
			if !slices.Contains(Urgency(), state) {
				return f, fmt.Errorf("there is no state %q; there are: %s", cut(state, 40), strings.Join(Urgency(), ", "))
			}
			f.states = append(f.states, state)
		}
	}
	if text := q.Get("expiring_within"); text != "" {
		if f.within, err = spanOf(text); err != nil {
			return f, fmt.Errorf("expiring_within: %w", err)
		}
	}
	if _, known := orders()[f.order]; !known {
		return f, fmt.Errorf("there is no sort %q; there are: %s", cut(f.order, 40), strings.Join(slices.Sorted(maps.Keys(orders())), ", "))
	}
	return f, nil
}

// spanOf reads 36h, 30d and what Go takes for a duration.
func spanOf(text string) (time.Duration, error) {
	days, isDays := strings.CutSuffix(text, "d")
	if n, err := strconv.Atoi(days); isDays && err == nil && n > 0 && n <= 36500 {
		return time.Duration(n) * 24 * time.Hour, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return d, nil
	}
	return 0, fmt.Errorf("%q is no span of time, as 36h or 30d are", cut(text, 40))
}

// of returns the rows that are meant, in order.
func (f *filter) of(x *index) []row {
	all := x.by(f.order)
	if f.policy == "" && f.certificate == "" && f.text == "" && len(f.states) == 0 && f.within == 0 {
		return all
	}
	var rows []row
	for _, r := range all {
		if f.takes(r, x.made) {
			rows = append(rows, r)
		}
	}
	return rows
}

func (f *filter) takes(r row, now time.Time) bool {
	switch {
	case f.policy != "" && r.Policy != f.policy, f.certificate != "" && r.Certificate != f.certificate:
		return false
	case len(f.states) > 0 && !slices.Contains(f.states, r.State):
		return false
	case f.within > 0 && (r.Wanted == nil || r.Wanted.NotAfter.After(now.Add(f.within))):
		return false
	}
	return f.text == "" || r.mentions(f.text)
}

// mentions looks for text, in lower case.
func (r row) mentions(text string) bool {
	has := func(s string) bool { return strings.Contains(strings.ToLower(s), text) }
	if has(r.Policy + "/" + r.Certificate) {
		return true
	}
	if b := r.Wanted; b != nil && (strings.HasPrefix(b.Fingerprint, text) || strings.HasPrefix(b.SerialNumber, text) || has(b.Issuer) || slices.ContainsFunc(b.Names, has)) {
		return true
	}
	return slices.ContainsFunc(r.Targets, func(t Target) bool {
		return has(t.Name) || strings.HasPrefix(t.Serves, text) || slices.ContainsFunc(t.Endpoints, has)
	})
}

// position is where a page ended: the last row's place in its order, so that the next page
// begins after it whatever has come or gone.
type position struct {
	Order       string    `json:"o"`
	Rank        int       `json:"r,omitempty"`
	Life        float64   `json:"l,omitempty"`
	NotAfter    time.Time `json:"t,omitzero"`
	Policy      string    `json:"p"`
	Certificate []byte    `json:"c"` // as it is, whatever its bytes
}

// cursor is a row's position as text.
func (r row) cursor(order string) string {
	p := position{Order: order, Policy: r.Policy, Certificate: []byte(r.Certificate)}
	switch {
	case order == "urgency":
		p.Rank, p.Life = r.rank, r.life
	case order == "expires" && r.Wanted != nil:
		p.NotAfter = r.Wanted.NotAfter
	}
	text, _ := json.Marshal(p) // it has no value that JSON has not
	return base64.RawURLEncoding.EncodeToString(text)
}

// after returns the rows that come after a cursor.
func after(rows []row, order, cursor string) ([]row, error) {
	if cursor == "" {
		return rows, nil
	}
	var p position
	text, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil || json.Unmarshal(text, &p) != nil || p.Order != order {
		return nil, fmt.Errorf("cursor is not one that an answer with sort=%s gave", order)
	}
	last := row{&Assignment{Policy: p.Policy, Certificate: string(p.Certificate)}, p.Rank, p.Life}
	if !p.NotAfter.IsZero() {
		last.Wanted = &Bundle{NotAfter: p.NotAfter}
	}
	compare := orders()[order]
	i, found := slices.BinarySearchFunc(rows, last, compare)
	if found {
		i++
	}
	return rows[i:], nil
}

// limitOf reads a number of rows.
func limitOf(text string, usual, most int) (int, error) {
	if text == "" {
		return usual, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, fmt.Errorf("limit %q is not a number from 1 to %d", cut(text, 40), most)
	}
	return n, nil
}
