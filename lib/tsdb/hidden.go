package tsdb

import (
	"context"
	"fmt"
	"slices"

	"bf/lib/pg"
	"bf/lib/task"

	"github.com/jackc/pgx/v5"
)

// Hides reports whether queries of the chunk leave out rows that are in it: those
// beside the batches of a compressed chunk that is not marked as partial.
// ≤ 2.22: a row inserted straight into the chunk's table does not mark it.
// ≥ 2.23: it does, but a chunk keeps such rows through an update of the extension.
// The hypercore access method shows all of them.
func (c *Chunk) Hides() bool {
	return c.Status&(StatusCompressed|StatusPartial) == StatusCompressed && c.AM != "hypercore"
}

// HiddenRows counts the rows that queries leave out (Hides), of those that satisfy a
// condition unless it is empty. Where there are none the heap is empty: it is cheap.
func (c *Chunk) HiddenRows(ctx context.Context, db *DB, where string) (n int64, err error) {
	if !c.Hides() {
		return 0, nil
	}
	if where != "" {
		where = " where " + where
	}
	err = db.QueryRow(ctx, "select count(*) from only "+pg.Ident(c.Name.Schema, c.Name.Name)+where,
		pgx.QueryExecModeSimpleProtocol).Scan(&n)
	return n, db.Wrap(err, "rows beside the batches of chunk %s", c.Name)
}

// Hiding returns those of the chunks that may have hidden rows: compressing a chunk
// leaves its own heap empty.
func Hiding(ctx context.Context, db *DB, chunks []*Chunk) ([]*Chunk, error) {
	var oids []uint32
	for _, c := range chunks {
		if c.Hides() {
			oids = append(oids, c.OID)
		}
	}
	if oids == nil {
		return nil, nil
	}
	rows, err := db.Query(ctx, "select o from unnest($1::oid[]) o where pg_relation_size(o) > 0 "+
		"and has_table_privilege(o, 'select')", oids)
	if err != nil {
		return nil, db.Wrap(err, "sizes of chunks")
	}
	some, err := pgx.CollectRows(rows, pgx.RowTo[uint32])
	return slices.DeleteFunc(slices.Clone(chunks), func(c *Chunk) bool {
		return !slices.Contains(some, c.OID)
	}), db.Wrap(err, "sizes of chunks")
}

// Unhide says, for people, how to make the hidden rows of a chunk visible on a
// server of that version.
func Unhide(version string, hypertable, chunk task.Name, frozen bool) string {
	table, only := pg.Ident(hypertable.Schema, hypertable.Name), pg.Ident(chunk.Schema, chunk.Name)
	s := fmt.Sprintf("to have them shown, insert a row of the "+
		"chunk's range into %s, which marks the chunk as partially compressed", table)
	if DeletesBatches(version) {
		s += " (DELETE FROM ONLY the chunk would delete the compressed rows as well)"
	} else {
		s += "; to be rid of them: delete from only " + only
	}
	if frozen {
		s += "; unfreeze the chunk for that"
	}
	return s
}

// DeletesBatches reports whether DELETE FROM ONLY a compressed chunk deletes from
// its batches, too, on that version (≥ 2.23), and not only the rows beside them.
func DeletesBatches(version string) bool { return AtLeast(version, "2.23") }
