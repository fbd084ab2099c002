package target

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"bf/lib/pg"
	"bf/lib/stream"
	"bf/lib/task"
	"bf/lib/tsdb"

	"github.com/jackc/pgx/v5"
)

// mostGaps bounds how many chunks are made for one task. Only a target that
// cuts its chunks much smaller than the source gets there; the rest is made on
// the way.
const mostGaps = 200

// makeChunks makes chunks until the target has one for every place in the
// task's extent, each in a short transaction of its own. Mostly that is one
// chunk with just this extent. why says what could not be made: those chunks
// come to be during the COPY.
func (l *Loader) makeChunks(ctx context.Context, ht *tsdb.Hypertable, t *task.Task, part *stream.Part, data *partReader) (why string, err error) {
	for _, extent := range extents(ht, t.Slices) {
		var last []task.Slice
		for range mostGaps {
			gap, err := l.gap(ctx, ht, extent)
			if err != nil {
				return "", err
			}
			if gap == nil || slices.Equal(gap, last) {
				break
			}
			last = gap
			if why, err = l.makeChunk(ctx, ht, gap, part, data); err != nil {
				return "", err
			}
			if why != "" {
				break
			}
		}
	}
	return why, nil
}

// extents are the places of the target that the rows of a source chunk may go
// to: its own extent, in the hash partitions that the target has. There are
// none where the target has a dimension that the source does not have.
func extents(ht *tsdb.Hypertable, want []task.Slice) [][]task.Slice {
	all := [][]task.Slice{nil}
	for _, d := range ht.Dimensions {
		var here []task.Slice
		i := slices.IndexFunc(want, func(s task.Slice) bool { return s.Column == d.Column && s.Hash == d.Hash() })
		switch {
		case i >= 0 && (!d.Hash() || d.HasPartition(want[i].From, want[i].Until)):
			here = []task.Slice{want[i]}
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

// gap returns the first piece of the extent, along the primary dimension, for
// which the target has no chunk; nil when there is none.
func (l *Loader) gap(ctx context.Context, ht *tsdb.Hypertable, extent []task.Slice) ([]task.Slice, error) {
	chunks, err := l.db.ChunksIn(ctx, ht, task.Range{Column: extent[0].Column, From: extent[0].From, Until: extent[0].Until})
	if err != nil {
		return nil, err
	}
	// Those of other partitions do not count.
	chunks = slices.DeleteFunc(chunks, func(c *tsdb.Chunk) bool {
		for i, s := range extent[1:] {
			from, until := s.Bounds()
			if cf, cu := c.Slices[i+1].Bounds(); cf >= until || cu <= from {
				return true
			}
		}
		return false
	})
	slices.SortFunc(chunks, func(a, b *tsdb.Chunk) int {
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

// makeChunk makes a chunk with these slices by TimescaleDB's function. Where
// that is refused (the Apache edition), fails or would do harm (unaligned), a
// row that goes through the hypertable makes one, of the extent that the target
// likes best.
func (l *Loader) makeChunk(ctx context.Context, ht *tsdb.Hypertable, want []task.Slice, part *stream.Part, data *partReader) (why string, err error) {
	if l.db.Full && ht.Unaligned(want) == "" {
		if made, err := l.createChunk(ctx, ht, want); made || err != nil {
			return "", err
		}
	}
	return l.routeRow(ctx, ht, want, part, data)
}

// createChunk makes a chunk by TimescaleDB's function, unless something is in
// the way.
func (l *Loader) createChunk(ctx context.Context, ht *tsdb.Hypertable, want []task.Slice) (made bool, err error) {
	err = l.briefly(ctx, func(tx pgx.Tx) error {
		_, _, err := l.db.CreateChunk(ctx, ht, want)
		return err
	})
	if inTheWay(err) {
		return false, nil
	}
	return err == nil, err
}

// inTheWay reports whether create_chunk failed because of another chunk: one of
// another extent, or (2.11 to 2.14) the leftover of a dropped one, which is "not
// found".
func inTheWay(err error) bool {
	switch pg.Code(err) {
	case "TS503", "TS003", "42704":
		return true
	}
	return false
}

// routeRow makes a chunk by a row: the first one of the data, moved to where the
// chunk begins, goes through the root and is deleted again in the same short
// transaction; what stays is the chunk.
func (l *Loader) routeRow(ctx context.Context, ht *tsdb.Hypertable, want []task.Slice, part *stream.Part, data *partReader) (why string, err error) {
	triggers, err := l.db.RowTriggers(ctx, ht, tsdb.OnInsert|tsdb.OnDelete)
	if err != nil {
		return "", err
	}
	if len(triggers) > 0 {
		return "row triggers on the target would fire for a row too many", nil
	}
	row, err := data.firstRow(part.Format)
	if err != nil {
		return "", err
	}
	if row == nil {
		return "no small first row to make the chunk with", nil
	}
	columns, moved := make([]string, len(part.Columns)), make([]string, len(part.Columns))
	for i, c := range part.Columns {
		columns[i], moved[i] = c.Name, pg.Ident(c.Name)
		if c.Name == want[0].Column {
			if at, err := l.db.Beginning(ht, want[0]); err != nil {
				return "", err
			} else if at != "" {
				moved[i] = at
			}
		}
	}
	root := pg.Ident(ht.Name.Schema, ht.Name.Name)
	err = l.briefly(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, fmt.Sprintf("create temporary table first_row on commit drop as select %s from %s with no data", pg.Idents(columns), root)); err != nil {
			return err
		}
		if _, err := l.db.CopyIn(ctx, bytes.NewReader(row), fmt.Sprintf("copy pg_temp.first_row from stdin (format %s)", part.Format)); err != nil {
			return err
		}
		var oid uint32
		if err := l.asUser(ctx, tx, func() error {
			return tx.QueryRow(ctx, fmt.Sprintf("insert into %s (%s) overriding system value select %s from pg_temp.first_row returning tableoid",
				root, pg.Idents(columns), strings.Join(moved, ", "))).Scan(&oid)
		}); err != nil {
			return err
		}
		chunk, err := l.db.RelationName(ctx, oid)
		if err != nil {
			return err
		}
		// Only our row: the chunk may have been there by now.
		return l.remove(ctx, tx, ht, "only "+chunk+" where xmin::text::bigint = txid_current() & 4294967295")
	})
	if strings.HasPrefix(pg.Code(err), "23") {
		// In conflict with a row that is going to be replaced. What violates a
		// constraint for good fails again later, with the row's own message.
		return "the first row is in conflict with a row of the target", nil
	}
	return "", err
}
