package chaos

import (
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"bf/lib/testdb"
)

// TestDeadPeers: a server that does not answer is noticed where that can be
// told from one that takes its time, and a lane that lost its server ends with
// a status that is not zero.
func TestDeadPeers(t *testing.T) {
	testdb.Path(t)
	in := testdb.Installs(t)[0]
	source, target := testdb.NewServer(t, in, "source", config).DB(t), testdb.NewServer(t, in, "target", config).DB(t)
	toSource, sourceConn := newProxy(t, source)
	toTarget, targetConn := newProxy(t, target)
	env := []string{"BF_SOURCE=" + sourceConn, "BF_TARGET=" + targetConn}
	for _, d := range []*testdb.DB{source, target} {
		d.Exec(t, "create table m (time timestamptz not null, v text); "+
			"select create_hypertable('m', 'time', chunk_time_interval => interval '1 day')")
	}
	source.Exec(t, "insert into m select d, repeat('x', 1000) "+
		"from generate_series('2024-01-01'::timestamptz, '2024-01-05', '3 minutes') d")
	target.Exec(t, `create function wait() returns trigger language plpgsql as $$ begin perform pg_sleep(0.002);
        return new; end $$;
		create trigger wait before insert on m for each row execute function wait()`)
	run := func(script string) (string, int) {
		t.Helper()
		s := start(t, env, script)
		s.wait(t, deadline)
		return s.errors(), s.status()
	}
	if errs, status := run("bf-stage --until 2024-02-01"); status != 0 {
		t.Fatal(errs)
	}
	const lane = "bf-chunks | bf-dump | bf-load"
	done := func() (n int) {
		target.Query1(t, &n, "select count(*) from __backfill.task where worked is not null")
		return n
	}
	copying := func() (yes bool) {
		target.Query1(t, &yes, "select exists (select from pg_stat_activity where datname = current_database() "+
			"and application_name = 'bf-load' and query ~* '(^|; )copy ' and state = 'active')")
		return yes
	}

	for name, d := range map[string]*testdb.DB{"source": source, "target": target} {
		// The connection breaks in the middle of a COPY.
		s := start(t, env, lane)
		within(t, 20*time.Second, "a COPY has begun", copying)
		if name == "source" {
			time.Sleep(100 * time.Millisecond)
			toSource.cut(-1)
		} else {
			toTarget.cut(-1)
		}
		s.wait(t, deadline)
		if s.status() != 1 && done() < 5 {
			t.Errorf("%s: connection cut: status %d, want 1\n%s", name, s.status(), s.errors())
		}
		// In plain words, with what it means and what to do.
		if errs := s.errors(); s.status() == 1 &&
			(strings.Contains(errs, "EOF") || !strings.Contains(errs, name+": ") ||
				!strings.Contains(errs, "was lost: ") ||
				!strings.Contains(errs, "hint: whatever was not committed is rolled back and stays pending: "+
					"run the same again")) {
			t.Errorf("%s: connection cut: %s", name, errs)
		}
		// It is not there at first: trying again, and saying so.
		d.Server.Stop(t, "fast")
		began := time.Now()
		s = start(t, env, lane)
		time.Sleep(1500 * time.Millisecond)
		d.Server.Start(t)
		s.wait(t, deadline)
		if !strings.Contains(s.errors(), "trying again in") || s.status() != 0 {
			t.Errorf("%s: down for a moment: status %d after %v\n%s", name, s.status(), time.Since(began), s.errors())
		}
		target.Exec(t, "update __backfill.task set worked = null; delete from m")

		// It never answers: connecting gives up in the end.
		if testing.Short() || name == "target" {
			continue // it takes a quarter of a minute
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		began = time.Now()
		_, status := run(fmt.Sprintf("bf-chunks | head -n 1 | "+
			"BF_%s='postgres://x@127.0.0.1:%s/x?sslmode=disable&connect_timeout=2' sh -c 'bf-dump | bf-load'",
			strings.ToUpper(name), port))
		if took := time.Since(began); status != 1 || took > 40*time.Second {
			t.Errorf("%s: never answers: status %d after %v", name, status, took)
		}
	}

	// A network or a server that stands still for a while and goes on is not
	// broken: nothing may give up on a COPY that is only slow.
	s := start(t, env, lane)
	within(t, 20*time.Second, "a COPY has begun", copying)
	toTarget.stallFor(2 * time.Second)
	toSource.stallFor(time.Second)
	var pid int
	target.Query1(t, &pid, "select pid from pg_stat_activity where application_name = 'bf-load' "+
		"and query ~* '(^|; )copy ' limit 1")
	if pid > 0 {
		syscall.Kill(pid, syscall.SIGSTOP)
		time.Sleep(2 * time.Second)
		syscall.Kill(pid, syscall.SIGCONT)
	}
	s.wait(t, deadline)
	if s.status() != 0 || done() != 5 {
		t.Errorf("after a stall: status %d, %d tasks done\n%s", s.status(), done(), s.errors())
	}
}
