package verify

import (
	"context"
	"fmt"
	"maps"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"bf/lib/pg"
	"bf/lib/testdb"
	"bf/lib/tsdb"

	"github.com/jackc/pgx/v5"
)

// pool are values of a type, many of them equal to each other, or alike to a
// hash function: NULL, zero, what differs in its sign, scale or upper half only.
type pool struct {
	typ    string
	values []string
}

var pools = []pool{
	{"bool", []string{"true", "false"}},
	{`"char"`, []string{"", "x", "y"}},
	{"smallint", []string{"0", "1", "-1", "256"}},
	{"int", []string{"0", "1", "-1", "65536", "-65536"}},
	{"bigint", []string{"0", "1", "-1", "4294967295", "4294967296", "4294967297", "-4294967296", "8589934592"}},
	{"numeric", []string{"0", "0.00", "1", "1.0", "1.00", "-1.0", "2.5", "-2.5", "NaN", "Infinity", "-Infinity"}},
	{"numeric(10,2)", []string{"0", "1.5", "-1.5", "2.25", "NaN"}},
	{"real", []string{"0", "-0", "1.5", "-1.5", "NaN", "Infinity"}},
	{"float8", []string{"0", "-0", "1.5", "-1.5", "0.1", "NaN", "Infinity"}},
	{"money", []string{"0", "12.50", "-12.50", "42949672.96"}},
	{"text", []string{"", "a", "A", "a ", "NULL", strings.Repeat("long ", 50), strings.Repeat("long ", 49) + "else "}},
	{"varchar(9)", []string{"", "a", "b"}},
	{"char(5)", []string{"", "a", "b"}},
	{"name", []string{"a", "b"}},
	{"bytea", []string{`\x`, `\x00`, `\x0000`, `\x01`}},
	{"json", []string{"1", "1.0", `{"a":1}`, `{"a": 1}`, "null"}},
	{"jsonb", []string{"1", "1.0", "-1", `{"a":1}`, `{"a":1.00}`, "null", "[1,2]", "[2,1]"}},
	{"uuid", []string{"00000000-0000-0000-0000-000000000001", "00000000-0000-0001-0000-000000000000"}},
	{"date", []string{"2000-01-01", "2020-01-01", "infinity"}},
	{"time", []string{"00:00", "00:00:00.000001", "01:11:34.967296", "01:11:34.967297"}},
	{"timetz", []string{"10:00+00", "11:00+01", "10:00+01"}},
	{"timestamp", []string{"2000-01-01", "2000-01-01 01:11:34.967296", "2000-01-01 00:00:00.000001", "-infinity"}},
	{"timestamptz", []string{"2000-01-01+00", "2000-01-01 01:11:34.967296+00", "2000-01-01 00:00:00.000001+00",
		"infinity"}},
	{"interval", []string{"0", "1 mon", "30 days", "720:00", "-1 mon", "1 mon -30 days"}},
	{"interval(3)", []string{"1.5 s", "1.501 s"}},
	{"inet", []string{"10.0.0.1/8", "10.0.0.1", "::1"}},
	{"cidr", []string{"10.0.0.0/8", "10.0.0.0/9"}},
	{"macaddr", []string{"08:00:2b:01:02:03", "08:00:2b:01:02:04"}},
	{"bit(3)", []string{"101", "100"}},
	{"varbit", []string{"", "0", "00", "1"}},
	{"pg_lsn", []string{"0/0", "0/1", "1/0", "1/1"}},
	{"xid8", []string{"0", "1", "4294967296", "4294967297"}},
	{"oid", []string{"0", "1"}},
	{"point", []string{"(0,0)", "(-0,0)", "(1,2)", "(2,1)"}},
	{"tsvector", []string{"a b", "a", "'a':1"}},
	{"int[]", []string{"{}", "{0}", "{NULL}", "{1,2}", "{2,1}", "{{1,2}}", "[0:1]={1,2}"}},
	{"bigint[]", []string{"{1}", "{4294967296}", "{0}", "{NULL}"}},
	{"float8[]", []string{"{0}", "{-0}", "{NULL}", "{1}"}},
	{"numeric[]", []string{"{1.0}", "{1.00}", "{-1.0}", "{NaN}", "{Infinity}"}},
	{"numeric(5,1)[]", []string{"{1.0}", "{-1.0}", "{NaN}"}},
	{"interval[]", []string{"{1 mon}", "{30 days}"}},
	{"text[]", []string{"{a,b}", `{"a,b"}`, "{NULL}", `{"NULL"}`, `{""}`, "{}"}},
	{"mood", []string{"sad", "ok"}},
	{"mood[]", []string{"{sad}", "{ok}", "{NULL}", "{}"}},
	{"positive", []string{"1", "2"}},
	{"weight", []string{"1.0", "1.00", "-1.0"}},
	{"pair", []string{"(1,x)", "(1,X)", "(,)", `(,"")`}},
	{"pair[]", []string{`{"(1,x)"}`, `{"(2,x)"}`, `{"(,)"}`, "{NULL}"}},
	{"int4range", []string{"empty", "[1,2)", "[1,3)", "(,)"}},
	{"numrange", []string{"[1.0,2]", "[1.00,2]", "[1,2)", "empty"}},
	{"tstzrange", []string{"[2020-01-01,)", "(2020-01-01,)"}},
	{"int4multirange", []string{"{}", "{[1,2)}", "{[1,2),[5,6)}"}},
}

var floats = &pools[slices.IndexFunc(pools, func(p pool) bool { return p.typ == "real" })]

const poolTypes = `create type mood as enum ('sad', 'ok');
    create domain positive as int;
    create domain weight as numeric;
    create type pair as (a int, b text)`

// table is a random table: the types of its columns, and slices of rows. nil is
// NULL.
type table struct {
	pools  []pool
	slices [][][]*string
}

func randomTable(r *rand.Rand, from []pool, columns, slices int) *table {
	t := &table{}
	for len(t.pools) < columns {
		p := from[r.IntN(len(from))]
		t.pools = append(t.pools, p) // some types twice: values of two columns can be exchanged
		if r.IntN(3) == 0 && len(t.pools) < columns {
			t.pools = append(t.pools, p)
		}
	}
	for range slices {
		rows := make([][]*string, 2+r.IntN(6))
		for i := range rows {
			for _, p := range t.pools {
				rows[i] = append(rows[i], p.random(r))
			}
		}
		t.slices = append(t.slices, rows)
	}
	return t
}

func (p *pool) random(r *rand.Rand) *string {
	if r.IntN(6) == 0 {
		return nil
	}
	return &p.values[r.IntN(len(p.values))]
}

// mutations are what may befall the rows of a slice. Whether that changed the
// multiset of rows is for the server to say.
var mutations = map[string]func(r *rand.Rand, t *table, rows [][]*string) [][]*string{
	"nothing": func(_ *rand.Rand, _ *table, rows [][]*string) [][]*string { return rows },
	"rows in another order": func(r *rand.Rand, _ *table, rows [][]*string) [][]*string {
		r.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
		return rows
	},
	"values of a column exchanged between two rows": func(r *rand.Rand, t *table, rows [][]*string) [][]*string {
		c, i, j := r.IntN(len(t.pools)), r.IntN(len(rows)), r.IntN(len(rows))
		rows[i][c], rows[j][c] = rows[j][c], rows[i][c]
		return rows
	},
	"null exchanged with a value": func(r *rand.Rand, t *table, rows [][]*string) [][]*string {
		c := r.IntN(len(t.pools))
		null := slices.IndexFunc(rows, func(row []*string) bool { return row[c] == nil })
		value := slices.IndexFunc(rows, func(row []*string) bool { return row[c] != nil })
		if null >= 0 && value >= 0 {
			rows[null][c], rows[value][c] = rows[value][c], nil
		}
		return rows
	},
	"two columns of a row exchanged": func(r *rand.Rand, t *table, rows [][]*string) [][]*string {
		i, pair := r.IntN(len(rows)), t.likeColumns(r)
		rows[i][pair[0]], rows[i][pair[1]] = rows[i][pair[1]], rows[i][pair[0]]
		return rows
	},
	"two columns exchanged": func(r *rand.Rand, t *table, rows [][]*string) [][]*string {
		pair := t.likeColumns(r)
		for _, row := range rows {
			row[pair[0]], row[pair[1]] = row[pair[1]], row[pair[0]]
		}
		return rows
	},
	"a column rotated by a row": func(r *rand.Rand, t *table, rows [][]*string) [][]*string {
		c := r.IntN(len(t.pools))
		last := rows[len(rows)-1][c]
		for i := len(rows) - 1; i > 0; i-- {
			rows[i][c] = rows[i-1][c]
		}
		rows[0][c] = last
		return rows
	},
	"a row doubled and another dropped": func(r *rand.Rand, _ *table, rows [][]*string) [][]*string {
		rows[r.IntN(len(rows))] = slices.Clone(rows[r.IntN(len(rows))])
		return rows
	},
	"a row dropped": func(r *rand.Rand, _ *table, rows [][]*string) [][]*string {
		i := r.IntN(len(rows))
		return slices.Delete(rows, i, i+1)
	},
	"a value changed": func(r *rand.Rand, t *table, rows [][]*string) [][]*string {
		c := r.IntN(len(t.pools))
		rows[r.IntN(len(rows))][c] = t.pools[c].random(r)
		return rows
	},
}

// likeColumns are two columns of one type, or one column where there are none.
func (t *table) likeColumns(r *rand.Rand) [2]int {
	i := r.IntN(len(t.pools))
	for j := range t.pools {
		if k := (i + 1 + j) % len(t.pools); k != i && t.pools[k].typ == t.pools[i].typ {
			return [2]int{i, k}
		}
	}
	return [2]int{i, i}
}

// create makes the table; slice is not one of its columns here.
func (t *table) create(d *testdb.DB, tb testing.TB, name string) {
	tb.Helper()
	columns := []string{"slice int"}
	for i, p := range t.pools {
		columns = append(columns, fmt.Sprintf("c%d %s", i, p.typ))
	}
	d.Exec(tb, "drop table if exists "+name+"; create table "+name+" ("+strings.Join(columns, ", ")+")")
	var values []string
	for n, rows := range t.slices {
		for _, row := range rows {
			v := fmt.Sprint(n)
			for i, c := range row {
				if c == nil {
					v += ", null"
				} else {
					v += ", " + pg.Literal(*c) + "::" + t.pools[i].typ
				}
			}
			values = append(values, "("+v+")")
		}
	}
	for part := range slices.Chunk(values, 500) {
		d.Exec(tb, "insert into "+name+" values "+strings.Join(part, ", "))
	}
}

// TestSummariesByProperty: for random tables of random types and random changes
// of slices of their rows, the hash of the rows differs exactly when the
// multiset of rows does (which the server tells by sorting their text), and
// count, min, max and sum differ exactly when that is promised.
func TestSummariesByProperty(t *testing.T) {
	testdb.EachVersion(t, func(t *testing.T, v testdb.Pair) {
		seed := rand.Uint64()
		t.Logf("random seed %d", seed)
		r := rand.New(rand.NewPCG(0, seed))
		d := testdb.New(t, v.Source, "source")
		d.Exec(t, poolTypes)
		db, err := tsdb.Open(t.Context(), pg.Source, d.ConnString, pg.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(db.Close)
		kinds := slices.Sorted(maps.Keys(mutations))
		cases, changed := 0, 0
		for _, columns := range []int{1, 1, 2, 2, 3, 4, 6, 8, 12, 40, 900} {
			from, n := pools, 300/columns+100
			if columns > 100 { // more than a ROW takes: see hash
				if from, n = []pool{*floats}, 10; v.Source != testdb.Installs(t)[0] {
					continue // takes seconds, and is the same everywhere
				}
			}
			before := randomTable(r, from, columns, n)
			after := &table{pools: before.pools}
			var kind []string
			for _, rows := range before.slices {
				var copied [][]*string
				for _, row := range rows {
					copied = append(copied, slices.Clone(row))
				}
				k := kinds[r.IntN(len(kinds))]
				kind = append(kind, k)
				after.slices = append(after.slices, mutations[k](r, after, copied))
			}
			before.create(d, t, "before")
			after.create(d, t, "after")
			x, y := sliced(t, db, "before"), sliced(t, db, "after")
			equal := sameByEquality(t, db, before)
			for n := range before.slices {
				a, b := x[n], y[n]
				if a == nil || b == nil { // no row is left
					continue
				}
				cases++
				differ := a.text != b.text
				if differ {
					changed++
				}
				if (a.Hash != b.Hash) != differ {
					t.Errorf("%s: rows differ: %v, hashes differ: %v\n%s\n%s", kind[n], differ, !differ, a.text, b.text)
				}
				if same, ok := equal[n]; ok && same != (a.byValue == b.byValue) {
					t.Errorf("%s: rows are = to each other: %v, hashes by value are: %v\n%s\n%s", kind[n], same, !same,
						a.text, b.text)
				}
				diffs, _ := compare(&Summary{Rows: a.Rows, Columns: a.Columns},
					&Summary{Rows: b.Rows, Columns: b.Columns})
				if len(diffs) > 0 && !differ {
					t.Errorf("%s: equal rows differ by their summary: %v\n%s", kind[n], diffs, a.text)
				}
				if promised, known := promise(a, b); known && promised != (len(diffs) > 0) {
					t.Errorf("%s: promised to differ: %v, found %v\n%s\n%s", kind[n], promised, diffs, a.text, b.text)
				}
			}
		}
		if cases < 1000 || changed < cases/3 {
			t.Errorf("%d cases, of which %d changed: too few to mean anything", cases, changed)
		}
	})
}

// TestFoldedRecord: where the server has no hash of records, each row gets the hash
// that it has elsewhere all the same, whatever its types and however many columns.
func TestFoldedRecord(t *testing.T) {
	d := testdb.New(t, testdb.Installs(t)[0], "source")
	d.Exec(t, poolTypes)
	db, err := tsdb.Open(t.Context(), pg.Source, d.ConnString, pg.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	r := rand.New(rand.NewPCG(0, rand.Uint64()))
	for _, columns := range []int{1, 2, 3, 12, 40, 900} {
		from := pools
		if columns > 100 { // more than a ROW takes: see hash
			from = []pool{*floats}
		}
		randomTable(r, from, columns, 300/columns+5).create(d, t, "folded")
		var oid uint32
		d.Query1(t, &oid, "select 'folded'::regclass::oid")
		of, err := db.Columns(t.Context(), oid)
		if err != nil {
			t.Fatal(err)
		}
		s := &side{db: db, h: &tsdb.Hypertable{OID: oid}}
		cols := s.columns(of[oid])
		exprs := s.hashedRow(cols)
		if byValue, err := s.byEquality(t.Context(), cols); err != nil {
			t.Fatal(err)
		} else if columns < 100 {
			for _, c := range byValue {
				if !strings.HasSuffix(c.Type, "[]") && c.Type != "pair" {
					exprs = append(exprs, s.hashed(c)...)
				}
			}
		}
		var rows, other int
		if err := db.QueryRow(t.Context(), fmt.Sprintf("select count(*), count(*) filter (where %s <> %s) "+
			"from public.folded", hash(exprs, record), hash(exprs, foldedRecord))).Scan(&rows, &other); err != nil {
			t.Fatal(err)
		}
		if rows == 0 || other > 0 {
			t.Errorf("%d columns: %d of %d rows have another hash", columns, other, rows)
		}
	}
}

// slice is a summary, and what it is to be judged by.
type slice struct {
	Summary
	byValue string      // the hash of the method ByValue
	text    string      // of all rows, in order
	values  [][]*string // of all rows
}

// sameByEquality says of the slices of the two tables, as the server sees it,
// whether they have the same rows by the = of their types. It says nothing where
// a type has no =.
func sameByEquality(t testing.TB, db *tsdb.DB, of *table) map[int]bool {
	t.Helper()
	var names []string
	for i, p := range of.pools {
		if p.typ == "json" || p.typ == "point" {
			return nil
		}
		names = append(names, fmt.Sprintf("c%d", i))
	}
	all := "(select slice, array_agg(x.r order by x.r) as rows from (select slice, row(" + strings.Join(names, ", ") +
		") as r from public.%s) x group by slice)"
	sql := fmt.Sprintf("select slice, a.rows = b.rows from "+all+" a join "+all+" b using (slice)", "before", "after")
	rows, err := db.Query(context.Background(), sql)
	if err != nil {
		t.Fatal(err)
	}
	m := map[int]bool{}
	var n int
	var same bool
	if _, err := pgx.ForEachRow(rows, []any{&n, &same}, func() error { m[n] = same; return nil }); err != nil {
		t.Fatal(err)
	}
	return m
}

// sliced returns the summaries of all slices of a table.
func sliced(t testing.TB, db *tsdb.DB, name string) map[int]*slice {
	t.Helper()
	ctx := context.Background()
	var oid uint32
	if err := db.QueryRow(ctx, "select ('public.' || $1)::regclass::oid", name).Scan(&oid); err != nil {
		t.Fatal(err)
	}
	all, err := db.Columns(ctx, oid)
	if err != nil {
		t.Fatal(err)
	}
	s := &side{db: db, h: &tsdb.Hypertable{OID: oid}}
	cols := s.columns(slices.DeleteFunc(all[oid], func(c pg.Column) bool { return c.Name == "slice" }))
	byValue, err := s.byEquality(ctx, cols)
	if err != nil {
		t.Fatal(err)
	}
	var names, aggregates, texts []string
	for _, c := range cols {
		names = append(names, c.Name)
		aggregates = append(aggregates, "array["+strings.Join(aggregatesOf(s, c, true), ", ")+"]")
		texts = append(texts, shown(c))
	}
	row := "row(" + pg.Idents(names) + `)::text collate "C"`
	rows, err := db.Query(ctx, fmt.Sprintf(`select slice, count(*), %s, %s, string_agg(%s, E'\n' order by %s),
            json_agg(array[%s]), array[%s]::text[] from public.%s group by slice`,
		s.sumOf(s.hashedRow(cols)), s.sumOf(s.hashedRow(byValue)), row, row,
		strings.Join(texts, ", "), strings.Join(aggregates, ", "), name))
	if err != nil {
		t.Fatal(err)
	}
	out := map[int]*slice{}
	var n int
	var x slice
	var values []*string
	_, err = pgx.ForEachRow(rows, []any{&n, &x.Rows, &x.Hash, &x.byValue, &x.text, &x.values, &values}, func() error {
		y := &slice{x.Summary, x.byValue, x.text, x.values}
		y.Columns = slices.Clone(cols)
		for i := range y.Columns {
			v := values[4*i:]
			y.Columns[i].Values = &Values{Count: *v[0], Min: v[1], Max: v[2], Sum: v[3]}
		}
		out[n], x, values = y, slice{}, nil
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// promise says whether two slices must differ by --method summary: in the
// number of rows, or for a column in the number of values, in the least and
// greatest (of numbers by value, else of their text), or the sum of numbers.
// It does not know of types that have another order than their text.
func promise(a, b *slice) (differ, known bool) {
	differ, known = a.Rows != b.Rows, true
	for i, c := range a.Columns {
		x, y := column(a.values, i), column(b.values, i)
		if len(x) != len(y) {
			differ = true
			continue
		}
		switch plainType(c.Type) {
		case "smallint", "integer", "bigint", "numeric":
			p, ok1 := numbers(x)
			q, ok2 := numbers(y)
			if !ok1 || !ok2 {
				known = false
			} else if !slices.EqualFunc(p, q, func(a, b *big.Rat) bool { return a.Cmp(b) == 0 }) {
				differ = true
			}
		case "text", "character varying", "name", "bytea", "json", "jsonb", "bit", "bit varying", "uuid", "mood",
			"boolean", "point":
			if len(x) > 0 && (slices.Min(x) != slices.Min(y) || slices.Max(x) != slices.Max(y)) {
				differ = true
			}
		default:
			if !slices.Equal(slices.Sorted(slices.Values(x)), slices.Sorted(slices.Values(y))) {
				known = false
			}
		}
	}
	return differ, known || differ
}

// numbers are the least, the greatest and the sum of some numbers.
func numbers(texts []string) (of []*big.Rat, ok bool) {
	var all []*big.Rat
	sum := new(big.Rat)
	for _, s := range texts {
		n, ok := new(big.Rat).SetString(s)
		if !ok {
			return nil, false // NaN, infinity
		}
		all = append(all, n)
		sum.Add(sum, n)
	}
	if len(all) == 0 {
		return nil, true
	}
	return []*big.Rat{slices.MinFunc(all, (*big.Rat).Cmp), slices.MaxFunc(all, (*big.Rat).Cmp), sum}, true
}

// column are the values of a column that are not null.
func column(rows [][]*string, i int) (values []string) {
	for _, r := range rows {
		if r[i] != nil {
			values = append(values, *r[i])
		}
	}
	return values
}
