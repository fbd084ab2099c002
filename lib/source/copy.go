package source

import (
	"fmt"
	"strings"

	"bf/lib/pg"
	"bf/lib/stream"
	"bf/lib/task"
	"bf/lib/tsdb"
)

// copyOut is a COPY of the source and the part of the stream that it fills.
type copyOut struct {
	sql  string
	part stream.Part
}

// copies are the COPYs of a chunk: of its rows, or of its compressed relation
// and the uncompressed rows. The compressed relation comes first: the target
// builds it without locking what the application uses.
func (d *Dumper) copies(in *Opened, t *task.Task, r *tsdb.Relation) (all []copyOut, err error) {
	c, h := in.Chunk, in.Hypertable
	if r != nil {
		return []copyOut{d.copyBatches(c, r), copyUncompressed(c, h)}, nil
	}
	where := ""
	if t.Range.Partial {
		where, err = h.RangeCondition(d.db, t)
	}
	return []copyOut{copyRows(c, h, where)}, err
}

// copyRows copies the rows of a chunk that satisfy a condition, unless that is
// empty; a compressed chunk is decompressed by the server. ONLY matters on an
// uncompressed chunk: one compressed behind an older snapshot would give its
// rows twice or not at all.
func copyRows(c *tsdb.Chunk, h *tsdb.Hypertable, where string) copyOut {
	from := pg.Ident(c.Name.Schema, c.Name.Name)
	if c.Status&tsdb.StatusCompressed == 0 {
		from = "only " + from
	}
	if where != "" {
		from += " where " + where
	}
	out := copyFrom(h, from)
	out.part.Bytes = c.Bytes
	return out
}

// copyUncompressed copies the rows of a compressed chunk that are beside its
// batches. If the chunk is not marked as partial, no query shows such rows, and
// none are copied.
func copyUncompressed(c *tsdb.Chunk, h *tsdb.Hypertable) copyOut {
	from := "only " + pg.Ident(c.Name.Schema, c.Name.Name)
	if c.Hides() {
		from += " where false"
	}
	return copyFrom(h, from)
}

func copyFrom(h *tsdb.Hypertable, from string) copyOut {
	part := stream.Part{Relation: stream.Rows, Format: stream.Binary}
	var names []string
	for _, col := range h.Copied() {
		names = append(names, col.Name)
		part.Columns = append(part.Columns, stream.Column{Name: col.Name, Type: col.Type})
		if !col.Binary {
			part.Format = stream.Text
		}
	}
	return copyOut{copySQL(pg.Idents(names), from, part.Format), part}
}

func copySQL(columns, from, format string) string {
	return fmt.Sprintf("copy (select %s from %s) to stdout (format %s)", columns, from, format)
}

// copyBatches copies the compressed relation.
func (d *Dumper) copyBatches(c *tsdb.Chunk, r *tsdb.Relation) copyOut {
	part := stream.Part{Relation: stream.Compressed, Format: stream.Binary, Bytes: c.Bytes}
	if !r.Binary {
		part.Format = stream.Text
	}
	var exprs []string
	for _, col := range r.Columns {
		part.Columns = append(part.Columns, stream.Column{Name: col.Name, Type: col.Type})
		if col.Type == tsdb.CompressedData {
			exprs = append(exprs, tsdb.NullBatches(d.db, col.Name))
		} else {
			exprs = append(exprs, pg.Ident(col.Name))
		}
	}
	return copyOut{copySQL(strings.Join(exprs, ", "), "only "+r.Quoted, part.Format), part}
}
