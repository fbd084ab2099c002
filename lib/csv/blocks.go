package csv

import (
	"errors"
	"io"
)

// BlockSize is the most that a Block has, in bytes, unless it is one long record.
const BlockSize = 4 << 20

// turnSize is from what size on a block ends where the next slice begins. A task reads
// all of a block: with small slices it would read much for nothing.
const turnSize = 64 << 10

// Block is a part of a file, of whole records. Its sum tells whether the file is
// still the one that was mapped.
type Block struct {
	Offset, Length int64 // of the decompressed data
	Line           int64 // in which it begins, from 1
	Sum            uint32
	Rows           []SliceRows // by slice, in the order in which they come
}

// SliceRows is how many rows of a block are in a slice.
type SliceRows struct {
	From, Until int64 // Until is exclusive
	Rows        int64
}

// Mapper finds out which parts of a file hold rows of which slices. It keeps nothing
// of the rows themselves.
type Mapper struct {
	// Slice is the slice that a time is in; false if it is in none.
	Slice func(time int64) (from, until int64, ok bool)
	// Bad gets each bad record, and its bytes unless they are too many (nil). If it
	// returns no error, the record is left out of the blocks.
	Bad func(bad *Error, raw []byte) error
	// Block gets the blocks, in the order of the file. Those without rows in any
	// slice are left out.
	Block func(Block) error

	Outside int64 // rows in no slice

	b     Block
	last  SliceRows // the slice of the last row
	mixed bool      // the slices of the block come by turns: it does not end for another one
}

// Read maps the records that r still has.
func (m *Mapper) Read(r *Reader) error {
	r.Cut() // the header is in no block
	r.Skip()
	for {
		row, err := r.Next()
		var bad *Error
		switch {
		case err == io.EOF:
			return m.cut(r)
		case errors.As(err, &bad):
			if err = m.cut(r); err == nil {
				err = m.Bad(bad, r.Raw())
			}
			if r.Skip(); err == nil && bad.Fatal {
				err = bad
			}
		case err == nil && !row.More:
			err = m.add(r, row)
		}
		if err != nil {
			return err
		}
	}
}

// add adds a row to the block in hand, or makes it one of its own.
func (m *Mapper) add(r *Reader, row *Row) error {
	in := m.find(row.Time)
	if row.Long || m.b.Length+row.Length > BlockSize || in && m.turns() {
		if err := m.cut(r); err != nil {
			return err
		}
	}
	if m.b.Length == 0 {
		m.b = Block{Offset: row.Offset, Line: row.Line, Sum: row.Sum}
	}
	m.b.Length += row.Length
	if in {
		m.count()
	}
	if row.Long {
		return m.emit()
	}
	return nil
}

// find finds the slice of a row, and reports whether it is in any.
func (m *Mapper) find(time int64) bool {
	if m.last.Rows == 0 || time < m.last.From || time >= m.last.Until {
		from, until, ok := m.Slice(time)
		if !ok {
			m.Outside++
			return false
		}
		m.last = SliceRows{from, until, 1}
	}
	return true
}

// turns reports whether the block in hand is better ended before a row of the slice last
// found.
func (m *Mapper) turns() bool {
	n := len(m.b.Rows)
	return n > 0 && !m.mixed && m.b.Length >= turnSize && m.b.Rows[n-1].From != m.last.From
}

// count counts a row in the slice last found.
func (m *Mapper) count() {
	for i := len(m.b.Rows) - 1; i >= 0; i-- {
		if m.b.Rows[i].From == m.last.From {
			m.b.Rows[i].Rows++
			m.mixed = m.mixed || i < len(m.b.Rows)-1
			return
		}
	}
	m.b.Rows = append(m.b.Rows, m.last)
}

// cut ends the block in hand before the last record of r.
func (m *Mapper) cut(r *Reader) error {
	sum := r.Cut()
	if m.b.Length == 0 {
		return nil
	}
	m.b.Sum = sum
	return m.emit()
}

func (m *Mapper) emit() error {
	b := m.b
	m.b, m.mixed = Block{}, false
	if len(b.Rows) == 0 {
		return nil
	}
	return m.Block(b)
}
