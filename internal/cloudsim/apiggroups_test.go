package cloudsim

import (
	"fmt"
	"testing"
)

// [SDK apig/v2 apig_meta.go ListApiGroupsV2]: a gateway's groups, each as Show tells it.
func TestAPIGGroups(t *testing.T) {
	b := newAPIGBench(t, nil)
	path := "/instances/" + gatewayID + "/api-groups"
	all := b.apig("GET", path, nil)
	wantStatus(t, all, 200)
	rows := asRows(all.json["groups"])
	if len(rows) < 2 || fmt.Sprint(all.json["total"]) != fmt.Sprint(len(rows)) {
		t.Fatalf("groups: %s", all.text)
	}
	for _, row := range rows {
		show := b.apig("GET", path+"/"+row["id"].(string), nil)
		if fmt.Sprint(show.json) != fmt.Sprint(row) {
			t.Errorf("the list tells %v, Show %v", row, show.json)
		}
	}
	for query, want := range map[string]string{
		"?limit=1": "1", "?offset=1": fmt.Sprint(len(rows) - 1), "?name=second": "1", "?name=secon": "1",
		"?name=secon&precise_search=name": "0", "?id=" + rows[0]["id"].(string): "1",
	} {
		if r := b.apig("GET", path+query, nil); r.status != 200 || fmt.Sprint(r.json["size"]) != want {
			t.Errorf("%s: %d %s, want %s groups", query, r.status, r.text, want)
		}
	}
	wantError(t, b.apig("GET", "/instances/x/api-groups", nil), 404, "APIG.3030")
	wantError(t, b.apig("GET", path+"?page=1", nil), 400, "APIG.2000")
}
