package e2e

import (
	"fmt"
	"strings"
	"testing"

	"bf/lib/task"
	"bf/lib/testdb"
)

// dimension is one type of primary dimension with values all over its range.
type dimension struct {
	name   string
	column string // type of column t
	create string // second argument of create_hypertable and on
	setup  string
	values []string // literals of t
	from   string   // inside a chunk
	until  string   // inside another chunk
	want   []string // values in [from, until)
	needs  string   // a function that the version must have
	// the versions differ most about it
	everywhere bool
}

var dimensions = []dimension{
	{name: "timestamptz", column: "timestamptz", create: "chunk_time_interval => interval '1 day'",
		values: []string{"infinity", "4714-11-24 00:00:00+00 BC", "1969-12-31 23:59:59.999999+00",
			"2024-01-01 00:00:00+00", "2024-01-01 11:59:59.999999+00",
			"2024-01-01 12:00:00+00", "2024-01-02 00:00:00+00", "2024-01-02 23:00:00+00",
			"2024-01-03 11:59:59.999999+00", "2024-01-03 12:00:00+00", "2024-01-04 00:00:00+00"},
		from: "2024-01-01 14:00:00+02", until: "2024-01-03T12:00:00Z",
		want: []string{"2024-01-01 12:00:00+00", "2024-01-02 00:00:00+00", "2024-01-02 23:00:00+00",
			"2024-01-03 11:59:59.999999+00"}},
	{name: "timestamp", column: "timestamp", create: "chunk_time_interval => interval '1 day'",
		values: []string{"infinity", "1969-12-31 23:59:59.999999", "2024-01-01 00:00:00", "2024-01-01 12:00:00",
			"2024-01-02 00:00:00", "2024-01-03 11:59:59.999999", "2024-01-03 12:00:00"},
		from: "2024-01-01 12:00:00", until: "2024-01-03 12:00:00",
		want: []string{"2024-01-01 12:00:00", "2024-01-02 00:00:00", "2024-01-03 11:59:59.999999"}},
	{name: "date", column: "date", create: "chunk_time_interval => interval '7 days'",
		values: []string{"infinity", "1969-12-31", "2024-01-01", "2024-01-02", "2024-01-03", "2024-01-09", "2024-01-15",
			"2024-01-16"},
		from: "2024-01-02", until: "2024-01-15",
		want: []string{"2024-01-02", "2024-01-03", "2024-01-09"}},
	{name: "bigint", column: "bigint", create: "chunk_time_interval => 1000",
		values: []string{"-9223372036854775808", "9223372036854775806", "-1001", "-1000", "-999", "-1", "0", "999",
			"1000", "1499", "1500", "9007199254740993"},
		from: "-1000", until: "1500",
		want: []string{"-1000", "-999", "-1", "0", "999", "1000", "1499"}},
	{name: "int", column: "int", create: "chunk_time_interval => 100",
		values: []string{"-2147483648", "2147483647", "-101", "-100", "-50", "-1", "0", "99", "100", "149", "150"},
		from:   "-50", until: "150",
		want: []string{"-50", "-1", "0", "99", "100", "149"}},
	{name: "smallint", column: "smallint", create: "chunk_time_interval => 10",
		values: []string{"-32768", "32767", "-11", "-10", "-5", "-1", "0", "9", "14", "15"},
		from:   "-5", until: "15",
		want: []string{"-5", "-1", "0", "9", "14"}},
	{name: "custom", column: "jsonb", everywhere: true, create: "chunk_time_interval => interval '1 day', " +
		"time_partitioning_func => 'part.created'",
		// created relies on a search_path, as users' functions do.
		setup: `create schema part;
			create function public.cast_time(text) returns timestamptz language sql immutable as
			'select $1::timestamptz';
			create function part.created(jsonb) returns timestamptz language plpgsql immutable as $$begin return
			cast_time($1->>'at'); end$$`,
		values: []string{`{"at": "2024-01-01 00:00:00+00"}`, `{"at": "2024-01-01 12:00:00+00", "x": "a''b"}`,
			`{"at": "2024-01-02 01:00:00+00"}`, `{"at": "2024-01-03 11:00:00+00"}`, `{"at": "2024-01-03 12:00:00+00"}`},
		from: "2024-01-01 12:00:00+00", until: "2024-01-03 12:00:00+00",
		want: []string{`{"x": "a''b", "at": "2024-01-01 12:00:00+00"}`, `{"at": "2024-01-02 01:00:00+00"}`,
			`{"at": "2024-01-03 11:00:00+00"}`}},
	{name: "uuid", column: "uuid", everywhere: true, create: "chunk_time_interval => interval '1 day'",
		needs: "to_uuidv7_boundary",
		values: []string{"018cc251-f400-7000-8000-000000000000", "018cc4e5-3a00-7000-8000-000000000000",
			"018cc4e5-3a00-7fff-bfff-ffffffffffff", "018cc778-8000-7000-8000-000000000001",
			"018cca0b-c600-7000-8000-000000000000", "018ccf31-c000-7abc-8000-000000000000"},
		from: "2024-01-01 12:00:00+00", until: "018cca0b-c600-7000-8000-000000000000"},
}

func (d *dimension) make(t *testing.T, db *testdb.DB) {
	t.Helper()
	if d.setup != "" {
		db.Exec(t, d.setup)
	}
	db.Exec(t, "create table h (t "+d.column+" not null, v int)")
	db.Exec(t, "select create_hypertable('h', 't', "+d.create+")")
}

func (d *dimension) has(t *testing.T, db *testdb.DB) bool {
	t.Helper()
	var has bool
	db.Query1(t, &has, "select $1 = '' or exists (select from pg_proc where proname = $1)", d.needs)
	return has
}

// TestDimensions copies every type of dimension.
func TestDimensions(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, v testdb.Pair) {
		for _, d := range dimensions {
			t.Run(d.name, func(t *testing.T) { copyDimension(t, v, d) })
		}
	})
}

// TestFunctionDimensions copies what the versions treat most differently.
func TestFunctionDimensions(t *testing.T) {
	testdb.EachVersion(t, func(t *testing.T, v testdb.Pair) {
		for _, d := range dimensions {
			if d.everywhere {
				t.Run(d.name, func(t *testing.T) { copyDimension(t, v, d) })
			}
		}
	})
}

// copyDimension copies a range that begins and ends inside chunks, with rows of
// the target outside of it, then everything.
func copyDimension(t *testing.T, v testdb.Pair, d dimension) {
	p := newPair(t, v)
	if !d.has(t, p.src) {
		t.Skip("TimescaleDB " + v.Source.Version + " has no such dimension")
	}
	d.make(t, p.src)
	d.make(t, p.dst)
	for i, v := range d.values {
		p.src.Exec(t, fmt.Sprintf("insert into h values ('%s', %d)", v, i))
		// The application has written to both sides, and gone on.
		p.dst.Exec(t, fmt.Sprintf("insert into h values ('%s', 1000)", v))
	}
	if d.want == nil {
		// uuid: known by their time
		for _, r := range p.src.Rows(t, "select t from h where t >= to_uuidv7_boundary('2024-01-01 12:00:00+00') "+
			"and t < to_uuidv7_boundary('2024-01-02 12:00:00+00') order by t") {
			d.want = append(d.want, r[0])
		}
	}
	staged := p.stage(t, "--from", d.from, "--until", d.until)
	if len(staged) == 0 {
		t.Fatal("nothing staged")
	}
	for _, r := range p.copy(t) {
		if r.Status != task.Loaded {
			t.Errorf("task %d: %s: %s", r.Task, r.Status, r.Message)
		}
	}
	var want, rest []string
	wanted := map[string]bool{}
	for _, w := range d.want {
		var s string
		p.src.Query1(t, &s, "select '"+w+"'::"+d.column+"::text")
		wanted[s] = true
	}
	for _, r := range p.src.Rows(t, "select t, v from h") {
		if wanted[r[0]] {
			want = append(want, r[0]+"|"+r[1])
		} else {
			rest = append(rest, r[0]+"|1000")
		}
	}
	if len(want) != len(d.want) {
		t.Errorf("%d rows in the range by our own account, %d by the test's table", len(want), len(d.want))
	}
	diff(t, "after a range", sortedStrings(append(want, rest...)), sorted(t, p.dst, "select t, v from h"))

	// The rest: the chunks of before are widened, not staged twice.
	p.stage(t, "--until", map[bool]string{true: "infinity",
		false: "9223372036854775807"}[!strings.Contains(d.column, "int")])
	p.copy(t)
	p.same(t, "select t, v from h")
	var twice int
	p.dst.Query1(t, &twice, "select count(*) "+
		"from (select 1 from __backfill.task group by chunk_schema, chunk_name having count(*) > 1) x")
	if twice != 0 {
		t.Errorf("%d chunks staged twice", twice)
	}
	if again := p.stage(t, "--until", d.until); len(again) != 0 {
		t.Errorf("staged again: %d tasks, want none", len(again))
	}
}
