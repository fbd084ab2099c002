package e2e

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"bf/lib/task"
	"bf/lib/testdb"
)

// verify runs bf-verify on both sides and returns its results by chunk.
func (p *pair) verify(t testing.TB, status int, args ...string) map[string]*task.Result {
	t.Helper()
	r := p.run(t, "", "bf-verify", append([]string{"--source", p.source, "--target", p.target}, args...)...)
	if r.status != status {
		t.Fatalf("bf-verify %q: exit status %d, not %d\n%s%s", args, r.status, status, r.stderr, r.stdout)
	}
	return byChunk(t, r.stdout)
}

func byChunk(t testing.TB, out string) map[string]*task.Result {
	t.Helper()
	m := map[string]*task.Result{}
	for _, r := range results(t, out) {
		if m[r.Chunk.Name] != nil {
			t.Errorf("two results of chunk %s", r.Chunk.Name)
		}
		m[r.Chunk.Name] = r
	}
	return m
}

func statuses(m map[string]*task.Result) string {
	count := map[task.Status]int{}
	for _, r := range m {
		count[r.Status]++
	}
	return strings.TrimPrefix(fmt.Sprint(count), "map")
}

const readings = `
    create table readings (time timestamptz not null, dev int not null, temp float8, n numeric, note text,
    primary key (dev, time));
    select create_hypertable('readings', 'time', chunk_time_interval => interval '1 day')`

// fill makes days chunks of 1440 rows each on the source and copies them.
func (p *pair) fill(t testing.TB, days int) {
	t.Helper()
	p.both(t, readings)
	p.src.Exec(t, fmt.Sprintf(`insert into readings
        select '2020-01-01 00:00+0'::timestamptz + i * interval '1 minute', i %% 7, sqrt(i), i / 2.0, 'note ' || i
        from generate_series(0, %d) i`, days*1440-1))
	p.stage(t, "--until", "2021-01-01")
	p.copy(t)
}

func TestVerify(t *testing.T) {
	testdb.EachVersion(t, func(t *testing.T, v testdb.Pair) {
		p := newPair(t, v)
		p.fill(t, 5)
		var temp int64
		p.dst.Query1(t, &temp, "select sum(temp_files) from pg_stat_database")

		if got := statuses(p.verify(t, 0)); got != "[verified:5]" {
			t.Fatalf("after the copy: %s", got)
		}
		if got := p.verify(t, 0); len(got) != 0 {
			t.Errorf("what is verified was verified again: %s", statuses(got))
		}
		if got := statuses(p.verify(t, 0, "--all", "--method", "summary", "--parallelism", "2")); got !=
			"[verified:5]" {
			t.Errorf("--method summary: %s", got)
		}
		var marked int
		p.dst.Query1(t, &marked, "select count(*) from __backfill.task where upper(verified) <= now() "+
			"and lower(verified) > upper(worked) and verify_message like 'equal: 1440 rows%'")
		if marked != 5 {
			t.Errorf("%d tasks are marked as verified, not 5", marked)
		}

		// One value, one row too many, one missing; one that is equal but not
		// the same; one chunk dropped.
		p.dst.Exec(t, `set timezone = utc;
            update readings set temp = temp + 1 where time = '2020-01-01 00:05';
            insert into readings values ('2020-01-02 00:00:30', 1, 1, 1, 'new');
            delete from readings where time in ('2020-01-02 00:10', '2020-01-02 00:11');
            update readings set n = round(n, 1) where time = '2020-01-03 00:01';
            select drop_chunks('readings', newer_than => '2020-01-05'::timestamptz)`)
		got := p.verify(t, 3, "--all")
		if s := statuses(got); s != "[differs:3 gone:1 verified:1]" {
			t.Fatalf("after changes: %s", s)
		}
		chunk := func(day string) *task.Result {
			var name string
			p.src.Query1(t, &name, "select tableoid::regclass::text from readings where time = $1::timestamptz",
				day+" 12:00+0")
			return got[strings.TrimPrefix(name, "_timescaledb_internal.")]
		}
		for day, want := range map[string][]task.Difference{
			"2020-01-01": {{What: "value", Column: "temp", Key: "(dev=5, time=2020-01-01 00:05:00+00)",
				Source: "2.23606797749979", Target: "3.23606797749979"}},
			"2020-01-02": {
				{What: "rows", Source: "1440", Target: "1439"},
				{What: "row", Key: "(dev=1, time=2020-01-02 00:00:30+00)", Source: "absent", Target: "present"},
				{What: "row", Key: "(dev=1, time=2020-01-02 00:10:00+00)", Source: "present", Target: "absent"},
				{What: "row", Key: "(dev=2, time=2020-01-02 00:11:00+00)", Source: "present", Target: "absent"}},
			"2020-01-03": {{What: "value", Column: "n", Key: "(dev=4, time=2020-01-03 00:01:00+00)",
				Source: "1440.5000000000000000", Target: "1440.5"}},
			"2020-01-05": {{What: "rows", Source: "1440", Target: "0"}},
		} {
			r := chunk(day)
			for _, w := range want {
				if !slices.Contains(r.Differences, w) {
					t.Errorf("%s: %+v is missing in %+v", day, w, r.Differences)
				}
			}
			var message *string
			var verified bool
			p.dst.Query1(t, &message, "select verify_message from __backfill.task where priority = $1", r.Task)
			p.dst.Query1(t, &verified, "select verified is not null from __backfill.task where priority = $1", r.Task)
			if message == nil || *message != r.Message || verified {
				t.Errorf("%s: marked with %v, verified %v; the result says %q", day, message, verified, r.Message)
			}
		}
		// Only what is not verified, without --all; the split gives the same verdicts.
		if s := statuses(p.verify(t, 3)); s != "[differs:3 gone:1]" {
			t.Errorf("again: %s", s)
		}
		split := p.run(t, p.ok(t, p.chunks(t, "--done"), "bf-verify", "--source", p.source, "-"), "bf-verify",
			"--target", p.target, "-")
		if s := statuses(byChunk(t, split.stdout)); s != "[differs:3 gone:1 verified:1]" || split.status != 3 {
			t.Errorf("split: %s, exit status %d\n%s", s, split.status, split.stderr)
		}
		// Loading again puts it right.
		p.load(t, p.dump(t, p.chunks(t, "--done")), "--force")
		if s := statuses(p.verify(t, 0)); s != "[verified:5]" {
			t.Errorf("loaded again: %s", s)
		}
		// What the source has dropped cannot be compared, and is no error.
		p.src.Exec(t, "select drop_chunks('readings', older_than => '2020-01-02'::timestamptz)")
		if s := statuses(p.verify(t, 0, "--all")); s != "[gone:1 verified:4]" {
			t.Errorf("dropped on the source: %s", s)
		}
		var after int64
		p.dst.Exec(t, "select pg_stat_clear_snapshot()")
		p.dst.Query1(t, &after, "select sum(temp_files) from pg_stat_database")
		if after != temp {
			t.Errorf("%d temporary files", after-temp)
		}
	})
}

// TestVerifyRange compares the staged range only, whatever stands around it,
// and through the hypertable where the target is cut differently.
func TestVerifyRange(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, v testdb.Pair) {
		for _, cut := range []string{"create_hypertable('r', 'time', chunk_time_interval => 100)",
			"create_hypertable('r', 'time', 'dev', 3, chunk_time_interval => 70)"} {
			p := newPair(t, v)
			p.both(t, "create table r (time bigint not null, dev int not null, x text)")
			p.src.Exec(t, "select create_hypertable('r', 'time', chunk_time_interval => 100); insert into r "+
				"select i, i % 5, 'x' || i from generate_series(0, 299) i")
			p.dst.Exec(t, "select "+cut+"; insert into r values (20, 1, 'before'), (250, 1, 'behind')")
			p.stage(t, "--from", "50", "--until", "250")
			p.copy(t)
			if s := statuses(p.verify(t, 0)); s != "[verified:3]" {
				t.Errorf("%s: %s", cut, s)
			}
			p.dst.Exec(t, "update r set x = 'y' where time in (49, 250)")
			if s := statuses(p.verify(t, 0, "--all", "--method", "summary")); s != "[verified:3]" {
				t.Errorf("%s: changed around the range: %s", cut, s)
			}
			p.dst.Exec(t, "update r set x = 'y' where time in (50, 249)")
			if s := statuses(p.verify(t, 3, "--all")); s != "[differs:2 verified:1]" {
				t.Errorf("%s: changed at its ends: %s", cut, s)
			}
		}
	})
}

// TestVerifyStandby reads a hot standby, and neither side as a superuser.
func TestVerifyStandby(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, v testdb.Pair) {
		p := newPair(t, v)
		p.fill(t, 2)
		p.source, p.target = p.src.Role(t, "verifier"), p.dst.Role(t, "verifier")
		p.both(t, "alter table readings owner to verifier")
		p.dst.Exec(t, "alter schema __backfill owner to verifier; alter table __backfill.task owner to verifier; "+
			"alter table __backfill.version owner to verifier")
		standby := testdb.Standby(t, p.src)
		p.source = strings.Replace(standby.ConnString, "postgres@", "verifier@", 1)
		if s := statuses(p.verify(t, 0)); s != "[verified:2]" {
			t.Error(s)
		}
		p.dst.Exec(t, "update readings set note = 'x' where time = '2020-01-01 01:00+0'")
		if s := statuses(p.verify(t, 3, "--all")); s != "[differs:1 verified:1]" {
			t.Error(s)
		}
	})
}

// TestVerifyOrigin: a source that is not the one the tasks are of.
func TestVerifyOrigin(t *testing.T) {
	in := testdb.Installs(t)[0]
	p := newPair(t, testdb.Pair{Source: in, Target: in})
	p.fill(t, 1)
	other := testdb.New(t, in, "source")
	r := p.run(t, "", "bf-verify", "--source", other.ConnString, "--target", p.target)
	if r.status != 1 || !strings.Contains(r.stderr, "another database") {
		t.Errorf("exit status %d: %s", r.status, r.stderr)
	}
}

// TestVerifyStop: what is stopped goes on where it was.
func TestVerifyStop(t *testing.T) {
	in := testdb.Installs(t)[0]
	p := newPair(t, testdb.Pair{Source: in, Target: in})
	p.fill(t, 4)
	// The first chunk cannot be read for a while.
	lock := p.src.Conn(t)
	var chunk string
	p.src.Query1(t, &chunk, "select chunk_name from timescaledb_information.chunks order by range_start desc limit 1")
	if _, err := lock.Exec(t.Context(), "begin; lock table _timescaledb_internal."+chunk); err != nil {
		t.Fatal(err)
	}
	cmd := p.command(t, "bf-verify", "--source", p.source, "--target", p.target, "--parallelism", "1",
		"--verbose")
	var out strings.Builder
	var stderr syncBuffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for waiting := false; !waiting; time.Sleep(10 * time.Millisecond) {
		p.src.Query1(t, &waiting, "select exists (select from pg_locks where not granted)")
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	stderr.until(t, "once more")      // a busy machine hears it late
	time.Sleep(50 * time.Millisecond) // and it says so first
	if _, err := lock.Exec(t.Context(), "rollback"); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 130 {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	if s := statuses(byChunk(t, out.String())); s != "[verified:1]" {
		t.Errorf("the chunk in hand: %s", s)
	}
	if s := statuses(p.verify(t, 0)); s != "[verified:3]" {
		t.Errorf("the rest: %s", s)
	}
}
