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

// TestSilence: a network that loses everything in the middle of a COPY. Within
// the time that the connection string says both ends have given up, the chunk
// is rolled back, its task pending and free for whoever comes next; a shorter
// break does no harm.
func TestSilence(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	testdb.Path(t)
	n := newNetwork(t)
	in := testdb.Installs(t)[0]
	source, toSource := n.server(in, "source")
	target, toTarget := n.server(in, "target")
	const most = 10 * time.Second
	toSource += "&keepalives_idle=4&keepalives_interval=2&keepalives_count=3"
	toTarget += "&keepalives_idle=4&keepalives_interval=2&keepalives_count=3&tcp_user_timeout=10000"
	env := []string{"BF_SOURCE=" + toSource, "BF_TARGET=" + toTarget}
	for _, d := range []*testdb.DB{source, target} {
		d.Exec(t, "create table m (time bigint not null, v text); "+
			"select create_hypertable('m', 'time', chunk_time_interval => 100000)")
	}
	// More than all the buffers on the way hold. The target stops in the
	// middle for as long as there is a gate.
	const rows = 60000
	source.Exec(t, "insert into m select n, repeat('x', 1000) from generate_series(1, $1::int) n", rows)
	target.Exec(t, `create table gate ();
		create function wait() returns trigger language plpgsql as $$ begin while exists (select
		from public.gate) loop perform pg_sleep(0.01); end loop; return new; end $$;
		create trigger wait before insert on m for each row when (new.time = 1000) execute function wait()`)
	s := n.start(env, "bf-stage --until 100000")
	s.wait(t, deadline)
	if s.status() != 0 {
		t.Fatal(s.errors())
	}
	// lane copies until its COPY is in the middle, on both sides.
	lane := func() *session {
		t.Helper()
		target.Exec(t, "insert into gate default values")
		s := n.start(env, "bf-chunks --claim | { bf-dump; echo \"bf-dump: status $?\" >&2; } | bf-load")
		within(t, deadline, "the COPY is in the middle", func() (yes bool) {
			target.Query1(t, &yes, "select exists (select from pg_stat_activity where application_name = 'bf-load' "+
				"and wait_event = 'PgSleep')")
			return yes
		})
		return s
	}
	open := func() { target.Exec(t, "delete from gate") }

	for _, side := range []string{"source", "target"} {
		s := lane()
		n.lose(side, true)
		began := time.Now()
		open()
		// The servers see the tools' host die: nothing of it may be left.
		if side == "target" {
			within(t, most+deadline, "the target has ended the sessions", func() (yes bool) {
				target.Query1(t, &yes, "select not exists (select from pg_stat_activity "+
					"where application_name like 'bf-%')")
				return yes
			})
			t.Logf("target: the server has given up after %v", time.Since(began).Round(time.Second))
			if took := time.Since(began); took > 3*most {
				t.Errorf("target: the server has given up after %v", took)
			}
			var free int
			target.Query1(t, &free, "select count(*) from (select from __backfill.task where worked is null "+
				"for no key update skip locked) t, (select pg_try_advisory_lock(25190, 1) as got) l where l.got")
			target.Exec(t, "select pg_advisory_unlock_all()")
			if free != 1 {
				t.Error("target: the task is not free")
			}
		}
		s.wait(t, most+deadline)
		took := time.Since(began)
		t.Logf("%s: given up after %v\n%s", side, took.Round(time.Second), s.errors())
		if took > 3*most || s.status() != 1 || !strings.Contains(s.errors(), "bf-dump: status 1") && side == "source" ||
			!strings.Contains(s.errors(), side+": ") ||
			!strings.Contains(s.errors(), "was lost: no answer for too long\nhint: "+
				"whatever was not committed is rolled back and stays pending: run the same again\n") {
			t.Errorf("%s: status %d after %v\n%s", side, s.status(), took, s.errors())
		}
		n.lose(side, false)
		if got := target.Rows(t, "select (select count(*) from m), count(*) filter (where worked is null), "+
			"count(*) filter (where copy_message ~ 'source.*was lost') from __backfill.task"); side == "source" &&
			fmt.Sprint(got) != "[[0 1 1]]" || fmt.Sprint(got[0][:2]) != "[0 1]" {
			t.Errorf("%s: rows, pending, told why: %v", side, got)
		}
	}

	// A break that is shorter.
	s = lane()
	for _, side := range []string{"source", "target"} {
		n.lose(side, true)
	}
	open()
	time.Sleep(2 * time.Second)
	for _, side := range []string{"source", "target"} {
		n.lose(side, false)
	}
	s.wait(t, deadline)
	var good int
	target.Query1(t, &good, "select count(*) from m")
	if s.status() != 0 || good != rows {
		t.Errorf("after a short break: status %d, %d rows\n%s", s.status(), good, s.errors())
	}
}
