package metrics

import (
	"bytes"
	"encoding/binary"
	"math"
	"mime"
	"slices"
	"strconv"
	"strings"
)

// format is how series are written. It is told from the Content-Type that the Prometheus
// handler chose for what the scraper accepts.
type format int

const (
	formatText format = iota
	formatOpenMetrics
	// formatProtobuf is the one that carries native histograms.
	formatProtobuf
	formats
)

// formatOf is false for what is not kept ready here.
func formatOf(contentType string) (format, bool) {
	kind, parameters, err := mime.ParseMediaType(contentType)
	if err != nil || parameters["escaping"] == "dots" { // which writes names with underscores in another way
		return 0, false
	}
	switch kind {
	case "text/plain":
		return formatText, true
	case "application/openmetrics-text":
		return formatOpenMetrics, true
	case "application/vnd.google.protobuf":
		return formatProtobuf, parameters["encoding"] == "delimited"
	}
	return 0, false
}

// end is what closes an answer in OpenMetrics.
var end = []byte("# EOF\n")

// split takes the end off an answer, so that more can be added.
func (f format) split(answer []byte) (body, tail []byte) {
	if f == formatOpenMetrics && bytes.HasSuffix(answer, end) {
		return answer[:len(answer)-len(end)], end
	}
	return answer, nil
}

// header begins a family whose series take size bytes together.
func (f format) header(of family, size int) []byte {
	d := &definitions[of]
	if f != formatProtobuf {
		return []byte("# HELP " + d.name + " " + d.help + "\n# TYPE " + d.name + " gauge\n")
	}
	const gauge = 1
	var body []byte
	body = appendField(body, 1, d.name)
	body = appendField(body, 2, d.help)
	body = append(body, 3<<3, gauge)
	return append(appendLength(nil, len(body)+size), body...)
}

// layout is how a family's labels are written: sorted by name, as the Prometheus library does.
type layout struct {
	order []int
	names []string
	// before is what stands before each value in the text formats.
	before []string
}

// layouts are those of all families.
var layouts = func() (all [families]layout) {
	for f, d := range definitions {
		l := &all[f]
		l.names = slices.Sorted(slices.Values(d.labels))
		between := d.name + "{"
		for _, name := range l.names {
			l.order = append(l.order, slices.Index(d.labels, name))
			l.before = append(l.before, between+name+`="`)
			between = `",`
		}
	}
	return all
}()

// write appends one series.
func (f format) write(to []byte, s *reading) []byte {
	l := &layouts[s.family]
	if f == formatProtobuf {
		return writeProtobuf(to, l, s)
	}
	for i, at := range l.order {
		to = append(to, l.before[i]...)
		to = appendEscaped(to, s.labels[at])
	}
	to = append(to, `"} `...)
	to = f.appendValue(to, s.value)
	return append(to, '\n')
}

var escaper = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)

func appendEscaped(to []byte, s string) []byte {
	if strings.ContainsAny(s, "\\\n\"") {
		s = escaper.Replace(s)
	}
	return append(to, s...)
}

// appendValue writes a number; OpenMetrics wants to see that it is no integer.
func (f format) appendValue(to []byte, v float64) []byte {
	from := len(to)
	switch {
	case v == 0 || v == 1:
		to = append(to, '0'+byte(v))
	default:
		to = strconv.AppendFloat(to, v, 'g', -1, 64)
	}
	if f == formatOpenMetrics && !bytes.ContainsAny(to[from:], "e.") {
		to = append(to, ".0"...)
	}
	return to
}

// writeProtobuf appends one Metric of a MetricFamily.
func writeProtobuf(to []byte, l *layout, s *reading) []byte {
	const (
		gaugeSize = 1 + 8
		metric    = 4<<3 | 2
		label     = 1<<3 | 2
		gauge     = 2<<3 | 2
		double    = 1<<3 | 1
	)
	size := 2 + gaugeSize
	for i, at := range l.order {
		pair := fieldSize(l.names[i]) + fieldSize(s.labels[at])
		size += 1 + varintSize(pair) + pair
	}
	to = appendLength(append(to, metric), size)
	for i, at := range l.order {
		to = appendLength(append(to, label), fieldSize(l.names[i])+fieldSize(s.labels[at]))
		to = appendField(to, 1, l.names[i])
		to = appendField(to, 2, s.labels[at])
	}
	to = append(to, gauge, gaugeSize, double)
	return binary.LittleEndian.AppendUint64(to, math.Float64bits(s.value))
}

// appendField appends a string with the number of its field, which is below 16.
func appendField(to []byte, number byte, s string) []byte {
	to = appendLength(append(to, number<<3|2), len(s))
	return append(to, s...)
}

// appendLength appends a length, which is never negative.
func appendLength(to []byte, n int) []byte {
	return binary.AppendUvarint(to, uint64(max(n, 0)))
}

func fieldSize(s string) int { return 1 + varintSize(len(s)) + len(s) }

func varintSize(n int) int {
	size := 1
	for ; n >= 1<<7; n >>= 7 {
		size++
	}
	return size
}
