package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
)

// home makes an empty directory for a daemon, with these policies.
func home(parent string, policies map[string]string) (string, error) {
	dir := filepath.Join(parent, "daemon")
	err := errors.Join(os.RemoveAll(dir), os.MkdirAll(filepath.Join(dir, "policies"), 0o700))
	for name, text := range policies {
		err = errors.Join(err, os.WriteFile(policyFile(dir, name), []byte(text), 0o600))
	}
	return dir, err
}

// policyFile is where a daemon with this home reads a policy.
func policyFile(dir, name string) string { return filepath.Join(dir, "policies", name+".yaml") }

// watching is home for a daemon that only watches a directory; extra is added to what is said of that.
func (b *bench) watching(root, extra string) (string, error) {
	return home(b.dir, map[string]string{"watched": fmt.Sprintf("name: watched\nsource: {directory: {path: %s, recursive: true%s}}\n", root, extra)})
}

// fetch gets a URL and reads the answer to its end.
func fetch(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, response.Body)
	return errors.Join(err, response.Body.Close())
}
