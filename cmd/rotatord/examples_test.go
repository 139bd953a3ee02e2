package main

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/policy"
)

// TestExamplePoliciesLoad checks every file of policies/ with a configuration that has
// the cloud they name.
func TestExamplePoliciesLoad(t *testing.T) {
	files, err := policy.Files("../../policies")
	if err != nil || len(files) < 4 {
		t.Fatalf("examples: %v, %v", files, err)
	}
	config := exampleConfig(t)
	var copies []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		// A CA of the example's host is not on this one.
		text = regexp.MustCompile(`ca_file: \S+`).ReplaceAll(text, []byte("ca_file: "+filepath.Join(filepath.Dir(config), "secret")))
		copies = append(copies, filepath.Join(filepath.Dir(config), filepath.Base(file)))
		if err := os.WriteFile(copies[len(copies)-1], text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	expectNothingFound(t, config, copies)
}

// expectNothingFound wants neither mistakes nor warnings in what we show to others.
func expectNothingFound(t *testing.T, config string, files []string) {
	t.Helper()
	set, problems := policy.Read(config, files, os.Getenv)
	if len(problems) == 0 {
		problems = set.Prove(time.Now(), &policy.Pointer{})
	}
	if len(problems) > 0 {
		t.Error(problems)
	}
}

func exampleConfig(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"rotatord.yaml": "clouds: {prod: {region: eu-west-101, auth: {access_key: {id: AK, secret_file: secret}}}}\n",
		"secret":        "s3cret\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "rotatord.yaml")
}
