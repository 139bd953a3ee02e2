package bus

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// TestStorm has 25,000 triggers, 100,000 with ROTATORD_TEST_LONG, come as fast as a publisher can send them: each means one of
// 1,000 assignments, every tenth means all of them. They become the work that they mean: no
// trigger is lost, each is acknowledged, and each assignment is looked at after the last
// trigger that means it, and only as often as triggers are taken in while others wait.
func TestStorm(t *testing.T) {
	triggers := 25_000
	if os.Getenv("ROTATORD_TEST_LONG") != "" {
		triggers = 100_000
	}
	const (
		assignments = 1_000
		everyoneOf  = 10
		// maxHeap is generous: what waits is small, and the server's caches are in it too.
		maxHeap = 192 << 20
	)
	b := prepared(t, withListener(config(t, scratch(t))))
	all := make([]Work, assignments)
	for i := range all {
		all[i] = Work{ID: ID{"shop", fmt.Sprint(i)}, Place: Any, Trigger: "nats", Asked: time.Now()}
	}
	q := NewQueue(b)
	var (
		mu       sync.Mutex
		order    int
		heard    int
		last     = map[ID]int{} // when the last trigger of each was heard
		looked   = map[ID]int{} // and when the last look began
		looks    int
		released = make(chan struct{})
	)
	next := func() int { order++; return order }
	listening := background(t, func(ctx context.Context) error {
		return b.Triggers(ctx, func(tr Trigger) {
			mu.Lock()
			defer mu.Unlock()
			heard++
			if tr.Certificate == "" {
				at := next()
				for _, w := range all {
					last[w.ID] = at
				}
				q.EnqueueAll("all", all, tr.Done)
				return
			}
			id := ID{"shop", tr.Certificate}
			last[id] = next()
			q.EnqueueAll(tr.Certificate, []Work{{ID: id, Place: Any, Trigger: "nats", Asked: tr.At}}, tr.Done)
		})
	})
	defer listening.stop(t)
	defer background(t, func(ctx context.Context) error { q.Run(ctx); return ctx.Err() }).stop(t)
	working := work(t, b, 8, func(ctx context.Context, w Work) error {
		mu.Lock()
		looks++
		looked[w.ID] = next()
		mu.Unlock()
		<-released
		return nil
	}, q.Freed)
	defer working.stop(t)

	var before, during runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	publish(t, b.ListenURL(), triggers, func(i int) (subject, body string) {
		if i%everyoneOf == 0 {
			return "rotatord.trigger.shop", ""
		}
		return "rotatord.trigger.shop", fmt.Sprintf(`{"certificate":"%d"}`, i%assignments)
	})
	t.Logf("all triggers are in the stream")

	// Nothing is worked off yet. As many are taken in as may wait, and no more.
	eventually(t, "triggers that wait", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return heard >= maxTriggersAhead
	})
	runtime.GC()
	runtime.ReadMemStats(&during)
	grown := int64(during.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("%d MB more on the heap", grown>>20)
	if grown > maxHeap {
		t.Errorf("the triggers hold %d MB", grown>>20)
	}
	backlog, err := b.Backlog(t.Context())
	must(t, err)
	waiting := backlog.Consumers[ConsumerTrigger]
	if backlog.Depth == 0 || backlog.Oldest.IsZero() || backlog.Oldest.After(time.Now()) || waiting.Pending == 0 || waiting.AckPending == 0 {
		t.Errorf("the storm cannot be seen: %+v", backlog)
	}

	mu.Lock()
	started := looks
	mu.Unlock()
	close(released)
	long(t, "the end of the storm", func() bool {
		backlog, err := b.Backlog(t.Context())
		must(t, err)
		return backlog.Depth == 0 && q.len() == 0 && backlog.Consumers[ConsumerTrigger] == Waiting{}
	})
	mu.Lock()
	defer mu.Unlock()
	t.Logf("%d looks, %d of them before", looks, started)
	if acks := b.cfg.Meter.(*tally).count("trigger ack"); heard < triggers || acks != triggers {
		t.Errorf("%d triggers heard, %d acknowledged", heard, acks)
	}
	for id, at := range last {
		if looked[id] < at {
			t.Errorf("%s was not looked at after its last trigger", id)
		}
	}
	if len(last) != assignments || looks > triggers/4 {
		t.Errorf("%d looks at %d assignments", looks, len(last))
	}
}

// publish sends so many messages, each of which the stream says to have, as fast as it takes
// them.
func publish(t *testing.T, url string, n int, message func(i int) (subject, body string)) {
	t.Helper()
	c := dial(t, url)
	inbox := c.NewInbox()
	answers := make(chan *nats.Msg, 4096)
	_, err := c.ChanSubscribe(inbox, answers)
	must(t, err)
	ahead := make(chan struct{}, 2048)
	go func() {
		for i := range n {
			ahead <- struct{}{}
			subject, body := message(i)
			if err := c.PublishRequest(subject, inbox, []byte(body)); err != nil {
				t.Error(err)
			}
		}
	}()
	for range n {
		answer := receive(t, answers, "the stream's word")
		if len(answer.Data) == 0 || string(answer.Data[:9]) != `{"stream"` {
			t.Fatalf("the stream did not take a trigger: %s %v", answer.Data, answer.Header)
		}
		<-ahead
	}
}
