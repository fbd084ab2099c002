package cagg_test

import (
	"context"
	"encoding/json"
	"errors"
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

// The source: raw data of 25 days in daily chunks, a hierarchy of three
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
    select time_bucket('1 week', t, 'Europe/Berlin') as b, d, sum(v) as s, count(*) as n from m group by 1, 2
    with no data;`

const data = `insert into m select t, d, extract(epoch from t)::bigint % 1000 + d
    from generate_series('2024-01-20 00:10+00'::timestamptz, '2024-02-13 23:50+00', '20 minutes') t,
    generate_series(1, 2) d;`

// views in the order of their refresh.
var views = []string{"hourly", "daily", "monthly", "weekly"}

func refreshAll(t *testing.T, db *testdb.DB) {
	t.Helper()
	for _, v := range views {
		db.Exec(t, "call refresh_continuous_aggregate('"+v+"', null, null)")
	}
}

// trim drops raw data in the middle of a month and of a week.
const trim = `select drop_chunks('m', older_than => '2024-01-27 00:00+00'::timestamptz)`

// compression enables compression, compress uses it.
const (
	compression = `alter table m set (timescaledb.compress, timescaledb.compress_segmentby = 'd',
        timescaledb.compress_orderby = 't');
        alter materialized view hourly set (timescaledb.compress = true);`
	compress = `select compress_chunk(c) from show_chunks('m', older_than => '2024-02-10 00:00+00'::timestamptz) c;
        select compress_chunk(c) from show_chunks('hourly', older_than => '2024-02-10 00:00+00'::timestamptz) c;`
)

// newSource returns a source whose aggregates are complete.
func newSource(t *testing.T, p testdb.Pair, more ...string) *testdb.DB {
	t.Helper()
	db := testdb.New(t, p.Source, "source")
	db.Exec(t, schema)
	db.Exec(t, data)
	refreshAll(t, db)
	for _, sql := range more {
		db.Exec(t, sql)
	}
	return db
}

// handMade returns a target whose materialization hypertables have other
// numbers and names than the source's.
func handMade(t *testing.T, p testdb.Pair, more ...string) *testdb.DB {
	t.Helper()
	db := testdb.New(t, p.Target, "target")
	db.Exec(t, `create table other (t timestamptz not null); select create_hypertable('other', 't');`)
	db.Exec(t, schema)
	for _, sql := range more {
		db.Exec(t, sql)
	}
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
	run("pg_dump", "-Fc", "-f", dump, "-d", source.ConnString, "--exclude-table-data=_timescaledb_internal._hyper_*",
		"--exclude-table-data=_timescaledb_internal.*compress_*")
	db.Exec(t, "select timescaledb_pre_restore()")
	run("pg_restore", "-d", db.ConnString, dump)
	db.Exec(t, "select timescaledb_post_restore()")
	return db
}

// sh runs a pipeline of the tools and returns what it printed on stdout and
// stderr.
func sh(t *testing.T, source, target *testdb.DB, script string) (stdout, stderr string, err error) {
	t.Helper()
	bin := testdb.Bin(t) // builds them the first time, which is not to count
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", "set -eo pipefail; "+script)
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "BF_SOURCE="+source.ConnString,
		"BF_TARGET="+target.ConnString, "BF_PID="+filepath.Join(t.TempDir(), "pid"))
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
		db.Query1(t, &mat, "select format('%I.%I', materialization_hypertable_schema, "+
			"materialization_hypertable_name) from timescaledb_information.continuous_aggregates where view_name = '"+v+
			"'")
		c[v+", materialized"] = db.Rows(t, "select * from "+mat+" order by 1, 2")
	}
	return c
}

func same(t *testing.T, when string, want, got map[string][][]string) {
	t.Helper()
	for name, rows := range want {
		if !slices.EqualFunc(rows, got[name], slices.Equal) {
			t.Errorf("%s: %s: %d rows, want %d\n got %v\nwant %v", when, name, len(got[name]), len(rows),
				diff(got[name], rows), diff(rows, got[name]))
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
        join _timescaledb_catalog.continuous_aggs_watermark using (mat_hypertable_id) where user_view_name <> 'late'
        order by 1`))
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
		for _, c := range []struct{ trimmed, squeezed, fromDump bool }{{true, true, true}, {true, true, false},
			{false, false, true}} {
			t.Run(fmt.Sprintf("trimmed=%t/compressed=%t/dump=%t", c.trimmed, c.squeezed, c.fromDump),
				func(t *testing.T) {
					var more []string
					if c.squeezed {
						more = append(more, compression, compress)
					}
					if c.trimmed {
						more = append(more, trim)
					}
					source := newSource(t, p, more...)
					want := contents(t, source)
					var target *testdb.DB
					if c.fromDump {
						target = restored(t, p, source)
					} else {
						target = handMade(t, p, compression)
					}
					backfill(t, source, target, want)
				})
		}
	})
}

// backfill copies everything and checks that nothing is lost, then or later.
func backfill(t *testing.T, source, target *testdb.DB, want map[string][][]string) {
	t.Helper()
	ok(t, source, target, stageAll+"; "+copyAll)
	ok(t, source, target, "bf-caggs")
	same(t, "after bf-caggs", want, contents(t, target))
	sameMarks(t, source, target)
	ok(t, source, target, "bf-verify >/dev/null")
	if out, _ := ok(t, source, target, "bf-caggs"); out != "" {
		t.Errorf("a second bf-caggs found something to do: %s", out)
	}
	if t.Failed() {
		return
	}
	// What policies will do, and more.
	refreshAll(t, target)
	same(t, "after a refresh of everything", want, contents(t, target))
	sameMarks(t, source, target)
}

type window struct {
	Aggregate   struct{ Name string }
	From, Until int64 `json:",string"`
	Keep        bool
	Status      string
}

func windows(t *testing.T, out string) (ws []window) {
	t.Helper()
	for d := json.NewDecoder(strings.NewReader(out)); d.More(); {
		var w window
		if err := d.Decode(&w); err != nil {
			t.Fatal(err)
		}
		ws = append(ws, w)
	}
	return ws
}

// Raw data only: the aggregates are computed, in windows, and a stop loses one.
func TestRawOnly(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		source := newSource(t, p, compression, compress)
		want := contents(t, source)
		target := restored(t, p, source) // where nothing is logged but what is copied
		ok(t, source, target, `bf-stage --until 2024-03-01 --filter '\.m$' >/dev/null; `+copyAll)
		planned, _ := ok(t, source, target, "bf-caggs --dry-run")
		// A stop when the first window is announced.
		out, _, err := sh(t, source, target, `bf-caggs 2> >(while read -r line; do echo "$line" >&2; `+
			`case "$line" in *' 1/'*) kill -TERM $(cat $BF_PID);; esac; done) & echo $! >$BF_PID; wait $!`)
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 130 {
			t.Errorf("a stopped bf-caggs: %v, want exit status 130", err)
		}
		first := windows(t, out)
		rest, _ := ok(t, source, target, "env -u BF_SOURCE bf-caggs") // by the watermarks that were remembered
		all := append(first, windows(t, rest)...)
		// The dry run cannot know the children's exactly.
		for _, ws := range [][]window{windows(t, planned), all} {
			if len(ws) < 10 {
				t.Errorf("%d windows", len(ws))
			}
			for i := 1; i < len(ws); i++ {
				if ws[i-1].Aggregate == ws[i].Aggregate && ws[i-1].Until != ws[i].From {
					t.Errorf("windows %v and %v do not touch", ws[i-1], ws[i])
				}
			}
		}
		same(t, "after bf-caggs", want, contents(t, target))
		sameMarks(t, source, target)
		refreshAll(t, target)
		same(t, "after a refresh of everything", want, contents(t, target))
	})
}

// Raw data that does not reach back as far as the aggregates left out.
func TestBeyond(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		source := newSource(t, p, trim)
		target := handMade(t, p)
		for filter, want := range map[string]bool{`\.m$`: true, `\.(m|hourly)$`: false,
			`\.m$' --cascade-up '--quiet`: false} {
			_, said := ok(t, source, target, "bf-stage --until 2024-03-01 --filter '"+filter+"' >/dev/null")
			if got := strings.Contains(said, "source: public.hourly has buckets whose raw data is gone"); got != want {
				t.Errorf("--filter %s: is it said that buckets will be missing? %t", filter, got)
			}
		}
	})
}

// Aggregates only: no raw data moves the watermark.
func TestAggregatesOnly(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		source := newSource(t, p, trim)
		want := contents(t, source)
		target := handMade(t, p)
		prepared := target.Conn(t)
		ctx := context.Background()
		count := func() (n int) {
			t.Helper()
			if err := prepared.QueryRow(ctx, "select count(*) from hourly").Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		}
		for range 6 { // until the plan is a generic one
			count()
		}
		ok(t, source, target, "bf-stage --until 2024-03-01 --filter 'ly$' >/dev/null; "+copyAll)
		ok(t, source, target, "bf-caggs")
		same(t, "after bf-caggs", want, contents(t, target))
		sameMarks(t, source, target)
		if n := count(); n != len(want["hourly"]) {
			t.Errorf("another session's plan sees %d of %d buckets", n, len(want["hourly"]))
		}
		refreshAll(t, target)
		same(t, "after a refresh of everything", want, contents(t, target))
	})
}

// The application writes to both sides; T lies in the middle of buckets, the
// target's policies have run, and the source's have not stopped.
func TestDualWrites(t *testing.T) {
	const live = `insert into m select t, d, extract(epoch from t)::bigint % 777 + d
        from generate_series('2024-02-13 23:52+00'::timestamptz, '2024-02-16 12:00+00', '20 minutes') t,
        generate_series(1, 2) d`
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		for _, refreshed := range []bool{true, false} {
			source := testdb.New(t, p.Source, "source")
			target := handMade(t, p)
			for _, sql := range []string{schema, data, live} {
				source.Exec(t, sql)
			}
			refreshAll(t, source)
			source.Exec(t, trim)
			target.Exec(t, live)
			if refreshed {
				for _, v := range []string{"hourly", "daily", "weekly"} {
					target.Exec(t, "call refresh_continuous_aggregate('"+v+"', '2024-02-01', '2024-02-15 10:00+00')")
				}
			}
			want := contents(t, source)
			ok(t, source, target, "bf-stage --until '2024-02-14 10:00+00' >/dev/null; "+copyAll+"; bf-caggs")
			got := contents(t, target)
			same(t, fmt.Sprintf("refreshed=%t, after bf-caggs", refreshed), want, got)
			sameMarks(t, source, target)
			refreshAll(t, target)
			same(t, fmt.Sprintf("refreshed=%t, after a refresh of everything", refreshed), want, contents(t, target))
		}
	})
}

// A plain owner on the target, who may not even make relations where compressed
// data lives.
func TestOwner(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		source := newSource(t, p, compression, compress, trim)
		want := contents(t, source)
		owned := func() *testdb.DB {
			target := testdb.New(t, p.Target, "target")
			target.ConnString = target.Role(t, "app")
			for _, sql := range []string{"set role app", schema, compression} {
				target.Exec(t, sql)
			}
			return target
		}
		backfill(t, source, owned(), want)

		// Without raw data only a superuser could move the watermark: it is
		// said, for the real-time views, and the rest is done.
		target := owned()
		_, said := ok(t, source, target, "bf-stage --until 2024-03-01 --filter 'ly$' >/dev/null; "+copyAll+"; bf-caggs")
		for _, v := range views {
			if behind := strings.Contains(said, v+": the real-time view does not show the buckets"); behind !=
				(v != "monthly") {
				t.Errorf("%s: is it said that the watermark is behind? %t", v, behind)
			}
		}
		refreshAll(t, target)
		got := contents(t, target)
		for _, v := range views {
			same(t, "aggregates only", map[string][][]string{v + ", materialized": want[v+", materialized"]}, got)
		}
	})
}

// bf-caggs was killed when a refresh had deleted rows that it had put aside.
func TestKilled(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		source := newSource(t, p, trim)
		want := contents(t, source)
		target := handMade(t, p)
		ok(t, source, target, stageAll+"; "+copyAll)
		var id, mat string
		target.Query1(t, &id, "select mat_hypertable_id::text from _timescaledb_catalog.continuous_agg "+
			"where user_view_name = 'weekly'")
		target.Query1(t, &mat, "select format('%I.%I', schema_name, table_name) from _timescaledb_catalog.hypertable "+
			"where id = "+id)
		target.Exec(t, fmt.Sprintf(`create table __backfill.kept_%s as select * from %s where b >= '2024-01-14 23:00+00'
            and b < '2024-01-28 23:00+00';
            update __backfill.aggregate set keeping = int8range(extract(epoch
            from '2024-01-14 23:00+00'::timestamptz)::bigint * 1000000,
                extract(epoch from '2024-01-28 23:00+00'::timestamptz)::bigint * 1000000) where view_name = 'weekly'`,
			id, mat))
		target.Exec(t, "call refresh_continuous_aggregate('weekly', '2024-01-14 23:00+00', '2024-01-28 23:00+00')")
		if _, said, err := sh(t, source, target, "bf-clean"); err == nil ||
			!strings.Contains(said, "run bf-caggs again") {
			t.Errorf("bf-clean: %v, %s", err, said)
		}
		ok(t, source, target, "bf-caggs")
		same(t, "after bf-caggs", want, contents(t, target))
		ok(t, source, target, "bf-clean")
		refreshAll(t, target)
		same(t, "after a refresh of everything", want, contents(t, target))
	})
}
