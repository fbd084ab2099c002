package chaos

import (
	"fmt"
	"testing"

	"bf/lib/testdb"
)

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
		jobs := []testdb.Option{config, testdb.WithJobs()}
		source, target := testdb.NewServer(t, p.Source, "source", jobs...).DB(t),
			testdb.NewServer(t, p.Target, "target", jobs...).DB(t)
		const chunks = 6
		job := map[*testdb.DB]string{}
		for _, d := range []*testdb.DB{source, target} {
			d.Exec(t, `create table m (time timestamptz not null, dev int not null, v text);
                select create_hypertable('m', 'time', chunk_time_interval => interval '1 day');
				alter table m set (timescaledb.compress, timescaledb.compress_segmentby = 'dev',
				timescaledb.compress_orderby = 'time')`)
			job[d] = d.Rows(t, "select (alter_job(add_compression_policy('m', interval '1 day'), "+
				"scheduled => false)).job_id")[0][0]
		}
		source.Exec(t, "insert into m select d + n * interval '10 seconds', n % 10, repeat('x', 1000) "+
			"from generate_series('2024-01-01'::timestamptz, '2024-01-06', '1 day') d, generate_series(1, 8000) n")
		target.Exec(t, `create table gate ();
			create function wait() returns trigger language plpgsql as $$ begin while exists (select
			from public.gate) loop perform pg_sleep(0.01); end loop; return new; end $$;
			create trigger wait before insert on m
			for each row when (new.time = '2024-01-04 00:10:00+00') execute function wait()`)
		env := []string{"BF_SOURCE=" + source.ConnString, "BF_TARGET=" + target.ConnString}
		const digest = "select count(*), sum(hashtextextended(m::text, 0)) from m"
		want := fmt.Sprint(source.Rows(t, digest))
		for _, side := range []struct {
			name string
			d    *testdb.DB
		}{{"target", target}, {"source", source}} {
			s := start(t, env, "bf-stage --until 2024-02-01")
			s.wait(t, deadline)
			if s.status() != 0 {
				t.Fatal(s.errors())
			}
			target.Exec(t, "insert into gate default values")
			s = start(t, env, "bf-chunks --claim | bf-dump | bf-load")
			within(t, deadline, "a COPY is in the middle", func() (yes bool) {
				target.Query1(t, &yes, "select exists (select from pg_stat_activity "+
					"where application_name = 'bf-load' and wait_event = 'PgSleep')")
				return yes
			})
			side.d.Exec(t, "select alter_job("+job[side.d]+", scheduled => true, next_start => now())")
			within(t, deadline, "the job runs", func() (yes bool) {
				side.d.Query1(t, &yes, `select exists (select from pg_stat_activity where application_name ~ '\[`+
					job[side.d]+`\]$' and pid <> pg_backend_pid())
					or exists (select from timescaledb_information.job_stats where job_id = `+job[side.d]+
					` and total_runs > 0)`)
				return yes
			})
			target.Exec(t, "delete from gate")
			s.wait(t, deadline)
			said := s.errors()
			runs := 1
			pending := func() (n int) {
				target.Query1(t, &n, "select count(*) from __backfill.task where worked is null")
				return n
			}
			for ; pending() > 0 && runs < 5; runs++ {
				s := start(t, env, "bf-chunks --claim | bf-dump | bf-load")
				s.wait(t, deadline)
				said += s.errors()
			}
			if n := pending(); n > 0 {
				t.Errorf("job on the %s: %d tasks are pending\n%s", side.name, n, said)
			}
			within(t, deadline, "the job is done", func() (yes bool) {
				side.d.Query1(t, &yes, "select total_runs > 0 and job_status <> 'Running' "+
					"from timescaledb_information.job_stats where job_id = "+job[side.d])
				return yes
			})
			side.d.Exec(t, "select alter_job("+job[side.d]+", scheduled => false)")
			if got := fmt.Sprint(target.Rows(t, digest)); got != want || fmt.Sprint(source.Rows(t, digest)) != want {
				t.Errorf("job on the %s: the target has %s, want %s\n%s", side.name, got, want, said)
			}
			v := start(t, env, "bf-verify --all -q")
			v.wait(t, deadline)
			if v.status() != 0 {
				t.Errorf("job on the %s: bf-verify: status %d\n%s", side.name, v.status(), v.errors())
			}
			var compressed int
			side.d.Query1(t, &compressed, "select count(*) from timescaledb_information.chunks "+
				"where hypertable_name = 'm' and is_compressed")
			t.Logf("job on the %s: %d of %d chunks compressed by %v; %d runs; %v", side.name, compressed, chunks,
				side.d.Rows(t, "select total_runs, total_successes, total_failures "+
					"from timescaledb_information.job_stats where job_id = "+job[side.d])[0], runs,
				target.Rows(t, "select copy_message, count(*) from __backfill.task group by 1"))
			if runs > 1 {
				t.Log(said)
			}
			if compressed == 0 {
				t.Errorf("job on the %s: compressed nothing", side.name)
			}
			target.Exec(t, "drop schema __backfill cascade")
			target.Rows(t, "select drop_chunks('m', newer_than => '-infinity'::timestamptz)")
		}
	})
}
