package admin

import (
	"fmt"
	"net/http"
	"reflect"
	"time"
)

const (
	// eventPause is the least time between two messages, heartbeat the longest between two signs
	// of life.
	eventPause = time.Second
	heartbeat  = 15 * time.Second
	// eventWait is how long a listener may take for one message. Who is slower is let go, and
	// comes again.
	eventWait = 10 * time.Second
)

// events tells listeners, as server-sent events, that something changed: not what, they look
// again. A message is sent when the index that they will get has what it is about.
func (s *site) events(w http.ResponseWriter, r *http.Request) {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
	default: // some other page in a browser of this host, which could take all places
		http.Error(w, "only for this site's own pages", http.StatusForbidden)
		return
	}
	if !s.listeners.TryAcquire(1) {
		w.Header().Set("Retry-After", "30")
		http.Error(w, "too many listen; the page can be reloaded all the same", http.StatusServiceUnavailable)
		return
	}
	defer s.listeners.Release(1)
	w.Header().Set("Content-Type", "text/event-stream")
	control := http.NewResponseController(w)
	say := func(message string) bool {
		// In place of the server's own deadline, which would end the stream.
		if control.SetWriteDeadline(time.Now().Add(eventWait)) != nil {
			return false
		}
		if _, err := fmt.Fprint(w, message, "\n\n"); err != nil {
			return false
		}
		return control.Flush() == nil
	}
	seen := s.indexes.newest() // before the first word: from there on nothing is missed
	if r.Method == http.MethodHead || !say("retry: 3000") {
		return
	}
	s.tell(r, seen, say)
}

// tell sends messages until the listener or the daemon ends, of what is newer than what was
// seen.
func (s *site) tell(r *http.Request, seen *index, say func(string) bool) {
	beat := time.NewTicker(s.heartbeat)
	defer beat.Stop()
	components := s.ready()
	for number := 1; ; {
		select {
		case <-r.Context().Done():
			return
		case <-beat.C:
			// What the components say does not announce itself.
			now := s.ready()
			if same := reflect.DeepEqual(now, components); same {
				if !say(": still here") {
					return
				}
				continue
			}
			components = now
		case <-seen.changed:
		}
		if !pause(r, time.Until(seen.until)) {
			return
		}
		seen = s.indexes.newest()
		if !say(fmt.Sprintf("event: changed\ndata: %d", number)) {
			return
		}
		number++
		if !pause(r, eventPause) {
			return
		}
	}
}

// pause waits, and reports false if the request ended first.
func pause(r *http.Request, d time.Duration) bool {
	select {
	case <-r.Context().Done():
		return false
	case <-time.After(d):
		return true
	}
}
