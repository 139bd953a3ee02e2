// Package cloudsim is a faithful and stubborn simulator of one Huawei Cloud (or Open Telekom Cloud) account: IAM, WAF,
// APIG and the TLS edges that serve what WAF and APIG have bound, the private CA of CCM, and the application instance
// certificates of IAM Identity Center. Tests, the demo and `rotatord simulate` run against it.
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
// A further service is one more file with its state, its routes (see iamRoutes, wafRoutes, apigRoutes, pcaRoutes,
// identityRoutes) and its handlers.
//
// # Rules and their sources
//
// Section numbers are those of the reference.
//
//	signature    1.4 canonical form; ±15 min of X-Sdk-Date (1.1, doubt 23); X-Security-Token present and signed with
//	             temporary keys (1.3); X-Sdk-Content-Sha256 must be the body's or UNSIGNED-PAYLOAD; 401 APIGW.0301 (6.6)
//	token        201, X-Subject-Token, microseconds, nocatalog, 24 h, numeric error.code (1.2); five wrong passwords
//	             lock for 15 min [HW iam FAQ]; a wrong scope is 400 (section 10, acme.sh)
//	agencies     assume_role for a token's user, 404 for another agency; not from an agency's own token (1.2)
//	keys         securitytokens: 201, 900–86400 s, default 900, by token or assume_role; the key signs until it ends (1.3)
//	metadata     v1 without, v2 with a session token; the PUT is 404 in v1 alone; 401 for a dead session (1.3)
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
//	APIG auth    as WAF; 403 APIG.1005 for another project [S001] (or 401, 6.3), 401 APIG.1007 without one
//	APIG create  names [S001]; 2101 key, 2102 expired, 2104 order, 2105 encrypted, 2106 invalid, 2109 no SAN, 3148 after
//	             2038 (6.3); 200 [S001]; equal names and contents are fine (6.3); PKCS#8 too [S001]
//	APIG show    parsed members, never PEM or key (3.3); serial_number decimal [S001]
//	APIG list    offset, limit 1–500, filters; with instance_id: the gateway's own and the global ones (3.4)
//	APIG update  full form, also while bound, all domains follow, domains must match (3.5, APIG.2103); without
//	             trusted_root_ca the CA is dropped (doubt 4, KeepTrustedCA); no other scope, and while bound no other
//	             algorithm (doubt 6)
//	APIG delete  204; bound 409 (doubt 7; the code is made up); 404 APIG.3021 when missing
//	attach       204, all or nothing, repeatable; instance_ids for global ones; one RSA and one ECC for each domain,
//	             the same type is replaced (3.6, doubt 5, RefuseReplacement: APIG.2029); 2103 domain, 3715 CA types,
//	             2051 ports; the flag for clients left out: on with a trusted_root_ca, else off [SDK]
//	detach       204; what is not bound is 400 APIG.2000 (3.6 [TF])
//	domains      attached-domains lists each port (3.6, 3.7); group details; settings fall back to defaults (3.8 [SDK])
//	edges        the old certificate goes on until the new one is in effect, no connection drops [OTC-D umn]
//	CCM auth     signatures, tokens with the account as scope; X-Domain-Id must be the account's (0.2, 1.2, 1.4)
//	CCM apply    every member and bound of [S002], both algorithms mandatory (0.3); 200 and the id alone; names are
//	             inherited, key usages and SANs are not; YEAR 12 months, MONTH 31 days; not longer than 20 years or the
//	             CA; start_from a number (doubt 20); codes (6.4); equal names are fine
//	CCM CSR      5120 characters, proof of possession, SHA384, digitalSignature + keyAgreement unless asked otherwise, SANs
//	             and other extensions copied (4.3, doubt 18, IgnoreCSRExtensions), subject_alternative_names ignored
//	CCM list     10 of at most 1000, part of the CN, status, sort_key, sort_dir, the newest first; no SANs, PEM, tags (4.4);
//	             serial_number begins with the time, times are whole seconds [HW ListCertificate, example]
//	CCM missing  400 PCA.10010002, or 404 PCA.00030102 (doubt 17, PrivateNotFound404); 400 PCA.10010105 for no UUID
//	CCM export   JSON with \r\n, chain up to the root, the key in its traditional form, none for CSR-made ones; zip with the
//	             files of 4.5 and [SDK]; issued ones only, the CA neither pending deletion nor revoked (4.5)
//	CCM revoke   204, at least {}, the CA active or disabled; twice is 403 PCA.10010071 (4.6, 6.4)
//	CCM delete   204 in any state, at once; it does not revoke (4.6)
//	CCM tags     20 for each certificate, keys to 128, values to 255 characters; search: keys "and", values "or", pages of
//	             10, 20 or 50 (4.8 [SDK])
//	CCM CAs      real ones; active or expired ones are exported [HW ExportCertificateAuthorityCertificate]; a root shows
//	             path_length 7 (4.7 [SDK])
//	IC auth      signatures only; 401 APIGW.0301 for a token (0.2, doubt 2)
//	IC create    no body; 201, INACTIVE, PEM with \r\n, key_size a text, the end cut to midnight UTC [S000]
//	IC list      1–100, default 100; markers of 24 hex digits; next_marker null at the end (5.2)
//	IC activate  the former one becomes INACTIVE (doubt 1); not an expired one (5.5)
//	IC delete    200 without a body; the active one is 400 IIC.1002 (5.4, doubt 1)
//	IC limit     409 IIC.1007 over CertificateLimit; no page says that there is one (doubt 1)
//
// # Deliberate deviations, to avoid over-fitting
//
// Unknown query parameters and unknown, repeated, null or wrongly typed members of a body are refused; the real cloud
// is said to be laxer. Line ends \r\n, bag attributes and comments in PEM are refused where the reference only advises
// to strip them. PKCS#8 is refused although the seed's own example sends it (TolerateKeyForm). Every id must have 32
// letters or digits. After Latency and FaultDelay an effect comes even if the caller has left. API not found is 404,
// where the table prints 400. A host's server list has two origins, so that a client that drops one is found out. Only
// the methods password and assume_role of IAM, and certificateid, certificatename, server, tls, cipher and proxy of a host, are known.
// Whether a certificate covers the host's name is not checked: no page says that WAF does.
//
// In APIG: every parameter that is wrong is APIG.2000, and a group that does not exist APIG.3001, for want of a code in
// the reference. A chain in order is one in which each certificate is signed by the next. A global certificate must
// not name a gateway other than "common". Detaching refuses the whole call when one domain is not bound. Client
// verification without a CA stays off however the flag stands. A domain that several gateways have is served as the
// first of them has it. Not simulated: the legacy calls (create and bind, unbind and show of a domain), SM2, a quota,
// subdomains, and calls that make gateways, groups and domains; they come from the configuration.
//
// In CCM: codes are made up for a CA (PCA.10019001) or a certificate (10019003) in the wrong state, a used-up quota
// (10019002, all doubt 21), too many tags (10019004), FaultInternal (PCA.00010001), FaultBusy (PCA.00010002), a bad token
// (PCA.00000401) and a caller who is not the account's (PCA.00000403). A CSR needs a CN, and a key of the four
// algorithms. The signs of a password and of names are the listed ones only; a custom extension is a UTF8String and not
// below 2.5. Tags that are deleted need not exist. RSA keys come from a pool that the simulators of one process
// share. server.pfx and server.jks hold nothing. Not simulated: SM2, making and changing CAs, also by CSR
// (INTERMEDIATE_CA), CRL and OCSP, single tags, counts, all keys of tags, and
// rights in enterprise projects.
//
// In Identity Center: codes are made up for FaultInternal (IIC.500) and a bad token (IIC.401). Application instances
// come from the configuration; what they know of SAML is decoration.
//
// With Misbehave, on top: unknown members in answers; ms numbers as strings and bind_host as null in some answers;
// four spellings of the Content-Type; another row order for each listing (kept over its pages); create echoes content
// and key, and PEM comes back laid out anew; missing objects and deletes alternate between their documented answers;
// and by the seed: the meaning of host, the code for a full quota, the status of API not found. In APIG, a write while an
// earlier one is under way on the gateway is refused with 409 APIG.3718 or 500 APIG.3500, and by the seed: 201 for a
// create, serial numbers in hex with colons (doubt 9), no algorithm_type, instance_id mandatory in the list (doubt 8),
// exact names in the list, the code for a missing certificate, 404 APIG.3097 for a missing binding on the domain's side,
// the status of APIG.1005. In CCM, both forms of a missing object in turn, and by the seed: serial_number is the hex
// reading of the certificate's number, PEM ends in a newline, HOUR is refused (doubt 19), "/" in a tag's key is refused
// [SDK]. In Identity Center, a write while another is under way on the application instance is refused with 409
// IIC.1006, and by the seed: the newest certificate comes first.
package cloudsim
