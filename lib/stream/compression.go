package stream

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// Compression is a codec and its level; the zero value means none.
type Compression struct {
	codec string
	level int // of zstd; 0 is the fastest
}

const (
	codecNone = "none"
	codecZstd = "zstd"
	codecS2   = "s2"
)

func knownCodec(name string) bool {
	return name == codecNone || name == codecZstd || name == codecS2
}

// ParseCompression parses none, s2, zstd or zstd:LEVEL. Without a level zstd
// is as fast as it can be: a dump is faster than its compression.
func ParseCompression(s string) (Compression, error) {
	codec, level, leveled := strings.Cut(s, ":")
	c := Compression{codec: codec}
	if !knownCodec(codec) || leveled && codec != codecZstd {
		return c, fmt.Errorf("unknown compression %q: none, s2, zstd or zstd:LEVEL", s)
	}
	if leveled {
		n, err := strconv.Atoi(level)
		if err != nil || n < 1 || n > 22 {
			return c, fmt.Errorf("compression %q: the level of zstd is 1 to 22", s)
		}
		c.level = n
	}
	return c, nil
}

// String is the inverse of ParseCompression.
func (c Compression) String() string {
	if c.level != 0 {
		return c.name() + ":" + strconv.Itoa(c.level)
	}
	return c.name()
}

func (c Compression) name() string {
	if c.codec == "" {
		return codecNone
	}
	return c.codec
}

// packer returns the function that appends the compressed src to dst, nil for
// none.
func (c Compression) packer() func(dst, src []byte) []byte {
	switch c.codec {
	case codecZstd:
		level := zstd.SpeedFastest
		if c.level != 0 {
			level = zstd.EncoderLevelFromZstd(c.level)
		}
		// One process per lane: more threads would only fight over the cores.
		// Every frame has a checksum of its own, so zstd needs none.
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1),
			zstd.WithWindowSize(MaxFrame), zstd.WithEncoderCRC(false))
		if err != nil {
			panic(err) // the options are constants
		}
		return func(dst, src []byte) []byte { return e.EncodeAll(src, dst) }
	case codecS2:
		return func(dst, src []byte) []byte {
			dst = slices.Grow(dst, s2.MaxEncodedLen(len(src)))
			block := s2.Encode(dst[len(dst):cap(dst)], src) // in place: it has the room
			return dst[:len(dst)+len(block)]
		}
	}
	return nil
}

// unpacker returns the function that decompresses one block of the named
// codec, nil for none. It uses the room of dst and allocates where that is too
// small, but not for a block that claims to be, or turns out to be, larger
// than MaxFrame: that is an error.
func unpacker(codec string) func(dst, src []byte) ([]byte, error) {
	switch codec {
	case codecZstd:
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxMemory(MaxFrame), zstd.WithDecoderMaxWindow(MaxFrame))
		if err != nil {
			panic(err) // the options are constants
		}
		return func(dst, src []byte) ([]byte, error) { return d.DecodeAll(src, dst[:0]) }
	case codecS2:
		return func(dst, src []byte) ([]byte, error) {
			n, err := s2.DecodedLen(src)
			if err != nil {
				return nil, err
			}
			if n > MaxFrame {
				return nil, fmt.Errorf("a block of %d bytes decompressed, at most %d are allowed", n, MaxFrame)
			}
			return s2.Decode(dst, src)
		}
	}
	return nil
}
