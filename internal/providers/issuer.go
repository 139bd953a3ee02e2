package providers

import (
	"context"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
)

// Issuer makes the certificates of a policy whose source is not a directory. One Issuer
// serves one policy: what is asked for is part of it.
//
// All verbs follow the rules of Target: idempotent, safe for concurrent use, failures as
// *Error, and an UnknownOutcome means that the caller looks before it does anything else.
type Issuer interface {
	// Asks is a digest of what the policy asks for: where it changes, what was issued
	// before is not what is wanted any more. It is not empty.
	Asks() string

	// Observe reads what there is. It changes nothing.
	Observe(ctx context.Context, r IssueRequest) (Issuance, error)

	// Issue makes a certificate, and returns when it can be collected. What an earlier try
	// since r.Since left behind is found and adopted instead: a lost answer does not lead to
	// a second certificate. A certificate that is not what was asked for is returned with
	// its Problem set. An issuer that cannot make it refuses before it is asked, with kind
	// Invalid and the reason, where that can be known.
	Issue(ctx context.Context, r IssueRequest) (Issued, error)

	// Collect returns the bundle: leaf, chain, and the key where there is one to be had.
	// Kind NotFound means that it cannot be had (any more): the certificate is gone, was
	// revoked, or its key is not here.
	Collect(ctx context.Context, r IssueRequest, h Handle) (*certs.Bundle, error)

	// Revoke ends a certificate of the Owner before its time, as superseded. One that is
	// gone or revoked already is a success.
	Revoke(ctx context.Context, r IssueRequest, h Handle) error

	// Release forgets what this host keeps (private keys) of every certificate of the Owner
	// but the given ones.
	Release(ctx context.Context, r IssueRequest, keep []Handle) error
}

// IssueRequest says for whom a verb of an Issuer is called.
type IssueRequest struct {
	Owner Owner
	// Known are the certificates that the journal remembers, newest first.
	Known []Handle
	// Since is when the first try was made of what Issue is to make now.
	Since time.Time
}

// Issuance is what an Issuer has for an Owner at one moment.
type Issuance struct {
	// Certificates are those Known, and those that rotatord made for the Owner as far as the
	// issuer can tell, newest first.
	Certificates []Issued
	// Authority describes who signs; nil where nobody is known.
	Authority *Authority
}

// Issued is one certificate that an Issuer has.
type Issued struct {
	Handle Handle
	// Info is zero where the certificate was Known and the issuer tells no more of it now.
	Info certs.Info
	// Chain is how many intermediates come with it.
	Chain int
	// PEM is the public leaf, where others are to be told of it.
	PEM []byte
	// Created is when the issuer says that it was made; zero where it does not tell.
	Created time.Time
	// Owned says that rotatord made it for the Owner. Nothing else is ever revoked or
	// deleted.
	Owned bool
	// Adopted says that Issue found it where an earlier try had left it: what is wrong with it
	// need not be wrong with the next one.
	Adopted bool
	// Problem, if not empty, is why it cannot be put in force, in words for an operator:
	// revoked, gone, not what was asked for, its key not here.
	Problem string
}

// Authority is the state of a certificate authority.
type Authority struct {
	Name   string `json:"name,omitempty"`
	Status string `json:"status,omitempty"`
	// Problem, if not empty, is why it issues nothing now.
	Problem  string    `json:"problem,omitempty"`
	NotAfter time.Time `json:"not_after,omitzero"`
}
