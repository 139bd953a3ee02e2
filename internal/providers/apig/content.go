package apig

import (
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
)

// serials are the numbers that a serial_number may stand for, in hexadecimal as
// certs.Info has it, the likeliest first. Its form is not documented (reference 3.3,
// doubt 9): digits alone are decimal, as in the example, or else hexadecimal.
func serials(text string) []string {
	text = strings.ToLower(strings.TrimSpace(text))
	hex := strings.TrimPrefix(strings.NewReplacer(":", "", " ", "").Replace(text), "0x")
	var all []string
	for _, form := range []struct {
		text string
		base int
	}{{text, 10}, {hex, 16}} {
		if strings.Trim(form.text, "0123456789abcdef") != "" {
			continue // big.Int would take signs and underscores
		}
		if n, ok := new(big.Int).SetString(form.text, form.base); ok {
			all = append(all, n.Text(16))
		}
	}
	return slices.Compact(all)
}

// holds reports whether the object's content is this leaf, by all that the service
// tells: the serial number, the dates to the second and the names.
func (c certificate) holds(leaf certs.Info) bool {
	return slices.Contains(serials(string(c.Serial)), leaf.SerialNumber) &&
		sameSecond(c.NotAfter.Time, leaf.NotAfter) && sameSecond(c.NotBefore.Time, leaf.NotBefore) && sameNames(c.SAN, leaf)
}

// sameSecond compares a time that the service tells; one that it does not tell is no
// difference.
func sameSecond(told, is time.Time) bool {
	return told.IsZero() || told.Truncate(time.Second).Equal(is.Truncate(time.Second))
}

// sameNames compares the names that the service tells: all of them are the leaf's, and
// none of its DNS names is missing. Names of other kinds may be left out, and the
// common name may be there too.
func sameNames(told labels, leaf certs.Info) bool {
	if len(told) == 0 {
		return true
	}
	names := make(map[string]bool)
	for _, l := range told {
		names[plainName(string(l))] = true
	}
	for name := range names {
		if name != plainName(leaf.SubjectCN) && !slices.ContainsFunc(leaf.Names, func(n string) bool { return plainName(n) == name }) {
			return false
		}
	}
	return !slices.ContainsFunc(leaf.Names, func(n string) bool {
		_, err := netip.ParseAddr(n)
		return err != nil && !strings.ContainsAny(n, "@/:") && !names[plainName(n)]
	})
}

func plainName(s string) string {
	s = strings.TrimSuffix(strings.ToLower(strings.TrimSpace(s)), ".")
	s = strings.TrimPrefix(strings.TrimPrefix(s, "dns:"), "ip:")
	if address, err := netip.ParseAddr(s); err == nil {
		return address.Unmap().String()
	}
	return s
}

// leafOf finds the object's content among the known leaves. Should several fit, the
// fingerprint in the object's name decides.
func (c certificate) leafOf(o providers.Owner, leaves []certs.Info) (certs.Info, bool) {
	var found []certs.Info
	for _, leaf := range leaves {
		if c.holds(leaf) && !slices.ContainsFunc(found, func(f certs.Info) bool { return f.Fingerprint == leaf.Fingerprint }) {
			found = append(found, leaf)
		}
	}
	if len(found) > 1 {
		found = slices.DeleteFunc(found, func(f certs.Info) bool {
			return string(c.Name) != providers.CertificateName(o, f.Fingerprint)
		})
	}
	if len(found) != 1 {
		return certs.Info{}, false
	}
	return found[0], true
}

// contentOf is the handle of what the object holds, in place. What has the serial
// number of a known leaf, and is not that leaf, must not be taken for it; nor must what
// tells no serial number: these handles name the object, too.
func (c certificate) contentOf(o providers.Owner, leaves []certs.Info) providers.Handle {
	if leaf, ok := c.leafOf(o, leaves); ok {
		return contentHandle(leaf.SerialNumber)
	}
	numbers := serials(string(c.Serial))
	if len(numbers) == 0 {
		return contentHandle("unknown@" + string(c.ID))
	}
	if slices.ContainsFunc(leaves, func(l certs.Info) bool { return l.SerialNumber == numbers[0] }) {
		return contentHandle(numbers[0] + "@" + string(c.ID))
	}
	return contentHandle(numbers[0])
}

// algorithm is RSA, ECC or SM2; empty where neither the service nor a known leaf tells.
func (c certificate) algorithm(o providers.Owner, leaves []certs.Info) string {
	if c.Algorithm != "" {
		return strings.ToUpper(string(c.Algorithm))
	}
	leaf, _ := c.leafOf(o, leaves)
	return algorithmNamed(leaf)
}
