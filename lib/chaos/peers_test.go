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

// peers is both sides with a proxy before each, and tasks whose COPY takes its time.
type peers struct {
	t       *testing.T
	sides   map[string]*testdb.DB
	proxies map[string]*proxy
	env     []string
}

func newPeers(t *testing.T) *peers {
	t.Helper()
	in := testdb.Installs(t)[0]
	w := &peers{t: t, sides: map[string]*testdb.DB{}, proxies: map[string]*proxy{}}
	for _, name := range []string{"source", "target"} {
		d := testdb.NewServer(t, in, name, config).DB(t)
		p, conn := newProxy(t, d)
		w.sides[name], w.proxies[name] = d, p
		w.env = append(w.env, "BF_"+strings.ToUpper(name)+"="+conn)
		d.Exec(t, "create table m (time timestamptz not null, v text); "+
			"select create_hypertable('m', 'time', chunk_time_interval => interval '1 day')")
	}
	w.sides["source"].Exec(t, "insert into m select d, repeat('x', 1000) "+
		"from generate_series('2024-01-01'::timestamptz, '2024-01-05', '3 minutes') d")
	w.sides["target"].Exec(t, `create function wait() returns trigger language plpgsql as $$ begin
		perform pg_sleep(0.002); return new; end $$;
		create trigger wait before insert on m for each row execute function wait()`)
	if errs, status := w.run("bf-stage --until 2024-02-01"); status != 0 {
		t.Fatal(errs)
	}
	return w
}

func (w *peers) run(script string) (errs string, status int) {
	w.t.Helper()
	s := start(w.t, w.env, script)
	s.wait(w.t, deadline)
	return s.errors(), s.status()
}

// inCopy starts a lane and waits until it copies.
func (w *peers) inCopy() *session {
	w.t.Helper()
	s := start(w.t, w.env, oneLane)
	within(w.t, 20*time.Second, "a COPY has begun", func() (yes bool) {
		w.sides["target"].Query1(w.t, &yes, "select exists (select from pg_stat_activity "+
			"where datname = current_database() and application_name = 'bf-load' "+
			"and query ~* '(^|; )copy ' and state = 'active')")
		return yes
	})
	return s
}

// done is the number of tasks that worked, of 5.
func (w *peers) done() (n int) {
	w.sides["target"].Query1(w.t, &n, "select count(*) from __backfill.task where worked is not null")
	return n
}

// TestDeadPeers: a server that does not answer is noticed where that can be
// told from one that takes its time, and a lane that lost its server ends with
// a status that is not zero.
func TestDeadPeers(t *testing.T) {
	testdb.Path(t)
	w := newPeers(t)
	for name := range w.sides {
		w.cut(name)
		w.notThereAtFirst(name)
		w.sides["target"].Exec(t, "update __backfill.task set worked = null; delete from m")
		if !testing.Short() && name == "source" {
			w.neverAnswers(name) // it takes a quarter of a minute
		}
	}
	w.standsStill()
}

// cut: the connection breaks in the middle of a COPY. The lane says so in plain words,
// with what it means and what to do.
func (w *peers) cut(name string) {
	w.t.Helper()
	s := w.inCopy()
	if name == "source" {
		time.Sleep(100 * time.Millisecond)
	}
	w.proxies[name].cut(-1)
	s.wait(w.t, deadline)
	if s.status() != 1 && w.done() < 5 {
		w.t.Errorf("%s: connection cut: status %d, want 1\n%s", name, s.status(), s.errors())
	}
	if errs := s.errors(); s.status() == 1 &&
		(strings.Contains(errs, "EOF") || !strings.Contains(errs, name+": ") ||
			!strings.Contains(errs, "was lost: ") ||
			!strings.Contains(errs, "hint: whatever was not committed is rolled back and stays pending: "+
				"run the same again")) {
		w.t.Errorf("%s: connection cut: %s", name, errs)
	}
}

// notThereAtFirst: the lane tries again, and says so.
func (w *peers) notThereAtFirst(name string) {
	w.t.Helper()
	server := w.sides[name].Server
	server.Stop(w.t, "fast")
	began := time.Now()
	s := start(w.t, w.env, oneLane)
	within(w.t, deadline, "it tries again", func() bool { return strings.Contains(s.errors(), "trying again in") })
	server.Start(w.t)
	s.wait(w.t, deadline)
	if s.status() != 0 {
		w.t.Errorf("%s: down for a moment: status %d after %v\n%s", name, s.status(), time.Since(began), s.errors())
	}
}

// neverAnswers: connecting gives up in the end.
func (w *peers) neverAnswers(name string) {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	began := time.Now()
	_, status := w.run(fmt.Sprintf("bf-chunks | head -n 1 | "+
		"BF_%s='postgres://x@127.0.0.1:%s/x?sslmode=disable&connect_timeout=2' sh -c 'bf-dump | bf-load'",
		strings.ToUpper(name), port))
	if took := time.Since(began); status != 1 || took > 40*time.Second {
		w.t.Errorf("%s: never answers: status %d after %v", name, status, took)
	}
}

// standsStill: a network or a server that stands still for a while and goes on is not
// broken. Nothing may give up on a COPY that is only slow.
func (w *peers) standsStill() {
	w.t.Helper()
	s := w.inCopy()
	w.proxies["target"].stallFor(2 * time.Second)
	w.proxies["source"].stallFor(time.Second)
	var pid int
	w.sides["target"].Query1(w.t, &pid, "select pid from pg_stat_activity where application_name = 'bf-load' "+
		"and query ~* '(^|; )copy ' limit 1")
	if pid > 0 {
		syscall.Kill(pid, syscall.SIGSTOP)
		time.Sleep(2 * time.Second)
		syscall.Kill(pid, syscall.SIGCONT)
	}
	s.wait(w.t, deadline)
	if s.status() != 0 || w.done() != 5 {
		w.t.Errorf("after a stall: status %d, %d tasks done\n%s", s.status(), w.done(), s.errors())
	}
}
