package jobs_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"bf/lib/testdb"
	"bf/lib/tsdb"
)

const schema = `
create table m (t timestamptz not null, v int);
create table other (t timestamptz not null);
select create_hypertable('m', 't', chunk_time_interval => interval '1 day'), create_hypertable('other', 't');
alter table m set (timescaledb.compress);
create materialized view hourly with (timescaledb.continuous) as select time_bucket('1 hour', t) as b, sum(v) from m
group by 1 with no data;
select add_retention_policy('other', interval '100 years');
select add_retention_policy('m', interval '100 years', initial_start => '2024-01-01 03:00+01',
timezone => 'Europe/Berlin'), add_compression_policy('m', interval '100 years'), add_reorder_policy('m', 'm_t_idx');
select add_continuous_aggregate_policy('hourly', null, interval '1 hour', interval '1 hour');
select add_retention_policy('hourly', interval '100 years');
insert into m select t, 1 from generate_series('2024-01-01 00:00+00'::timestamptz, '2024-01-03 00:00+00', '1 hour') t;`

func run(t *testing.T, source, target *testdb.DB, script string) (stderr string) {
	t.Helper()
	bin := testdb.Bin(t) // builds them the first time, which is not to count
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", "set -eo pipefail; "+script)
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "BF_SOURCE="+source.ConnString,
		"BF_TARGET="+target.ConnString)
	var errs strings.Builder
	cmd.Stderr = &errs
	err := cmd.Run()
	t.Logf("%s\n%s", script, errs.String())
	if err != nil {
		t.Fatal(err)
	}
	return errs.String()
}

// zonedJob is the job that has a time zone.
var zonedJob = [2]string{"policy_retention", "m"}

// scheduled says of each policy whether it is, and in which time zone.
func scheduled(t *testing.T, db *testdb.DB) string {
	t.Helper()
	return fmt.Sprint(db.Rows(t, "select j.job_id, j.proc_name, j.scheduled, b.timezone "+
		"from timescaledb_information.jobs j join _timescaledb_config.bgw_job b on b.id = j.job_id "+
		"where j.proc_name like 'policy_%' and (j.config ? 'hypertable_id' or j.config ? 'mat_hypertable_id') "+
		"order by 1"))
}

func contains(t *testing.T, text string, wanted ...string) {
	t.Helper()
	for _, w := range wanted {
		if !strings.Contains(text, w) {
			t.Errorf("nothing says %q", w)
		}
	}
}

func TestPauseAndResume(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		source, target := testdb.New(t, p.Source, "source"), testdb.New(t, p.Target, "target")
		source.Exec(t, schema)
		target.Exec(t, "create table first (t timestamptz not null); select create_hypertable('first', 't')")
		target.Exec(t, schema)
		job := func(db *testdb.DB, proc, hypertable string) (id string) {
			t.Helper()
			db.Query1(t, &id, `select job_id::text from timescaledb_information.jobs
                join _timescaledb_catalog.hypertable h
                    on h.id = coalesce(config->>'hypertable_id', config->>'mat_hypertable_id')::int
                left join _timescaledb_catalog.continuous_agg a on a.mat_hypertable_id = h.id
                where proc_name = $1 and coalesce(user_view_name, table_name) = $2`, proc, hypertable)
			return id
		}
		// One was paused by the user, and stays it.
		reorder := job(target, "policy_reorder", "m")
		target.Exec(t, "select alter_job("+reorder+", scheduled => false)")
		before := scheduled(t, target)
		const stage = `bf-stage --until 2025-01-01 --filter '\.(m|hourly)$' >/dev/null`

		said := run(t, source, target, stage)
		for _, j := range [][2]string{{"policy_retention", "m"}, {"policy_compression", "m"},
			{"policy_refresh_continuous_aggregate", "hourly"}, {"policy_retention", "hourly"}} {
			kind, _, _ := strings.Cut(strings.TrimPrefix(j[0], "policy_"), "_")
			zone := ""
			if j == zonedJob && tsdb.AtLeast(p.Target.Version, "2.14") {
				zone = ", timezone => 'Europe/Berlin'" // else alter_job sets it to null
			}
			contains(t, said, fmt.Sprintf("target: job %[1]s (%s of public.%s) is scheduled; to pause it: "+
				"select alter_job(%[1]s, scheduled => false%[4]s);", job(target, j[0], j[1]), kind, j[1], zone))
		}
		for _, kind := range []string{"retention", "compression"} {
			contains(t, said, fmt.Sprintf("source: job %s (%s of public.m) is scheduled and can change chunks",
				job(source, "policy_"+kind, "m"), kind))
		}
		if strings.Contains(said, "public.other") || strings.Contains(said, "job "+reorder) ||
			strings.Contains(said, "source: job "+job(source, "policy_reorder", "m")+" ") {
			t.Errorf("a job is named that has nothing to do with it")
		}
		if now := scheduled(t, target); now != before {
			t.Errorf("jobs were changed without being asked for: %s, before %s", now, before)
		}

		run(t, source, target, stage+" --pause-jobs")
		run(t, source, target, stage+" --pause-jobs") // forgets nothing
		if got := target.Rows(t, "select scheduled, count(*) from timescaledb_information.jobs "+
			"where proc_name like 'policy_%' and (config ? 'hypertable_id' or config ? 'mat_hypertable_id') "+
			"group by 1 order by 1"); fmt.Sprint(got) != "[[f 5] [t 1]]" {
			t.Errorf("after --pause-jobs: %v", got)
		}
		said = run(t, source, target, "bf-clean --jobs")
		contains(t, said, "target: job "+job(target, "policy_compression", "m")+
			" (compression of public.m) is scheduled again")
		if now := scheduled(t, target); now != before {
			t.Errorf("after bf-clean --jobs: %s, before %s", now, before)
		}
		run(t, source, target, "bf-clean --jobs") // nothing to do

		// bf-clean alone does it, too, but for a job that was dropped meanwhile.
		run(t, source, target, stage+" --pause-jobs")
		gone := job(target, "policy_retention", "hourly")
		target.Exec(t, "select delete_job("+gone+")")
		before = strings.Replace(before, " ["+gone+" policy_retention t NULL]", "", 1)
		said = run(t, source, target, "bf-clean --force")
		contains(t, said, "job "+gone+" (retention of public.hourly) was paused and is not there any more")
		if now := scheduled(t, target); now != before {
			t.Errorf("after bf-clean: %s, before %s", now, before)
		}
	})
}

// The whole way with the policies of the target, run by hand at the end.
func TestPolicies(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		source, target := testdb.New(t, p.Source, "source"), testdb.New(t, p.Target, "target")
		source.Exec(t, schema)
		source.Exec(t, "call refresh_continuous_aggregate('hourly', null, null)")
		target.Exec(t, schema)
		target.Exec(t, "truncate m")
		want := source.Rows(t, "select * from hourly order by 1")
		source.Exec(t, "select drop_chunks('m', older_than => '2024-01-02 00:00+00'::timestamptz)")
		run(t, source, target, "bf-stage --until 2025-01-01 --pause-jobs >/dev/null; "+
			"bf-chunks | bf-dump | bf-load -q >/dev/null; bf-caggs >/dev/null; bf-clean --jobs")
		var jobs []string
		for _, r := range target.Rows(t, "select job_id from timescaledb_information.jobs where scheduled "+
			"and proc_name like 'policy_%' and (config ? 'hypertable_id' or config ? 'mat_hypertable_id') order by 1") {
			jobs = append(jobs, r[0])
		}
		if len(jobs) != 6 {
			t.Fatalf("%d jobs are scheduled", len(jobs))
		}
		for _, j := range jobs {
			target.Exec(t, "call run_job("+j+")")
		}
		if got := target.Rows(t, "select * from hourly order by 1"); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("after the policies have run: %v, want %v", got, want)
		}
	})
}

// A job that is running is named, on a server that runs some.
func TestRunning(t *testing.T) {
	var p testdb.Pair
	testdb.EachFull(t, func(t *testing.T, each testdb.Pair) {
		if p.Source.Version != "" {
			t.Skip("once is enough")
		}
		p = each
		source := testdb.New(t, p.Source, "source")
		source.Exec(t, schema)
		target := testdb.NewServer(t, p.Target, "jobs", testdb.WithJobs()).DB(t)
		target.Exec(t, schema)
		// The refresh waits for this.
		ctx := context.Background()
		tx, err := target.Conn(t).Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback(ctx)
		if _, err := tx.Exec(ctx, "lock table "+
			"_timescaledb_catalog.continuous_aggs_invalidation_threshold"); err != nil {
			t.Fatal(err)
		}
		var id string
		target.Query1(t, &id, "select job_id::text from timescaledb_information.jobs "+
			"where proc_name = 'policy_refresh_continuous_aggregate'")
		target.Exec(t, "select alter_job("+id+", next_start => now())")
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			var running bool
			target.Query1(t, &running, "select exists (select from timescaledb_information.job_stats "+
				"where job_status = 'Running' and job_id = "+id+")")
			if running {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("the job does not start")
			}
		}
		said := run(t, source, target, `bf-stage --until 2025-01-01 --filter '\.m$' --pause-jobs >/dev/null`)
		contains(t, said, "job "+id+" (refresh of public.hourly) is paused until bf-clean (running at the moment: "+
			"let it end before copying)")
	})
}
