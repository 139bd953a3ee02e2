package watcher

import (
	"os"
	"path/filepath"
	"testing"
)

// Look sees once what Run would see at its start.
func TestLook(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "x.pem"), []byte("-----BEGIN CERTIFICATE-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	now, err := Look(Config{Root: dir})
	if err != nil || !now.Up || now.Len() != 0 || len(now.Problems) != 1 {
		t.Errorf("Look says %+v, %v", now, err)
	}
	now, err = Look(Config{Root: filepath.Join(dir, "missing")})
	if err != nil || now.Up || now.Err == nil {
		t.Errorf("of a missing directory Look says %+v, %v", now, err)
	}
}
