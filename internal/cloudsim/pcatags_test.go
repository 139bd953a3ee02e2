package cloudsim

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func tags(pairs ...string) map[string]any {
	list := []any{}
	for i := 0; i < len(pairs); i += 2 {
		list = append(list, map[string]any{"key": pairs[i], "value": pairs[i+1]})
	}
	return map[string]any{"tags": list}
}

// Reference 4.8: tags and the search by them.
func TestPrivateTags(t *testing.T) {
	b := newPCABench(t, nil)
	one, two := b.apply(), b.apply("distinguished_name", map[string]any{"common_name": "two.example.com"})
	create := func(id string, body any) reply { return b.pca("POST", "/"+id+"/tags/create", body) }
	remove := func(id string, body any) reply { return b.pca("DELETE", "/"+id+"/tags/delete", body) }
	r := create(one, tags("rotator/intent", "4711", "Über", "", "env", "test"))
	wantStatus(t, r, 204)
	if r.text != "" || !lastEntry(b.bench).Effect {
		t.Errorf("answer %q", r.text)
	}
	wantStatus(t, create(one, tags("env", "prod")), 204)
	wantStatus(t, create(two, tags("env", "test")), 204)
	if got := b.pca("GET", "/"+one+"/tags", nil).text; got != `{"tags":[{"key":"env","value":"prod"},{"key":"rotator/intent","value":"4711"},{"key":"Über","value":""}]}` {
		t.Errorf("tags %s", got)
	}
	if got := b.sim.PrivateCertificates()[0].Tags; len(got) != 3 || got["env"] != "prod" {
		t.Errorf("console %v", got)
	}
	many := func(n int) map[string]any {
		var pairs []string
		for i := range n {
			pairs = append(pairs, fmt.Sprint("k", i), "v")
		}
		return tags(pairs...)
	}
	wantStatus(t, create(two, many(19)), 204)
	wantStatus(t, create(two, many(19)), 204)
	if lastEntry(b.bench).Effect {
		t.Error("the same tags once more are a change")
	}
	wantError(t, create(two, tags("one", "more")), 400, "PCA.10019004")
	for _, body := range []any{
		many(21), tags(), map[string]any{}, "", tags("", "v"), tags(strings.Repeat("k", 129), "v"), tags("k", strings.Repeat("v", 256)), tags("k", "a*b"), tags("k;", "v"),
		tags("k", "v", "k", "w"), map[string]any{"tags": []any{map[string]any{"key": "k"}}}, map[string]any{"tags": []any{"x"}}, map[string]any{"tags": "x"},
		map[string]any{"tags": []any{map[string]any{"value": "v"}}},
	} {
		wantError(t, create(one, body), 400, "PCA.00020001")
	}
	wantError(t, create(noUUID, tags("k", "v")), 400, "PCA.10010002")

	filter := func(body any) string {
		r := b.pca("POST", "/resource-instances/filter", body)
		wantStatus(t, r, 200)
		var found strings.Builder
		found.WriteString(fmt.Sprint(r.json["total_count"]))
		for _, row := range r.json["resources"].([]any) {
			found.WriteString(" " + map[string]string{one: "one", two: "two"}[row.(map[string]any)["resource_id"].(string)])
		}
		return found.String()
	}
	by := func(pairs ...any) map[string]any {
		list := []any{}
		for i := 0; i < len(pairs); i += 2 {
			list = append(list, map[string]any{"key": pairs[i], "values": pairs[i+1]})
		}
		return map[string]any{"tags": list}
	}
	for want, body := range map[string]any{
		"2 one two": map[string]any{}, "1 one": by("rotator/intent", []string{"4711"}), "2 one two ": by("env", []string{"test", "prod"}),
		"2 one two  ": by("env", []string{}), "0": by("env", []string{"test"}, "Über", []string{}), "1 two": by("env", []string{"test"}, "k1", []string{"v", "w"}),
		"2": map[string]any{"offset": 2, "limit": 50}, "1 two ": map[string]any{"matches": []any{map[string]any{"key": "resource_name", "value": "two."}}},
	} {
		if got := filter(body); got != strings.TrimRight(want, " ") {
			t.Errorf("%v: got %s, want %s", body, got, want)
		}
	}
	for _, body := range []any{
		"", map[string]any{"limit": 5}, map[string]any{"limit": "10"}, map[string]any{"offset": -1}, map[string]any{"without_any_tag": true}, by("k", nil2()), by("", []string{}),
		by("k", []string{}, "k", []string{}), by("k", []string{"a", "b", "a"}), by("k", slices.Repeat([]string{"a"}, 21)), map[string]any{"matches": []any{map[string]any{"key": "status", "value": "x"}}},
		map[string]any{"tags": []any{map[string]any{"key": "k"}}}, map[string]any{"tags": "x"}, map[string]any{"tags": []any{"x"}}, by(1, []string{}),
		map[string]any{"tags": []any{map[string]any{"values": []string{}}}}, map[string]any{"tags": slices.Repeat([]any{map[string]any{}}, 21)}, map[string]any{"offset": "1"},
		map[string]any{"matches": "x"}, map[string]any{"matches": []any{"x"}}, map[string]any{"matches": []any{map[string]any{"value": "x"}}},
	} {
		wantError(t, b.pca("POST", "/resource-instances/filter", body), 400, "PCA.00020001")
	}

	wantStatus(t, remove(one, tags("env", "", "absent", "x")), 204)
	if got := b.sim.PrivateCertificates()[0].Tags; len(got) != 2 || !lastEntry(b.bench).Effect {
		t.Errorf("after delete %v", got)
	}
	wantStatus(t, remove(one, tags("env", "")), 204)
	if lastEntry(b.bench).Effect {
		t.Error("deleting nothing is a change")
	}
}
