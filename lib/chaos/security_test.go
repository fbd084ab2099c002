package chaos

import (
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bf/lib/testdb"
)

// tool runs one of the tools and returns what it printed and its exit status.
func tool(t testing.TB, stdin string, args ...string) (out string, status int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return strings.HasPrefix(kv, "PG") || strings.HasPrefix(kv, "BF_")
	})
	b, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

// TestTLS: verify-full refuses a server whose certificate another authority
// signed, and one that is for another name.
func TestTLS(t *testing.T) {
	testdb.Path(t)
	in := testdb.Installs(t)[0]
	s, other := testdb.NewServer(t, in, "tls", testdb.WithTLS()), testdb.NewServer(t, in, "other", testdb.WithTLS())
	d := s.DB(t)
	// The same server by an address that its certificate does not know.
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Skip("needs a second loopback address: ", err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				to, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", s.Port))
				if err == nil {
					go io.Copy(to, c)
					io.Copy(c, to)
					to.Close()
				}
				c.Close()
			}()
		}
	}()
	elsewhere := fmt.Sprintf("postgres://postgres@%s/%s?sslrootcert=%s&sslmode=", l.Addr(), d.Name, s.RootCert())
	for _, c := range []struct {
		name, conn string
		connects   bool
	}{
		{"verify-full", d.ConnString, true},
		{"another authority", strings.Replace(d.ConnString, s.RootCert(), other.RootCert(), 1), false},
		{"another authority, verify-ca", strings.NewReplacer(s.RootCert(), other.RootCert(), "verify-full",
			"verify-ca").Replace(d.ConnString), false},
		{"another name", elsewhere + "verify-full", false},
		{"another name, verify-ca", elsewhere + "verify-ca", true},
	} {
		if !strings.Contains(c.conn, "sslmode=verify") {
			t.Fatal(c.conn)
		}
		out, status := tool(t, "", "bf-chunks", "--target", c.conn)
		connected := strings.Contains(out, "nothing is staged")
		if status != 1 || connected != c.connects || !connected && !strings.Contains(out, "certificate") {
			t.Errorf("%s: status %d, %s", c.name, status, out)
		}
	}
	if out, _ := tool(t, "", "bf-chunks", "--target", d.ConnString+"&application_name=x"); !strings.Contains(out,
		"nothing is staged") {
		t.Error(out)
	}
}

// TestPasswords: no password comes out again, however wrong the connection
// string is.
func TestPasswords(t *testing.T) {
	testdb.Path(t)
	in := testdb.Installs(t)[0]
	s := testdb.NewServer(t, in, "password", testdb.WithTCP(),
		testdb.WithHBA("host all all 127.0.0.1/32 scram-sha-256"))
	d := s.DB(t)
	d.Exec(t, "create table m (time timestamptz not null, v int); select create_hypertable('m', 'time'); "+
		"create role u login superuser password 'other'")
	const password = "hu!nt@er2"
	host := fmt.Sprintf("127.0.0.1:%d/%s", s.Port, d.Name)
	for _, conn := range []string{
		"postgres://u:hu!nt%40er2@" + host,
		"postgres://u:hu!nt@er2@" + host,
		"postgres://u:hu!nt@er2@" + host + "?sslmode=nonsense",
		"postgres://u:hu!nt@er2@127.0.0.1:0x/db",
		"postgres://u@" + host + "?password=hu!nt@er2",
		"postgres://u@" + host + "?password=hu!nt@er2&sslmode=nonsense",
		fmt.Sprintf("host=127.0.0.1 port=%d dbname=%s user=u password=hu!nt@er2", s.Port, d.Name),
		fmt.Sprintf("host=127.0.0.1 port=%d dbname=%s user=u password='hu!nt@er2", s.Port, d.Name),
		fmt.Sprintf("host=127.0.0.1 port=%d dbname=%s user=u password = 'hu!nt@er2' nonsense", s.Port, d.Name),
		"host=127.0.0.1 port=nonsense password=hu!nt@er2",
	} {
		record := `{"v":1,"task":1,"hypertable":{"schema":"public","name":"m"},"chunk":{"schema":"a","name":"b"},` +
			`"slices":[{"column":"time","from":"0","until":"1"}],"range":{"column":"time","from":"0","until":"1"}}`
		for _, args := range [][]string{
			{"bf-stage", "--source", conn, "--until", "2024-01-01"},
			{"bf-chunks", "--target", conn}, {"bf-dump", "--source", conn, record},
			{"bf-chunks", "--target", conn, "--nonsense"}, {"bf-chunks", conn},
		} {
			out, status := tool(t, "", args...)
			if status != 1 && status != 2 {
				t.Errorf("%s %s: status %d\n%s", args[0], conn, status, out)
			}
			for _, part := range []string{password, "hu!nt", "er2"} {
				if strings.Contains(out, part) {
					t.Errorf("%s %s prints it: %s", args[0], conn, out)
					break
				}
			}
		}
	}
	// And where it is right, the server's list of sessions does not show it.
	d.Exec(t, "alter role u password 'hu!nt@er2'")
	conn := "postgres://u:hu!nt%40er2@" + host
	plan, status := tool(t, "", "bf-stage", "--source", conn, "--until", "2024-01-01")
	if status != 0 || strings.Contains(plan, "nt@er2") || strings.Contains(plan, "nt%40er2") ||
		strings.Contains(plan, "127.0.0.1") {
		t.Errorf("plan: status %d\n%s", status, plan)
	}
}

// TestPasswordsAtWork: while a backfill runs whose connection strings have
// passwords, no list of processes or of sessions shows them, nor does anything
// that it leaves behind.
func TestPasswordsAtWork(t *testing.T) {
	testdb.Path(t)
	in := testdb.Installs(t)[0]
	const password = "hu!nt@er2"
	open := func(side string) (*testdb.DB, string) {
		s := testdb.NewServer(t, in, side, testdb.WithTCP(), testdb.WithHBA("host all all 127.0.0.1/32 scram-sha-256"))
		d := s.DB(t)
		d.Exec(t, "create role u login superuser password '"+password+
			"'; create table m (time timestamptz not null, v int); "+
			"select create_hypertable('m', 'time', chunk_time_interval => interval '1 day')")
		return d, fmt.Sprintf("postgres://u:hu!nt%%40er2@127.0.0.1:%d/%s", s.Port, d.Name)
	}
	source, toSource := open("source")
	target, toTarget := open("target")
	source.Exec(t, "insert into m select d, 1 "+
		"from generate_series('2024-01-01'::timestamptz, '2024-01-09', '1 hour') d")
	target.Exec(t, `create function wait() returns trigger language plpgsql as $$ begin perform pg_sleep(0.01);
        return new; end $$;
		create trigger wait before insert on m for each row execute function wait()`)
	scripts, err := filepath.Abs("../../scripts")
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, []string{"BF_SOURCE=" + toSource, "BF_TARGET=" + toTarget},
		`"`+scripts+`/backfill" --parallelism 2 --until 2024-02-01`)
	seen := map[string]bool{}
	look := func(where, text string) {
		t.Helper()
		for _, part := range []string{"hu!nt", "er2"} {
			if strings.Contains(text, part) {
				t.Errorf("%s shows the password: %q", where, text)
			}
		}
	}
	for running := true; running; {
		ps := s.processes()
		running = len(ps) > 0
		for _, p := range ps {
			if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid)); err == nil {
				seen["process "+p.name] = true
				look("the command line of "+p.name, string(b))
			}
		}
		for side, d := range map[string]*testdb.DB{"source ": source, "target ": target} {
			for _, r := range d.Rows(t, "select application_name, query from pg_stat_activity where usename = 'u'") {
				seen[side+r[0]] = true
				look("a session on the "+side, strings.Join(r, " "))
			}
		}
	}
	s.wait(t, deadline)
	if s.status() != 0 {
		t.Errorf("status %d\n%s", s.status(), s.errors())
	}
	for _, what := range []string{"process bf-dump", "process bf-load", "process bf-chunks", "source bf-dump",
		"target bf-load", "target bf-chunks"} {
		if !seen[what] {
			t.Errorf("%s was never looked at; seen: %v", what, slices.Sorted(maps.Keys(seen)))
		}
	}
	look("the output", s.output()+s.errors())
	look("__backfill", fmt.Sprint(target.Rows(t, "select t::text from __backfill.task t")))
}
