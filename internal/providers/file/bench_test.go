package file

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// BenchmarkDeploy brings a bundle to a directory, beside the same files written, synced and
// renamed one by one, as a script would.
func BenchmarkDeploy(b *testing.B) {
	s := newSetup(b)
	dir := b.TempDir()
	var deploying, writing time.Duration
	for b.Loop() {
		bundle := s.bundle()
		began := time.Now()
		if err := s.deploy(bundle); err != nil {
			b.Fatal(err)
		}
		deployed := time.Now()
		for _, name := range []string{s.cfg.FullChain, s.cfg.Key, s.cfg.Chain} {
			if err := writeSynced(filepath.Join(dir, name), bundle.CertificatePEM()); err != nil {
				b.Fatal(err)
			}
		}
		deploying += deployed.Sub(began)
		writing += time.Since(deployed)
	}
	b.ReportMetric(float64(deploying)/float64(b.N), "deploy-ns/op")
	b.ReportMetric(float64(deploying)/float64(writing), "deploy/write")
}

func writeSynced(path string, data []byte) error {
	f, err := os.Create(path + ".new")
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
