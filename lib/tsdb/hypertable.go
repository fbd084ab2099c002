package tsdb

import (
	"context"
	_ "embed"
	"errors"
	"slices"
	"strings"

	"bf/lib/pg"
	"bf/lib/task"

	"github.com/jackc/pgx/v5"
)

var (
	//go:embed hypertables.sql
	hypertablesSQL string
	//go:embed dimensions.sql
	dimensionsSQL string
	//go:embed fingerprint.sql
	fingerprintSQL string
)

// Dimension is one dimension of a hypertable.
type Dimension struct {
	Column string
	Type   string // of the column
	// Partitions is the number of hash partitions; 0 for an open (range)
	// dimension.
	Partitions int
	Interval   int64 // chunk interval in internal units; open dimensions only
	// Calendar is set where chunks begin and end with days, months or years in
	// the time zone of the session that makes them. Interval is an estimate then.
	Calendar  bool
	Func      task.Name // partitioning function; zero for none
	RangeType string    // what an open dimension ranges over: the function's result type, else Type
}

// Hash reports whether the dimension is closed (hash-partitioned).
func (d *Dimension) Hash() bool { return d.Partitions > 0 }

// Hypertable is a hypertable, or the materialization hypertable behind a
// continuous aggregate.
type Hypertable struct {
	ID                 int32
	Name               task.Name
	OID                uint32
	Dimensions         []Dimension // primary first
	Columns            []pg.Column
	CompressionEnabled bool     // its chunks may be compressed
	Enforced           []string // what its constraints demand of rows, to be compared

	// Of a continuous aggregate: its user view and the hypertable it
	// aggregates.
	View      *task.Name
	Raw       int32 // the parent's materialization hypertable in a hierarchy
	Finalized bool  // false for a legacy aggregate in partial form

	// Relkind is set of a relation that is no hypertable (see PlainRelation): 'r', 'p', 'v',
	// 'm' or 'f', as pg_class has it. It has no number, and one dimension.
	Relkind string

	// Version changes with whatever DDL changes about the hypertable. Known only
	// of one that was looked up alone.
	Version string
}

// Label is the name that users know: the view of a continuous aggregate, else
// the hypertable.
func (h *Hypertable) Label() task.Name {
	if h.View != nil {
		return *h.View
	}
	return h.Name
}

// Copied returns the columns that are copied: all but the generated ones.
func (h *Hypertable) Copied() []pg.Column {
	return slices.DeleteFunc(slices.Clone(h.Columns), func(c pg.Column) bool { return c.Generated })
}

// Hypertables lists all hypertables of the database with their dimensions and
// columns.
func (db *DB) Hypertables(ctx context.Context) ([]*Hypertable, error) {
	return queryHypertables(ctx, db, "true")
}

// Hypertable returns the hypertable of that id, nil if there is none.
func (db *DB) Hypertable(ctx context.Context, id int32) (*Hypertable, error) {
	var ask pgx.Batch
	var v Version
	askVersion(db, &ask, &v, "h.id = $1", id)
	return versionSent(ctx, db, &ask, &v)
}

// HypertableFor returns the hypertable of that name, or the one behind the
// continuous aggregate of that view; nil if there is none.
func (db *DB) HypertableFor(ctx context.Context, name task.Name, view *task.Name) (*Hypertable, error) {
	var ask pgx.Batch
	var v Version
	AskVersion(db, &ask, name, view, &v)
	return versionSent(ctx, db, &ask, &v)
}

func versionSent(ctx context.Context, db *DB, ask *pgx.Batch, v *Version) (*Hypertable, error) {
	if db.Plain() {
		return nil, nil
	}
	if err := db.SendBatch(ctx, ask).Close(); err != nil {
		return nil, db.Wrap(err, "look up a hypertable")
	}
	return v.Hypertable(ctx, db)
}

// Version is a hypertable as it is at the moment: its number, 0 for none, and what
// changes with whatever DDL changes about it.
type Version struct {
	id          int32
	fingerprint string
	// Skips is set where the server leaves chunks of it out of queries by the ranges of
	// columns; see Skips.
	Skips bool
}

// AskVersion asks for that of the hypertable of that name, or of the one behind the
// continuous aggregate of that view.
func AskVersion(db *DB, ask *pgx.Batch, name task.Name, view *task.Name, v *Version) {
	if view != nil {
		askVersion(db, ask, v, `h.id = (select mat_hypertable_id from _timescaledb_catalog.continuous_agg
            where user_view_schema = $1 and user_view_name = $2)`, view.Schema, view.Name)
		return
	}
	askVersion(db, ask, v, `h.schema_name = $1 and h.table_name = $2
        and not exists (select from _timescaledb_catalog.continuous_agg where mat_hypertable_id = h.id)`,
		name.Schema, name.Name)
}

func askVersion(db *DB, ask *pgx.Batch, v *Version, which string, args ...any) {
	skips := "false"
	if skipsChunks(db) {
		skips = "exists (select from _timescaledb_catalog.chunk_column_stats s where s.hypertable_id = h.id)"
	}
	sql := strings.NewReplacer("{which}", which, "{skips}", skips).Replace(fingerprintSQL)
	ask.Queue(sql, args...).QueryRow(func(r pgx.Row) error {
		*v = Version{}
		err := r.Scan(&v.id, &v.fingerprint, &v.Skips)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		return err
	})
}

// Hypertable returns the hypertable of that version, nil if there is none. It is read unless it
// is known and nothing about it has changed: a lane that copies thousands of chunks reads
// columns and dimensions once, and still sees an ALTER TABLE between two chunks.
func (v *Version) Hypertable(ctx context.Context, db *DB) (*Hypertable, error) {
	if v.id == 0 {
		return nil, nil
	}
	if h := db.known[v.id]; h != nil && h.Version == v.fingerprint {
		return h, nil
	}
	hs, err := queryHypertables(ctx, db, "h.id = $1", v.id)
	if err != nil || len(hs) == 0 {
		return nil, err
	}
	hs[0].Version = v.fingerprint
	db.known[v.id] = hs[0]
	return hs[0], nil
}

func queryHypertables(ctx context.Context, db *DB, which string, args ...any) ([]*Hypertable, error) {
	if db.Plain() {
		return nil, nil
	}
	rows, err := db.Query(ctx, strings.Replace(hypertablesSQL, "{which}", which, 1), args...)
	if err != nil {
		return nil, db.Wrap(err, "list hypertables")
	}
	hs, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (*Hypertable, error) {
		var h Hypertable
		var vs, vn *string
		var raw *int32
		err := r.Scan(&h.ID, &h.Name.Schema, &h.Name.Name, &h.OID, &vs, &vn, &raw, &h.Finalized, &h.CompressionEnabled)
		if vs != nil {
			h.View = &task.Name{Schema: *vs, Name: *vn}
			h.Raw = *raw
		}
		return &h, err
	})
	if err != nil {
		return nil, db.Wrap(err, "list hypertables")
	}
	return hs, describe(ctx, db, hs)
}

// describe fills in dimensions and columns.
func describe(ctx context.Context, db *DB, hs []*Hypertable) error {
	ids, oids := make([]int32, len(hs)), make([]uint32, len(hs))
	byID, byOID := map[int32]*Hypertable{}, map[uint32]*Hypertable{}
	for i, h := range hs {
		ids[i], oids[i] = h.ID, h.OID
		byID[h.ID], byOID[h.OID] = h, h
	}
	rows, err := db.Query(ctx, dimensionsSQL, ids)
	if err != nil {
		return db.Wrap(err, "list dimensions")
	}
	var id int32
	var d Dimension
	_, err = pgx.ForEachRow(rows, []any{&id, &d.Column, &d.Type, &d.Partitions, &d.Interval, &d.Calendar,
		&d.Func.Schema, &d.Func.Name, &d.RangeType}, func() error {
		byID[id].Dimensions = append(byID[id].Dimensions, d)
		return nil
	})
	if err != nil {
		return db.Wrap(err, "list dimensions")
	}
	cols, err := db.Columns(ctx, oids...)
	if err != nil {
		return err
	}
	for oid, c := range cols {
		byOID[oid].Columns = c
	}
	demands, err := db.Enforced(ctx, oids)
	for oid, d := range demands {
		byOID[oid].Enforced = d
	}
	return err
}

// Stricter returns a constraint of the hypertable that is not among those of the other
// side (has), "" for none: rows of the other side may violate it.
func (h *Hypertable) Stricter(has []string) string {
	for _, e := range h.Enforced {
		if !slices.Contains(has, e) {
			return e
		}
	}
	return ""
}

// AnyNullable reports whether one of these columns may hold NULL.
func (h *Hypertable) AnyNullable(names []string) bool {
	return slices.ContainsFunc(h.Columns, func(c pg.Column) bool {
		return !c.NotNull && slices.Contains(names, c.Name)
	})
}
