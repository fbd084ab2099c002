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
    select time_bucket('1 week', t, 'Europe/Berlin') as b, d, sum(v) as s, count(*) as n from m group by 1, 2 with no data;`

const data = `insert into m select t, d, extract(epoch from t)::bigint % 1000 + d
    from generate_series('2024-01-20 00:10+00'::timestamptz, '2024-02-13 23:50+00', '20 minutes') t, generate_series(1, 2) d;`

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
	compression = `alter table m set (timescaledb.compress, timescaledb.compress_segmentby = 'd', timescaledb.compress_orderby = 't');
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
	cmd.Env = append(os.Environ(), "PATH="+testdb.Bin(t)+":"+os.Getenv("PATH"), "BF_SOURCE="+source.ConnString, "BF_TARGET="+target.ConnString, "BF_PID="+filepath.Join(t.TempDir(), "pid"))
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
		for _, c := range []struct{ trimmed, squeezed, fromDump bool }{{true, true, true}, {true, true, false}, {false, false, true}} {
			t.Run(fmt.Sprintf("trimmed=%t/compressed=%t/dump=%t", c.trimmed, c.squeezed, c.fromDump), func(t *testing.T) {
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
		out, _, err := sh(t, source, target, `bf-caggs 2> >(while read -r line; do echo "$line" >&2; case "$line" in *' 1/'*) kill -TERM $(cat $BF_PID);; esac; done) & echo $! >$BF_PID; wait $!`)
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
		for filter, want := range map[string]bool{`\.m$`: true, `\.(m|hourly)$`: false, `\.m$' --cascade-up '--quiet`: false} {
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
        from generate_series('2024-02-13 23:52+00'::timestamptz, '2024-02-16 12:00+00', '20 minutes') t, generate_series(1, 2) d`
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
			if behind := strings.Contains(said, v+": the real-time view does not show the buckets"); behind != (v != "monthly") {
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
		target.Query1(t, &id, "select mat_hypertable_id::text from _timescaledb_catalog.continuous_agg where user_view_name = 'weekly'")
		target.Query1(t, &mat, "select format('%I.%I', schema_name, table_name) from _timescaledb_catalog.hypertable where id = "+id)
		target.Exec(t, fmt.Sprintf(`create table __backfill.kept_%s as select * from %s where b >= '2024-01-14 23:00+00' and b < '2024-01-28 23:00+00';
            update __backfill.aggregate set keeping = int8range(extract(epoch from '2024-01-14 23:00+00'::timestamptz)::bigint * 1000000,
                extract(epoch from '2024-01-28 23:00+00'::timestamptz)::bigint * 1000000) where view_name = 'weekly'`, id, mat))
		target.Exec(t, "call refresh_continuous_aggregate('weekly', '2024-01-14 23:00+00', '2024-01-28 23:00+00')")
		if _, said, err := sh(t, source, target, "bf-clean"); err == nil || !strings.Contains(said, "run bf-caggs again") {
			t.Errorf("bf-clean: %v, %s", err, said)
		}
		ok(t, source, target, "bf-caggs")
		same(t, "after bf-caggs", want, contents(t, target))
		ok(t, source, target, "bf-clean")
		refreshAll(t, target)
		same(t, "after a refresh of everything", want, contents(t, target))
	})
}

// Somebody inserted a bucket by hand above the source's watermark: it is copied,
// and does not take the target's watermark along, which would hide the raw rows
// below it from real-time views.
func TestByHand(t *testing.T) {
	const live = `insert into m select t, d, extract(epoch from t)::bigint % 777 + d
        from generate_series('2024-02-14 00:10+00'::timestamptz, '2024-02-16 12:00+00', '20 minutes') t, generate_series(1, 2) d`
	mat := func(db *testdb.DB) (table, id string) {
		db.Query1(t, &table, `select format('%I.%I', materialization_hypertable_schema, materialization_hypertable_name)
            from timescaledb_information.continuous_aggregates where view_name = 'hourly'`)
		db.Query1(t, &id, "select mat_hypertable_id::text from _timescaledb_catalog.continuous_agg where user_view_name = 'hourly'")
		return table, id
	}
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		for _, c := range []struct {
			name    string
			more    string // on the source, at the end
			owner   bool
			filter  string
			stopped bool // bf-caggs was killed in between
		}{
			{name: "everything"},
			{name: "owner", owner: true},
			{name: "killed", stopped: true},
			{name: "compressed", more: compression + "select compress_chunk(c) from show_chunks('hourly') c"},
			{name: "trimmed", more: trim},
			{name: "raw and hours", filter: `--filter '\.(m|hourly)$'`, owner: true},
		} {
			t.Run(c.name, func(t *testing.T) {
				source := newSource(t, p)
				source.Exec(t, live)
				hourly, _ := mat(source)
				source.Exec(t, "insert into "+hourly+" select b + interval '7 days 30 minutes', d, s, n from "+hourly+" order by b desc limit 3")
				source.Exec(t, "insert into "+hourly+" select b + interval '90 days', d, s, n from "+hourly+" order by b desc limit 1")
				if c.more != "" {
					source.Exec(t, c.more)
				}
				want := contents(t, source)
				target := handMade(t, p)
				if c.owner {
					target = testdb.New(t, p.Target, "target")
					target.ConnString = target.Role(t, "app")
					target.Exec(t, "set role app")
					target.Exec(t, schema)
				}
				if c.more != "" && c.more != trim {
					target.Exec(t, compression)
				}
				ok(t, source, target, "bf-stage --until 2024-09-01 "+c.filter+" >/dev/null; "+copyAll)
				if c.stopped {
					table, id := mat(target)
					target.Exec(t, fmt.Sprintf("create table __backfill.above_%[1]s as select * from %[2]s where b > '2024-02-17'; delete from %[2]s where b > '2024-02-17'", id, table))
					if _, said, err := sh(t, source, target, "bf-clean"); err == nil || !strings.Contains(said, "run bf-caggs again") {
						t.Errorf("bf-clean: %v, %s", err, said)
					}
				}
				if c.filter != "" { // what is computed here knows of rows that came later
					want = map[string][][]string{"hourly": want["hourly"], "hourly, materialized": want["hourly, materialized"]}
				}
				ok(t, source, target, "bf-caggs")
				same(t, "after bf-caggs", want, contents(t, target))
				sameMarks(t, source, target)
				ok(t, source, target, "bf-verify >/dev/null; bf-clean")
			})
		}
	})
}

// All bucket types: the raw data alone, then everything with the raw data cut.
func TestBuckets(t *testing.T) {
	const times = "generate_series(1, 2000) i" // every two hours from 2024-01-05 on
	types := []struct{ name, table, at, bucket, cut string }{
		{"integer", "int", "i * 7", "time_bucket(100, t)", "5000"},
		{"negative", "bigint", "i * 7 - 5000", "time_bucket(100::bigint, t)", "0"},
		{"small", "smallint", "i * 7", "time_bucket(100::smallint, t)", "5000"},
		{"intoffset", "bigint", "i * 7", "time_bucket(100::bigint, t, 30::bigint)", "5000"},
		{"date", "date", "'2024-01-05'::date + i / 12", "time_bucket('1 week', t)", "2024-02-18"},
		{"datemonth", "date", "'2024-01-05'::date + i / 12", "time_bucket('1 month', t)", "2024-02-18"},
		{"stamp", "timestamp", "'2024-01-05'::timestamp + i * interval '2 hours'", "time_bucket('10 days', t)", "2024-02-18"},
		{"month", "timestamptz", "'2024-01-05 00:00+00'::timestamptz + i * interval '2 hours'", "time_bucket('1 month', t)", "2024-02-18"},
		{"zoned", "timestamptz", "'2024-01-05 00:00+00'::timestamptz + i * interval '2 hours'", "time_bucket('1 month', t, 'Asia/Kolkata')", "2024-02-18"},
		{"clocks", "timestamptz", "'2024-01-05 00:00+00'::timestamptz + i * interval '2 hours'", "time_bucket('6 hours', t, 'Europe/Berlin')", "2024-02-18"},
		{"origin", "timestamptz", "'2024-01-05 00:00+00'::timestamptz + i * interval '2 hours'", "time_bucket('1 week', t, origin => '2000-01-05 06:00+00'::timestamptz)", "2024-02-18"},
		{"shifted", "timestamptz", "'2024-01-05 00:00+00'::timestamptz + i * interval '2 hours'", `time_bucket('1 day', t, "offset" => '5 hours'::interval)`, "2024-02-18"},
		{"uuid", "uuid", "to_uuidv7_boundary('2024-01-05 00:00+00'::timestamptz + i * interval '2 hours')", "time_bucket('1 day', t)", "2024-02-18"},
	}
	always := []string{"integer", "negative", "small", "date", "datemonth", "stamp", "month", "zoned", "clocks"}
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		source := testdb.New(t, p.Source, "source")
		conn := source.Conn(t)
		var made []string
		var ddls []string
		for _, c := range types {
			interval := "interval '5 days'"
			ddl := ""
			if strings.HasSuffix(c.table, "int") {
				interval = "1000"
				ddl = fmt.Sprintf("create function now_%s() returns %s language sql stable as 'select 20000::%[2]s';", c.name, c.table)
			}
			ddl += fmt.Sprintf("create table %[1]s (t %[2]s not null, v int); select create_hypertable('%[1]s', 't', chunk_time_interval => %[3]s);", c.name, c.table, interval)
			if strings.HasSuffix(c.table, "int") {
				ddl += fmt.Sprintf("select set_integer_now_func('%s', 'now_%[1]s');", c.name)
			}
			ddl += fmt.Sprintf("create materialized view %[1]s_agg with (timescaledb.continuous, timescaledb.materialized_only = false) as select %[2]s as b, sum(v) as s, count(*) as n from %[1]s group by 1 with no data;", c.name, c.bucket)
			if _, err := conn.Exec(context.Background(), ddl); err != nil {
				if slices.Contains(always, c.name) {
					t.Fatalf("%s: %v", c.name, err)
				}
				t.Logf("%s: not on this version: %v", c.name, err)
				continue
			}
			source.Exec(t, fmt.Sprintf("insert into %s select %s, i %% 97 from %s", c.name, c.at, times))
			source.Exec(t, "call refresh_continuous_aggregate('"+c.name+"_agg', null, null)")
			made, ddls = append(made, c.name), append(ddls, ddl)
		}
		fresh := func() *testdb.DB {
			target := testdb.New(t, p.Target, "target")
			target.Exec(t, "create table other (t timestamptz not null); select create_hypertable('other', 't')")
			for _, ddl := range ddls {
				target.Exec(t, ddl)
			}
			return target
		}
		compare := func(when string, want map[string][][]string, target *testdb.DB) {
			t.Helper()
			same(t, when, want, buckets(t, target, made))
			sameMarks(t, source, target)
		}
		want := buckets(t, source, made)
		stage := func(agg string) string {
			return `bf-stage -q --until 20000 --filter '\.(integer|negative|small|intoffset)` + agg + `$' >/dev/null; ` +
				`bf-stage -q --until 2025-01-01 --filter '\.(date|datemonth|stamp|month|zoned|clocks|origin|shifted|uuid)` + agg + `$' >/dev/null`
		}
		target := fresh()
		ok(t, source, target, stage("")+"; "+copyAll+"; bf-caggs")
		compare("raw data only", want, target)

		for _, c := range types {
			if slices.Contains(made, c.name) {
				source.Exec(t, fmt.Sprintf("select drop_chunks('%s', older_than => '%s'::%s)", c.name, c.cut, strings.Replace(c.table, "uuid", "timestamptz", 1)))
			}
		}
		target = fresh()
		ok(t, source, target, stage("(_agg)?")+"; "+copyAll+"; bf-caggs")
		compare("everything, raw data cut", want, target)
		for _, name := range made {
			target.Exec(t, "call refresh_continuous_aggregate('"+name+"_agg', null, null)")
		}
		compare("everything, raw data cut, after a refresh of everything", want, target)
	})
}

func buckets(t *testing.T, db *testdb.DB, names []string) map[string][][]string {
	t.Helper()
	m := map[string][][]string{}
	for _, n := range names {
		m[n] = db.Rows(t, "select * from "+n+"_agg order by 1")
	}
	return m
}

// The two halves of staging on two machines prime all the same; a legacy
// aggregate is refused by name, and the others are refreshed.
func TestLegacyAndHalves(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		source := newSource(t, p, trim)
		want := contents(t, source)
		target := handMade(t, p)
		ok(t, source, target, "env -u BF_TARGET bf-stage --until 2024-03-01 | env -u BF_SOURCE bf-stage >/dev/null; "+copyAll)
		var column bool
		target.Query1(t, &column, "select exists (select from pg_attribute where attrelid = '_timescaledb_catalog.continuous_agg'::regclass and attname = 'finalized')")
		if column {
			target.Exec(t, "update _timescaledb_catalog.continuous_agg set finalized = false where user_view_name = 'weekly'")
			_, said, err := sh(t, source, target, "bf-caggs")
			if err == nil || !strings.Contains(said, "public.weekly: is a continuous aggregate of the old, partial form") {
				t.Errorf("legacy aggregate: %v, %s", err, said)
			}
			target.Exec(t, "update _timescaledb_catalog.continuous_agg set finalized = true where user_view_name = 'weekly'")
		}
		ok(t, source, target, "bf-caggs")
		same(t, "after bf-caggs", want, contents(t, target))
		sameMarks(t, source, target)
	})
}

// An aggregate of the same name and columns over other spans is refused.
func TestOtherBuckets(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		source, target := testdb.New(t, p.Source, "source"), testdb.New(t, p.Target, "target")
		for d, bucket := range map[*testdb.DB]string{source: "time_bucket('1 hour', t)", target: "time_bucket('2 hours', t)"} {
			sum := "sum(v)"
			if d == target {
				d.Exec(t, "create table another (t timestamptz not null); select create_hypertable('another', 't')") // other numbers
				sum = "sum(v + 1)"
			}
			d.Exec(t, "create table m (t timestamptz not null, v int); select create_hypertable('m', 't')")
			for name, b := range map[string]string{"same": "time_bucket('1 day', t) as b, sum(v)", "other": bucket + " as b, sum(v)", "most": "time_bucket('1 day', t) as b, " + sum} {
				d.Exec(t, "create materialized view "+name+" with (timescaledb.continuous) as select "+b+" as s from m group by 1 with no data")
			}
			d.Exec(t, "create materialized view week with (timescaledb.continuous) as select time_bucket('7 days', b) as b, sum(s) as s from same group by 1 with no data")
		}
		source.Exec(t, "insert into m values ('2024-01-02', 1)")
		for _, view := range []string{"same", "other", "most", "week"} {
			source.Exec(t, "call refresh_continuous_aggregate('"+view+"', null, null)")
		}
		_, said, err := sh(t, source, target, `bf-stage --until 2024-03-01 --filter '\.(m|same|most|week)$'`)
		if note := "its query is not the source's"; err != nil || strings.Count(said, note) != 1 || !strings.Contains(said, "public.most: "+note) {
			t.Errorf("%v\n%s", err, said)
		}
		_, said, err = sh(t, source, target, "bf-stage --until 2024-03-01")
		if err == nil || !strings.Contains(said, "public.other: its buckets are others than on the source") {
			t.Errorf("%v\n%s", err, said)
		}
	})
}
