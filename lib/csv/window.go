package csv

import (
	"errors"
	"hash/crc32"
	"io"
)

// window is what a Reader holds of the file: buf[pos:end] is still to be read, and the
// record in hand begins at buf[start] unless it is long.
type window struct {
	src             io.Reader
	buf             []byte
	start, pos, end int
	base            int64 // place of buf[0] in the file
	err             error // why src gives no more: io.EOF, or what went wrong

	open bool // there is a record in hand
	long bool // it is longer than buf

	sum   uint32 // CRC of the records since the last Cut, as far as they left the window
	sumAt int    // up to here in buf
	own   uint32 // the same of a long record
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Raw is the last record as it stands in the file, nil if it was long. Valid until
// the next call of Next.
func (w *window) Raw() []byte {
	if w.long {
		return nil
	}
	return w.buf[w.start:w.pos]
}

// Cut is the CRC-32C of the records since the last Cut or Skip: without the last one
// that was read, and without long ones. At the end of the file there is no last one.
func (w *window) Cut() uint32 {
	s := crc32.Update(w.sum, castagnoli, w.buf[w.sumAt:w.start])
	w.sum, w.sumAt = 0, w.start
	return s
}

// Skip leaves the last record out of the next Cut.
func (w *window) Skip() { w.sum, w.sumAt = 0, w.pos }

// Offset is where the next record begins.
func (w *window) Offset() int64 { return w.base + int64(w.pos) }

var errStuck = errors.New("reads nothing")

// avail makes sure that so many bytes are in the window from pos on, and says
// whether they are: after the end there are none.
func (w *window) avail(n int) bool {
	for idle := 0; w.end-w.pos < n; {
		if w.err != nil {
			return false
		}
		if w.end == len(w.buf) {
			w.slide()
		}
		k, err := w.src.Read(w.buf[w.end:])
		w.end += k
		if idle++; k > 0 {
			idle = 0
		}
		if w.err = err; err == nil && idle > 100 {
			w.err = errStuck
		}
	}
	return true
}

// slide makes room in the window: before the record in hand, or if that fills the
// window, before what is still to be read of it.
func (w *window) slide() {
	keep := w.pos
	if w.open && !w.long {
		keep = w.start
		if keep == 0 {
			w.long, w.own, keep = true, 0, w.pos
		}
	}
	if w.open && w.long {
		w.own = crc32.Update(w.own, castagnoli, w.buf[w.sumAt:keep])
	} else {
		w.sum = crc32.Update(w.sum, castagnoli, w.buf[w.sumAt:keep])
	}
	copy(w.buf, w.buf[keep:w.end])
	w.base += int64(keep)
	w.start, w.pos, w.end, w.sumAt = max(w.start-keep, 0), w.pos-keep, w.end-keep, 0
}
