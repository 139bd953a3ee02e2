package main

import (
	"os"
	"strings"
	"testing"
)

// TestLimitsAreTold: the table of docs/security.md has the values that the source has.
func TestLimitsAreTold(t *testing.T) {
	page, err := os.ReadFile("../../docs/security.md")
	must(t, err)
	for _, limit := range []struct{ file, constant, told string }{
		{"admin/admin.go", "maxConnections = 256", "connections | 256 each"},
		{"admin/admin.go", "maxStreams     = 32", "in a connection of HTTP/2 | 32"},
		{"admin/admin.go", "headerWait  = 5 * time.Second", "between two requests | 5 s; 30 s; 2 min"},
		{"admin/admin.go", "requestWait = 30 * time.Second", "between two requests | 5 s; 30 s; 2 min"},
		{"admin/admin.go", "idleWait    = 2 * time.Minute", "between two requests | 5 s; 30 s; 2 min"},
		{"admin/admin.go", "maxHeader   = 16 << 10", "size of a header | 16 KiB"},
		{"admin/events.go", "eventWait = 10 * time.Second", "a message of the event stream | 30 s; 10 s"},
		{"admin/site.go", "maxAsking    = 32", "and scrapes worked out at once | 32; 4 | they wait in order, 503 after 5 s"},
		{"admin/site.go", "placeWait    = 5 * time.Second", "and scrapes worked out at once | 32; 4 | they wait in order, 503 after 5 s"},
		{"admin/site.go", "maxHistories = 4", "listeners to events | 4; 64"},
		{"admin/site.go", "maxListeners = 64", "listeners to events | 4; 64"},
		{"admin/api.go", "maxLimit        = 1000", "text searched for | 1000; 256 bytes"},
		{"admin/api.go", "maxHistoryLimit = 1000", "text searched for | 1000; 256 bytes"},
		{"admin/query.go", "maxText = 256", "text searched for | 1000; 256 bytes"},
		{"admin/control.go", "maxRequest = 64 << 10", "time for an answer | 64 KiB; 10 min"},
		{"admin/control.go", "answerWait = 10 * time.Minute", "time for an answer | 64 KiB; 10 min"},
		{"metrics/handler.go", "maxScrapes = 4", "and scrapes worked out at once | 32; 4 | they wait in order, 503 after 5 s"},
		{"metrics/handler.go", "placeWait = 5 * time.Second", "and scrapes worked out at once | 32; 4 | they wait in order, 503 after 5 s"},
		{"bus/door.go", "maxGuests = 128", "of those that have logged in | 128; 64"},
		{"bus/embedded.go", "maxLocals        = 64", "of those that have logged in | 128; 64"},
		{"bus/door.go", "firstWord = 2 * time.Second", "after the server asked | 2 s; 1 min"},
		{"bus/embedded.go", "silence   = 20 * time.Second", "after the server asked | 2 s; 1 min"}, // which asks twice before it gives up
		{"bus/embedded.go", "maxSubscriptions = 16", "time to read | 16; 128 KiB; 5 s"},
		{"bus/embedded.go", "maxPayload       = 2 * maxTrigger", "time to read | 16; 128 KiB; 5 s"},
		{"bus/embedded.go", "writeWait = 5 * time.Second", "time to read | 16; 128 KiB; 5 s"},
		{"bus/embedded.go", "maxSaid    = 20", "embedded server log | 20"},
		{"bus/streams.go", "maxTrigger  = 64 << 10", "for how long | 64 KiB; 64 MiB; 7 days"},
		{"bus/streams.go", "triggerBytes = 64 << 20", "for how long | 64 KiB; 64 MiB; 7 days"},
		{"bus/streams.go", "triggerAge = 7 * 24 * time.Hour", "for how long | 64 KiB; 64 MiB; 7 days"},
		{"bus/streams.go", "eventBytes = 1 << 30", "`audit.retain` and 1 GiB"},
		{"bus/triggers.go", "maxTriggersAhead = 10_000", "micro service answered at once | 10,000; 16"},
		{"bus/service.go", "serviceWorkers = 16", "micro service answered at once | 10,000; 16"},
		{"providers/huaweicloud/client.go", "defaultMaxAnswer = 4 << 20", "an error | 4 MiB; 250,000; 256 KiB; 64 KiB"},
		{"providers/huaweicloud/attempt.go", "maxParts = 250_000", "an error | 4 MiB; 250,000; 256 KiB; 64 KiB"},
		{"providers/huaweicloud/client.go", "MaxResponseHeaderBytes: 256 << 10", "an error | 4 MiB; 250,000; 256 KiB; 64 KiB"},
		{"providers/huaweicloud/message.go", "maxErrorBody = 64 << 10", "an error | 4 MiB; 250,000; 256 KiB; 64 KiB"},
		{"providers/huaweicloud/metadata.go", "maxMetadata     = 64 << 10", "an answer; time | 64 KiB; 3 s"},
		{"providers/huaweicloud/metadata.go", "metadataTimeout = 3 * time.Second", "an answer; time | 64 KiB; 3 s"},
		{"providers/huaweicloud/list.go", "maxRows  = 100_000", "its pages | 100,000; 1000"},
		{"providers/huaweicloud/list.go", "maxPages = 1000", "its pages | 100,000; 1000"},
		{"certs/file.go", "MaxFileSize = 1 << 20", "password's hash | 1 MiB; 16384 bits; 8; 10,000,000"},
		{"certs/parse.go", "maxRSA = 16384", "password's hash | 1 MiB; 16384 bits; 8; 10,000,000"},
		{"certs/parse.go", "maxEncrypted = 8", "password's hash | 1 MiB; 16384 bits; 8; 10,000,000"},
		{"certs/pkcs8.go", "maxIterations = 10_000_000", "password's hash | 1 MiB; 16384 bits; 8; 10,000,000"},
		{"journal/journal.go", "maxRecord = 256 << 10", "a record | 256 KiB"},
	} {
		source, err := os.ReadFile("../../internal/" + limit.file)
		must(t, err)
		if !strings.Contains(string(source), limit.constant+"\n") && !strings.Contains(string(source), limit.constant+" ") && !strings.Contains(string(source), limit.constant+",") {
			t.Errorf("%s has no %s any more; say the new value in docs/security.md", limit.file, limit.constant)
		}
		if !strings.Contains(string(page), limit.told) {
			t.Errorf("docs/security.md does not have %q", limit.told)
		}
	}
}
