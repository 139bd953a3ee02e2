package huaweicloud

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// memory keeps a refused password over the end of the process: a daemon that is started
// again and again would otherwise lock the account with its fifth start. The file holds
// a time and a salted digest that is slow to make, never the password. Its methods are
// for one goroutine at a time; without a path they do nothing.
type memory struct {
	path   string
	rounds int
	read   bool
}

// remembered is the content of the file.
type remembered struct {
	Until  time.Time `json:"until"`
	Times  int       `json:"times"`
	Salt   []byte    `json:"salt"`
	Digest []byte    `json:"digest"`
}

const (
	saltLength = 16
	maxMemory  = 4 << 10
	// digestRounds makes guessing slow for whoever gets the file. One digest is made at
	// the start and one for each refusal.
	digestRounds = 600_000
)

// digest is over the user, too: another login that comes to use the file is another one.
func (m *memory) digest(login Password, password string, salt []byte) ([]byte, error) {
	who := sha256.Sum256(fmt.Appendf(nil, "%q %q", login.Domain, login.User))
	return pbkdf2.Key(sha256.New, password, append(who[:], salt...), m.rounds, sha256.Size)
}

// load returns what the file holds, once; nil for nothing. A file that cannot be
// understood is no reason not to log in.
func (m *memory) load() *remembered {
	if m.path == "" || m.read {
		return nil
	}
	m.read = true
	f, err := os.Open(m.path)
	if err != nil {
		return nil
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxMemory))
	if err != nil {
		return nil
	}
	var r remembered
	if json.Unmarshal(text, &r) != nil || len(r.Salt) != saltLength || len(r.Digest) != sha256.Size || r.Times < 1 {
		return nil
	}
	// A time that is over still says how often: the next pause is longer for it.
	if latest := time.Now().Add(lastPause); r.Until.After(latest) {
		r.Until = latest // the clock was set back, or somebody wrote nonsense
	}
	return &r
}

// is reports whether it is this password that was refused.
func (m *memory) is(r *remembered, login Password, password string) bool {
	sum, err := m.digest(login, password, r.Salt)
	return err == nil && subtle.ConstantTimeCompare(sum, r.Digest) == 1
}

// keep writes the file so that it is there, whole, whatever happens next.
func (m *memory) keep(refused refusal, login Password, password string) (err error) {
	if m.path == "" {
		return nil
	}
	m.read = true
	r := remembered{Until: refused.until.UTC(), Times: refused.times, Salt: make([]byte, saltLength)}
	if _, err := rand.Read(r.Salt); err != nil {
		return err
	}
	if r.Digest, err = m.digest(login, password, r.Salt); err != nil {
		return err
	}
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	dir := filepath.Dir(m.path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".refused-") // its mode is 0600
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), m.path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// forget removes the file: the password was taken.
func (m *memory) forget() error {
	if m.path == "" {
		return nil
	}
	m.read = true
	if err := os.Remove(m.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
