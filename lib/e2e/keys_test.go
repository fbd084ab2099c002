package e2e

import (
	"fmt"
	"testing"
	"time"

	"bf/lib/testdb"
)

// sameNumbers stages seven tasks and returns the number of one that is also the
// number of a materialization hypertable of the target.
func sameNumbers(t *testing.T, p *pair) (number int) {
	t.Helper()
	p.both(t, `create table h (ts timestamptz not null, v int);
        select create_hypertable('h', 'ts', chunk_time_interval => interval '1 day');
		create materialized view daily with (timescaledb.continuous, timescaledb.materialized_only) as
		select time_bucket('1 day', ts) as day, sum(v) from h group by 1 with no data`)
	p.both(t, "insert into h select '2024-01-01'::timestamptz + n * interval '1 day', n from generate_series(0, 6) n")
	p.src.Exec(t, "call refresh_continuous_aggregate('daily', null, '2024-01-08')")
	p.stage(t, "--until", "2024-01-08", "--filter", `^public\.h$`)
	p.dst.Query1(t, &number, "select mat_hypertable_id from _timescaledb_catalog.continuous_agg")
	if n := len(records(t, p.chunks(t))); number > n {
		t.Fatalf("%d tasks, materialization hypertable %d", n, number)
	}
	return number
}

// TestKeysPassedOver: an aggregate is free although a bf-load has passed over the
// task of the same number.
func TestKeysPassedOver(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, v testdb.Pair) {
		p := newPair(t, v)
		n := sameNumbers(t, p)
		stream := p.dump(t, p.chunks(t, "--task", fmt.Sprint(n)))
		p.dst.Exec(t, "delete from __backfill.task where priority = $1", n)
		load := p.command(t, "bf-load", "--target", p.target)
		stdin, err := load.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := load.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := stdin.Write([]byte(stream)); err != nil {
			t.Fatal(err)
		}
		eventually(t, p.dst, fmt.Sprintf("select count(*) from pg_locks where locktype = 'advisory' and objid = %d "+
			"and mode = 'ShareLock'", n), 1)
		if r := p.run(t, "", "bf-caggs", "--source", p.source, "--target", p.target); r.status != 0 {
			t.Errorf("bf-caggs: exit status %d: %s", r.status, r.stderr)
		}
		stdin.Close()
		if load.Wait() == nil {
			t.Error("bf-load took a task that is not staged")
		}
	})
}

// TestKeysAggregate: a lane keeps the task that it has handed out although a
// bf-caggs is at the aggregate of the same number.
func TestKeysAggregate(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, v testdb.Pair) {
		p := newPair(t, v)
		n := sameNumbers(t, p)
		holder := p.dst.Conn(t)
		for _, sql := range []string{"begin",
			fmt.Sprintf("lock table only _timescaledb_internal._materialized_hypertable_%d in share mode", n)} {
			if _, err := holder.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
		}
		caggs := p.command(t, "bf-caggs", "--source", p.source, "--target", p.target)
		if err := caggs.Start(); err != nil {
			t.Fatal(err)
		}
		const ofCaggs = "select count(*) from pg_locks l join pg_stat_activity a using (pid) " +
			"where l.locktype = 'advisory' and a.application_name = 'bf-caggs' and a.datname = current_database()"
		eventually(t, p.dst, ofCaggs, 1)
		lane, in := startChunks(t, p)
		for range n {
			if !in.Scan() {
				t.Fatal("the lane handed out too little")
			}
		}
		for range 50 { // it looks at what became of its tasks now and then
			var held int
			p.dst.Query1(t, &held, "select count(*) from pg_locks l join pg_stat_activity a using (pid) "+
				"where l.locktype = 'advisory' and l.objid = $1 and a.application_name = 'bf-chunks' "+
				"and a.datname = current_database()", n)
			if held != 1 {
				t.Errorf("the lane has let go of task %d, which it handed out", n)
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		lane.Process.Kill()
		lane.Wait()
		if _, err := holder.Exec(t.Context(), "rollback"); err != nil {
			t.Fatal(err)
		}
		if err := caggs.Wait(); err != nil {
			t.Error(err)
		}
	})
}
