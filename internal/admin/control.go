package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

// Control is the daemon as whoever may write to its socket sees it. Requests and answers are
// JSON objects; a verb's error is a *Refusal where the asker is to be told why, and what to
// do, and anything else is the daemon's own trouble.
type Control map[string]Verb

// Verb is one thing that the daemon can be asked for.
type Verb struct {
	// Changes says that it does something; the others only tell.
	Changes bool
	// Do reads the request's JSON and returns what is to be answered as JSON.
	Do func(ctx context.Context, by Actor, request []byte) (any, error)
	// Stream, instead of Do, sends one JSON object after the other until ctx ends.
	Stream func(ctx context.Context, request []byte, send func(any) error) error
}

// Actor is who asks: a user of the socket, a user of NATS.
type Actor string

// Refusal is an error that is the asker's: an unknown policy, a bad request.
type Refusal struct {
	// Unknown says that what was asked for is not there.
	Unknown bool
	Message string
}

func (r *Refusal) Error() string { return r.Message }

// Refuse makes a Refusal.
func Refuse(format string, args ...any) error { return &Refusal{Message: fmt.Sprintf(format, args...)} }

const (
	// maxRequest is the largest request over the socket, in bytes.
	maxRequest = 64 << 10
	// controlPath begins the paths of the verbs.
	controlPath = "/v1/"
	// answerWait bounds a verb: a plan of a thousand policies reads the cloud.
	answerWait = 10 * time.Minute
)

// Socket is a bound control socket.
type Socket struct {
	listener net.Listener
	http     *http.Server
	// stop ends the streams, which would never end by themselves.
	stop context.CancelFunc
	// profiles says that profiles of the process are served too.
	profiles *atomic.Bool
}

// ListenSocket binds the socket, mode 0660, in place of one that a process which is no more
// left behind. The caller holds the lock of the state directory, so that nobody who lives is
// pushed aside.
func ListenSocket(path string, control Control, log *slog.Logger) (*Socket, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil { // its group has to get through
		return nil, fmt.Errorf("make the directory of the control socket: %w", err)
	}
	if err := removeSocket(path); err != nil {
		return nil, err
	}
	listener, err := net.Listen("unix", path)
	if err == nil {
		err = os.Chmod(path, 0o660) //nolint:gosec // the socket's group may rotate; that is what it is for
	}
	if err != nil {
		return nil, fmt.Errorf("listen on the control socket: %w", err)
	}
	streaming, stop := context.WithCancel(context.Background())
	admitted := newCrowd(listener, maxConnections)
	profiles := &atomic.Bool{}
	return &Socket{admitted, &http.Server{
		ConnState: admitted.note,
		Handler:   control.handler(streaming, profiles, log), ReadHeaderTimeout: headerWait, ReadTimeout: requestWait, WriteTimeout: answerWait + requestWait,
		IdleTimeout: idleWait, MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ConnContext: withPeer,
	}, stop, profiles}, nil
}

// ServeProfiles serves the profiles of net/http/pprof below /debug/pprof/ from now on: whoever may rotate may
// see where time and memory go.
func (s *Socket) ServeProfiles() { s.profiles.Store(true) }

// profiling serves profiles once they are on. The command line is not among them.
func profiling(on *atomic.Bool) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !on.Load() {
			answer(w, http.StatusNotFound, problemJSON{"profiles are served by a daemon that was started with run --pprof"})
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// removeSocket removes a socket that nobody answers on, and nothing else.
func removeSocket(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the control socket: %w", err)
	}
	if info.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("%s is there and is no socket; remove it, or set another socket", path)
	}
	dialer := net.Dialer{Timeout: time.Second}
	c, err := dialer.DialContext(context.Background(), "unix", path)
	if err == nil {
		_ = c.Close()
		return fmt.Errorf("another process answers on %s; stop it, or set another socket", path)
	}
	if !isRefused(err) && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("the control socket may be another process's, which does not answer: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the old control socket: %w", err)
	}
	return nil
}

// Serve answers until ctx ends.
func (s *Socket) Serve(ctx context.Context) error {
	defer context.AfterFunc(ctx, s.stop)()
	if err := serveUntil(ctx, s.http, s.listener, func() error { return s.http.Serve(s.listener) }); err != nil {
		return fmt.Errorf("serve the control socket: %w", err)
	}
	return nil
}

// Close closes a socket that was never served.
func (s *Socket) Close() error {
	s.stop()
	return s.listener.Close()
}

func (c Control) handler(streaming context.Context, profiles *atomic.Bool, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/debug/pprof/", profiling(profiles))
	for name, verb := range c {
		method := http.MethodGet
		if verb.Changes {
			method = http.MethodPost
		}
		mux.HandleFunc(method+" "+controlPath+name, func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(r.Context(), answerWait)
			defer cancel()
			request, err := requestOf(w, r)
			if err != nil {
				answer(w, http.StatusBadRequest, problemJSON{err.Error()})
				return
			}
			if verb.Stream != nil {
				stream(streaming, w, r, request, verb.Stream)
				return
			}
			by := peerOf(r.Context())
			if verb.Changes {
				log.Info("asked over the control socket", "verb", name, "by", by)
			}
			result, err := verb.Do(ctx, by, request)
			status, body := Answer(result, err)
			if status == http.StatusInternalServerError {
				log.Warn("what was asked over the control socket failed", "verb", name, "by", by, "err", err)
			}
			answer(w, status, body)
		})
	}
	return harden(mux)
}

// stream answers with one object a line, until the asker goes, or the daemon ends.
func stream(streaming context.Context, w http.ResponseWriter, r *http.Request, request []byte, from func(context.Context, []byte, func(any) error) error) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(streaming, cancel)()
	control, encoder := http.NewResponseController(w), json.NewEncoder(w)
	begun := false
	err := from(ctx, request, func(line any) error {
		if !begun {
			begun = true
			w.Header().Set("Content-Type", "application/jsonl")
		}
		if err := control.SetWriteDeadline(time.Now().Add(requestWait)); err != nil {
			return err
		}
		if err := encoder.Encode(line); err != nil {
			return err
		}
		return control.Flush()
	})
	if err != nil && !begun {
		status, body := Answer(nil, err)
		answer(w, status, body)
	}
}

// requestOf is the request as JSON: the body, or of a GET the query.
func requestOf(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.Method != http.MethodGet {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
		if err != nil {
			return nil, fmt.Errorf("read the request: %w", err)
		}
		return body, nil
	}
	fields := map[string]string{}
	for name, values := range r.URL.Query() {
		fields[name] = values[0]
	}
	return json.Marshal(fields)
}

type problemJSON struct {
	Error string `json:"error"`
}

// Answer is what a verb's outcome is over HTTP and over NATS: a status and a JSON object.
func Answer(result any, err error) (status int, body any) {
	refusal, refused := errors.AsType[*Refusal](err)
	switch {
	case err == nil:
		return http.StatusOK, result
	case refused && refusal.Unknown:
		return http.StatusNotFound, problemJSON{err.Error()}
	case refused:
		return http.StatusConflict, problemJSON{err.Error()}
	}
	return http.StatusInternalServerError, problemJSON{err.Error()}
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// Decode reads a verb's request strictly: a misspelt field is not taken for an absent one.
func Decode(request []byte, into any) error {
	if len(bytes.TrimSpace(request)) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(request))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return Refuse("the request cannot be read: %v", err)
	}
	if d.More() {
		return Refuse("the request is more than one JSON object")
	}
	return nil
}

// Client asks a running daemon over its socket.
type Client struct {
	path string
	http *http.Client
}

// NewClient returns a client of the socket at path. Nothing is contacted yet.
func NewClient(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	return &Client{path, &http.Client{Transport: &http.Transport{DialContext: dial, DisableCompression: true, DisableKeepAlives: true}}}
}

// ErrNotRunning means that nobody answers on the socket.
var ErrNotRunning = errors.New("no daemon answers")

// Ask reads something: fields become the query.
func (c *Client) Ask(ctx context.Context, verb string, fields map[string]string, into any) error {
	return c.do(ctx, http.MethodGet, verb+"?"+queryOf(fields), nil, into)
}

func queryOf(fields map[string]string) string {
	query := url.Values{}
	for name, value := range fields {
		if value != "" {
			query.Set(name, value)
		}
	}
	return query.Encode()
}

// Tell has something done.
func (c *Client) Tell(ctx context.Context, verb string, request, into any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encode the request: %w", err)
	}
	return c.do(ctx, http.MethodPost, verb, body, into)
}

func (c *Client) do(ctx context.Context, method, path string, body []byte, into any) error {
	answer, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Close() }()
	if err := json.NewDecoder(answer).Decode(into); err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	return nil
}

// send asks, and returns the body of an answer that is no refusal.
func (c *Client) send(ctx context.Context, method, path string, body []byte) (io.ReadCloser, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://rotatord"+controlPath+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ask the daemon: %w", err)
	}
	response, err := c.http.Do(r)
	if err != nil {
		return nil, c.explain(err)
	}
	if response.StatusCode != http.StatusOK {
		defer func() { _ = response.Body.Close() }()
		return nil, refusalIn(response)
	}
	return response.Body, nil
}

// Follow calls each with every line that a verb streams, until the stream or ctx ends, or each
// fails.
func (c *Client) Follow(ctx context.Context, verb string, fields map[string]string, each func(line json.RawMessage) error) error {
	answer, err := c.send(ctx, http.MethodGet, verb+"?"+queryOf(fields), nil)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Close() }()
	for lines := json.NewDecoder(answer); ; {
		var line json.RawMessage
		if err := lines.Decode(&line); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("follow the daemon: %w", err)
		}
		if err := each(line); err != nil {
			return err
		}
	}
}

// explain says what a failure to connect means.
func (c *Client) explain(err error) error {
	switch {
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("the control socket %s may not be used by this user; ask as root or as a member of the socket's group: %w", c.path, os.ErrPermission)
	case errors.Is(err, os.ErrNotExist), isRefused(err):
		return fmt.Errorf("%w on %s; is rotatord running, with this configuration?", ErrNotRunning, c.path)
	}
	return fmt.Errorf("ask the daemon: %w", err)
}

func refusalIn(response *http.Response) error {
	var p problemJSON
	if json.NewDecoder(io.LimitReader(response.Body, maxRequest)).Decode(&p) != nil || p.Error == "" {
		return fmt.Errorf("the daemon answered with status %s", strings.ToLower(response.Status))
	}
	if response.StatusCode == http.StatusInternalServerError {
		return errors.New(p.Error)
	}
	return &Refusal{Unknown: response.StatusCode == http.StatusNotFound, Message: p.Error}
}
