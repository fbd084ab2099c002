package chaos

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"bf/lib/testdb"
)

// What is done to the hypertables of TestLatencyCompressed. Each has one chunk, with so
// many rows that to compress them, or to delete or insert them one by one, takes several
// times what the application may wait.
const (
	insertRows = "insert into %[1]s select '2024-01-04'::timestamptz + i * interval '3 seconds', i %% 20, " +
		"i / 7.0, i from generate_series(0, 199999) i;"
	insertStale = "insert into %[1]s select '2024-01-04'::timestamptz + i * interval '3 seconds', i %% 20, " +
		"i / 7.0, -2 from generate_series(0, 199999) i;"
	insertFew = "insert into %[1]s " +
		"select '2024-01-04'::timestamptz + i * interval '1 hour', i, i / 7.0, -2 from generate_series(0, 150) i;"
	compressAll  = "select compress_chunk(c) from show_chunks('%[1]s') c;"
	addCheck     = "alter table %[1]s add check (v < 1e9);"
	insertBeside = "insert into %[1]s select '2024-01-04'::timestamptz + i * interval '3 seconds', i %% 20, i / 7.0, " +
		"i from generate_series(0, 49999) i;"
	addTrigger   = "create trigger seen after insert on %[1]s for each row execute function seen();"
	addColumn    = "alter table %[1]s add x text default 'x';"
	addAggregate = `create materialized view %[1]s_hourly
            with (timescaledb.continuous, timescaledb.materialized_only = true) as
			select time_bucket('1 hour', ts) as h, dev, count(*) as n from %[1]s group by 1, 2 with no data;`
)

// obstacle is a hypertable whose chunk cannot always be copied on the shortest path.
type obstacle struct {
	table  string
	source string // what is done on the source
	demand string // and on the target alone, before compression is enabled
	target string // what is done on the target
	way    string // how the chunk has to come
}

// obstacles are the hypertables of each role of the tools on the target.
var obstacles = map[string][]obstacle{
	"superuser": {
		{"trig", insertRows + compressAll, "", addTrigger + insertStale,
			"rows into the chunk, then compressed"},
		{"over", insertRows, "", insertStale + compressAll + addTrigger,
			"rows into the chunk, then compressed"},
		{"late", addColumn + insertRows + compressAll, addCheck, insertStale + addColumn,
			"rows into the chunk, then compressed"},
		{"side", insertRows + compressAll + insertBeside, "", insertFew + addAggregate,
			"raw into a fresh compressed relation"},
		{"wide", insertRows + compressAll + insertBeside, "", insertStale + compressAll,
			"rows into a fresh compressed relation"},
		{"many", insertRows + compressAll, "", insertStale,
			"raw into a fresh compressed relation"},
		{"aggr", insertRows + compressAll, addCheck, insertStale + compressAll + addAggregate,
			"rows into a fresh compressed relation"},
	},
	"bf_owner": {
		{"same", insertRows + compressAll, "", insertStale + compressAll + addAggregate,
			"raw into the existing compressed relation"},
		{"none", insertRows + compressAll, "", addAggregate,
			"raw into the existing compressed relation"},
		{"hard", insertRows + compressAll, addCheck, addAggregate,
			"rows into the existing compressed relation"},
		{"many", insertRows + compressAll, "", insertStale,
			"rows into the chunk"},
		{"trig", insertRows + compressAll, "", addTrigger + insertStale,
			"rows into the chunk"},
		{"over", insertRows + compressAll, "", insertStale + compressAll + addTrigger,
			"rows through the hypertable"},
	},
}

// TestLatencyCompressed measures inserts into chunks that are copied and end
// compressed, or would, where something stands in the way of the shortest path:
// triggers, aggregates, columns that came later, rows beside the batches, missing
// privileges.
func TestLatencyCompressed(t *testing.T) {
	testdb.Path(t)
	full := slices.DeleteFunc(slices.Clone(testdb.Installs(t)), func(in testdb.Install) bool { return !in.Full })
	if len(full) == 0 {
		t.Skip("no full edition of TimescaleDB here: nothing is compressed")
	}
	for _, in := range few(full) {
		for role := range obstacles {
			t.Run(in.String()+"-"+role, func(t *testing.T) {
				everyTime(t, func() error { return newObstructed(t, in, role).measure(t, in) })
			})
		}
	}
}

// obstructed is both sides with the hypertables of a role.
type obstructed struct {
	source, target *testdb.DB
	role           string
	to             string // connection string of the tools
}

func newObstructed(t *testing.T, in testdb.Install, role string) *obstructed {
	t.Helper()
	o := &obstructed{source: testdb.New(t, in, "source"), target: testdb.New(t, in, "target"), role: role}
	o.to = o.target.ConnString
	if role != "superuser" {
		o.to = o.target.Role(t, role)
	}
	o.target.Exec(t, `create table seen (n bigint); grant all on seen to public;
		create function seen() returns trigger language plpgsql as
		'begin if new.n >= 0 then insert into public.seen values (new.n); end if; return null; end'`)
	for _, c := range obstacles[role] {
		o.create(t, c)
	}
	return o
}

// create makes the hypertable on both sides; on the target the role owns it.
func (o *obstructed) create(t *testing.T, c obstacle) {
	t.Helper()
	const table = `create table %[1]s (ts timestamptz not null, dev int, v float8, n int);
		select create_hypertable('%[1]s', 'ts', chunk_time_interval => interval '7 days');`
	const enable = "alter table %[1]s set (timescaledb.compress, timescaledb.compress_segmentby = 'dev', " +
		"timescaledb.compress_orderby = 'ts');"
	o.source.Exec(t, fmt.Sprintf(table+enable+c.source, c.table))
	o.target.Exec(t, fmt.Sprintf(table+c.demand+enable+c.target, c.table))
	if o.role != "superuser" {
		o.target.Exec(t, "alter table "+c.table+" owner to "+o.role)
	}
	if strings.Contains(c.target, addAggregate) {
		o.refresh(t, c)
		if o.role != "superuser" {
			o.target.Exec(t, "alter materialized view "+c.table+"_hourly owner to "+o.role)
		}
	}
}

func (o *obstructed) refresh(t *testing.T, c obstacle) {
	t.Helper()
	o.target.Exec(t, "call refresh_continuous_aggregate('"+c.table+"_hourly', null, null)")
}

// measure copies the chunks while an application inserts into them, and says whether it
// had to wait. It checks how each chunk came, and that nothing was lost or seen twice.
func (o *obstructed) measure(t *testing.T, in testdb.Install) error {
	env := []string{"BF_SOURCE=" + o.source.ConnString, "BF_TARGET=" + o.to}
	s := start(t, env, "bf-stage --until 2024-02-01")
	s.wait(t, deadline)
	if s.status() != 0 {
		t.Fatal(s.errors())
	}
	var statements []string
	fired := 0
	for _, c := range obstacles[o.role] {
		statements = append(statements, "insert into "+c.table+
			" values ('2024-01-04 12:00:00.5'::timestamptz + $1 * interval '1 second', 7, 0, -1)")
		if strings.Contains(c.target, addTrigger) {
			fired += 200000
		}
	}
	a := newInserts(t, o.target, statements...)
	idle := a.measure(func() { time.Sleep(time.Second) })
	busy := a.measure(func() {
		// some come again by rows
		s := start(t, env, "bf-chunks | bf-dump | bf-load -q; bf-chunks | bf-dump | bf-load -q")
		s.wait(t, deadline)
		if s.status() != 0 {
			t.Error(s.errors())
		}
	})
	waits := check(t, in.String()+", "+o.role, idle, busy)
	for _, c := range obstacles[o.role] {
		o.copied(t, c)
	}
	var seen int
	if o.target.Query1(t, &seen, "select count(*) from seen"); seen != fired {
		t.Errorf("triggers fired %d times for %d rows", seen, fired)
	}
	return waits
}

// copied checks that the chunk came the way it has to, with the rows of the source, and
// that a refresh brings the aggregate up to date.
func (o *obstructed) copied(t *testing.T, c obstacle) {
	t.Helper()
	var how string
	o.target.Query1(t, &how, "select coalesce(copy_message, '') from __backfill.task "+
		"where worked is not null and hypertable_name = $1", c.table)
	if !strings.Contains(how, c.way) {
		t.Errorf("%s: way %q, want %q", c.table, how, c.way)
	}
	o.target.Exec(t, "delete from "+c.table+" where n = -1")
	const sums = "select count(*), sum(n), sum(v::numeric), min(ts), max(ts) from "
	if want, got := o.source.Rows(t, sums+c.table), o.target.Rows(t, sums+c.table); !reflect.DeepEqual(got, want) {
		t.Errorf("%s: rows are %v, on the source %v", c.table, got, want)
	}
	if strings.Contains(c.target, addAggregate) {
		o.refresh(t, c)
		want := o.source.Rows(t, "select time_bucket('1 hour', ts) as h, dev, count(*) as n from "+c.table+
			" group by 1, 2 order by 1, 2")
		got := o.target.Rows(t, "select * from "+c.table+"_hourly order by 1, 2")
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: the aggregate is not up to date", c.table)
		}
	}
}
