package main

import (
	"io/fs"
	"os"
	"regexp"
	"strings"
	"syscall"
	"time"
)

func pid() int { return os.Getpid() }

// inodeOf is the file's number on its file system, and when that was last changed, be it only
// who may read it; 0 where the system has none.
func inodeOf(info fs.FileInfo) (inode uint64, changed time.Time) {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return s.Ino, time.Unix(s.Ctim.Unix())
	}
	return 0, time.Time{}
}

var semver = regexp.MustCompile(`^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$`)

// semantic is the version in the form that NATS micro services must have (ADR-32).
func semantic(version string) string {
	if v := strings.TrimPrefix(version, "v"); semver.MatchString(v) {
		return v
	}
	return "0.0.0-development"
}

// kindOf is the last part of an event's type.
func kindOf(eventType string) string { return eventType[strings.LastIndex(eventType, ".")+1:] }
