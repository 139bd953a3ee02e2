package bus

import (
	"reflect"
	"testing"
	"unicode/utf8"
)

// FuzzTrigger holds parseTrigger to its word: whatever somebody publishes is one trigger.
func FuzzTrigger(f *testing.F) {
	for _, seed := range []string{
		"", "{}", `{"certificate":"shop.example.com","reason":"renewed","force":true}`, `{"forse":true}`, `{"certificate":1}`, `[]`, `null`, `{"certificate":"a","certificate":"b"}`,
		`{"specversion":"1.0","id":"1","source":"s","type":"t","data":{"certificate":"a"}}`, `{"specversion":"1.0","data_base64":"e30="}`, "\xff\xfe", `{"a":{"a":{"a":{}}}}`, `{"confirm":true}x`,
	} {
		f.Add("rotatord.trigger.shop", "", []byte(seed))
		f.Add("certs.renewed", "1.0", []byte(seed))
		f.Add("rotatord.ack.shop", "", []byte(seed))
	}
	b := &Bus{names: names{"rotatord"}}
	f.Fuzz(func(t *testing.T, subject, header string, data []byte) {
		got := b.parseTrigger(subject, header, data)
		if again := b.parseTrigger(subject, header, data); !reflect.DeepEqual(got, again) {
			t.Errorf("twice the same is %+v and %+v", got, again)
		}
		if got.Problem != "" && (got.Force || got.Confirm || got.Certificate != "") {
			t.Errorf("a trigger that could not be read asks for something: %+v", got)
		}
		if got.Subject != subject || len(got.Reason) > 200 || !utf8.ValidString(got.Reason) || !utf8.ValidString(got.Certificate) {
			t.Errorf("it is %+v", got)
		}
	})
}
