package huaweicloud

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/rotatord/rotatord/internal/providers"
)

// Meter is told what the client does. Its methods must not block and must be
// safe for concurrent use. service and operation come from closed sets.
type Meter interface {
	// Request reports one HTTP exchange: its status, 0 if no answer came, the
	// reason it failed for (one of Reasons, "" for success) and how long it took.
	Request(service, operation string, status int, reason string, d time.Duration)
	// Wait reports time spent behind our own limits.
	Wait(service string, d time.Duration)
	// CredentialsExpiry reports when the temporary credentials in use end.
	CredentialsExpiry(t time.Time)
	// ClockSkew reports how far this host's clock is ahead of the service's. The
	// service tells whole seconds.
	ClockSkew(d time.Duration)
	// Circuit reports that calls to a service are stopped because it is down, or that
	// they are not any more. It is not called before the first stop.
	Circuit(service string, open bool)
	// Quota reports how many objects of a service the account holds and may hold.
	Quota(service string, used, limit int)
}

type noMeter struct{}

func (noMeter) Request(string, string, int, string, time.Duration) {}
func (noMeter) Wait(string, time.Duration)                         {}
func (noMeter) CredentialsExpiry(time.Time)                        {}
func (noMeter) ClockSkew(time.Duration)                            {}
func (noMeter) Circuit(string, bool)                               {}
func (noMeter) Quota(string, int, int)                             {}

// The reasons, a closed set of metric labels.
const (
	reasonAuth      = "auth"
	reasonDenied    = "denied"
	reasonThrottled = "throttled"
	reasonQuota     = "quota"
	reasonConflict  = "conflict"
	reasonInUse     = "in_use"
	reasonNotFound  = "not_found"
	reasonInvalid   = "invalid"
	reasonTimeout   = "timeout"
	reasonNetwork   = "network"
	reasonServer    = "server"
)

// Reasons returns every reason that a Meter may be given for a failure.
func Reasons() []string {
	return []string{
		reasonAuth, reasonDenied, reasonThrottled, reasonQuota, reasonConflict, reasonInUse,
		reasonNotFound, reasonInvalid, reasonTimeout, reasonNetwork, reasonServer,
	}
}

// Operations returns the operations that the client calls on its own account;
// they are IAM's. Adapters have their own Operations.
func Operations() []string {
	return []string{opAssumeAgency, opCreateToken, opListDomains, opListProjects, opMetadataKeys, opMetadataSession}
}

const (
	opAssumeAgency = "assume_agency"
	opCreateToken  = "create_token"
	opListDomains  = "list_domains"
	opListProjects = "list_projects"
	// Those of an ECS's metadata service count as IAM's, whose keys it hands out.
	opMetadataKeys    = "metadata_keys"
	opMetadataSession = "metadata_session"
)

// reasonOf is the label for a failed exchange; status 0 means that no answer came.
func reasonOf(err error, status int) string {
	switch providers.KindOf(err) {
	case providers.KindUnauthenticated:
		return reasonAuth
	case providers.KindDenied:
		return reasonDenied
	case providers.KindThrottled:
		return reasonThrottled
	case providers.KindQuota:
		return reasonQuota
	case providers.KindConflict, providers.KindExists:
		return reasonConflict
	case providers.KindInUse:
		return reasonInUse
	case providers.KindNotFound:
		return reasonNotFound
	case providers.KindInvalid:
		return reasonInvalid
	case providers.KindUnknown, providers.KindUnavailable, providers.KindUnknownOutcome: // by what is known of the exchange
	}
	if isTimeout(err) {
		return reasonTimeout
	}
	if status == 0 {
		return reasonNetwork
	}
	return reasonServer
}

// isTimeout reports whether somebody gave up waiting, the caller included.
func isTimeout(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return true
	}
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}
