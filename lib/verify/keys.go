package verify

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"

	"bf/lib/task"

	"github.com/jackc/pgx/v5"
)

//go:embed key.sql
var keySQL string

// Rows are found by narrowing down: the rows of both sides are divided into
// buckets by the hash of their key, and buckets whose sums differ are divided
// again, until few enough rows are left to be compared one by one. Each step is
// one pass over the chunk and a small aggregate on the server: no sort, no
// temporary file, whatever the chunk's size.
type finder struct {
	from, to *side
	cols     []Column
	key      []int // of cols
	bits     int   // of the hash, for the buckets of one step
	few      int64 // rows that are fetched with their hashes
}

// fewKeys is how many rows a verdict lists.
const fewKeys = 5

// keys names a few rows that differ, by the hypertable's unique key; it does
// nothing where there is none.
func keys(ctx context.Context, from, to *side, cols []Column) (diffs []task.Difference, atLeast int, err error) {
	key, err := uniqueKey(ctx, from, cols)
	if err != nil || len(key) == 0 {
		return nil, 0, err
	}
	f := &finder{from: from, to: to, cols: cols, key: key, bits: 12, few: 4096}
	return f.find(ctx)
}

// uniqueKey returns which of the columns identify a row, none if there is no
// unique key, or the target lacks a column of it.
func uniqueKey(ctx context.Context, s *side, cols []Column) (key []int, err error) {
	var names []string
	switch err := s.db.QueryRow(ctx, keySQL, s.h.OID).Scan(&names); {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, s.db.Wrap(err, "unique key of %s", s.h.Name)
	}
	for _, n := range names {
		i := slices.IndexFunc(cols, func(c Column) bool { return c.Name == n })
		if i < 0 {
			return nil, nil
		}
		key = append(key, i)
	}
	return key, nil
}

// hashedRows is a FROM clause that gives each row's hash r and its key's k.
func (f *finder) hashedRows(s *side) string {
	key, row := s.hash(s.hashedRow(f.keyColumns())), s.hash(s.hashedRow(f.cols))
	return fmt.Sprintf("(select %s as k, %s as r from %s) x", key, row, s.rows)
}

func (f *finder) keyColumns() (cols []Column) {
	for _, i := range f.key {
		cols = append(cols, f.cols[i])
	}
	return cols
}

// prepare keeps the servers from sorting: the planner cannot estimate the number of
// buckets.
func (f *finder) prepare(ctx context.Context) error {
	for _, s := range []*side{f.from, f.to} {
		if _, err := s.db.Exec(ctx, "set local enable_sort = off; set local work_mem = '8MB'"); err != nil {
			return s.db.Wrap(err, "compare %s", s.rows)
		}
	}
	return nil
}

func (f *finder) find(ctx context.Context) (diffs []task.Difference, atLeast int, err error) {
	if err := f.prepare(ctx); err != nil {
		return nil, 0, err
	}
	var prefix int64
	for bits := 0; bits+f.bits < 64; bits += f.bits {
		within := fmt.Sprintf("k & %d = %d", int64(1)<<bits-1, prefix)
		bucket := fmt.Sprintf("(k >> %d) & %d", bits, 1<<f.bits-1)
		a, b, err := f.sums(ctx, bucket, within)
		if err != nil {
			return nil, 0, err
		}
		other := differing(a, b)
		if bits == 0 {
			atLeast = len(other)
		}
		if len(other) == 0 {
			return nil, 0, nil
		}
		var rows int64
		few := other[:min(len(other), fewKeys)]
		for _, n := range few {
			rows += max(a[n].rows, b[n].rows)
		}
		if rows > f.few {
			prefix |= other[0] << bits
			continue
		}
		a, b, err = f.sums(ctx, "k", within+" and "+bucket+" = any($1)", few)
		if err != nil {
			return nil, 0, err
		}
		found := differing(a, b)
		atLeast = max(atLeast, len(found))
		diffs, err = f.compare(ctx, found[:min(len(found), fewKeys)])
		slices.SortStableFunc(diffs, func(a, b task.Difference) int { return cmp.Compare(a.Key, b.Key) })
		return diffs, atLeast, err
	}
	return nil, atLeast, nil
}

// sums adds up the rows of both sides that satisfy a condition, by what they are
// grouped by.
func (f *finder) sums(ctx context.Context, by, where string, args ...any) (a, b map[int64]sum, err error) {
	return both(ctx, f.from, f.to, func(ctx context.Context, s *side) (map[int64]sum, error) {
		sql := fmt.Sprintf("select %s, count(*), sum(r)::text from %s where %s group by 1", by, f.hashedRows(s), where)
		rows, err := s.db.Query(ctx, sql, args...)
		if err != nil {
			return nil, s.db.Wrap(err, "compare %s", s.rows)
		}
		m := map[int64]sum{}
		var n int64
		var v sum
		_, err = pgx.ForEachRow(rows, []any{&n, &v.rows, &v.hashes}, func() error { m[n] = v; return nil })
		return m, s.db.Wrap(err, "compare %s", s.rows)
	})
}

// sum is the number of rows of a bucket, or of a key, and the sum of their hashes.
type sum struct {
	rows   int64
	hashes string
}

// differing returns the numbers whose sums differ, in order.
func differing(a, b map[int64]sum) (numbers []int64) {
	for n, v := range a {
		if b[n] != v {
			numbers = append(numbers, n)
		}
	}
	for n := range b {
		if _, ok := a[n]; !ok {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers
}

// row is a row to list: the text of its columns, and their hashes.
type row struct {
	texts, hashes []*string
}

// compare fetches the rows with these hashes of keys and lists what differs.
func (f *finder) compare(ctx context.Context, hashes []int64) (diffs []task.Difference, err error) {
	a, b, err := both(ctx, f.from, f.to, func(ctx context.Context, s *side) (map[int64][]row, error) {
		return f.rows(ctx, s, hashes)
	})
	if err != nil {
		return nil, err
	}
	for _, k := range hashes {
		diffs = append(diffs, f.differences(a[k], b[k])...)
	}
	return diffs, nil
}

// differences are those of the rows of one key.
func (f *finder) differences(x, y []row) (diffs []task.Difference) {
	switch {
	case len(x) == 0 && len(y) == 0:
		return nil
	case len(x) != 1 || len(y) != 1: // keys with nulls may be there several times
		key := f.name(append(x, y...)[0])
		return []task.Difference{{What: "row", Key: key, Source: times(len(x)), Target: times(len(y))}}
	}
	for i, c := range f.cols {
		if *x[0].hashes[i] != *y[0].hashes[i] {
			diffs = append(diffs, task.Difference{What: "value", Column: c.Name, Key: f.name(x[0]),
				Source: text(x[0].texts[i]), Target: text(y[0].texts[i])})
		}
	}
	return diffs
}

func times(n int) string {
	switch n {
	case 0:
		return "absent"
	case 1:
		return "present"
	}
	return fmt.Sprintf("%d times", n)
}

// name is the key of a row for people.
func (f *finder) name(r row) string {
	var parts []string
	for _, i := range f.key {
		parts = append(parts, f.cols[i].Name+"="+text(r.texts[i]))
	}
	return "(" + strings.Join(parts, ", ") + ")"
}

func (f *finder) rows(ctx context.Context, s *side, hashes []int64) (map[int64][]row, error) {
	var texts, each []string
	for _, c := range f.cols {
		texts = append(texts, short(s, "("+shown(c)+")"))
		each = append(each, s.hash(s.hashed(c))+"::text")
	}
	sql := fmt.Sprintf(`select k, texts, hashes
        from (select %s as k, array[%s]::text[] as texts, array[%s]::text[] as hashes from %s) x
        where k = any($1)`,
		s.hash(s.hashedRow(f.keyColumns())), strings.Join(texts, ", "), strings.Join(each, ", "), s.rows)
	rows, err := s.db.Query(ctx, sql, hashes)
	if err != nil {
		return nil, s.db.Wrap(err, "compare %s", s.rows)
	}
	m := map[int64][]row{}
	var k int64
	var r row
	_, err = pgx.ForEachRow(rows, []any{&k, &r.texts, &r.hashes}, func() error {
		if len(m[k]) <= fewKeys {
			m[k] = append(m[k], r)
		}
		r = row{}
		return nil
	})
	return m, s.db.Wrap(err, "compare %s", s.rows)
}
