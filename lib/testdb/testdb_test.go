package testdb

import (
	"bufio"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

func TestEachVersion(t *testing.T) {
	EachVersion(t, func(t *testing.T, p Pair) {
		source, target := New(t, p.Source, "source"), New(t, p.Target, "target")
		var a, b, version string
		const system = "select system_identifier::text from pg_control_system()"
		source.Query1(t, &a, system)
		target.Query1(t, &b, system)
		if a == b && given == nil {
			t.Errorf("source and target are one cluster: %s", a)
		}
		source.Query1(t, &version, "select extversion from pg_extension where extname = 'timescaledb'")
		if version != p.Source.Version {
			t.Errorf("version %s, want %s", version, p.Source.Version)
		}
		source.Exec(t, "create table m (time timestamptz not null, v int); select create_hypertable('m', 'time'); "+
			"insert into m values ('2024-01-01', 1)")
		if got := source.Rows(t, "select v, null from m"); len(got) != 1 || strings.Join(got[0], "|") != "1|NULL" {
			t.Errorf("rows %q", got)
		}
	})
}

// The Apache edition that is made of the full one must refuse what a build
// without the Timescale licence refuses.
func TestEdition(t *testing.T) {
	EachVersion(t, func(t *testing.T, p Pair) {
		d := New(t, p.Source, "source")
		d.Exec(t, "create table m (time timestamptz not null, v int); select create_hypertable('m', 'time'); "+
			"insert into m values ('2024-01-01', 1)")
		for _, sql := range []string{
			"alter table m set (timescaledb.compress)",
			"select add_retention_policy('m', interval '1 year')",
			"create materialized view c with (timescaledb.continuous) as select time_bucket('1 day', time), sum(v) " +
				"from m group by 1 with no data",
			functions(t, d) + ".show_chunk((select show_chunks('m')))",
			functions(t, d) + `.create_chunk('m', '{"time": [1609459200000000, 1610064000000000]}')`,
		} {
			_, err := d.Conn(t).Exec(t.Context(), sql)
			if p.Source.Full && err != nil {
				t.Errorf("%s: %v", sql, err)
			}
			if !p.Source.Full && code(err) != "0A000" {
				t.Errorf("%s: %v, want SQLSTATE 0A000", sql, err)
			}
		}
	})
}

// functions is the schema of TimescaleDB's internal functions.
func functions(t *testing.T, d *DB) string {
	var schema string
	d.Query1(t, &schema, `select pronamespace::regnamespace::text from pg_proc
		where proname = 'create_chunk' order by pronamespace::regnamespace::text = '_timescaledb_functions'
		desc limit 1`)
	return "select * from " + schema
}

func code(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

func TestRole(t *testing.T) {
	d := New(t, Installs(t)[0], "source")
	for range 2 { // the second finds the role
		conn, err := pgx.Connect(t.Context(), d.Role(t, `the "app"`))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		var super, owner bool
		err = conn.QueryRow(t.Context(), `select rolsuper, datdba = r.oid from pg_roles r, pg_database
			where rolname = current_user and datname = current_database()`).Scan(&super, &owner)
		if err != nil || super || !owner {
			t.Errorf("superuser %v, owner %v, %v", super, owner, err)
		}
		if _, err := conn.Exec(t.Context(), "create table if not exists mine (v int)"); err != nil {
			t.Error(err)
		}
		if _, err := conn.Exec(t.Context(), "create role other"); code(err) != "42501" {
			t.Errorf("create role: %v, want SQLSTATE 42501", err)
		}
	}
}

func TestServer(t *testing.T) {
	in := Installs(t)[0]
	s := NewServer(t, in, "private", WithConfig("work_mem = 123kB"), WithJobs())
	d := s.DB(t)
	d.Exec(t, "create table m (v int)")
	for _, mode := range []string{"fast", "immediate"} {
		s.Stop(t, mode)
		if _, err := pgx.Connect(t.Context(), d.ConnString); err == nil {
			t.Fatalf("%s: the server still answers", mode)
		}
		s.Start(t)
		d.Exec(t, "select from m")
	}
	var memory string
	d.Query1(t, &memory, "show work_mem")
	if memory != "123kB" {
		t.Errorf("work_mem %s", memory)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		var schedulers int
		d.Query1(t, &schedulers, "select count(*) from pg_stat_activity where datname = current_database() "+
			"and backend_type ~ 'TimescaleDB'")
		if schedulers > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no job scheduler")
		}
	}
}

func TestTLSAndPassword(t *testing.T) {
	s := NewServer(t, Installs(t)[0], "tls", WithTLS(), WithHBA("hostssl all all 127.0.0.1/32 scram-sha-256"))
	d := s.DB(t)
	d.Exec(t, "create role app login password 'right'")
	uri := strings.Replace(d.ConnString, "postgres@", "app:right@", 1)
	conn, err := pgx.Connect(t.Context(), uri)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := pgx.Connect(t.Context(), strings.Replace(uri, "right", "wrong", 1)); code(err) != "28P01" {
		t.Errorf("wrong password: %v, want SQLSTATE 28P01", err)
	}
	other, err := pgx.ParseConfig(strings.Replace(uri, "127.0.0.1", "other", 1))
	if err != nil {
		t.Fatal(err)
	}
	other.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil }
	var mismatch x509.HostnameError
	if _, err := pgx.ConnectConfig(t.Context(), other); !errors.As(err, &mismatch) {
		t.Errorf("connecting to a host that the certificate is not for: %v", err)
	}
}

func TestStandby(t *testing.T) {
	d := New(t, Installs(t)[0], "source")
	d.Exec(t, "create table m as select 1 as v")
	standby := Standby(t, d)
	d.Exec(t, "insert into m values (2)")
	standby.CatchUp(t)
	if got := standby.Rows(t, "select count(*), pg_is_in_recovery() from m"); got[0][0] != "2" || got[0][1] != "t" {
		t.Errorf("standby: %q", got)
	}
}

// TestKill kills a process that has servers and looks for what it left.
func TestKill(t *testing.T) {
	in := Installs(t)[0]
	if given != nil {
		t.Skip("only databases were named")
	}
	if os.Getenv("BF_TEST_VICTIM") != "" {
		d := New(t, in, "source")
		d.Exec(t, "select 1")
		fmt.Printf("victim\t%s\t%d\n", filepath.Dir(d.Server.dir), d.Server.pid)
		select {}
	}
	victim := exec.Command(os.Args[0], "-test.run=^TestKill$", "-test.timeout=1m")
	victim.Env = append(os.Environ(), "BF_TEST_VICTIM=1")
	out, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	defer victim.Process.Kill()
	var dir string
	var pid int
	for lines := bufio.NewScanner(out); dir == ""; {
		if !lines.Scan() {
			t.Fatal("the victim has no server to tell of")
		}
		fmt.Sscanf(lines.Text(), "victim\t%s\t%d", &dir, &pid)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatal(err)
	}
	victim.Process.Kill()
	victim.Wait()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		_, dirErr := os.Stat(dir)
		pidErr := syscall.Kill(pid, 0)
		if errors.Is(dirErr, os.ErrNotExist) && errors.Is(pidErr, syscall.ESRCH) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left behind: %s (%v), server %d (%v)", dir, dirErr, pid, pidErr)
		}
	}
}

func TestPairs(t *testing.T) {
	Installs(t)
	if given != nil {
		t.Skip("only databases were named")
	}
	old, young := Install{"/15", 15, true, "2.9.3"}, Install{"/17", 17, true, "2.19.3"}
	apache := Install{"/17", 17, false, "2.19.3"}
	want := []Pair{
		{old, old}, {old, young}, {old, apache},
		{young, young}, {young, apache},
		{apache, young}, {apache, apache},
	}
	if got := pairs([]Install{old, young, apache}); !slices.Equal(got, want) {
		t.Errorf("pairs: %v", got)
	}
}

func TestMatrix(t *testing.T) {
	Installs(t)
	if given != nil {
		t.Skip("only databases were named")
	}
	old, young := Install{"/15", 15, true, "2.9.3"}, Install{"/17", 17, false, "2.19.3"}
	all := []Install{old, young}
	for matrix, want := range map[string][]Pair{
		"all":             pairs(all),
		"pg15-2.9.3-full": {{old, old}},
		"pg17-2.19.3-apache-to-pg15-2.9.3-full,pg15-2.9.3-full": {{young, old}, {old, old}},
		"pg15-2.9.4-full":            nil,
		"pg15-2.9.3-full-to-nothing": nil,
	} {
		t.Setenv("BF_TEST_MATRIX", matrix)
		got, err := chosen(all)
		if !slices.Equal(got, want) || (err == nil) != (want != nil) {
			t.Errorf("%s: %v, %v", matrix, got, err)
		}
	}
}

func TestFew(t *testing.T) {
	a, b, c := Install{"/a", 15, true, "2.3.0"}, Install{"/a", 15, true, "2.2.0"}, Install{"/a", 15, true, "2.1.0"}
	x, y := Install{"/a", 15, false, "2.3.0"}, Install{"/a", 15, false, "2.1.0"}
	for _, c := range []struct{ all, want []Install }{
		{[]Install{a, b, c, x, y}, []Install{a, c, x}},
		{[]Install{a, x}, []Install{a, x}},
		{[]Install{x, y}, []Install{x}},
	} {
		if got := few(c.all); !slices.Equal(got, c.want) {
			t.Errorf("few(%v) = %v", c.all, got)
		}
	}
}

func TestRedirect(t *testing.T) {
	for _, c := range []struct{ conn, user, want string }{
		{"postgres://u:p@h:1/x?sslmode=disable", "postgres", "postgres://u:p@h:1/db?sslmode=disable"},
		{"postgres://u:p@h:1/x", "app", "postgres://app:bf@h:1/db"},
		{"host=h dbname=x", "app", "host=h dbname=x dbname=db user='app' password=bf"},
		{"host=h", "postgres", "host=h dbname=db"},
	} {
		if got := redirect(c.conn, c.user, "db"); got != c.want {
			t.Errorf("redirect(%q, %q) = %q, want %q", c.conn, c.user, got, c.want)
		}
	}
}

func BenchmarkNew(b *testing.B) {
	in := Installs(b)[0]
	New(b, in, "source")
	for b.Loop() {
		New(b, in, "source")
	}
}

func TestPath(t *testing.T) {
	Path(t)
	path, err := exec.LookPath("bf-stage")
	if err != nil {
		t.Fatal(err)
	}
	if dir := filepath.Dir(path); dir != Bin(t) {
		t.Errorf("bf-stage is found in %s, not in %s", dir, Bin(t))
	}
	if out, err := exec.Command("bf-stage", "--version").CombinedOutput(); err != nil {
		t.Errorf("bf-stage --version: %v\n%s", err, out)
	}
}
