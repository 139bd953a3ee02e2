package huaweicloud

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rotatord/rotatord/internal/providers"
)

// staleWait is how long a request may wait for its turn with the credentials that it has: of the
// 15 minutes that a signature holds, and of the margin that keys are renewed ahead of, it is little.
const staleWait = 10 * time.Second

const projectPlaceholder = "{project_id}"

// attempt makes one exchange: gate, credentials, request, answer. It returns the
// request if one was sent, so that the caller can see which credentials it bore.
func (c *Client) attempt(ctx context.Context, j *job, body []byte) (*http.Request, error) {
	if err := c.circuits[j.Service].check(time.Now()); err != nil {
		return nil, j.stopped(err)
	}
	// Before the gate: logging in has a gate of its own and may take long.
	project, err := c.projectFor(ctx, j)
	if err != nil {
		return nil, j.wrap(ctx, err)
	}
	req, err := c.request(j, project, body)
	if err != nil {
		return nil, err
	}
	if err := c.authorize(ctx, j, req, project, body); err != nil {
		return nil, err
	}
	g := c.gates[j.Service]
	start := time.Now()
	err = g.enter(ctx)
	waited := time.Since(start)
	if waited > 0 {
		c.meter.Wait(j.Service, waited)
	}
	if err != nil {
		return nil, j.heldBack(err)
	}
	defer g.leave()
	if waited > staleWait {
		// Again after a long wait: a signature bears its date, and keys may have been renewed.
		if err := c.authorize(ctx, j, req, project, body); err != nil {
			return nil, err
		}
	}
	trial, err := c.circuits[j.Service].admit(time.Now())
	if err != nil {
		return nil, j.stopped(err)
	}
	err = c.exchange(ctx, j, req)
	c.settle(ctx, j, trial, err)
	return req, err
}

// request builds what is sent, but for the credentials.
func (c *Client) request(j *job, project string, body []byte) (*http.Request, error) {
	base := c.bases[j.Service]
	path := strings.ReplaceAll(j.Path, projectPlaceholder, url.PathEscape(project))
	u, err := url.Parse(strings.TrimSuffix(base.String(), "/") + path)
	if err != nil {
		return nil, j.fail(providers.KindInvalid, "the path is not part of a URL", nil)
	}
	u.RawQuery = j.Query.Encode()
	// The context comes with the exchange: this request may wait behind a gate.
	req, err := http.NewRequest(j.Method, u.String(), bytes.NewReader(body)) //nolint:noctx // see above
	if err != nil {
		return nil, j.fail(providers.KindInvalid, "the call is not a valid request", nil)
	}
	switch {
	case j.ContentType != "":
		req.Header.Set("Content-Type", j.ContentType)
	case len(body) > 0:
		req.Header.Set("Content-Type", "application/json")
	}
	return req, nil
}

func (c *Client) authorize(ctx context.Context, j *job, req *http.Request, project string, body []byte) error {
	if j.anonymous {
		return nil
	}
	global := isGlobal(j.Service)
	err := c.sessionOf(j).authorize(ctx, req, body, subject{project: project, global: global || j.global, account: global})
	if err != nil {
		return j.wrap(ctx, err)
	}
	return nil
}

// wrap adds what was being done to a failure on the way to it (a login, a look-up
// of the project). The call itself was not sent.
func (j *job) wrap(ctx context.Context, err error) error {
	if _, ok := errors.AsType[*providers.Error](err); ok {
		return fmt.Errorf("%s: %s: %w", j.Service, j.Op, err)
	}
	kind := providers.KindUnauthenticated
	if ctx.Err() != nil {
		kind = providers.KindUnavailable
	}
	return j.fail(kind, "", err)
}

// heldBack classifies a call that did not pass its gate.
func (j *job) heldBack(err error) error {
	if p, ok := errors.AsType[*pausedError](err); ok {
		e := j.fail(providers.KindThrottled, "", err)
		e.RetryAfter = p.left
		return e
	}
	return j.fail(providers.KindUnavailable, "", err)
}

// exchange sends the request, reads the answer and reports both.
func (c *Client) exchange(ctx context.Context, j *job, req *http.Request) error {
	ctxCall, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var sent sentMark
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "rotatord")
	traced := req.WithContext(httptrace.WithClientTrace(ctxCall, sent.trace()))

	start := time.Now()
	var status int
	var err error
	resp, netErr := c.transport.RoundTrip(traced)
	if netErr != nil {
		err = c.noAnswer(ctx, j, sent.maySent(), netErr)
	} else {
		status = resp.StatusCode
		c.noteClock(resp.Header)
		if j.isWrite() && !j.anonymous {
			providers.NoteRequest(ctx, token(resp.Header.Get("X-Request-Id")))
		}
		err = c.answer(ctx, j, resp)
		if providers.KindOf(err) != providers.KindThrottled {
			c.gates[j.Service].answered()
		}
	}
	c.report(ctx, j, status, time.Since(start), err)
	return err
}

func (c *Client) report(ctx context.Context, j *job, status int, d time.Duration, err error) {
	reason := ""
	if err != nil {
		reason = reasonOf(err, status)
	}
	c.observe(ctx, j.Service, j.Operation, status, reason, d)
}

// observe tells meter and log of an exchange.
func (c *Client) observe(ctx context.Context, service, operation string, status int, reason string, d time.Duration) {
	c.meter.Request(service, operation, status, reason, d)
	c.log.LogAttrs(ctx, slog.LevelDebug, "cloud call",
		slog.String("cloud", c.name), slog.String("service", service),
		slog.String("operation", operation), slog.Int("status", status),
		slog.String("reason", reason), slog.Duration("took", d))
}

// sentMark finds out whether a request may have had an effect. Before its headers
// are written it cannot have; once they are, it may.
type sentMark struct {
	seen, wrote atomic.Bool
}

func (m *sentMark) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		// Called again when the transport repeats a request, which it does for a
		// write only if it knows that nothing of it arrived.
		GetConn:      func(string) { m.seen.Store(true); m.wrote.Store(false) },
		WroteHeaders: func() { m.wrote.Store(true) },
	}
}

// maySent is true also for a transport that does not trace: better look once too
// often than create twice.
func (m *sentMark) maySent() bool { return m.wrote.Load() || !m.seen.Load() }

// noAnswer classifies an exchange that ended without an answer.
func (c *Client) noAnswer(ctx context.Context, j *job, sent bool, err error) error {
	kind := providers.KindUnavailable
	if sent && j.isWrite() {
		kind = providers.KindUnknownOutcome
	}
	return j.fail(kind, "", networkFailure(ctx, err, c.timeout))
}

// networkError is a failure of the transport with a text that is safe to show:
// Go quotes what it cannot parse of an answer.
type networkError struct {
	text string
	errs []error
}

func (e *networkError) Error() string   { return e.text }
func (e *networkError) Unwrap() []error { return e.errs }

// networkFailure makes one; timeout is ours.
func networkFailure(ctx context.Context, err error, timeout time.Duration) error {
	e := &networkError{text: clean(err.Error(), longRun), errs: []error{err}}
	switch {
	case ctx.Err() != nil: // the caller's; the transport may have told another cause
		e.errs = append(e.errs, ctx.Err())
	case errors.Is(err, context.DeadlineExceeded):
		e.text = fmt.Sprintf("no answer within %s", timeout)
	}
	return e
}

// answer reads an answer and decodes or classifies it.
func (c *Client) answer(ctx context.Context, j *job, resp *http.Response) error {
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return c.refusal(j, resp)
	}
	limit := j.MaxAnswer
	if limit == 0 {
		limit = defaultMaxAnswer
	}
	// The transport unpacks gzip on the fly, so the limit holds for what comes
	// out and a bomb is cut off early.
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if j.Redact {
		defer clear(body)
	}
	switch {
	case err != nil && j.Out == nil && !j.Creates && !j.isRead():
		// It was carried out; nobody wants the rest of the answer.
	case err != nil:
		return j.fail(j.lost(), "the answer broke off", networkFailure(ctx, err, c.timeout))
	case int64(len(body)) > limit:
		e := j.fail(j.lost(), fmt.Sprintf("the answer is longer than %d bytes", limit), nil)
		if j.isRead() {
			e.Kind = providers.KindInvalid // it would be as long the next time
		}
		return e
	}
	if err := j.decode(body); err != nil {
		return err
	}
	if j.header != nil {
		*j.header = resp.Header
	}
	return nil
}

// lost is the kind of a success whose answer cannot be used.
func (j *job) lost() providers.Kind {
	if j.isWrite() {
		return providers.KindUnknownOutcome
	}
	return providers.KindUnavailable
}

// maxParts bounds what becomes of an answer in memory: a byte of JSON can become a hundred. The
// largest page that is asked for has some 10,000 objects.
const maxParts = 250_000

func (j *job) decode(body []byte) error {
	if j.Out == nil {
		return nil
	}
	if len(bytes.TrimSpace(body)) == 0 && !j.isRead() && !j.Creates {
		return nil // 204 and the like
	}
	if bytes.Count(body, []byte("{"))+bytes.Count(body, []byte(",")) > maxParts {
		e := j.fail(j.lost(), fmt.Sprintf("the answer has more than %d parts", maxParts), nil)
		if j.isRead() {
			e.Kind = providers.KindInvalid // it would have as many the next time
		}
		return e
	}
	if err := json.Unmarshal(body, j.Out); err != nil {
		// Not err itself: it may quote the answer.
		return j.fail(j.lost(), fmt.Sprintf("the answer (%d bytes) is not the JSON that was expected", len(body)), nil)
	}
	return nil
}

// refusal classifies an answer that is no success.
func (c *Client) refusal(j *job, resp *http.Response) error {
	// What could be read is enough: the status is known.
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	said := parseError(body, j.Redact || j.Service == IAM) // it hands out keys and tokens
	if j.Redact {
		clear(body)
	}
	kind, wait := judge(resp.StatusCode, said.code, j.isWrite())
	e := j.fail(kind, said.message, nil)
	e.Code, e.RequestID, e.RetryAfter = said.code, said.requestID, wait
	if id := token(resp.Header.Get("X-Request-Id")); id != "" {
		e.RequestID = id
	}
	if e.Code == "" {
		e.Message = strings.TrimSuffix(fmt.Sprintf("status %d: %s", resp.StatusCode, e.Message), ": ")
	}
	switch {
	case kind == providers.KindThrottled:
		asked := askedWait(resp.Header, said.message, time.Now())
		e.RetryAfter = c.gates[j.Service].throttled(asked, cmp.Or(e.Code, "too many requests"))
	case kind == providers.KindUnauthenticated:
		e.Err = skewHint(resp.Header)
	}
	return e
}

// maxSkew is how old a signature may be by the general documents (reference 11,
// doubt 23).
const maxSkew = 15 * time.Minute

// skewHint explains a refusal that a wrong clock is the likely cause of.
func skewHint(h http.Header) error {
	skew, ok := clockSkew(h)
	if !ok || skew.Abs() < maxSkew-time.Minute {
		return nil
	}
	side := "ahead of"
	if skew < 0 {
		side = "behind"
	}
	return fmt.Errorf("this host's clock is %s %s the service's", skew.Abs().Round(time.Second), side)
}

func clockSkew(h http.Header) (time.Duration, bool) {
	date, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return 0, false
	}
	return time.Since(date), true
}

func (c *Client) noteClock(h http.Header) {
	if skew, ok := clockSkew(h); ok {
		c.meter.ClockSkew(skew)
	}
}
