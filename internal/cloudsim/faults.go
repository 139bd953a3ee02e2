package cloudsim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Phase is a point in the course of a call.
type Phase string

// The phases.
const (
	Before Phase = "before" // the request is read and authenticated, nothing has changed yet
	After  Phase = "after"  // the effect is there, nothing has been answered yet
)

// Names of faults. The first group strikes before authentication, the second around the effect or on the answer;
// one of each group can strike the same call.
const (
	FaultRefuse       = "refuse"        // the connection is closed before the body is read; with Operation "connect": on accept
	FaultTimeout      = "timeout"       // no answer and no effect until the client gives up or Delay (default 2 min) is over
	FaultDelay        = "delay"         // the call goes on after Delay, even if the client is gone by then
	FaultAnswer       = "answer"        // Status, Code, Message (or Body) is answered; without effect, or after it with Phase After
	FaultInternal     = "internal"      // answer 500 WAF.00010001, or what dialects says of the service
	FaultBusy         = "busy"          // answer 500 WAF.00010002, or what dialects says of the service
	FaultThrottle     = "throttle"      // answer 429 APIGW.0308
	FaultUnauthorized = "unauthorized"  // answer 401 APIGW.0301
	FaultTokenInvalid = "token-invalid" // answer 400 WAF.00012001, or what dialects says of the service
	FaultBadGateway   = "bad-gateway"   // answer 502 with an HTML page
	FaultExpireToken  = "expire-token"  // the token, or the temporary key, that the call carries expires now

	FaultLost         = "lost"          // effect, then the connection is cut without an answer
	FaultTimeoutAfter = "timeout-after" // effect, then no answer until the client gives up or Delay (default 2 min) is over
	FaultHold         = "hold"          // the call stands still at Phase until Release
	FaultPartial      = "partial"       // apply-to-hosts, and attach or detach of APIG, takes the first half; Status (default 200) and Code as in answer
	FaultTruncate     = "truncate"      // half of the answer's JSON, in full HTTP framing
	FaultCut          = "cut"           // half of the answer's JSON, then the connection is cut
	FaultHuge         = "huge"          // the answer carries an unknown member of 16 MiB
	FaultDrip         = "drip"          // the answer comes byte by byte, one each Delay (default 100 ms)
	FaultWrongType    = "wrong-type"    // Field (default: id) of the answer is an object instead
)

// OperationConnect is the operation of a connection that is not yet a request; only FaultRefuse strikes it.
const OperationConnect = "connect"

// Fault is one misfortune that is waiting for calls.
type Fault struct {
	// Service and Operation name the calls it waits for, as in the ledger; "" or "*" is any.
	Service, Operation string
	Name               string
	// Count is how many calls it strikes; 0: until cleared. After is how many matching calls it lets pass first.
	Count, After int
	// Phase is for hold and for answers. Default Before.
	Phase Phase
	// Delay is for delay, timeout, timeout-after and drip.
	Delay time.Duration
	// Status, Code, Message, Body, ContentType are for answer, Field is for wrong-type.
	Status                           int
	Code, Message, Body, ContentType string
	Field                            string
}

// FaultState is a fault and what became of it.
type FaultState struct {
	ID    int
	Fault Fault
	Hits  int     // calls struck so far
	Held  []Entry // calls that stand still right now
}

// Faults is the set of waiting faults. All methods may be called at any time from any goroutine.
type Faults struct {
	mu     sync.Mutex
	next   int
	list   []*armed
	onCall func(Entry, Phase)
	change chan struct{} // closed and replaced whenever a call starts or ends standing still
}

type armed struct {
	id    int
	fault Fault
	seen  int
	hits  int
	spent bool // struck Count times; kept for its holds and for List
	held  []*heldCall
}

type heldCall struct {
	entry   Entry
	release chan struct{}
}

func newFaults() *Faults { return &Faults{change: make(chan struct{})} }

// Add arms f and returns its id. Faults are tried in the order in which they were added.
func (f *Faults) Add(fault Fault) (int, error) {
	fault, err := fault.complete()
	if err != nil {
		return 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next++
	f.list = append(f.list, &armed{id: f.next, fault: fault})
	return f.next, nil
}

// complete turns the named answers into FaultAnswer's members, sets defaults and refuses nonsense.
func (f Fault) complete() (Fault, error) {
	setDefault(&f.Service, "*")
	setDefault(&f.Operation, "*")
	setDefault((*string)(&f.Phase), string(Before))
	if f.Phase != Before && f.Phase != After {
		return f, fmt.Errorf("fault phase %q: before or after", f.Phase)
	}
	if f.Count < 0 || f.After < 0 || f.Delay < 0 {
		return f, errors.New("fault count, after and delay must not be negative")
	}
	switch f.Name {
	case FaultThrottle:
		f.answer(429, "APIGW.0308", "The throttling threshold has been reached: policy user over ratelimit,limit:200,time:5 minute")
	case FaultUnauthorized:
		f.answer(401, codeGatewayAuth, textGatewayAuth+"decrypt token fail")
	case FaultBadGateway:
		f.answer(502, "", "")
		setDefault(&f.ContentType, "text/html")
		setDefault(&f.Body, "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body><center><h1>502 Bad Gateway</h1></center></body>\r\n</html>\r\n")
	case FaultAnswer:
		if f.Status < 200 || f.Status > 599 {
			return f, fmt.Errorf("fault answer needs a status, has %d", f.Status)
		}
	case FaultTimeout, FaultTimeoutAfter:
		setDelay(&f.Delay, 2*time.Minute)
	case FaultDrip:
		setDelay(&f.Delay, 100*time.Millisecond)
	case FaultWrongType:
		setDefault(&f.Field, "id")
	case FaultDelay:
		if f.Delay == 0 {
			return f, errors.New("fault delay needs a delay")
		}
	case FaultInternal, FaultBusy, FaultTokenInvalid: // see speak
	case FaultRefuse, FaultExpireToken, FaultLost, FaultHold, FaultPartial, FaultTruncate, FaultCut, FaultHuge:
	default:
		return f, fmt.Errorf("no fault is named %q", f.Name)
	}
	if f.Operation == OperationConnect && f.Name != FaultRefuse {
		return f, fmt.Errorf("only %s strikes a connection, not %s", FaultRefuse, f.Name)
	}
	return f, nil
}

// spoken is an answer in a service's own words.
type spoken struct {
	status        int
	code, message string
}

// dialects are the named answers that each service words in its own way (reference 6.2 to 6.5). IAM gets WAF's.
var dialects = map[string]map[string]spoken{
	serviceWAF: {
		FaultInternal:     {500, "WAF.00010001", "Internal error"},
		FaultBusy:         {500, "WAF.00010002", "System busy, try again in about 5 minutes"},
		FaultTokenInvalid: {400, "WAF.00012001", "Invalid token"},
	},
	serviceAPIG: {
		FaultInternal:     {500, codeAPIGInternal, "System error"},
		FaultBusy:         {500, codeAPIGTooMany, "Too many requests"},
		FaultTokenInvalid: {401, codeAPIGToken, "Incorrect token or token resolution failed"},
	},
	servicePCA: {
		FaultInternal:     {500, codePCAInternal, "Internal service error"},
		FaultBusy:         {500, codePCABusy, "System busy"},
		FaultTokenInvalid: {401, codePCAToken, "Authentication failed"},
	},
	serviceIdentity: {
		FaultInternal:     {500, codeIdentityInternal, "Internal error"},
		FaultBusy:         {409, codeIdentityConflict, "A concurrent change is under way"},
		FaultTokenInvalid: {401, codeIdentityToken, "Authentication failed"},
	},
}

// speak completes those named answers that each service words in its own way.
func (f *Fault) speak(service string) {
	words, ok := dialects[service]
	if !ok {
		words = dialects[serviceWAF]
	}
	if say, ok := words[f.Name]; ok {
		f.answer(say.status, say.code, say.message)
	}
}

func (f *Fault) answer(status int, code, message string) {
	if f.Status == 0 {
		f.Status = status
	}
	setDefault(&f.Code, code)
	setDefault(&f.Message, message)
}

func setDelay(field *time.Duration, value time.Duration) {
	if *field == 0 {
		*field = value
	}
}

// isAnswer tells whether the fault replaces the answer.
func (f Fault) isAnswer() bool {
	switch f.Name {
	case FaultInternal, FaultBusy, FaultTokenInvalid:
		return true
	case FaultPartial:
		return false
	}
	return f.Status != 0
}

// isFront tells whether the fault strikes before authentication.
func (f Fault) isFront() bool {
	switch f.Name {
	case FaultRefuse, FaultTimeout, FaultDelay, FaultExpireToken:
		return true
	}
	return f.isAnswer() && f.Phase == Before
}

// take returns the first fault that strikes a call of this service and operation.
func (f *Faults) take(service, operation string, front bool) (*armed, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.list {
		if a.spent || a.fault.isFront() != front || !a.fault.matches(service, operation) {
			continue
		}
		a.seen++
		if a.seen <= a.fault.After {
			continue
		}
		a.hits++
		a.spent = a.fault.Count > 0 && a.hits >= a.fault.Count
		return a, true
	}
	return nil, false
}

// matches never lets "*" stand for a connection: a fault meant for calls must not be used up by a handshake.
func (f Fault) matches(service, operation string) bool {
	if operation == OperationConnect {
		return f.Operation == OperationConnect
	}
	return (f.Service == "*" || f.Service == service) && (f.Operation == "*" || f.Operation == operation)
}

// List returns every fault that was added since the last Clear.
func (f *Faults) List() []FaultState {
	f.mu.Lock()
	defer f.mu.Unlock()
	var states []FaultState
	for _, a := range f.list {
		state := FaultState{ID: a.id, Fault: a.fault, Hits: a.hits}
		for _, h := range a.held {
			state.Held = append(state.Held, h.entry)
		}
		states = append(states, state)
	}
	return states
}

// Clear disarms every fault and lets go of every held call.
func (f *Faults) Clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.list {
		f.releaseLocked(a)
	}
	f.list = nil
}

// Release lets go of the calls that fault id holds and says how many they were. The fault stays armed.
func (f *Faults) Release(id int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.list {
		if a.id == id {
			return f.releaseLocked(a)
		}
	}
	return 0
}

func (f *Faults) releaseLocked(a *armed) int {
	n := len(a.held)
	for _, h := range a.held {
		close(h.release)
	}
	a.held = nil
	f.changedLocked()
	return n
}

func (f *Faults) changedLocked() {
	close(f.change)
	f.change = make(chan struct{})
}

// WaitHeld waits until fault id holds a call and returns that call.
func (f *Faults) WaitHeld(ctx context.Context, id int) (Entry, error) {
	for {
		f.mu.Lock()
		change := f.change
		at := slices.IndexFunc(f.list, func(a *armed) bool { return a.id == id })
		if at >= 0 && len(f.list[at].held) > 0 {
			entry := f.list[at].held[0].entry
			f.mu.Unlock()
			return entry, nil
		}
		f.mu.Unlock()
		if at < 0 {
			return Entry{}, fmt.Errorf("fault %d is not armed", id)
		}
		select {
		case <-change:
		case <-ctx.Done():
			return Entry{}, fmt.Errorf("fault %d holds no call: %w", id, context.Cause(ctx))
		}
	}
}

// OnCall sets a function that is called in every call that passed authentication, once Before and once After its
// effect; the call waits for it. The function runs without locks and may use the simulator. nil takes it away.
func (f *Faults) OnCall(fn func(Entry, Phase)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onCall = fn
}

// reached runs the hook and stands still if the fault says so. It returns false when the simulator closed meanwhile.
func (f *Faults) reached(done <-chan struct{}, a *armed, entry Entry, phase Phase) bool {
	f.mu.Lock()
	hook := f.onCall
	var held *heldCall
	if a != nil && a.fault.Name == FaultHold && a.fault.Phase == phase && slices.Contains(f.list, a) {
		held = &heldCall{entry: entry, release: make(chan struct{})}
		a.held = append(a.held, held)
		f.changedLocked()
	}
	f.mu.Unlock()
	if hook != nil {
		hook(entry, phase)
	}
	if held == nil {
		return true
	}
	select {
	case <-held.release:
		return true
	case <-done:
		return false
	}
}
