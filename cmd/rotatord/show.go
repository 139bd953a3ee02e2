package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/rotatord/rotatord/internal/admin"
)

// This file writes answers as text for people.

// manyRows is how many certificates are shown one by one where most of them are converged.
const manyRows = 40

// printStatus shows the worst first. With many certificates, those that need no attention are
// summed up by policy, unless all are asked for.
func printStatus(w io.Writer, s admin.Status, all bool, now time.Time) error {
	if s.Onboarding != nil {
		fmt.Fprintf(w, "%s\n\n", onboardingText(s.Onboarding, now))
	}
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "POLICY\tCERTIFICATE\tSTATE\tFOR\tEXPIRES\tTARGETS\tNEXT LOOK")
	assignments, urgency := slices.Clone(s.Assignments), admin.Urgency()
	slices.SortStableFunc(assignments, func(a, b admin.Assignment) int {
		return cmp.Compare(slices.Index(urgency, a.State), slices.Index(urgency, b.State))
	})
	var quiet []admin.Assignment
	if first := slices.IndexFunc(assignments, func(a admin.Assignment) bool { return a.State == "converged" }); len(assignments) > manyRows && !all && first >= 0 {
		assignments, quiet = assignments[:first], assignments[first:]
	}
	for _, a := range assignments {
		expires := "-"
		if a.Wanted != nil {
			expires = until(a.Wanted.NotAfter, now)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", a.Policy, a.Certificate, a.State, since(a.Since, now), expires, targetsText(a.Targets), until(a.NextLook, now))
	}
	for _, row := range quietRows(quiet, now) {
		fmt.Fprintln(t, row)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(quiet) > 0 {
		fmt.Fprintln(w, "(--all shows the converged ones one by one)")
	}
	for _, a := range assignments {
		if a.Reason != "" && a.State != "converged" {
			fmt.Fprintf(w, "\n%s/%s: %s", a.Policy, a.Certificate, a.Reason)
		}
		for _, target := range a.Targets {
			if target.Failure != "" && target.Failure != a.Reason {
				fmt.Fprintf(w, "\n%s/%s, target %s: %s", a.Policy, a.Certificate, target.Name, target.Failure)
			}
		}
	}
	for _, p := range s.Policies {
		if p.Paused != nil {
			fmt.Fprintf(w, "\npolicy %s is %s", p.Name, pauseText(p.Paused))
		}
		for _, problem := range p.Problems {
			fmt.Fprintf(w, "\npolicy %s: %s", p.Name, problem)
		}
	}
	fmt.Fprintf(w, "\n%s\n", summary(s))
	for _, c := range s.Daemon.Components {
		if c.Reason != "" {
			fmt.Fprintf(w, "not ready, %s: %s\n", c.Name, c.Reason)
		}
	}
	if r := s.Daemon.LastReload; r != nil && !r.OK {
		fmt.Fprintf(w, "the last reload (%s, %s) was refused, the configuration of before is in force:\n", r.Cause, stamp(r.At))
		printProblems(w, r.Problems)
	}
	return nil
}

// quietRows sums converged certificates up, a row for each policy, with the one that ends
// first.
func quietRows(quiet []admin.Assignment, now time.Time) (rows []string) {
	type sum struct {
		n     int
		first *admin.Assignment
	}
	sums := map[string]*sum{}
	for i, a := range quiet {
		s := sums[a.Policy]
		if s == nil {
			s = &sum{}
			sums[a.Policy] = s
		}
		s.n++
		if a.Wanted != nil && (s.first == nil || a.Wanted.NotAfter.Before(s.first.Wanted.NotAfter)) {
			s.first = &quiet[i]
		}
	}
	for _, policy := range slices.Sorted(maps.Keys(sums)) {
		s, expires := sums[policy], "-"
		if s.first != nil {
			expires = until(s.first.Wanted.NotAfter, now) + " (" + printable(s.first.Certificate) + ")"
		}
		rows = append(rows, fmt.Sprintf("%s\t%s\tconverged\t-\t%s\t-\t-", policy, counted(s.n, "certificate", "certificates"), expires))
	}
	return rows
}

// summary counts the states on one line.
func summary(s admin.Status) string {
	count := map[string]int{}
	for _, a := range s.Assignments {
		count[a.State]++
	}
	var parts []string
	for _, state := range admin.Urgency() {
		if count[state] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", count[state], state))
		}
	}
	if len(parts) == 0 {
		parts = []string{"nothing to look after yet"}
	}
	return fmt.Sprintf("%s, %s: %s", counted(len(s.Policies), "policy", "policies"), counted(len(s.Assignments), "certificate", "certificates"), strings.Join(parts, ", "))
}

// targetsText says of each target whether it serves what is wanted.
func targetsText(targets []admin.Target) string {
	var parts []string
	for _, t := range targets {
		mark := "-"
		switch {
		case t.Drift != "":
			mark = "drift"
		case t.Failures > 0:
			mark = "failing"
		case t.Current:
			mark = "ok"
		}
		parts = append(parts, t.Name+" "+mark)
	}
	if len(parts) == 0 {
		return "-"
	}
	return strings.Join(parts, ", ")
}

func printPlan(w io.Writer, p admin.Plan, now time.Time) error {
	idle := 0
	for _, a := range p.Assignments {
		if !a.Changes && a.State == "converged" && a.Error == "" {
			idle++
			continue
		}
		fmt.Fprintf(w, "%s/%s: %s%s\n", a.Policy, a.Certificate, a.State, bundleText(a.Wanted, now))
		if a.Error != "" {
			fmt.Fprintf(w, "  cannot be planned: %s\n", a.Error)
		}
		if err := printSteps(w, a.Steps, now); err != nil {
			return err
		}
		if len(a.Steps) == 0 && a.Reason != "" {
			fmt.Fprintf(w, "  %s\n", a.Reason)
		}
		fmt.Fprintln(w)
	}
	if idle > 0 {
		fmt.Fprintf(w, "%s converged, nothing to do.\n", counted(idle, "certificate is", "certificates are"))
	}
	printRadius(w, p)
	for _, note := range p.Notes {
		fmt.Fprintf(w, "Note: %s.\n", note)
	}
	return nil
}

func printRadius(w io.Writer, p admin.Plan) {
	c := p.Changes
	if c.Assignments == 0 {
		fmt.Fprintln(w, "No changes.")
	} else {
		reach := []string{counted(c.Assignments, "certificate", "certificates")}
		for _, kind := range slices.Sorted(maps.Keys(c.Endpoints)) {
			reach = append(reach, endpointsText(kind, c.Endpoints[kind]))
		}
		if c.Issued > 0 {
			reach = append(reach, fmt.Sprintf("%d to be issued", c.Issued))
		}
		if c.Removed > 0 {
			reach = append(reach, fmt.Sprintf("%d to be removed", c.Removed))
		}
		fmt.Fprintf(w, "Changes: %s.\n", strings.Join(reach, ", "))
	}
	if len(c.ClientVerification) > 0 {
		fmt.Fprintf(w, "Clients are asked for certificates at: %s.\n", listed(c.ClientVerification))
	}
	for _, q := range p.Quotas {
		fmt.Fprintf(w, "Quota of %s at cloud %s: %d of %d, %d afterwards.\n", q.Service, q.Cloud, q.Used, q.Limit, q.After)
	}
	if p.Braked > 0 {
		fmt.Fprintf(w, "Brake: %s would wait for a confirmation (rotatord rotate POLICY --confirm).\n", counted(p.Braked, "certificate", "certificates"))
	}
}

func endpointsText(kind string, n int) string {
	switch kind {
	case "waf":
		return counted(n, "firewall host", "firewall hosts")
	case "apig":
		return counted(n, "gateway domain", "gateway domains")
	case "file":
		return counted(n, "directory", "directories")
	}
	return fmt.Sprintf("%d at %s", n, kind)
}

// news leaves out the next regular comparison, which always comes.
func news(steps []admin.Step) []admin.Step {
	return slices.DeleteFunc(slices.Clone(steps), func(s admin.Step) bool { return s.Cause == "drift" })
}

func printSteps(w io.Writer, steps []admin.Step, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, s := range news(steps) {
		text := s.Reason
		if text == "" {
			text = listed(s.Endpoints)
			if len(s.Endpoints) == 0 {
				text = ""
			}
		}
		when := ""
		if !s.Until.IsZero() {
			when = until(s.Until, now)
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\n", s.Kind, dash(s.Target), dash(short(s.Fingerprint)), dash(when), text)
	}
	return t.Flush()
}

func printExplanation(w io.Writer, e admin.Explanation, now time.Time) error {
	a := e.Assignment
	fmt.Fprintf(w, "%s/%s is %s", a.Policy, a.Certificate, a.State)
	if !a.Since.IsZero() {
		fmt.Fprintf(w, ", for %s", since(a.Since, now))
	}
	fmt.Fprintln(w)
	if a.Reason != "" {
		fmt.Fprintf(w, "  because   %s\n", a.Reason)
	}
	if e.Policy.Paused != nil {
		fmt.Fprintf(w, "  policy    %s\n", pauseText(e.Policy.Paused))
	}
	if e.Blocked != "" {
		fmt.Fprintf(w, "  held by   %s\n", e.Blocked)
	}
	fmt.Fprintf(w, "  next      %s", e.Next.What)
	if e.Next.At.After(now) {
		fmt.Fprintf(w, ", %s", until(e.Next.At, now))
	}
	if e.Next.Why != "" && e.Next.Why != a.Reason {
		fmt.Fprintf(w, " (%s)", e.Next.Why)
	}
	fmt.Fprintln(w)
	printWanted(w, a, now)
	if steps := news(e.Steps); len(steps) > 0 {
		fmt.Fprintln(w, "\nSteps")
		if err := printSteps(w, steps, now); err != nil {
			return err
		}
	}
	if len(e.History) > 0 {
		fmt.Fprintln(w, "\nLately")
		if err := printHistory(w, admin.History{Events: e.History}); err != nil {
			return err
		}
	}
	for _, note := range e.Notes {
		fmt.Fprintf(w, "\nNote: %s.\n", note)
	}
	return nil
}

// printWanted shows the bundle in force and where it is served.
func printWanted(w io.Writer, a admin.Assignment, now time.Time) {
	if b := a.Wanted; b != nil {
		fmt.Fprintf(w, "  wanted    %s, %s, issued by %s, expires %s (%s)\n", short(b.Fingerprint), b.KeyAlgorithm, cmp.Or(b.Issuer, "somebody without a name"), until(b.NotAfter, now), stamp(b.NotAfter))
		fmt.Fprintf(w, "            %s\n", listed(b.Names))
	}
	if !a.RenewalDue.IsZero() {
		fmt.Fprintf(w, "  renewal   %s (%s)\n", until(a.RenewalDue, now), stamp(a.RenewalDue))
	}
	for _, t := range a.Targets {
		what := "is not known to serve anything yet"
		switch {
		case t.Current:
			what = "serves it"
		case t.Serves != "":
			what = "serves " + short(t.Serves) + ", which is not what is wanted"
		}
		if t.Drift != "" {
			what += ", drifted (" + t.Drift + ")"
		}
		if len(t.Endpoints) > 0 {
			what += " at " + listed(t.Endpoints)
		}
		if t.Superseded > 0 {
			what += fmt.Sprintf("; %d superseded", t.Superseded)
		}
		fmt.Fprintf(w, "  target    %s (%s) %s\n", t.Name, t.Kind, what)
		if t.Failure != "" {
			fmt.Fprintf(w, "            failed %s: %s; next try %s\n", counted(t.Failures, "time", "times"), t.Failure, until(t.RetryAt, now))
		}
	}
	for _, p := range a.Probes {
		what := "shows " + short(p.Fingerprint)
		switch {
		case p.Error != "":
			what = p.Error
		case p.Current:
			what = "shows it"
		}
		fmt.Fprintf(w, "  proof     %s at %s %s\n", p.Endpoint, p.Address, what)
	}
}

func printReload(w io.Writer, r admin.Reload) error {
	if !r.OK {
		fmt.Fprintln(w, "refused; the configuration of before stays in force:")
		printProblems(w, r.Problems)
	} else {
		fmt.Fprintln(w, "reloaded")
	}
	for _, change := range []struct {
		what     string
		policies []string
	}{{"added", r.Added}, {"changed", r.Changed}, {"removed", r.Removed}} {
		if len(change.policies) > 0 {
			fmt.Fprintf(w, "%s: %s\n", change.what, strings.Join(change.policies, ", "))
		}
	}
	if r.OK && len(r.Added)+len(r.Changed)+len(r.Removed) == 0 {
		fmt.Fprintln(w, "no policy differs")
	}
	for _, warning := range r.Warnings {
		fmt.Fprintf(w, "warning: %s\n", warning)
	}
	return nil
}

func printProblems(w io.Writer, problems []admin.Problem) {
	for _, p := range problems {
		if p.File != "" {
			fmt.Fprintf(w, "%s:%d:%d: ", shortPath(p.File), p.Line, p.Column)
		}
		fmt.Fprintln(w, p.Message)
	}
}

func bundleText(b *admin.Bundle, now time.Time) string {
	if b == nil {
		return ""
	}
	return fmt.Sprintf(", wants %s, expires %s", short(b.Fingerprint), until(b.NotAfter, now))
}

func pauseText(p *admin.Pause) string {
	text := "paused since " + stamp(p.Since)
	if p.By != "" {
		text += " by " + p.By
	}
	if !p.Until.IsZero() {
		text += ", until " + stamp(p.Until)
	}
	if p.Reason != "" {
		text += ": " + p.Reason
	}
	return text
}

// stamp is an instant as logs and reasons have it.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func short(fingerprint string) string { return fingerprint[:min(len(fingerprint), 12)] }

func dash(s string) string { return cmp.Or(s, "-") }

// printable is text without what a terminal would take for a command.
func printable(s string) string { return admin.Printable(s) }

// printableLines is printable text of several lines.
func printableLines(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

// harmless makes all text of an answer printable: names, reasons and errors are the words of
// certificates, of services and of whoever may publish a trigger.
func harmless(answer any) { makePrintable(reflect.ValueOf(answer)) }

func makePrintable(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			makePrintable(v.Elem())
		}
	case reflect.Struct:
		for _, field := range v.Fields() {
			if field.CanSet() { // nothing of a time's
				makePrintable(field)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			makePrintable(v.Index(i))
		}
	case reflect.String:
		v.SetString(printable(v.String()))
	default: // numbers, times, and maps whose keys are ours
	}
}

// until is a time to come, or past, as a span.
func until(t, now time.Time) string {
	switch d := t.Sub(now); {
	case t.IsZero():
		return "-"
	case d < 0:
		return span(-d) + " ago"
	default:
		return "in " + span(d)
	}
}

func since(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return span(now.Sub(t))
}

// span is a duration in one or two units that people think in.
func span(d time.Duration) string { return admin.Span(d) }
