package certs

import (
	"path/filepath"
	"slices"
	"strings"
)

// few is how many files, or certificates, are so few that going through them all is no work.
const few = 16

// holders are the files that hold one thing, a certificate or a key, in no order: mostly one,
// and as many as there are files for an intermediate or a key that all have in common.
type holders struct {
	files []*FileFacts
	// found is nil where nothing is remembered.
	found *found
}

// found remembers what was found out of files.
type found struct {
	// places in files; nil while they are few.
	places map[*FileFacts]int
	// lowest is the first path in each directory, "" the first of all; nil until somebody
	// asks.
	lowest map[string]string
	// stems are the files by path without its ending; nil until somebody asks.
	stems map[string][]*FileFacts
}

// remember makes room for what is found out.
func (h *holders) remember() *found {
	if h.found == nil {
		h.found = &found{}
	}
	return h.found
}

// add adds a file, and reports whether an answer of firstFile changed.
func (h *holders) add(f *FileFacts) (changed bool) {
	h.files = append(h.files, f)
	if len(h.files) > few && (h.found == nil || h.found.places == nil) {
		h.remember().places = make(map[*FileFacts]int, len(h.files))
		for i, f := range h.files {
			h.found.places[f] = i
		}
	}
	if h.found == nil {
		return false
	}
	if h.found.places != nil {
		h.found.places[f] = len(h.files) - 1
	}
	if h.found.stems != nil {
		h.found.stems[stem(f.Path)] = append(h.found.stems[stem(f.Path)], f)
	}
	return h.found.noteLowest(f.Path)
}

// remove removes a file, and reports whether an answer of firstFile changed: the next is found
// when somebody asks.
func (h *holders) remove(f *FileFacts) (changed bool) {
	var place int
	if h.found != nil && h.found.places != nil {
		place = h.found.places[f]
		delete(h.found.places, f)
	} else {
		place = slices.Index(h.files, f)
	}
	last := len(h.files) - 1
	if place != last {
		h.files[place] = h.files[last]
		if h.found != nil && h.found.places != nil {
			h.found.places[h.files[place]] = place
		}
	}
	h.files[last] = nil // let the collector have it
	h.files = h.files[:last]
	if h.found == nil {
		return false
	}
	if h.found.stems != nil {
		h.found.stems[stem(f.Path)] = without(h.found.stems[stem(f.Path)], f)
		if len(h.found.stems[stem(f.Path)]) == 0 {
			delete(h.found.stems, stem(f.Path))
		}
	}
	if lowest := h.found.lowest; lowest != nil && (lowest[filepath.Dir(f.Path)] == f.Path || lowest[""] == f.Path) {
		h.found.lowest = nil
		return true
	}
	return false
}

// noteLowest keeps lowest right when a file came and reports whether an answer
// changed.
func (r *found) noteLowest(path string) bool {
	if r.lowest == nil {
		return false
	}
	changed := false
	for _, directory := range []string{filepath.Dir(path), ""} {
		if known, ok := r.lowest[directory]; !ok || path < known {
			r.lowest[directory] = path
			changed = true
		}
	}
	return changed
}

// firstFile returns the lowest path: in the directory if there is one, else of all.
func (h *holders) firstFile(directory string) (path string, sameDirectory bool) {
	r := h.remember()
	if r.lowest == nil {
		r.lowest = make(map[string]string, 1)
		for _, f := range h.files {
			r.noteLowest(f.Path)
		}
	}
	if path, ok := r.lowest[directory]; ok && directory != "" {
		return path, true
	}
	return r.lowest[""], false
}

// lowestNear is firstFile, which remembers nothing where they are few.
func (h *holders) lowestNear(directory string) string {
	if len(h.files) > few {
		path, _ := h.firstFile(directory)
		return path
	}
	best, near := "", false
	for _, f := range h.files {
		here := filepath.Dir(f.Path) == directory
		if best == "" || here && !near || here == near && f.Path < best {
			best, near = f.Path, here
		}
	}
	return best
}

// in reports whether one of the files is in the directory.
func (h *holders) in(directory string) bool {
	if len(h.files) > few {
		_, in := h.firstFile(directory)
		return in
	}
	return slices.ContainsFunc(h.files, func(f *FileFacts) bool { return filepath.Dir(f.Path) == directory })
}

// withStem are the files of that path without its ending, or some more.
func (h *holders) withStem(of string) []*FileFacts {
	if len(h.files) <= few {
		return h.files
	}
	r := h.remember()
	if r.stems == nil {
		r.stems = make(map[string][]*FileFacts, len(h.files))
		for _, f := range h.files {
			r.stems[stem(f.Path)] = append(r.stems[stem(f.Path)], f)
		}
	}
	return r.stems[of]
}

// stem is a path without its ending.
func stem(path string) string { return strings.TrimSuffix(path, filepath.Ext(path)) }
