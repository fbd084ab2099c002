package tsdb

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"bf/lib/pg"
	"bf/lib/task"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

var (
	//go:embed plain.sql
	plainSQL string
	//go:embed leaves.sql
	leavesSQL string
	//go:embed indexed.sql
	indexedSQL string
)

// The kinds of relations that can be a source, as pg_class has them.
const (
	Table       = "r"
	Partitioned = "p"
	View        = "v"
	MatView     = "m"
	Foreign     = "f"
)

// ParseName reads a name as SQL spells it, in schema public if it names none; zero if
// it is none.
func (db *DB) ParseName(ctx context.Context, text string) (n task.Name, err error) {
	var parts []string
	err = db.QueryRow(ctx, "select parse_ident($1)", text).Scan(&parts)
	switch {
	case pg.Code(err) == pg.InvalidParameter:
		return n, nil
	case err != nil:
		return n, db.Wrap(err, "name %q", text)
	case len(parts) == 1:
		return task.Name{Schema: "public", Name: parts[0]}, nil
	case len(parts) == 2:
		return task.Name{Schema: parts[0], Name: parts[1]}, nil
	}
	return n, nil
}

// Plain reports whether this is a relation of PostgreSQL that is no hypertable.
func (h *Hypertable) Plain() bool { return h.Relkind != "" }

// PlainRelation returns the relation of that name that holds or shows rows and is no
// hypertable, described like one; nil if there is none. Its one dimension is the
// column by which the target's hypertable is cut, if it has such a column.
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
	if d := dimensionOf(db, h, task.Slice{Column: column}); d != nil {
		h.Dimensions = []Dimension{*d}
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
func Leaves(ctx context.Context, db *DB, h *Hypertable) ([]*Leaf, error) {
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

// Part is a leaf, or a range of its heap's blocks; its zero value is all of a relation.
type Part struct {
	Leaf         *Leaf
	First, Until int64 // blocks; Until 0: all of it
}

// From is the part as a FROM clause names it, and the condition on its blocks.
func (p Part) From() (from, where string) {
	from = pg.Ident(p.Leaf.Name.Schema, p.Leaf.Name.Name)
	if p.Leaf.Relkind == Table || p.Leaf.Relkind == Foreign {
		from = "only " + from
	}
	if p.Until == 0 {
		return from, "true"
	}
	return from, fmt.Sprintf("ctid >= '(%d,0)' and ctid < '(%d,0)'", p.First, p.Until)
}

// Count counts the rows of a part between bounds, which are sorted and of the
// primary dimension: n[i] are those at or after bounds[i] and before the next one, the
// last ones those at or after the last. Those that are in no range (NULL, -infinity)
// are out.
func (p Part) Count(ctx context.Context, db *DB, h *Hypertable, bounds []int64) (n []int64, out int64, err error) {
	from, where := p.From()
	// Not prepared: hundreds of them, each with its bounds, would stay in the memory of
	// both sides.
	rows, err := db.Query(ctx, "select "+h.bucket(bounds)+", count(*) from "+from+" where "+where+" group by 1",
		pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return nil, 0, db.Wrap(err, "count the rows of %s", p.Leaf.Name)
	}
	n = make([]int64, len(bounds))
	var at *int64
	var rowsOf int64
	_, err = pgx.ForEachRow(rows, []any{&at, &rowsOf}, func() error {
		switch {
		case at == nil || *at == 0 && bounds[0] == h.Lowest():
			out += rowsOf
		case *at > 0:
			n[*at-1] = rowsOf
		}
		return nil
	})
	return n, out, db.Wrap(err, "count the rows of %s", p.Leaf.Name)
}

// Within counts the rows of a part, and those of them in a range. It costs the server half
// of what Count does.
func (p Part) Within(ctx context.Context, db *DB, h *Hypertable, in Span) (all, within int64, err error) {
	condition, err := conditions(db, h, nil, in.of(h.Dimensions[0].Column))
	if err != nil {
		return 0, 0, err
	}
	from, where := p.From()
	err = db.QueryRow(ctx, "select count(*), count(*) filter (where "+condition+") from "+from+" where "+where,
		pgx.QueryExecModeSimpleProtocol).Scan(&all, &within)
	return all, within, db.Wrap(err, "count the rows of %s", p.Leaf.Name)
}

// bucket is the SQL expression that tells between which bounds a row is.
func (h *Hypertable) bucket(bounds []int64) string {
	d := &h.Dimensions[0]
	column := d.expr()
	if isInt(d.RangeType) {
		column += "::bigint"
	}
	return "width_bucket(" + column + ", " + literals(d.RangeType, bounds) + ")"
}

// Lowest is the least internal value of the primary dimension that a row in a range
// may have: TimescaleDB takes no -infinity.
func (h *Hypertable) Lowest() int64 {
	switch typ := h.Dimensions[0].RangeType; {
	case isInt(typ):
		return task.MinBound
	case typ == "uuid":
		return 0
	}
	return beginning.UnixMicro()
}

// Outside counts the rows that are in no range: NULL, and -infinity unless the range
// has a beginning.
func Outside(ctx context.Context, db *DB, h *Hypertable, from int64) (n int64, err error) {
	d := &h.Dimensions[0]
	where := d.expr() + " is null"
	if !isInt(d.RangeType) && d.RangeType != "uuid" && from <= h.Lowest() {
		where += " or " + d.expr() + " = " + d.bound(task.MinBound)
	}
	err = db.QueryRow(ctx, "select count(*) from "+pg.Ident(h.Name.Schema, h.Name.Name)+" where "+where).Scan(&n)
	return n, db.Wrap(err, "count the rows of %s without a time", h.Name)
}

// Earliest is First for a plain relation, or for parts of it; Latest is Last.
func (p Part) Earliest(ctx context.Context, db *DB, h *Hypertable, from, until int64) (v int64, ok bool, err error) {
	return p.edge(ctx, db, h, Span{From: from, Until: until}, "")
}

// Latest is the counterpart of Earliest.
func (p Part) Latest(ctx context.Context, db *DB, h *Hypertable, from, until int64) (v int64, ok bool, err error) {
	return p.edge(ctx, db, h, Span{From: from, Until: until}, " desc")
}

func (p Part) edge(ctx context.Context, db *DB, h *Hypertable, in Span, desc string) (v int64, ok bool, err error) {
	d := &h.Dimensions[0]
	relation, where := pg.Ident(h.Name.Schema, h.Name.Name), "true"
	if p.Leaf != nil {
		relation, where = p.From()
	}
	condition, err := conditions(db, h, nil, in.of(d.Column))
	if err != nil {
		return 0, false, err
	}
	var value any
	switch d.RangeType {
	case "uuid":
		value = &pgtype.UUID{}
	case "date":
		value = &pgtype.Date{}
	case "timestamp with time zone":
		value = &pgtype.Timestamptz{}
	case "timestamp without time zone":
		value = &pgtype.Timestamp{}
	default:
		value = &v
	}
	err = db.QueryRow(ctx, "select "+d.expr()+" from "+relation+" where "+where+" and "+condition+
		" order by 1"+desc+" limit 1", pgx.QueryExecModeDescribeExec).Scan(value)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, db.Wrap(err, "first and last row of %s", h.Name)
	}
	v, ok = internal(value, v)
	return min(v, in.Until-1), ok, nil
}

// internal is what TimescaleDB makes of a value.
func internal(value any, v int64) (int64, bool) {
	var at time.Time
	var infinite pgtype.InfinityModifier
	switch x := value.(type) {
	case *pgtype.UUID:
		for _, b := range x.Bytes[:6] {
			v = v<<8 | int64(b)
		}
		return v * 1000, true
	case *pgtype.Date:
		at, infinite = x.Time, x.InfinityModifier
	case *pgtype.Timestamptz:
		at, infinite = x.Time, x.InfinityModifier
	case *pgtype.Timestamp:
		at, infinite = x.Time, x.InfinityModifier
	default:
		return v, true
	}
	if infinite != pgtype.Finite {
		return task.MaxBound, infinite == pgtype.Infinity
	}
	return at.UnixMicro(), true
}

// Scanned says which leaves a query with a condition may read, by name, and how many
// rows the planner expects.
func Scanned(ctx context.Context, db *DB, h *Hypertable, condition string) (leaves []task.Name, rows int64, err error) {
	plan, err := explain(ctx, db, h, condition)
	if err != nil {
		return nil, 0, err
	}
	if h.Relkind == Partitioned || h.Relkind == Table {
		plan.each(func(n *planNode) {
			if n.Relation != "" {
				leaves = append(leaves, task.Name{Schema: n.Schema, Name: n.Relation})
			}
		})
	} else {
		leaves = []task.Name{h.Name}
	}
	slices.SortFunc(leaves, func(a, b task.Name) int {
		return cmp.Or(strings.Compare(a.Schema, b.Schema), strings.Compare(a.Name, b.Name))
	})
	return slices.Compact(leaves), plan.Rows, nil
}

// Finds reports whether no table is read in whole for a query of a range, if that can
// be avoided at all.
func Finds(ctx context.Context, db *DB, h *Hypertable, in Span) (ok bool, err error) {
	condition, err := conditions(db, h, nil, in.of(h.Dimensions[0].Column))
	if err != nil {
		return false, err
	}
	plan, err := explain(ctx, db, h, condition)
	if err != nil {
		return false, err
	}
	ok = true
	plan.each(func(n *planNode) { ok = ok && n.Type != "Seq Scan" })
	return ok, nil
}

// explain is the plan of a query with a condition.
func explain(ctx context.Context, db *DB, h *Hypertable, condition string) (*planNode, error) {
	var text []byte
	err := db.QueryRow(ctx, "explain (format json, verbose) select from "+pg.Ident(h.Name.Schema, h.Name.Name)+
		" where "+condition).Scan(&text)
	if err != nil {
		return nil, db.Wrap(err, "explain a query of %s", h.Name)
	}
	var plans []struct{ Plan planNode }
	if err := json.Unmarshal(text, &plans); err != nil || len(plans) == 0 {
		return nil, fmt.Errorf("%s: a plan that cannot be read: %v", h.Name, err)
	}
	return &plans[0].Plan, nil
}

// HasStatistics reports whether the planner knows how the column's values are spread
// over the leaves.
func (db *DB) HasStatistics(ctx context.Context, h *Hypertable, leaves []*Leaf) (known bool, err error) {
	var schemas, names []string
	for _, l := range leaves {
		schemas, names = append(schemas, l.Name.Schema), append(names, l.Name.Name)
	}
	err = db.QueryRow(ctx, `select exists (select from pg_stats s
            join unnest($1::text[], $2::text[]) l(schema, name) on s.schemaname = l.schema and s.tablename = l.name
            where s.attname = $3)`, schemas, names, h.Dimensions[0].Column).Scan(&known)
	return known, db.Wrap(err, "statistics of %s", h.Name)
}

// planNode is a node of EXPLAIN (FORMAT JSON).
type planNode struct {
	Type     string     `json:"Node Type"`
	Schema   string     `json:"Schema"`
	Relation string     `json:"Relation Name"`
	Rows     int64      `json:"Plan Rows"`
	Plans    []planNode `json:"Plans"`
}

// each calls f for a node and all below it.
func (n *planNode) each(f func(*planNode)) {
	f(n)
	for i := range n.Plans {
		n.Plans[i].each(f)
	}
}

// Indexed says which leaves have an index that finds a range of the column: a btree
// that begins with it, or a BRIN. The plan's cost would not tell: that of a BRIN is near
// a sequential scan's that reads twenty times as much.
func Indexed(ctx context.Context, db *DB, h *Hypertable, leaves []*Leaf) (by map[uint32]string, err error) {
	oids := make([]uint32, len(leaves))
	for i, l := range leaves {
		oids[i] = l.OID
	}
	rows, err := db.Query(ctx, indexedSQL, oids, h.Dimensions[0].Column)
	if err != nil {
		return nil, db.Wrap(err, "indexes of %s", h.Name)
	}
	by = map[uint32]string{}
	var oid uint32
	var method string
	_, err = pgx.ForEachRow(rows, []any{&oid, &method}, func() error {
		by[oid] = method
		return nil
	})
	return by, db.Wrap(err, "indexes of %s", h.Name)
}
