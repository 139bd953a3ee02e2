package bus

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"
)

// BenchmarkPublish is an event in the history, beside a message in the same stream.
func BenchmarkPublish(b *testing.B) {
	bus := prepared(b, config(b, b.TempDir()))
	var publishing, bare time.Duration
	for i := 0; b.Loop(); i++ {
		began := time.Now()
		must(b, bus.Publish(b.Context(), Event{
			ID: fmt.Sprint(i), Kind: "verified", Subject: "shop/shop.example.com", Policy: "shop", Time: began, Data: json.RawMessage(`{"policy":"shop"}`),
		}))
		published := time.Now()
		_, err := bus.js.Publish(b.Context(), "rotatord.event.shop.bare", []byte(`{"policy":"shop"}`))
		must(b, err)
		publishing += published.Sub(began)
		bare += time.Since(published)
	}
	b.ReportMetric(float64(publishing)/float64(bare), "event/message")
}

// BenchmarkQueue is one trigger while the places of so many others are occupied.
func BenchmarkQueue(b *testing.B) {
	for _, refused := range []int{0, 100, 10_000} {
		b.Run(fmt.Sprintf("beside %d", refused), func(b *testing.B) {
			occupied := true
			q := newQueue(func(context.Context, Work) error {
				if occupied {
					return errOccupied
				}
				return nil
			})
			for i := range refused {
				q.Enqueue(Work{ID: ID{"p", fmt.Sprint(i)}}, nil)
			}
			q.offerAll(b.Context(), false)
			occupied = false
			for b.Loop() {
				q.Enqueue(Work{ID: ID{"p", "new"}}, nil)
				q.offerAll(b.Context(), false)
			}
			if n := q.len(); n != refused {
				b.Errorf("%d wait, want %d", n, refused)
			}
		})
	}
}
