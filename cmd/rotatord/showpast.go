package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/rotatord/rotatord/internal/admin"
)

// This file prints what happened.

func printHistory(w io.Writer, h admin.History) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, e := range slices.Backward(h.Events) {
		detail := []string{}
		outcome := ""
		if e.Outcome != "ok" && e.Outcome != e.Kind {
			outcome = e.Outcome
		}
		for _, part := range []struct{ name, value string }{
			{"", outcome}, {"", strings.Join(e.Steps, ", ")}, {"", e.Reason}, {"trigger", e.Trigger}, {"by", e.By}, {"requests", strings.Join(e.RequestIDs, " ")},
		} {
			if part.value != "" {
				detail = append(detail, strings.TrimSpace(part.name+" "+part.value))
			}
		}
		subject := e.Policy
		if e.Certificate != "" {
			subject += "/" + e.Certificate
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", stamp(e.Time), subject, e.Kind, dash(e.Target), dash(short(e.Fingerprint)), strings.Join(detail, "; "))
	}
	return t.Flush()
}

func printVerification(w io.Writer, v admin.Verification, all bool) error {
	for _, f := range v.Findings {
		at := ""
		if !f.Time.IsZero() {
			at = stamp(f.Time) + "  "
		}
		fmt.Fprintf(w, "%s%s: %s\n", at, f.Subject, f.Problem)
	}
	if all {
		t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
		fmt.Fprintln(t, "HISTORY\tEVENTS\tFIRST\tLAST\tLAST HASH\tEND KNOWN BY")
		for _, c := range v.Chains {
			end := "-"
			if c.Journal {
				end = "journal"
			}
			fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%s\t%s\n", c.Subject, c.Events, c.First, c.Last, c.Hash, end)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	for _, c := range v.Chains {
		for _, at := range c.Begun {
			fmt.Fprintf(w, "%s: begun anew %s: its record in the journal had been lost or removed\n", c.Subject, stamp(at))
		}
	}
	verdict := "whole, and as they were written"
	if !v.OK {
		verdict = counted(len(v.Findings), "thing does", "things do") + " not fit"
	}
	_, err := fmt.Fprintf(w, "%s in %s, kept since %s: %s\n", counted(v.Events, "event", "events"), counted(len(v.Chains), "history", "histories"), stamp(v.KeptSince), verdict)
	return err
}
