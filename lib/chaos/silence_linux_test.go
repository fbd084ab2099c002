package chaos

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"bf/lib/testdb"

	"golang.org/x/sys/unix"
)

// network is three hosts, "tools", "source" and "target", in network namespaces
// of their own around a router that can lose all packets of one of them: to
// both ends of a connection that is silence, without a reset or an ICMP.
type network struct {
	t       *testing.T
	address map[string]string
}

func newNetwork(t *testing.T) *network {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs ip (iproute2) for network namespaces")
	}
	n := &network{t: t, address: map[string]string{}}
	if out, err := exec.Command("ip", "netns", "add", n.space("router")).CombinedOutput(); err != nil {
		t.Skipf("needs network namespaces: %v: %s", err, out)
	}
	t.Cleanup(func() { n.ip("netns", "del", n.space("router")) })
	n.inside("router", func() {
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
			t.Skip("needs a namespace that forwards: ", err)
		}
	})
	for i, host := range []string{"tools", "source", "target"} {
		n.ip("netns", "add", n.space(host))
		t.Cleanup(func() { n.ip("netns", "del", n.space(host)) })
		// 198.18.0.0/15 is for tests of networks.
		router := fmt.Sprintf("198.18.%d.1", i)
		n.address[host] = fmt.Sprintf("198.18.%d.2", i)
		n.ip("-n", n.space("router"), "link", "add", host, "type", "veth", "peer", "name", "eth0", "netns",
			n.space(host))
		n.ip("-n", n.space("router"), "address", "add", router+"/24", "dev", host)
		n.ip("-n", n.space("router"), "link", "set", host, "up")
		n.ip("-n", n.space(host), "address", "add", n.address[host]+"/24", "dev", "eth0")
		n.ip("-n", n.space(host), "link", "set", "eth0", "up")
		n.ip("-n", n.space(host), "link", "set", "lo", "up")
		n.ip("-n", n.space(host), "route", "add", "default", "via", router)
	}
	return n
}

func (n *network) space(host string) string { return fmt.Sprintf("bf-test-%d-%s", os.Getpid(), host) }

func (n *network) ip(args ...string) {
	n.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		n.t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// inside runs f, and what it starts, on a host.
func (n *network) inside(host string, f func()) {
	n.t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	enter := func(path string) *os.File {
		file, err := os.Open(path)
		if err != nil {
			n.t.Fatal(err)
		}
		return file
	}
	here, there := enter("/proc/thread-self/ns/net"), enter("/run/netns/"+n.space(host))
	defer here.Close()
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		n.t.Skip("needs to enter a network namespace: ", err)
	}
	defer func() {
		if err := unix.Setns(int(here.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(err) // the thread must not be used by others
		}
	}()
	f()
}

// lose makes the router lose all that a host sends and gets, or forward it again.
func (n *network) lose(host string, yes bool) {
	n.t.Helper()
	for _, direction := range []string{"from", "to"} {
		n.ip("-n", n.space("router"), "rule", map[bool]string{true: "add", false: "del"}[yes], direction,
			n.address[host], "blackhole")
	}
}

// server starts one on the host of its name and returns a database and its
// connection string.
func (n *network) server(in testdb.Install, host string) (d *testdb.DB, conn string) {
	n.t.Helper()
	n.inside(host, func() {
		d = testdb.NewServer(n.t, in, host, config, testdb.WithConfig("listen_addresses = '"+n.address[host]+"'"),
			testdb.WithHBA("host all all 198.18.0.0/16 trust")).DB(n.t)
	})
	return d, fmt.Sprintf("postgres://postgres@%s/%s?sslmode=disable", n.address[host], d.Name)
}

func (n *network) start(env []string, script string) (s *session) {
	n.t.Helper()
	n.inside("tools", func() { s = start(n.t, env, script) })
	return s
}

// silence is a lane on three hosts whose COPY is halted for as long as there is a gate.
type silence struct {
	*network
	source, target *testdb.DB
	env            []string
}

const (
	// silenceRows are more than all the buffers on the way hold.
	silenceRows = 60000
	// mostSilence is what the connection strings allow.
	mostSilence = 10 * time.Second
)

func newSilence(t *testing.T) *silence {
	t.Helper()
	w := &silence{network: newNetwork(t)}
	in := testdb.Installs(t)[0]
	source, toSource := w.server(in, "source")
	target, toTarget := w.server(in, "target")
	w.source, w.target = source, target
	toSource += "&keepalives_idle=4&keepalives_interval=2&keepalives_count=3"
	toTarget += "&keepalives_idle=4&keepalives_interval=2&keepalives_count=3&tcp_user_timeout=10000"
	w.env = []string{"BF_SOURCE=" + toSource, "BF_TARGET=" + toTarget}
	for _, d := range []*testdb.DB{source, target} {
		d.Exec(t, "create table m (time bigint not null, v text); "+
			"select create_hypertable('m', 'time', chunk_time_interval => 100000)")
	}
	source.Exec(t, "insert into m select n, repeat('x', 1000) from generate_series(1, $1::int) n", silenceRows)
	target.Exec(t, `create table gate ();
		create function wait() returns trigger language plpgsql as $$ begin while exists (select
		from public.gate) loop perform pg_sleep(0.01); end loop; return new; end $$;
		create trigger wait before insert on m for each row when (new.time = 1000) execute function wait()`)
	s := w.start(w.env, "bf-stage --until 100000")
	s.wait(t, deadline)
	if s.status() != 0 {
		t.Fatal(s.errors())
	}
	return w
}

// lane copies until its COPY is in the middle, on both sides.
func (w *silence) lane() *session {
	w.t.Helper()
	w.target.Exec(w.t, "insert into gate default values")
	s := w.start(w.env, "bf-chunks --claim | { bf-dump; echo \"bf-dump: status $?\" >&2; } | bf-load")
	within(w.t, deadline, "the COPY is in the middle", func() (yes bool) {
		w.target.Query1(w.t, &yes, "select exists (select from pg_stat_activity where application_name = 'bf-load' "+
			"and wait_event = 'PgSleep')")
		return yes
	})
	return s
}

func (w *silence) open() { w.target.Exec(w.t, "delete from gate") }

// TestSilence: a network that loses everything in the middle of a COPY. Within
// the time that the connection string says both ends have given up, the chunk
// is rolled back, its task pending and free for whoever comes next; a shorter
// break does no harm.
func TestSilence(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	testdb.Path(t)
	w := newSilence(t)
	w.lost("source")
	w.lost("target")
	w.lostForAMoment()
}

// lost: all packets to and from a side are lost. The tools give up and say why; the chunk
// is rolled back.
func (w *silence) lost(side string) {
	w.t.Helper()
	s := w.lane()
	w.lose(side, true)
	began := time.Now()
	w.open()
	if side == "target" {
		w.targetEndsSessions(began)
	}
	s.wait(w.t, mostSilence+deadline)
	took := time.Since(began)
	w.t.Logf("%s: given up after %v\n%s", side, took.Round(time.Second), s.errors())
	if took > 3*mostSilence || s.status() != 1 ||
		!strings.Contains(s.errors(), "bf-dump: status 1") && side == "source" ||
		!strings.Contains(s.errors(), side+": ") ||
		!strings.Contains(s.errors(), "was lost: no answer for too long\nhint: "+
			"whatever was not committed is rolled back and stays pending: run the same again\n") {
		w.t.Errorf("%s: status %d after %v\n%s", side, s.status(), took, s.errors())
	}
	w.lose(side, false)
	if got := w.target.Rows(w.t, "select (select count(*) from m), count(*) filter (where worked is null), "+
		"count(*) filter (where copy_message ~ 'source.*was lost') from __backfill.task"); side == "source" &&
		fmt.Sprint(got) != "[[0 1 1]]" || fmt.Sprint(got[0][:2]) != "[0 1]" {
		w.t.Errorf("%s: rows, pending, told why: %v", side, got)
	}
}

// targetEndsSessions: to the target the tools' host is dead. It ends their sessions, and
// nothing holds the task any longer.
func (w *silence) targetEndsSessions(began time.Time) {
	w.t.Helper()
	within(w.t, mostSilence+deadline, "the target has ended the sessions", func() (yes bool) {
		w.target.Query1(w.t, &yes, "select not exists (select from pg_stat_activity "+
			"where application_name like 'bf-%')")
		return yes
	})
	w.t.Logf("target: the server has given up after %v", time.Since(began).Round(time.Second))
	if took := time.Since(began); took > 3*mostSilence {
		w.t.Errorf("target: the server has given up after %v", took)
	}
	var free int
	w.target.Query1(w.t, &free, "select count(*) from (select from __backfill.task where worked is null "+
		"for no key update skip locked) t, (select pg_try_advisory_lock(25190, 1) as got) l where l.got")
	w.target.Exec(w.t, "select pg_advisory_unlock_all()")
	if free != 1 {
		w.t.Error("target: the task is not free")
	}
}

// lostForAMoment: a break that is shorter than what the connection strings allow.
func (w *silence) lostForAMoment() {
	w.t.Helper()
	s := w.lane()
	for _, side := range []string{"source", "target"} {
		w.lose(side, true)
	}
	w.open()
	time.Sleep(2 * time.Second)
	for _, side := range []string{"source", "target"} {
		w.lose(side, false)
	}
	s.wait(w.t, deadline)
	var good int
	w.target.Query1(w.t, &good, "select count(*) from m")
	if s.status() != 0 || good != silenceRows {
		w.t.Errorf("after a short break: status %d, %d rows\n%s", s.status(), good, s.errors())
	}
}
