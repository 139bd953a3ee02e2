package audit

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"time"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// history makes a faultless history of n events, and its head.
func history(t *testing.T, subject string, n int) ([]Entry, Head) {
	t.Helper()
	var head Head
	var all []Entry
	for i := range n {
		e := Entry{ID: fmt.Sprintf("%s-%d", subject, i+1), Type: TypePrefix + "verified", Subject: subject, Time: start.Add(time.Duration(i) * time.Hour)}
		e.Data = dataOf(t, head.Next(), fmt.Sprintf("reason <%d> & \u2028 \\u2028 \u00e9 \"x\"", i))
		link := head.Next()
		link.Hash = hashOf(t, e)
		e.Data = dataOf(t, link, fmt.Sprintf("reason <%d> & \u2028 \\u2028 \u00e9 \"x\"", i))
		head = Head{link.Sequence, link.Hash, e.Time}
		all = append(all, e)
	}
	return all, head
}

func dataOf(t *testing.T, link Link, reason string) []byte {
	t.Helper()
	data, err := json.Marshal(map[string]any{"chain": link, "policy": "shop", "reason": reason, "endpoints": []string{"b", "a"}})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func hashOf(t *testing.T, e Entry) string {
	t.Helper()
	hash, err := Hash(e)
	if err != nil {
		t.Fatal(err)
	}
	return hash
}

func check(kept time.Time, head map[string]Head, entries ...Entry) ([]Chain, []Finding) {
	c := NewChecker(kept)
	for _, e := range entries {
		c.Read(e)
	}
	return c.End(head)
}

// TestCheck: what is right is right, in any of the ways in which it may have been stored, and
// every single misdeed shows.
func TestCheck(t *testing.T) {
	all, head := history(t, "shop/www", 6)
	other, _ := history(t, "shop/www", 3)
	other[0].ID = "anew" // another first event
	again := rechain(t, other)
	set := []Entry{rehash(t, all[3], "what an older journal went on with")}
	set = append(set, follow(t, set[0], 2)...)
	forged := all[2]
	forged.Data = []byte(strings.Replace(string(forged.Data), "reason", "reasom", 1))
	moved := all[3]
	moved.Time = moved.Time.Add(time.Second)
	bare := Entry{ID: "bare", Subject: "shop/www", Data: []byte(`{"policy":"shop"}`)}
	broken := Entry{ID: "broken", Subject: "shop/www", Data: []byte(`[]`)}

	tests := []struct {
		name    string
		entries []Entry
		head    Head
		kept    time.Time
		want    string // of the findings; empty for none
	}{
		{"all", all, head, start, ""},
		{"one that the journal did not know yet", all, Head{5, "", start}, start, ""},
		{"no journal", all, Head{}, start, ""},
		{"delivered twice", append(all[:6:6], all[5]), head, start, ""},
		{"out of order", []Entry{all[0], all[2], all[3], all[1], all[5], all[4]}, head, start, ""},
		{"the beginning has had its time", all[2:], head, start.Add(90 * time.Minute), ""},
		{"the beginning has had its time by the clock of who kept it", all[2:], head, start.Add(time.Hour - 30*time.Second), ""},
		{"everything has had its time by that clock", nil, head, start.Add(5*time.Hour - 30*time.Second), ""},
		{"everything has had its time", nil, head, start.Add(24 * time.Hour), ""},
		{"begun anew", append(all[:6:6], again...), headOf(t, again), start, ""},

		{"changed", []Entry{all[0], all[1], forged, all[3], all[4], all[5]}, head, start, "event 3 (shop/www-3) was changed"},
		{"moved in time", []Entry{all[0], all[1], all[2], moved, all[4], all[5]}, head, start, "event 4 (shop/www-4) was changed"},
		{"one removed", []Entry{all[0], all[1], all[3], all[4], all[5]}, head, start, "event 3 is missing before this one"},
		{"several removed", []Entry{all[0], all[4], all[5]}, head, start, "events 2 to 4 are missing before this one"},
		{"the last removed", all[:5], head, start, "event 6 is missing at the end"},
		{"all removed", nil, head, start, "none of 6 events is left"},
		{"the beginning removed before its time", all[2:], head, start, "the event before event 3 is gone"},
		{"another added", append(all[:6:6], rehash(t, all[1], "another")), head, start, "there are two events 2"},
		{"the journal set back", append(all[:6:6], set...), headOf(t, set), start, "there are two events 4"},
		{"the journal set back by one", append(all[:6:6], rehash(t, all[5], "again")), headOf(t, []Entry{rehash(t, all[5], "again")}), start, "there are two events 6"},
		{"a last one forged with a hash of its own", append(all[:5:5], rehash(t, all[5], "another reason")), head, start, "is not the journal's"},
		{"one in the middle forged with a hash of its own", []Entry{all[0], all[1], rehash(t, all[2], "x"), all[3]}, Head{}, start, "event 4 does not follow the event before it"},
		{"no chain", append(all[:6:6], bare), head, start, "it holds no chain"},
		{"no data", append(all[:6:6], broken), head, start, "event broken cannot be checked"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, findings := check(test.kept, map[string]Head{"shop/www": test.head}, test.entries...)
			switch {
			case test.want == "" && len(findings) > 0:
				t.Errorf("found %v", findings)
			case test.want != "" && (len(findings) == 0 || !strings.Contains(findings[0].Problem, test.want)):
				t.Errorf("found %v, want %q", findings, test.want)
			case len(findings) > 1:
				t.Errorf("one misdeed shows as several: %v", findings)
			}
		})
	}
}

// rechain links entries anew.
func rechain(t *testing.T, entries []Entry) []Entry {
	t.Helper()
	return chain(t, Head{}, entries)
}

// follow makes n events that follow another.
func follow(t *testing.T, e Entry, n int) []Entry {
	t.Helper()
	entries := make([]Entry, n)
	for i := range entries {
		entries[i] = e
		entries[i].Time = e.Time.Add(time.Duration(i+1) * time.Minute)
	}
	return chain(t, headOf(t, []Entry{e}), entries)
}

func chain(t *testing.T, head Head, entries []Entry) []Entry {
	t.Helper()
	var all []Entry
	for _, e := range entries {
		link := head.Next()
		e.Data = dataOf(t, link, "anew")
		link.Hash = hashOf(t, e)
		e.Data = dataOf(t, link, "anew")
		head = Head{link.Sequence, link.Hash, e.Time}
		all = append(all, e)
	}
	return all
}

func headOf(t *testing.T, entries []Entry) Head {
	t.Helper()
	last := entries[len(entries)-1]
	link, err := linkOf(last)
	if err != nil {
		t.Fatal(err)
	}
	return Head{link.Sequence, link.Hash, last.Time}
}

// rehash forges an event with a hash that fits it.
func rehash(t *testing.T, e Entry, reason string) Entry {
	t.Helper()
	link, err := linkOf(e)
	if err != nil {
		t.Fatal(err)
	}
	e.Data = dataOf(t, link, reason)
	link.Hash = hashOf(t, e)
	e.Data = dataOf(t, link, reason)
	return e
}

// TestCheckTells what was read.
func TestCheckTells(t *testing.T) {
	www, head := history(t, "shop/www", 3)
	api, _ := history(t, "shop/api", 2)
	chains, findings := check(start, map[string]Head{"shop/www": head}, www[0], api[0], www[1], api[1], www[2])
	if len(findings) != 0 || len(chains) != 2 {
		t.Fatalf("%v, %v", chains, findings)
	}
	if got := chains[1]; got.Subject != "shop/www" || got.Events != 3 || got.First != 1 || got.Last != 3 || got.Hash != head.Hash {
		t.Errorf("read %+v", got)
	}
}

// TestCheckOrder: however events of one history overtake each other a little, it is whole; and
// without any one of them, it is not.
func TestCheckOrder(t *testing.T) {
	all, head := history(t, "shop/www", 40)
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 1))
		mixed := append([]Entry(nil), all...)
		for i := 1; i+4 < len(mixed); i += 4 {
			random.Shuffle(4, func(a, b int) { mixed[i+a], mixed[i+b] = mixed[i+b], mixed[i+a] })
		}
		if _, findings := check(start, map[string]Head{"shop/www": head}, mixed...); len(findings) > 0 {
			t.Fatalf("seed %d: %v", seed, findings)
		}
		lost := random.IntN(len(mixed))
		if _, findings := check(start, map[string]Head{"shop/www": head}, append(mixed[:lost:lost], mixed[lost+1:]...)...); len(findings) == 0 {
			t.Fatalf("seed %d: nobody misses event %d", seed, lost+1)
		}
	}
}

// TestHashByHand: the hash can be had with jq and sha256sum, as the documentation says.
func TestHashByHand(t *testing.T) {
	jq, err := exec.LookPath("jq")
	if err != nil {
		t.Skip("jq is not installed")
	}
	all, _ := history(t, "shop/www", 2)
	event, err := json.Marshal(map[string]any{
		"specversion": "1.0", "source": "/rotatord/here", "id": all[1].ID, "type": all[1].Type, "subject": all[1].Subject, "time": all[1].Time, "data": all[1].Data,
	})
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), "sh", "-c", jq+` -cjS '{id,type,subject,time,data}|del(.data.chain.hash)' | sha256sum`)
	c.Stdin = strings.NewReader(string(event))
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatal(err, string(out))
	}
	if got := strings.Fields(string(out))[0]; got != hashOf(t, all[1]) {
		t.Errorf("jq and sha256sum have %s, Hash has %s", got, hashOf(t, all[1]))
	}
}

// FuzzHash: how an event's JSON is written does not matter.
func FuzzHash(f *testing.F) {
	f.Add(`{"chain":{"hash":"x","sequence":1},"reason":"a\u2028b\\u2028<&>"}`)
	f.Add(`{"n":1e3,"x":[1,2.50,null,true]}`)
	f.Fuzz(func(t *testing.T, data string) {
		e := Entry{ID: "1", Type: TypePrefix + "failed", Subject: "a/b", Time: start, Data: []byte(data)}
		before, err := Hash(e)
		if err != nil {
			return
		}
		var v map[string]any
		d := json.NewDecoder(strings.NewReader(data))
		d.UseNumber()
		if err := d.Decode(&v); err != nil {
			t.Fatal(err)
		}
		if e.Data, err = json.MarshalIndent(v, "", "\t"); err != nil {
			t.Fatal(err)
		}
		if after := hashOf(t, e); after != before {
			t.Errorf("%q hashes to %s, and written anew to %s", data, before, after)
		}
	})
}

// TestCheckRedelivered: an outbox of which a part was published is published whole when NATS is
// back; after an hour the server does not recognise its first events any more.
func TestCheckRedelivered(t *testing.T) {
	all, head := history(t, "shop/www", 6)
	for of := range 6 { // the first event of the outbox
		for sent := of + 1; sent <= 6; sent++ {
			entries := append(append([]Entry(nil), all[:sent]...), all[of:]...)
			chains, findings := check(start, map[string]Head{"shop/www": head}, entries...)
			if len(findings) > 0 || len(chains[0].Begun) > 0 {
				t.Errorf("events %d to %d, and then %d to 6: %v, begun %v", 1, sent, of+1, findings, chains[0].Begun)
			}
		}
	}
}
