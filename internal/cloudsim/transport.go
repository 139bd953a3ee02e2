package cloudsim

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net/http"
	"strconv"
	"sync"
)

// Transport is the simulator as an http.RoundTripper: no sockets, so it runs under fake time (testing/synctest). It
// shows the caller what a network would: an answer as it is written, a cut connection as io.ErrUnexpectedEOF, and
// its own context's end at once while the call goes on in the cloud.
func (s *Sim) Transport() http.RoundTripper {
	api := s.Handler()
	if !s.cfg.Metadata {
		return transport{api}
	}
	machine := s.MetadataHandler()
	return transport{http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host == metadataHost {
			machine.ServeHTTP(w, r)
			return
		}
		api.ServeHTTP(w, r)
	})}
}

type transport struct{ handler http.Handler }

// RoundTrip runs the handler in a goroutine of its own, which ends with the call.
func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	served := r.Clone(r.Context())
	served.Body = http.NoBody
	if r.Body != nil {
		// Read first: RoundTrip must have closed the body when it returns, and the call may go on for longer.
		body, err := io.ReadAll(r.Body)
		_ = r.Body.Close()
		if err != nil {
			return nil, err
		}
		served.Body = io.NopCloser(bytes.NewReader(body))
		served.ContentLength = int64(len(body))
	}
	served.Header = http.Header{}
	for key, values := range r.Header { // the wire has no case
		canonical := http.CanonicalHeaderKey(key)
		served.Header[canonical] = append(served.Header[canonical], values...)
	}
	served.RequestURI = r.URL.RequestURI()
	if served.Host == "" {
		served.Host = r.URL.Host
	}
	reader, writer := io.Pipe()
	p := &pipeWriter{header: http.Header{}, body: writer, started: make(chan struct{}), aborted: make(chan struct{})}
	go p.run(t.handler, served)
	select {
	case <-p.started:
	case <-p.aborted:
		return nil, io.ErrUnexpectedEOF
	case <-r.Context().Done():
		_ = reader.CloseWithError(context.Cause(r.Context()))
		return nil, context.Cause(r.Context())
	}
	// Once the context ends, a body that is still coming ends with it.
	stop := context.AfterFunc(r.Context(), func() { _ = reader.CloseWithError(context.Cause(r.Context())) })
	length, err := strconv.ParseInt(p.sent.Get("Content-Length"), 10, 64)
	if err != nil {
		length = -1
	}
	return &http.Response{
		Status: strconv.Itoa(p.status) + " " + http.StatusText(p.status), StatusCode: p.status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: p.sent, ContentLength: length, Request: r,
		Body: &pipeBody{PipeReader: reader, stop: stop},
	}, nil
}

// pipeBody undoes the watch on the context when it is closed.
type pipeBody struct {
	*io.PipeReader
	stop func() bool
}

func (b *pipeBody) Close() error {
	b.stop()
	return b.PipeReader.Close()
}

// pipeWriter is the http.ResponseWriter behind Transport.
type pipeWriter struct {
	header  http.Header
	body    *io.PipeWriter
	once    sync.Once
	started chan struct{} // closed when status and sent are set
	aborted chan struct{} // closed when the handler cut the connection before that
	status  int
	sent    http.Header
}

func (p *pipeWriter) run(handler http.Handler, r *http.Request) {
	defer func() {
		switch cause := recover(); cause {
		case nil:
			p.WriteHeader(http.StatusOK)
			_ = p.body.Close()
		case http.ErrAbortHandler:
			_ = p.body.CloseWithError(io.ErrUnexpectedEOF)
			p.once.Do(func() { close(p.aborted) })
		default:
			panic(cause)
		}
	}()
	handler.ServeHTTP(p, r)
}

func (p *pipeWriter) Header() http.Header { return p.header }

func (p *pipeWriter) WriteHeader(status int) {
	p.once.Do(func() {
		p.status, p.sent = status, maps.Clone(p.header)
		close(p.started)
	})
}

func (p *pipeWriter) Write(b []byte) (int, error) {
	p.WriteHeader(http.StatusOK)
	if len(b) == 0 {
		return 0, nil // an empty write must not wait for a reader
	}
	return p.body.Write(b)
}

// Flush is there for FaultDrip and FaultCut; every write of a pipe is already through.
func (p *pipeWriter) Flush() {}
