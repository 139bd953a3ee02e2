package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/rotatord/rotatord/internal/"

// allowed says which rooms of this module each room may know: the picture in
// docs/architecture.md. Test files may know more.
var allowed = map[string][]string{
	"admin":                           {},
	"audit":                           {},
	"bus":                             {"audit", "repeat"},
	"certs":                           {},
	"certs/certstest":                 {"certs"},
	"cloudsim":                        {},
	"journal":                         {},
	"metrics":                         {"certs", "providers", "rotation", "watcher"},
	"policy":                          {"certs", "scheduler"},
	"policy/schemagen":                {},
	"probe":                           {"certs", "providers"},
	"providers":                       {"certs"},
	"providers/apig":                  {"certs", "providers", "providers/huaweicloud"},
	"providers/file":                  {"certs", "providers"},
	"providers/huaweicloud":           {"providers"},
	"providers/huaweicloud/cloudtest": {"cloudsim", "providers/huaweicloud"},
	"providers/identitycenter":        {"certs", "providers", "providers/huaweicloud"},
	"providers/privateca":             {"certs", "providers", "providers/huaweicloud"},
	"providers/providertest":          {"certs", "certs/certstest", "providers"},
	"providers/waf":                   {"certs", "providers", "providers/huaweicloud"},
	"repeat":                          {},
	"rotation":                        {"audit", "certs", "policy", "providers", "repeat", "scheduler"},
	"scheduler":                       {},
	"watcher":                         {"certs"},
}

// TestRoomsKnowOnlyWhomTheyMay reads the direct imports of every room.
func TestRoomsKnowOnlyWhomTheyMay(t *testing.T) {
	for _, line := range goList(t, "-f", "{{.ImportPath}} {{join .Imports \" \"}}", "../../internal/...") {
		fields := strings.Fields(line)
		room := strings.TrimPrefix(fields[0], module)
		may, known := allowed[room]
		if !known {
			t.Errorf("room %s is not in the picture: add it here and to docs/architecture.md", room)
			continue
		}
		for _, path := range fields[1:] {
			other, ours := strings.CutPrefix(path, module)
			if ours && !slices.Contains(may, other) {
				t.Errorf("%s imports %s and may not", room, other)
			}
		}
	}
}

// TestNothingHeavyUnderTheEngine reads all that a room links, down to the bottom.
func TestNothingHeavyUnderTheEngine(t *testing.T) {
	for room, forbidden := range map[string][]string{
		"rotation":      {"net/http", "github.com/nats-io/nats.go", "github.com/prometheus/client_golang/prometheus"},
		"certs":         {"net/http", "github.com/"},
		"cloudsim":      {"github.com/", "golang.org/x/"},
		"providers/waf": {"github.com/nats-io/", module + "rotation", module + "policy"},
	} {
		for _, path := range goList(t, "-deps", "../../internal/"+room) {
			for _, bad := range forbidden {
				if strings.HasPrefix(path, bad) && !strings.HasPrefix(path, module+room) && !(bad == "github.com/" && strings.HasPrefix(path, module)) {
					t.Errorf("%s links %s", room, path)
				}
			}
		}
	}
}

// TestEveryPackageSaysWhatItIs: no package without a comment.
func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, line := range goList(t, "-f", "{{.ImportPath}}\t{{.Doc}}", "../../...") {
		if path, doc, _ := strings.Cut(line, "\t"); doc == "" {
			t.Errorf("package %s has no comment", path)
		}
	}
}

func goList(t *testing.T, args ...string) []string {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list"}, args...)...).Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}
