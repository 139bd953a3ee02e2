package huaweicloud

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/rotatord/rotatord/internal/providers"
)

// Metadata signs with the temporary keys that the metadata service of an ECS gives for
// the agency that the server is bound to (reference 1.3).
type Metadata struct {
	// Endpoint is http://address[:port] of the service, a loopback or link-local
	// address, since keys come from there in clear; empty: http://169.254.169.254.
	Endpoint string
}

const (
	metadataAddress = "http://169.254.169.254"
	// metadataTimeout bounds one exchange. The service is on this machine or one hop away.
	metadataTimeout = 3 * time.Second
	maxMetadata     = 64 << 10
)

func (m Metadata) open(c *Client, expiry func(time.Time)) (session, error) {
	if m.Endpoint == "" {
		m.Endpoint = metadataAddress
	}
	base, err := parseMetadata(m.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("metadata: endpoint: %w", err)
	}
	s := &metadataService{client: c, base: base, transport: c.config.Transport}
	if s.transport == nil {
		// No proxy: the address means another machine there. No connection is kept, since
		// there is one question an hour.
		s.transport = &http.Transport{Proxy: nil, DisableKeepAlives: true, MaxResponseHeaderBytes: maxMetadata}
	}
	fetch := func(ctx context.Context) (lease[keys], error) { return s.fetch(ctx, expiry) }
	return &keySession{source: leasedKeys{newHeld(4*metadataTimeout, fetch, c.renewedLate)}, client: c}, nil
}

func parseMetadata(address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return "", errors.New("not a URL with a host")
	}
	if u.Scheme != "http" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New("want http://address[:port] alone")
	}
	ip, err := netip.ParseAddr(u.Hostname())
	if !isLoopback(u.Hostname()) && (err != nil || !ip.Unmap().IsLinkLocalUnicast()) {
		return "", errors.New("want a loopback or link-local address; keys come from there in clear")
	}
	return "http://" + u.Host, nil
}

type metadataService struct {
	client    *Client
	base      string
	transport http.RoundTripper
}

const (
	sessionHeader = "X-Metadata-Token"
	// sessionSeconds is what the reference's example asks for, six hours.
	sessionSeconds = "21600"
	// metadataKeys is how long keys are believed to live whose end is not told.
	metadataKeys = 15 * time.Minute
)

// fetch asks with a session (v2) and, where there are none, without (v1).
func (s *metadataService) fetch(ctx context.Context, expiry func(time.Time)) (lease[keys], error) {
	session, status, _, err := s.ask(ctx, opMetadataSession, http.MethodPut, "/meta-data/latest/api/token",
		"X-Metadata-Token-Ttl-Seconds", sessionSeconds)
	switch {
	case err == nil:
	case status == http.StatusNotFound || status == http.StatusMethodNotAllowed || status == http.StatusServiceUnavailable:
		session = nil
	default:
		return lease[keys]{}, err
	}
	token := strings.TrimSpace(string(session))
	if strings.ContainsFunc(token, notInToken) {
		return lease[keys]{}, s.fail(providers.KindUnavailable, "the session token is no token", nil)
	}
	body, _, header, err := s.ask(ctx, opMetadataKeys, http.MethodGet, "/openstack/latest/securitykey", sessionHeader, token)
	if err != nil {
		return lease[keys]{}, err
	}
	defer clear(body)
	var answer keysAnswer
	if err := json.Unmarshal(body, &answer); err != nil {
		// Not err itself: it may quote the answer.
		return lease[keys]{}, s.fail(providers.KindUnavailable, fmt.Sprintf("the answer (%d bytes) is not the JSON that was expected", len(body)), nil)
	}
	l, err := answer.lease(header, metadataKeys, expiry)
	if err != nil {
		return lease[keys]{}, s.fail(providers.KindUnavailable, "", err)
	}
	return l, nil
}

// ask makes one exchange. An empty value leaves the header out.
func (s *metadataService) ask(ctx context.Context, operation, method, path, name, value string) (body []byte, status int, h http.Header, err error) {
	ctxCall, cancel := context.WithTimeout(ctx, metadataTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctxCall, method, s.base+path, http.NoBody)
	if err != nil {
		return nil, 0, nil, s.fail(providers.KindInvalid, "the endpoint is no part of a URL", nil)
	}
	req.Header.Set("User-Agent", "rotatord")
	if value != "" {
		req.Header.Set(name, value)
	}
	start := time.Now()
	body, status, h, err = s.exchange(ctx, req)
	reason := ""
	if err != nil {
		reason = reasonOf(err, status)
	}
	s.client.observe(ctx, IAM, operation, status, reason, time.Since(start))
	return body, status, h, err
}

func (s *metadataService) exchange(ctx context.Context, req *http.Request) (body []byte, status int, h http.Header, err error) {
	resp, err := s.transport.RoundTrip(req)
	if err != nil {
		cause := networkFailure(ctx, err, metadataTimeout)
		return nil, 0, nil, s.fail(providers.KindUnavailable, "", cause)
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxMetadata+1))
	switch status = resp.StatusCode; {
	case status == http.StatusNotFound && req.Method == http.MethodGet:
		return nil, status, nil, s.fail(providers.KindUnauthenticated, "status 404: is an agency bound to this server?", nil)
	case status == http.StatusTooManyRequests || status >= 500:
		return nil, status, nil, s.fail(providers.KindUnavailable, fmt.Sprintf("status %d", status), nil)
	case status < 200 || status > 299:
		return nil, status, nil, s.fail(providers.KindUnauthenticated, fmt.Sprintf("status %d", status), nil)
	case err != nil:
		return nil, status, nil, s.fail(providers.KindUnavailable, "the answer broke off", networkFailure(ctx, err, metadataTimeout))
	case len(body) > maxMetadata:
		return nil, status, nil, s.fail(providers.KindUnavailable, fmt.Sprintf("the answer is longer than %d bytes", maxMetadata), nil)
	}
	return body, status, resp.Header, nil
}

func (s *metadataService) fail(kind providers.Kind, message string, err error) *providers.Error {
	return &providers.Error{Kind: kind, Op: "get keys from the metadata service at " + s.base, Service: IAM, Message: message, Err: err}
}
