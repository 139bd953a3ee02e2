package cloudsim

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"sync"
)

// The key algorithms of the private CA service (reference 4.2), without SM2.
const (
	keyRSA2048 = "RSA2048"
	keyRSA4096 = "RSA4096"
	keyEC256   = "EC256"
	keyEC384   = "EC384"
)

func isKeyAlgorithm(name string) bool {
	return name == keyRSA2048 || name == keyRSA4096 || name == keyEC256 || name == keyEC384
}

// rsaPool keeps the RSA keys that the process has made. Making one takes long, so every simulator of the process gets
// the same ones in the same order; within a simulator no key is handed out twice.
var rsaPool = struct {
	mu   sync.Mutex
	keys map[string][]crypto.Signer // by key algorithm
}{keys: map[string][]crypto.Signer{}}

// newKey is the key number nth of an algorithm; EC keys are new each time.
func newKey(algorithm string, nth int) (crypto.Signer, error) {
	switch algorithm {
	case keyEC256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case keyEC384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case keyRSA2048:
		return rsaKey(algorithm, 2048, nth)
	case keyRSA4096:
		return rsaKey(algorithm, 4096, nth)
	}
	return nil, fmt.Errorf("key algorithm %q", algorithm)
}

func rsaKey(algorithm string, bits, nth int) (crypto.Signer, error) {
	rsaPool.mu.Lock()
	defer rsaPool.mu.Unlock()
	for len(rsaPool.keys[algorithm]) <= nth {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			return nil, err
		}
		rsaPool.keys[algorithm] = append(rsaPool.keys[algorithm], key)
	}
	return rsaPool.keys[algorithm][nth], nil
}
