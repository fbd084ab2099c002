package cagg_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"bf/lib/testdb"
	"bf/lib/tsdb"
)

// mats lists the materialization hypertables of the views.
func mats(t *testing.T, db *testdb.DB) (tables []string) {
	t.Helper()
	for _, r := range db.Rows(t, `select format('%I.%I', materialization_hypertable_schema,
            materialization_hypertable_name)
        from timescaledb_information.continuous_aggregates order by 1`) {
		tables = append(tables, r[0])
	}
	return tables
}

// written is where each bucket is, and which transaction wrote it.
func written(t *testing.T, db *testdb.DB, until string) (all [][][]string) {
	t.Helper()
	for _, m := range mats(t, db) {
		all = append(all, db.Rows(t, "select tableoid::regclass, ctid, xmin, m.* from "+m+" m where b < '"+until+
			"' order by 1, 2"))
	}
	return all
}

// policies runs a refresh policy of each aggregate over all that was copied.
func policies(t *testing.T, db *testdb.DB, views ...string) {
	t.Helper()
	for _, v := range views {
		var job int
		db.Query1(t, &job, "select add_continuous_aggregate_policy('"+v+"', start_offset => interval '20 years', "+
			"end_offset => interval '1 day', schedule_interval => interval '1 day')")
		db.Exec(t, fmt.Sprintf("call run_job(%d)", job))
		db.Exec(t, "select remove_continuous_aggregate_policy('"+v+"')")
	}
}

// logged is what is logged of rows that the aggregates have seen.
func logged(t *testing.T, db *testdb.DB) [][]string {
	t.Helper()
	return db.Rows(t, "select hypertable_id, to_timestamp(lowest_modified_value / 1e6), "+
		"to_timestamp(greatest_modified_value / 1e6) "+
		"from _timescaledb_catalog.continuous_aggs_hypertable_invalidation_log order by 1, 2")
}

// What an owner needs for it.
const (
	mayUnlog = "grant insert, delete on _timescaledb_catalog.continuous_aggs_hypertable_invalidation_log to app;"
	mayBuild = "grant create on schema _timescaledb_internal to app;"
)

// After a copy of raw rows and of the aggregates on them, a policy's refresh of
// everything has nothing to do.
func TestUnlogged(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		some, less := views, ""
		if !tsdb.AtLeast(p.Source.Version, "2.12") { // months on days: see tsdb.Aggregate.Whole
			some, less = []string{"hourly", "daily", "weekly"}, "drop materialized view monthly"
		}
		for _, c := range []struct {
			name  string
			owner bool
			more  []string
		}{
			{"rows", false, nil}, {"rows, owner", true, nil},
			{"compressed", false, strings.SplitN(compression+compress, ";", 4)},
			{"compressed, owner", true, strings.SplitN(compression+compress, ";", 4)},
		} {
			t.Run(c.name, func(t *testing.T) {
				source := newSource(t, p, less)
				target := handMade(t, p)
				if c.owner {
					target = testdb.New(t, p.Target, "target")
					target.ConnString = target.Role(t, "app")
					target.Exec(t, mayUnlog+mayBuild)
					target.Exec(t, "set role app")
					target.Exec(t, schema)
				}
				target.Exec(t, less)
				if c.more != nil {
					source.Exec(t, c.more[0])
					source.Exec(t, c.more[2])
					target.Exec(t, c.more[0])
				}
				want := shown(t, source, some)
				ok(t, source, target, stageAll+"; "+copyAll)
				if log := logged(t, target); len(log) > 0 && !c.owner {
					t.Errorf("logged by the copy: %v", log)
				}
				ok(t, source, target, "bf-caggs")
				same(t, "after bf-caggs", want, shown(t, target, some))
				sameMarks(t, source, target)
				until := "infinity"
				if c.owner { // the last bucket has to be refreshed: only that moves the watermark
					until = "2024-02-01"
				}
				before := written(t, target, until)
				policies(t, target, some...)
				if after := written(t, target, until); !reflect.DeepEqual(before, after) {
					t.Error("the policies have computed buckets again")
				}
				same(t, "after the policies", want, shown(t, target, some))
			})
		}
	})
}

// shown is what views show.
func shown(t *testing.T, db *testdb.DB, views []string) map[string][][]string {
	t.Helper()
	c := map[string][][]string{}
	for _, v := range views {
		c[v] = db.Rows(t, "select * from "+v+" order by 1, 2")
	}
	return c
}

// TestUnloggedRandom copies while both sides change: rows come late on the source and on
// the target, either is refreshed by hand, chunks are loaded again. In the end buckets
// are what is computed from the rows.
func TestUnloggedRandom(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		for range 2 {
			seed := rand.Uint64()
			if s := os.Getenv("BF_TEST_SEED"); s != "" {
				seed, _ = strconv.ParseUint(s, 10, 64)
			}
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				source := newSource(t, p, "drop materialized view monthly")
				target := handMade(t, p, "drop materialized view monthly")
				r := random{rand.New(rand.NewPCG(seed, 1)), t, source, target}
				ok(t, source, target, stageAll)
				r.meddle()
				ok(t, source, target, `bf-chunks --filter '(hourly|daily|weekly)$' | bf-dump | bf-load -q >/dev/null`)
				mat := target.Rows(t, "select priority from __backfill.task where view_name is not null order by 1")
				raw := target.Rows(t, "select priority from __backfill.task where view_name is null order by 1")
				r.Shuffle(len(raw), func(i, j int) { raw[i], raw[j] = raw[j], raw[i] })
				var some int
				for i := 0; i < len(raw); i += some {
					r.meddle()
					some = min(1+r.IntN(6), len(raw)-i)
					force := ""
					again := slices.Clone(raw[i : i+some])
					if r.IntN(2) == 0 && i > 0 {
						force, again = " --force", append(again, raw[r.IntN(i)], mat[r.IntN(len(mat))])
					}
					sql := "bf-chunks"
					for _, n := range again {
						sql += " --task " + n[0]
					}
					ok(t, source, target, sql+" | bf-dump | bf-load -q"+force+" >/dev/null")
				}
				r.meddle()
				left := len(logged(t, target))
				ok(t, source, target, "bf-caggs 2>/dev/null >/dev/null")
				for _, v := range []string{"hourly", "daily", "weekly"} {
					target.Exec(t, "call refresh_continuous_aggregate('"+v+"', null, null)")
				}
				t.Logf("%d entries were in the log", left)
				// Of the first week bf-caggs keeps what it finds: it has lost rows.
				target.Exec(t, "create or replace view weekly_whole as select * from weekly where b > '2024-01-15'")
				same(t, "in the end", map[string][][]string{
					"hourly": r.computed("time_bucket('1 hour', t)"),
					"daily":  r.computed("time_bucket('1 day', t)"),
					"weekly_whole": slices.DeleteFunc(r.computed("time_bucket('1 week', t, 'Europe/Berlin')"),
						func(row []string) bool { return row[0] < "2024-01-15" }),
				}, shown(t, target, []string{"hourly", "daily", "weekly_whole"}))
			})
		}
	})
}

// random is a test that changes both sides.
type random struct {
	*rand.Rand
	t              *testing.T
	source, target *testdb.DB
}

// meddle does some of what applications and people do meanwhile, before the last bucket,
// and after the first: that one bf-caggs keeps as it was copied, as its first row is not at
// its start.
func (r random) meddle() {
	at := func() string {
		return fmt.Sprintf("'2024-01-20 01:20+00'::timestamptz + interval '%d minutes'", r.IntN(35900))
	}
	for range r.IntN(4) {
		db := []*testdb.DB{r.source, r.target}[r.IntN(2)]
		if r.IntN(3) == 0 {
			view := []string{"hourly", "daily", "weekly"}[r.IntN(3)]
			db.Exec(r.t, "call refresh_continuous_aggregate('"+view+"', '2024-01-01', '2024-02-20')")
			continue
		}
		db.Exec(r.t, []string{
			"insert into m select " + at() + ", 1, 1000 + i from generate_series(1, 3) i",
			"update m set v = v + 1 where t = (select max(t) from m where t < " + at() + ")",
			"delete from m where t = (select max(t) from m where t < " + at() + ")",
		}[r.IntN(3)])
	}
}

// computed is an aggregate as it should be.
func (r random) computed(bucket string) [][]string {
	return r.target.Rows(r.t, "select "+bucket+", d, sum(v), count(*) from m group by 1, 2 order by 1, 2")
}

// Between versions, of PostgreSQL too, buckets and definitions compare all the same.
func TestUnloggedMove(t *testing.T) {
	testdb.EachMove(t, func(t *testing.T, p testdb.Pair) {
		if !p.Source.Full || !p.Target.Full {
			t.Skip("an edition without continuous aggregates")
		}
		source := newSource(t, p, "drop materialized view monthly")
		target := handMade(t, p, "drop materialized view monthly")
		ok(t, source, target, stageAll+"; "+copyAll)
		if log := logged(t, target); len(log) > 0 {
			t.Errorf("logged by the copy: %v", log)
		}
	})
}
