package cagg_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"bf/lib/testdb"
)

// Somebody inserted a bucket by hand above the source's watermark: it is copied,
// and does not take the target's watermark along, which would hide the raw rows
// below it from real-time views.
func TestByHand(t *testing.T) {
	const live = `insert into m select t, d, extract(epoch from t)::bigint % 777 + d
        from generate_series('2024-02-14 00:10+00'::timestamptz, '2024-02-16 12:00+00', '20 minutes') t,
        generate_series(1, 2) d`
	mat := func(db *testdb.DB) (table, id string) {
		db.Query1(t, &table, `select format('%I.%I', materialization_hypertable_schema, materialization_hypertable_name)
            from timescaledb_information.continuous_aggregates where view_name = 'hourly'`)
		db.Query1(t, &id, "select mat_hypertable_id::text from _timescaledb_catalog.continuous_agg "+
			"where user_view_name = 'hourly'")
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
				source.Exec(t, "insert into "+hourly+" select b + interval '7 days 30 minutes', d, s, n from "+hourly+
					" order by b desc limit 3")
				source.Exec(t, "insert into "+hourly+" select b + interval '90 days', d, s, n from "+hourly+
					" order by b desc limit 1")
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
					target.Exec(t, fmt.Sprintf("create table __backfill.above_%[1]s as select * from %[2]s "+
						"where b > '2024-02-17'; delete from %[2]s where b > '2024-02-17'", id, table))
					if _, said, err := sh(t, source, target, "bf-clean"); err == nil ||
						!strings.Contains(said, "run bf-caggs again") {
						t.Errorf("bf-clean: %v, %s", err, said)
					}
				}
				verify := "bf-verify >/dev/null"
				if c.owner { // who has the last bucket computed, and so knows of rows that came later
					verify = "bf-chunks --done --filter '[.](m|hourly)$' | bf-verify - >/dev/null"
					want = map[string][][]string{"hourly": want["hourly"],
						"hourly, materialized": want["hourly, materialized"]}
				}
				ok(t, source, target, "bf-caggs")
				same(t, "after bf-caggs", want, contents(t, target))
				sameMarks(t, source, target)
				ok(t, source, target, verify+"; bf-clean")
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
		{"stamp", "timestamp", "'2024-01-05'::timestamp + i * interval '2 hours'", "time_bucket('10 days', t)",
			"2024-02-18"},
		{"month", "timestamptz", "'2024-01-05 00:00+00'::timestamptz + i * interval '2 hours'",
			"time_bucket('1 month', t)", "2024-02-18"},
		{"zoned", "timestamptz", "'2024-01-05 00:00+00'::timestamptz + i * interval '2 hours'",
			"time_bucket('1 month', t, 'Asia/Kolkata')", "2024-02-18"},
		{"clocks", "timestamptz", "'2024-01-05 00:00+00'::timestamptz + i * interval '2 hours'",
			"time_bucket('6 hours', t, 'Europe/Berlin')", "2024-02-18"},
		{"origin", "timestamptz", "'2024-01-05 00:00+00'::timestamptz + i * interval '2 hours'",
			"time_bucket('1 week', t, origin => '2000-01-05 06:00+00'::timestamptz)", "2024-02-18"},
		{"shifted", "timestamptz", "'2024-01-05 00:00+00'::timestamptz + i * interval '2 hours'",
			`time_bucket('1 day', t, "offset" => '5 hours'::interval)`, "2024-02-18"},
		{"uuid", "uuid", "to_uuidv7_boundary('2024-01-05 00:00+00'::timestamptz + i * interval '2 hours')",
			"time_bucket('1 day', t)", "2024-02-18"},
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
				ddl = fmt.Sprintf("create function now_%s() returns %s language sql stable as 'select 20000::%[2]s';",
					c.name, c.table)
			}
			ddl += fmt.Sprintf("create table %[1]s (t %[2]s not null, v int); "+
				"select create_hypertable('%[1]s', 't', chunk_time_interval => %[3]s);", c.name, c.table, interval)
			if strings.HasSuffix(c.table, "int") {
				ddl += fmt.Sprintf("select set_integer_now_func('%s', 'now_%[1]s');", c.name)
			}
			ddl += fmt.Sprintf("create materialized view %[1]s_agg "+
				"with (timescaledb.continuous, timescaledb.materialized_only = false) as select %[2]s as b, "+
				"sum(v) as s, count(*) as n from %[1]s group by 1 with no data;", c.name, c.bucket)
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
			return `bf-stage -q --until 20000 --filter '\.(integer|negative|small|intoffset)` + agg +
				`$' >/dev/null; ` +
				`bf-stage -q --until 2025-01-01 --filter ` +
				`'\.(date|datemonth|stamp|month|zoned|clocks|origin|shifted|uuid)` + agg + `$' >/dev/null`
		}
		target := fresh()
		ok(t, source, target, stage("")+"; "+copyAll+"; bf-caggs")
		compare("raw data only", want, target)

		for _, c := range types {
			if slices.Contains(made, c.name) {
				source.Exec(t, fmt.Sprintf("select drop_chunks('%s', older_than => '%s'::%s)", c.name, c.cut,
					strings.Replace(c.table, "uuid", "timestamptz", 1)))
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
		ok(t, source, target, "env -u BF_TARGET bf-stage --until 2024-03-01 | env -u BF_SOURCE bf-stage >/dev/null; "+
			copyAll)
		var column bool
		target.Query1(t, &column, "select exists (select from pg_attribute "+
			"where attrelid = '_timescaledb_catalog.continuous_agg'::regclass and attname = 'finalized')")
		if column {
			target.Exec(t, "update _timescaledb_catalog.continuous_agg set finalized = false "+
				"where user_view_name = 'weekly'")
			_, said, err := sh(t, source, target, "bf-caggs")
			if err == nil || !strings.Contains(said,
				"public.weekly: is a continuous aggregate of the old, partial form") {
				t.Errorf("legacy aggregate: %v, %s", err, said)
			}
			target.Exec(t, "update _timescaledb_catalog.continuous_agg set finalized = true "+
				"where user_view_name = 'weekly'")
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
		for d, bucket := range map[*testdb.DB]string{source: "time_bucket('1 hour', t)",
			target: "time_bucket('2 hours', t)"} {
			sum := "sum(v)"
			if d == target {
				// other numbers
				d.Exec(t, "create table another (t timestamptz not null); select create_hypertable('another', 't')")
				sum = "sum(v + 1)"
			}
			d.Exec(t, "create table m (t timestamptz not null, v int); select create_hypertable('m', 't')")
			for name, b := range map[string]string{"same": "time_bucket('1 day', t) as b, sum(v)",
				"other": bucket + " as b, sum(v)", "most": "time_bucket('1 day', t) as b, " + sum} {
				d.Exec(t, "create materialized view "+name+" with (timescaledb.continuous) as select "+b+
					" as s from m group by 1 with no data")
			}
			d.Exec(t, "create materialized view week with (timescaledb.continuous) as "+
				"select time_bucket('7 days', b) as b, sum(s) as s from same group by 1 with no data")
		}
		source.Exec(t, "insert into m values ('2024-01-02', 1)")
		for _, view := range []string{"same", "other", "most", "week"} {
			source.Exec(t, "call refresh_continuous_aggregate('"+view+"', null, null)")
		}
		_, said, err := sh(t, source, target, `bf-stage --until 2024-03-01 --filter '\.(m|same|most|week)$'`)
		if note := "its query is not the source's"; err != nil || strings.Count(said, note) != 1 ||
			!strings.Contains(said, "public.most: "+note) {
			t.Errorf("%v\n%s", err, said)
		}
		_, said, err = sh(t, source, target, "bf-stage --until 2024-03-01")
		if err == nil || !strings.Contains(said, "public.other: its buckets are others than on the source") {
			t.Errorf("%v\n%s", err, said)
		}
	})
}
