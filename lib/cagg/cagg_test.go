package cagg_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bf/lib/testdb"
)

// The source: raw data of 40 days in daily chunks, a hierarchy of three
// aggregates (hours, days, months), of which the last is materialized only, and
// weeks in a time zone.
const schema = `
create table m (t timestamptz not null, d int, v int);
select create_hypertable('m', 't', chunk_time_interval => interval '1 day');
create materialized view hourly with (timescaledb.continuous, timescaledb.materialized_only = false) as
    select time_bucket('1 hour', t) as b, d, sum(v) as s, count(*) as n from m group by 1, 2 with no data;
create materialized view daily with (timescaledb.continuous, timescaledb.materialized_only = false) as
    select time_bucket('1 day', b) as b, d, sum(s) as s, sum(n) as n from hourly group by 1, 2 with no data;
create materialized view monthly with (timescaledb.continuous, timescaledb.materialized_only = true) as
    select time_bucket('1 month', b) as b, d, sum(s) as s, sum(n) as n from daily group by 1, 2 with no data;
create materialized view weekly with (timescaledb.continuous, timescaledb.materialized_only = false) as
    select time_bucket('1 week', t, 'Europe/Berlin') as b, d, sum(v) as s, count(*) as n from m group by 1, 2 with no data;`

const data = `insert into m select t, d, extract(epoch from t)::bigint % 1000 + d
    from generate_series('2024-01-05 00:10+00'::timestamptz, '2024-02-13 23:50+00', '20 minutes') t, generate_series(1, 2) d;`

// views in the order of their refresh.
var views = []string{"hourly", "daily", "monthly", "weekly"}

func refreshAll(t *testing.T, db *testdb.DB) {
	t.Helper()
	for _, v := range views {
		db.Exec(t, "call refresh_continuous_aggregate('"+v+"', null, null)")
	}
}

// trim drops raw data in the middle of a month and of a week.
const trim = `select drop_chunks('m', older_than => '2024-01-18 00:00+00'::timestamptz)`

func newSource(t *testing.T, p testdb.Pair, trimmed bool) *testdb.DB {
	t.Helper()
	db := testdb.New(t, p.Source, "source")
	db.Exec(t, schema)
	db.Exec(t, data)
	refreshAll(t, db)
	if trimmed {
		db.Exec(t, trim)
	}
	return db
}

func handMade(t *testing.T, p testdb.Pair) *testdb.DB {
	t.Helper()
	db := testdb.New(t, p.Target, "target")
	// Other numbers and names of materialization hypertables than the source's.
	db.Exec(t, `create table other (t timestamptz not null); select create_hypertable('other', 't');`)
	db.Exec(t, schema)
	return db
}

// restored makes a target of a dump of everything but the rows.
func restored(t *testing.T, p testdb.Pair, source *testdb.DB) *testdb.DB {
	t.Helper()
	db := testdb.New(t, p.Target, "target")
	dump := filepath.Join(t.TempDir(), "dump")
	run := func(program string, args ...string) {
		t.Helper()
		cmd := exec.Command(filepath.Join(p.Source.BinDir, program), args...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", program, err, out)
		}
	}
	run("pg_dump", "-Fc", "-f", dump, "-d", source.ConnString, "--exclude-table-data=_timescaledb_internal._hyper_*", "--exclude-table-data=_timescaledb_internal.*compress_*")
	db.Exec(t, "select timescaledb_pre_restore()")
	run("pg_restore", "-d", db.ConnString, dump)
	db.Exec(t, "select timescaledb_post_restore()")
	return db
}

// sh runs a pipeline of the tools and returns what it printed on stdout and
// stderr.
func sh(t *testing.T, source, target *testdb.DB, script string) (stdout, stderr string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", "set -eo pipefail; "+script)
	cmd.Env = append(os.Environ(), "PATH="+testdb.Bin(t)+":"+os.Getenv("PATH"), "BF_SOURCE="+source.ConnString, "BF_TARGET="+target.ConnString)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	t.Logf("%s\n%s%s", script, out.String(), errs.String())
	return out.String(), errs.String(), err
}

func ok(t *testing.T, source, target *testdb.DB, script string) (stdout, stderr string) {
	t.Helper()
	stdout, stderr, err := sh(t, source, target, script)
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	return stdout, stderr
}

const (
	stageAll = "bf-stage --until 2024-03-01 >/dev/null"
	copyAll  = "bf-chunks | bf-dump | bf-load -q >/dev/null"
)

// contents returns the rows of each view, as it shows them and as they are
// materialized.
func contents(t *testing.T, db *testdb.DB) map[string][][]string {
	t.Helper()
	c := map[string][][]string{}
	for _, v := range views {
		c[v] = db.Rows(t, "select * from "+v+" order by 1, 2")
		var mat string
		db.Query1(t, &mat, "select format('%I.%I', materialization_hypertable_schema, materialization_hypertable_name) from timescaledb_information.continuous_aggregates where view_name = '"+v+"'")
		c[v+", materialized"] = db.Rows(t, "select * from "+mat+" order by 1, 2")
	}
	return c
}

func same(t *testing.T, when string, want, got map[string][][]string) {
	t.Helper()
	for name, rows := range want {
		if !slices.EqualFunc(rows, got[name], slices.Equal) {
			t.Errorf("%s: %s: %d rows, want %d\n got %v\nwant %v", when, name, len(got[name]), len(rows), diff(got[name], rows), diff(rows, got[name]))
		}
	}
}

// diff returns some of the rows of a that b has not.
func diff(a, b [][]string) (some [][]string) {
	has := map[string]bool{}
	for _, r := range b {
		has[fmt.Sprint(r)] = true
	}
	for _, r := range a {
		if !has[fmt.Sprint(r)] && len(some) < 5 {
			some = append(some, r)
		}
	}
	return some
}

func watermarks(t *testing.T, db *testdb.DB) string {
	t.Helper()
	return fmt.Sprint(db.Rows(t, `select user_view_name, watermark from _timescaledb_catalog.continuous_agg
        join _timescaledb_catalog.continuous_aggs_watermark using (mat_hypertable_id) where user_view_name <> 'late' order by 1`))
}

// sameMarks compares watermarks.
func sameMarks(t *testing.T, source, target *testdb.DB) {
	t.Helper()
	if want, got := watermarks(t, source), watermarks(t, target); want != got {
		t.Errorf("watermarks:\n got %s\nwant %s", got, want)
	}
}

func TestBackfill(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		for _, trimmed := range []bool{true, false} {
			for _, fromDump := range []bool{true, false} {
				t.Run(fmt.Sprintf("trimmed=%t/dump=%t", trimmed, fromDump), func(t *testing.T) {
					source := newSource(t, p, trimmed)
					want := contents(t, source)
					var target *testdb.DB
					if fromDump {
						target = restored(t, p, source)
					} else {
						target = handMade(t, p)
					}
					ok(t, source, target, stageAll+"; "+copyAll)
					ok(t, source, target, "bf-caggs")
					same(t, "after bf-caggs", want, contents(t, target))
					sameMarks(t, source, target)
					if out, _ := ok(t, source, target, "bf-caggs"); out != "" {
						t.Errorf("a second bf-caggs found something to do: %s", out)
					}
					// What policies will do, and more.
					refreshAll(t, target)
					same(t, "after a refresh of everything", want, contents(t, target))
					sameMarks(t, source, target)
				})
			}
		}
	})
}
