package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/admin"
	"github.com/rotatord/rotatord/internal/rotation"
)

// TestSiteShowsARotation: whoever listens hears of a rotation, and page and API then show it,
// with its chain and its history. None of it asks the cloud anything.
func TestSiteShowsARotation(t *testing.T) {
	t.Parallel()
	const strange = `*.<b>x.example.com`
	r := newRig(t, host)
	r.policy("shop", host, "")
	r.policy("strange", "strange.example.com", "")
	first := r.issue("shop", host)
	r.issue("strange", strange)
	d := r.start()
	r.converged(first)
	awaitReady(t, d)
	eventually(t, "the other policy's outcome", func() bool { return d.status(selection{policy: "strange"}).Assignments[0].State == "failed" })
	base := "http://" + d.http.Addr()

	changes := siteEvents(t, base)
	second := r.issue("shop", host)
	r.converged(second)
	for deadline := time.After(patience); ; {
		var a admin.Assignment
		siteAnswer(t, base+"/api/v1/assignments/shop/"+host, &a)
		if a.State == "converged" && a.Wanted.Fingerprint == second.Fingerprint().String() && a.Targets[0].Current {
			if len(a.Chain) != len(second.Chain) || len(a.Chain) == 0 || a.Chain[0].Issuer == "" || a.Next == nil || a.Next.At.IsZero() {
				t.Errorf("chain %+v, next %+v", a.Chain, a.Next)
			}
			break
		}
		select {
		case <-changes: // look again only when told to
		case <-deadline:
			t.Fatalf("%s after the rotation, nothing was told and the API shows %+v", patience, a)
		}
	}

	page := ""
	eventually(t, "the events of the rotation, which follow its record", func() bool {
		page = sitePage(t, base+"/assignments/shop/"+host)
		return strings.Contains(page, "trigger file")
	})
	for _, text := range []string{second.Fingerprint().String(), "Timeline", "<strong>converged</strong>", "<bdi>test intermediate</bdi>", "serves it", "shows it"} {
		if !strings.Contains(page, text) {
			t.Errorf("the page of the assignment does not show %q:\n%s", text, page)
		}
	}
	front := sitePage(t, base+"/")
	if strings.Contains(front, "<b>x.") || !strings.Contains(front, "&lt;b&gt;x.example.com") {
		t.Errorf("a strange name is shown as\n%s", front)
	}
	if page := sitePage(t, base+"/assignments/strange/"+url.PathEscape(strange)); !strings.Contains(page, "strange.example.com") {
		t.Errorf("its page:\n%s", page)
	}
	if page := sitePage(t, base+"/policies/shop"); !strings.Contains(page, host) {
		t.Errorf("the policy's page:\n%s", page)
	}

	// The history's pages follow each other; all together are what the socket tells, once the
	// rotation's last event is published.
	var whole []admin.Event
	var told admin.History
	eventually(t, "the same history on the pages and over the socket", func() bool {
		whole = nil
		for next := base + "/api/v1/history?policy=shop&limit=3"; next != ""; {
			var h admin.History
			response := siteAnswer(t, next, &h)
			whole = append(whole, h.Events...)
			link, _, _ := strings.Cut(strings.TrimPrefix(response.Header.Get("Link"), "<"), ">")
			if next = ""; link != "" {
				next = base + link
			}
		}
		var err error
		told, err = d.history(t.Context(), selection{policy: "shop"}, 1000)
		must(t, err)
		return reflect.DeepEqual(whole, told.Events) && slices.ContainsFunc(whole, func(e admin.Event) bool {
			return e.Kind == "converged" && e.Fingerprint == second.Fingerprint().String()
		})
	})
	if len(whole) < 6 {
		t.Errorf("the history has %v only", whole)
	}

	// What somebody does is told, too.
	drain(changes)
	_, err := d.setHold(t.Context(), "shop", "user ada", &rotation.Hold{By: "user ada", Since: time.Now()})
	must(t, err)
	eventually(t, "the pause on the page", func() bool {
		select {
		case <-changes:
			return strings.Contains(sitePage(t, base+"/policies/shop"), "by user ada")
		default:
			return false
		}
	})
	// The daemon's own looks end; if asking made it look, this would not.
	eventually(t, "pages and answers without a call of the cloud", func() bool {
		before := len(r.sim.Ledger())
		for _, path := range []string{"/", "/policies", "/policies/shop", "/history", "/assignments/shop/" + host, "/api/v1/assignments", "/api/v1/assignments/shop/" + host, "/api/v1/history", "/api/v1/status"} {
			sitePage(t, base+path)
		}
		return len(r.sim.Ledger()) == before
	})
}

// siteEvents listens to the event stream.
func siteEvents(t *testing.T, base string) <-chan struct{} {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/events", nil)
	must(t, err)
	response, err := http.DefaultClient.Do(q)
	must(t, err)
	changes := make(chan struct{}, 1000)
	go func() {
		defer response.Body.Close()
		for lines := bufio.NewScanner(response.Body); lines.Scan(); {
			if lines.Text() == "event: changed" {
				changes <- struct{}{}
			}
		}
	}()
	return changes
}

func drain(changes <-chan struct{}) {
	for {
		select {
		case <-changes:
		default:
			return
		}
	}
}

func siteAnswer(t *testing.T, url string, into any) *http.Response {
	t.Helper()
	response, err := http.Get(url)
	must(t, err)
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", url, response.Status)
	}
	must(t, json.NewDecoder(response.Body).Decode(into))
	return response
}

func sitePage(t *testing.T, url string) string {
	t.Helper()
	response, err := http.Get(url)
	must(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	must(t, err)
	if response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s\n%s", url, response.Status, body)
	}
	return string(body)
}
