package policy

import (
	"fmt"
	"iter"
	"reflect"
	"strings"
)

// NamedFile is a file that a configuration or a policy names for reading.
type NamedFile struct {
	// At is the YAML path of the field.
	At   string
	Path string
	// Secret says that it is a SecretFile.
	Secret bool
}

// NamedFiles are the files that a Config or a Policy names in its fields called *_file, in
// no order.
func NamedFiles(v any) iter.Seq[NamedFile] {
	return func(yield func(NamedFile) bool) { namedFiles(reflect.ValueOf(v), "$", yield) }
}

func namedFiles(v reflect.Value, at string, yield func(NamedFile) bool) bool {
	switch v.Kind() {
	case reflect.Pointer:
		return v.IsNil() || namedFiles(v.Elem(), at, yield)
	case reflect.Slice:
		for i := range v.Len() {
			if !namedFiles(v.Index(i), fmt.Sprintf("%s[%d]", at, i), yield) {
				return false
			}
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			if !namedFiles(v.MapIndex(key), at+"."+key.String(), yield) {
				return false
			}
		}
	case reflect.Struct:
		for field, value := range v.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
			if name == "" || name == "-" {
				continue
			}
			if strings.HasSuffix(name, "_file") && value.Kind() == reflect.String {
				_, secret := reflect.TypeAssert[SecretFile](value)
				if value.String() != "" && !yield(NamedFile{at + "." + name, value.String(), secret}) {
					return false
				}
				continue
			}
			if !namedFiles(value, at+"."+name, yield) {
				return false
			}
		}
	}
	return true
}
