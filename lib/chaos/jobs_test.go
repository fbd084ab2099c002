package chaos

import (
	"fmt"
	"testing"

	"bf/lib/testdb"
)

// scheduled is both sides with TimescaleDB's scheduler at work, and a compression policy
// each that is paused.
type scheduled struct {
	t              *testing.T
	source, target *testdb.DB
	job            map[*testdb.DB]string
	env            []string
}

const (
	scheduledDigest = "select count(*), sum(hashtextextended(m::text, 0)) from m"
	claimingLane    = "bf-chunks --claim | bf-dump | bf-load"
)

func newScheduled(t *testing.T, p testdb.Pair) *scheduled {
	t.Helper()
	jobs := []testdb.Option{config, testdb.WithJobs()}
	w := &scheduled{t: t, source: testdb.NewServer(t, p.Source, "source", jobs...).DB(t),
		target: testdb.NewServer(t, p.Target, "target", jobs...).DB(t), job: map[*testdb.DB]string{}}
	w.env = []string{"BF_SOURCE=" + w.source.ConnString, "BF_TARGET=" + w.target.ConnString}
	for _, d := range []*testdb.DB{w.source, w.target} {
		d.Exec(t, `create table m (time timestamptz not null, dev int not null, v text);
			select create_hypertable('m', 'time', chunk_time_interval => interval '1 day');
			alter table m set (timescaledb.compress, timescaledb.compress_segmentby = 'dev',
			timescaledb.compress_orderby = 'time')`)
		w.job[d] = d.Rows(t, "select (alter_job(add_compression_policy('m', interval '1 day'), "+
			"scheduled => false)).job_id")[0][0]
	}
	w.source.Exec(t, "insert into m select d + n * interval '10 seconds', n % 10, repeat('x', 1000) "+
		"from generate_series('2024-01-01'::timestamptz, '2024-01-06', '1 day') d, generate_series(1, 8000) n")
	w.target.Exec(t, `create table gate ();
		create function wait() returns trigger language plpgsql as $$ begin while exists (select
		from public.gate) loop perform pg_sleep(0.01); end loop; return new; end $$;
		create trigger wait before insert on m
		for each row when (new.time = '2024-01-04 00:10:00+00') execute function wait()`)
	return w
}

// run runs the tools; a status other than 0 is for the caller to see.
func (w *scheduled) run(script string) *session {
	w.t.Helper()
	s := start(w.t, w.env, script)
	s.wait(w.t, deadline)
	return s
}

func (w *scheduled) pending() (n int) {
	w.target.Query1(w.t, &n, "select count(*) from __backfill.task where worked is null")
	return n
}

// copyBesideJob copies all chunks while the job of d starts in the middle of a COPY, and
// returns when both are done. It checks that nothing stays pending.
func (w *scheduled) copyBesideJob(d *testdb.DB) (said string, runs int) {
	w.t.Helper()
	w.target.Exec(w.t, "insert into gate default values")
	s := start(w.t, w.env, claimingLane)
	within(w.t, deadline, "a COPY is in the middle", func() (yes bool) {
		w.target.Query1(w.t, &yes, "select exists (select from pg_stat_activity "+
			"where application_name = 'bf-load' and wait_event = 'PgSleep')")
		return yes
	})
	d.Exec(w.t, "select alter_job("+w.job[d]+", scheduled => true, next_start => now())")
	within(w.t, deadline, "the job runs", func() (yes bool) {
		d.Query1(w.t, &yes, `select exists (select from pg_stat_activity where application_name ~ '\[`+
			w.job[d]+`\]$' and pid <> pg_backend_pid())
			or exists (select from timescaledb_information.job_stats where job_id = `+w.job[d]+
			` and total_runs > 0)`)
		return yes
	})
	w.target.Exec(w.t, "delete from gate")
	s.wait(w.t, deadline)
	said, runs = s.errors(), 1
	for ; w.pending() > 0 && runs < 5; runs++ {
		said += w.run(claimingLane).errors()
	}
	if n := w.pending(); n > 0 {
		w.t.Errorf("%d tasks are pending\n%s", n, said)
	}
	within(w.t, deadline, "the job is done", func() (yes bool) {
		d.Query1(w.t, &yes, "select total_runs > 0 and job_status <> 'Running' "+
			"from timescaledb_information.job_stats where job_id = "+w.job[d])
		return yes
	})
	d.Exec(w.t, "select alter_job("+w.job[d]+", scheduled => false)")
	return said, runs
}

// compressed is how many chunks the job of d has compressed: not all may be there when it
// starts.
func (w *scheduled) compressed(d *testdb.DB) (n int) {
	d.Query1(w.t, &n, "select count(*) from timescaledb_information.chunks "+
		"where hypertable_name = 'm' and is_compressed")
	return n
}

// TestCompressionJob: the compression policy of a side, run by TimescaleDB's
// scheduler, starts in the middle of a COPY and meets chunks that are copied
// already, the one in hand and, on the source, those to come.
func TestCompressionJob(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	testdb.Path(t)
	testdb.EachEdge(t, func(t *testing.T, p testdb.Pair) {
		if !p.Source.Full {
			t.Skip("the Apache edition has no compression")
		}
		w := newScheduled(t, p)
		want := fmt.Sprint(w.source.Rows(t, scheduledDigest))
		for _, side := range []struct {
			name string
			d    *testdb.DB
		}{{"target", w.target}, {"source", w.source}} {
			t.Log("job on the " + side.name)
			if s := w.run("bf-stage --until 2024-02-01"); s.status() != 0 {
				t.Fatal(s.errors())
			}
			said, runs := w.copyBesideJob(side.d)
			if got := fmt.Sprint(w.target.Rows(t, scheduledDigest)); got != want ||
				fmt.Sprint(w.source.Rows(t, scheduledDigest)) != want {
				t.Errorf("job on the %s: the target has %s, want %s\n%s", side.name, got, want, said)
			}
			if v := w.run("bf-verify --all -q"); v.status() != 0 {
				t.Errorf("job on the %s: bf-verify: status %d\n%s", side.name, v.status(), v.errors())
			}
			t.Logf("%d of 6 chunks compressed by %v; %d runs; %v", w.compressed(side.d),
				side.d.Rows(t, "select total_runs, total_successes, total_failures "+
					"from timescaledb_information.job_stats where job_id = "+w.job[side.d])[0], runs,
				w.target.Rows(t, "select copy_message, count(*) from __backfill.task group by 1"))
			if runs > 1 {
				t.Log(said)
			}
			if w.compressed(side.d) == 0 {
				t.Errorf("job on the %s: compressed nothing", side.name)
			}
			w.target.Exec(t, "drop schema __backfill cascade")
			w.target.Rows(t, "select drop_chunks('m', newer_than => '-infinity'::timestamptz)")
		}
	})
}
