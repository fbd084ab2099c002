package csv

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Codec is how a file is compressed.
type Codec string

// What a File reads. What it is not, it refuses by its first bytes, whatever its name.
const (
	Plain Codec = ""
	Gzip  Codec = "gzip"
	Zstd  Codec = "zstd"
)

// maxZstdWindow bounds the memory of a decompressor.
const maxZstdWindow = 32 << 20

// MostOpen bounds the memory of files that are kept open. Of more, compressed ones are
// decompressed from the beginning again and again.
const MostOpen = 4

// foreign are the first bytes of files that people take for CSV.
var foreign = []struct{ magic, what string }{
	{"\xfd7zXZ\x00", "compressed by xz: neither gzip nor zstd"},
	{"\x04\x22\x4d\x18", "compressed by lz4: neither gzip nor zstd"},
	{"PK\x03\x04", "a zip archive, not CSV"},
	{"PAR1\x15", "a Parquet file, not CSV"},
	{"\xff\xfe", "UTF-16, not UTF-8"},
	{"\xfe\xff", "UTF-16, not UTF-8"},
	{"PGCOPY\n\xff", "binary COPY data, not CSV"},
}

// ErrChanged is a block that is not what was mapped.
var ErrChanged = errors.New("changed since it was staged")

// File is a file, decompressed. A compressed one is read forward; going back begins
// anew.
type File struct {
	src   io.ReadSeeker
	codec Codec
	r     io.Reader // decompressed; nil before the beginning
	at    int64     // of r
	close func()
	held  []byte // the last block, unless it was a long record
	last  Block
}

// NewFile looks at the first bytes of a file.
func NewFile(src io.ReadSeeker) (*File, error) {
	head := make([]byte, 16)
	n, err := io.ReadFull(src, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, err
	}
	head = head[:n]
	f := &File{src: src}
	switch {
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		f.codec = Gzip
	case bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")),
		n >= 4 && head[0]&0xf0 == 0x50 && string(head[1:4]) == "\x2a\x4d\x18": // a frame to be skipped
		f.codec = Zstd
	}
	if n > 10 && bytes.HasPrefix(head, []byte("BZh")) && string(head[4:10]) == "1AY&SY" {
		return nil, errors.New("compressed by bzip2: neither gzip nor zstd")
	}
	for _, x := range foreign {
		if bytes.HasPrefix(head, []byte(x.magic)) {
			return nil, errors.New(x.what)
		}
	}
	return f, f.rewind()
}

// Codec is how the file is compressed.
func (f *File) Codec() Codec { return f.codec }

// Close frees what the decompressor holds. The file itself is the caller's.
func (f *File) Close() {
	if f.close != nil {
		f.close()
	}
	f.r, f.close = nil, nil
}

func (f *File) rewind() error {
	f.Close()
	if _, err := f.src.Seek(0, io.SeekStart); err != nil {
		return err
	}
	f.at = 0
	switch f.codec {
	case Gzip:
		z, err := gzip.NewReader(bufio.NewReaderSize(f.src, 64<<10))
		if err != nil {
			return f.broken(err)
		}
		f.r = z
	case Zstd:
		z, err := zstd.NewReader(f.src, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return f.broken(err)
		}
		f.r, f.close = z, z.Close
	default:
		f.r = f.src
	}
	return nil
}

// Read reads on, decompressed.
func (f *File) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	f.at += int64(n)
	if err != nil && err != io.EOF {
		err = f.broken(err)
	}
	return n, err
}

func (f *File) broken(err error) error {
	switch {
	case f.codec == Plain:
		return err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%s: the file ends in the middle: truncated", f.codec)
	case errors.Is(err, zstd.ErrWindowSizeExceeded):
		return fmt.Errorf("zstd: a window of more than %d MiB: compress it without --long", maxZstdWindow>>20)
	}
	return fmt.Errorf("%s: damaged: %w", f.codec, err)
}

// seek goes to an offset of the decompressed data.
func (f *File) seek(offset int64) error {
	if f.codec == Plain {
		_, err := f.src.Seek(offset, io.SeekStart)
		f.at = offset
		return err
	}
	if offset < f.at || f.r == nil {
		if err := f.rewind(); err != nil {
			return err
		}
	}
	_, err := io.CopyN(io.Discard, f, offset-f.at)
	if err == io.EOF {
		err = ErrChanged // shorter than it was
	}
	return err
}

// Block reads a block. The last one is kept: the next task often begins in it, and a
// compressed file cannot go back. No byte is handed out before the sum of the whole block
// was found right, with one exception: that of a long record in a compressed file is
// checked at its end.
func (f *File) Block(b Block) (io.Reader, error) {
	switch {
	case b.Offset < 0 || b.Length <= 0:
		return nil, fmt.Errorf("block of %d bytes at %d", b.Length, b.Offset)
	case b.Offset == f.last.Offset && b.Length == f.last.Length && b.Sum == f.last.Sum && f.at == b.Offset+b.Length:
		return bytes.NewReader(f.held[:b.Length]), nil
	}
	f.last = Block{}
	if err := f.seek(b.Offset); err != nil {
		return nil, err
	}
	checked := &checkedReader{r: f, left: b.Length, want: b.Sum}
	switch {
	case b.Length <= BlockSize:
		if int64(len(f.held)) < b.Length { // no more than small files need
			f.held = make([]byte, min(2*b.Length, BlockSize))
		}
		if _, err := io.ReadFull(checked, f.held[:b.Length]); err != nil {
			return nil, err
		}
		f.last = b
		return bytes.NewReader(f.held[:b.Length]), nil
	case f.codec == Plain:
		if _, err := io.Copy(io.Discard, checked); err != nil {
			return nil, err
		}
		if err := f.seek(b.Offset); err != nil {
			return nil, err
		}
		// Again: it may change meanwhile.
		checked = &checkedReader{r: f, left: b.Length, want: b.Sum}
	}
	return checked, nil
}

// checkedReader reads so many bytes, which must have that CRC: the last of them
// come only if they have.
type checkedReader struct {
	r         io.Reader
	left      int64
	sum, want uint32
}

func (c *checkedReader) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, io.EOF
	}
	n, err := c.r.Read(p[:min(int64(len(p)), c.left)])
	c.sum = crc32.Update(c.sum, castagnoli, p[:n])
	c.left -= int64(n)
	switch {
	case c.left == 0 && c.sum != c.want, err == io.EOF && c.left > 0:
		return 0, ErrChanged
	case err == io.EOF:
		err = nil
	}
	return n, err
}
