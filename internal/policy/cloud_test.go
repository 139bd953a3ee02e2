package policy

import (
	"reflect"
	"testing"
)

// loginsOf counts the logins that are set, however many kinds there will be.
func loginsOf(a Auth) int {
	n := 0
	for _, field := range reflect.ValueOf(a).Fields() {
		if !field.IsNil() {
			n++
		}
	}
	return n
}

func TestSigns(t *testing.T) {
	password := &Password{User: "u"}
	for name, row := range map[string]struct {
		auth Auth
		want bool
	}{
		"access key":         {Auth{AccessKey: &AccessKey{}}, true},
		"password":           {Auth{Password: password}, false},
		"agency by password": {Auth{Agency: &Agency{Password: password}}, true},
		"metadata":           {Auth{Metadata: &Metadata{}}, true},
		"environment":        {Auth{Environment: &Environment{}}, true},
	} {
		cloud := Cloud{Auth: row.auth}
		if got := cloud.Signs(); got != row.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// Keys come from the metadata service in clear: nothing but this machine may be asked.
func TestMetadataEndpoint(t *testing.T) {
	for _, good := range []string{
		"http://169.254.169.254", "http://169.254.169.254/", "http://127.0.0.1:8080", "http://localhost:1", "http://[::1]:80", "http://[fe80::1]",
	} {
		if problem := metadataProblem(good); problem != "" {
			t.Errorf("%s: %s", good, problem)
		}
	}
	for _, bad := range []string{
		"https://169.254.169.254", "http://169.255.0.1", "http://10.0.0.1", "http://metadata", "http://[fd00::1]", "http://[::ffff:10.0.0.1]",
		"http://u:p@127.0.0.1", "http://127.0.0.1/x", "http://127.0.0.1?x", "http://127.0.0.1#x", "127.0.0.1", "http://", "http://127.0.0.1.example.com",
	} {
		if metadataProblem(bad) == "" {
			t.Errorf("%s was taken", bad)
		}
	}
}
