package main

import (
	"fmt"
	"regexp"
	"strings"
)

// shape says which members an object of a type must have, by their names in YAML.
type shape struct {
	required string
	// one are groups of which exactly one member must be there; any, at least one; no, at
	// most one.
	one []string
	any []string
	no  []string
	// alone says that there is exactly one member, whichever.
	alone bool
	// needs are members that are nothing without others: "bake: targets".
	needs []string
}

var shapes = map[string]shape{
	"NATS": {
		no: []string{"url embedded", "credentials_file nkey_seed_file user"},
		needs: []string{
			"credentials_file: url", "nkey_seed_file: url", "user: url password_file", "password_file: user", "tls: url",
		},
	},
	"NATSTLS":         {needs: []string{"cert_file: key_file", "key_file: cert_file"}},
	"EmbeddedNATS":    {required: "listen", needs: []string{"user: password_file", "password_file: user"}},
	"Cloud":           {required: "region auth", needs: []string{"client_cert_file: client_key_file", "client_key_file: client_cert_file"}},
	"Auth":            {alone: true},
	"AccessKey":       {required: "id secret_file"},
	"Password":        {required: "user password_file domain"},
	"Agency":          {required: "agency", one: []string{"domain domain_id", "access_key password metadata environment"}},
	"Policy":          {required: "name source"},
	"Source":          {alone: true},
	"Directory":       {required: "path"},
	"PrivateCA":       {required: "issuer_id common_name validity"},
	"CustomExtension": {required: "oid value"},
	"IdentityCenter":  {required: "instance_id application_instance_id"},
	"Target":          {required: "name", one: []string{"waf apig file"}},
	"WAF":             {required: "hosts"},
	"APIG":            {required: "instance_id domains"},
	"File": {
		required: "directory", any: []string{"certificate full_chain combined pkcs12"},
		needs: []string{"pkcs12: pkcs12_password_file", "pkcs12_password_file: pkcs12"},
	},
	"Reload": {one: []string{"unit command"}},
	"Verify": {needs: []string{"addresses: endpoints"}},
	"Canary": {needs: []string{"bake: targets"}},
	"Window": {required: "start duration"},
	"Freeze": {required: "from to"},
}

// limits are what a member's value must be like, by type and name in YAML. Sets, patterns
// and numbers are those of package policy wherever it has them.
var limits = map[string][]limit{
	"Config.node":        {pattern("nodePattern"), but("any")},
	"Config.clouds":      {keys("namePattern")},
	"Brake.max_per_hour": {atLeast(0)},
	"HTTP.listen":        {like(listenAddress)},
	"NATS.url":           {like(`^\s*` + natsURL + `\s*(,\s*` + natsURL + `\s*)*$`)},
	"NATS.prefix":        {pattern("prefixPattern")},
	"NATS.replicas":      {set("replicaCounts")},

	"EmbeddedNATS.listen": {like(listenAddress)},

	"Log.level":  {set("LogLevels")},
	"Log.format": {set("LogFormats")},

	"Cloud.project_id":  {pattern("projectPattern")},
	"Cloud.endpoints":   {known("services"), each(like(`^https://[^@\s]+$`))},
	"Cloud.limits":      {known("services")},
	"Cloud.proxy":       {like(`^(http|https|socks5)://[^@\s]+$`)},
	"Metadata.endpoint": {like(`^http://[^@\s/?#]+/?$`)},
	"Limit.rate":        {atLeast(0)},
	"Limit.burst":       {atLeast(0)},
	"Limit.concurrency": {atLeast(0)},

	"Policy.name":     {pattern("namePattern")},
	"Match.dns_names": {each(notEmpty)},
	"When.on":         {each(set("triggers"))},
	"When.subjects":   {each(pattern("subjectPattern"))},
	"When.schedule":   {like(cron)},
	"Window.start":    {like(cron)},

	"Verify.endpoints":       {each(like(`^[A-Za-z0-9][A-Za-z0-9.-]*:[0-9]{1,5}$`))},
	"Verify.addresses":       {each(like(`^[0-9A-Fa-f.:\[\]]+$`))},
	"Verify.chain":           {set("chains")},
	"Verify.successes":       {atLeast(1), atMost("maxSuccesses")},
	"Verify.on_failure":      {set("onFailures")},
	"Guard.allow_lost_names": {each(notEmpty)},
	"Retain.superseded":      {atLeast(0)},
	"Drift.action":           {set("driftActions")},
	"Canary.targets":         {unique, each(pattern("namePattern"))},

	"PrivateCA.issuer_id":           {pattern("uuidPattern")},
	"PrivateCA.common_name":         {pattern("commonNamePattern")},
	"PrivateCA.names":               {unique, most("maxNames")},
	"PrivateCA.signature":           {set("signatures")},
	"PrivateCA.key_usages":          {each(set("keyUsages"))},
	"PrivateCA.extended_key_usages": {each(set("extendedKeyUsages"))},
	"PrivateCA.enterprise_project":  {pattern("enterprisePattern")},
	"PrivateCA.superseded":          {set("issuedSuperseded")},
	"IssuedKey.algorithm":           {set("keyAlgorithms")},
	"IssuedKey.held":                {set("keyHolders")},
	"Subject.country":               {pattern("countryPattern")},
	"Subject.state":                 {pattern("dnPattern"), longest(128)},
	"Subject.locality":              {pattern("dnPattern"), longest(128)},
	"Subject.organization":          {pattern("dnPattern"), longest(64)},
	"Subject.organizational_unit":   {pattern("dnPattern"), longest(64)},
	"CustomExtension.oid":           {pattern("oidPattern"), longest(64)},
	"CustomExtension.value":         {longest(64)},

	"IdentityCenter.instance_id":             {pattern("identityInstancePattern")},
	"IdentityCenter.application_instance_id": {pattern("applicationPattern")},
	"IdentityCenter.superseded":              {set("applicationSuperseded")},
	"Activate.acknowledgements":              {unique, each(pattern("partyPattern"))},

	"Target.name":            {pattern("namePattern")},
	"WAF.mode":               {set("wafModes")},
	"WAF.enterprise_project": {pattern("enterprisePattern")},
	"APIG.scope":             {set("apigScopes")},
	"APIG.instance_id":       {pattern("instancePattern")},
	"APIG.replace":           {set("apigReplacements")},
	"File.certificate":       {pattern("filePattern")},
	"File.chain":             {pattern("filePattern")},
	"File.full_chain":        {pattern("filePattern")},
	"File.key":               {pattern("filePattern")},
	"File.combined":          {pattern("filePattern")},
	"File.pkcs12":            {pattern("filePattern")},
	"File.owner":             {pattern("ownerPattern")},
	"File.group":             {pattern("ownerPattern")},
	"Reload.unit":            {pattern("unitPattern")},
	"Reload.command":         {first(`^/`)},
}

const (
	listenAddress = `^([^:\[\]]*|\[[^\[\]]*\]):[0-9]{1,5}$`
	natsURL       = `(nats|tls|ws|wss)://[^@,\s]+`
	cron          = `^\s*((CRON_)?TZ=\S+\s+)?(@\S.*|\S+(\s+\S+){4})\s*$`
	// The numbers are not negative, and a part with w or d comes first.
	duration = `^(\d+w(\d+d)?` + goDuration + `*|\d+d` + goDuration + `*|` + goDuration + `+|0)$`
	// goDuration is one number with a unit, as time.ParseDuration reads it.
	goDuration = `((\d+(\.\d*)?|\.\d+)(ns|us|\x{b5}s|\x{3bc}s|ms|s|m|h))`
)

// scalars are the types that read their YAML themselves.
var scalars = map[string]func(g *generator) (*schema, error){
	"Duration": func(*generator) (*schema, error) {
		// The number 0 needs no unit.
		return &schema{
			Type: []string{"string", "integer"}, Pattern: literal(duration), Minimum: new(0), Maximum: new(0),
			Examples: []any{"90s", "12h", "30d", "1w"},
		}, nil
	},
	"Percent": func(*generator) (*schema, error) {
		return &schema{Type: "string", Pattern: `^0*([1-9]\d?(\.\d*)?|\.\d*[1-9]\d*|0\.\d*[1-9]\d*)%$`, Examples: []any{"66%", "12.5%"}}, nil
	},
	"FileMode": func(g *generator) (*schema, error) {
		g.used["modePattern"] = true // and nothing for everybody
		return &schema{Type: "string", Pattern: `^0?[0-7]{2}0$`, Examples: []any{"0600", "0640"}}, nil
	},
	"Validity": func(g *generator) (*schema, error) {
		s := &schema{Type: "string", Examples: []any{"12h", "90d", "6mo", "1y"}}
		return s, pattern("validityPattern")(g, s)
	},
	"Moment": func(*generator) (*schema, error) {
		return &schema{
			Type: "string", Pattern: `^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2}))?$`,
			Examples: []any{"2026-12-20", "2026-12-20T18:00:00+01:00"},
		}, nil
	},
	"Names": func(g *generator) (*schema, error) {
		host, err := g.pattern("hostPattern")
		if err != nil {
			return nil, err
		}
		// The check makes names small first.
		host = strings.ReplaceAll(host, "a-z", "A-Za-z")
		return &schema{OneOf: []*schema{
			{Const: "covered"},
			{Type: "array", MinItems: 1, UniqueItems: true, Items: &schema{Type: "string", Pattern: host}},
		}}, nil
	},
	"AlternativeName": func(g *generator) (*schema, error) {
		kinds, err := g.source.set("nameKinds")
		if err != nil {
			return nil, err
		}
		var either []string
		for _, kind := range kinds {
			eitherCase := regexp.MustCompile(`.`).ReplaceAllStringFunc(fmt.Sprint(kind), func(letter string) string {
				return "[" + letter + strings.ToLower(letter) + "]"
			})
			either = append(either, eitherCase)
		}
		return &schema{
			Type: "string", Pattern: "^(" + strings.Join(either, "|") + "):.",
			Examples: []any{"dns:shop.example.com", "ip:10.0.0.7", "email:ops@example.com", "uri:spiffe://example.com/shop"},
		}, nil
	},
}

// A limit narrows the schema of a member.
type limit func(*generator, *schema) error

func set(name string) limit {
	return func(g *generator, s *schema) error {
		values, err := g.source.set(name)
		g.used[name] = true
		s.Enum = values
		return err
	}
}

func pattern(name string) limit {
	return func(g *generator, s *schema) error {
		text, err := g.pattern(name)
		s.Pattern = text
		return err
	}
}

// like has a pattern that package policy has not, because it is checked otherwise there,
// and more closely.
func like(pattern string) limit {
	return func(_ *generator, s *schema) error { s.Pattern = pattern; return nil }
}

func but(value string) limit {
	return func(_ *generator, s *schema) error { s.Not = &schema{Const: value}; return nil }
}

func longest(n int) limit {
	return func(_ *generator, s *schema) error { s.MaxLength = n; return nil }
}

func atLeast(n int) limit {
	return func(_ *generator, s *schema) error { s.Minimum = &n; return nil }
}

func atMost(constant string) limit {
	return func(g *generator, s *schema) error {
		n, err := g.source.number(constant)
		s.Maximum = &n
		return err
	}
}

func most(constant string) limit {
	return func(g *generator, s *schema) error {
		n, err := g.source.number(constant)
		s.MaxItems = n
		return err
	}
}

func notEmpty(_ *generator, s *schema) error { s.MinLength = 1; return nil }

func unique(_ *generator, s *schema) error { s.UniqueItems = true; return nil }

// each is for every item of a list, or every value of a mapping.
func each(of limit) limit {
	return func(g *generator, s *schema) error {
		if s.Items != nil {
			return of(g, s.Items)
		}
		for _, one := range s.Properties {
			if err := of(g, one.of); err != nil {
				return err
			}
		}
		return nil
	}
}

// first is for the first item of a list.
func first(pattern string) limit {
	return func(_ *generator, s *schema) error {
		s.MinItems = 1
		s.PrefixItems = []*schema{{Pattern: pattern}}
		return nil
	}
}

// keys is for the keys of a mapping that may be anything like this.
func keys(patternName string) limit {
	return func(g *generator, s *schema) error {
		s.PropertyNames = &schema{}
		return pattern(patternName)(g, s.PropertyNames)
	}
}

// known is for a mapping whose keys are a closed set.
func known(setName string) limit {
	return func(g *generator, s *schema) error {
		names, err := g.source.set(setName)
		for _, name := range names {
			value := *s.AdditionalProperties.(*schema)
			s.Properties = append(s.Properties, member{fmt.Sprint(name), &value})
		}
		s.AdditionalProperties = false
		return err
	}
}
