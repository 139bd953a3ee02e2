package cloudsim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// hugeMember is the size of the unknown member that FaultHuge adds.
const hugeMember = 16 << 20

// cutsAnswer tells whether the caller never gets the whole answer.
func (f Fault) cutsAnswer() bool {
	return f.Name == FaultLost || f.Name == FaultTimeoutAfter || f.Name == FaultCut
}

// writeAnswer sends ans as the fault and the misbehaviours want it.
func (s *Sim) writeAnswer(w http.ResponseWriter, c *call, ans answer, fault Fault) {
	for key, value := range ans.header {
		w.Header().Set(key, value)
	}
	content := ans.content
	if content == "" {
		content = s.contentType(c)
	}
	body := s.answerBytes(c, ans, fault)
	if len(body) > 0 {
		w.Header().Set("Content-Type", content)
	}
	if len(body) == 0 { // nothing to be broken, but the connection
		if fault.Name == FaultCut {
			panic(http.ErrAbortHandler)
		}
		fault = Fault{}
	}
	switch fault.Name {
	case FaultHuge:
		writeHuge(w, ans.status, body)
	case FaultDrip:
		s.writeDrip(w, ans.status, body, fault.Delay)
	case FaultTruncate:
		w.WriteHeader(ans.status)
		_, _ = w.Write(body[:len(body)/2])
	case FaultCut:
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.WriteHeader(ans.status)
		_, _ = w.Write(body[:len(body)/2])
		_ = http.NewResponseController(w).Flush() // so that the half arrives before the cut
		panic(http.ErrAbortHandler)
	default:
		w.WriteHeader(ans.status)
		_, _ = w.Write(body) // a caller who is gone is no error of ours
	}
}

// answerBytes is the body in its final form.
func (s *Sim) answerBytes(c *call, ans answer, fault Fault) []byte {
	if ans.raw != "" {
		return []byte(ans.raw)
	}
	if ans.body == nil {
		return nil
	}
	if ans.status < 300 {
		s.misbehave(c, ans.body)
		if fault.Name == FaultWrongType {
			wrongType(ans.body, fault.Field)
		}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(ans.body); err != nil {
		panic(fmt.Sprintf("cloudsim: %s answered something that is no JSON: %v", c.entry.Operation, err))
	}
	return bytes.TrimSpace(b.Bytes())
}

// contentType varies among the forms that are one and the same media type.
func (s *Sim) contentType(c *call) string {
	if !s.cfg.Misbehave {
		return "application/json"
	}
	forms := []string{"application/json", "application/json;charset=utf8", "application/json; charset=UTF-8", "Application/JSON;charset=utf-8"}
	return forms[c.entry.Seq%len(forms)]
}

// misbehave changes a good answer in ways that a client has to bear (reference 7.4, row "all"): unknown members
// appear, numbers come as strings, an empty list comes as null.
func (s *Sim) misbehave(c *call, body object) {
	if !s.cfg.Misbehave {
		return
	}
	body["extra_since_next_release"] = object{"flag": true, "list": []any{1, "2", nil}}
	if c.entry.Service != serviceWAF {
		return // the numbers and lists of IAM and APIG are not among the ones the reference warns of
	}
	twistWAF(body, c.entry.Seq%3 == 0, c.entry.Seq%2 == 0)
}

// twistWAF walks through objects and lists. Members of hosts other than numbers are left alone.
func twistWAF(value any, numbersAsText, emptyAsNull bool) {
	switch v := value.(type) {
	case object:
		for key, member := range v {
			switch m := member.(type) {
			case int64:
				if numbersAsText && (key == "timestamp" || key == "expire_time") {
					v[key] = strconv.FormatInt(m, 10)
				}
			case int:
				if numbersAsText && (key == "exp_status" || key == "total") {
					v[key] = strconv.Itoa(m)
				}
			case []any:
				if len(m) == 0 && emptyAsNull && key == "bind_host" {
					v[key] = nil
				}
				twistWAF(m, numbersAsText, emptyAsNull)
			case object:
				twistWAF(m, numbersAsText, emptyAsNull)
			}
		}
	case []any:
		for _, member := range v {
			twistWAF(member, numbersAsText, emptyAsNull)
		}
	}
}

// wrongType replaces field wherever it stands in the answer.
func wrongType(value any, field string) {
	switch v := value.(type) {
	case object:
		for key, member := range v {
			if key == field {
				v[key] = object{"unexpected": "object"}
				continue
			}
			wrongType(member, field)
		}
	case []any:
		for _, member := range v {
			wrongType(member, field)
		}
	}
}

// writeHuge puts a member of hugeMember bytes in front of the others, without holding it in memory.
func writeHuge(w http.ResponseWriter, status int, body []byte) {
	w.WriteHeader(status)
	rest := bytes.TrimPrefix(body, []byte("{"))
	if _, err := io.WriteString(w, `{"extra_padding":"`); err != nil {
		return
	}
	chunk := bytes.Repeat([]byte("x"), 1<<16)
	for range hugeMember / len(chunk) {
		if _, err := w.Write(chunk); err != nil {
			return // a client that has had enough is the hoped-for case
		}
	}
	_, _ = io.WriteString(w, `",`)
	_, _ = w.Write(rest)
}

// writeDrip sends a byte, flushes, waits.
func (s *Sim) writeDrip(w http.ResponseWriter, status int, body []byte, delay time.Duration) {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	for i := range body {
		if _, err := w.Write(body[i : i+1]); err != nil {
			return
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		if !s.pause(delay) {
			panic(http.ErrAbortHandler)
		}
	}
}
