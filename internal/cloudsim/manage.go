package cloudsim

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// The management API lets a test in another process drive and inspect the simulator. It never returns a private key.

// ManagementHandler serves, without authentication:
//
//	GET    /sim/state             {"url","ca_pem","metadata_url","edges":[addr],"quota","certificates":[CertificateInfo],"hosts":[HostInfo],
//	                              "apig_certificates":[APIGCertificateInfo],"domains":[DomainInfo],
//	                              "authorities":[AuthorityInfo],"private_certificates":[PrivateCertificateInfo],
//	                              "applications":[ApplicationInfo]}
//	GET    /sim/ca.pem            the root of the API listener
//	GET    /sim/ledger?after=SEQ  {"entries":[Entry]}
//	GET    /sim/faults            {"faults":[{"id","fault","hits","held":[Entry]}]}
//	POST   /sim/faults            a fault (see faultJSON) -> {"id"}
//	DELETE /sim/faults            clear, let go of every held call
//	POST   /sim/faults/release    {"id"} -> {"released"}
//	POST   /sim/console/upload    {"name","certificate","key"} -> {"id"}
//	POST   /sim/console/bind      {"host","certificate_id"}
//	POST   /sim/console/delete    {"certificate_id"}
//	POST   /sim/console/apig/upload  {"name","certificate","key","trusted_root_ca","instance_id"} -> {"id"}
//	POST   /sim/console/apig/bind    {"domain","certificate_id"}
//	POST   /sim/console/apig/delete  {"certificate_id"}
//	POST   /sim/console/ca/authority  {"id","status"}
//	POST   /sim/console/ca/issue      {"issuer_id","common_name","names":[name]} -> {"id"}
//	POST   /sim/console/ca/revoke     {"certificate_id"}
//	POST   /sim/console/ca/delete     {"certificate_id"}
//	POST   /sim/console/identity/create    {"application_id"} -> {"id"}
//	POST   /sim/console/identity/activate  {"application_id","certificate_id"}
//	POST   /sim/tokens/expire     ends every token
//
// Errors are {"error"} with 400.
func (s *Sim) ManagementHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /sim/state", func(w http.ResponseWriter, _ *http.Request) {
		writeManaged(w, s.state(), nil)
	})
	mux.HandleFunc("GET /sim/ca.pem", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-pem-file")
		_, _ = w.Write(s.CAPEM())
	})
	mux.HandleFunc("GET /sim/ledger", func(w http.ResponseWriter, r *http.Request) {
		after, _ := strconv.Atoi(r.URL.Query().Get("after")) // anything else is 0: all
		writeManaged(w, object{"entries": append([]Entry{}, s.ledger.after(after)...)}, nil)
	})
	mux.HandleFunc("GET /sim/faults", func(w http.ResponseWriter, _ *http.Request) {
		writeManaged(w, object{"faults": s.faultStates()}, nil)
	})
	mux.HandleFunc("DELETE /sim/faults", func(w http.ResponseWriter, _ *http.Request) {
		s.faults.Clear()
		writeManaged(w, object{}, nil)
	})
	mux.HandleFunc("POST /sim/tokens/expire", func(w http.ResponseWriter, _ *http.Request) {
		s.ExpireTokens()
		writeManaged(w, object{}, nil)
	})
	handleJSON(mux, "POST /sim/faults", func(f faultJSON) (object, error) {
		fault, err := f.fault()
		if err != nil {
			return nil, err
		}
		id, err := s.faults.Add(fault)
		return object{"id": id}, err
	})
	handleJSON(mux, "POST /sim/faults/release", func(in struct {
		ID int `json:"id"`
	}) (object, error) {
		return object{"released": s.faults.Release(in.ID)}, nil
	})
	handleJSON(mux, "POST /sim/console/upload", func(in struct{ Name, Certificate, Key string }) (object, error) {
		id, err := s.ConsoleUpload(Certificate{Name: in.Name, CertPEM: []byte(in.Certificate), KeyPEM: []byte(in.Key)})
		return object{"id": id}, err
	})
	handleJSON(mux, "POST /sim/console/bind", func(in struct {
		Host          string `json:"host"`
		CertificateID string `json:"certificate_id"`
	}) (object, error) {
		return object{}, s.ConsoleBind(in.Host, in.CertificateID)
	})
	handleJSON(mux, "POST /sim/console/delete", func(in struct {
		CertificateID string `json:"certificate_id"`
	}) (object, error) {
		return object{}, s.ConsoleDelete(in.CertificateID)
	})
	handleJSON(mux, "POST /sim/console/apig/upload", func(in struct {
		Name, Certificate, Key string
		TrustedRootCA          string `json:"trusted_root_ca"`
		InstanceID             string `json:"instance_id"`
	}) (object, error) {
		id, err := s.ConsoleAPIGUpload(GatewayCertificate{
			Name: in.Name, CertPEM: []byte(in.Certificate), KeyPEM: []byte(in.Key), TrustedCAPEM: []byte(in.TrustedRootCA),
		}, in.InstanceID)
		return object{"id": id}, err
	})
	handleJSON(mux, "POST /sim/console/apig/bind", func(in struct {
		Domain        string `json:"domain"`
		CertificateID string `json:"certificate_id"`
	}) (object, error) {
		return object{}, s.ConsoleAPIGBind(in.Domain, in.CertificateID)
	})
	handleJSON(mux, "POST /sim/console/apig/delete", func(in struct {
		CertificateID string `json:"certificate_id"`
	}) (object, error) {
		return object{}, s.ConsoleAPIGDelete(in.CertificateID)
	})
	s.managePCA(mux)
	s.manageIdentity(mux)
	return mux
}

func (s *Sim) managePCA(mux *http.ServeMux) {
	type one struct {
		CertificateID string `json:"certificate_id"`
	}
	handleJSON(mux, "POST /sim/console/ca/authority", func(in struct{ ID, Status string }) (object, error) {
		return object{}, s.ConsoleSetAuthority(in.ID, in.Status)
	})
	handleJSON(mux, "POST /sim/console/ca/issue", func(in struct {
		IssuerID   string   `json:"issuer_id"`
		CommonName string   `json:"common_name"`
		Names      []string `json:"names"`
	}) (object, error) {
		id, err := s.ConsoleIssue(in.IssuerID, in.CommonName, in.Names...)
		return object{"id": id}, err
	})
	handleJSON(mux, "POST /sim/console/ca/revoke", func(in one) (object, error) {
		return object{}, s.ConsoleRevoke(in.CertificateID)
	})
	handleJSON(mux, "POST /sim/console/ca/delete", func(in one) (object, error) {
		return object{}, s.ConsoleDeletePrivate(in.CertificateID)
	})
}

func (s *Sim) manageIdentity(mux *http.ServeMux) {
	handleJSON(mux, "POST /sim/console/identity/create", func(in struct {
		ApplicationID string `json:"application_id"`
	}) (object, error) {
		id, err := s.ConsoleCreate(in.ApplicationID)
		return object{"id": id}, err
	})
	handleJSON(mux, "POST /sim/console/identity/activate", func(in struct {
		ApplicationID string `json:"application_id"`
		CertificateID string `json:"certificate_id"`
	}) (object, error) {
		return object{}, s.ConsoleActivate(in.ApplicationID, in.CertificateID)
	})
}

// handleJSON reads In strictly and writes what do returns.
func handleJSON[In any](mux *http.ServeMux, pattern string, do func(In) (object, error)) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		var in In
		dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, bodyLimit))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&in); err != nil {
			writeManaged(w, nil, err)
			return
		}
		out, err := do(in)
		writeManaged(w, out, err)
	})
}

func writeManaged(w http.ResponseWriter, out object, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		out = object{"error": err.Error()}
	}
	_ = json.NewEncoder(w).Encode(out) // a caller who is gone is no error of ours
}

func (s *Sim) state() object {
	return object{
		"url": s.URL(), "ca_pem": string(s.CAPEM()), "metadata_url": s.MetadataURL(), "edges": append([]string{}, s.EdgeAddrs()...), "quota": s.cfg.CertificateQuota,
		"certificates": append([]CertificateInfo{}, s.Certificates()...), "hosts": append([]HostInfo{}, s.Hosts()...),
		"apig_certificates": append([]APIGCertificateInfo{}, s.APIGCertificates()...), "domains": append([]DomainInfo{}, s.Domains()...),
		"authorities": append([]AuthorityInfo{}, s.Authorities()...), "private_certificates": append([]PrivateCertificateInfo{}, s.PrivateCertificates()...),
		"applications": append([]ApplicationInfo{}, s.Applications()...),
	}
}

// faultJSON is Fault as the management API writes it; only name is mandatory.
type faultJSON struct {
	Service     string `json:"service,omitempty"`
	Operation   string `json:"operation,omitempty"`
	Name        string `json:"name"`
	Count       int    `json:"count,omitempty"`
	After       int    `json:"after,omitempty"`
	Phase       Phase  `json:"phase,omitempty"`
	Delay       string `json:"delay,omitempty"` // as time.ParseDuration reads it
	Status      int    `json:"status,omitempty"`
	Code        string `json:"code,omitempty"`
	Message     string `json:"message,omitempty"`
	Body        string `json:"body,omitempty"`
	ContentType string `json:"content_type,omitempty"`
	Field       string `json:"field,omitempty"`
}

func (f faultJSON) fault() (Fault, error) {
	fault := Fault{
		Service: f.Service, Operation: f.Operation, Name: f.Name, Count: f.Count, After: f.After, Phase: f.Phase,
		Status: f.Status, Code: f.Code, Message: f.Message, Body: f.Body, ContentType: f.ContentType, Field: f.Field,
	}
	if f.Delay == "" {
		return fault, nil
	}
	delay, err := time.ParseDuration(f.Delay)
	fault.Delay = delay
	return fault, err
}

func (s *Sim) faultStates() []any {
	states := []any{}
	for _, state := range s.faults.List() {
		f := state.Fault
		shown := faultJSON{
			Service: f.Service, Operation: f.Operation, Name: f.Name, Count: f.Count, After: f.After, Phase: f.Phase,
			Status: f.Status, Code: f.Code, Message: f.Message, Body: f.Body, ContentType: f.ContentType, Field: f.Field,
		}
		if f.Delay > 0 {
			shown.Delay = f.Delay.String()
		}
		states = append(states, object{"id": state.ID, "fault": shown, "hits": state.Hits, "held": append([]Entry{}, state.Held...)})
	}
	return states
}
