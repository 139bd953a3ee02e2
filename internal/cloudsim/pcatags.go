package cloudsim

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Tags of private certificates: reference 4.8.

const (
	mostTags     = 20
	tagKeyLimit  = 128
	tagTextLimit = 255
)

type tag struct{ key, value string }

// readTags reads a list of objects with key and value, at least one.
func (s *Sim) readTags(body members) ([]tag, error) {
	list, given, err := body.list("tags")
	if err != nil {
		return nil, err
	}
	if !given || len(list) == 0 || len(list) > mostTags {
		return nil, errors.New("tags must hold 1 to 20 tags")
	}
	var tags []tag
	for _, raw := range list {
		t, err := s.readTag(raw)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(tags, func(other tag) bool { return other.key == t.key }) {
			return nil, errors.New("tags holds a key twice")
		}
		tags = append(tags, t)
	}
	return tags, nil
}

func (s *Sim) readTag(raw json.RawMessage) (tag, error) {
	var t tag
	given, err := parseMembers(raw, "key", "value")
	if err != nil {
		return t, err
	}
	if t.key, err = given.needText("key"); err != nil {
		return t, err
	}
	if t.value, err = given.needText("value"); err != nil {
		return t, err
	}
	return t, s.checkTag(t)
}

// checkTag knows the rules of keys and values.
func (s *Sim) checkTag(t tag) error {
	if t.key == "" || utf8.RuneCountInString(t.key) > tagKeyLimit || !isTagText(t.key) {
		return errors.New("a key of tags is invalid")
	}
	if strings.Contains(t.key, "/") && s.either("slash in a tag key") { // [SDK] has "/" among the signs of values only
		return errors.New("a key of tags is invalid: /")
	}
	if utf8.RuneCountInString(t.value) > tagTextLimit || !isTagText(t.value) {
		return errors.New("a value of tags is invalid")
	}
	return nil
}

// isTagText allows letters, digits and spaces of any script, and some signs.
func isTagText(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune(" _.:=+-@/", r)
	})
}

// createTags is POST …/tags/create: all or nothing; a key that is there already gets the new value.
func (s *Sim) createTags(c *call) answer {
	tags, p, refusal, ok := s.tagCall(c)
	if !ok {
		return refusal
	}
	after := maps.Clone(p.tags)
	for _, t := range tags {
		after[t.key] = t.value
	}
	if len(after) > mostTags {
		return refuse(400, codePCATags, "A certificate has at most 20 tags.")
	}
	changed := !maps.Equal(p.tags, after)
	p.tags = after
	return answer{status: 204, effect: changed, objects: []string{p.id}}
}

// deleteTags is DELETE …/tags/delete. The key decides; one that is not there is no error.
func (s *Sim) deleteTags(c *call) answer {
	tags, p, refusal, ok := s.tagCall(c)
	if !ok {
		return refusal
	}
	before := len(p.tags)
	for _, t := range tags {
		delete(p.tags, t.key)
	}
	return answer{status: 204, effect: len(p.tags) < before, objects: []string{p.id}}
}

func (s *Sim) tagCall(c *call) ([]tag, *privateCertificate, answer, bool) {
	body, err := pcaBody(c, "tags")
	if err != nil {
		return nil, nil, refusePCA(err), false
	}
	tags, err := s.readTags(body)
	if err != nil {
		return nil, nil, refusePCA(err), false
	}
	p, refusal, ok := s.findPrivate(c)
	return tags, p, refusal, ok
}

// listTags is GET …/tags.
func (s *Sim) listTags(c *call) answer {
	if err := pcaQuery(c); err != nil {
		return refusePCA(err)
	}
	p, refusal, ok := s.findPrivate(c)
	if !ok {
		return refusal
	}
	return answer{status: 200, body: object{"tags": p.tagRows()}, objects: []string{p.id}}
}

func (p *privateCertificate) tagRows() []any {
	rows := []any{}
	for _, key := range slices.Sorted(maps.Keys(p.tags)) {
		rows = append(rows, object{"key": key, "value": p.tags[key]})
	}
	return rows
}

// tagFilter is the body of a search: keys are joined by "and", the values of one by "or"; without values any will do.
type tagFilter struct {
	values        map[string][]string
	names         []string // matches for resource_name
	limit, offset int
}

// filterPrivate is POST /v1/private-certificates/resource-instances/filter.
func (s *Sim) filterPrivate(c *call) answer {
	body, err := pcaBody(c, "tags", "limit", "offset", "matches")
	if err != nil {
		return refusePCA(err)
	}
	filter, err := readFilter(body)
	if err != nil {
		return refusePCA(err)
	}
	found := slices.DeleteFunc(s.listedPrivate(c.now), func(p *privateCertificate) bool { return !filter.takes(p) })
	from := min(filter.offset, len(found))
	rows := []any{}
	for _, p := range found[from:min(from+filter.limit, len(found))] {
		rows = append(rows, object{
			"resource_id": p.id, "resource_name": p.name.commonName, "resource_detail": nil, "tags": p.tagRows(),
		})
	}
	return answer{status: 200, body: object{"total_count": len(found), "resources": rows}}
}

func readFilter(body members) (tagFilter, error) {
	f := tagFilter{values: map[string][]string{}, limit: 10}
	var err error
	if _, given := body["limit"]; given {
		if f.limit, err = body.whole("limit"); err != nil || f.limit != 10 && f.limit != 20 && f.limit != 50 {
			return f, errors.New("limit must be 10, 20 or 50")
		}
	}
	if f.offset, err = body.whole("offset"); err != nil || f.offset < 0 {
		return f, errors.New("offset must be a number and not negative")
	}
	if err := f.readTags(body); err != nil {
		return f, err
	}
	return f, f.readMatches(body)
}

func (f *tagFilter) readTags(body members) error {
	list, _, err := body.list("tags")
	if err != nil {
		return err
	}
	if len(list) > mostTags {
		return errors.New("tags holds more than 20 keys")
	}
	for _, raw := range list {
		given, err := parseMembers(raw, "key", "values")
		if err != nil {
			return err
		}
		key, err := given.needText("key")
		if err != nil {
			return err
		}
		values, err := given.texts("values")
		if _, there := given["values"]; err != nil || !there || len(values) > mostTags {
			return errors.New("values must be a list of at most 20 strings")
		}
		if _, twice := f.values[key]; twice || key == "" || len(slices.Compact(slices.Sorted(slices.Values(values)))) != len(values) {
			return errors.New("tags holds an empty key, or a key or a value twice")
		}
		f.values[key] = values
	}
	return nil
}

// readMatches knows resource_name only.
func (f *tagFilter) readMatches(body members) error {
	list, _, err := body.list("matches")
	if err != nil {
		return err
	}
	for _, raw := range list {
		given, err := parseMembers(raw, "key", "value")
		if err != nil {
			return err
		}
		key, err := given.needText("key")
		if err != nil {
			return err
		}
		value, err := given.needText("value")
		if err != nil || key != "resource_name" || len(f.names) > 0 {
			return errors.New("matches must hold resource_name once and nothing else")
		}
		f.names = append(f.names, value)
	}
	return nil
}

func (f *tagFilter) takes(p *privateCertificate) bool {
	for _, name := range f.names {
		if !strings.Contains(p.name.commonName, name) {
			return false
		}
	}
	for key, values := range f.values {
		value, tagged := p.tags[key]
		if !tagged || len(values) > 0 && !slices.Contains(values, value) {
			return false
		}
	}
	return true
}
