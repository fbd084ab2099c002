package tsdb

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"bf/lib/pg"
	"bf/lib/task"

	"github.com/jackc/pgx/v5"
)

var (
	//go:embed aggregates.sql
	aggregatesSQL string
	//go:embed invalid.sql
	invalidSQL string
)

// Aggregate is a continuous aggregate.
type Aggregate struct {
	*Hypertable // the materialization hypertable
	// Watermark is the end of the last bucket that is materialized: a
	// real-time view takes what lies below it from the materialization
	// hypertable and the rest from the raw data.
	Watermark        int64
	MaterializedOnly bool
	// Whole is set where only a refresh of everything is right: TimescaleDB
	// before 2.12 takes a month on top of another aggregate for 30 days.
	Whole bool
	// Shifted is set for buckets of a fixed width with an origin or an offset.
	// TimescaleDB up to 2.22 narrows the window of a refresh as if they had
	// none: Refresh widens it, and may touch a part of the buckets next to it.
	Shifted bool
	// Definition is the query that it stores, as this server spells it.
	Definition string

	bucket  string // SQL: the bucket of a value "v" in internal units
	width   string // SQL: its width in internal units; of a month 30 days
	regular string // SQL: the bucket of "v" if it were not shifted
}

// Aggregates lists the continuous aggregates among the hypertables, in their
// order.
func (db *DB) Aggregates(ctx context.Context, hs []*Hypertable) ([]*Aggregate, error) {
	byID := map[int32]*Hypertable{}
	for _, h := range hs {
		if h.View != nil {
			byID[h.ID] = h
		}
	}
	if len(byID) == 0 {
		return nil, nil
	}
	rows, err := db.Query(ctx, strings.ReplaceAll(aggregatesSQL, "{functions}", pg.Ident(db.Functions)))
	if err != nil {
		return nil, db.Wrap(err, "list continuous aggregates")
	}
	found := map[int32]*Aggregate{}
	var id int32
	var view task.Name
	var only, months, fixed bool
	var mark int64
	var b bucketFunction
	var definition string
	_, err = pgx.ForEachRow(rows, []any{&id, &view.Schema, &view.Name, &only, &mark, &b.fn, &b.width,
		&b.origin, &b.offset,
		&b.zone, &months, &fixed, &definition}, func() error {
		if h := byID[id]; h != nil {
			a := &Aggregate{Hypertable: h, Watermark: mark, MaterializedOnly: only, Definition: definition,
				Whole: months && db.Functions == "_timescaledb_internal"}
			b.typ = h.Dimensions[0].RangeType
			a.bucket, a.width = b.bucketing(db)
			regular := b
			regular.origin, regular.offset = "", ""
			a.regular, _ = regular.bucketing(db)
			a.Shifted = fixed && a.regular != a.bucket
			found[id] = a
		}
		return nil
	})
	if err != nil {
		return nil, db.Wrap(err, "list continuous aggregates")
	}
	var as []*Aggregate
	for _, h := range hs {
		if a := found[h.ID]; a != nil {
			as = append(as, a)
		}
	}
	return as, nil
}

// bucketFunction is what the catalog says of an aggregate's buckets; "" for what
// its query does not name.
type bucketFunction struct {
	typ                         string // of the primary dimension
	fn                          string // the function, quoted
	width, origin, offset, zone string // its arguments, as text
}

// bucketing builds the SQL for the bucket of an internal value v, and for the
// bucket's width.
func (b bucketFunction) bucketing(db *DB) (bucket, size string) {
	fn := b.fn
	if fn == "" {
		fn = pg.Ident(db.ExtensionSchema, "time_bucket")
	}
	lit := func(v, typ string) string { return pg.Literal(v) + "::" + typ }
	if isInt(b.typ) {
		args := lit(b.width, b.typ) + ", v::" + b.typ
		if b.offset != "" {
			args += ", " + lit(b.offset, b.typ)
		}
		return fn + "(" + args + ")::bigint", lit(b.width, "bigint")
	}
	value := internalToTime(db, b.typ)
	wide := lit(b.width, "interval")
	if strings.Trim(b.width, "0123456789") == "" { // a number of microseconds, up to 2.14
		wide = lit(b.width+" microseconds", "interval")
	}
	args := "bucket_width => " + wide + ", ts => " + value
	if b.zone != "" {
		args += ", timezone => " + lit(b.zone, "text")
	}
	if b.origin != "" {
		args += ", origin => " + lit(b.origin, b.typ)
	}
	if b.offset != "" {
		args += `, "offset" => ` + lit(b.offset, "interval")
	}
	return db.Fn("time_to_internal") + "(" + fn + "(" + args + "))",
		"(extract(epoch from " + wide + ") * 1000000)::bigint"
}

// internalToTime is SQL for the internal value v as a time of that type.
func internalToTime(db *DB, typ string) string {
	switch typ {
	case "timestamp without time zone":
		return db.Fn("to_timestamp_without_timezone") + "(v)"
	case "date":
		return db.Fn("to_date") + "(v)"
	}
	return db.Fn("to_timestamp") + "(v)"
}

// Lowest is the watermark of an aggregate that was never refreshed.
func (a *Aggregate) Lowest() int64 {
	switch a.Dimensions[0].RangeType {
	case "smallint":
		return math.MinInt16
	case "integer":
		return math.MinInt32
	case "bigint":
		return math.MinInt64
	}
	return -210866803200000000 // 4714-11-24 BC, where PostgreSQL's time begins
}

// Buckets returns the starts of the buckets that hold these internal values.
func (a *Aggregate) Buckets(ctx context.Context, db *DB, values ...int64) ([]int64, error) {
	rows, err := db.Query(ctx, "select "+a.bucket+
		" from unnest($1::bigint[]) with ordinality u(v, i) order by i", values)
	if err != nil {
		return nil, db.Wrap(err, "buckets of %s", a.Label())
	}
	bs, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	return bs, db.Wrap(err, "buckets of %s", a.Label())
}

// Samples are values, in internal units, whose buckets tell two ways of bucketing
// apart: odd ones, in summer and in winter.
func (a *Aggregate) Samples() []int64 {
	switch a.Dimensions[0].RangeType {
	case "smallint":
		return []int64{7, 1234, 31234}
	case "integer":
		return []int64{7, 1234567, 1987654321}
	case "bigint":
		return []int64{7, 1234567, 1987654321, 1723456789012345}
	}
	const day = 24 * 60 * 60 * 1_000_000
	return []int64{367*day + 12345678901, 8231*day + 66666666666, 8500*day + 44444444444, 9199*day + 81234567890}
}

// Width returns the width of the aggregate's buckets in internal units; that of
// a month, whose length varies, is 30 days.
func (a *Aggregate) Width(ctx context.Context, db *DB) (int64, error) {
	var w int64
	err := db.QueryRow(ctx, "select "+a.width).Scan(&w)
	if err == nil && w <= 0 {
		err = errors.New("cannot tell the width of its buckets")
	}
	return w, db.Wrap(err, "buckets of %s", a.Label())
}

// Ends returns the ends of buckets, given their starts and the buckets' Width. Widths
// vary (months, changes of the clock), but by less than a factor of two: of the points
// in steps of half a width, the first one in another bucket is in the next bucket.
func (a *Aggregate) Ends(ctx context.Context, db *DB, width int64, starts []int64) ([]int64, error) {
	ends := make([]int64, len(starts))
	todo := make([]int, len(starts))
	for i := range starts {
		todo[i] = i
	}
	half := max(width/2, 1)
	for k := int64(1); len(todo) > 0; k++ {
		values := make([]int64, len(todo))
		for i, at := range todo {
			values[i] = starts[at] + k*half
		}
		floors, err := a.Buckets(ctx, db, values...)
		if err != nil {
			return nil, err
		}
		var still []int
		for i, at := range todo {
			if floors[i] > starts[at] {
				ends[at] = floors[i]
			} else {
				still = append(still, at)
			}
		}
		todo = still
	}
	return ends, nil
}

// Invalid lists what a refresh of the aggregate would look at, unordered and
// not aligned to buckets.
func (a *Aggregate) Invalid(ctx context.Context, db *DB) ([]Span, error) {
	return a.invalid(ctx, db, a.Raw)
}

// Handed lists what of that is in the aggregate's own log already. What a refresh that is
// running computes is among it.
func (a *Aggregate) Handed(ctx context.Context, db *DB) ([]Span, error) { return a.invalid(ctx, db, 0) }

// invalid includes what is logged for a hypertable and not moved to the aggregate's own
// log yet.
func (a *Aggregate) invalid(ctx context.Context, db *DB, raw int32) ([]Span, error) {
	ranges := ""
	if db.columns["continuous_aggs_materialization_ranges.materialization_id"] {
		ranges = `union all
            select lowest_modified_value, greatest_modified_value
            from _timescaledb_catalog.continuous_aggs_materialization_ranges where materialization_id = $1`
	}
	rows, err := db.Query(ctx, strings.Replace(invalidSQL, "{ranges}", ranges, 1), a.ID, raw)
	if err != nil {
		return nil, db.Wrap(err, "invalidations of %s", a.Label())
	}
	spans, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (s Span, err error) {
		err = r.Scan(&s.From, &s.Until)
		if s.Until != math.MaxInt64 {
			s.Until++
		}
		return s, err
	})
	return spans, db.Wrap(err, "invalidations of %s", a.Label())
}

// First returns the internal value of the first row at or after from, Last that
// of the last row before until; ok is false where there is none.
func First(ctx context.Context, db *DB, h *Hypertable, from, until int64) (v int64, ok bool, err error) {
	return end(ctx, db, h, Span{from, until}, "")
}

// Last is the counterpart of First.
func Last(ctx context.Context, db *DB, h *Hypertable, from, until int64) (v int64, ok bool, err error) {
	return end(ctx, db, h, Span{from, until}, " desc")
}

func end(ctx context.Context, db *DB, h *Hypertable, in Span, desc string) (v int64, ok bool, err error) {
	d := &h.Dimensions[0]
	where, err := between(d, task.FormatBound(in.From), task.FormatBound(in.Until))
	if err != nil {
		return 0, false, err
	}
	if where != "" {
		where = " where " + where
	}
	value := db.Fn("time_to_internal") + "(" + d.expr() + ")"
	if isInt(d.RangeType) {
		value = d.expr() + "::bigint"
	}
	err = db.QueryRow(ctx, "select "+value+" from "+pg.Ident(h.Name.Schema, h.Name.Name)+where+" order by "+d.expr()+
		desc+" limit 1").Scan(&v)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, false, nil
	}
	return v, err == nil, db.Wrap(err, "first and last row of %s", h.Label())
}

// Filled lists the extents, on the primary dimension, of the hypertable's chunks
// that hold rows: a target restored from a dump has all chunks, but empty.
func (h *Hypertable) Filled(ctx context.Context, db *DB) ([]Span, error) {
	cs, err := db.Chunks(ctx, h.ID)
	if err != nil {
		return nil, err
	}
	var spans []Span
	const batch = 200 // chunks that one query asks about
	for part := range slices.Chunk(cs, batch) {
		var sql []string
		for i, c := range part {
			sql = append(sql, fmt.Sprintf("select %d where exists (select from %s)", i,
				pg.Ident(c.Name.Schema, c.Name.Name)))
		}
		rows, err := db.Query(ctx, strings.Join(sql, " union all "), pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			return nil, db.Wrap(err, "chunks of %s", h.Label())
		}
		filled, err := pgx.CollectRows(rows, pgx.RowTo[int])
		if err != nil {
			return nil, db.Wrap(err, "chunks of %s", h.Label())
		}
		for _, i := range filled {
			from, _ := task.Bound(part[i].Slices[0].From)
			until, _ := task.Bound(part[i].Slices[0].Until)
			spans = append(spans, Span{from, until})
		}
	}
	return spans, nil
}

// Condition is the SQL condition for the hypertable's rows in the span.
func (h *Hypertable) Condition(s Span) (string, error) {
	c, err := between(&h.Dimensions[0], task.FormatBound(s.From), task.FormatBound(s.Until))
	if c == "" {
		c = "true"
	}
	return c, err
}

// Refresh refreshes the buckets of the span, which is aligned to buckets;
// task.MinBound as its start means the beginning of time. It cannot run in a
// transaction.
func (a *Aggregate) Refresh(ctx context.Context, db *DB, s Span) error {
	typ := a.Dimensions[0].RangeType
	if a.Shifted {
		w, err := a.Width(ctx, db)
		if err != nil {
			return err
		}
		if s.From != task.MinBound {
			err = db.QueryRow(ctx, "select "+a.regular+" from (values ($1::bigint)) u(v)", s.From).Scan(&s.From)
		}
		if err == nil {
			err = db.QueryRow(ctx, "select "+a.regular+" from (values ($1::bigint)) u(v)", s.Until+w-1).Scan(&s.Until)
		}
		if err != nil {
			return db.Wrap(err, "buckets of %s", a.Label())
		}
	}
	value := func(v int64) string {
		switch {
		case v == task.MinBound:
			return "null"
		case isInt(typ):
			return fmt.Sprintf("'%d'::%s", v, typ)
		}
		return strings.Replace(internalToTime(db, typ), "(v)", fmt.Sprintf("('%d'::bigint)", v), 1)
	}
	_, err := db.Exec(ctx, fmt.Sprintf("call %s(%s::regclass, %s, %s)",
		pg.Ident(db.ExtensionSchema, "refresh_continuous_aggregate"),
		pg.Literal(pg.Ident(a.View.Schema, a.View.Name)), value(s.From), value(s.Until)))
	return db.Wrap(err, "refresh %s", a.Label())
}

// SetWatermark moves the watermark by hand, which takes a superuser. The second
// statement makes other sessions plan their queries anew: since 2.14 a plan
// holds the watermark as a constant.
func (a *Aggregate) SetWatermark(ctx context.Context, db *DB, mark int64) error {
	err := pgx.BeginFunc(ctx, db.Conn.Conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `insert into _timescaledb_catalog.continuous_aggs_watermark (mat_hypertable_id,
            watermark) values ($1, $2)
            on conflict (mat_hypertable_id) do update set watermark = excluded.watermark`, a.ID, mark); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "update pg_class set relname = relname where oid = $1", a.OID)
		return err
	})
	return db.Wrap(err, "watermark of %s", a.Label())
}
