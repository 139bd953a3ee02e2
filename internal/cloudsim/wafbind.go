package cloudsim

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// The two ways to give a host a certificate: reference 2.7 and 2.10.

// applyCertificate is POST …/apply-to-hosts. Everything is checked before anything is bound (doubt 13; FaultPartial
// is the other answer to that doubt).
func (s *Sim) applyCertificate(c *call) answer {
	eps, refusal, ok := s.wafQuery(c, true)
	if !ok {
		return refusal
	}
	body, refusal, ok := wafBody(c, "cloud_host_ids", "premium_host_ids")
	if !ok {
		return refusal
	}
	cert, refusal, ok := s.findCertificate(c, eps)
	if !ok {
		return refusal
	}
	hosts, refusal, ok := s.applyHosts(c, body, eps)
	if !ok {
		return refusal
	}
	if c.partial != nil {
		hosts = hosts[:len(hosts)/2]
	}
	done := answer{status: 200, objects: []string{cert.id}}
	for _, host := range hosts {
		changed := s.waf.bind(host, cert, c.now)
		done.effect = done.effect || changed
		done.objects = append(done.objects, host.id)
	}
	if c.partial != nil && c.partial.Status >= 400 {
		failed := c.faultAnswer(*c.partial)
		failed.effect, failed.objects = done.effect, done.objects
		return failed
	}
	done.body = s.certificateHead(cert)
	delete(done.body, "cert_type")
	done.body["bind_host"] = bindHosts(s.waf.boundHosts(cert))
	return done
}

// applyHosts reads both lists. Each id must be of a host of its kind that speaks HTTPS [TF docs
// waf_domain_associate_certificate].
func (s *Sim) applyHosts(c *call, body members, eps string) ([]*wafHost, answer, bool) {
	var hosts []*wafHost
	for _, kind := range []struct {
		member string
		which  func(*wafHost) bool
	}{{"cloud_host_ids", isCloud}, {"premium_host_ids", isDedicated}} {
		ids, err := body.texts(kind.member)
		if err != nil {
			return nil, refuse(400, codeBody, err.Error()), false
		}
		for _, id := range ids {
			if !isID(id) {
				return nil, refuse(400, codeIDForm, "A host id is invalid"), false
			}
			host := s.hostByID(id, eps, kind.which)
			if host == nil {
				return nil, s.wafMissing(c), false
			}
			if !host.takesCertificate() {
				return nil, refuse(400, codeHost, "The client protocol of the host is not HTTPS"), false
			}
			if !slices.Contains(hosts, host) {
				hosts = append(hosts, host)
			}
		}
	}
	if len(hosts) == 0 {
		return nil, refuse(400, codeBody, "cloud_host_ids or premium_host_ids is needed"), false
	}
	return hosts, answer{}, true
}

// hostChange is the body of PATCH and PUT. "timestamp" is not among the members: the SDK's type for it cannot hold
// milliseconds (reference 2.10), so nobody can send a right one.
type hostChange struct {
	cert        *wafCertificate
	origins     []Origin
	withServer  bool
	tls, cipher string
	proxy       *bool
}

func (s *Sim) updateCloudHost(c *call) answer   { return s.updateHost(c, "instance_id", isCloud) }
func (s *Sim) updatePremiumHost(c *call) answer { return s.updateHost(c, "host_id", isDedicated) }

func (s *Sim) updateHost(c *call, param string, which func(*wafHost) bool) answer {
	eps, refusal, ok := s.wafQuery(c, true)
	if !ok {
		return refusal
	}
	body, refusal, ok := wafBody(c, "certificateid", "certificatename", "server", "tls", "cipher", "proxy")
	if !ok {
		return refusal
	}
	host, refusal, ok := s.findHost(c, param, eps, which)
	if !ok {
		return refusal
	}
	change, refusal, ok := s.readHostChange(c, body, host)
	if !ok {
		return refusal
	}
	effect, ignored := s.changeHost(c, host, change)
	details := s.hostDetails(host)
	objects := []string{host.id}
	if change.cert != nil {
		objects = append(objects, change.cert.id)
		if ignored {
			// The answer repeats the request; only Show tells the truth. Nothing in the documents excludes it.
			details["certificateid"], details["certificatename"] = change.cert.id, change.cert.name
		}
	}
	return answer{status: 200, body: details, effect: effect, objects: objects}
}

// changeHost carries a change out. ignored says that the certificate was left alone (doubt 14: TF says that a cloud
// host takes it only together with server).
func (s *Sim) changeHost(c *call, host *wafHost, change hostChange) (effect, ignored bool) {
	if change.cert != nil {
		ignored = s.cfg.EffectNeedsServer && !host.dedicated && !change.withServer
		if !ignored {
			effect = s.waf.bind(host, change.cert, c.now)
		}
	}
	if change.withServer { // the whole list is replaced (reference 2.10)
		effect = effect || !slices.Equal(host.origins, change.origins)
		host.origins = change.origins
	}
	for _, text := range []struct{ have, want *string }{{&host.tls, &change.tls}, {&host.cipher, &change.cipher}} {
		if *text.want != "" {
			effect = effect || *text.have != *text.want
			*text.have = *text.want
		}
	}
	if change.proxy != nil {
		effect = effect || host.proxy != *change.proxy
		host.proxy = *change.proxy
	}
	return effect, ignored
}

func (s *Sim) readHostChange(c *call, body members, host *wafHost) (hostChange, answer, bool) {
	var change hostChange
	bad := func(err error) (hostChange, answer, bool) { return change, refuse(400, codeBody, err.Error()), false }
	var refusal answer
	var ok bool
	if change.cert, refusal, ok = s.readNamedCertificate(c, body, host); !ok {
		return change, refusal, false
	}
	var err error
	if change.tls, _, err = body.text("tls"); err != nil {
		return bad(err)
	}
	if change.cipher, _, err = body.text("cipher"); err != nil {
		return bad(err)
	}
	levels := []string{"", "TLS v1.0", "TLS v1.1", "TLS v1.2"}
	if s.cfg.OpenTelekom {
		levels = append(levels, "TLS v1.3")
	}
	ciphers := []string{"", "cipher_1", "cipher_2", "cipher_3", "cipher_4", "cipher_5", "cipher_6", "cipher_default"}
	if !slices.Contains(levels, change.tls) || !slices.Contains(ciphers, change.cipher) {
		return bad(errors.New("tls or cipher is none of the documented values"))
	}
	if proxy, given, err := body.truth("proxy"); err != nil {
		return bad(err)
	} else if given {
		change.proxy = &proxy
	}
	if change.origins, change.withServer, err = readServers(body, host.dedicated); err != nil {
		return bad(err)
	}
	return change, answer{}, true
}

// readNamedCertificate reads certificateid and certificatename, which must belong together ([OTC-D], reference 2.10).
func (s *Sim) readNamedCertificate(c *call, body members, host *wafHost) (*wafCertificate, answer, bool) {
	id, hasID, err := body.text("certificateid")
	if err != nil {
		return nil, refuse(400, codeBody, err.Error()), false
	}
	name, hasName, err := body.text("certificatename")
	if err != nil {
		return nil, refuse(400, codeBody, err.Error()), false
	}
	if !hasID && !hasName {
		return nil, answer{}, true
	}
	if !isID(id) || name == "" {
		return nil, refuse(400, codeBadRequest, "certificateid and certificatename are needed together"), false
	}
	cert := s.waf.certificate(id)
	switch {
	case cert == nil || cert.eps != host.eps:
		return nil, s.wafMissing(c), false
	case cert.name != name:
		return nil, refuse(400, codeBadRequest, "certificateid and certificatename do not belong together"), false
	case !host.takesCertificate():
		return nil, refuse(400, codeHost, "The client protocol of the host is not HTTPS"), false
	}
	return cert, answer{}, true
}

// readServers reads the origin list strictly; weight belongs to cloud hosts and vpc_id to dedicated ones (reference
// 2.9).
func readServers(body members, dedicated bool) ([]Origin, bool, error) {
	rows, given, err := body.list("server")
	if err != nil || !given {
		return nil, given, err
	}
	if len(rows) == 0 {
		return nil, true, errors.New(`the parameter "server" is empty`)
	}
	var origins []Origin
	for _, raw := range rows {
		origin, err := readServer(raw, dedicated)
		if err != nil {
			return nil, true, fmt.Errorf(`in "server": %w`, err)
		}
		origins = append(origins, origin)
	}
	return origins, true, nil
}

func readServer(raw json.RawMessage, dedicated bool) (Origin, error) {
	var o Origin
	extra := "weight"
	if dedicated {
		extra = "vpc_id"
	}
	m, err := parseMembers(raw, "front_protocol", "back_protocol", "address", "port", "type", extra)
	if err != nil {
		return o, err
	}
	for name, into := range map[string]*string{
		"front_protocol": &o.FrontProtocol, "back_protocol": &o.BackProtocol, "address": &o.Address, "type": &o.Type,
	} {
		if *into, err = m.needText(name); err != nil {
			return o, err
		}
	}
	if o.VPCID, _, err = m.text("vpc_id"); err != nil {
		return o, err
	}
	if o.Weight, err = m.whole("weight"); err != nil {
		return o, err
	}
	if o.Port, err = m.whole("port"); err != nil {
		return o, err
	}
	if o.Port < 1 || o.Port > 65535 {
		return o, errors.New("port must be 1 to 65535")
	}
	return o, nil
}
