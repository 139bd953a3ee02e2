package admin

import "time"

// The answers of the control socket, of the NATS micro service and of the read API. Fields
// are added, never renamed: others script against them.

// Status is how the daemon and its assignments are.
type Status struct {
	Daemon      Daemon       `json:"daemon"`
	Policies    []Policy     `json:"policies"`
	Assignments []Assignment `json:"assignments"`
	// Onboarding is how far assignments are where many are on their way; nil where not, and
	// where only some assignments were asked for.
	Onboarding *Onboarding `json:"onboarding,omitempty"`
}

// Onboarding is how far many assignments are.
type Onboarding struct {
	// Since is when they became many.
	Since time.Time `json:"since"`
	Total int       `json:"total"`
	// AtRest have nothing to be done; UnderWay are worked on or about to be; Held wait for
	// something else, by state: windows, people, failures.
	AtRest   int            `json:"at_rest"`
	UnderWay int            `json:"under_way"`
	Held     map[string]int `json:"held"`
	// PerMinute is how many of those under way got through lately, Done when all of them will
	// have at that pace; zero where nothing can be said. Those that are held are not counted.
	PerMinute float64   `json:"per_minute,omitempty"`
	Done      time.Time `json:"done,omitzero"`
}

// Daemon is the process that answers.
type Daemon struct {
	Version string    `json:"version"`
	Node    string    `json:"node"`
	PID     int       `json:"pid"`
	Since   time.Time `json:"since"`
	// Ready says that every component is; the others say why not.
	Ready      bool        `json:"ready"`
	Components []Component `json:"components"`
	// Configuration is the file, with the last attempt to read it again.
	Configuration string  `json:"configuration,omitempty"`
	LastReload    *Reload `json:"last_reload,omitempty"`
}

// Policy is one policy in force.
type Policy struct {
	Name   string `json:"name"`
	File   string `json:"file,omitempty"`
	Source string `json:"source"`
	// Place is the node that works for it, or any.
	Place  string `json:"place"`
	Paused *Pause `json:"paused,omitempty"`
	// Problems of its source.
	Problems []string `json:"problems,omitempty"`
}

// Pause is a policy's being held.
type Pause struct {
	By     string    `json:"by,omitempty"`
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until,omitzero"`
}

// Assignment is one certificate of a policy.
type Assignment struct {
	Policy      string    `json:"policy"`
	Certificate string    `json:"certificate"`
	State       string    `json:"state"`
	Since       time.Time `json:"since,omitzero"`
	Reason      string    `json:"reason,omitempty"`
	// Wanted is the bundle in force; nil where there is none.
	Wanted  *Bundle  `json:"wanted,omitempty"`
	Targets []Target `json:"targets"`
	// Verified is when handshakes, or the targets' word where there are none, last proved the
	// wanted bundle.
	VerifiedAt time.Time `json:"verified_at,omitzero"`
	Probes     []Probe   `json:"probes,omitempty"`
	// NextLook is when it is looked at again by itself.
	NextLook time.Time `json:"next_look,omitzero"`
	// RenewalDue is when an issuing policy makes the next one.
	RenewalDue time.Time `json:"renewal_due,omitzero"`
	// Answered is the newest wish, over the socket or NATS, that was looked into.
	Answered time.Time `json:"answered,omitzero"`
	// Next and Blocked are what comes next and who keeps it from going on, as far as that can
	// be told without a look at anything. Only the read API has them.
	Next    *Next  `json:"next,omitempty"`
	Blocked string `json:"blocked,omitempty"`
	// Chain are the intermediates of the wanted bundle, its issuer first: of one assignment that
	// is asked for alone, where its source is a directory.
	Chain []Intermediate `json:"chain,omitempty"`
}

// Intermediate is a certificate of the chain.
type Intermediate struct {
	Subject     string    `json:"subject,omitempty"`
	Issuer      string    `json:"issuer,omitempty"`
	Fingerprint string    `json:"fingerprint_sha256"`
	NotAfter    time.Time `json:"not_after"`
}

// Bundle is one version of a certificate.
type Bundle struct {
	Fingerprint  string    `json:"fingerprint_sha256"`
	SerialNumber string    `json:"serial_number,omitempty"`
	Names        []string  `json:"names,omitempty"`
	Issuer       string    `json:"issuer,omitempty"`
	KeyAlgorithm string    `json:"key_algorithm,omitempty"`
	NotBefore    time.Time `json:"not_before,omitzero"`
	NotAfter     time.Time `json:"not_after,omitzero"`
}

// Target is a place that must serve the bundle.
type Target struct {
	Name      string   `json:"name"`
	Kind      string   `json:"kind"`
	Endpoints []string `json:"endpoints,omitempty"`
	// Serves is what it was last seen to serve; empty where that is not known or not one.
	Serves   string    `json:"serves_sha256,omitempty"`
	NotAfter time.Time `json:"serves_not_after,omitzero"`
	// Current says that this is the wanted bundle.
	Current     bool      `json:"current"`
	Drift       string    `json:"drift,omitempty"`
	Superseded  int       `json:"superseded,omitempty"`
	Failures    int       `json:"failures,omitempty"`
	Failure     string    `json:"failure,omitempty"`
	RetryAt     time.Time `json:"retry_at,omitzero"`
	LastSuccess time.Time `json:"last_success,omitzero"`
}

// Probe is one TLS handshake.
type Probe struct {
	Endpoint    string `json:"endpoint"`
	Address     string `json:"address"`
	Fingerprint string `json:"fingerprint_sha256,omitempty"`
	Current     bool   `json:"current"`
	Error       string `json:"error,omitempty"`
}

// Step is one step of a plan.
type Step struct {
	Kind        string    `json:"step"`
	Target      string    `json:"target,omitempty"`
	Fingerprint string    `json:"fingerprint_sha256,omitempty"`
	Handle      string    `json:"handle,omitempty"`
	Endpoints   []string  `json:"endpoints,omitempty"`
	Until       time.Time `json:"until,omitzero"`
	Cause       string    `json:"cause,omitempty"`
	Reason      string    `json:"reason,omitempty"`
}

// Plan is what would be done now.
type Plan struct {
	Assignments []PlannedAssignment `json:"assignments"`
	Changes     Radius              `json:"changes"`
	Quotas      []Quota             `json:"quotas,omitempty"`
	// Braked is how many assignments would wait for a confirmation.
	Braked int `json:"braked"`
	// Notes say what the plan could not know.
	Notes []string `json:"notes,omitempty"`
}

// PlannedAssignment is an assignment with its plan.
type PlannedAssignment struct {
	Policy      string  `json:"policy"`
	Certificate string  `json:"certificate"`
	State       string  `json:"state"`
	Reason      string  `json:"reason,omitempty"`
	Wanted      *Bundle `json:"wanted,omitempty"`
	Steps       []Step  `json:"steps"`
	Changes     bool    `json:"changes"`
	// Error is why there is no plan.
	Error string `json:"error,omitempty"`
}

// Radius is how far the changes of a plan reach.
type Radius struct {
	Assignments int `json:"assignments"`
	// Endpoints by kind of target: hosts of a firewall, domains of a gateway, directories.
	Endpoints map[string]int `json:"endpoints"`
	// ClientVerification are the gateway domains at which clients are asked for certificates.
	ClientVerification []string `json:"client_verification,omitempty"`
	Issued             int      `json:"issued"`
	Removed            int      `json:"removed"`
}

// Quota is what an account may hold, before and after.
type Quota struct {
	Cloud   string `json:"cloud"`
	Service string `json:"service"`
	Used    int    `json:"used"`
	After   int    `json:"after"`
	Limit   int    `json:"limit"`
}

// Explanation is an assignment's story.
type Explanation struct {
	Assignment Assignment `json:"assignment"`
	Policy     Policy     `json:"policy"`
	Steps      []Step     `json:"steps"`
	// Next is what happens next and when.
	Next Next `json:"next"`
	// Blocked is who keeps it from going on, in words; empty: nobody.
	Blocked string `json:"blocked,omitempty"`
	// History are the last events, newest first.
	History []Event  `json:"history,omitempty"`
	Notes   []string `json:"notes,omitempty"`
}

// Next is an action to come.
type Next struct {
	What string    `json:"what"`
	At   time.Time `json:"at,omitzero"`
	Why  string    `json:"why,omitempty"`
}

// Event is one entry of the history.
type Event struct {
	Time        time.Time `json:"time"`
	Kind        string    `json:"event"`
	Policy      string    `json:"policy"`
	Certificate string    `json:"certificate,omitempty"`
	Target      string    `json:"target,omitempty"`
	Fingerprint string    `json:"fingerprint_sha256,omitempty"`
	Previous    string    `json:"previous_sha256,omitempty"`
	Trigger     string    `json:"trigger,omitempty"`
	By          string    `json:"by,omitempty"`
	Reason      string    `json:"reason,omitempty"`
	// Outcome is ok, held, refused, failed or found.
	Outcome string `json:"outcome,omitempty"`
	// Step was made, or failed; Steps were decided on.
	Step  string   `json:"step,omitempty"`
	Steps []string `json:"steps,omitempty"`
	// RequestIDs are what services called the requests by which something was changed.
	RequestIDs []string `json:"request_ids,omitempty"`
	// PolicySHA256 is the hash of the policy's file as it was in force.
	PolicySHA256 string `json:"policy_sha256,omitempty"`
	ID           string `json:"id,omitempty"`
	// Sequence is its place in the whole history; what is newer has a higher one.
	Sequence uint64 `json:"sequence,omitempty"`
	// Chain binds it to the event before it of the same certificate or policy.
	Chain *Link `json:"chain,omitempty"`
}

// Link is an event's place in the history of its subject.
type Link struct {
	Sequence   uint64    `json:"sequence"`
	Previous   string    `json:"previous,omitempty"`
	PreviousAt time.Time `json:"previous_at,omitzero"`
	Hash       string    `json:"hash"`
	Node       string    `json:"node,omitempty"`
}

// Verification is whether the history is whole and as it was written.
type Verification struct {
	OK     bool `json:"ok"`
	Events int  `json:"events"`
	// KeptSince is since when nothing may be missing.
	KeptSince time.Time `json:"kept_since"`
	Chains    []Chain   `json:"chains"`
	Findings  []Finding `json:"findings"`
}

// Chain is the history of one certificate, or of the pauses of a policy.
type Chain struct {
	Subject string `json:"subject"`
	Events  int    `json:"events"`
	First   uint64 `json:"first"`
	Last    uint64 `json:"last"`
	// Hash is the last event's: kept elsewhere, it proves later that nothing was changed.
	Hash string `json:"hash"`
	// Journal says that the journal knows the history too: its end is then certain.
	Journal bool        `json:"journal"`
	Begun   []time.Time `json:"begun_anew,omitempty"`
}

// Finding is something that does not fit.
type Finding struct {
	Subject string    `json:"subject"`
	Time    time.Time `json:"time,omitzero"`
	Problem string    `json:"problem"`
}

// Progress is one step as it begins, or, with an error, as it fails. The first of a stream
// names none: it says that the stream has begun.
type Progress struct {
	Time        time.Time `json:"time"`
	Policy      string    `json:"policy,omitempty"`
	Certificate string    `json:"certificate,omitempty"`
	Step        string    `json:"step,omitempty"`
	Target      string    `json:"target,omitempty"`
	Fingerprint string    `json:"fingerprint_sha256,omitempty"`
	Endpoints   []string  `json:"endpoints,omitempty"`
	Reason      string    `json:"reason,omitempty"`
	Error       string    `json:"error,omitempty"`
}

// History is what happened, newest first.
type History struct {
	Events []Event `json:"events"`
	// NextBefore is what to ask for the page after this one with; absent: there is none. A page
	// may be shorter than its limit, or empty, and have one after it all the same.
	NextBefore uint64 `json:"next_before,omitempty"`
}

// Overview is what the read API says of the whole.
type Overview struct {
	Daemon Daemon `json:"daemon"`
	// Policies and Assignments are how many there are.
	Policies    int `json:"policies"`
	Assignments int `json:"assignments"`
	// States says how many assignments are in which state; states that none is in are left out.
	States map[string]int `json:"states"`
}

// Assignments is a page of assignments.
type Assignments struct {
	Assignments []Assignment `json:"assignments"`
	// Total is how many match, on all pages.
	Total int `json:"total"`
	// NextCursor is what to ask for the page after this one with; absent: there is none.
	NextCursor string `json:"next_cursor,omitempty"`
}

// Policies are all policies in force.
type Policies struct {
	Policies []PolicyStates `json:"policies"`
}

// PolicyStates is a policy with the states of its assignments.
type PolicyStates struct {
	Policy
	States map[string]int `json:"states"`
}

// Wish asks for a rotation.
type Wish struct {
	Policy      string `json:"policy"`
	Certificate string `json:"certificate,omitempty"`
	Force       bool   `json:"force,omitempty"`
	Confirm     bool   `json:"confirm,omitempty"`
	Reason      string `json:"reason,omitempty"`
}

// Accepted says what was asked for.
type Accepted struct {
	Asked       time.Time `json:"asked"`
	Assignments []string  `json:"assignments"`
}

// PauseWish asks for a policy to be held, or, with only its name, to be released.
type PauseWish struct {
	Policy string    `json:"policy"`
	Reason string    `json:"reason,omitempty"`
	Until  time.Time `json:"until,omitzero"`
}

// LogLevel asks for a level of the log, and tells what it is and was.
type LogLevel struct {
	Level  string `json:"level"`
	Before string `json:"before,omitempty"`
}

// Reload is the outcome of reading the configuration again.
type Reload struct {
	OK    bool      `json:"ok"`
	At    time.Time `json:"at"`
	Cause string    `json:"cause"`
	// The policies that differ.
	Added   []string `json:"added,omitempty"`
	Changed []string `json:"changed,omitempty"`
	Removed []string `json:"removed,omitempty"`
	// Problems are why everything stays as it is.
	Problems []Problem `json:"problems,omitempty"`
	Warnings []string  `json:"warnings,omitempty"`
}

// Problem is one mistake in a file.
type Problem struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Message string `json:"message"`
}
