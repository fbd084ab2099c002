package verify

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"bf/lib/pg"
	"bf/lib/task"
	"bf/lib/tsdb"
)

// Summary is what one side holds of a task. It is a record (one JSON object per
// line): the source's half of a verification may be kept, and judged elsewhere
// or later.
type Summary struct {
	V      int       `json:"v"`
	Kind   string    `json:"kind"` // "summary"
	Task   task.Task `json:"task"`
	Method Method    `json:"method"`
	// HashName says how Hash, and the hashes of long values, are made.
	HashName string `json:"hash_name"`
	State    string `json:"state"`
	Rows     int64  `json:"rows"`
	// Hash is the sum of the hashes of all rows; a row is its columns in the
	// order of Columns.
	Hash    string   `json:"hash,omitempty"`
	Columns []Column `json:"columns,omitempty"`
	Note    string   `json:"note,omitempty"`
	Seconds float64  `json:"seconds"`
}

const kind = "summary"

func newSummary(state string) *Summary {
	return &Summary{V: task.Version, Kind: kind, HashName: HashName, State: state}
}

// End is the record after the summaries. The right side of a pipe does not learn
// the exit status of the left: without this record, summaries that are cut off, or
// an ssh that was refused, would pass for all there is.
type End struct {
	V         int    `json:"v"`
	Kind      string `json:"kind"`      // "end"
	Summaries int64  `json:"summaries"` // before it
	Failed    int64  `json:"failed"`    // tasks without one
	Stopped   bool   `json:"stopped"`   // on request, before the last task
}

// KindEnd is the kind of an End.
const KindEnd = "end"

// The states of a summary, as those of a dump.
const (
	StateChunk = "chunk"
	StateGone  = "gone"
)

// Column is a column's part of a summary.
type Column struct {
	Name string `json:"name"`
	Type string `json:"type"`
	How  string `json:"how"` // what of it is hashed: pg.HashValue and so on
	// Values is left out where only the rows are hashed.
	*Values
}

// Values are aggregates of one column as text, nil where its type has none.
type Values struct {
	Count string  `json:"count"` // not null
	Min   *string `json:"min,omitempty"`
	Max   *string `json:"max,omitempty"`
	Sum   *string `json:"sum,omitempty"`
	Hash  *string `json:"hash,omitempty"`
}

// want says what of a summary to compute.
type want struct{ hash, values, hashes bool }

// summarize computes a summary in the side's snapshot. Sums that overflow are
// left out.
func (s *side) summarize(ctx context.Context, cols []Column, w want) (*Summary, error) {
	sum, err := s.query(ctx, cols, w, true)
	if code := pg.Code(err); w.values && (code == pg.NumericOutOfRange || code == pg.DatetimeOverflow) {
		// A sum of the largest floats or of infinite intervals. Only the savepoint
		// is rolled back: the transaction keeps its snapshot.
		if _, err := s.db.Exec(ctx, "rollback to savepoint summary"); err != nil {
			return nil, s.db.Wrap(err, "rows of %s", s.rows)
		}
		sum, err = s.query(ctx, cols, w, false)
	}
	return sum, s.db.Wrap(err, "compare %s", s.rows)
}

func (s *side) query(ctx context.Context, cols []Column, w want, sums bool) (*Summary, error) {
	out := newSummary(StateChunk)
	out.Note, out.Columns = s.note, slices.Clone(cols)
	var b strings.Builder
	b.WriteString("count(*)")
	dest := []any{&out.Rows}
	if w.hash {
		b.WriteString(", " + s.sumOf(s.hashedRow(cols)))
		dest = append(dest, &out.Hash)
	}
	values := make([][]*string, len(cols))
	if w.values {
		// An array per column: a query has at most 1664 columns, a table 1600.
		for i, c := range cols {
			e := aggregatesOf(s, c, sums)
			if w.hashes {
				e = append(e, s.sumOf(s.hashed(c)))
			}
			b.WriteString(",\n array[" + strings.Join(e, ", ") + "]")
			dest = append(dest, &values[i])
		}
	}
	if w.values { // see summarize
		if _, err := s.db.Exec(ctx, "savepoint summary"); err != nil {
			return nil, err
		}
	}
	if err := tsdb.Total(ctx, s.db, b.String(), s.rows, dest...); err != nil {
		return nil, err
	}
	for i, v := range values {
		if v != nil {
			out.Columns[i].Values = &Values{Count: *v[0], Min: v[1], Max: v[2], Sum: v[3]}
			if w.hashes {
				out.Columns[i].Hash = v[4]
			}
		}
	}
	return out, nil
}

// plainType is a type without its modifiers: timestamp(3) with time zone and
// timestamp with time zone are the same here.
func plainType(t string) string {
	// An interval's modifiers are words as well: interval day to second(3).
	fields, interval := strings.CutPrefix(t, "interval")
	if interval && !strings.HasSuffix(t, "[]") && (fields == "" || fields[0] == ' ' || fields[0] == '(') {
		return "interval"
	}
	if before, rest, ok := strings.Cut(t, "("); ok {
		_, after, _ := strings.Cut(rest, ")")
		return before + after
	}
	return t
}

func isText(typ string) bool {
	switch plainType(typ) {
	case "text", "character varying", "character", "bpchar", "name":
		return true
	}
	return false
}

func isFloat(typ string) bool { return typ == "double precision" || typ == "real" }

// aggregatesOf are count, min, max and sum of a column, each as text. Where
// equality is coarser than identity (1.0 = 1.00, -0 = 0) min and max give back
// any of the equal values: they are normalized. Types that have no order,
// or none that is the same on every server (collations, enums), are compared
// by their text.
func aggregatesOf(s *side, c Column, sums bool) []string {
	q := pg.Ident(c.Name)
	count, sum := "count("+q+")::text", "null"
	minmax := func(format string) []string {
		return []string{count, fmt.Sprintf(format, "min("+q+")"), fmt.Sprintf(format, "max("+q+")"), sum}
	}
	switch plainType(c.Type) {
	case "smallint", "integer", "bigint":
		sum = "sum(" + q + ")::text"
		return minmax("%s::text")
	case "numeric":
		sum = "trim_scale(sum(" + q + "))::text"
		return minmax("trim_scale(%s)::text")
	case "real", "double precision":
		if sums {
			sum = "sum(" + q + "::float8)::text"
		}
		return minmax("(%s::float8 + 0)::text")
	case "money":
		sum = "sum(" + q + "::numeric)::text"
		return minmax("%s::text")
	case "date", "time without time zone", "time with time zone", "timestamp without time zone",
		"timestamp with time zone", "oid", "pg_lsn", "inet":
		return minmax("%s::text")
	case "interval":
		if sums {
			sum = "sum(" + q + ")::text"
		}
	}
	text := "(" + shown(c) + ` collate "C")`
	least, most := "min("+text+")", "max("+text+")"
	if !s.utf8() { // the order of the bytes in UTF-8
		text = "encode(convert_to(" + text + `, 'UTF8'), 'hex') collate "C"`
		least = "convert_from(decode(min(" + text + "), 'hex'), 'UTF8')"
		most = "convert_from(decode(max(" + text + "), 'hex'), 'UTF8')"
	}
	return []string{count, short(s, least), short(s, most), sum}
}

// shown is the text of a column's value, null for null.
func shown(c Column) string {
	q := pg.Ident(c.Name)
	if c.How == pg.HashRecord {
		return "case num_nulls(" + q + ") when 0 then row(" + q + ")::text end"
	}
	return q + "::text"
}

// short is an expression for a text that is shown: of a long one the beginning,
// its length, and a hash that tells it from others.
func short(s *side, e string) string {
	return fmt.Sprintf(`case when length(%[1]s) <= 100 then %[1]s
        else left(%[1]s, 80) || '... (' || length(%[1]s) || ' characters, hash ' || %[2]s || ')' end`,
		e, s.hash([]string{"convert_to(" + e + ", 'UTF8')"}))
}

// compare lists what differs between the two summaries, and the largest
// tolerance that was used.
func compare(a, b *Summary) (diffs []task.Difference, tolerance float64) {
	if a.Hash != "" && a.Hash == b.Hash && a.Rows == b.Rows {
		return nil, 0 // whatever the texts of equal values are
	}
	say := func(what, column, x, y string) {
		diffs = append(diffs, task.Difference{What: what, Column: column, Source: x, Target: y})
	}
	if a.Rows != b.Rows {
		say("rows", "", strconv.FormatInt(a.Rows, 10), strconv.FormatInt(b.Rows, 10))
	}
	theirs := map[string]Column{}
	for _, c := range b.Columns {
		theirs[c.Name] = c
	}
	for _, c := range a.Columns {
		o, ok := theirs[c.Name]
		if !ok || c.Values == nil || o.Values == nil {
			continue
		}
		if c.Count != o.Count {
			say("count", c.Name, c.Count, o.Count)
		}
		same := true
		for _, v := range []struct {
			what string
			x, y *string
		}{{"min", c.Min, o.Min}, {"max", c.Max, o.Max}} {
			if text(v.x) != text(v.y) {
				same = false
				say(v.what, c.Name, text(v.x), text(v.y))
			}
		}
		if c.Sum != nil && o.Sum != nil && *c.Sum != *o.Sum {
			if t := sumTolerance(c); t == 0 || !within(*c.Sum, *o.Sum, t) {
				same = false
				say("sum", c.Name, *c.Sum, *o.Sum)
			} else {
				tolerance = max(tolerance, t)
			}
		}
		if c.Hash != nil && o.Hash != nil && *c.Hash != *o.Hash && same && c.Count == o.Count {
			say("hash", c.Name, *c.Hash, *o.Hash)
		}
	}
	if a.Hash != b.Hash && len(diffs) == 0 {
		diffs = append(diffs, rowsHash(a, b))
	}
	return diffs, tolerance
}

// rowsHash is the difference that shows where no column on its own differs.
func rowsHash(a, b *Summary) task.Difference {
	return task.Difference{What: "hash", Source: a.Hash, Target: b.Hash}
}

// haveHashes reports whether the hashes of single columns were computed.
func haveHashes(cols []Column) bool {
	return !slices.ContainsFunc(cols, func(c Column) bool { return c.Values == nil || c.Hash == nil })
}

func text(s *string) string {
	if s == nil {
		return "null"
	}
	return *s
}

// sumTolerance is how far two sums of the same floats, added in different
// orders, can be apart at most: n² · 2⁻⁵² · the largest absolute value. Sums of
// other types are exact.
func sumTolerance(c Column) float64 {
	if !isFloat(plainType(c.Type)) {
		return 0
	}
	n, _ := strconv.ParseFloat(c.Count, 64)
	lo, err1 := strconv.ParseFloat(text(c.Min), 64)
	hi, err2 := strconv.ParseFloat(text(c.Max), 64)
	if err1 != nil || err2 != nil {
		return 0
	}
	return n * n * 0x1p-52 * max(math.Abs(lo), math.Abs(hi))
}

func within(a, b string, tolerance float64) bool {
	x, err1 := strconv.ParseFloat(a, 64)
	y, err2 := strconv.ParseFloat(b, 64)
	return err1 == nil && err2 == nil && math.Abs(x-y) <= tolerance
}
