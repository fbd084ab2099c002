package e2e

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"runtime"
	"strings"
	"testing"

	"bf/lib/testdb"
)

// fromHost returns a connection string of the database for those who work on another
// host, as the server sees it: what connects there comes from that address.
func fromHost(t *testing.T, d *testdb.DB, address string) string {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("elsewhere a host has not all addresses of 127.0.0.0/8")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	u, err := url.Parse(d.ConnString)
	if err != nil {
		t.Fatal(err)
	}
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := dialer.Dial("tcp", u.Host)
			if err != nil {
				c.Close()
				continue
			}
			for _, ends := range [][2]net.Conn{{c, s}, {s, c}} {
				go func() {
					_, _ = io.Copy(ends[0], ends[1])
					ends[0].Close()
				}()
			}
		}
	}()
	return fmt.Sprintf("postgres://postgres@%s/%s", l.Addr(), d.Name)
}

// TestWatchHosts: lanes on several hosts share the tasks of one target, and the view
// says where each of them is, on whatever host it runs. One host fails: what it had in
// hand is copied by another one.
func TestWatchHosts(t *testing.T) {
	in := newestFull(t).Target // where a trigger does not keep lanes from making their chunks
	target := testdb.NewServer(t, in, "target", testdb.WithTCP(),
		testdb.WithHBA("host all all 127.0.0.0/8 trust")).DB(t)
	p := &pair{src: testdb.New(t, in, "source"), dst: target, target: target.ConnString}
	p.source = p.src.ConnString
	p.metrics(t)
	release := p.stall(t)
	p.dst.Exec(t, "alter function hold set lock_timeout = 0")
	p.stage(t, "--until", "2016-01-02")
	// A claim takes more than one chunk of a few kB.
	p.dst.Exec(t, "update __backfill.task set est_bytes = 1e9")
	ends := map[string]chan result{}
	for i, host := range []string{"127.0.0.2", "127.0.0.3", "127.0.0.4"} {
		lane := *p
		lane.target = fromHost(t, target, host)
		end := make(chan result, 1)
		go func() {
			end <- lane.sh(t, `bf-chunks --target "$TARGET" --claim | bf-dump --source "$SOURCE" |
                bf-load --target "$TARGET"`)
		}()
		ends[host] = end
		eventually(t, target, waiting, i+1)
	}
	watch := *p
	watch.target = fromHost(t, target, "127.0.0.5")
	term := newTerminal(t, 100, 20)
	cmd := p.command(t, "bf-chunks", "--target", watch.target, "--watch", "--every", "0.2")
	term.onTerminal(t, cmd)
	term.shows(t, `(?m)^copy  \[\.*\]   0%.*
   public.metrics  0/8 chunks  .*
 > public.metrics _hyper_1_\d+_chunk  .* from 127\.0\.0\.2
 > public.metrics _hyper_1_\d+_chunk  .* from 127\.0\.0\.3
 > public.metrics _hyper_1_\d+_chunk  .* from 127\.0\.0\.4
$`)

	// A narrow terminal names no hosts.
	term.resize(t, 36, 20)
	term.shows(t, `(?m)^ > public.*chunk( +\d+%?.*)?\n > public.*\n > public`)
	term.resize(t, 100, 20)

	// One host is lost.
	p.dst.Exec(t, "select pg_terminate_backend(pid) from pg_stat_activity "+
		"where datname = current_database() and client_addr = '127.0.0.3'")
	if r := <-ends["127.0.0.3"]; r.status == 0 {
		t.Error("a lane whose connections were cut ends with 0")
	}
	term.shows(t, `(?m)^copy  \[.*
.*
 > .* from 127\.0\.0\.2
 > .* from 127\.0\.0\.4
$`)
	release()
	for _, host := range []string{"127.0.0.2", "127.0.0.4"} {
		if r := <-ends[host]; r.status != 0 {
			t.Errorf("lane on %s: exit status %d\n%s", host, r.status, r.stderr)
		}
	}
	cmd.Wait()
	term.shows(t, `(?m)^bf-chunks: public.metrics: all of it copied, 8 chunks, (.*\n)+public.metrics +8/8 `)
	p.same(t, "select * from metrics")
}

// TestWatchSlices: of a plain table each lane and each failure is shown with the range
// that it is at.
func TestWatchSlices(t *testing.T) {
	p := newPlain(t, newest(t))
	p.src.Exec(t, `create table metrics (time timestamptz not null, v int);
		insert into metrics select '2024-01-01Z'::timestamptz + i * interval '1 hour', i from generate_series(0, 47) i;
		create index on metrics (time)`)
	p.dst.Exec(t, `create table metrics (time timestamptz not null, v int check (v <> 30));
		select create_hypertable('metrics', 'time', chunk_time_interval => interval '1 day')`)
	release := p.stall(t)
	p.dst.Exec(t, "alter function hold set lock_timeout = 0")
	p.stage(t, "--until", "2024-01-03")
	term := newTerminal(t, 90, 20)
	cmd := p.command(t, "bf-chunks", "--target", p.target, "--watch", "--every", "0.2")
	term.onTerminal(t, cmd)
	const lane = `bf-chunks --target "$TARGET" | bf-dump --source "$SOURCE" | bf-load --target "$TARGET"`
	end := make(chan result, 1)
	go func() { end <- p.sh(t, lane) }()
	term.shows(t, `(?m)^ > public.metrics \[2024-01-02, 2024-01-03\)  .*\ds$`)
	release()
	if r := <-end; r.status != 1 {
		t.Errorf("exit status %d\n%s", r.status, r.stderr)
	}
	term.shows(t, `(?m)^bf-chunks: failed: public.metrics \[2024-01-02, 2024-01-03\): `)
	term.master.WriteString("\x03")
	cmd.Wait()
	for _, want := range []string{`  task 1, public.metrics [2024-01-02, 2024-01-03): `, `"range":{"column":"time"`,
		"\n  1 chunk is to be copied: bf-backfill\n"} {
		args := []string{"--target", p.target, "--report"}
		if want[0] == '"' {
			args = append(args, "--json")
		}
		if out := p.ok(t, "", "bf-chunks", args...); !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	stderr, status := output(t, p.script(t, "backfill", "--until", "2024-01-03"))
	want := "  task 1, rows [2024-01-02 00:00:00+00, 2024-01-03 00:00:00+00)\n"
	if status != 1 || !strings.Contains(stderr, want) {
		t.Errorf("exit status %d, no %q in\n%s", status, want, stderr)
	}
}
