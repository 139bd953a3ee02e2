package cloudsim

import (
	"slices"
	"sync"
	"time"
)

// Entry is one API call, in the order of arrival. While the call is under way Status is 0.
type Entry struct {
	Seq         int       `json:"seq"` // 1 for the first call
	Time        time.Time `json:"time"`
	Service     string    `json:"service"`   // iam, waf, apig, ccm, identity_center, metadata, console; "" for a path that no service has
	Operation   string    `json:"operation"` // e.g. CreateCertificate; create_certificate in ccm and identity_center
	Method      string    `json:"method"`
	Path        string    `json:"path"`
	Query       string    `json:"query,omitempty"`
	Status      int       `json:"status"` // -1: the connection was cut without an answer
	Code        string    `json:"code,omitempty"`
	Message     string    `json:"message,omitempty"` // the error text that was answered
	RequestID   string    `json:"request_id"`
	Auth        string    `json:"auth,omitempty"`        // token, signature; "" when refused or not needed
	Objects     []string  `json:"objects,omitempty"`     // ids touched: certificates, hosts, domains
	Effect      bool      `json:"effect"`                // the state of the account changed
	Fault       string    `json:"fault,omitempty"`       // names of the faults that struck, joined by "+"
	Fingerprint string    `json:"fingerprint,omitempty"` // create and update: lower-case hex SHA-256 of the leaf
	Name        string    `json:"name,omitempty"`        // create and update: the certificate's name
}

// ledger keeps the calls. It has its own lock so that a call that is held can be inspected.
type ledger struct {
	mu      sync.Mutex
	entries []Entry
}

// begin appends e, numbers it and returns it.
func (l *ledger) begin(e Entry) Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	e.Seq = len(l.entries) + 1
	l.entries = append(l.entries, e)
	return e
}

// update replaces the entry that has e's number.
func (l *ledger) update(e Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries[e.Seq-1] = e
}

// underWay tells whether an entry before number seq has not ended yet and is one that which means.
func (l *ledger) underWay(seq int, which func(Entry) bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.entries[:seq-1], func(e Entry) bool { return e.Status == 0 && which(e) })
}

// after returns a copy of the entries whose number is greater than seq.
func (l *ledger) after(seq int) []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	copied := slices.Clone(l.entries[min(max(seq, 0), len(l.entries)):])
	for i := range copied {
		copied[i].Objects = slices.Clone(copied[i].Objects)
	}
	return copied
}

func (l *ledger) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.entries)
}
