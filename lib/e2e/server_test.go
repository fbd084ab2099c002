package e2e

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"bf/lib/task"
	"bf/lib/testdb"
)

// TestOwner copies as roles that own the tables on their side, and nothing
// else.
func TestOwner(t *testing.T) {
	testdb.EachVersion(t, func(t *testing.T, v testdb.Pair) {
		p := newPair(t, v)
		p.source, p.target = p.src.Role(t, "reader"), p.dst.Role(t, "writer")
		create := `create schema app; create table app.device (id int primary key); insert into app.device values (1);
			create table app.h (ts timestamptz not null, dev int references app.device, v serial,
			primary key (ts, dev, v));
			select create_hypertable('app.h', 'ts', 'dev', 2, chunk_time_interval => interval '1 day')`
		p.src.Exec(t, "set role reader; "+create)
		p.dst.Exec(t, "set role writer; "+create)
		rows := "set role %s; insert into app.h select '2024-01-01'::timestamptz + n * interval '5 hours', 1, n " +
			"from generate_series(1, 20) n %s"
		p.src.Exec(t, fmt.Sprintf(rows, "reader", ""))
		p.dst.Exec(t, fmt.Sprintf(rows, "writer", "where n % 3 = 0"))
		p.stage(t, "--until", "2024-01-04 12:00")
		for _, r := range p.copy(t) {
			if r.Status != task.Loaded {
				t.Errorf("%v", r)
			}
		}
		p.both(t, "reset role")
		p.same(t, "select * from app.h where ts < '2024-01-04 12:00'")
		p.chunks(t, "--all")
		p.ok(t, "", "bf-clean", "--target", p.target)

		// Somebody who owns nothing is told so.
		stranger := p.dst.Role(t, "stranger")
		p.dst.Exec(t, "alter database "+p.dst.Name+" owner to postgres")
		r := p.run(t, "", "bf-stage", "--source", p.source, "--target", stranger, "--until", "2024-01-04")
		if r.status != 1 || !strings.Contains(r.stderr, "42501") {
			t.Errorf("exit status %d: %s", r.status, r.stderr)
		}
	})
}

// TestStandby reads from a hot standby of the source.
func TestStandby(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, v testdb.Pair) {
		p := newPair(t, v)
		simple(t, p, "h")
		standby := testdb.Standby(t, p.src)
		p.source = standby.ConnString
		p.stage(t, "--until", "2024-01-04 12:00")
		p.copy(t)
		p.same(t, "select * from h where ts < '2024-01-04 12:00'")
		// The tasks are good for the primary, too.
		p.stage(t, "--until", "2024-01-06")
		p.source = p.src.ConnString
		p.copy(t)
		p.same(t, "select * from h where ts < '2024-01-06'")
		// A standby that lags behind the plan lacks rows, and takes chunks for
		// dropped: it is refused until it has caught up.
		standby.Exec(t, "select pg_wal_replay_pause()")
		p.src.Exec(t, "insert into h values ('2024-03-01 00:00', 1)")
		p.stage(t, "--until", "2024-03-02", "--from", "2024-02-28")
		records := p.chunks(t)
		r := p.run(t, records, "bf-dump", "--source", standby.ConnString)
		if r.status != 1 || !strings.Contains(r.stderr, "has not replayed the log") {
			t.Errorf("a standby that lags: exit status %d: %s", r.status, r.stderr)
		}
		standby.Exec(t, "select pg_wal_replay_resume()")
		standby.CatchUp(t)
		p.source = standby.ConnString
		p.copy(t)
		p.same(t, "select * from h where ts >= '2024-02-28'")
		// The tasks cannot be kept on a standby.
		r = p.run(t, "", "bf-stage", "--source", p.target, "--target", standby.ConnString, "--until", "2024-01-04")
		if r.status != 1 || !strings.Contains(r.stderr, "SQLSTATE 25006") {
			t.Errorf("a standby as target: exit status %d: %s", r.status, r.stderr)
		}
	})
}

// TestSnapshot reads all chunks in one exported snapshot.
func TestSnapshot(t *testing.T) {
	testdb.EachVersion(t, func(t *testing.T, v testdb.Pair) {
		p := newPair(t, v)
		simple(t, p, "h")
		before := sorted(t, p.src, "select * from h where ts < '2024-01-08'")
		held := p.src.Conn(t)
		var id string
		if _, err := held.Exec(t.Context(), "begin isolation level repeatable read"); err != nil {
			t.Fatal(err)
		}
		if err := held.QueryRow(t.Context(), "select pg_export_snapshot()").Scan(&id); err != nil {
			t.Fatal(err)
		}
		p.stage(t, "--until", "2024-01-08", "--snapshot", id)
		p.src.Exec(t, "update h set v = -v; delete from h where v % 7 = 0; insert into h "+
			"values ('2024-01-02 03:04', 1)")
		rewritten := 0
		if v.Source.Full {
			// A chunk that is compressed after the snapshot reads as empty in it.
			p.src.Exec(t, "alter table h set (timescaledb.compress); select compress_chunk(c) "+
				"from show_chunks('h', older_than => '2024-01-03'::timestamptz) c")
			rewritten = 2
		}
		dump := p.run(t, p.chunks(t), "bf-dump", "--source", p.source)
		load := p.run(t, dump.stdout, "bf-load", "--target", p.target)
		if got := strings.Count(load.stderr, "after it was taken"); got != rewritten ||
			(dump.status == 1) != (rewritten > 0) {
			t.Errorf("%d chunks refused, want %d: %s", got, rewritten, load.stderr)
		}
		if rewritten == 0 {
			diff(t, "in the snapshot", before, sorted(t, p.dst, "select * from h"))
		} else {
			diff(t, "in the snapshot", slices.DeleteFunc(before, func(s string) bool {
				return s < "2024-01-03"
			}), sorted(t, p.dst, "select * from h"))
		}

		// The snapshot is gone: dumps and stages say so.
		if _, err := held.Exec(t.Context(), "commit"); err != nil {
			t.Fatal(err)
		}
		dump = p.run(t, p.chunks(t, "--all"), "bf-dump", "--source", p.source)
		if dump.status != 1 || strings.Count(dump.stderr, "snapshot") < 7 {
			t.Errorf("exit status %d: %s", dump.status, dump.stderr)
		}
		if r := p.run(t, "", "bf-stage", "--source", p.source, "--target", p.target, "--until", "2024-01-08",
			"--snapshot", id); r.status != 1 {
			t.Errorf("exit status %d: %s", r.status, r.stderr)
		}
		// Staging without one takes the refused chunks.
		if got := len(p.stage(t, "--until", "2024-01-08")); got != rewritten {
			t.Errorf("%d tasks renewed, want %d", got, rewritten)
		}
		p.copy(t)
		if n := len(records(t, p.chunks(t))); n != 0 {
			t.Errorf("%d tasks pending", n)
		}
	})
}

// TestRefusedConnections checks what the tools say to whom they cannot reach or
// who does not let them in, and that they never repeat a password.
func TestRefusedConnections(t *testing.T) {
	t.Parallel() // it waits most of the time
	in := testdb.Installs(t)[0]
	s := testdb.NewServer(t, in, "scram", testdb.WithTCP(), testdb.WithHBA("host all all 127.0.0.1/32 scram-sha-256"))
	db := s.DB(t)
	db.Exec(t, "set password_encryption = 'scram-sha-256'; create role me login superuser password 'right "+secret+"'")
	db.Exec(t, "create database bare")
	closed := closedPort(t)
	addr := fmt.Sprintf("127.0.0.1:%d", s.Port)
	uri := func(host, user, password, name string) string {
		return (&url.URL{Scheme: "postgres", User: url.UserPassword(user, password), Host: host,
			Path: "/" + name}).String()
	}
	kv := func(host, user, password, name string) string {
		h, port, _ := net.SplitHostPort(host)
		return fmt.Sprintf(`host=%s port=%s user='%s' password='%s' dbname='%s'`, h, port, user,
			strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(password), name)
	}
	right := "right " + secret
	cases := []struct{ what, host, user, password, db, want string }{
		{"wrong password", addr, "me", secret + ` '"\@:/?#%`, db.Name, "28P01"},
		{"no password", addr, "me", "", db.Name, "password"},
		{"unknown user", addr, "nobody here", right, db.Name, "28P01"},
		{"unknown database", addr, "me", right, "no such db", "3D000"},
		{"no TimescaleDB", addr, "me", right, "bare", "timescaledb extension is not installed"},
		{"unknown host", "no-such-host.invalid:5432", "me", right, db.Name, "no such host"},
		{"closed port", closed, "me", right, db.Name, "connection refused"},
	}
	records := `{"v":1,"task":1,"hypertable":{"schema":"public","name":"h"},"chunk":{"schema":"a","name":"b"},` +
		`"slices":[{"column":"ts","from":"1","until":"2"}],"range":{"column":"ts","from":"1","until":"2"}}` + "\n"
	p := newPair(t, newest(t))
	simple(t, p, "h")
	p.stage(t, "--until", "2024-01-02")
	stream := p.dump(t, p.chunks(t))
	var wg sync.WaitGroup
	for i, c := range cases {
		conn := uri(c.host, c.user, c.password, c.db)
		if i%2 == 1 {
			conn = kv(c.host, c.user, c.password, c.db)
		}
		if c.what == "wrong password" {
			conn = kv(c.host, c.user, c.password, c.db)
		}
		for _, tool := range []struct {
			args  []string
			stdin string
		}{
			{[]string{"bf-stage", "--source", conn, "--target", p.target, "--until", "5"}, ""},
			{[]string{"bf-stage", "--source", p.source, "--target", conn, "--until", "2024-01-01"}, ""},
			{[]string{"bf-chunks", "--target", conn}, ""},
			{[]string{"bf-chunks", "--claim", "--target", conn}, ""},
			{[]string{"bf-dump", "--source", conn}, records},
			{[]string{"bf-load", "--target", conn}, stream},
			{[]string{"bf-clean", "--target", conn}, ""},
			{[]string{"bf-verify", "--source", conn, "--target", p.target}, ""},
			{[]string{"bf-verify", "--source", p.source, "--target", conn}, ""},
			{[]string{"bf-caggs", "--source", conn, "--target", p.target}, ""},
			{[]string{"bf-caggs", "--source", p.source, "--target", conn}, ""},
		} {
			if c.what == "no TimescaleDB" && (tool.args[0] == "bf-clean" || tool.args[0] == "bf-chunks") {
				continue // they need only __backfill, which is not there either
			}
			if c.what == "no TimescaleDB" && slices.Contains([]string{"bf-verify", "bf-caggs"}, tool.args[0]) &&
				tool.args[2] == conn {
				continue // a source need not have it
			}
			wg.Go(func() {
				r := p.run(t, tool.stdin, tool.args[0], append(tool.args[1:], "--quiet")...)
				stdout := r.stdout
				if tool.args[0] == "bf-dump" {
					stdout = "" // an empty stream
				}
				why := wrong(tool.args[0], stdout, r.stderr)
				if r.status != 1 || why != "" || !strings.Contains(r.stderr, c.want) ||
					strings.Contains(r.stdout, secret) {
					t.Errorf("%s: %s: exit status %d, %s: %s", c.what, tool.args[0], r.status, why, r.stderr)
				}
			})
		}
	}
	wg.Wait()
	// And with the right one it goes, in either form.
	for _, conn := range []string{uri(addr, "me", right, db.Name), kv(addr, "me", right, db.Name)} {
		if r := p.run(t, "", "bf-chunks", "--target", conn); r.status != 1 ||
			!strings.Contains(r.stderr, "no schema __backfill") {
			t.Errorf("exit status %d: %s", r.status, r.stderr)
		}
	}
}

// TestCredentials connects with a password file and a service file.
func TestCredentials(t *testing.T) {
	in := testdb.Installs(t)[0]
	s := testdb.NewServer(t, in, "scram", testdb.WithTCP(), testdb.WithHBA("host all all 127.0.0.1/32 scram-sha-256"))
	db := s.DB(t)
	db.Exec(t, "set password_encryption = 'scram-sha-256'; create role me login superuser password '"+secret+"'")
	dir := t.TempDir()
	passfile, services := filepath.Join(dir, "pass"), filepath.Join(dir, "services")
	for name, text := range map[string]string{
		passfile: fmt.Sprintf("127.0.0.1:%d:*:me:%s\n", s.Port, secret),
		services: fmt.Sprintf("[there]\nhost=127.0.0.1\nport=%d\nuser=me\ndbname=%s\n", s.Port, db.Name),
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := newPair(t, newest(t))
	for _, conn := range []string{
		fmt.Sprintf("postgres://me@127.0.0.1:%d/%s?passfile=%s", s.Port, db.Name, passfile),
		fmt.Sprintf("host=127.0.0.1 port=%d user=me dbname=%s passfile=%s", s.Port, db.Name, passfile),
		fmt.Sprintf("service=there servicefile=%s passfile=%s", services, passfile),
		fmt.Sprintf("postgres:///?service=there&servicefile=%s&passfile=%s", services, passfile),
	} {
		// Let in: there is no __backfill yet.
		if r := p.run(t, "", "bf-chunks", "--target", conn); r.status != 1 ||
			!strings.Contains(r.stderr, "no schema __backfill") {
			t.Errorf("%s: exit status %d: %s", conn, r.status, r.stderr)
		}
	}
	cmd := p.command(t, "bf-chunks", "--target", "service=there")
	cmd.Env = append(cmd.Env, "PGSERVICEFILE="+services, "PGPASSFILE="+passfile)
	if out, _ := cmd.CombinedOutput(); !strings.Contains(string(out), "no schema __backfill") {
		t.Errorf("by the environment: %s", out)
	}
}

// TestTLS checks that sslmode means what it means to libpq.
func TestTLS(t *testing.T) {
	in := testdb.Installs(t)[0]
	s := testdb.NewServer(t, in, "tls", testdb.WithTLS(), testdb.WithHBA("hostssl all all 127.0.0.1/32 trust"))
	db := s.DB(t)
	p := newPair(t, newest(t))
	for _, c := range []struct{ what, conn, want string }{
		{"verify-full", db.ConnString, "no schema __backfill"},
		{"require", strings.Replace(db.ConnString, "verify-full", "require", 1), "no schema __backfill"},
		{"without TLS", strings.Replace(db.ConnString, "verify-full", "disable", 1), "SQLSTATE 28000"},
		{"another name", strings.Replace(db.ConnString, "127.0.0.1", "localhost", 1), "certificate"},
		{"verify-ca by another name", strings.NewReplacer("127.0.0.1", "localhost", "verify-full",
			"verify-ca").Replace(db.ConnString), "no schema __backfill"},
		{"unknown authority", regexp.MustCompile("&sslrootcert=.*").ReplaceAllString(db.ConnString, ""), "certificate"},
	} {
		r := p.run(t, "", "bf-chunks", "--target", c.conn)
		if why := wrong("bf-chunks", r.stdout, r.stderr); r.status != 1 || why != "" ||
			!strings.Contains(r.stderr, c.want) {
			t.Errorf("%s: exit status %d, %s: %s", c.what, r.status, why, r.stderr)
		}
	}
}

// TestLibpqParameters connects with what libpq knows and the server does not.
// What would make a connection less safe if it were passed over is refused.
func TestLibpqParameters(t *testing.T) {
	in := testdb.Installs(t)[0]
	s := testdb.NewServer(t, in, "tls", testdb.WithTLS(), testdb.WithHBA("hostssl all all 127.0.0.1/32 trust"))
	db := s.DB(t)
	db.Exec(t, "alter system set ssl_max_protocol_version = 'TLSv1.2'")
	db.Exec(t, "select pg_reload_conf()")
	for _, c := range []struct{ params, want string }{ // "" for let in
		{"gssencmode=disable", ""}, {"gssencmode=prefer", ""},
		{"gssencmode=require", "gssencmode=require is not supported"},
		{"sslcompression=0", ""}, {"sslcompression=1", ""}, {"fallback_application_name=x", ""},
		{"load_balance_hosts=random", ""},
		{"gsslib=gssapi", ""}, {"gssdelegation=0", ""}, {"krbsrvname=postgres", ""}, {"client_encoding=auto", ""},
		{"client_encoding=LATIN1", ""},
		{"replication=false", ""}, {"replication=database", "replication is not supported"}, {"connect_timeout=-1", ""},
		{"connect_timeout=0", ""},
		{"sslcrl=/nowhere", "sslcrl is not supported"}, {"sslcrl=", ""},
		{"sslcrldir=/nowhere", "sslcrldir is not supported"}, {"requirepeer=postgres", "requirepeer is not supported"},
		{"channel_binding=prefer", ""}, {"channel_binding=require", "channel binding"}, {"sslsni=0", ""},
		{"options=-c%20work_mem%3D8MB", ""}, {"hostaddr=127.0.0.1", ""},
		{"ssl_min_protocol_version=TLSv1.2", ""}, {"ssl_min_protocol_version=TLSv1.3", "protocol version"},
		{"ssl_max_protocol_version=TLSv1.2", ""},
		{"ssl_min_protocol_version=TLSv1.3&ssl_max_protocol_version=TLSv1.2", "ssl_min_protocol_version is higher"},
		{"ssl_min_protocol_version=SSLv3", "no version of TLS"},
	} {
		kv := strings.NewReplacer("&", "' ", "=", "='", "%20", " ", "%3D", "=").Replace(c.params) + "'"
		u, err := url.Parse(db.ConnString)
		if err != nil {
			t.Fatal(err)
		}
		for _, conn := range []string{
			db.ConnString + "&" + c.params,
			fmt.Sprintf("host=127.0.0.1 port=%s user=postgres dbname=%s sslmode=verify-full sslrootcert=%s %s",
				u.Port(), db.Name, u.Query().Get("sslrootcert"), kv),
		} {
			want := c.want
			if want == "" {
				want = "no schema __backfill"
			}
			r := (*pair)(nil).run(t, "", "bf-chunks", "--target", conn)
			if why := wrong("bf-chunks", r.stdout, r.stderr); r.status != 1 || why != "" ||
				!strings.Contains(r.stderr, want) {
				t.Errorf("%s: exit status %d, %s: %s", conn, r.status, why, r.stderr)
			}
		}
	}
	// Without TLS there are two configurations to look after.
	if r := (*pair)(nil).run(t, "", "bf-chunks", "--target", strings.Replace(db.ConnString, "verify-full", "prefer", 1)+
		"&ssl_min_protocol_version=TLSv1.3"); r.status != 1 || strings.Contains(r.stderr, "no schema") {
		t.Errorf("exit status %d: %s", r.status, r.stderr)
	}
}

// closedPort is an address where nobody listens.
func closedPort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
