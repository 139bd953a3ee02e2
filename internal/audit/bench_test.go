package audit

import (
	"crypto/sha256"
	"encoding/json"
	"testing"
	"time"
)

// BenchmarkHash is the hash of an event, beside one of the bytes as they are.
func BenchmarkHash(b *testing.B) {
	data, err := json.Marshal(map[string]any{
		"chain": Link{Sequence: 7}, "policy": "shop", "certificate": "shop.example.com", "reason": "a new certificate on disk",
		"endpoints": []string{"shop.example.com", "www.example.com"}, "request_ids": []string{"0f3c5a9d7e1b4862a0c4d8f21b6e9357"},
	})
	if err != nil {
		b.Fatal(err)
	}
	e := Entry{ID: "1", Type: TypePrefix + "verified", Subject: "shop/shop.example.com", Time: start, Data: data}
	var hashing, bare time.Duration
	for b.Loop() {
		began := time.Now()
		if _, err := Hash(e); err != nil {
			b.Fatal(err)
		}
		hashed := time.Now()
		_ = sha256.Sum256(data)
		hashing += hashed.Sub(began)
		bare += time.Since(hashed)
	}
	b.ReportMetric(float64(hashing)/float64(bare), "hash/sha256")
}
