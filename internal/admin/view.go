package admin

import (
	"fmt"
	"math"
	"net/url"
	"strings"
	"time"
)

// What the templates show, made from the wire's types: texts of others are cut to what fits,
// and hold nothing that a browser or a reader could take for something else.

const (
	nameLength = 120
	textLength = 240
	longText   = 2000
)

// rowView is an assignment in a table.
type rowView struct {
	Key, Path                       string
	Policy, PolicyPath, Certificate string
	State                           string
	StateFor                        string
	Reason                          string
	Life                            *lifeView
	Wanted                          string // short; empty: nothing is wanted
	WantedWhole                     string
	Targets                         []targetView
	Next                            nextView
	Error                           string
}

// lifeView is how much of its life a bundle has left.
type lifeView struct {
	Percent int
	Ends    moment
	Level   string // good, low or over
}

// targetView is what a target serves, against what is wanted.
type targetView struct {
	Name, Kind string
	Mark       string // ok, other, drift, failing or unseen
	Words      string
	Serves     string // short
	Whole      string
}

type nextView struct {
	What, Why, Blocked string
	At                 moment
}

func (x *index) rowView(r row) rowView {
	a := x.assignment(r)
	return x.viewOf(&a)
}

func (x *index) viewOf(a *Assignment) rowView {
	v := rowView{
		Key: a.Policy + "/" + a.Certificate, Path: pathOf(a.Policy, a.Certificate), Policy: a.Policy, PolicyPath: policyPath(a.Policy),
		Certificate: cut(a.Certificate, nameLength), State: a.State, Reason: cut(a.Reason, longText), Error: cut(lastError(a), textLength),
	}
	if a.Certificate == "" {
		v.Certificate = "(without a name)"
	}
	if !a.Since.IsZero() {
		v.StateFor = Span(x.made.Sub(a.Since))
	}
	if a.Wanted != nil {
		v.Life, v.Wanted, v.WantedWhole = lifeViewOf(a.Wanted, x.made), short(a.Wanted.Fingerprint), a.Wanted.Fingerprint
	}
	for _, t := range a.Targets {
		v.Targets = append(v.Targets, targetViewOf(&t))
	}
	v.Next = nextView{What: cut(a.Next.What, textLength), At: momentOf(a.Next.At, x.made), Blocked: cut(a.Blocked, textLength)}
	if a.Next.Why != "" && v.Error == "" { // said once
		v.Next.Why = cut(a.Next.Why, textLength)
	}
	return v
}

func lifeViewOf(b *Bundle, now time.Time) *lifeView {
	v := &lifeView{Percent: int(math.Floor(100 * lifeLeft(b, now))), Ends: momentOf(b.NotAfter, now), Level: "good"}
	switch {
	case !b.NotAfter.After(now):
		v.Level = "over"
	case endsSoon(b, now):
		v.Level = "low"
	}
	return v
}

func targetViewOf(t *Target) targetView {
	v := targetView{Name: t.Name, Kind: t.Kind, Serves: short(t.Serves), Whole: t.Serves}
	switch {
	case t.Drift != "":
		v.Mark, v.Words = "drift", "drifted ("+t.Drift+")"
	case t.Failures > 0:
		v.Mark, v.Words = "failing", "failed "+counted(t.Failures, "time", "times")
	case t.Current:
		v.Mark, v.Words = "ok", "serves it"
	case t.Serves != "":
		v.Mark, v.Words = "other", "serves another one"
	default:
		v.Mark, v.Words = "unseen", "nothing known yet"
	}
	return v
}

func policyPath(name string) string { return "/policies/" + url.PathEscape(name) }

// policyView is a policy with what is said of it.
type policyView struct {
	Policy
	Path     string
	Count    int
	States   []stateCount
	Pause    *pauseView
	Problems []string
	More     int // problems that are not shown
}

type pauseView struct {
	By, Reason   string
	Since, Until moment
}

// problemsShown is how many problems of a source a page has.
const problemsShown = 50

func (x *index) policyView(p Policy) policyView {
	v := policyView{Policy: p, Path: policyPath(p.Name), States: x.counts(x.policies[p.Name].States, map[string][]string{"policy": {p.Name}})}
	for _, s := range v.States {
		v.Count += s.Count
	}
	if p.Paused != nil {
		v.Pause = &pauseView{cut(p.Paused.By, nameLength), cut(p.Paused.Reason, textLength), momentOf(p.Paused.Since, x.made), momentOf(p.Paused.Until, x.made)}
	}
	for _, text := range p.Problems[:min(len(p.Problems), problemsShown)] {
		v.Problems = append(v.Problems, cut(text, longText))
	}
	v.More = len(p.Problems) - len(v.Problems)
	return v
}

type reloadView struct {
	Reload
	When moment
}

// bundleView are the facts of the bundle in force.
type bundleView struct {
	Bundle
	Names    []string
	More     int // names that are not shown
	From, To moment
}

type intermediateView struct {
	Subject, Issuer, Fingerprint string
	Ends                         moment
}

// placeView is a target on the page of an assignment.
type placeView struct {
	targetView
	Endpoints   []string
	More        int // endpoints that are not shown
	Ends        moment
	Superseded  int
	Failure     string
	RetryAt     moment
	LastSuccess moment
}

type probeView struct {
	Endpoint, Address, Words, Mark, Shows, Whole string
}

// namesShown is how many names or endpoints are shown one by one.
const namesShown = 100

func (x *index) assignmentView(a *Assignment) *assignmentPageView {
	v := &assignmentPageView{
		rowView: x.viewOf(a), Verified: momentOf(a.VerifiedAt, x.made), RenewalDue: momentOf(a.RenewalDue, x.made),
		Since: momentOf(a.Since, x.made), NextLook: momentOf(a.NextLook, x.made), PolicyView: x.policyView(x.policies[a.Policy].Policy),
	}
	v.Error = cut(lastError(a), longText)
	if b := a.Wanted; b != nil {
		facts := &bundleView{Bundle: *b, From: momentOf(b.NotBefore, x.made), To: momentOf(b.NotAfter, x.made)}
		facts.Names, facts.More = someOf(b.Names)
		facts.Issuer = cut(b.Issuer, textLength)
		v.Facts = facts
	}
	for _, c := range a.Chain {
		v.Chain = append(v.Chain, intermediateView{cut(c.Subject, textLength), cut(c.Issuer, textLength), c.Fingerprint, momentOf(c.NotAfter, x.made)})
	}
	for _, t := range a.Targets {
		place := placeView{
			targetView: targetViewOf(&t), Ends: momentOf(t.NotAfter, x.made), Superseded: t.Superseded, Failure: cut(t.Failure, longText),
			LastSuccess: momentOf(t.LastSuccess, x.made),
		}
		if t.Failures > 0 {
			place.RetryAt = momentOf(t.RetryAt, x.made)
		}
		place.Endpoints, place.More = someOf(t.Endpoints)
		v.Places = append(v.Places, place)
	}
	for _, p := range a.Probes {
		v.Probes = append(v.Probes, probeViewOf(&p))
	}
	return v
}

func probeViewOf(p *Probe) probeView {
	v := probeView{Endpoint: cut(p.Endpoint, nameLength), Address: cut(p.Address, nameLength), Shows: short(p.Fingerprint), Whole: p.Fingerprint}
	switch {
	case p.Error != "":
		v.Mark, v.Words = "failing", cut(p.Error, longText)
	case p.Current:
		v.Mark, v.Words = "ok", "shows it"
	default:
		v.Mark, v.Words = "other", "shows another one"
	}
	return v
}

func someOf(all []string) (some []string, more int) {
	for _, name := range all[:min(len(all), namesShown)] {
		some = append(some, cut(name, nameLength))
	}
	return some, len(all) - len(some)
}

// eventView is an entry of the history.
type eventView struct {
	Sequence    uint64
	When        moment
	Kind        string
	Tone        string // good, bad or plain
	Policy      string
	Certificate string
	Path        string
	Target      string
	Fingerprint string
	Whole       string
	Previous    string
	Detail      []string
}

func eventViewOf(e Event, now time.Time) eventView {
	v := eventView{
		Sequence: e.Sequence, When: momentOf(e.Time, now), Kind: cut(eventWords(e.Kind), nameLength), Tone: "plain", Policy: cut(e.Policy, nameLength), Certificate: cut(e.Certificate, nameLength),
		Target: cut(e.Target, nameLength), Fingerprint: short(e.Fingerprint), Whole: e.Fingerprint, Previous: short(e.Previous),
	}
	if e.Certificate != "" {
		v.Path = pathOf(e.Policy, e.Certificate)
	}
	switch e.Kind {
	case "converged", "verified", "repaired":
		v.Tone = "good"
	case "failed", "rolled_back", "drifted", "quarantined", "braked", "expiring":
		v.Tone = "bad"
	}
	if e.Outcome == "held" || e.Outcome == "refused" && e.Kind != "quarantined" {
		v.Detail = append(v.Detail, e.Outcome)
	}
	if len(e.Steps) > 0 {
		v.Detail = append(v.Detail, cut(strings.Join(e.Steps, ", "), textLength))
	}
	if e.Reason != "" {
		v.Detail = append(v.Detail, cut(e.Reason, textLength))
	}
	if e.Trigger != "" {
		v.Detail = append(v.Detail, "trigger "+cut(e.Trigger, nameLength))
	}
	if e.By != "" {
		v.Detail = append(v.Detail, "by "+cut(e.By, nameLength))
	}
	if len(e.RequestIDs) > 0 {
		v.Detail = append(v.Detail, "requests "+cut(strings.Join(e.RequestIDs, " "), textLength))
	}
	return v
}

// eventWords is an event's kind as a word of a sentence.
func eventWords(kind string) string {
	if kind == "rolled_back" {
		return "rolled back"
	}
	return kind
}

// Place is a problem's place in a file, as compilers say it.
func (p Problem) Place() string {
	if p.File == "" {
		return ""
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}
