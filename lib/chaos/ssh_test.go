package chaos

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bf/lib/testdb"
)

// sshd starts one on a free port of the loopback address for the user of the
// test and returns the ssh command line to it.
func sshd(t testing.TB) string {
	t.Helper()
	daemon := ""
	for _, p := range []string{"sshd", "/usr/sbin/sshd", "/usr/local/sbin/sshd"} {
		if found, err := exec.LookPath(p); err == nil {
			daemon, _ = filepath.Abs(found)
			break
		}
	}
	if daemon == "" {
		t.Skip("needs sshd (package openssh-server)")
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, key := range []string{"host", "user"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f",
			filepath.Join(dir, key)).CombinedOutput(); err != nil {
			t.Skipf("needs ssh-keygen: %v %s", err, out)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	if os.Getuid() == 0 {
		os.MkdirAll("/run/sshd", 0o755) // sshd wants it of root
	}
	config := fmt.Sprintf("ListenAddress 127.0.0.1\nPort %d\nHostKey %s/host\nAuthorizedKeysFile "+
		"%s/user.pub\nPidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin "+
		"yes\nPermitUserEnvironment no\n", port, dir, dir)
	if err := os.WriteFile(filepath.Join(dir, "config"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(daemon, "-D", "-e", "-f", filepath.Join(dir, "config"))
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	ssh := fmt.Sprintf("ssh -T -i %s/user -o BatchMode=yes -o StrictHostKeyChecking=no -o "+
		"UserKnownHostsFile=/dev/null -o LogLevel=ERROR -p %d %s@127.0.0.1", dir, port, me.Username)
	end := time.Now().Add(10 * time.Second)
	for {
		out, err := exec.Command("sh", "-c", ssh+" true </dev/null").CombinedOutput()
		if err == nil {
			return ssh
		}
		if time.Now().After(end) {
			b, _ := os.ReadFile(log.Name())
			t.Skipf("sshd does not let us in: %s\n%s", out, b)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestSSH copies through ssh, compressed: the dump at the far end, then the
// load. ssh is killed in the middle; running it again goes on.
func TestSSH(t *testing.T) {
	testdb.Path(t)
	ssh := sshd(t)
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
	ssh := sshd(t)
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
