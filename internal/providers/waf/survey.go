package waf

import (
	"context"
	"log/slog"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/rotatord/rotatord/internal/providers"
	"github.com/rotatord/rotatord/internal/providers/huaweicloud"
)

var _ providers.Surveyor = (*Target)(nil)

// Survey compares the request with the list of certificates that hosts use: one call for each
// hundred of them, whoever asks. Its rows tell name, end and hosts of a certificate and no content
// (reference 2.3), so a certificate whose content was replaced by another with the same
// end passes; WAF refuses that while a host uses it (reference 2.5).
func (t *Target) Survey(ctx context.Context, r providers.Request, expected providers.Remote, since time.Time) bool {
	list := t.surveys.since(ctx, since, r.Owner, t.survey)
	if list == nil || len(r.Endpoints) == 0 {
		return false
	}
	named := providers.CertificateName(r.Owner, expected.Fingerprint)
	return !slices.ContainsFunc(r.Endpoints, func(e string) bool {
		bound := list[canonical(e)]
		if len(bound) != 1 {
			return true // not listed, or two rows that cannot both be true, or two hosts of one name
		}
		c := bound[0]
		return c.id != string(expected.Handle) || expected.Owned && c.name != named || !sameMoment(c.expires, expected.NotAfter)
	})
}

// sameMoment compares times of which one may have been reckoned in another zone.
func sameMoment(a, b time.Time) bool {
	const widest, step = 14 * time.Hour, 15 * time.Minute // of all zones
	d := a.Sub(b).Truncate(time.Second).Abs()
	return !a.IsZero() && !b.IsZero() && d <= widest && d%step == 0
}

// bound is a certificate as the list shows it beside a host.
type bound struct {
	id, name string
	expires  time.Time
}

// bindings are the certificates that hosts use, by name and by id of the host.
type bindings map[string][]bound

// survey reads the list once. pages is what it cost.
func (t *Target) survey(ctx context.Context) (found bindings, pages int, err error) {
	// With either meaning of host=true (doubt 10) the list has every certificate that a host uses.
	rows, err := list[certificate](ctx, t, huaweicloud.Call{
		Operation: opListCertificates, Op: "list certificates", Path: certificatePath, Query: url.Values{"host": {"true"}},
	})
	if err != nil {
		return nil, 0, err
	}
	found = make(bindings)
	seen := make(map[identifier]bool)
	for _, row := range rows {
		if seen[row.ID] {
			continue // the list moved on while its pages were read
		}
		seen[row.ID] = true
		c := bound{string(row.ID), string(row.Name), row.ExpireTime.Millis()}
		for _, h := range row.BindHost {
			if !t.serves(h) {
				continue
			}
			for _, key := range distinct([]string{canonical(string(h.Hostname)), canonical(string(h.ID))}) {
				found[key] = append(found[key], c)
			}
		}
	}
	return found, 1 + len(rows)/pageSize, nil
}

// serves reports whether a host of a certificate can be one of this target's.
func (t *Target) serves(h boundHost) bool {
	return h.Type == "" || slices.ContainsFunc(t.modes, func(m mode) bool { return m.wafType == string(h.Type) })
}

// surveys keeps the last list for all who ask. The zero value with a log is ready for use.
type surveys struct {
	log *slog.Logger

	mu    sync.Mutex
	begun time.Time
	list  bindings
	pages int
	// reading says that somebody reads the list now; failed is when it could not be read.
	reading bool
	failed  time.Time
	// asked are those that the list is read for.
	asked map[providers.Owner]bool
}

const (
	// readsEach is what comparing an assignment by itself costs at the least.
	readsEach = 4
	// afterFailure is how long no list is tried after one that could not be read.
	afterFailure = time.Minute
)

// since returns a list that was begun at that time or later; nil where there is none. The first to find that there is
// none reads it, if that pays. Nobody waits for him: many calls are made one after the other then, and whoever
// has something urgent to do should not find all workers waiting for them.
func (s *surveys) since(ctx context.Context, since time.Time, o providers.Owner, read func(context.Context) (bindings, int, error)) bindings {
	begun := time.Now()
	if list, ok := s.have(since, o, begun); !ok {
		return list
	}
	list, pages, err := read(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reading = false
	if err != nil {
		s.log.DebugContext(ctx, "certificates are compared one by one: there is no list", "err", err)
		s.failed = begun
		return nil
	}
	s.begun, s.list, s.pages = begun, list, pages
	return list
}

// have returns the list if it is new enough, or else true if the caller is to read it.
func (s *surveys) have(since time.Time, o providers.Owner, now time.Time) (_ bindings, reads bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked == nil {
		s.asked = make(map[providers.Owner]bool)
	}
	s.asked[o] = true
	if !s.begun.IsZero() && !s.begun.Before(since) {
		return s.list, false
	}
	if s.reading || s.pages > readsEach*len(s.asked) || now.Sub(s.failed) < afterFailure {
		return nil, false
	}
	s.reading = true
	return nil, true
}
