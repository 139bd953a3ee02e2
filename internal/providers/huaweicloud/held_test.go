package huaweicloud

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// issuer gives numbered values and can be down.
type issuer struct {
	mu           sync.Mutex
	asked        int
	err          error
	life, margin time.Duration
	takes        time.Duration
}

func (i *issuer) fetch(ctx context.Context) (lease[string], error) {
	select {
	case <-time.After(i.takes):
	case <-ctx.Done():
		return lease[string]{}, ctx.Err()
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.asked++
	if i.err != nil {
		return lease[string]{}, i.err
	}
	return newLease(fmt.Sprint(i.asked), i.life, i.margin), nil
}

func (i *issuer) is(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.err = err
}

func (i *issuer) count() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asked
}

func wantHeld(t *testing.T, h *held[string], want string) {
	t.Helper()
	if got, err := h.get(t.Context()); err != nil || got != want {
		t.Fatalf("got %q, %v, want %q", got, err, want)
	}
}

func TestHeldIsRenewedInTheBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{life: time.Hour, margin: 6 * time.Minute, takes: 10 * time.Second}
		h := newHeld(time.Minute, i.fetch, func(err error, _ time.Time) { t.Error(err) })
		wantHeld(t, h, "1")
		time.Sleep(54*time.Minute - time.Nanosecond)
		wantHeld(t, h, "1")
		synctest.Wait()
		if i.count() != 1 {
			t.Fatal("renewed too early")
		}
		time.Sleep(time.Nanosecond)
		before := time.Now()
		for range 50 {
			wantHeld(t, h, "1") // nobody waits
		}
		if time.Since(before) != 0 {
			t.Error("a caller waited although there was something valid")
		}
		time.Sleep(11 * time.Second)
		wantHeld(t, h, "2")
		if i.count() != 2 {
			t.Errorf("asked %d times for 50 callers, want 2", i.count())
		}
	})
}

// An issuer that is down is not noticed while the old value is good; it is asked once a
// minute, and told of. After the end everybody gets the error.
func TestHeldSurvivesAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{life: time.Hour, margin: 6 * time.Minute}
		late := 0
		h := newHeld(time.Minute, i.fetch, func(error, time.Time) { late++ })
		wantHeld(t, h, "1")
		gone := errors.New("down")
		i.is(gone)
		time.Sleep(54 * time.Minute)
		for range 6 * 60 {
			wantHeld(t, h, "1")
			time.Sleep(time.Second)
		}
		if late != 6 {
			t.Errorf("%d failures were told in six minutes, want one a minute", late)
		}
		if _, err := h.get(t.Context()); !errors.Is(err, gone) {
			t.Errorf("after the end: %v", err)
		}
		i.is(nil)
		asked := i.count()
		wantHeld(t, h, fmt.Sprint(asked+1))
	})
}

func TestHeldIsDroppedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{life: time.Hour, margin: time.Minute, takes: time.Second}
		h := newHeld(time.Minute, i.fetch, nil)
		wantHeld(t, h, "1")
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if !h.drop(func(v string) bool { return v == "1" }) {
					t.Error("the renewal is refused")
				}
				wantHeld(t, h, "2")
			})
		}
		wg.Wait()
		if i.count() != 2 {
			t.Errorf("asked %d times, want 2", i.count())
		}
		// Whatever a service refuses again and again does not make us ask without end.
		allowed := 0
		for n := range 20 {
			value, err := h.get(t.Context())
			if err != nil {
				t.Fatal(n, err)
			}
			if h.drop(func(v string) bool { return v == value }) {
				allowed++
			}
		}
		if allowed > 3 {
			t.Errorf("%d renewals", allowed)
		}
	})
}

// A caller that gives up does not stop the fetch, and an issuer that hangs ends it.
func TestHeldFetchHasAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{life: time.Hour, takes: time.Hour}
		h := newHeld(time.Minute, i.fetch, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if _, err := h.get(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("after %s: %v", time.Since(start), err)
		}
		if _, err := h.get(t.Context()); err == nil || time.Since(start) != time.Minute {
			t.Errorf("after %s: %v", time.Since(start), err)
		}
	})
}

func TestLifeByTheIssuersClock(t *testing.T) {
	theirs := time.Now().Add(-5 * time.Hour) // this host is far ahead
	h := http.Header{"Date": {theirs.UTC().Format(http.TimeFormat)}}
	if life, err := lifeOf(theirs.Add(time.Hour), h, 0); err != nil || life < time.Hour-time.Second || life > time.Hour+time.Second {
		t.Errorf("life %s, %v", life, err)
	}
	if life, err := lifeOf(time.Time{}, h, time.Minute); err != nil || life != time.Minute {
		t.Errorf("without an end: %s, %v", life, err)
	}
	if _, err := lifeOf(theirs.Add(-time.Hour), h, 0); err == nil {
		t.Error("what has ended was taken")
	}
}

func TestMargins(t *testing.T) {
	for life, want := range map[time.Duration]time.Duration{
		24 * time.Hour: 144 * time.Minute, time.Hour: 6 * time.Minute, 15 * time.Minute: 5 * time.Minute, 4 * time.Minute: 2 * time.Minute,
	} {
		if got := keysMargin(life); got != want {
			t.Errorf("keys of %s are renewed %s before their end, want %s", life, got, want)
		}
	}
}
