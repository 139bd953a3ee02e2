package cloudsim

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Reference 4.6: revoke needs {} at least, a known reason, and a CA that is active or disabled.
func TestPrivateRevoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newPCABench(t, nil)
		id := b.apply()
		revoke := func(body any) reply { return b.pca("POST", "/"+id+"/revoke", body) }
		for _, body := range []any{nil, "", map[string]any{"reason": "BORED"}, map[string]any{"reason": nil}, map[string]any{"x": 1}} {
			wantError(t, revoke(body), 400, "PCA.00020001")
		}
		for _, status := range authorityStates {
			_ = b.sim.ConsoleSetAuthority(b.issuer, status)
			if status == authorityActive || status == authorityDisabled {
				continue
			}
			wantError(t, revoke(map[string]any{}), 400, "PCA.10019001")
		}
		_ = b.sim.ConsoleSetAuthority(b.issuer, authorityDisabled)
		wantStatus(t, revoke(map[string]any{}), 204)
		if info := b.sim.PrivateCertificates()[0]; info.RevokedReason != "UNSPECIFIED" {
			t.Errorf("%+v", info)
		}
		_ = b.sim.ConsoleSetAuthority(b.issuer, authorityActive)
		id = b.apply("validity", validity("HOUR", 2))
		time.Sleep(3 * time.Hour)
		if got := b.pca("GET", "/"+id, nil).str("status"); got != "EXPIRED" {
			t.Errorf("status %s", got)
		}
		wantError(t, revoke(map[string]any{}), 400, "PCA.10019003")
		wantError(t, b.pca("POST", "/"+id+"/export", exportBody()), 400, "PCA.10019003")
	})
}

// Reference 4.4: paging, filters and order of the list.
func TestPrivateList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newPCABench(t, nil)
		root := b.authority(rootCA).ID
		var ids []string
		for i := range 12 {
			issuer := b.issuer
			if i%2 == 1 {
				issuer = root
			}
			cn := map[string]any{"common_name": fmt.Sprintf("n%02d.example.com", 11-i)}
			ids = append(ids, b.apply("distinguished_name", cn, "issuer_id", issuer, "validity", validity("DAY", 1+i*5%12)))
			time.Sleep(time.Second)
		}
		list := func(query string) (names []string, total int) {
			r := b.pca("GET", "?"+query, nil)
			wantStatus(t, r, 200)
			for _, row := range r.json["certificates"].([]any) {
				names = append(names, row.(map[string]any)["distinguished_name"].(map[string]any)["common_name"].(string)[:3])
			}
			return names, int(r.json["total"].(float64))
		}
		for query, want := range map[string]string{
			"":                             "[n00 n01 n02 n03 n04 n05 n06 n07 n08 n09] 12",
			"limit=3":                      "[n00 n01 n02] 12",
			"limit=3&offset=10":            "[n10 n11] 12",
			"limit=0":                      "[] 12",
			"offset=50":                    "[] 12",
			"limit=1000&sort_dir=ASC":      "[n11 n10 n09 n08 n07 n06 n05 n04 n03 n02 n01 n00] 12",
			"name=n1&sort_key=common_name": "[n11 n10] 2",
			"name=n1&sort_key=common_name&sort_dir=ASC": "[n10 n11] 2",
			"limit=1&sort_key=not_after":                "[n04] 12",
			"status=REVOKED":                            "[] 0",
			"status=ISSUED&name=n07":                    "[n07] 1",
		} {
			names, total := list(query)
			if got := fmt.Sprint(names, " ", total); got != want {
				t.Errorf("%s: got %s, want %s", query, got, want)
			}
		}
		if r := b.pca("GET", "?sort_key=issuer_name&sort_dir=DESC&limit=1", nil); !strings.Contains(r.text, rootCA) {
			t.Errorf("by issuer: %s", r.text)
		}
		wantStatus(t, b.pca("POST", "/"+ids[0]+"/revoke", map[string]any{}), 204)
		if names, total := list("status=REVOKED"); total != 1 || names[0] != "n11" {
			t.Errorf("revoked: %v", names)
		}
		time.Sleep(26 * time.Hour)
		b.token = b.login("domain")
		if _, total := list("status=EXPIRED"); total != 0 { // the one of a day is revoked, and stays so
			t.Errorf("%d expired", total)
		}
		for _, query := range []string{
			"limit=1001", "limit=-1", "limit=x", "offset=-1", "status=ACTIVE", "sort_key=id", "sort_dir=UP", "x=1", "limit=1&limit=2", "enterprise_project_id=0", "%zz",
		} {
			wantError(t, b.pca("GET", "?"+query, nil), 400, "PCA.00020001")
		}
	})
}

// Config.ListLag: a list and a search come to know a certificate later; what asks by id does not.
func TestPrivateListLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newPCABench(t, func(c *Config) { c.ListLag = time.Minute })
		id := b.apply()
		wantStatus(t, b.pca("POST", "/"+id+"/tags/create", tags("k", "v")), 204)
		count := func() string {
			return fmt.Sprint(b.pca("GET", "", nil).json["total"], b.pca("POST", "/resource-instances/filter", map[string]any{}).json["total_count"])
		}
		time.Sleep(time.Minute - time.Nanosecond)
		wantStatus(t, b.pca("GET", "/"+id, nil), 200)
		b.export(id)
		if got := count(); got != "0 0" || len(b.sim.PrivateCertificates()) != 1 {
			t.Errorf("too early: %s", got)
		}
		time.Sleep(time.Nanosecond)
		if got := count(); got != "1 1" {
			t.Errorf("still not: %s", got)
		}
	})
}

// Config.PrivateNotFound404 and Misbehave: both forms of doubt 17.
func TestPrivateNotFound(t *testing.T) {
	b := newPCABench(t, func(c *Config) { c.PrivateNotFound404 = true })
	wantError(t, b.pca("GET", "/"+noUUID, nil), 404, "PCA.00030102")
	wantError(t, b.pca("POST", "", b.application("issuer_id", noUUID)), 404, "PCA.00030102")
	odd := newPCABench(t, func(c *Config) { c.Misbehave = true })
	codes := map[string]bool{}
	for range 2 {
		codes[odd.pca("GET", "/"+noUUID, nil).code()] = true
	}
	if len(codes) != 2 {
		t.Errorf("codes %v", codes)
	}
}
