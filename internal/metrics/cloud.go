package metrics

import (
	"strconv"
	"time"
)

// Cloud is the meter of one cloud's client. It has the methods that the client wants.
type Cloud struct {
	m    *Metrics
	name string
}

// Cloud returns the meter for the cloud with this name.
func (m *Metrics) Cloud(name string) *Cloud { return &Cloud{m, name} }

// Request counts one HTTP exchange.
func (c *Cloud) Request(service, operation string, status int, reason string, d time.Duration) {
	c.m.apiRequests.WithLabelValues(c.name, service, operation, strconv.Itoa(status)).Inc()
	c.m.apiDuration.WithLabelValues(c.name, service, operation).Observe(d.Seconds())
	if reason != "" {
		c.m.apiFailures.WithLabelValues(c.name, service, operation, reason).Inc()
	}
}

// Wait counts time behind our own limits.
func (c *Cloud) Wait(service string, d time.Duration) {
	c.m.apiWait.WithLabelValues(c.name, service).Add(d.Seconds())
}

// CredentialsExpiry notes when the credentials in use end.
func (c *Cloud) CredentialsExpiry(t time.Time) { c.m.apiExpiry.WithLabelValues(c.name).Set(seconds(t)) }

// Circuit notes whether calls to a service are stopped because it is down.
func (c *Cloud) Circuit(service string, open bool) {
	c.m.apiCircuit.WithLabelValues(c.name, service).Set(truth(open))
}

// Quota notes how many objects of a service the account holds and may hold.
func (c *Cloud) Quota(service string, used, limit int) {
	c.m.apiQuotaUsed.WithLabelValues(c.name, service).Set(float64(used))
	c.m.apiQuotaLimit.WithLabelValues(c.name, service).Set(float64(limit))
}

// ClockSkew notes how far this host's clock is ahead of the cloud's.
func (c *Cloud) ClockSkew(d time.Duration) { c.m.clockSkew.WithLabelValues(c.name).Set(d.Seconds()) }
