package cloudsim

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// bodyLimit is the largest request body that is read.
const bodyLimit = 1 << 20

// object is a JSON object of an answer.
type object = map[string]any

// call is one request on its way through the simulator. One goroutine owns it.
type call struct {
	r      *http.Request
	body   []byte
	query  url.Values
	params map[string]string // members of the path, e.g. project_id
	now    time.Time         // the service's clock at arrival
	base   string            // https://host:port that the caller used
	entry  Entry
	// partial is the fault that lets apply-to-hosts and its kin stop half way, nil without.
	partial *Fault
}

// answer is what a service says, before misbehaviour and faults have their turn.
type answer struct {
	status  int
	header  map[string]string
	body    object // nil: empty body
	raw     string // used instead of body when contentType is set
	content string // Content-Type; "" is JSON

	code, message string // of an error, for the ledger
	effect        bool
	objects       []string
	fingerprint   string
	name          string
}

// route leads requests to the function that answers them. The function runs under the simulator's lock and must not
// wait for anything.
type route struct {
	service, operation string
	method, pattern    string // pattern is a path with {name} for one segment
	auth               authKind
	handle             func(*Sim, *call) answer
}

// findRoute returns the route of r and the members of its path.
func findRoute(routes []route, r *http.Request) (route, map[string]string) {
	segments := strings.Split(r.URL.EscapedPath(), "/")
	for _, rt := range routes {
		if rt.method != r.Method {
			continue
		}
		if params, ok := matchPath(strings.Split(rt.pattern, "/"), segments); ok {
			return rt, params
		}
	}
	// A call that a service does not offer is answered by the service, once the caller is known: "API not found" of
	// the WAF table. Everything else is not even published at the gateway.
	if parts := strings.SplitN(r.URL.Path, "/", 5); len(parts) >= 4 && parts[1] == "v1" && isWAFRoot(parts[3]) {
		return route{service: serviceWAF, operation: "Unknown", auth: authProject, handle: (*Sim).wafNotOffered},
			map[string]string{"project_id": parts[2]}
	}
	return route{operation: "Unknown", handle: notPublished}, nil
}

func matchPath(pattern, segments []string) (map[string]string, bool) {
	if len(pattern) != len(segments) {
		return nil, false
	}
	params := map[string]string{}
	for i, p := range pattern {
		name, isParam := strings.CutPrefix(p, "{")
		if !isParam {
			if p != segments[i] {
				return nil, false
			}
			continue
		}
		value, err := url.PathUnescape(segments[i])
		if err != nil || value == "" {
			return nil, false
		}
		params[strings.TrimSuffix(name, "}")] = value
	}
	return params, true
}

func notPublished(_ *Sim, c *call) answer {
	return c.refuseGateway(404, codeGatewayRoute, "The API does not exist or has not been published in the environment")
}

func (s *Sim) serveAPI(w http.ResponseWriter, r *http.Request) { s.serve(w, r, s.routes) }

// serve is the life of one call. Its order is the contract: the ledger knows the call before anything else happens,
// and knows its effect before the caller can.
func (s *Sim) serve(w http.ResponseWriter, r *http.Request, routes []route) {
	rt, params := findRoute(routes, r)
	now := s.now()
	c := &call{r: r, params: params, now: now, base: s.base(r)}
	c.entry = s.ledger.begin(Entry{
		Time: now, Service: rt.service, Operation: rt.operation, RequestID: s.newID(),
		Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery,
	})
	w.Header().Set("X-Request-Id", c.entry.RequestID)
	w.Header().Set("Date", now.UTC().Format(http.TimeFormat))

	ans, fault, alive := s.answerCall(c, rt)
	c.entry.Code, c.entry.Message, c.entry.Status = ans.code, ans.message, ans.status
	if !alive || fault.cutsAnswer() {
		c.entry.Status = -1
	}
	s.ledger.update(c.entry)
	s.cfg.Logger.Debug("api call", "service", rt.service, "operation", rt.operation, "status", c.entry.Status,
		"code", c.entry.Code, "request_id", c.entry.RequestID, "effect", c.entry.Effect, "fault", c.entry.Fault)
	if !alive {
		panic(http.ErrAbortHandler) // net/http's way to cut a connection
	}
	s.writeAnswer(w, c, ans, fault)
}

// answerCall takes the call as far as an answer. alive false means that the connection has to be cut instead.
func (s *Sim) answerCall(c *call, rt route) (ans answer, fault Fault, alive bool) {
	front, struck := s.faults.take(rt.service, rt.operation, true)
	if struck {
		c.strike(front.fault)
		if front.fault.Name == FaultRefuse {
			return answer{}, fault, false
		}
	}
	// The server notices that a client is gone only when the body has been read; timeouts depend on that.
	body, err := io.ReadAll(http.MaxBytesReader(nil, c.r.Body, bodyLimit))
	if err != nil {
		return answer{}, fault, false
	}
	c.body = body
	if query, err := url.ParseQuery(c.r.URL.RawQuery); err == nil {
		c.query = query
	}
	if !s.pause(s.cfg.Latency) {
		return answer{}, fault, false
	}
	if struck {
		if ans, done, alive := s.strikeFront(c, front.fault); done {
			return ans, fault, alive
		}
	}
	if refusal, ok := s.authenticate(c, rt.auth); !ok {
		return refusal, fault, true
	}
	return s.reachService(c, rt)
}

// strikeFront lets a fault of the first group happen. done means that the service is not reached.
func (s *Sim) strikeFront(c *call, fault Fault) (ans answer, done, alive bool) {
	switch fault.Name {
	case FaultDelay:
		alive := s.pause(fault.Delay)
		c.now = s.now()
		return answer{}, !alive, alive
	case FaultTimeout:
		s.waitGone(c.r, fault.Delay)
		return answer{}, true, false
	case FaultExpireToken:
		if text := c.r.Header.Get("X-Auth-Token"); text != "" {
			s.expireToken(text)
		}
		if text := c.r.Header.Get("X-Security-Token"); text != "" {
			s.expireKey(text)
		}
		return answer{}, false, true
	}
	return c.faultAnswer(fault), true, true
}

// reachService runs the operation between the two phases.
func (s *Sim) reachService(c *call, rt route) (ans answer, fault Fault, alive bool) {
	behind, struck := s.faults.take(rt.service, rt.operation, false)
	if struck {
		fault = behind.fault
		c.strike(fault)
		if fault.Name == FaultPartial {
			c.partial = &fault
		}
	}
	if !s.faults.reached(s.done, behind, c.entry, Before) {
		return answer{}, fault, false
	}
	c.now = s.now() // the effect, not the arrival, is what edges reckon from
	s.mu.Lock()
	ans = rt.handle(s, c)
	s.mu.Unlock()
	c.entry.Effect, c.entry.Objects = ans.effect, ans.objects
	c.entry.Fingerprint, c.entry.Name = ans.fingerprint, ans.name
	s.ledger.update(c.entry)
	if !s.faults.reached(s.done, behind, c.entry, After) {
		return answer{}, fault, false
	}
	switch {
	case fault.Name == FaultLost:
		return answer{}, fault, false
	case fault.Name == FaultTimeoutAfter:
		s.waitGone(c.r, fault.Delay)
		return answer{}, fault, false
	case fault.isAnswer():
		return c.faultAnswer(fault), fault, true
	}
	return ans, fault, true
}

func (c *call) strike(fault Fault) {
	if c.entry.Fault != "" {
		c.entry.Fault += "+"
	}
	c.entry.Fault += fault.Name
}

// faultAnswer is the answer that a fault carries.
func (c *call) faultAnswer(fault Fault) answer {
	fault.speak(c.entry.Service)
	if fault.Body != "" {
		return answer{status: fault.Status, code: fault.Code, message: fault.Message, raw: fault.Body, content: fault.ContentType}
	}
	if strings.HasPrefix(fault.Code, "APIGW.") {
		return c.refuseGateway(fault.Status, fault.Code, fault.Message)
	}
	if c.entry.Service == serviceIdentity {
		return c.refuseIdentity(fault.Status, fault.Code, fault.Message)
	}
	return refuse(fault.Status, fault.Code, fault.Message)
}

// pause waits for d and returns false when the simulator closed meanwhile. It does not end with the caller: a cloud
// that has read a request carries it out, whoever still listens.
func (s *Sim) pause(d time.Duration) bool {
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-s.done:
		}
	}
	select {
	case <-s.done:
		return false
	default:
		return true
	}
}

// waitGone waits until the client has given up, but not longer than d.
func (s *Sim) waitGone(r *http.Request, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-r.Context().Done():
	case <-timer.C:
	case <-s.done:
	}
}
