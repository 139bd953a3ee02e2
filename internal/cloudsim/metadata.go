package cloudsim

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"time"
)

// The metadata service of an ECS that has an agency: reference 1.3. It speaks plain HTTP on an address of its own.

const (
	serviceMetadata    = "metadata"
	metadataHost       = "169.254.169.254"
	metadataSession    = "X-Metadata-Token"
	metadataTTLHeader  = "X-Metadata-Token-Ttl-Seconds"
	metadataLongestTTL = 21600 // the value that the reference's example sends
)

// The values of Config.MetadataMode.
const (
	MetadataV1 = "v1" // no session tokens: the PUT is answered with 404
	MetadataV2 = "v2" // nothing without a session token
)

func metadataRoutes() []route {
	return []route{
		{service: serviceMetadata, operation: "CreateMetadataToken", method: "PUT", pattern: "/meta-data/latest/api/token", handle: (*Sim).createMetadataToken},
		{service: serviceMetadata, operation: "GetSecurityKey", method: "GET", pattern: "/openstack/latest/securitykey", handle: (*Sim).getSecurityKey},
	}
}

// MetadataHandler answers what an ECS asks its metadata service. Transport leads requests for 169.254.169.254 to it
// when Config.Metadata is set.
func (s *Sim) MetadataHandler() http.Handler {
	routes := metadataRoutes()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, routes) })
}

// MetadataURL is http://address:port of the metadata service, "" before Start and without Config.Metadata.
func (s *Sim) MetadataURL() string {
	s.listenMu.Lock()
	defer s.listenMu.Unlock()
	if s.metadata == nil {
		return ""
	}
	return "http://" + s.metadata.tcp.Addr().String()
}

func listenMetadata(s *Sim) (*webServer, error) {
	tcp, err := listenTCP("127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return serveOn(s, tcp, tcp, s.MetadataHandler()), nil
}

// refuseMetadata is an error as a plain web server writes it; no page describes it.
func refuseMetadata(status int) answer {
	text := http.StatusText(status)
	return answer{status: status, message: text, raw: text + "\n", content: "text/plain"}
}

// createMetadataToken begins a session.
func (s *Sim) createMetadataToken(c *call) answer {
	if s.cfg.MetadataMode == MetadataV1 {
		return refuseMetadata(404)
	}
	seconds, err := strconv.Atoi(c.r.Header.Get(metadataTTLHeader))
	if err != nil || seconds < 1 || seconds > metadataLongestTTL {
		return refuseMetadata(400)
	}
	text := base64.RawURLEncoding.EncodeToString(s.randomBytes(42))
	s.iam.sessions[text] = c.now.Add(time.Duration(seconds) * time.Second)
	return answer{status: 200, raw: text, content: "text/plain", effect: true}
}

// getSecurityKey gives the agency's temporary key. It stays the same until two thirds of its life are over, so that
// nobody is ever given a key that is about to end.
func (s *Sim) getSecurityKey(c *call) answer {
	session := c.r.Header.Get(metadataSession)
	ends, known := s.iam.sessions[session]
	switch {
	case s.cfg.MetadataMode == MetadataV1: // the header means nothing there
	case session == "" && s.cfg.MetadataMode == MetadataV2, session != "" && !(known && c.now.Before(ends)):
		return refuseMetadata(401)
	}
	key, ok := s.iam.keys[s.iam.machineKey]
	life := s.cfg.MetadataKeyValidity
	if effect := !ok || key.expires.Sub(c.now) <= life/3; effect {
		key = s.issueKey(c.now, life)
		s.iam.machineKey = key.access
		return answer{status: 200, body: key.credential(), effect: true}
	}
	return answer{status: 200, body: key.credential()}
}
