// Package audit makes the history hard to falsify unseen: each event holds the hash of the one
// before it, and a checker reads a history and tells what does not fit.
//
// It may import the standard library only. What an event means is its callers' business; here
// it is an envelope with data.
//
// Invariants: the hash covers everything of an event but the hash itself and which node sent
// it; equal events have equal hashes, however their JSON was written; whoever checks an event
// needs nothing but the event.
package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"
)

// TypePrefix begins the type of every event (CloudEvents 1.0, "type").
const TypePrefix = "io.rotatord."

// Entry is an event of a history, as it is published.
type Entry struct {
	ID      string
	Type    string
	Subject string
	Time    time.Time
	// Data is a JSON object, with a Link as its member "chain".
	Data json.RawMessage
}

// Link binds an event to the one before it in the history of its subject.
type Link struct {
	// Sequence numbers the events of a subject, from 1.
	Sequence uint64 `json:"sequence"`
	// Previous is the hash of the event before, PreviousAt its time; empty for the first.
	Previous   string    `json:"previous,omitempty"`
	PreviousAt time.Time `json:"previous_at,omitzero"`
	// Hash is this event's own.
	Hash string `json:"hash"`
	// Node is the host whose own history it is, where several have one of the same subject.
	Node string `json:"node,omitempty"`
}

// Key names a history: that of a subject, of a node where each has its own.
func Key(subject, node string) string {
	if node == "" {
		return subject
	}
	return subject + " on " + node
}

// Hash is the hash of an event: SHA-256, in hexadecimal digits, of the JSON object with the
// members id, type, subject, time and data, without data.chain.hash, keys sorted, no space
// between tokens, and no character escaped that need not be. What is hashed is what
// jq -cjS '{id,type,subject,time,data}|del(.data.chain.hash)' prints.
func Hash(e Entry) (string, error) {
	c, err := ContentOf(e)
	if err != nil {
		return "", err
	}
	return c.Hash(e.ID)
}

// Content is what is hashed of an event besides its id, which may be made of it.
type Content struct{ members map[string]any }

// ContentOf reads an event.
func ContentOf(e Entry) (Content, error) {
	var data map[string]any
	d := json.NewDecoder(bytes.NewReader(e.Data))
	d.UseNumber() // as they were written
	if err := d.Decode(&data); err != nil {
		return Content{}, fmt.Errorf("read the event's data: %w", err)
	}
	if chain, ok := data["chain"].(map[string]any); ok {
		delete(chain, "hash")
	}
	written, err := canonical(data)
	if err != nil {
		return Content{}, fmt.Errorf("encode the event's data: %w", err)
	}
	return Content{map[string]any{"type": e.Type, "subject": e.Subject, "time": e.Time.UTC(), "data": json.RawMessage(written)}}, nil
}

// Hash is that of the event with an id.
func (c Content) Hash(id string) (string, error) {
	members := maps.Clone(c.members)
	members["id"] = id
	text, err := canonical(members)
	if err != nil {
		return "", fmt.Errorf("encode the event: %w", err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}

// canonical writes JSON in the one way that counts for hashes. encoding/json sorts the keys of
// maps, and escapes the two line separators of Unicode, which need not be.
func canonical(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return unescapeSeparators(bytes.TrimSuffix(b.Bytes(), []byte("\n"))), nil
}

// unescapeSeparators writes \u2028 and \u2029 as themselves. A backslash before them that is
// itself escaped is none.
func unescapeSeparators(text []byte) []byte {
	if !bytes.Contains(text, []byte(`\u202`)) {
		return text
	}
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' || i+1 == len(text) {
			out = append(out, text[i])
			continue
		}
		if i+6 <= len(text) && (string(text[i:i+6]) == `\u2028` || string(text[i:i+6]) == `\u2029`) {
			out = append(out, 0xe2, 0x80, 0xa8+text[i+5]-'8')
			i += 5
			continue
		}
		out = append(out, text[i], text[i+1])
		i++
	}
	return out
}

// errNoChain is what a Link that is not there is told with.
var errNoChain = errors.New("it holds no chain")

// linkOf reads an event's link.
func linkOf(e Entry) (Link, error) {
	var data struct {
		Chain *Link `json:"chain"`
	}
	if err := json.Unmarshal(e.Data, &data); err != nil {
		return Link{}, fmt.Errorf("read the event's data: %w", err)
	}
	if data.Chain == nil || data.Chain.Hash == "" || data.Chain.Sequence == 0 {
		return Link{}, errNoChain
	}
	return *data.Chain, nil
}
