// Package cloudsim is a faithful and stubborn simulator of one Huawei Cloud (or Open Telekom Cloud) account: IAM, WAF
// and the TLS edges that serve what WAF has bound. Tests, the demo and `rotatord simulate` run against it.
//
// It may import the standard library only, since it judges everything else. It is written from the API reference
// (docs/reference/huawei-cloud.md; marks such as [S003] are explained there), never from a client.
//
// Invariants:
//
//   - Every call stands in the ledger from its arrival on, and its effect stands there before the caller can know.
//   - An operation is one step under one lock: a reader never sees half of it. Nothing waits under that lock.
//   - What an edge serves, which hosts a certificate has and what is expired is derived when asked, never stored; so
//     the simulator has no timers and is right under testing/synctest. Only listeners have goroutines.
//   - Keys, passwords and tokens leave it in the answers that the reference describes, and nowhere else: not in the
//     ledger, the log, the management API or an error.
//   - State is in memory; the root of the API listener is new at each Start.
//
// Three mounts: Transport is an http.RoundTripper without sockets, Handler an http.Handler, Start real TLS listeners.
// A further service is one more file with its state, its routes (see iamRoutes, wafRoutes) and its handlers.
//
// # Rules and their sources
//
// Section numbers are those of the reference.
//
//	signature    1.4 canonical form; ±15 min of X-Sdk-Date (1.1, doubt 23); X-Security-Token present and signed with
//	             temporary keys (1.3); X-Sdk-Content-Sha256 must be the body's or UNSIGNED-PAYLOAD; 401 APIGW.0301 (6.6)
//	token        201, X-Subject-Token, microseconds, nocatalog, 24 h, numeric error.code (1.2); five wrong passwords
//	             lock for 15 min [HW iam FAQ]; a wrong scope is 400 (section 10, acme.sh)
//	projects     exact name, sub-projects exist; domains: first entry (1.5)
//	project      path, X-Project-Id and caller must agree: 400 WAF.00012002; domain tokens agree with none (6.2)
//	bad token    401 APIGW.0301, or 400 WAF.00012001 with TokenErrorsInService (6.2, 6.6)
//	create       Content-Type, members, names, answer [S003]; ≤ 64 characters, WAF.00021005 (0.3); verify_cert_key
//	             checks match and expiry, nothing else does (2.2); duplicates WAF.00011016 and 00014002 (2.2, doubt 11)
//	quota        number of hosts (7.1), WAF.00013001
//	PEM          leaf first, chain may be incomplete, no encrypted key, no PKCS#8, no Ed25519, \n only, nothing around
//	             the blocks (7.3, [S003])
//	list         paging 1–100, codes 00011010/11; fuzzy name; host (doubt 10); no PEM (2.3)
//	show         key in clear (2.4)
//	update       content and key together; refused while bound, also a rename: WAF.00022003 (2.5)
//	delete       refused while bound; 404 WAF.00022001 or 400 00014001 when missing; 200 or 204 (2.6)
//	apply        one list at least, HTTPS hosts of the right kind, all or nothing, repeatable (2.7, doubt 13)
//	host         lists without certificate (2.8); id and name together, partial bodies, server replaces all (2.10)
//	EPS          objects are found in their own enterprise project only; all_granted_eps reads (2.2; TF #2939, #3019)
//	OTC          no apply-to-hosts, cloud hosts, enterprise projects, verify_cert_key; host adds columns (2.3, 2.12)
//	edges        the old certificate goes on until the new one is in effect, no connection drops [OTC-D umn]
//
// # Deliberate deviations, to avoid over-fitting
//
// Unknown query parameters and unknown, repeated, null or wrongly typed members of a body are refused; the real cloud
// is said to be laxer. Line ends \r\n, bag attributes and comments in PEM are refused where the reference only advises
// to strip them. PKCS#8 is refused although the seed's own example sends it (TolerateKeyForm). Every id must have 32
// letters or digits. After Latency and FaultDelay an effect comes even if the caller has left. API not found is 404,
// where the table prints 400. A host's server list has two origins, so that a client that drops one is found out. Only
// the password method of IAM, and certificateid, certificatename, server, tls, cipher and proxy of a host, are known.
// Whether a certificate covers the host's name is not checked: no page says that WAF does.
//
// With Misbehave, on top: unknown members in answers; ms numbers as strings and bind_host as null in some answers;
// four spellings of the Content-Type; another row order for each listing (kept over its pages); create echoes content
// and key, and PEM comes back laid out anew; missing objects and deletes alternate between their documented answers;
// and by the seed: the meaning of host, the code for a full quota, the status of API not found.
package cloudsim
