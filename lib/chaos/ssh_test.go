package chaos

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bf/lib/testdb"
)

// TestSSH copies through ssh, compressed: the dump at the far end, then the
// load. ssh is killed in the middle; running it again goes on.
func TestSSH(t *testing.T) {
	testdb.Path(t)
	ssh := testdb.SSH(t)
	in := testdb.Installs(t)[0]
	for _, c := range []struct{ name, script string }{
		{"the dump is far away", `bf-chunks | $SSH "env 'BF_SOURCE=$BF_SOURCE' '$BIN/bf-dump' --compress zstd" ` +
			`| bf-load`},
		{"the load is far away", `bf-chunks | bf-dump --compress s2 | $SSH "env 'BF_TARGET=$BF_TARGET' ` +
			`'$BIN/bf-load'"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			source, target := testdb.New(t, in, "source"), testdb.New(t, in, "target")
			for _, d := range []*testdb.DB{source, target} {
				d.Exec(t, "create table m (time timestamptz not null, v text); "+
					"select create_hypertable('m', 'time', chunk_time_interval => interval '1 day')")
			}
			source.Exec(t, "insert into m select t, md5(t::text) || md5(random()::text) "+
				"from generate_series('2024-01-01'::timestamptz, '2024-01-10 12:00', '20 seconds') t")
			env := []string{"BF_SOURCE=" + source.ConnString, "BF_TARGET=" + target.ConnString, "SSH=" + ssh,
				"BIN=" + testdb.Bin(t)}
			run := func(script string, status int) {
				t.Helper()
				s := start(t, env, script)
				s.wait(t, deadline)
				if s.status() != status {
					t.Fatalf("%s: status %d\n%s", script, s.status(), s.errors())
				}
			}
			run("bf-stage --until 2024-02-01", 0)
			done := func() (n int) {
				target.Query1(t, &n, "select count(*) from __backfill.task where worked is not null")
				return n
			}
			s := start(t, env, c.script)
			within(t, 30*time.Second, "the first chunk is there", func() bool { return done() > 0 })
			if pid := s.pick("ssh", 0); pid == 0 || syscall.Kill(pid, syscall.SIGKILL) != nil {
				t.Error("ssh had ended before it was killed")
			}
			s.wait(t, deadline)
			if s.status() == 0 {
				t.Errorf("status 0 although ssh was killed\n%s", s.errors())
			}
			// The far side ends by itself; whole chunks are what there is.
			within(t, 10*time.Second, "nothing is copied any more", func() (ended bool) {
				target.Query1(t, &ended, "select not exists (select from pg_stat_activity "+
					"where datname = current_database() and application_name = 'bf-load')")
				return ended
			})
			if n := done(); n == 0 || n == 10 {
				t.Errorf("%d of 10 tasks are done: ssh was not killed in the middle", n)
			}
			whole := func() {
				t.Helper()
				var wrong string
				const digest = "select string_agg(d, ',' order by d) " +
					"from (select to_char(time at time zone 'UTC', 'DD') || count(*) || sum(hashtextextended(v, " +
					"0)::numeric) as d from m group by to_char(time at time zone 'UTC', 'DD')) x"
				var a, b *string
				source.Query1(t, &a, digest)
				target.Query1(t, &b, digest)
				for _, chunk := range strings.Split(*b, ",") {
					if !strings.Contains(*a, chunk) {
						wrong += " " + chunk
					}
				}
				if n := len(strings.Split(*b, ",")); wrong != "" || n != done() {
					t.Errorf("%d chunks of %d tasks, not whole: %s", n, done(), wrong)
				}
			}
			whole()
			run(c.script, 0)
			whole()
			if n := done(); n != 10 {
				t.Errorf("%d of 10 tasks are done in the end", n)
			}
		})
	}
}

// TestSSHCommand: bf-dump runs the command on another host, where the data is, and gets records by
// the pipe. When ssh is killed, each chunk is whole or empty; running it again goes on.
func TestSSHCommand(t *testing.T) {
	testdb.Path(t)
	ssh := testdb.SSH(t)
	target := testdb.New(t, testdb.Installs(t)[0], "target")
	target.Exec(t, "create table m (time timestamptz not null, v text); "+
		"select create_hypertable('m', 'time', chunk_time_interval => interval '1 day')")
	export := filepath.Join(t.TempDir(), "export")
	if err := os.WriteFile(export, []byte(`#!/bin/sh
awk -v day="${BF_FROM%% *}" 'BEGIN { print "time,v"; for (i = 0; i < 20000; i++)
  printf "%s %02d:%02d:%02d+00,%d\n", day, i / 3600, i / 60 % 60, i % 60, i }'
`), 0o755); err != nil {
		t.Fatal(err)
	}
	env := []string{"BF_TARGET=" + target.ConnString, "SSH=" + ssh, "BIN=" + testdb.Bin(t), "EXPORT=exec:" + export}
	chunks := func() (whole, other int) {
		target.Query1(t, &whole, "select count(*) from __backfill.task where worked is not null")
		target.Query1(t, &other, `select count(*) from (select from m group by (time at time zone 'UTC')::date
            having (count(*), count(distinct v), sum(v::int)) <> (20000, 20000, 199990000)) _`)
		return whole, other
	}
	stage := start(t, env, `bf-stage --source "$EXPORT" --into m --from 2024-01-01 --until 2024-01-11`)
	if stage.wait(t, deadline); stage.status() != 0 {
		t.Fatal(stage.errors())
	}
	const lane = `bf-chunks | $SSH "env 'BF_SOURCE=$EXPORT' '$BIN/bf-dump'" | bf-load`
	s := start(t, env, lane)
	within(t, 30*time.Second, "the first chunk is there", func() bool { n, _ := chunks(); return n > 0 })
	if pid := s.pick("ssh", 0); pid == 0 || syscall.Kill(pid, syscall.SIGKILL) != nil {
		t.Error("ssh had ended before it was killed")
	}
	if s.wait(t, deadline); s.status() == 0 {
		t.Errorf("status 0 although ssh was killed\n%s", s.errors())
	}
	if n, other := chunks(); n == 10 || other > 0 {
		t.Errorf("%d tasks are done, %d chunks are neither whole nor empty", n, other)
	}
	s = start(t, env, lane)
	if s.wait(t, deadline); s.status() != 0 {
		t.Errorf("again: %s", s.errors())
	}
	if n, other := chunks(); n != 10 || other > 0 {
		t.Errorf("in the end %d tasks are done, %d chunks are not whole", n, other)
	}
	var rows int
	if target.Query1(t, &rows, "select count(*) from m"); rows != 10*20000 {
		t.Errorf("%d rows", rows)
	}
}
