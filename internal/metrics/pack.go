package metrics

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"hash/crc32"
)

// A gzip stream need not be compressed at once: deflated pieces that refer to nothing before
// them and end at a whole byte can be strung together, and the checksum of the whole follows
// from those of the pieces. So each piece is compressed once, and an answer is one ordinary
// gzip stream, which every client reads, where several streams in a row are too much for some.

// piece is something that was compressed.
type piece struct {
	packed []byte
	size   int
	// sum is the CRC-32 of what it was, shift what appending it makes of the sum before.
	sum, shift uint32
}

// packer compresses pieces, one at a time.
type packer struct {
	w   *flate.Writer
	buf bytes.Buffer
}

// packLevel trades a tenth of the size for half of the time.
const packLevel = flate.BestSpeed

func (p *packer) pack(plain []byte) piece {
	if len(plain) == 0 {
		return piece{}
	}
	p.buf.Reset()
	if p.w == nil {
		p.w, _ = flate.NewWriter(&p.buf, packLevel) // fails for unknown levels only
	} else {
		p.w.Reset(&p.buf)
	}
	_, _ = p.w.Write(plain) // a buffer takes everything
	_ = p.w.Flush()
	return piece{packed: bytes.Clone(p.buf.Bytes()), size: len(plain), sum: crc32.ChecksumIEEE(plain), shift: shiftBy(len(plain))}
}

var (
	gzipHeader = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}
	// lastBlock ends a deflate stream: an empty block that says it is the last.
	lastBlock = []byte{3, 0}
)

// stream is an answer in pieces.
type stream struct {
	parts  [][]byte
	packed int
	size   int
	sum    uint32
}

func (s *stream) add(p piece) {
	if p.size == 0 {
		return
	}
	s.parts = append(s.parts, p.packed)
	s.packed += len(p.packed)
	s.size += p.size
	s.sum = multiply(p.shift, s.sum) ^ p.sum
}

// trailer ends the gzip stream.
func (s *stream) trailer() []byte {
	t := binary.LittleEndian.AppendUint32(bytes.Clone(lastBlock), s.sum)
	return binary.LittleEndian.AppendUint32(t, uint32(s.size)) //nolint:gosec // modulo 2³², says RFC 1952
}

// gzipSize is how long the gzip stream is.
func (s *stream) gzipSize() int { return len(gzipHeader) + s.packed + len(lastBlock) + 8 }

// The CRC-32 is a remainder of polynomials over two elements, bit 31 being x⁰. A sum with n
// more zero bytes behind it is the sum times x⁸ⁿ, and sums add by exclusive or.

// multiply is the product of two remainders.
func multiply(a, b uint32) uint32 {
	var product uint32
	for ; a != 0; a <<= 1 {
		if a&(1<<31) != 0 {
			product ^= b
		}
		if b&1 != 0 {
			b = b>>1 ^ crc32.IEEE
		} else {
			b >>= 1
		}
	}
	return product
}

// shiftBy is x⁸ⁿ.
func shiftBy(n int) uint32 {
	power, result := uint32(1<<23), uint32(1<<31) // x⁸ and x⁰
	for ; n > 0; n >>= 1 {
		if n&1 != 0 {
			result = multiply(power, result)
		}
		power = multiply(power, power)
	}
	return result
}
