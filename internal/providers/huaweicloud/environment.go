package huaweicloud

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Environment signs with the keys that the official SDK would find (reference 1.6): in
// its environment variables, else in its profile file, which is read each time so that
// keys that somebody renews there are used at once.
type Environment struct {
	// Getenv is os.Getenv or a test's; nil: os.Getenv.
	Getenv func(string) string
}

// The variables of the official SDK.
const (
	envAK          = "HUAWEICLOUD_SDK_AK"
	envSK          = "HUAWEICLOUD_SDK_SK"
	envST          = "HUAWEICLOUD_SDK_SECURITY_TOKEN"
	envProject     = "HUAWEICLOUD_SDK_PROJECT_ID"
	envDomain      = "HUAWEICLOUD_SDK_DOMAIN_ID"
	envIAMEndpoint = "HUAWEICLOUD_SDK_IAM_ENDPOINT"
	envFile        = "HUAWEICLOUD_SDK_CREDENTIALS_FILE"
	envIDP         = "HUAWEICLOUD_SDK_IDP_ID"
	envIDPFile     = "HUAWEICLOUD_SDK_ID_TOKEN_FILE"
	envPodURI      = "HC_CONTAINER_CREDENTIALS_FULL_URI"
	envPodFile     = "HC_CONTAINER_AUTHORIZATION_TOKEN_FILE"
)

func (e Environment) open(c *Client, _ func(time.Time)) (session, error) {
	if e.Getenv == nil {
		e.Getenv = os.Getenv
	}
	found, err := e.read()
	if err != nil {
		return nil, fmt.Errorf("environment: %w", err)
	}
	if found.iamEndpoint != "" && c.config.Endpoints[IAM] == "" {
		if c.bases[IAM], err = parseEndpoint(found.iamEndpoint); err != nil {
			return nil, fmt.Errorf("environment: endpoint of iam in %s: %w", found.where, err)
		}
	}
	return &keySession{source: e, client: c}, nil
}

// settings are what the environment says.
type settings struct {
	where string
	// basic are for services of a project, global for those of the account.
	basic, global keys
	iamEndpoint   string
}

func (e Environment) get(_ context.Context, global bool) (keys, error) {
	found, err := e.read()
	if err != nil {
		return keys{}, fmt.Errorf("environment: %w", err)
	}
	if global {
		return found.global, nil
	}
	return found.basic, nil
}

func (Environment) refused(string) bool { return false }

func (Environment) owner(k keys) string { return k.id }

func (e Environment) read() (settings, error) {
	k := keys{id: e.Getenv(envAK), secret: e.Getenv(envSK), token: e.Getenv(envST), project: e.Getenv(envProject), domain: e.Getenv(envDomain)}
	switch {
	case k.id != "" && k.secret != "":
		return settings{envIAMEndpoint, k, k, e.Getenv(envIAMEndpoint)}, nil
	case k.id != "":
		return settings{}, fmt.Errorf("%s is set and %s is not", envAK, envSK)
	case k.secret != "":
		return settings{}, fmt.Errorf("%s is set and %s is not", envSK, envAK)
	case e.Getenv(envIDP) != "" || e.Getenv(envIDPFile) != "":
		return settings{}, fmt.Errorf("%s is set: logging in by OpenID Connect is not supported; use access keys, an agency or metadata", envIDP)
	}
	file, named := e.Getenv(envFile), true
	if file == "" {
		named = false
		file = filepath.Join(e.Getenv("HOME"), ".huaweicloud", "credentials")
	}
	found, err := readProfile(file)
	switch {
	case !named && errors.Is(err, os.ErrNotExist) && (e.Getenv(envPodURI) != "" || e.Getenv(envPodFile) != ""):
		return settings{}, fmt.Errorf("%s is set: logging in by pod identity is not supported; use access keys, an agency or metadata", envPodURI)
	case !named && errors.Is(err, os.ErrNotExist):
		return settings{}, fmt.Errorf("neither %s with %s nor the file %s is there", envAK, envSK, file)
	case err != nil:
		return settings{}, err
	}
	if found.iamEndpoint == "" {
		found.iamEndpoint = e.Getenv(envIAMEndpoint)
	}
	return found, nil
}

const maxProfile = 64 << 10

// readProfile reads a profile file of the official SDK.
func readProfile(path string) (settings, error) {
	text, err := readPrivate(path)
	defer clear(text)
	if err != nil {
		return settings{}, fmt.Errorf("profile file: %w", err)
	}
	found, err := profileSettings(string(text))
	if err != nil {
		return settings{}, fmt.Errorf("profile file %s: %w", path, err)
	}
	found.where = "profile file " + path
	return found, nil
}

// readPrivate reads a file that nobody else can read or change: what everybody may use
// is no secret.
func readPrivate(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // of a pipe nobody writes to, too
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	switch mode := info.Mode().Perm(); {
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no file", path)
	case mode&0o007 != 0:
		return nil, fmt.Errorf("%s has mode %#o: others may use it; chmod it to 0600", path, mode)
	case mode&0o020 != 0:
		return nil, fmt.Errorf("%s has mode %#o: its group may change it; chmod it to 0640 or less", path, mode)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxProfile+1))
	if err == nil && len(text) > maxProfile {
		err = fmt.Errorf("%s is longer than %d bytes", path, maxProfile)
	}
	return text, err
}

// profileSettings takes the sections [basic] and [global]; where one is missing the
// other stands for it.
func profileSettings(text string) (settings, error) {
	sections, err := parseProfile(text)
	if err != nil {
		return settings{}, err
	}
	basic, hasBasic := sections["basic"]
	global, hasGlobal := sections["global"]
	switch {
	case !hasBasic && !hasGlobal:
		return settings{}, errors.New("there is no section [basic] or [global]")
	case !hasBasic:
		basic = global
	case !hasGlobal:
		global = basic
	}
	found := settings{iamEndpoint: cmp.Or(basic["iam_endpoint"], global["iam_endpoint"])}
	if found.basic, err = profileKeys(basic); err != nil {
		return settings{}, err
	}
	found.global, err = profileKeys(global)
	return found, err
}

func profileKeys(section map[string]string) (keys, error) {
	k := keys{
		id: section["ak"], secret: section["sk"], token: section["security_token"],
		project: section["project_id"], domain: section["domain_id"],
	}
	switch {
	case k.id != "" && k.secret != "":
		return k, nil
	case section["idp_id"] != "" || section["id_token_file"] != "":
		return keys{}, errors.New("logging in by OpenID Connect (idp_id) is not supported; use access keys, an agency or metadata")
	}
	return keys{}, errors.New("the sections [basic] and [global] must have both ak and sk")
}

// parseProfile reads the simple form of INI that the SDK's own documentation shows:
// [section], key = value, and comments on lines of their own. Whatever different
// readers understand differently (quotes, escapes, comments behind a value, the same
// name twice) is refused: a key that is not quite the key is hard to find. No value is
// ever part of an error.
func parseProfile(text string) (map[string]map[string]string, error) {
	sections := map[string]map[string]string{}
	var section map[string]string
	number := 0
	for line := range strings.Lines(strings.TrimPrefix(text, "\uFEFF")) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		if line[0] == '[' {
			name := strings.TrimSpace(strings.Trim(line, "[]"))
			if line[len(line)-1] != ']' || name == "" || strings.ContainsAny(name, "[]") {
				return nil, fmt.Errorf("line %d: want [section]", number)
			}
			if _, again := sections[name]; again {
				return nil, fmt.Errorf("line %d: the section is there twice", number)
			}
			section = map[string]string{}
			sections[name] = section
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		switch _, again := section[key]; {
		case !ok || key == "":
			return nil, fmt.Errorf("line %d: want key = value", number)
		case section == nil:
			return nil, fmt.Errorf("line %d: want a [section] first", number)
		case again:
			return nil, fmt.Errorf("line %d: the key is there twice in its section", number)
		case strings.ContainsAny(value, " \t\"'`#;\\"):
			return nil, fmt.Errorf("line %d: want a value without spaces, quotes, backslashes, # and ;", number)
		}
		section[key] = value
	}
	return sections, nil
}
