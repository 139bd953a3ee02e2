package admin

import (
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
)

// atHome refuses requests for somebody else's name where the listener is for this host only and
// lets in whoever reaches it: a page on the web may have its own name lead here (DNS rebinding),
// and the visitor's browser would hand it what it reads. A browser says which name it was led
// by, and no page can make it say another one. Where a web configuration says who is let in, a
// browser has nothing to show for that name.
func atHome(next http.Handler, cfg Config, bound net.Addr) http.Handler {
	if tcp, ok := bound.(*net.TCPAddr); cfg.WebConfig != "" || !ok || !tcp.IP.IsLoopback() {
		return next
	}
	own, _ := os.Hostname() // without one, addresses do
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isOurs(r.Host, own) {
			http.Error(w, "rotatord answers here to an IP address, localhost or this host's name, not to "+cut(r.Host, 100)+
				"; have a proxy send the address that it connects to as Host", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// isOurs reports whether a Host header names this host, whatever DNS says. HTTP/1.0 has none.
func isOurs(host, own string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return true
	}
	return host == "" || host == "localhost" || strings.HasSuffix(host, ".localhost") || host == strings.ToLower(own)
}
