package tsdb

import (
	"context"
	_ "embed"
	"errors"

	"bf/lib/pg"
	"bf/lib/task"

	"github.com/jackc/pgx/v5"
)

var (
	//go:embed plain.sql
	plainSQL string
	//go:embed leaves.sql
	leavesSQL string
)

// The kinds of relations that can be a source, as pg_class has them.
const (
	Table       = "r"
	Partitioned = "p"
	View        = "v"
	MatView     = "m"
	Foreign     = "f"
)

// Plain reports whether this is a relation of PostgreSQL that is no hypertable.
func (h *Hypertable) Plain() bool { return h.Relkind != "" }

// PlainRelation returns the relation of that name that holds or shows rows and is no
// hypertable, described like one; nil if there is none. Its one dimension is the
// column by which the target's hypertable is cut.
func (db *DB) PlainRelation(ctx context.Context, name task.Name, column string) (*Hypertable, error) {
	h := &Hypertable{Name: name}
	sql := plainSQL
	if !db.Plain() {
		sql += ` and not exists (select from _timescaledb_catalog.hypertable h
            where h.schema_name = n.nspname and h.table_name = c.relname)`
	}
	err := db.QueryRow(ctx, sql, name.Schema, name.Name).Scan(&h.OID, &h.Relkind)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, db.Wrap(err, "look up %s", name)
	}
	columns, err := db.Columns(ctx, h.OID)
	if err != nil {
		return nil, err
	}
	h.Columns = columns[h.OID]
	if d := db.dimensionOf(h, task.Slice{Column: column}); d != nil {
		h.Dimensions = []Dimension{*d}
	} else {
		return nil, &pg.Error{Side: db.Side, Object: name.String(),
			Err: errors.New("has no column " + pg.Ident(column))}
	}
	return h, nil
}

// Leaf is a relation that holds or shows rows itself: a partition that has none, a
// table of an inheritance, or a plain relation that is alone. It is read with ONLY.
type Leaf struct {
	Name     task.Name
	OID      uint32
	Relkind  string
	AM       string // access method; "" where it has none
	Filenode string // of its heap, as it is now
	Blocks   int64  // of its heap
	Bytes    int64  // with TOAST, without indexes
	Rows     int64  // the planner's estimate
	Readable bool   // the role may
}

// Leaves lists those of a plain relation, by name.
func (db *DB) Leaves(ctx context.Context, h *Hypertable) ([]*Leaf, error) {
	rows, err := db.Query(ctx, leavesSQL, h.OID)
	if err != nil {
		return nil, db.Wrap(err, "partitions of %s", h.Name)
	}
	ls, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (*Leaf, error) {
		var l Leaf
		return &l, r.Scan(&l.Name.Schema, &l.Name.Name, &l.OID, &l.Relkind, &l.AM, &l.Filenode, &l.Blocks, &l.Bytes,
			&l.Rows, &l.Readable)
	})
	return ls, db.Wrap(err, "partitions of %s", h.Name)
}
