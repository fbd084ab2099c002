package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"bf/lib/testdb"
)

// script prepares one of scripts/, with the tools and PostgreSQL's programs in
// PATH and the two sides in the environment.
func (p *pair) script(t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := filepath.Abs("../../scripts/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return p.equip(p.command(t, path, args...))
}

// clone prepares bf-clone-schema.
func (p *pair) clone(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	return p.equip(p.command(t, "bf-clone-schema", args...))
}

// equip gives a command the programs of the target's PostgreSQL and the two
// sides.
func (p *pair) equip(cmd *exec.Cmd) *exec.Cmd {
	for i, kv := range cmd.Env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			cmd.Env[i] = "PATH=" + p.dst.Install.BinDir + string(os.PathListSeparator) + v
		}
	}
	cmd.Env = append(cmd.Env, "BF_SOURCE="+p.source, "BF_TARGET="+p.target)
	return cmd
}

// output runs a command and returns its standard error and exit status.
func output(t testing.TB, cmd *exec.Cmd) (stderr string, status int) {
	t.Helper()
	var out, err bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &err
	if e := cmd.Run(); e != nil && cmd.ProcessState == nil {
		t.Fatalf("%s: %v", cmd, e)
	}
	if strings.Contains(out.String(), "{") || out.Len() > 0 && cmd.ProcessState.ExitCode() != 0 {
		t.Errorf("%s: more than a summary on standard output: %q", cmd, out.String())
	}
	return err.String(), cmd.ProcessState.ExitCode()
}

// wantOutput runs a command and checks how it ends and what it says.
func wantOutput(t testing.TB, cmd *exec.Cmd, status int, messages ...string) {
	t.Helper()
	stderr, got := output(t, cmd)
	if got != status {
		t.Errorf("%s: exit status %d, want %d\n%s", cmd, got, status, stderr)
	}
	for _, m := range messages {
		if !strings.Contains(stderr, m) {
			t.Errorf("%s: no %q in\n%s", cmd, m, stderr)
		}
	}
}

// metrics makes a hypertable of ten chunks with data on both sides: all of it
// on the source, half of it before 2016 and later rows on the target.
func (p *pair) metrics(t testing.TB) {
	t.Helper()
	p.both(t, `create table metrics (time timestamptz not null, device int not null, value float8,
        primary key (device, time))`)
	p.both(t, `select create_hypertable('metrics', 'time', chunk_time_interval => interval '1 day')`)
	const rows = `insert into metrics select t, d, extract(epoch from t) * d
		from generate_series(timestamptz '2015-12-25Z', '2016-01-03 12:00Z', '5 min') t, generate_series(1, 3) d where `
	p.src.Exec(t, rows+"true")
	p.dst.Exec(t, rows+"t >= '2016-01-02Z' or t >= '2016-01-01Z' and d = 1")
	p.dst.Exec(t, "update metrics set value = 0 where time < '2016-01-02Z'")
}

func TestBackfill(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, v testdb.Pair) {
		p := newPair(t, v)
		p.metrics(t)
		stderr, status := output(t, p.script(t, "backfill", "--until", "2016-01-02", "-p", "3", "-f", `metrics|it's`))
		for _, want := range []string{"chunks to copy: 8, lanes: 3", "all 8 chunks are copied and verified"} {
			if status != 0 || !strings.Contains(stderr, want) {
				t.Fatalf("%d, no %q in %s", status, want, stderr)
			}
		}
		p.same(t, "select * from metrics")
		// What is left to do, as it is printed.
		left := regexp.MustCompile(`(?m)bf-(?:verify|clean) --.*$`).FindAllString(stderr, -1)
		if len(left) != 3 {
			t.Fatalf("left to do: %q", left)
		}
		for _, command := range left[:2] {
			if r := p.sh(t, command); r.status != 0 {
				t.Errorf("%s: %d %s", command, r.status, r.stderr)
			}
		}

		const worked = "select array_agg((priority, worked) order by priority)::text from __backfill.task"
		var before, after string
		p.dst.Query1(t, &before, worked)
		wantOutput(t, p.script(t, "backfill", "--until", "2016-01-02"), 0, "0 of 8 chunks newly staged",
			"all 8 chunks are copied and verified")
		if p.dst.Query1(t, &after, worked); before != after {
			t.Errorf("the second run worked: %s, before %s", after, before)
		}

		// A difference.
		p.dst.Exec(t, "update metrics set value = -1 where device = 2 and time = '2015-12-30 12:00Z'")
		p.dst.Exec(t, "update __backfill.task set verified = null where chunk_name like '%\\_6\\_chunk'")
		wantOutput(t, p.script(t, "backfill", "--until", "2016-01-02"), 3)

		// Bounds and a filter of the user's.
		p.dst.Exec(t, "drop schema __backfill cascade; truncate metrics")
		p.both(t, "create table other (time int not null)")
		p.both(t, "select create_hypertable('other', 'time', chunk_time_interval => 10)")
		p.src.Exec(t, "insert into other select n from generate_series(-25, 25) n")
		wantOutput(t, p.script(t, "backfill", "--from=-7", "--until", "13", "--filter", "public.other",
			"--compress=zstd"), 0)
		if got := p.dst.Rows(t, "select min(time), max(time), (select count(*) from metrics) "+
			"from other"); strings.Join(got[0], " ") != "-7 12 0" {
			t.Errorf("copied: %v", got)
		}
	})
}

func TestBackfillUsage(t *testing.T) {
	for _, c := range []struct {
		args    []string
		message string
	}{
		{nil, "--source is required (or BF_SOURCE)"},
		{[]string{"--source", "x"}, "--target is required (or BF_TARGET)"},
		{[]string{"--source=x", "--target", "x"}, "--until is required"},
		{[]string{"--source=x", "--target=x", "--until"}, "--until needs a value"},
		{[]string{"--source=x", "--target=x", "--until=1", "-p", "0"}, "--parallelism is a number of lanes, not '0'"},
		{[]string{"--source=x", "--target=x", "--until=1", "-p", "x"}, "--parallelism is a number of lanes, not 'x'"},
		{[]string{"--what"}, "unknown argument: --what"},
	} {
		wantOutput(t, (*pair)(nil).command(t, "../../scripts/backfill", c.args...), 2,
			"backfill: "+c.message+"\nhint: backfill --help\n")
	}
}

// TestBackfillLater: with a later T the chunk that the earlier one cut is copied again, and
// what is said counts it.
func TestBackfillLater(t *testing.T) {
	p := newPair(t, newest(t))
	p.metrics(t)
	wantOutput(t, p.script(t, "backfill", "--until", "2015-12-29T12:00:00Z"), 0, "chunks to copy: 5,",
		"5 chunks copied, ", "5 chunks found equal, ", "all 5 chunks are copied and verified")
	wantOutput(t, p.script(t, "backfill", "--until", "2016-01-02"), 0, "chunks to copy: 4,",
		"4 chunks copied, ", "4 chunks found equal, ", "all 8 chunks are copied and verified")
	p.same(t, "select * from metrics")
}

// TestBackfillFailure lets one chunk fail: the others are copied, and the rest
// when the cause is gone. Jobs are paused until then.
func TestBackfillFailure(t *testing.T) {
	in := testdb.Installs(t)[0]
	p := newPair(t, testdb.Pair{Source: in, Target: in})
	p.metrics(t)
	scheduled := func(want int) {
		t.Helper()
		var n int
		if p.dst.Query1(t, &n, "select count(*) from timescaledb_information.jobs where scheduled "+
			"and job_id >= 1000"); in.Full && n != want {
			t.Errorf("%d jobs are scheduled, want %d", n, want)
		}
	}
	if in.Full {
		p.dst.Exec(t, "select add_retention_policy('metrics', interval '100 years')")
	}
	scheduled(1)
	p.dst.Exec(t, "alter table metrics add constraint late check (time < '2015-12-28Z' or time >= '2015-12-29Z')")
	wantOutput(t, p.script(t, "backfill", "--until", "2016-01-02", "-p", "2"), 1, "violates check constraint",
		"chunks not copied: 1; those that failed:\n  task 5, chunk _timescaledb_internal._hyper_1_4_chunk\nhint: ")
	scheduled(0)
	p.dst.Exec(t, "alter table metrics drop constraint late")
	wantOutput(t, p.script(t, "backfill", "--until", "2016-01-02", "-p", "2"), 0, "chunks to copy: 1, lanes: 1")
	scheduled(1)
	p.same(t, "select * from metrics")
}

// stall makes every load wait in the middle of its COPY, until release.
func (p *pair) stall(t *testing.T) (release func()) {
	t.Helper()
	p.dst.Exec(t, `create function hold() returns trigger language plpgsql as $$begin perform
        pg_advisory_xact_lock_shared(7); return new; end$$`)
	p.dst.Exec(t, `create trigger hold before insert on metrics for each row execute function hold()`)
	p.dst.Exec(t, "select pg_advisory_lock(7)")
	return func() { p.dst.Exec(t, "select pg_advisory_unlock_all()") }
}

// eventually waits until a query of one side gives the value.
func eventually(t testing.TB, db *testdb.DB, query string, want int) {
	t.Helper()
	var got int
	for range 400 {
		if db.Query1(t, &got, query); got == want {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("%s: %d, want %d", query, got, want)
}

// waiting counts the loads that stall holds, ours the connections of the tools.
const (
	waiting = "select count(*) from pg_stat_activity where datname = current_database() " +
		"and application_name = 'bf-load' and wait_event = 'advisory'"
	ours   = "select count(*) from pg_stat_activity where datname = current_database() and application_name like 'bf-%'"
	worked = "select count(worked) from __backfill.task"
)

func TestBackfillStops(t *testing.T) {
	in := testdb.Installs(t)[0]
	for _, c := range []struct {
		name    string
		signals []syscall.Signal
		group   bool // signal the group of the script, as a terminal does
		status  int
		worked  int // chunks that are copied: those in hand
	}{
		{"INT to the group", []syscall.Signal{syscall.SIGINT}, true, 130, 2},
		{"TERM to the script", []syscall.Signal{syscall.SIGTERM}, false, 130, 2},
		{"HUP to the script", []syscall.Signal{syscall.SIGHUP}, false, 130, 2},
		{"two INT to the group", []syscall.Signal{syscall.SIGINT, syscall.SIGINT}, true, 130, 0},
		{"two TERM to the script", []syscall.Signal{syscall.SIGTERM, syscall.SIGTERM}, false, 130, 0},
		{"KILL to the script", []syscall.Signal{syscall.SIGKILL}, false, -1, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t, testdb.Pair{Source: in, Target: in})
			p.metrics(t)
			p.stage(t, "--until", "2016-01-02")
			// Of chunks that seem big a lane claims but two.
			p.dst.Exec(t, "update __backfill.task set est_bytes = 1 << 30")
			release := p.stall(t)
			cmd := p.script(t, "backfill", "--until", "2016-01-02", "-p", "2")
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			// A file: the output of a killed script's lanes goes on.
			log, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
			if err != nil {
				t.Fatal(err)
			}
			defer log.Close()
			cmd.Stderr = log
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			eventually(t, p.dst, waiting, 2)
			inProcessList(t, p.source, p.target)
			for i, s := range c.signals {
				if i > 0 {
					time.Sleep(500 * time.Millisecond)
				}
				pid := cmd.Process.Pid
				if c.group {
					pid = -pid
				}
				if err := syscall.Kill(pid, s); err != nil {
					t.Fatal(err)
				}
			}
			if len(c.signals) == 1 {
				time.Sleep(500 * time.Millisecond)
				var n int
				if p.dst.Query1(t, &n, waiting); n != 2 {
					t.Errorf("%d lanes go on with the chunk in hand, want 2", n)
				}
				release()
			}
			cmd.Wait()
			if got := cmd.ProcessState.ExitCode(); got != c.status {
				t.Errorf("exit status %d, want %d", got, c.status)
			}
			if c.status == 130 {
				// The prompt is back: nothing works on, also where it waited for a lock.
				back := time.Now()
				for _, db := range []*testdb.DB{p.src, p.dst} {
					eventually(t, db, ours, 0)
				}
				if took := time.Since(back); took > 3*time.Second {
					t.Errorf("the servers worked on for %v", took)
				}
			}
			eventually(t, p.dst, ours, 0)
			var n int
			if p.dst.Query1(t, &n, worked); n != c.worked {
				t.Errorf("%d chunks copied, want %d", n, c.worked)
			}
			release()
			wantOutput(t, p.script(t, "backfill", "--until", "2016-01-02", "-p", "2"), 0)
			p.same(t, "select * from metrics")
			if t.Failed() {
				b, _ := os.ReadFile(log.Name())
				t.Logf("%s", b)
			}
		})
	}
}

// inProcessList fails the test if one of the tools shows a connection string.
func inProcessList(t *testing.T, secrets ...string) {
	t.Helper()
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range procs {
		b, _ := os.ReadFile(f)
		for _, s := range secrets {
			if bytes.Contains(b, []byte(s)) {
				t.Errorf("a connection string in the process list: %q", b)
			}
		}
	}
}
