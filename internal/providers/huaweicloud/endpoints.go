package huaweicloud

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// The services, as they stand in configuration, messages and metric labels.
const (
	IAM            = "iam"
	WAF            = "waf"
	APIG           = "apig"
	CCM            = "ccm"
	IdentityCenter = "identity_center"
)

// Services returns the name of every service, sorted.
func Services() []string { return []string{APIG, CCM, IAM, IdentityCenter, WAF} }

// isGlobal says that a service takes credentials of the account instead of a
// project's (reference 0.2).
func isGlobal(service string) bool { return service == CCM || service == IdentityCenter }

// exceptions are the hosts that do not follow the pattern {service}.{region}
// .myhuaweicloud.com (reference 8.1, region tables of the official SDK v0.1.207).
var exceptions = map[[2]string]string{
	{"cn-north-9", WAF}:   "waf.cn-north-9.myhuaweicloud.cn",
	{"eu-west-101", APIG}: "apig.eu-west-101.myhuaweicloud.eu",
	{"eu-west-101", IAM}:  "iam.eu-west-101.myhuaweicloud.eu",
	{"sa-brazil-1", CCM}:  "ccm.myhuaweicloud.com",
}

// isOTC reports whether a region belongs to Open Telekom Cloud (reference 8.2).
func isOTC(region string) bool { return region == "eu-de" || region == "eu-nl" }

// endpointOf derives the address of a service from a region; empty where the
// cloud does not offer the service or no region is given.
func endpointOf(service, region string) string {
	host, exception := exceptions[[2]string{region, service}]
	switch {
	case exception:
	case isOTC(region) && isGlobal(service):
		return "" // neither was found there (reference 8.2)
	case isOTC(region):
		host = service + "." + region + ".otc.t-systems.com"
	case service == IdentityCenter:
		host = "identitycenter.myhuaweicloud.com"
	case region == "":
		return ""
	default:
		host = service + "." + region + ".myhuaweicloud.com"
	}
	return "https://" + host
}

// endpoints returns the base URL of each service that has one: as configured,
// else derived from the region.
func endpoints(configured map[string]string, region string) (map[string]*url.URL, error) {
	for service := range configured {
		if !slices.Contains(Services(), service) {
			return nil, fmt.Errorf("endpoints: unknown service %q; known are %s", service, strings.Join(Services(), ", "))
		}
	}
	bases := make(map[string]*url.URL)
	for _, service := range Services() {
		address := configured[service]
		if address == "" {
			address = endpointOf(service, region)
		}
		if address == "" {
			continue
		}
		base, err := parseEndpoint(address)
		if err != nil {
			return nil, fmt.Errorf("endpoint of %s: %w", service, err)
		}
		bases[service] = base
	}
	return bases, nil
}

// parseEndpoint checks one base URL. Plain HTTP would show keys to the network:
// it is taken for a loopback address only.
func parseEndpoint(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return nil, errors.New("not a URL with a host") // url.Parse would repeat a password in it
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("want https://host[:port][/path] without user, query and fragment")
	}
	switch {
	case u.Scheme == "https":
	case u.Scheme == "http" && isLoopback(u.Hostname()):
	default:
		return nil, fmt.Errorf("scheme %q: want https", u.Scheme)
	}
	return u, nil
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}
