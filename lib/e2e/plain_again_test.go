package e2e

import (
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"bf/lib/testdb"
)

// TestPlainAgain: staging again, with a later T, with --from, after another chunk interval,
// leaves neither a gap nor a row too many; an exported snapshot is exact, whatever is
// written meanwhile.
func TestPlainAgain(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, in testdb.Pair) {
		p := newPlain(t, in)
		p.src.Exec(t, `
            create table m (time timestamptz not null, v int, pad text default repeat('x', 100));
            insert into m select '2024-01-01'::timestamptz + i * interval '10 minutes', i
                from generate_series(0, 2015) i`)
		p.dst.Exec(t, `create table m (time timestamptz not null, v int, pad text);
            select create_hypertable('m', 'time', chunk_time_interval => interval '1 day')`)
		upTo := func(until string) {
			t.Helper()
			where := " where time < '" + until + "'"
			diff(t, until, sorted(t, p.src, "select * from m"+where), sorted(t, p.dst, "select * from m"))
		}
		if n := len(p.stage(t, "--until", "2024-01-03 12:00:00+00", "--from", "2024-01-02 06:00:00+00")); n != 2 {
			t.Errorf("%d tasks staged first, want 2", n)
		}
		p.copy(t)
		// Neither range covers the other: how it is read would be known for one of them only.
		r := p.run(t, "", "bf-stage", "--source", p.source, "--target", p.target,
			"--from", "2024-01-03 06:00:00+00", "--until", "2024-01-04 12:00:00+00")
		if r.status != 1 || !strings.Contains(r.stderr, "neither within that nor around it") {
			t.Errorf("an overlapping range: exit status %d\n%s", r.status, r.stderr)
		}
		p.stage(t, "--until", "2024-01-05 12:00:00+00")
		p.copy(t)
		upTo("2024-01-05 12:00:00+00")
		// Chunks of the target stay; the rest of the grid is another. Tasks that are pending
		// are replaced by those that cover them.
		p.stage(t, "--until", "2024-01-10 12:00:00+00")
		p.dst.Exec(t, "select set_chunk_time_interval('m', interval '3 days')")
		p.stage(t, "--until", "2024-01-14 12:00:00+00")
		p.ask(t, `select count(*) from __backfill.task a join __backfill.task b on a.priority < b.priority
            and int8range((a.filter->>'from')::bigint, (a.filter->>'until')::bigint)
                && int8range((b.filter->>'from')::bigint, (b.filter->>'until')::bigint)`, "0")
		p.copy(t)
		upTo("2024-01-14 12:00:00+00")
		if r := p.sh(t, `bf-verify --source "$SOURCE" --target "$TARGET"`); r.status != 0 {
			t.Errorf("bf-verify: exit status %d\n%s%s", r.status, r.stdout, r.stderr)
		}

		// What comes after the snapshot is not seen, by nobody.
		p.ok(t, "", "bf-clean", "--target", p.target, "--force")
		conn := p.src.Conn(t)
		var id string
		if _, err := conn.Exec(t.Context(), "begin isolation level repeatable read"); err != nil {
			t.Fatal(err)
		}
		if err := conn.QueryRow(t.Context(), "select pg_export_snapshot()").Scan(&id); err != nil {
			t.Fatal(err)
		}
		want := sorted(t, p.src, "select * from m")
		p.stage(t, "--until", "2024-01-16", "--snapshot", id)
		p.src.Exec(t, `update m set v = -v where v % 100 = 7;
            insert into m select '2024-01-02 05:00', 5 from generate_series(1, 50);
            delete from m where v % 100 = 9`)
		p.copy(t)
		diff(t, "snapshot", want, sorted(t, p.dst, "select * from m"))
		if r := p.sh(t, `bf-verify --source "$SOURCE" --target "$TARGET"`); r.status != 0 {
			t.Errorf("bf-verify in the snapshot: exit status %d\n%s%s", r.status, r.stdout, r.stderr)
		}
		if _, err := conn.Exec(t.Context(), "rollback"); err != nil {
			t.Fatal(err)
		}
	})
}

// TestPlainBeside: a plain table beside hypertables of the same source, in one run, while
// an application writes to both sides and everything is killed once.
func TestPlainBeside(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, in testdb.Pair) {
		p := newPair(t, in)
		p.both(t, `create table h (time timestamptz not null, v int);
            select create_hypertable('h', 'time', chunk_time_interval => interval '1 day')`)
		p.src.Exec(t, `create table events (time timestamptz not null, v int, pad text default repeat('x', 60))`)
		p.dst.Exec(t, `create table events (time timestamptz not null, v int, pad text);
            select create_hypertable('events', 'time', chunk_time_interval => interval '1 day');
            insert into events select '2024-01-05', i, 'dual' from generate_series(1, 99) i`)
		for _, name := range []string{"h", "events"} {
			p.src.Exec(t, "insert into "+name+" select '2024-01-01'::timestamptz + i * interval '1 minute', i "+
				"from generate_series(0, 28799) i")
		}
		// Room for the application's rows among those that are mapped.
		p.src.Exec(t, "delete from events where v % 7 = 0")
		p.src.Exec(t, "vacuum events")
		const T = "2024-01-21 00:00:00+00"
		done := make(chan struct{})
		stopped := make(chan struct{})
		go func() { // the application
			defer close(stopped)
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				case <-time.After(5 * time.Millisecond):
				}
				for _, name := range []string{"h", "events"} {
					p.both(t, fmt.Sprintf("insert into %s (time, v) "+
						"values ('2024-01-21'::timestamptz + %d * interval '1 second', %d)", name, i, i))
				}
			}
		}()
		start := func() *exec.Cmd {
			cmd := p.script(t, "backfill", "--until", T, "--parallelism", "3", "--quiet")
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			return cmd
		}
		cmd := start()
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			var some bool
			p.dst.Query1(t, &some, "select to_regclass('__backfill.task') is not null")
			if some {
				p.dst.Query1(t, &some, "select count(worked) > 4 from __backfill.task")
			}
			if some {
				break
			}
		}
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		out, err := p.script(t, "backfill", "--until", T, "--parallelism", "3").CombinedOutput()
		close(done)
		<-stopped
		if err != nil {
			t.Errorf("the second run: %v\n%s", err, out)
		}
		p.same(t, "select time, v from h")
		p.same(t, "select time, v from events")
		p.ask(t, "select kind, count(*), count(verified), sum(rows) from __backfill.task group by kind",
			"chunk|20|20|28800", "slice|20|20|24685")
		p.ask(t, "select distinct scan->>'by' from __backfill.task where kind = 'slice'", "blocks")
	})
}
