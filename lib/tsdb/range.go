package tsdb

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"bf/lib/pg"
	"bf/lib/task"
)

func jsonString(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// expr is what the dimension partitions by: the column or the partitioning
// function applied to it. The hash of a null is 0 to TimescaleDB.
func (d *Dimension) expr() string {
	e := pg.Ident(d.Column)
	if !d.Func.IsZero() {
		e = pg.Ident(d.Func.Schema, d.Func.Name) + "(" + e + ")"
	}
	if d.Hash() {
		e = "coalesce(" + e + ", 0)"
	}
	return e
}

// dimensionOf is the hypertable's dimension that a slice is of. A hypertable
// that is partitioned otherwise than the slice's may not have it: then it is as
// TimescaleDB would make it on that column.
func dimensionOf(db *DB, h *Hypertable, s task.Slice) *Dimension {
	if d := h.Dimension(s.Column); d != nil && d.Hash() == s.Hash {
		return d
	}
	for _, c := range h.Columns {
		switch {
		case c.Name != s.Column:
		case s.Hash:
			return &Dimension{Column: c.Name, Partitions: 1, Func: task.Name{Schema: db.Functions, Name: partitionHash}}
		default:
			typ := typmod.ReplaceAllString(c.Type, "")
			return &Dimension{Column: c.Name, Type: typ, RangeType: typ}
		}
	}
	return nil
}

// partitionHash is TimescaleDB's own function of a hash dimension.
const partitionHash = "get_partition_hash"

// HashFunc is the function of the user's that a hash dimension partitions by;
// zero for TimescaleDB's own, whose schema changed with 2.12.
func (d *Dimension) HashFunc() task.Name {
	if !d.Hash() || d.Func.Name == partitionHash {
		return task.Name{}
	}
	return d.Func
}

var typmod = regexp.MustCompile(`\(\d+\)`)

// bound is an internal bound as a constant that can be compared with expr.
func (d *Dimension) bound(v int64) string {
	if d.Hash() {
		return literal("bigint", v)
	}
	return literal(d.RangeType, v)
}

// between is the condition for one dimension, "" when it has no bound.
func between(d *Dimension, from, until string) (string, error) {
	lo, err := task.Bound(from)
	if err != nil {
		return "", err
	}
	hi, err := task.Bound(until)
	if err != nil {
		return "", err
	}
	var c []string
	if lo != task.MinBound {
		c = append(c, d.expr()+" >= "+d.bound(lo))
	}
	if hi != task.MaxBound {
		c = append(c, d.expr()+" < "+d.bound(hi))
	}
	return strings.Join(c, " and "), nil
}

// RangeCondition is the SQL condition for the staged row range of a task, on
// the primary dimension; "true" when it has no bounds. It is built from the
// catalog's column and function and from integers, never from text of the
// record.
func (h *Hypertable) RangeCondition(db *DB, t *task.Task) (string, error) {
	return conditions(db, h, nil, t.Range)
}

// TaskCondition is RangeCondition and the slices of all other dimensions: the
// rows of the task wherever they are stored.
func (h *Hypertable) TaskCondition(db *DB, t *task.Task) (string, error) {
	return conditions(db, h, t.Slices[1:], t.Range)
}

func conditions(db *DB, h *Hypertable, slices []task.Slice, r task.Range) (string, error) {
	all := append([]task.Slice{{Column: r.Column, From: r.From, Until: r.Until}}, slices...)
	var conds []string
	for _, s := range all {
		d := dimensionOf(db, h, s)
		if d == nil {
			return "", &pg.Error{Side: db.Side, Object: h.Name.String(), Err: fmt.Errorf("has no column %q", s.Column)}
		}
		c, err := between(d, s.From, s.Until)
		if err != nil {
			return "", err
		}
		if h.Plain() && s.From == task.FormatBound(task.MinBound) {
			conds = append(conds, d.finite())
		}
		if c != "" {
			conds = append(conds, c)
		}
	}
	if len(conds) == 0 {
		return "true", nil
	}
	return strings.Join(conds, " and "), nil
}

// Dimension returns the dimension on that column, nil if there is none.
func (h *Hypertable) Dimension(column string) *Dimension {
	for i := range h.Dimensions {
		if h.Dimensions[i].Column == column {
			return &h.Dimensions[i]
		}
	}
	return nil
}

// Internal converts a bound as a user writes it into the internal integer of
// the hypertable's primary dimension. A uuid dimension takes a version 7 uuid
// or a time. What a cast would drop silently is refused, as rows would be
// missing: the zone of a time where the dimension has none (UTC may stand: it
// changes no digit), the time of day of a date.
func (h *Hypertable) Internal(ctx context.Context, db *DB, text string) (int64, error) {
	d := &h.Dimensions[0]
	cast := "cast($1::text as " + d.RangeType + ")"
	if isInt(d.RangeType) {
		cast = "cast($1::text as bigint)" // a bound beyond the column's range is fine
	}
	zone, hour := "false", "false"
	switch d.RangeType { // under TimeZone UTC
	case "date":
		hour = "$1::text::timestamp <> $1::text::date"
		fallthrough
	case "timestamp without time zone":
		zone = "$1::text::timestamp <> $1::text::timestamptz at time zone 'UTC'"
	}
	var v *int64
	var zoned, within bool
	err := db.QueryRow(ctx, "select "+db.Fn("time_to_internal")+"("+cast+"), "+zone+", "+hour, text).
		Scan(&v, &zoned, &within)
	switch {
	case err == nil && zoned:
		return 0, &BadBound{fmt.Sprintf("%q has a time zone, and dimension %q of %s is a %s: "+
			"say it in the column's own time, without a zone", text, d.Column, h.Label(), d.RangeType)}
	case err == nil && within:
		return 0, &BadBound{fmt.Sprintf("%q is within a day, and dimension %q of %s is a date: "+
			"say the day that ends or begins the range", text, d.Column, h.Label())}
	}
	if err != nil && d.RangeType == "uuid" {
		err = db.QueryRow(ctx, "select "+db.Fn("time_to_internal")+"($1::text::timestamptz)", text).Scan(&v)
	}
	switch code := pg.Code(err); {
	case err == nil && v != nil:
		return *v, nil
	// data, syntax, not supported
	case err == nil || strings.HasPrefix(code, "22") || strings.HasPrefix(code, "42") || code == "0A000":
		return 0, &BadBound{fmt.Sprintf("%q is no %s, the type of dimension %q of %s", text, d.RangeType, d.Column,
			h.Label())}
	}
	return 0, db.Wrap(err, "bound of %s", h.Label())
}

// BadBound is a value that is none of the dimension's type.
type BadBound struct{ text string }

func (e *BadBound) Error() string { return e.text }

// Text is the inverse of Internal, for people; "" for an unbounded end.
func (h *Hypertable) Text(ctx context.Context, db *DB, internal []int64) (map[int64]string, error) {
	d := &h.Dimensions[0]
	m := make(map[int64]string, len(internal))
	if isInt(d.RangeType) {
		for _, v := range internal {
			m[v] = task.FormatBound(v)
		}
	} else {
		fn := db.Fn("to_timestamp")
		switch d.RangeType {
		case "timestamp without time zone":
			fn = db.Fn("to_timestamp_without_timezone")
		case "date":
			fn = db.Fn("to_date")
		}
		rows, err := db.Query(ctx, "select v, "+fn+"(v)::text from unnest($1::bigint[]) v", internal)
		if err != nil {
			return nil, db.Wrap(err, "times of %s", h.Label())
		}
		defer rows.Close()
		for rows.Next() {
			var v int64
			var s string
			if err := rows.Scan(&v, &s); err != nil {
				return nil, db.Wrap(err, "times of %s", h.Label())
			}
			m[v] = s
		}
		if err := rows.Err(); err != nil {
			return nil, db.Wrap(err, "times of %s", h.Label())
		}
	}
	delete(m, task.MinBound)
	delete(m, task.MaxBound)
	return m, nil
}

func isInt(typ string) bool {
	return typ == "smallint" || typ == "integer" || typ == "bigint"
}

// Natural reports whether this is an extent that TimescaleDB itself gives to the
// chunks of an open dimension: one interval long, at a multiple of it. Of
// calendar chunks any may be: it depends on somebody's time zone.
func (d *Dimension) Natural(from, until string) bool {
	if d.Calendar {
		return true
	}
	lo, err := task.Bound(from)
	if err != nil {
		return false
	}
	hi, err := task.Bound(until)
	return err == nil && d.Interval > 0 && lo%d.Interval == 0 && hi-lo == d.Interval
}

// HashPartitions lists the partitions of a hash dimension: TimescaleDB divides
// 0 … 2³¹-1 evenly and leaves the outer ends open.
func (d *Dimension) HashPartitions() (all []task.Slice) {
	width := int64(math.MaxInt32) / int64(d.Partitions)
	for i := range int64(d.Partitions) {
		lo, hi := i*width, (i+1)*width
		if i == 0 {
			lo = task.MinBound
		}
		if i == int64(d.Partitions)-1 {
			hi = task.MaxBound
		}
		all = append(all, task.Slice{Column: d.Column, From: task.FormatBound(lo), Until: task.FormatBound(hi),
			Hash: true})
	}
	return all
}

// HasPartition reports whether a hash dimension has a partition with exactly
// this extent.
func (d *Dimension) HasPartition(from, until string) bool {
	return slices.ContainsFunc(d.HashPartitions(), func(s task.Slice) bool {
		return s.From == from && s.Until == until
	})
}

// Unaligned says why the slices of another server's chunk must not become one of
// this hypertable: its dimensions are others, or it hashes into another number of partitions
// (TimescaleDB up to 2.22 would then create overlapping chunks, or reject
// inserts later), or it has several dimensions and cuts one of them at other
// points (2.11 would then cut the neighbours wrongly: their CHECK is narrower
// than their slices, and inserts of the application fail).
func (h *Hypertable) Unaligned(slices []task.Slice) string {
	if len(h.Dimensions) != len(slices) {
		return fmt.Sprintf("the target has %d dimensions, the source %d", len(h.Dimensions), len(slices))
	}
	for _, s := range slices {
		d := h.Dimension(s.Column)
		if d == nil {
			return fmt.Sprintf("the target has no dimension %q", s.Column)
		}
		if d.Hash() != s.Hash || d.Hash() && !d.HasPartition(s.From, s.Until) {
			return fmt.Sprintf("dimension %q is partitioned differently on the target", s.Column)
		}
		if len(slices) > 1 && !d.Hash() && !d.Natural(s.From, s.Until) {
			return fmt.Sprintf("the target cuts dimension %q at other points", s.Column)
		}
	}
	return ""
}

// Beginning is the SQL expression of the first value in a slice of an open
// dimension; "" where a partitioning function hides it, or there is none.
func Beginning(h *Hypertable, s task.Slice) (string, error) {
	from, err := task.Bound(s.From)
	if err != nil {
		return "", err
	}
	d := h.Dimension(s.Column)
	if d == nil || !d.Func.IsZero() || from == task.MinBound {
		return "", nil
	}
	return d.bound(from), nil
}
