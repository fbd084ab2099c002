package chaos

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"bf/lib/testdb"
)

// TestSharedBatches: the target's chunks are longer than the source's, and
// compressed, so that one batch holds stale rows of several tasks. Whoever
// clears one of them decompresses the batch, and the rows of the others with
// it: in READ COMMITTED, a DELETE that waited for that sees neither the batch
// nor the rows. None of them may stay behind.
func TestSharedBatches(t *testing.T) {
	testdb.Path(t)
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		source, target := testdb.New(t, p.Source, "source"), testdb.New(t, p.Target, "target")
		for d, interval := range map[*testdb.DB]int{source: 10, target: 15} {
			d.Exec(t, fmt.Sprintf("create table m (time bigint not null, v int); "+
				"select create_hypertable('m', 'time', chunk_time_interval => %d)", interval))
		}
		source.Exec(t, "insert into m select n, 1 from generate_series(0, 1999) n where n % 10 between 2 and 7")
		target.Exec(t, `alter table m set (timescaledb.compress, timescaledb.compress_segmentby = '',
            timescaledb.compress_orderby = 'time');
			insert into m select n, -1 from generate_series(0, 2099) n`)
		target.Rows(t, "select compress_chunk(c) from show_chunks('m') c")
		// An aggregate has to hear of what was deleted, too.
		const aggregate = "select time_bucket(2::bigint, time) as b, count(*) as n, sum(v) as s from m group by 1"
		target.Exec(t, "create function upto() returns bigint language sql stable as 'select 10000::bigint'; "+
			"select set_integer_now_func('m', 'upto'); "+
			"create materialized view c with (timescaledb.continuous, timescaledb.materialized_only = true) as "+
			aggregate+" with no data")
		target.Exec(t, "call refresh_continuous_aggregate('c', null, null)")
		env := []string{"BF_SOURCE=" + source.ConnString, "BF_TARGET=" + target.ConnString}
		run := func(script string) *session {
			t.Helper()
			s := start(t, env, script)
			s.wait(t, deadline)
			if s.status() != 0 {
				t.Errorf("%s: status %d\n%s", script, s.status(), s.errors())
			}
			return s
		}
		run("bf-stage --until 2000")
		stale := func(from int) (n int) {
			t.Helper()
			target.Query1(t, &n, "select count(*) from m where time >= $1::bigint and time < 2000 and v < 0", from)
			return n
		}

		// Somebody clears another task of the batch, and commits when the
		// load waits for it.
		other := target.Conn(t)
		if _, err := other.Exec(t.Context(), "begin; delete from m where time >= 1980 and time < 1990"); err != nil {
			t.Fatal(err)
		}
		s := start(t, env, "bf-chunks --order newest | head -n 1 | bf-dump | bf-load")
		within(t, deadline, "the load waits for the batch", func() (yes bool) {
			target.Query1(t, &yes, "select exists (select from pg_stat_activity where datname = current_database() "+
				"and application_name = 'bf-load' and wait_event_type = 'Lock')")
			return yes
		})
		if _, err := other.Exec(t.Context(), "commit"); err != nil {
			t.Fatal(err)
		}
		s.wait(t, deadline)
		if n := stale(1990); strings.Contains(s.errors(), "XX000") && n == 10 {
			t.Log(s.errors()) // 2.14 stumbles over itself; then nothing has changed
		} else if s.status() != 0 || n != 0 {
			t.Errorf("status %d, %d stale rows\n%s", s.status(), n, s.errors())
		}

		// And so do lanes to each other.
		target.Rows(t, "select compress_chunk(c, true) from show_chunks('m') c")
		began, left := time.Now(), 1
		for tries := 0; left > 0 && tries < 5; tries++ {
			// Up to 2.22 the server sometimes does not find a chunk whose state
			// another session changes ("chunk not found"): that task fails.
			s := start(t, env, "for i in 1 2 3 4 5 6 7 8; do bf-chunks --claim | bf-dump | bf-load -q & done; wait")
			s.wait(t, deadline)
			if target.Query1(t, &left, "select count(*) from __backfill.task where worked is null"); left > 0 {
				t.Logf("%d tasks failed\n%s", left, s.errors())
			}
		}
		if t.Logf("eight lanes: %v", time.Since(began)); left > 0 {
			t.Errorf("%d tasks are pending", left)
		}
		const rows = "select count(*), sum(time * v) from m where time < 2000"
		if want, got := source.Rows(t, rows), target.Rows(t, rows); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("the target has %v, the source %v; %d are stale", got, want, stale(0))
		}
		target.Exec(t, "call refresh_continuous_aggregate('c', null, null)")
		if got, want := target.Rows(t, "select * from c order by 1"),
			target.Rows(t, aggregate+" order by 1"); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("the aggregate has %v\nthe rows %v", got, want)
		}
		if n := target.Rows(t, "select count(*) from m where time >= 2000 and v < 0"); n[0][0] != "100" {
			t.Errorf("of 100 rows behind the range %s are left", n[0][0])
		}
	})
}
