package bus

import (
	"reflect"
	"strings"
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

// FuzzSubject: a subject of the work queue that can be read is one that we write, and who is said to
// ask is said in few words.
func FuzzSubject(f *testing.F) {
	f.Add("rotatord.work.any.shop.a=2Eexample=2Ecom", "_R_.x", `{"acc":"A","user":"ada"}`)
	f.Add("rotatord.work.=.=.=", "_INBOX.x", `{"acc":1}`)
	f.Add("rotatord.work.any.=FF.=zz", "_R_.", `{"acc":"`+strings.Repeat("x", 1000)+`"}`)
	n := names{"rotatord"}
	f.Fuzz(func(t *testing.T, subject, reply, info string) {
		if id, err := n.parseWork(subject); err == nil && !strings.HasSuffix(subject, "."+id.token()) {
			t.Errorf("%s is read as %+v, which is written as %s", subject, id, id.token())
		}
		by := askerOf(reply, info)
		if len(by.Account) > maxAsker || len(by.User) > maxAsker || !strings.HasPrefix(reply, importedReply) && by != (Asker{}) {
			t.Errorf("%+v asks", by)
		}
	})
}
