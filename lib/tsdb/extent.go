package tsdb

import (
	"cmp"
	"context"
	"slices"

	"bf/lib/task"
)

// Extents are the places of this hypertable that the rows of a chunk of another
// server may go to: its own extent, in the hash partitions that are here. There are
// none where the hypertable has a dimension that the other does not have.
func (h *Hypertable) Extents(of []task.Slice) [][]task.Slice {
	all := [][]task.Slice{nil}
	for _, d := range h.Dimensions {
		var here []task.Slice
		i := slices.IndexFunc(of, func(s task.Slice) bool { return s.Column == d.Column && s.Hash == d.Hash() })
		switch {
		case i >= 0 && (!d.Hash() || d.HasPartition(of[i].From, of[i].Until)):
			here = []task.Slice{of[i]}
		case d.Hash():
			here = d.HashPartitions()
		}
		var next [][]task.Slice
		for _, a := range all {
			for _, s := range here {
				next = append(next, append(slices.Clone(a), s))
			}
		}
		all = next
	}
	return all
}

// Overlapping lists the chunks of a hypertable that may hold rows of the range,
// without those of other partitions than the extent's.
func Overlapping(ctx context.Context, db *DB, h *Hypertable, r task.Range, extent []task.Slice) ([]*Chunk, error) {
	chunks, err := h.ChunksIn(ctx, db, r)
	here := slices.DeleteFunc(slices.Clone(extent[1:]), func(s task.Slice) bool {
		d := h.Dimension(s.Column)
		return d == nil || d.Hash() != s.Hash
	})
	return slices.DeleteFunc(chunks, func(c *Chunk) bool { return c.Apart(here) }), err
}

// Gap returns the first piece of the extent, along the primary dimension, for which
// the hypertable has no chunk; nil when there is none.
func Gap(ctx context.Context, db *DB, h *Hypertable, extent []task.Slice) ([]task.Slice, error) {
	all := task.Range{Column: extent[0].Column, From: extent[0].From, Until: extent[0].Until}
	chunks, err := Overlapping(ctx, db, h, all, extent)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(chunks, func(a, b *Chunk) int {
		af, _ := a.Slices[0].Bounds()
		bf, _ := b.Slices[0].Bounds()
		return cmp.Compare(af, bf)
	})
	from, until := extent[0].Bounds()
	for _, c := range chunks {
		cf, cu := c.Slices[0].Bounds()
		if cf > from {
			until = min(until, cf)
			break
		}
		from = max(from, cu)
	}
	if from >= until {
		return nil, nil
	}
	gap := slices.Clone(extent)
	gap[0].From, gap[0].Until = task.FormatBound(from), task.FormatBound(until)
	return gap, nil
}
